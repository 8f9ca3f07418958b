// SPDX-License-Identifier: Apache-2.0
//! The network namespace as a pod sees it, and the number of pods on one bridge.

use crate::common::on_a_host;
use crate::support::{Host, ip};
use hull_sys::netns;
use std::io::Write as _;
use std::net::{Ipv6Addr, TcpListener};
use std::process::{Command, Stdio};

/// How many ports the kernel gives a bridge.
const PORTS: u32 = 1023;

#[test]
fn a_pod_without_an_ipv6_address_speaks_none_but_to_itself() {
    on_a_host(|| {
        let host = Host::new();
        let pod = host.attach(1, &[]);
        let addresses = pod.within(|| ip("-6 -o addr"));
        assert!(!addresses.contains("eth0"), "{addresses}");
        let _listens = pod.within(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 80)).unwrap());
        // As servers do that take whatever comes.
        let any = pod.within(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 81)).unwrap());
        let there = std::net::SocketAddr::from((pod.ip(), 81));
        std::net::TcpStream::connect(there).unwrap();
        any.accept().unwrap();
    });
}

#[test]
fn a_pods_addresses_are_usable_at_once_and_no_router_but_the_node_is_taken() {
    on_a_host(|| {
        let host = Host::with(&["10.214.7.0/24", "fd00:214::/64"]);
        let pod = host.attach(1, &[]);
        let addresses = pod.within(|| ip("-6 -o addr show dev eth0 scope global"));
        assert!(
            addresses.contains("fd00:214::2/64") && !addresses.contains("tentative"),
            "{addresses}"
        );
        let links = pod.within(|| ip("-6 -o addr show dev eth0 scope link"));
        assert!(links.contains("fe80::"), "{links}");
        // No duplicate address detection for its link-local address: the probe would come back by the hairpin.
        for setting in ["accept_ra", "accept_dad"] {
            let path = format!("/proc/sys/net/ipv6/conf/eth0/{setting}");
            let set = pod.within(|| std::fs::read_to_string(&path).unwrap());
            assert_eq!(set.trim(), "0", "{setting}");
        }
    });
}

#[test]
fn a_bridge_without_a_free_port_says_so_and_what_to_do() {
    on_a_host(|| {
        let host = Host::new();
        let first = host.attach(1, &[]);
        let mut batch =
            Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut commands = batch.stdin.take().unwrap();
        for number in 1..PORTS {
            writeln!(commands, "link add port{number} master hulltest0 type ifb").unwrap();
        }
        drop(commands);
        assert!(batch.wait().unwrap().success());
        let refused = host.try_attach(2, &netns::create().unwrap(), &[]).unwrap_err();
        let hint = refused.hint().unwrap_or_default();
        assert!(hint.contains("1,023") && hint.contains("maxPods"), "{refused}: {hint}");
        // Nothing of the attempt is left, and the next pod has room when there is some.
        assert_eq!(host.bridge.attachments().len(), 1);
        ip("link delete port1");
        let next = host.attach(3, &[]);
        assert_ne!(next.ip(), first.ip());
    });
}

/// Runs itself again where /proc/sys cannot be written and forwarding is off.
#[test]
fn forwarding_that_cannot_be_switched_on_is_named_with_the_hint() {
    const AGAIN: &str = "HULL_TEST_READ_ONLY";
    if std::env::var_os(AGAIN).is_none() {
        let script = "echo 0 > /proc/sys/net/ipv4/ip_forward && mount --bind /proc/sys /proc/sys && \
                      mount -o remount,bind,ro /proc/sys && \
                      exec \"$0\" --exact inside::forwarding_that_cannot_be_switched_on_is_named_with_the_hint";
        let again = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(AGAIN, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && said.contains("1 passed"), "{again:?}");
        return;
    }
    let host = Host::new();
    let refused = host.try_attach(1, &netns::create().unwrap(), &[]).unwrap_err();
    let hint = refused.hint().unwrap_or_default();
    assert!(refused.to_string().contains("set /proc/sys/net/ipv4/ip_forward to 1"), "{refused}");
    assert!(hint.contains("echo 1 > /proc/sys/net/ipv4/ip_forward"), "{hint}");
    assert!(host.bridge.attachments().is_empty());
}
