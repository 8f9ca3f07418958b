// SPDX-License-Identifier: Apache-2.0
//! Attach: a client at the standard streams of a running container, with the output from now on, and the input.
//!
//! The monitor copies output into sockets of the daemon, and passes the writing end of the input. Output for a slow
//! client is buffered here up to a limit, then in the socket. When that is full too, the monitor disconnects the
//! client (at once, or after the seconds for which an interactive container waits), and the client gets a message
//! that says so.

use super::remote::{ClientStreams, copy_input, open_client_streams, status_message};
use crate::container::exec;
use crate::error::{Error, Result};
use crate::monitors;
use crate::node::Node;
use bytes::{Bytes, BytesMut};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Failure, Streams};
use hull_streaming::channel::{CHUNK, Outbound};
use hull_streaming::remotecommand::{RequestedStreams, Version};
use hull_streaming::session::{Liveness, Session};
use hull_streaming::terminal::{Sizes, TerminalResizer};
use rustix::net::sockopt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{Semaphore, mpsc};

/// Size of the socket's buffer, in bytes, where the kernel allows it.
const SOCKET_BYTES: usize = 1 << 20;
/// Most chunks that are buffered per stream of a client: enough for a large file that a user prints in a
/// terminal.
const BUFFERED_CHUNKS_MAX: usize = 128;
/// Most chunks that are buffered for all clients together. After that, each client has one chunk.
static BUFFERED: Semaphore = Semaphore::const_new(2048);

/// Attaches the client of `session`.
pub(super) async fn serve(
    node: &Arc<Node>,
    container: &ContainerId,
    requested: RequestedStreams,
    version: Version,
    mut session: Session,
) {
    let Some(mut remote) = open_client_streams(&mut session, requested, version).await else {
        return;
    };
    let mut liveness = session.liveness.clone();
    let outcome = match attach(node, container, requested, &mut remote).await {
        Ok(streams) => streams.copy(node, container, remote.take(), liveness).await,
        Err(err) if has_exited(&err) => Err(ended(node, container, &mut liveness, err).await),
        Err(err) => Err(err),
    };
    session
        .finish_after(async {
            let message = status_message(&outcome.map(|()| 0), version);
            // Fails if the client disconnects now.
            let _disconnected = remote.error.write(message).await;
            remote.error.end().await;
        })
        .await;
}

/// Whether the monitor answered that the container has exited.
fn has_exited(error: &Error) -> bool {
    let Error::Monitor { source: monitors::Error::Refused { failure }, .. } = error else {
        return false;
    };
    *failure == Failure::NotRunning
}

/// The error for a container that the monitor knows to have exited, and its status does not show that yet: who asks
/// for the status after this answer must find the exit there.
async fn ended(
    node: &Arc<Node>,
    id: &ContainerId,
    liveness: &mut Liveness,
    error: Arc<Error>,
) -> Arc<Error> {
    let Some((_, pod)) = node.registry.container(id.as_str()) else { return error };
    tokio::select! {
        () = pod.container_ended(id) => {}
        () = liveness.disconnected() => {}
    }
    exec::running(&pod.view(), id, "attach to").err().unwrap_or(error)
}

/// The daemon's ends of the container's streams.
#[derive(Debug)]
struct ContainerStreams {
    stdin: Option<OwnedFd>,
    stdout: Option<UnixStream>,
    stderr: Option<UnixStream>,
}

async fn attach(
    node: &Arc<Node>,
    id: &ContainerId,
    requested: RequestedStreams,
    remote: &mut ClientStreams,
) -> Result<ContainerStreams> {
    const DOING: &str = "attach to the container";
    let failed = |source| Error::ExecPipes { source };
    let not_found = || Error::NotFound { kind: "container", id: id.to_string() };
    let (_, pod) = node.registry.container(id.as_str()).ok_or_else(not_found)?;
    let view = pod.view();
    let _runs = exec::running_thawed(node, &view, id, "attach to")?;
    let lost = || Error::Monitor { doing: DOING, source: monitors::Error::Lost };
    let client = view.client.clone().ok_or_else(lost)?;
    let streams = Streams {
        // Needed for the size of a terminal too.
        stdin: requested.stdin || requested.tty,
        stdout: remote.std.stdout.is_some(),
        stderr: remote.std.stderr.is_some(),
        tty: requested.tty,
    };
    let mut theirs = Vec::new();
    let mut pair = |requested: bool, is_output: bool| -> io::Result<Option<StdStream>> {
        if !requested {
            return Ok(None);
        }
        let (ours, other) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        if is_output {
            // The monitor reads this byte when the stream ends normally, see `FellBehind`.
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
    Ok(ContainerStreams {
        stdin: stdin.and_then(|stdin| received_fd(&stdin)),
        stdout: socket(stdout).map_err(failed)?,
        stderr: socket(stderr).map_err(failed)?,
    })
}

/// The descriptor that the monitor sent before its answer; `None` if the container has no input.
fn received_fd(socket: &StdStream) -> Option<OwnedFd> {
    hull_sys::receive_fd(socket.as_fd()).ok().flatten()
}

impl ContainerStreams {
    /// Copies until the container or its output has ended; for a client of the input alone, until all of its input is
    /// in the container's pipe. `Ok` also if the client disconnects.
    async fn copy(
        self,
        node: &Arc<Node>,
        id: &ContainerId,
        client: super::remote::StdStreams,
        mut liveness: Liveness,
    ) -> Result<()> {
        let failed = |source| Error::ExecPipes { source };
        let (keys, sizes) = match self.stdin {
            Some(stdin) => {
                let sizes = stdin.try_clone().map(TerminalResizer::new).map_err(failed)?;
                rustix::io::ioctl_fionbio(&stdin, true).map_err(|err| failed(err.into()))?;
                (Some(Sender::from_owned_fd_unchecked(stdin).map_err(failed)?), Some(sizes))
            }
            None => (None, None),
        };
        // Each is closed when the client's side of it ends, and with it possibly the container's input.
        let keys = async move {
            if let (Some(client), Some(to)) = (client.stdin, keys) {
                copy_input(client, to).await;
            }
        };
        let sizes = async move {
            if let (Some(client), Some(sizes)) = (client.resize, sizes) {
                sizes.apply_all(Sizes::new(client)).await;
            }
        };
        let input = async {
            tokio::join!(keys, sizes);
        };
        let sides = [(self.stdout, client.stdout), (self.stderr, client.stderr)];
        let pairs = sides.into_iter().filter_map(|(from, to)| from.zip(to));
        let output: Vec<_> = pairs.map(|(from, to)| copy_output(from, to)).collect();
        let ended = async {
            if let Some((_, pod)) = node.registry.container(id.as_str()) {
                pod.container_ended(id).await;
            }
        };
        let is_input_alone = output.is_empty();
        let output = async {
            if is_input_alone {
                ended.await;
                return Ok(());
            }
            // The monitor closes them after the container has ended and all output was sent.
            futures_util::future::join_all(output).await.into_iter().collect()
        };
        tokio::pin!(input, output);
        let mut input_done = false;
        let shown: std::result::Result<(), FellBehind> = loop {
            if is_input_alone && input_done {
                break Ok(());
            }
            tokio::select! {
                shown = &mut output => break shown,
                () = &mut input, if !input_done => input_done = true,
                () = liveness.disconnected() => return Ok(()),
            }
        };
        match shown {
            Ok(()) => Ok(()),
            Err(FellBehind) => Err(Error::FellBehind { container: id.to_string() }.into()),
        }
    }
}

/// An error: the monitor disconnected a slow client. It closed the socket without reading the daemon's byte.
#[derive(Debug, PartialEq, Eq)]
struct FellBehind;

/// Copies one stream to the client until it ends. Output from before a disconnect is still sent.
async fn copy_output(
    mut from: UnixStream,
    client: Outbound,
) -> std::result::Result<(), FellBehind> {
    let (kept, mut queue) = mpsc::channel(BUFFERED_CHUNKS_MAX);
    let take = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match from.read_buf(&mut chunk).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return Err(FellBehind),
                Err(_) => return Ok(()),
            }
            // Small chunks must not keep large buffers while they wait.
            let chunk = if chunk.len() < CHUNK / 2 {
                Bytes::copy_from_slice(&chunk)
            } else {
                chunk.freeze()
            };
            let permit = BUFFERED.try_acquire().ok();
            // Without a permit, all waiting chunks must be sent first.
            let places = if permit.is_some() { 1 } else { BUFFERED_CHUNKS_MAX };
            let Ok(mut place) = kept.reserve_many(places).await else { return Ok(()) };
            if let Some(place) = place.next() {
                place.send((chunk, permit));
            }
        }
    };
    let give = async move {
        while let Some((chunk, permit)) = queue.recv().await {
            if client.write(chunk).await.is_err() {
                return;
            }
            drop(permit);
        }
        client.end().await;
    };
    let (taken, ()) = tokio::join!(take, give);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_streaming::channel::Outgoing;

    /// The output that a client gets from a socket that was closed with the daemon's byte unread or read.
    async fn output_of(in_order: bool) -> (Vec<u8>, std::result::Result<(), FellBehind>) {
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
        let result = copy_output(UnixStream::from_std(ours).unwrap(), client).await;
        let mut bytes = Vec::new();
        while let Some(out) = sent.recv().await {
            if let Outgoing::Data { bytes: some, .. } = out {
                bytes.extend_from_slice(&some);
            }
        }
        (bytes, result)
    }

    #[tokio::test]
    async fn an_end_and_a_disconnect_are_distinguished() {
        assert_eq!(output_of(true).await, (b"some words".to_vec(), Ok(())));
        assert_eq!(output_of(false).await, (b"some words".to_vec(), Err(FellBehind)));
    }
}
