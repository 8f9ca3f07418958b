// SPDX-License-Identifier: Apache-2.0
//! Port-forward: connections into a pod.
//!
//! For every connection the client opens a stream for errors and one for data, with the port and a
//! number that pairs them. The connection is made from inside the pod's network namespace to its
//! loopback, so a server that listens only there is reached as well.

use crate::node::Node;
use crate::pod::State;
use crate::storage::blocking;
use bytes::BytesMut;
use hull_proto::id::PodId;
use hull_streaming::channel::{CHUNK, Inbound, Outbound};
use hull_streaming::session::{Session, Stream};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tracing::debug;

/// Most streams that may wait for their other half.
const HALVES_MAX: usize = crate::limits::HALVES.count();
/// Most connections of one client: as many as the pairs of streams that it can open.
const CONNECTIONS_MAX: usize = crate::limits::FORWARDS.count();
/// Time limit for connecting inside the pod.
const CONNECT_MAX: Duration = crate::limits::FORWARD_CONNECT_S.time();

/// One of the two streams of a connection, before the other one is opened.
#[derive(Debug)]
enum Half {
    Error(Outbound),
    Data(Inbound, Outbound),
}

impl Half {
    /// Ends the stream without waiting for the other one.
    async fn refuse(self) {
        match self {
            Self::Error(output) | Self::Data(_, output) => output.end().await,
        }
    }
}

/// Serves the client until it disconnects or the pod is stopped.
pub(super) async fn serve(node: &Arc<Node>, pod: &PodId, mut session: Session) {
    let mut halves: HashMap<(String, u16), Half> = HashMap::new();
    let mut connections = JoinSet::new();
    let Some(handle) = node.registry.pod(pod.as_str()) else { return };
    let stopped = handle.stopped();
    tokio::pin!(stopped);
    loop {
        let stream = tokio::select! {
            stream = session.streams.recv() => stream,
            () = &mut stopped => break,
            Some(_) = connections.join_next() => continue,
        };
        let Some(Stream { headers, input, output }) = stream else { break };
        let port = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let half = match headers.get("streamtype").map(String::as_str) {
            Some("error") => Half::Error(output),
            Some("data") => Half::Data(input, output),
            _ => {
                output.end().await;
                continue;
            }
        };
        let Some(port) = port else {
            half.refuse().await;
            continue;
        };
        // Old clients send no request id: they open one pair at a time.
        let key = (headers.get("requestid").cloned().unwrap_or_default(), port);
        match (halves.remove(&key), half) {
            (Some(Half::Error(error)), Half::Data(input, output))
            | (Some(Half::Data(input, output)), Half::Error(error)) => {
                if connections.len() >= CONNECTIONS_MAX {
                    let why = format!("{CONNECTIONS_MAX} connections are forwarded already\n");
                    let _closed = error.write(why.into()).await;
                    error.end().await;
                    output.end().await;
                    continue;
                }
                let (node, pod) = (Arc::clone(node), pod.clone());
                connections.spawn(async move {
                    if let Err(err) = connection(&node, &pod, port, input, output).await {
                        debug!(%pod, port, error = %err, "connection not forwarded");
                        let _closed = error.write(format!("{err}\n").into()).await;
                    }
                    error.end().await;
                });
            }
            (_, half) if halves.len() >= HALVES_MAX => half.refuse().await,
            (_, half) => drop(halves.insert(key, half)),
        }
    }
    drop(halves);
    connections.shutdown().await;
    session.finish().await;
}

async fn connection(
    node: &Arc<Node>,
    pod: &PodId,
    port: u16,
    input: Inbound,
    output: Outbound,
) -> io::Result<()> {
    let stream = match connect(node, pod, port).await {
        Ok(stream) => stream,
        Err(err) => {
            output.end().await;
            let why = format!("cannot connect to port {port} in pod {pod}: {err}");
            return Err(io::Error::new(err.kind(), why));
        }
    };
    let (from, to) = stream.into_split();
    let ((), ()) = tokio::join!(send(input, to), receive(from, output));
    Ok(())
}

async fn send(mut client: Inbound, mut to: OwnedWriteHalf) {
    while let Some(chunk) = client.next().await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    // The server gets the end of the input, and may still answer.
    let _closed = to.shutdown().await;
}

async fn receive(mut from: OwnedReadHalf, client: Outbound) {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match from.read_buf(&mut chunk).await {
            Ok(read) if read > 0 => {}
            Ok(_) | Err(_) => break,
        }
        if client.write(chunk.freeze()).await.is_err() {
            break;
        }
    }
    client.end().await;
}

async fn connect(node: &Arc<Node>, pod: &PodId, port: u16) -> io::Result<TcpStream> {
    let gone = || io::Error::new(io::ErrorKind::NotConnected, "the pod is not running");
    let view = node.registry.pod(pod.as_str()).ok_or_else(gone)?.view();
    let State::Ready { pause_pid, .. } = view.record.state else { return Err(gone()) };
    let host_network = view.record.host_network();
    let netns = if host_network {
        None
    } else {
        Some(view.client.as_ref().ok_or_else(gone)?.pause(pause_pid).await?.netns()?)
    };
    // Only the sockets are created inside the namespace. They are connected from here, so that a server that does
    // not answer blocks no thread.
    let (four, six) = blocking(move || {
        let Some(netns) = netns else { return Ok(sockets()) };
        hull_sys::netns::within(netns.as_fd(), sockets).map_err(io::Error::other)
    })
    .await?;
    let stream = match to_loopback(four, Ipv4Addr::LOCALHOST.into(), port).await {
        Ok(stream) => stream,
        // The error of IPv4 is reported: a pod may have no IPv6.
        Err(err) => to_loopback(six, Ipv6Addr::LOCALHOST.into(), port).await.map_err(|_| err)?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket, which belongs to the network namespace in which it was created.
type Created = rustix::io::Result<OwnedFd>;

/// A socket for IPv4 and one for IPv6. A kernel may lack IPv6.
fn sockets() -> (Created, Created) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let make = |family| socket_with(family, SocketType::STREAM, flags, None);
    (make(AddressFamily::INET), make(AddressFamily::INET6))
}

async fn to_loopback(socket: Created, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(socket?.into());
    let connecting = socket.connect(SocketAddr::new(ip, port));
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(CONNECT_MAX, connecting).await.map_err(late)?
}
