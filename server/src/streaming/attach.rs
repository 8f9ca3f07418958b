// SPDX-License-Identifier: Apache-2.0
//! A client at the standard streams of a container that runs: output from now on, and its input.
//!
//! The monitor copies output into sockets of ours and hands over the writing side of the input. A
//! client that reads too slowly is let go by the monitor; the container and its log never wait.

use super::remote::{Remote, Version, drain_into, feed, opened, verdict};
use super::session::{Alive, Session};
use super::terminal::Sizes;
use super::tokens::Wanted;
use crate::error::{Error, Result};
use crate::exec;
use crate::monitors;
use crate::node::Node;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Streams;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Sender;
use tokio::sync::watch;

/// How far a client may be behind, in bytes, where the kernel lets us.
const BEHIND_BYTES_MAX: usize = 1 << 20;

/// Attaches the client of `session`.
pub(super) async fn serve(
    node: &Arc<Node>,
    container: &ContainerId,
    wanted: Wanted,
    version: Version,
    mut session: Session,
) {
    let Some(mut remote) = opened(&mut session, wanted, version).await else { return };
    let alive = session.alive.clone();
    let outcome = match attach(node, container, wanted, &mut remote).await {
        Ok(copying) => copying.run(node, container, remote.take(), alive).await,
        Err(err) => Err(err),
    };
    // A client that is gone misses nothing but this.
    let _gone = remote.error.write(verdict(&outcome.map(|()| 0), version)).await;
    remote.error.end().await;
    session.finish().await;
}

/// Our sides of the container's streams.
#[derive(Debug)]
struct Copying {
    stdin: Option<OwnedFd>,
    stdout: Option<UnixStream>,
    stderr: Option<UnixStream>,
}

async fn attach(
    node: &Arc<Node>,
    id: &ContainerId,
    wanted: Wanted,
    remote: &mut Remote,
) -> Result<Copying> {
    const DOING: &str = "attach to the container";
    let failed = |source| Error::ExecPipes { source };
    let not_found = || Error::NotFound { kind: "container", id: id.to_string() };
    let (_, pod) = node.registry.container(id.as_str()).ok_or_else(not_found)?;
    let view = pod.view();
    let _runs = exec::running(&view, id, "attach to")?;
    let lost = || Error::Monitor { doing: DOING, source: monitors::Error::Lost };
    let client = view.client.clone().ok_or_else(lost)?;
    let streams = Streams {
        // The size of a terminal is set there as well.
        stdin: wanted.stdin || wanted.tty,
        stdout: remote.sides.stdout.is_some(),
        stderr: remote.sides.stderr.is_some(),
        tty: wanted.tty,
    };
    let mut theirs = Vec::new();
    let mut pair = |wanted: bool| -> io::Result<Option<StdStream>> {
        if !wanted {
            return Ok(None);
        }
        let (ours, other) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        sockopt::set_socket_send_buffer_size(&other, BEHIND_BYTES_MAX)?;
        theirs.push(OwnedFd::from(other));
        Ok(Some(ours))
    };
    let stdin = pair(streams.stdin).map_err(failed)?;
    let stdout = pair(streams.stdout).map_err(failed)?;
    let stderr = pair(streams.stderr).map_err(failed)?;
    let attached = client.attach(id.clone(), streams, theirs).await;
    attached.map_err(|source| Error::Monitor { doing: DOING, source })?;
    let socket = |stream: Option<StdStream>| stream.map(UnixStream::from_std).transpose();
    Ok(Copying {
        stdin: stdin.and_then(|stdin| handed_over(&stdin)),
        stdout: socket(stdout).map_err(failed)?,
        stderr: socket(stderr).map_err(failed)?,
    })
}

/// The descriptor that the monitor sent before it answered; none when the container has no input.
fn handed_over(socket: &StdStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut found = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            found = fds.into_iter().next();
        }
    }
    found
}

impl Copying {
    /// Copies until the container has ended or its output has; `Ok` also when the client goes.
    async fn run(
        self,
        node: &Arc<Node>,
        id: &ContainerId,
        client: super::remote::Sides,
        mut alive: Alive,
    ) -> Result<()> {
        let failed = |source| Error::ExecPipes { source };
        let drain = Duration::from_secs(node.config.runtime.exec_drain_s);
        let (told, over) = watch::channel(false);
        let (keys, sizes) = match self.stdin {
            Some(stdin) => {
                let sizes = stdin.try_clone().map(Sizes::of).map_err(failed)?;
                rustix::io::ioctl_fionbio(&stdin, true).map_err(|err| failed(err.into()))?;
                (Some(Sender::from_owned_fd_unchecked(stdin).map_err(failed)?), Some(sizes))
            }
            None => (None, None),
        };
        // Each goes when its own client side ends: with it the container's input may.
        let keys = async move {
            if let (Some(client), Some(to)) = (client.stdin, keys) {
                feed(client, to).await;
            }
        };
        let sizes = async move {
            if let (Some(client), Some(sizes)) = (client.resize, sizes) {
                sizes.follow(client).await;
            }
        };
        let input = async {
            tokio::join!(keys, sizes);
        };
        let sides = [(self.stdout, client.stdout), (self.stderr, client.stderr)];
        let pairs = sides.into_iter().filter_map(|(from, to)| from.zip(to));
        let output: Vec<_> =
            pairs.map(|(from, to)| drain_into(from, to, over.clone(), drain)).collect();
        let has_output = !output.is_empty();
        let output = futures_util::future::join_all(output);
        let ended = async {
            if let Some((_, pod)) = node.registry.container(id.as_str()) {
                pod.container_ended(id).await;
            }
        };
        tokio::pin!(input, output, ended);
        let mut input_done = false;
        loop {
            tokio::select! {
                () = &mut ended => break,
                () = &mut input, if !input_done => input_done = true,
                _ = &mut output, if has_output => return Ok(()),
                () = alive.gone() => return Ok(()),
            }
        }
        told.send_replace(true);
        tokio::select! {
            _ = output => {}
            () = alive.gone() => {}
        }
        Ok(())
    }
}
