// SPDX-License-Identifier: Apache-2.0
//! Pods whose links are on the node's uplink: macvlan, ipvlan. Where the kernel lacks a kind, the test is
//! of what it says then.

use crate::common::on_a_host;
use crate::support::{
    Host, at, config, fetch, id, ip, links, neighbour, port, serve, table, try_fetch,
};
use hull_network::{Bandwidth, BuiltinNetwork, Config, LinkMode, Pod};
use hull_sys::netns;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

fn settings(dir: &tempfile::TempDir, link_mode: LinkMode) -> Config {
    let uplink = Some("cable0".to_owned());
    Config { link_mode, uplink, ..config(dir, &["10.214.7.0/24", "fd00:214::/64"]) }
}

fn host(link_mode: LinkMode) -> Host {
    let dir = tempfile::tempdir().unwrap();
    Host { bridge: BuiltinNetwork::open(settings(&dir, link_mode)).unwrap(), dir }
}

/// Runs a test of each kind that this kernel has; of the others it looks at what is said.
fn with_each_kind(test: impl Fn(LinkMode) + Sync) {
    for kind in [LinkMode::Macvlan, LinkMode::Ipvlan] {
        on_a_host(|| {
            let _outside = neighbour();
            let name = kind.name();
            let there = std::process::Command::new("ip")
                .args(["link", "add", "try0", "link", "cable0", "type", name])
                .output()
                .unwrap();
            if there.status.success() {
                ip("link delete try0");
                return test(kind);
            }
            let host = host(kind);
            let unwell = host.bridge.check().unwrap_err();
            let refused = host.try_attach(1, &netns::create().unwrap(), &[]).unwrap_err();
            for err in [unwell, refused] {
                let hint = err.hint().unwrap_or_default();
                assert!(err.to_string().contains(name), "{err}");
                assert!(
                    hint.contains(&format!("modprobe {name}")) && hint.contains("`mode`"),
                    "{hint}"
                );
            }
            assert!(host.bridge.attachments().is_empty());
        });
    }
}

#[test]
fn pods_on_the_uplink_reach_each_other_the_node_and_beyond_without_a_bridge() {
    with_each_kind(|kind| {
        // What was there before the test's own neighbour is its own business: another one is made.
        let host = host(kind);
        host.bridge.check().unwrap();
        let (one, two) = (host.attach(1, &[port(8080)]), host.attach(2, &[]));
        assert_eq!(one.got.mtu, 1400, "as the uplink's");
        assert!(ip("-d link show hulltest0").contains(kind.name()));
        assert_eq!(
            links().iter().filter(|name| name.starts_with("hull")).count(),
            1,
            "{:?}",
            links()
        );
        for ip in &one.got.ips {
            let web = SocketAddr::from((ip.addr(), 80));
            let server = one.within(|| serve(web, 2));
            assert_eq!(try_fetch(web).unwrap(), "hello", "{kind:?}: host to pod at {web}");
            assert_eq!(two.within(|| try_fetch(web).unwrap()), "hello", "{kind:?}: pod to pod");
            assert_eq!(server.join().unwrap()[1].is_ipv4(), ip.addr().is_ipv4());
        }
        let server = serve(at("10.214.7.1:8099"), 1);
        assert_eq!(two.within(|| fetch("10.214.7.1:8099")), "hello", "pod to host");
        assert_eq!(server.join().unwrap(), [two.ip()], "by its own address");
        let server = one.within(|| serve(SocketAddr::from((one.ip(), 80)), 3));
        for to in ["127.0.0.1:8080", "198.51.100.1:8080"] {
            assert_eq!(fetch(to), "hello", "{kind:?}: host port at {to}");
        }
        assert_eq!(two.within(|| fetch("198.51.100.1:8080")), "hello", "from another pod");
        server.join().unwrap();
        host.bridge.detach(&id(1)).unwrap();
        assert!(!table().contains("8080"), "{}", table());
    });
}

#[test]
fn what_pods_on_the_uplink_send_elsewhere_has_the_nodes_address() {
    on_a_host(|| {
        let outside = neighbour();
        let host = host(LinkMode::Macvlan);
        let pod = host.attach(1, &[port(8080)]);
        let server = netns::within(outside.as_fd(), || serve(at("198.51.100.2:80"), 1)).unwrap();
        assert_eq!(pod.within(|| fetch("198.51.100.2:80")), "hello");
        assert_eq!(server.join().unwrap(), [at("198.51.100.1:0").ip()]);
        let server = pod.within(|| serve(SocketAddr::from((pod.ip(), 80)), 2));
        let asked = || fetch("198.51.100.1:8080");
        assert_eq!(
            netns::within(outside.as_fd(), asked).unwrap(),
            "hello",
            "host port from outside"
        );
        // Who has a route to the pods on the wire needs no node.
        let direct = || {
            ip("route add 10.214.7.0/24 dev cable1");
            fetch(&format!("{}:80", pod.ip()))
        };
        ip("link set hulltest0 down");
        pod.within(|| ip("route add 198.51.100.0/24 dev eth0"));
        assert_eq!(netns::within(outside.as_fd(), direct).unwrap(), "hello", "by the wire");
        server.join().unwrap();
    });
}

#[test]
fn an_address_whose_last_holder_is_still_there_is_refused_and_the_next_one_given() {
    with_each_kind(|kind| {
        let host = host(kind);
        let first = host.attach(1, &[]);
        host.bridge.release(&id(1)).unwrap();
        assert!(host.bridge.attachments().is_empty());
        // A daemon that knows nothing of it gives the first address again.
        let dir = tempfile::tempdir().unwrap();
        let next = BuiltinNetwork::open(settings(&dir, kind)).unwrap();
        let netns = netns::create().unwrap();
        let attach = |number| {
            let id = id(number);
            let pod = Pod { id: &id, short: &id[..11] };
            next.attach(&pod, netns.as_fd(), &[], Bandwidth::default())
        };
        let refused = attach(2).unwrap_err();
        assert!(refused.to_string().contains(&first.ip().to_string()), "{refused}");
        assert!(refused.hint().is_some(), "{refused}");
        let second = attach(2).unwrap();
        assert_ne!(second.ips[0].addr(), first.ip());
        // It goes with its namespace.
        drop(first);
    });
}

#[test]
fn a_pod_on_the_uplink_may_be_attached_again_and_a_failed_attach_leaves_it_nothing() {
    with_each_kind(|kind| {
        let host = host(kind);
        let netns = netns::create().unwrap();
        let first = host.try_attach(1, &netns, &[]).unwrap();
        let again = host.try_attach(1, &netns, &[port(8081)]).unwrap();
        assert_eq!(first, again);
        assert!(table().contains("8081"));
        host.bridge.detach(&id(1)).unwrap();

        let netns = netns::create().unwrap();
        let slow = Bandwidth { ingress_bits: Some(1_000_000), egress_bits: None };
        let refused = host.try_attach_at(2, &netns, &[], slow).unwrap_err();
        assert!(refused.hint().unwrap().contains("bandwidth annotations"), "{refused}");
        let inside = netns::within(netns.as_fd(), || ip("-o link")).unwrap();
        assert!(!inside.contains("eth0"), "{inside}");
        assert!(host.bridge.attachments().is_empty());
    });
}

#[test]
fn an_uplink_that_is_not_there_is_named_with_the_hint() {
    on_a_host(|| {
        for (uplink, says) in [(Some("cable7"), "no link cable7"), (None, "no default route")] {
            let dir = tempfile::tempdir().unwrap();
            let uplink = uplink.map(str::to_owned);
            let host = BuiltinNetwork::open(Config { uplink, ..settings(&dir, LinkMode::Macvlan) })
                .unwrap();
            let unwell = host.check().unwrap_err();
            assert!(unwell.to_string().contains(says), "{unwell}");
            assert!(unwell.hint().unwrap().contains("`uplink`"), "{unwell}");
        }
    });
}
