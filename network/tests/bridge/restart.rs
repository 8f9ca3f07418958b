// SPDX-License-Identifier: Apache-2.0
//! A daemon that starts on the state of an earlier one, and the nftables table that it finds.

use crate::common::on_a_host;
use crate::support::{
    Host, PATIENCE, at, config, fetch, id, ip, links, port, port_at, run, serve, table,
};
use hull_network::{Bandwidth, BuiltinNetwork, Mode, Network, Pod, cni};
use hull_sys::netns;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

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
fn a_restart_keeps_addresses_and_repairs_missing_parts() {
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

/// A daemon that attaches by plugins finds a bridge with its name, and has no pods there.
#[test]
fn links_of_another_daemon_are_not_those_of_one_that_never_used_the_bridge() {
    on_a_host(|| {
        let host = Host::new();
        let _pod = host.attach(1, &[]);
        let other = tempfile::tempdir().unwrap();
        let open = |mode, dir| {
            let cni = cni::Config {
                conf_dir: other.path().join("conf"),
                bin_dirs: Vec::new(),
                networks_max: 1,
                conf_template: None,
                plugin_timeout: PATIENCE,
                netns_dir: other.path().join("netns"),
                state_dir: other.path().join("cni"),
            };
            Network::open(mode, config(dir, &["10.214.7.0/24"]), cni).unwrap()
        };
        host.bridge.detach(&id(1)).unwrap();
        for mode in [Mode::Cni, Mode::None, Mode::Auto] {
            // Also a bridge without links, between two pods of the other daemon.
            open(mode, &other).maintain();
            assert!(ip("-o link show").contains("hulltest0"), "{mode:?}");
        }
        let _pod = host.attach(1, &[]);
        for mode in [Mode::Cni, Mode::None] {
            assert!(open(mode, &other).attachments().is_empty(), "{mode:?}");
            // The daemon that attached the pod, after a change of its mode.
            assert_eq!(open(mode, &host.dir).attachments(), [id(1)], "{mode:?}");
        }
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
