// SPDX-License-Identifier: Apache-2.0
//! `hull port-forward`: ports of the host to the loopback of a pod. Sockets are created inside the pod's network
//! namespace, and everything else happens here.

use super::args::pods::PortForward;
use super::client::Client;
use super::error::{Error, Result};
use super::names::Objects;
use super::{output, verbose};
use hull_proto::cri as api;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// A listening socket, and the port in the pod.
type Forward = (TcpListener, u16);

/// Forwards until it is interrupted.
pub(crate) async fn forward(mut client: Client, args: &PortForward) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let pod = objects.find_pod(&args.pod)?;
    let namespace = Arc::new(namespace(&mut client, pod).await?);
    let mut forwards = Vec::new();
    for text in &args.ports {
        let (host, inside) = ports(text)?;
        let address = SocketAddr::new(args.address, host);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(Error::io(format!("listen on {address}")))?;
        let bound = listener.local_addr().map_err(Error::io("read the address of a socket"))?;
        output::line(&format!("{bound} -> {inside}"))?;
        forwards.push((listener, inside));
    }
    let mut term = signal(SignalKind::terminate()).map_err(Error::io("listen for signals"))?;
    let all = forwards.into_iter().map(|forward| serve(forward, Arc::clone(&namespace)));
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = term.recv() => Ok(()),
        done = futures_util::future::try_join_all(all) => done.map(drop),
    }
}

/// Parses `[HOST:]POD`; an empty host port is any free one.
fn ports(text: &str) -> Result<(u16, u16)> {
    let bad =
        || Error::Usage { text: format!("`{text}` is not [HOST:]POD with ports from 1 to 65535") };
    let (host, inside) = text.split_once(':').unwrap_or((text, text));
    let inside = inside.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    let host = if host.is_empty() { 0 } else { host.parse().map_err(|_| bad())? };
    Ok((host, inside))
}

/// The network namespace of a pod; `None` for a pod on the host's network.
async fn namespace(client: &mut Client, pod: &api::PodSandbox) -> Result<Option<OwnedFd>> {
    let (pid, on_host) = process(client, &pod.id).await?;
    let stopped = || Error::NotRunning {
        operation: "forward ports to",
        what: format!("pod {}: it is stopped", super::names::pod_name(pod)),
    };
    if pid <= 0 {
        return Err(stopped());
    }
    if on_host {
        return Ok(None);
    }
    let failed =
        |source| Error::Kernel { operation: "open the network namespace of the pod", source };
    let path = format!("/proc/{pid}/ns/net");
    let opened = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(failed)?;
    // It is the pod's if the daemon still has the process under this pid: it reaps only what it has noticed.
    if process(client, &pod.id).await?.0 != pid {
        return Err(stopped());
    }
    Ok(Some(opened))
}

/// The pid of the pause process, and whether the pod is on the host's network.
async fn process(client: &mut Client, id: &str) -> Result<(i32, bool)> {
    const OPERATION: &str = "find the process of the pod";
    let answer = verbose::pod(client, id).await?;
    let pid = verbose::pid(&verbose::info(&answer.info, OPERATION)?, OPERATION)?;
    let linux = answer.status.and_then(|status| status.linux?.namespaces?.options);
    let on_host = linux.is_some_and(|of| of.network() == api::NamespaceMode::Node);
    Ok((pid, on_host))
}

async fn serve((listener, port): Forward, namespace: Arc<Option<OwnedFd>>) -> Result<()> {
    loop {
        let accepted = listener.accept().await;
        let (client, _) = accepted.map_err(Error::io("accept a connection"))?;
        let namespace = Arc::clone(&namespace);
        drop(tokio::spawn(async move {
            if let Err(err) = connection(client, namespace.as_ref().as_ref(), port).await {
                output::to_stderr(&format!("connection to port {port}: {err}\n"));
            }
        }));
    }
}

async fn connection(
    mut client: TcpStream,
    namespace: Option<&OwnedFd>,
    port: u16,
) -> io::Result<()> {
    let mut pod =
        match connect(namespace, AddressFamily::INET, (Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(pod) => pod,
            // The error of IPv4 is reported: a pod may have no IPv6.
            Err(err) => {
                let six = (Ipv6Addr::LOCALHOST, port).into();
                connect(namespace, AddressFamily::INET6, six).await.map_err(|_| err)?
            }
        };
    copy_bidirectional(&mut client, &mut pod).await?;
    Ok(())
}

async fn connect(
    namespace: Option<&OwnedFd>,
    family: AddressFamily,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let make = || socket_with(family, SocketType::STREAM, flags, None);
    let socket = match namespace {
        None => make(),
        Some(namespace) => {
            hull_sys::netns::within(namespace.as_fd(), make).map_err(io::Error::other)?
        }
    };
    TcpSocket::from_std_stream(socket?.into()).connect(to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_one_or_two_numbers() {
        for (text, expected) in [("80", (80, 80)), ("8080:80", (8080, 80)), (":80", (0, 80))] {
            assert_eq!(ports(text).unwrap(), expected, "{text}");
        }
        for text in ["", "0", "80:", "x", "1:2:3", "65536"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
