// SPDX-License-Identifier: Apache-2.0
//! Host ports: who reaches a pod by the node's addresses, and what two pods cannot both have.
//!
//! Servers and clients are sockets of the test, made inside the network namespaces that they stand for.

use hull_proto::cri::{self as api, Protocol};
use hull_tests::shell::run;
use hull_tests::{Cri, ExpectExt as _, Node, eventually};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Bounds a wait for an answer that does not come.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Does something in another network namespace.
fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).or_fail(format!("open {netns}"));
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).or_fail("enter a network namespace");
        work()
    });
    thread.join().map_err(|_| std::io::Error::other("it panicked")).or_fail("work in a namespace")
}

/// A machine beside the node, with a link to it: a network namespace of the test's own.
struct Elsewhere {
    name: String,
    link: String,
    /// The node's address on that link.
    node: String,
}

impl Elsewhere {
    fn beside(node: &Node) -> Self {
        let number = node.names().bridge.trim_start_matches("hlt").to_owned();
        let (name, link) = (format!("hltns{number}"), format!("hlte{number}"));
        let (ours, theirs) = (format!("10.214.{number}.1"), format!("10.214.{number}.2"));
        let this = Self { name: name.clone(), link: link.clone(), node: ours.clone() };
        this.take_away();
        for command in [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("addr add {ours}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {theirs}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {ours}"),
        ] {
            let _said = run("ip", command.split(' ')).good();
        }
        this
    }

    fn netns(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    fn take_away(&self) {
        drop(run("ip", ["link", "delete", &self.link]));
        drop(run("ip", ["netns", "delete", &self.name]));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.take_away();
    }
}

fn mapping(protocol: Protocol, host_port: u16, host_ip: &str) -> api::PortMapping {
    api::PortMapping {
        protocol: protocol.into(),
        container_port: 7000,
        host_port: host_port.into(),
        host_ip: host_ip.into(),
    }
}

/// A port that nobody has now, neither for TCP nor for UDP.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("0.0.0.0:0").or_fail("find a free port");
        let port = tcp.local_addr().or_fail("read the port").port();
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Runs a pod with these host ports and gives its network namespace.
async fn pod_with(cri: &Cri, name: &str, image: &str, ports: &[api::PortMapping]) -> String {
    let mut config = cri.pod_config(name);
    config.port_mappings = ports.to_vec();
    let pod = cri.run_pod_with(config).await.or_fail("run a pod");
    let idle = cri.run_idle(&pod, "idle", image).await;
    format!("/proc/{}/ns/net", cri.pid(&idle).await)
}

/// Answers every connection and every datagram with the address that it came from and `name`.
fn serve(netns: &str, name: &'static str) {
    let (tcp, udp) = inside(netns, || {
        let tcp = TcpListener::bind("0.0.0.0:7000").or_fail("listen in the pod");
        (tcp, UdpSocket::bind("0.0.0.0:7000").or_fail("take datagrams in the pod"))
    });
    let _ends_with_the_test = std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let from = stream.peer_addr().map(|of| of.ip().to_string()).unwrap_or_default();
            drop(stream.write_all(format!("{name} {from}").as_bytes()));
        }
    });
    let _ends_with_the_test = std::thread::spawn(move || {
        let mut asked = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut asked) {
            drop(udp.send_to(format!("{name} {}", from.ip()).as_bytes(), from));
        }
    });
}

/// The answers at an address of the node, over TCP and over UDP.
fn ask(address: &str) -> std::io::Result<(String, String)> {
    let at = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&at, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut tcp = String::new();
    stream.read_to_string(&mut tcp)?;
    Ok((tcp, ask_udp(&UdpSocket::bind("0.0.0.0:0")?, address)?))
}

fn ask_udp(socket: &UdpSocket, address: &str) -> std::io::Result<String> {
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    // Connected: an answer from any other address is not taken.
    socket.connect(address)?;
    socket.send(b"who?")?;
    let mut said = [0; 64];
    let length = socket.recv(&mut said)?;
    Ok(String::from_utf8_lossy(&said[..length]).into_owned())
}

#[tokio::test]
async fn a_host_port_is_reached_from_everywhere_at_every_address_of_the_node() {
    let node = Node::start().await;
    let (cri, _pod, image) = node.pod("other").await;
    let elsewhere = Elsewhere::beside(&node);
    let port = free_port();
    let ports = [mapping(Protocol::Tcp, port, ""), mapping(Protocol::Udp, port, "0.0.0.0")];
    let server = pod_with(&cri, "web", &image, &ports).await;
    serve(&server, "web");
    let client = pod_with(&cri, "client", &image, &[]).await;

    let (beside, gateway) =
        (format!("{}:{port}", elsewhere.node), format!("{}:{port}", node.gateway()));
    let far = elsewhere.netns();
    for (from, at) in [
        (None, format!("127.0.0.1:{port}")),
        (None, gateway.clone()),
        (None, beside.clone()),
        (Some(&far), beside.clone()),
        (Some(&far), gateway.clone()),
        (Some(&client), gateway.clone()),
        (Some(&client), beside.clone()),
        // The pod itself, by the node: hairpin.
        (Some(&server), gateway.clone()),
    ] {
        let asked = at.clone();
        let said = match from {
            Some(netns) => inside(netns, move || ask(&asked)),
            None => ask(&asked),
        };
        let (tcp, udp) = said.or_fail(format!("ask {at} from {from:?}"));
        assert!(tcp.starts_with("web ") && udp.starts_with("web "), "{at} {from:?}: {tcp} {udp}");
        if from == Some(&far) {
            // A client from elsewhere keeps its address, as policies need it.
            assert!(tcp.starts_with("web 10.214.") && tcp.ends_with(".2"), "{tcp}");
        }
    }
}

#[tokio::test]
async fn a_host_port_at_one_address_is_at_no_other_and_two_pods_may_share_it() {
    let node = Node::start().await;
    let (cri, _pod, image) = node.pod("other").await;
    let elsewhere = Elsewhere::beside(&node);
    let port = free_port();
    let both = |ip: &str| [mapping(Protocol::Tcp, port, ip), mapping(Protocol::Udp, port, ip)];
    let one = pod_with(&cri, "one", &image, &both(&elsewhere.node)).await;
    let two = pod_with(&cri, "two", &image, &both("127.0.0.1")).await;
    serve(&one, "one");
    serve(&two, "two");
    let beside = format!("{}:{port}", elsewhere.node);
    let asked = beside.clone();
    let (tcp, udp) = inside(&elsewhere.netns(), move || ask(&asked)).or_fail("ask from elsewhere");
    assert!(tcp.starts_with("one ") && udp.starts_with("one "), "{tcp} {udp}");
    let (tcp, udp) = ask(&format!("127.0.0.1:{port}")).or_fail("ask at loopback");
    assert!(tcp.starts_with("two ") && udp.starts_with("two "), "{tcp} {udp}");
    let (tcp, _) = ask(&beside).or_fail("ask from the node");
    assert!(tcp.starts_with("one "), "{tcp}");
    ask(&format!("{}:{port}", node.gateway())).unwrap_err();
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_with_the_name_of_its_holder() {
    let mut node = Node::start().await;
    let (cri, _pod, image) = node.pod("other").await;
    let port = free_port();
    let _netns = pod_with(&cri, "holder", &image, &[mapping(Protocol::Sctp, port, "")]).await;
    let table = run("nft", ["list", "table", "inet", &node.names().table]).good();
    assert!(table.contains(&format!("sctp . {port}")), "{table}");
    for again in [false, true] {
        if again {
            // What is held outlives the daemon.
            node.kill();
            node.start_again().await;
        }
        let cri = node.cri();
        let mut config = cri.pod_config("late");
        config.port_mappings = vec![mapping(Protocol::Sctp, port, "127.0.0.1")];
        let refused = cri.run_pod_with(config).await.unwrap_err();
        let says = format!("pod tests/holder has sctp {port}");
        assert!(refused.message().contains(&says), "{says:?} in {refused}");
        assert!(refused.message().contains(&format!("sctp 127.0.0.1:{port}")), "{refused}");
    }
    // Another protocol is another port.
    let _netns = pod_with(&node.cri(), "tcp", &image, &[mapping(Protocol::Tcp, port, "")]).await;
}

#[tokio::test]
async fn a_client_that_asked_before_the_pod_was_there_reaches_it_when_it_is() {
    let node = Node::start().await;
    let (cri, _pod, image) = node.pod("other").await;
    let elsewhere = Elsewhere::beside(&node);
    let port = free_port();
    let at = format!("{}:{port}", elsewhere.node);
    let socket =
        inside(&elsewhere.netns(), || UdpSocket::bind("0.0.0.0:0").or_fail("make a socket"));
    // The kernel remembers this flow as one that leads to the node itself.
    let early = ask_udp(&socket, &at).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::ConnectionRefused, "{early}");
    for name in ["first", "second"] {
        let server = pod_with(&cri, name, &image, &[mapping(Protocol::Udp, port, "")]).await;
        serve(&server, name);
        let said = eventually(format!("{name} answers"), || async {
            ask_udp(&socket, &at).map_err(|err| err.to_string())
        })
        .await;
        assert!(said.starts_with(name), "{said}");
        for pod in cri.pods().await {
            if pod.metadata.is_some_and(|of| of.name == name) {
                cri.stop_pod(&pod.id).await.or_fail("stop the pod");
                cri.remove_pod(&pod.id).await.or_fail("remove the pod");
            }
        }
    }
}
