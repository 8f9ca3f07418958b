// SPDX-License-Identifier: Apache-2.0
//! A client at the standard streams of a container that runs: output from now on, and its input.
//!
//! The monitor copies output into sockets of ours and hands over the writing side of the input. What a
//! client does not take is kept here up to a limit, then in the socket. When that is full too, the
//! monitor lets go of it (at once, or after the seconds for which an interactive container waits), and
//! it is told so.

use super::remote::{Remote, feed, opened, verdict};
use crate::container::exec;
use crate::error::{Error, Result};
use crate::monitors;
use crate::node::Node;
use bytes::{Bytes, BytesMut};
use hull_proto::id::ContainerId;
use hull_proto::monitor::Streams;
use hull_streaming::channel::{CHUNK, Outbound};
use hull_streaming::remotecommand::{Version, Wanted};
use hull_streaming::session::{Alive, Session};
use hull_streaming::terminal::Sizes;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{Semaphore, mpsc};

/// How much waits in the kernel for us to take it, in bytes, where it lets us.
const SOCKET_BYTES: usize = 1 << 20;
/// How far a client may be behind, per stream: what a terminal is sent at once when somebody shows a
/// large file in it.
const BEHIND_CHUNKS_MAX: usize = 128;
/// How far all clients together may be behind. With none of it left, each has one chunk.
static BEHIND: Semaphore = Semaphore::const_new(2048);

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
    let mut pair = |wanted: bool, is_output: bool| -> io::Result<Option<StdStream>> {
        if !wanted {
            return Ok(None);
        }
        let (ours, other) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        if is_output {
            // The monitor takes it when the stream ends in order, see `Cut`.
            rustix::io::write(&ours, b"e")?;
        }
        sockopt::set_socket_send_buffer_size(&other, SOCKET_BYTES)?;
        theirs.push(OwnedFd::from(other));
        Ok(Some(ours))
    };
    let stdin = pair(streams.stdin, false).map_err(failed)?;
    let stdout = pair(streams.stdout, true).map_err(failed)?;
    let stderr = pair(streams.stderr, true).map_err(failed)?;
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
        let output: Vec<_> = pairs.map(|(from, to)| show(from, to)).collect();
        let ended = async {
            if let Some((_, pod)) = node.registry.container(id.as_str()) {
                pod.container_ended(id).await;
            }
        };
        let output = async {
            if output.is_empty() {
                ended.await;
                return Ok(());
            }
            // The monitor ends them when the container has ended and all was sent.
            futures_util::future::join_all(output).await.into_iter().collect()
        };
        tokio::pin!(input, output);
        let mut input_done = false;
        let shown: std::result::Result<(), Cut> = loop {
            tokio::select! {
                shown = &mut output => break shown,
                () = &mut input, if !input_done => input_done = true,
                () = alive.gone() => return Ok(()),
            }
        };
        match shown {
            Ok(()) => Ok(()),
            Err(Cut) => Err(Error::FellBehind { container: id.to_string() }.into()),
        }
    }
}

/// The monitor let go of the client: it closed the socket over our byte.
#[derive(Debug, PartialEq, Eq)]
struct Cut;

/// Copies one stream to the client until it ends; all that came before a cut is still sent.
async fn show(mut from: UnixStream, client: Outbound) -> std::result::Result<(), Cut> {
    let (kept, mut queue) = mpsc::channel(BEHIND_CHUNKS_MAX);
    let take = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match from.read_buf(&mut chunk).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return Err(Cut),
                Err(_) => return Ok(()),
            }
            // Small pieces must not hold big buffers while they wait.
            let chunk = if chunk.len() < CHUNK / 2 {
                Bytes::copy_from_slice(&chunk)
            } else {
                chunk.freeze()
            };
            let room = BEHIND.try_acquire().ok();
            // Without room for more, all that waits must be gone first.
            let places = if room.is_some() { 1 } else { BEHIND_CHUNKS_MAX };
            let Ok(mut place) = kept.reserve_many(places).await else { return Ok(()) };
            if let Some(place) = place.next() {
                place.send((chunk, room));
            }
        }
    };
    let give = async move {
        while let Some((chunk, room)) = queue.recv().await {
            if client.write(chunk).await.is_err() {
                return;
            }
            drop(room);
        }
        client.end().await;
    };
    let (taken, ()) = tokio::join!(take, give);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_streaming::channel::Out;

    /// What a client is shown of a socket with these bytes, closed over our byte or in order.
    async fn shown(in_order: bool) -> (Vec<u8>, std::result::Result<(), Cut>) {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        rustix::io::write(&ours, b"e").unwrap();
        rustix::io::write(&theirs, b"some words").unwrap();
        if in_order {
            rustix::io::read(&theirs, &mut [0; 1]).unwrap();
        }
        drop(theirs);
        let (out, mut sent) = mpsc::channel(8);
        let client = Outbound::new(1, out, None);
        let result = show(UnixStream::from_std(ours).unwrap(), client).await;
        let mut bytes = Vec::new();
        while let Some(out) = sent.recv().await {
            if let Out::Data { bytes: some, .. } = out {
                bytes.extend_from_slice(&some);
            }
        }
        (bytes, result)
    }

    #[tokio::test]
    async fn an_end_and_a_cut_are_told_apart() {
        assert_eq!(shown(true).await, (b"some words".to_vec(), Ok(())));
        assert_eq!(shown(false).await, (b"some words".to_vec(), Err(Cut)));
    }
}
