// SPDX-License-Identifier: Apache-2.0
//! Rates of pods, as they are when bytes go through, and what is left of them.

use crate::common::on_a_host;
use crate::support::{Attached, Host, at, config, eventually, id, ip, links, run};
use hull_network::{Bandwidth, BuiltinNetwork};
use hull_sys::netns;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

/// More than a bucket, and than the queue in front of it.
const BYTES: usize = 1 << 20;
const SLOW: u64 = 8_000_000;
const FASTER: u64 = 32_000_000;

fn limited(host: &Host, number: u32, bandwidth: Bandwidth) -> Attached {
    let netns = netns::create().unwrap();
    let got = host.try_attach_at(number, &netns, &[], bandwidth).unwrap();
    Attached { netns, got }
}

fn to_pod(bits: u64) -> Bandwidth {
    Bandwidth { ingress_bits: Some(bits), egress_bits: None }
}

fn from_pod(bits: u64) -> Bandwidth {
    Bandwidth { ingress_bits: None, egress_bits: Some(bits) }
}

/// Seconds that it takes to send all to a listener, until that has all of it.
fn sending(listener: TcpListener, send: impl FnOnce(&[u8]) + Send) -> f64 {
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        (all.len(), Instant::now())
    });
    let began = Instant::now();
    send(&vec![7; BYTES]);
    let (length, ended) = reader.join().unwrap();
    assert_eq!(length, BYTES, "slower, but whole");
    (ended - began).as_secs_f64()
}

fn send(to: SocketAddr, bytes: &[u8]) {
    TcpStream::connect(to).unwrap().write_all(bytes).unwrap();
}

fn seconds_to(pod: &Attached) -> f64 {
    let to = SocketAddr::from((pod.ip(), 80));
    let listener = pod.within(|| TcpListener::bind(to).unwrap());
    sending(listener, |bytes| send(to, bytes))
}

fn seconds_from(pod: &Attached) -> f64 {
    let to = at("10.214.7.1:8099");
    let listener = TcpListener::bind(to).unwrap();
    sending(listener, |bytes| pod.within(|| send(to, bytes)))
}

#[test]
fn a_pod_receives_and_sends_at_the_rates_asked_for() {
    on_a_host(|| {
        let host = Host::new();
        let free = limited(&host, 1, Bandwidth::default());
        for (seconds, rate, number) in [
            (seconds_to as fn(&Attached) -> f64, to_pod as fn(u64) -> Bandwidth, 2),
            (seconds_from, from_pod, 4),
        ] {
            let (slow, faster) =
                (limited(&host, number, rate(SLOW)), limited(&host, number + 1, rate(FASTER)));
            let unlimited = seconds(&free);
            let (at_slow, at_faster) = (seconds(&slow), seconds(&faster));
            let told = format!("{unlimited:.4} s, {at_faster:.4} s, {at_slow:.4} s");
            assert!(at_slow > 5.0 * unlimited, "limited at all: {told}");
            assert!((2.0..8.0).contains(&(at_slow / at_faster)), "four times the rate: {told}");
        }
        // Each way has a rate of its own.
        let slow = limited(&host, 6, to_pod(SLOW));
        assert!(seconds_to(&slow) > 5.0 * seconds_from(&slow));
    });
}

/// Inside there is nothing to remove, and what comes back from a rate is whole.
#[test]
fn a_pod_cannot_take_its_limits_away() {
    on_a_host(|| {
        let host = Host::new();
        let both = Bandwidth { ingress_bits: Some(SLOW), egress_bits: Some(SLOW) };
        let pod = limited(&host, 1, both);
        let inside = pod.within(|| run("tc", &["qdisc", "show"]));
        assert!(!inside.contains("tbf") && !inside.contains("ingress"), "{inside}");
        pod.within(|| ip("link set eth0 down"));
        pod.within(|| ip("link set eth0 up"));
        pod.within(|| ip("route replace default via 10.214.7.1"));
        let outside = run("tc", &["qdisc", "show"]);
        let beside = pod.got.host_link.replacen("hull", "hulq", 1);
        for (link, kind) in [(&pod.got.host_link, "tbf"), (&beside, "tbf")] {
            let line = outside.lines().find(|line| {
                line.contains(kind)
                    && line.contains(&format!("dev {link} "))
                    && line.contains("8Mbit")
            });
            assert!(line.is_some(), "{kind} on {link} in\n{outside}");
        }
        assert!(seconds_from(&pod) > 5.0 * seconds_from(&limited(&host, 2, Bandwidth::default())));
    });
}

#[test]
fn rates_outlive_the_daemon_and_go_with_the_pod() {
    on_a_host(|| {
        let host = Host::new();
        let before = links();
        let both = Bandwidth { ingress_bits: Some(SLOW), egress_bits: Some(SLOW) };
        for number in 1..=4 {
            let pod = limited(&host, number, both);
            let queues = run("tc", &["qdisc", "show"]);
            let again = BuiltinNetwork::open(config(&host.dir, &["10.214.7.0/24"])).unwrap();
            assert_eq!(run("tc", &["qdisc", "show"]), queues);
            match number {
                1 => again.detach(&id(number)).unwrap(),
                2 => {
                    // Attached again, with other rates: the first ones are gone.
                    host.try_attach_at(number, &pod.netns, &[], to_pod(FASTER)).unwrap();
                    assert!(!links().iter().any(|link| link.starts_with("hulq")), "{:?}", links());
                    host.bridge.detach(&id(number)).unwrap();
                }
                3 => {
                    host.bridge.release(&id(number)).unwrap();
                    drop(pod);
                    eventually("let go", || host.bridge.attachments().is_empty());
                }
                _ => {
                    // Its namespace went while no daemon was there.
                    let name = pod.got.host_link.clone();
                    drop(pod);
                    eventually("the kernel took the pair", || !links().contains(&name));
                    again.detach(&id(number)).unwrap();
                }
            }
            let left = links();
            let left: Vec<_> = left.iter().filter(|link| !before.contains(link)).collect();
            assert_eq!(left, ["hulltest0"], "case {number}");
            let tried = BuiltinNetwork::open(config(&host.dir, &["10.214.7.0/24"])).unwrap();
            if number == 1 {
                // The first knows it still; what it has is given back by each that has it.
                host.bridge.detach(&id(number)).unwrap();
            }
            assert!(tried.attachments().is_empty());
        }
    });
}
