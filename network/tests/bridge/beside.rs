// SPDX-License-Identifier: Apache-2.0
//! Beside others who write rules: what is theirs stays as it is, and what they take away of ours with
//! theirs is there again.

use crate::common::on_a_host;
use crate::support::{Attached, Host, fetch, port, run, serve, table, try_fetch};
use std::net::SocketAddr;

/// As kube-proxy and a firewall have them: their chains on the same hooks, with the same priorities.
const OTHERS: &str = "
    table ip kube-proxy {
        map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
        chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
        chain nat-output { type nat hook output priority -100; jump services; }
        chain nat-postrouting { type nat hook postrouting priority srcnat; mark & 0x4000 == 0x4000 masquerade; }
        chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    }
    table inet firewalld {
        chain filter_INPUT { type filter hook input priority 10; policy accept; ct state established accept; }
        chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established accept; }
        chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; }
    }";

fn write(rules: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.nft");
    std::fs::write(&file, rules).unwrap();
    run("nft", &["--file", file.to_str().unwrap()]);
}

fn others() -> String {
    let list = |family: &str, name: &str| run("nft", &["list", "table", family, name]);
    format!("{}{}", list("ip", "kube-proxy"), list("inet", "firewalld"))
}

fn is_reached(pod: &Attached, port: u16, why: &str) {
    let server = pod.within(|| serve(SocketAddr::from((pod.ip(), 80)), 1));
    assert_eq!(fetch(&format!("127.0.0.1:{port}")), "hello", "{why}");
    server.join().unwrap();
}

#[test]
fn host_ports_of_earlier_pods_are_back_after_somebody_flushed_the_rules() {
    // A firewall's reload, all of it; the rules within our table alone; or one chain.
    for flush in [
        "flush ruleset",
        "flush table inet hulltest",
        "delete table inet hulltest",
        "flush chain inet hulltest prerouting",
    ] {
        for by in ["attach", "check"] {
            on_a_host(|| {
                write(OTHERS);
                let host = Host::new();
                let first = host.attach(1, &[port(8080)]);
                is_reached(&first, 8080, "beside others");
                let ours = table();
                write(&format!("{flush}\n"));
                if flush == "flush ruleset" {
                    try_fetch("127.0.0.1:8080".parse().unwrap()).unwrap_err();
                    write(OTHERS);
                }
                if by == "check" {
                    host.bridge.check().unwrap();
                    assert_eq!(table(), ours, "{flush}");
                } else {
                    let second = host.attach(2, &[port(8081)]);
                    is_reached(&second, 8081, flush);
                }
                is_reached(&first, 8080, flush);
            });
        }
    }
}

#[test]
fn rules_of_others_stay_as_they_are() {
    on_a_host(|| {
        write(OTHERS);
        let before = others();
        let host = Host::new();
        let _pods = [host.attach(1, &[port(8080)]), host.attach(2, &[])];
        write("delete table inet hulltest\n");
        let _third = host.attach(3, &[port(8082)]);
        assert_eq!(others(), before);
        let tables = run("nft", &["list", "tables"]);
        assert_eq!(tables.lines().count(), 3, "one of ours: {tables}");
        for number in 1..=3 {
            host.bridge.detach(&crate::support::id(number)).unwrap();
        }
        host.bridge.remove().unwrap();
        assert_eq!(others(), before);
        assert_eq!(run("nft", &["list", "tables"]).lines().count(), 2);
    });
}
