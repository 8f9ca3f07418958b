// SPDX-License-Identifier: Apache-2.0
//! Moves bytes over TCP from pod to pod, and from host to pod, through our bridge and through one made
//! by hand with `ip`, in turns; tells all and their ratios. The bridge by hand is there twice: bare, and
//! with the one rule by which its pods reach other networks (masquerading). That has the kernel track
//! connections, which costs what it costs.
//!
//! `throughput 15` for so many turns of half a second each way, as root. Both are in network namespaces
//! of their own.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for people who work on the network: its output is its result"
)]

use hull_network::{Bandwidth, BuiltinNetwork, Config, LinkMode, Pod};
use hull_sys::netns;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

const TURN: Duration = Duration::from_millis(500);
const CHUNK_BYTES: usize = 128 * 1024;

/// A host with two pods.
struct Bed {
    host: OwnedFd,
    pods: [OwnedFd; 2],
    second: SocketAddr,
}

fn main() {
    let turns: usize = std::env::args().nth(1).map_or(15, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let beds = [ours(dir.path()), by_hand(false), by_hand(true)];
    for (way, from) in [
        ("pod to pod", (|bed| &bed.pods[0]) as fn(&Bed) -> &OwnedFd),
        ("host to pod", |bed| &bed.host),
    ] {
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for turn in 0..turns * 3 {
            // Each is first, second and last: what came before warms none more.
            let of = (turn + turn / 3) % 3;
            rates[of].push(gbit_per_s(from(&beds[of]), &beds[of]));
        }
        let [ours, bare, masquerading] = rates.map(median);
        let ratios = (ours / bare, ours / masquerading);
        println!(
            "{way}: {ours:.2} Gbit/s; by hand {bare:.2}, ratio {:.3}; by hand with masquerading {masquerading:.2}, ratio {:.3}",
            ratios.0, ratios.1
        );
    }
}

fn gbit_per_s(from: &OwnedFd, bed: &Bed) -> f64 {
    let to = bed.second;
    let listener = netns::within(bed.pods[1].as_fd(), || TcpListener::bind(to).unwrap()).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut all, began) = (vec![0; CHUNK_BYTES], 0, Instant::now());
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return (all, began.elapsed()),
                length => all += length,
            }
        }
    });
    netns::within(from.as_fd(), || {
        let mut stream = TcpStream::connect(to).unwrap();
        let (chunk, began) = (vec![0; CHUNK_BYTES], Instant::now());
        while began.elapsed() < TURN {
            stream.write_all(&chunk).unwrap();
        }
    })
    .unwrap();
    let (bytes, took) = reader.join().unwrap();
    let megabits = f64::from(u32::try_from(bytes / 125_000).unwrap());
    megabits / 1000.0 / took.as_secs_f64()
}

fn ours(dir: &std::path::Path) -> Bed {
    let config = Config {
        link_mode: LinkMode::Bridge,
        uplink: None,
        bridge: "bed0".into(),
        pod_cidr: vec!["10.213.0.0/24".parse().unwrap()],
        mtu: None,
        masquerade: true,
        cluster_cidrs: Vec::new(),
        wait_for_pod_cidr: false,
        table: "bed".into(),
        state_dir: dir.join("state"),
    };
    let host = netns::create().unwrap();
    hull_network::loopback_up(host.as_fd()).unwrap();
    let pods = [netns::create().unwrap(), netns::create().unwrap()];
    let attach = || {
        let bridge = BuiltinNetwork::open(config).unwrap();
        let attach = |number: usize| {
            let id = format!("{number:011x}{}", "6".repeat(53));
            let pod = Pod { id: &id, short: &id[..11] };
            bridge.attach(&pod, pods[number].as_fd(), &[], Bandwidth::default()).unwrap()
        };
        [attach(0), attach(1)]
    };
    let [_, second] = netns::within(host.as_fd(), attach).unwrap();
    Bed { host, pods, second: SocketAddr::from((second.ips[0].addr(), 5001)) }
}

fn by_hand(masquerading: bool) -> Bed {
    let host = netns::create().unwrap();
    let pods = [netns::create().unwrap(), netns::create().unwrap()];
    netns::within(host.as_fd(), || {
        ip("link add bed0 type bridge");
        ip("addr add 10.213.0.1/24 dev bed0");
        ip("link set bed0 up");
        if masquerading {
            nft("add table ip bed");
            nft("add chain ip bed post { type nat hook postrouting priority 100 ; }");
            nft("add rule ip bed post ip saddr 10.213.0.0/24 ip daddr != 10.213.0.0/24 masquerade");
        }
        for (number, pod) in pods.iter().enumerate() {
            let at = format!("/proc/{}/fd/{}", std::process::id(), pod.as_raw_fd());
            ip(&format!("link add bed-{number} type veth peer name eth0 netns {at}"));
            ip(&format!("link set bed-{number} master bed0 up"));
        }
    })
    .unwrap();
    for (number, pod) in pods.iter().enumerate() {
        netns::within(pod.as_fd(), || {
            ip(&format!("addr add 10.213.0.{}/24 dev eth0", number + 2));
            ip("link set eth0 up");
        })
        .unwrap();
    }
    Bed { host, pods, second: "10.213.0.3:5001".parse().unwrap() }
}

fn ip(line: &str) {
    let ran = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(ran.success(), "ip {line}");
}

fn nft(line: &str) {
    let ran = Command::new("nft").arg(line).status().unwrap();
    assert!(ran.success(), "nft {line}");
}

fn median(mut some: Vec<f64>) -> f64 {
    some.sort_unstable_by(f64::total_cmp);
    some[some.len() / 2]
}
