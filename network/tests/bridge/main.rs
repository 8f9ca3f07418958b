// SPDX-License-Identifier: Apache-2.0
//! The pod network on a real kernel. Each test has network namespaces of its own, one of which stands
//! for the host: the links and tables of the real one are never touched.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: what is unwrapped is what it claims, and what it prints is its result"
)]

mod beside;
mod inside;
mod overlap;
mod rates;
mod sublinks;
mod support;

use hull_network::{Bandwidth, BuiltinNetwork, Pod, PortMapping, Protocol};
use hull_sys::netns;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};
use support::{
    Host, PATIENCE, at, bridge_netfilter, config, eventually, fetch, id, ip, links, neighbour,
    on_a_host, port, port_at, run, serve, table, try_fetch,
};

#[test]
fn pods_and_host_reach_each_other() {
    on_a_host(|| {
        let host = Host::new();
        let (one, two) = (host.attach(1, &[]), host.attach(2, &[]));
        let web = SocketAddr::from((one.ip(), 80));
        let server = one.within(|| serve(web, 2));
        assert_eq!(try_fetch(web).unwrap(), "hello", "host to pod");
        assert_eq!(two.within(|| try_fetch(web).unwrap()), "hello", "pod to pod");
        assert_eq!(server.join().unwrap(), [at("10.214.7.1:0").ip(), two.ip()], "nobody is hidden");
        let server = serve(at("10.214.7.1:8099"), 1);
        assert_eq!(two.within(|| fetch("10.214.7.1:8099")), "hello", "pod to host");
        assert_eq!(server.join().unwrap(), [two.ip()]);
        assert_eq!(one.got.gateway, at("10.214.7.1:0").ip());
        let loopback = one.within(|| serve(at("127.0.0.1:81"), 1));
        assert_eq!(one.within(|| fetch("127.0.0.1:81")), "hello", "loopback is up");
        loopback.join().unwrap();
    });
}

/// A link that lets the first packet fall costs its pod a second.
#[test]
fn the_first_packet_after_attach_gets_through() {
    on_a_host(|| {
        let host = Host::new();
        let server = serve(at("0.0.0.0:8099"), 40);
        for number in 0..20 {
            let pod = host.attach(number, &[]);
            let web = SocketAddr::from((pod.ip(), 80));
            let inside = pod.within(|| serve(web, 1));
            let before = Instant::now();
            assert_eq!(try_fetch(web).unwrap(), "hello");
            assert_eq!(pod.within(|| fetch("10.214.7.1:8099")), "hello");
            assert!(
                before.elapsed() < Duration::from_millis(700),
                "pod {number}: {:?}",
                before.elapsed()
            );
            inside.join().unwrap();
            let quick = host.attach(100 + number, &[]);
            let before = Instant::now();
            assert_eq!(quick.within(|| fetch("10.214.7.1:8099")), "hello");
            assert!(
                before.elapsed() < Duration::from_millis(700),
                "pod {number}: {:?}",
                before.elapsed()
            );
        }
        server.join().unwrap();
    });
}

#[test]
fn host_ports_are_reached_from_everywhere() {
    for filtered in [false, true] {
        on_a_host(|| {
            bridge_netfilter(filtered);
            let outside = neighbour();
            let host = Host::new();
            let ports = [
                port(8080),
                port_at(8081, "198.51.100.1"),
                port_at(8082, "127.0.0.1"),
                port_at(8083, "0.0.0.0"),
            ];
            let pod = host.attach(3, &ports);
            let other = host.attach(4, &[]);
            let web = SocketAddr::from((pod.ip(), 80));
            let server = pod.within(|| serve(web, 14));
            for (place, to) in [
                ("loopback", "127.0.0.1:8080"),
                ("own address", "198.51.100.1:8080"),
                ("gateway", "10.214.7.1:8080"),
                ("one address", "198.51.100.1:8081"),
                ("loopback only", "127.0.0.1:8082"),
                ("unspecified", "198.51.100.1:8083"),
            ] {
                assert_eq!(fetch(to), "hello", "{place} of the host, {filtered}");
            }
            netns::within(outside.as_fd(), || {
                for to in ["198.51.100.1:8080", "198.51.100.1:8081", "198.51.100.1:8083"] {
                    assert_eq!(fetch(to), "hello", "{to} from outside");
                }
                try_fetch(at("198.51.100.1:8082")).unwrap_err();
            })
            .unwrap();
            try_fetch(at("10.214.7.1:8081")).unwrap_err();
            for to in ["10.214.7.1:8080", "198.51.100.1:8080"] {
                assert_eq!(
                    pod.within(|| fetch(to)),
                    "hello",
                    "{to} from the pod itself, {filtered}"
                );
                assert_eq!(
                    other.within(|| fetch(to)),
                    "hello",
                    "{to} from another pod, {filtered}"
                );
            }
            assert_eq!(fetch("127.0.0.1:8083"), "hello");
            let seen = server.join().unwrap();
            let from_outside = seen.iter().filter(|ip| **ip == at("198.51.100.2:0").ip()).count();
            assert_eq!(from_outside, 3, "who calls from outside is not hidden: {seen:?}");
        });
    }
}

#[test]
fn udp_host_ports_lead_to_the_pod_and_back() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::new();
        let pod = host.attach(5, &[PortMapping { protocol: Protocol::Udp, ..port(5353) }]);
        let address = (pod.ip(), 80);
        let socket = pod.within(|| UdpSocket::bind(address).unwrap());
        let echo = std::thread::spawn(move || {
            let mut text = [0; 16];
            for _ in 0..2 {
                let (length, from) = socket.recv_from(&mut text).unwrap();
                socket.send_to(&text[..length], from).unwrap();
            }
        });
        let ask = |to: &str| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"ping").unwrap();
            let mut text = [0; 16];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"ping", "{to}");
        };
        ask("127.0.0.1:5353");
        netns::within(outside.as_fd(), || ask("198.51.100.1:5353")).unwrap();
        echo.join().unwrap();
    });
}

#[test]
fn what_goes_elsewhere_has_the_nodes_address() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::new();
        let pod = host.attach(6, &[]);
        let server = netns::within(outside.as_fd(), || serve(at("198.51.100.2:80"), 1)).unwrap();
        assert_eq!(pod.within(|| fetch("198.51.100.2:80")), "hello");
        assert_eq!(server.join().unwrap(), [at("198.51.100.1:0").ip()]);
    });
}

#[test]
fn ipv6_does_all_that_ipv4_does() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::with(&["10.214.7.0/24", "fd00:214::/64"]);
        let ports = [port(8080), port_at(8081, "2001:db8::1")];
        let (pod, other) = (host.attach(7, &ports), host.attach(8, &[]));
        assert_eq!(pod.got.ips.len(), 2);
        let six = pod.got.ips[1].addr();
        let web = SocketAddr::from((six, 80));
        let server = pod.within(|| serve(web, 7));
        assert_eq!(try_fetch(web).unwrap(), "hello", "host to pod");
        assert_eq!(other.within(|| try_fetch(web).unwrap()), "hello", "pod to pod");
        assert_eq!(fetch("[2001:db8::1]:8080"), "hello", "host port");
        for to in ["[2001:db8::1]:8080", "[2001:db8::1]:8081"] {
            assert_eq!(
                netns::within(outside.as_fd(), || fetch(to)).unwrap(),
                "hello",
                "{to} from outside"
            );
        }
        assert_eq!(pod.within(|| fetch("[2001:db8::1]:8080")), "hello", "from the pod itself");
        assert_eq!(other.within(|| fetch("[2001:db8::1]:8080")), "hello", "from another pod");
        server.join().unwrap();
        let server = netns::within(outside.as_fd(), || serve(at("[2001:db8::2]:80"), 1)).unwrap();
        assert_eq!(pod.within(|| fetch("[2001:db8::2]:80")), "hello");
        assert_eq!(
            server.join().unwrap(),
            [at("[2001:db8::1]:0").ip()],
            "leaves with the node's address"
        );
        host.bridge.detach(&id(7)).unwrap();
        assert!(!table().contains("8080"), "{}", table());
    });
}

/// What listens on the node's 127.0.0.1 expects callers on the node only; that host ports work over
/// loopback must not let pods in.
#[test]
fn a_pod_does_not_reach_the_nodes_loopback() {
    on_a_host(|| {
        let host = Host::new();
        let pod = host.attach(9, &[]);
        let victim = UdpSocket::bind("127.0.0.1:5999").unwrap();
        let open = UdpSocket::bind("10.214.7.1:5999").unwrap();
        for socket in [&victim, &open] {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        pod.within(|| {
            // A pod's root can make its own kernel send this.
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            ip("addr del 127.0.0.1/8 dev lo");
        });
        pod.within(|| {
            ip("route add 127.0.0.1/32 via 10.214.7.1");
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"forged", "127.0.0.1:5999").unwrap();
            socket.send_to(b"honest", "10.214.7.1:5999").unwrap();
        });
        let mut text = [0; 16];
        let length = open.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"honest");
        let got = victim.recv(&mut text);
        assert!(got.is_err(), "a pod's packet came to a socket on 127.0.0.1");
    });
}

/// Services are led to pods by somebody else's rules (kube-proxy), and policies need to see who calls.
#[test]
fn a_service_of_somebody_elses_rules_sees_the_calling_pod() {
    on_a_host(|| {
        bridge_netfilter(true);
        let host = Host::new();
        let (server, client) = (host.attach(10, &[port(8080)]), host.attach(11, &[]));
        let to = server.ip().to_string();
        let rule = format!(
            "add table ip svc; add chain ip svc pre {{ type nat hook prerouting priority -100; }}; \
             add rule ip svc pre ip daddr 10.96.0.1 tcp dport 80 dnat to {to}:80"
        );
        run("nft", &[&rule]);
        let web = SocketAddr::from((server.ip(), 80));
        let seen = server.within(|| serve(web, 1));
        assert_eq!(client.within(|| fetch("10.96.0.1:80")), "hello");
        assert_eq!(seen.join().unwrap(), [client.ip()]);
    });
}

#[test]
fn detach_leaves_nothing_and_may_run_any_number_of_times() {
    on_a_host(|| {
        let host = Host::new();
        let before = links();
        let keeps = host.attach(12, &[port(8082)]);
        let (after_one, rules) = (links(), table());
        for netns_gone in [false, true] {
            let pod = host.attach(13, &[port(8083), port_at(8084, "127.0.0.1")]);
            assert!(table().contains("8083") && table().contains("8084"), "{}", table());
            if netns_gone {
                drop(pod);
            }
            for _ in 0..3 {
                host.bridge.detach(&id(13)).unwrap();
            }
            assert_eq!((links(), table()), (after_one.clone(), rules.clone()));
            assert_eq!(host.bridge.attachments(), [id(12)]);
        }
        assert!(host.bridge.remove().is_err(), "a pod is attached");
        host.bridge.detach(&id(12)).unwrap();
        host.bridge.detach(&id(99)).unwrap();
        host.bridge.detach("../../etc/passwd").unwrap_err();
        host.bridge.remove().unwrap();
        drop(keeps);
        assert_eq!(links(), before);
        assert_eq!(run("nft", &["list", "tables"]), "");
        assert!(!host.dir.path().join("leases").try_exists().unwrap());
    });
}

#[test]
fn a_pod_let_go_keeps_its_address_until_its_link_is_gone() {
    // With its namespace, or by us when somebody holds on to that.
    for held in [false, true] {
        on_a_host(|| {
            let host = Host::new();
            let before = host.attach(1, &[port(8085)]);
            host.bridge.release(&id(1)).unwrap();
            assert_eq!(host.bridge.attachments(), [id(1)]);
            // What the next daemon would know, were this one killed now.
            let next = BuiltinNetwork::open(config(&host.dir, &["10.214.7.0/24"])).unwrap();
            assert_eq!(next.attachments(), [id(1)]);
            assert_ne!(host.attach(2, &[port(8085)]).ip(), before.ip());
            let _held = held.then_some(before.netns);
            eventually("its address is given back", || host.bridge.attachments() == [id(2)]);
            assert!(!links().contains(&before.got.host_link));
            host.bridge.release(&id(1)).unwrap();
        });
    }
}

#[test]
fn a_pod_attached_anew_while_it_leaves_keeps_all_it_has() {
    on_a_host(|| {
        let host = Host::new();
        let first = host.attach(1, &[]);
        host.bridge.release(&id(1)).unwrap();
        let again = host.attach(1, &[port(8086)]);
        assert_eq!(again.ip(), first.ip());
        drop(first.netns);
        drop(host.attach(2, &[]));
        host.bridge.release(&id(2)).unwrap();
        eventually("the other is gone", || host.bridge.attachments() == [id(1)]);
        assert!(links().contains(&again.got.host_link) && table().contains("8086"));
    });
}

#[test]
fn a_full_subnet_has_room_for_who_comes_right_after_one_that_left() {
    on_a_host(|| {
        let host = Host::with(&["10.214.7.0/30"]);
        for number in 1..20 {
            let pod = host.attach(number, &[]);
            let refused = host.try_attach(99, &netns::create().unwrap(), &[]).unwrap_err();
            assert!(refused.to_string().contains("free address"), "{refused}");
            drop(pod);
            host.bridge.release(&id(number)).unwrap();
        }
    });
}

#[test]
fn opening_and_checking_touch_nothing() {
    on_a_host(|| {
        let host = Host::new();
        let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        // A new namespace begins with the machine's setting.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let before = links();
        for _ in 0..3 {
            host.bridge.check().unwrap();
        }
        host.bridge.detach(&id(1)).unwrap();
        assert_eq!(links(), before);
        assert_eq!(run("nft", &["list", "tables"]), "");
        assert_eq!(std::fs::read_dir(host.dir.path()).unwrap().count(), 0);
        assert_eq!(forwarding(), "0\n");
        let _pod = host.attach(1, &[]);
        assert_eq!(forwarding(), "1\n", "pods are reached by routing");
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|| {
        let host = Host::with(&["10.214.7.0/29"]);
        let _first = host.attach(1, &[port(8080)]);
        let (before, rules) = (links(), table());
        let netns = netns::create().unwrap();
        let left = |why: &str| {
            assert_eq!((links(), table()), (before.clone(), rules.clone()), "{why}");
            assert_eq!(host.bridge.attachments(), [id(1)], "{why}");
            assert_eq!(
                std::fs::read_dir(host.dir.path().join("leases")).unwrap().count(),
                1,
                "{why}"
            );
        };

        let err = host.try_attach(2, &netns, &[port(8080)]).unwrap_err();
        assert!(err.to_string().contains(&id(1)), "{err}");
        left("port taken");
        let no_netns = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        host.try_attach(2, &no_netns, &[port(8081)]).unwrap_err();
        left("no namespace");
        netns::within(netns.as_fd(), || ip("link add eth0 type veth peer name eth1")).unwrap();
        let err = host.try_attach(2, &netns, &[]).unwrap_err();
        assert!(err.to_string().contains("eth0"), "{err}");
        left("eth0 is there");
        let others: Vec<_> = (3..7).map(|number| host.attach(number, &[])).collect();
        let err = host.try_attach(2, &netns::create().unwrap(), &[]).unwrap_err();
        assert!(err.hint().unwrap().contains("10.214.7.0/29"), "{err}");
        assert_eq!(others.len() + 1, host.bridge.attachments().len());
        for number in 3..7 {
            host.bridge.detach(&id(number)).unwrap();
        }
        left("full");
    });
}

/// The name has room for a part of the id only; whoever has it stays untouched.
#[test]
fn a_foreign_link_of_the_pods_name_survives() {
    on_a_host(|| {
        let host = Host::new();
        let _one = host.attach(1, &[]);
        let name = format!("hull{}", &id(2)[..11]);
        ip(&format!("link add {name} type veth peer name foreign"));
        let err = host.try_attach(2, &netns::create().unwrap(), &[]).unwrap_err();
        assert!(err.hint().unwrap().contains(&name), "{err}");
        host.bridge.detach(&id(2)).unwrap();
        assert!(links().contains(&name), "{:?}", links());
        assert_eq!(host.bridge.attachments(), [id(1)]);
    });
}

#[test]
fn a_foreign_link_of_the_bridges_name_is_an_error_with_the_mend() {
    on_a_host(|| {
        ip("link add hulltest0 type veth peer name hulltest1");
        let host = Host::new();
        let err = host.bridge.check().unwrap_err();
        assert!(err.hint().unwrap().contains("ip link delete hulltest0"), "{err}");
        host.try_attach(1, &netns::create().unwrap(), &[]).unwrap_err();
        host.bridge.remove().unwrap_err();
        assert!(host.bridge.attachments().is_empty());
        assert!(links().contains(&"hulltest0".to_owned()));
    });
}

#[test]
fn attaching_a_pod_again_keeps_its_address() {
    on_a_host(|| {
        let host = Host::new();
        let first = host.attach(1, &[port(8080)]);
        let again = host.attach(1, &[port(8081)]);
        assert_eq!(again.got, first.got);
        let web = SocketAddr::from((again.ip(), 80));
        let server = again.within(|| serve(web, 1));
        assert_eq!(fetch("127.0.0.1:8081"), "hello");
        assert!(!table().contains("8080"), "{}", table());
        server.join().unwrap();
    });
}

#[test]
fn a_restart_keeps_what_was_given_and_mends_what_is_missing() {
    for broken in ["nothing", "table", "bridge", "switched off"] {
        on_a_host(|| {
            let host = Host::new();
            let pod = host.attach(1, &[port(8080)]);
            let before = pod.ip();
            let again = BuiltinNetwork::open(config(&host.dir, &["10.214.7.0/24"])).unwrap();
            assert_eq!(again.attachments(), [id(1)]);
            match broken {
                "table" => drop(run("nft", &["delete", "table", "inet", "hulltest"])),
                "bridge" => drop(ip("link delete hulltest0")),
                "switched off" => drop(ip("link set hulltest0 down")),
                _ => {}
            }
            for (bridge, number) in [(&again, 2), (&host.bridge, 3)] {
                let netns = netns::create().unwrap();
                let id = id(number);
                let pod = Pod { id: &id, short: &id[..11] };
                let got = bridge.attach(&pod, netns.as_fd(), &[], Bandwidth::default());
                assert_ne!(got.unwrap().ips[0].addr(), before, "{broken}");
                let listening = serve(at("10.214.7.1:8099"), 1);
                let said = netns::within(netns.as_fd(), || fetch("10.214.7.1:8099")).unwrap();
                assert_eq!(said, "hello", "{broken}");
                listening.join().unwrap();
                bridge.detach(&id).unwrap();
            }
            if broken != "bridge" {
                let web = SocketAddr::from((pod.ip(), 80));
                let server = pod.within(|| serve(web, 1));
                assert_eq!(
                    fetch("127.0.0.1:8080"),
                    "hello",
                    "{broken}: ports of earlier pods are there"
                );
                server.join().unwrap();
            }
            again.detach(&id(1)).unwrap();
            assert!(again.attachments().is_empty());
        });
    }
}

/// State was cleared away under running pods: their links say whose they are.
#[test]
fn links_without_a_lease_are_found_and_swept() {
    on_a_host(|| {
        let host = Host::new();
        let _pod = host.attach(1, &[]);
        let empty = tempfile::tempdir().unwrap();
        let again = BuiltinNetwork::open(config(&empty, &["10.214.7.0/24"])).unwrap();
        assert_eq!(again.attachments(), [id(1)]);
        again.detach(&id(1)).unwrap();
        assert!(again.attachments().is_empty());
    });
}

#[test]
fn links_have_the_mtu_of_the_way_out() {
    on_a_host(|| {
        let _outside = neighbour();
        ip("route add default via 198.51.100.2");
        let host = Host::new();
        let pod = host.attach(1, &[]);
        let inside = pod.within(|| ip("link show eth0"));
        assert!(inside.contains("mtu 1400"), "{inside}");
        assert!(ip("link show hulltest0").contains("mtu 1400"));
    });
}

#[test]
fn counters_count_what_the_pod_got() {
    on_a_host(|| {
        let host = Host::new();
        let pod = host.attach(1, &[]);
        let sink = UdpSocket::bind("10.214.7.1:0").unwrap();
        let to = sink.local_addr().unwrap();
        let of = |name: &str| {
            let all = hull_network::interface_stats(pod.netns.as_fd()).unwrap();
            all.into_iter().find(|one| one.name == name).unwrap()
        };
        let before = of("eth0");
        pod.within(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&[0; 1000], to).unwrap());
        assert!(of("eth0").tx_bytes >= before.tx_bytes + 1000);
        assert_eq!(of("lo").tx_bytes, 0);
        assert_eq!(of("eth0").tx_errors + of("eth0").rx_errors, 0);
    });
}

#[test]
fn the_table_reads_as_it_is_meant() {
    on_a_host(|| {
        let host = Host::with(&["10.214.7.0/24", "fd00:214::/64"]);
        let _pod = host.attach(1, &[port(8080), port_at(8081, "198.51.100.1")]);
        let text = table();
        for line in [
            r#"iifname "hulltest0" ip daddr 127.0.0.0/8 drop"#,
            "fib daddr type local dnat ip to meta l4proto . th dport map @ports4",
            "dnat ip to ip daddr . meta l4proto . th dport map @ports4_at",
            "dnat ip6 to meta l4proto . th dport map @ports6",
            r#"ip saddr 10.214.7.0/24 oifname != "hulltest0" oifname != "lo" masquerade"#,
            "ip saddr 10.214.7.0/24 fib daddr type local meta mark set meta mark | 0x00001000",
            r#"ip saddr 10.214.7.0/24 oifname "hulltest0" ct status dnat meta mark & 0x00001000 == 0x00001000 masquerade"#,
            "tcp . 8080",
            "10.214.7.2 . 80",
            "198.51.100.1 . tcp . 8081",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
        // What it prints, it reads: nothing is in a form of its own.
        let file = host.dir.path().join("table.nft");
        std::fs::write(&file, &text).unwrap();
        run("nft", &["--check", "--file", file.to_str().unwrap()]);
    });
}

/// Comes with figures: `cargo test --release -- many --nocapture`.
#[test]
fn many_at_once_do_not_meet() {
    const THREADS: u32 = 8;
    const PODS: u32 = 50;
    on_a_host(|| {
        let host = Host::with(&["10.214.0.0/16"]);
        let before = links();
        let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let work = |thread: u32| {
            let mut found = Vec::new();
            for at in 0..PODS {
                let number = 1000 + thread * 100 + at;
                let netns = netns::create().unwrap();
                let start = Instant::now();
                let host_port = u16::try_from(number).unwrap();
                let ports = [port(host_port)];
                let got = host
                    .try_attach(number, &netns, if at % 2 == 0 { &ports } else { &[] })
                    .unwrap();
                found.push((got.ips[0].addr(), start.elapsed(), netns));
            }
            found
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let begin = |thread| {
                let (work, here) = (&work, here.as_fd());
                scope.spawn(move || netns::within(here, || work(thread)).unwrap())
            };
            let threads: Vec<_> = (0..THREADS).map(begin).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let ips: std::collections::BTreeSet<_> = all.iter().map(|(ip, _, _)| *ip).collect();
        assert_eq!(ips.len(), (THREADS * PODS) as usize);
        assert_eq!(links().len(), before.len() + 1 + ips.len());
        let mut took: Vec<_> = all.iter().map(|(_, took, _)| *took).collect();
        took.sort_unstable();
        println!(
            "attach, {THREADS} at once: p50 {:?}, p95 {:?}",
            took[took.len() / 2],
            took[took.len() * 95 / 100]
        );
        let pods = host.bridge.attachments();
        std::thread::scope(|scope| {
            for some in pods.chunks(PODS as usize) {
                let (host, here) = (&host, here.as_fd());
                scope.spawn(move || {
                    netns::within(here, || {
                        some.iter().for_each(|id| host.bridge.detach(id).unwrap())
                    })
                    .unwrap();
                });
            }
        });
        assert!(host.bridge.attachments().is_empty());
        assert!(!table().contains("elements"), "{}", table());
        assert_eq!(links().len(), before.len() + 1);
        one_by_one(&host);
    });
}

fn one_by_one(host: &Host) {
    let (mut attaching, mut detaching) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let netns = netns::create().unwrap();
        let start = Instant::now();
        host.try_attach(number, &netns, &[]).unwrap();
        attaching.push(start.elapsed());
        let start = Instant::now();
        host.bridge.detach(&id(number)).unwrap();
        detaching.push(start.elapsed());
    }
    attaching.sort_unstable();
    detaching.sort_unstable();
    println!(
        "one by one: attach p50 {:?}, p95 {:?}; detach p50 {:?}, p95 {:?}",
        attaching[25], attaching[47], detaching[25], detaching[47]
    );
}
