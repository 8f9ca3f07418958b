// SPDX-License-Identifier: Apache-2.0
//! Attaches pods one after the other, all of which stay, and tells what the first and the last hundred
//! took: what one pod costs must not depend on how many there are. Besides the time it tells the
//! processor's own, in which what else the machine does counts less.
//!
//! `many 1000`, or `many 1000 macvlan`, as root. It works in a network namespace of its own. A bridge of the
//! kernel has room for 1,023 pods, and goes through all of its ports whenever one comes.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for people who work on the network: its output is its result"
)]

use hull_network::{Bandwidth, BuiltinNetwork, Config, LinkMode, Pod, PortMapping, Protocol};
use hull_sys::netns;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

const AT_A_TIME: usize = 100;

fn main() {
    let pods: u16 = std::env::args().nth(1).map_or(1000, |count| count.parse().unwrap());
    let host = netns::create().unwrap();
    hull_network::loopback_up(host.as_fd()).unwrap();
    let link_mode = match std::env::args().nth(2).as_deref() {
        Some("macvlan") => LinkMode::Macvlan,
        _ => LinkMode::Bridge,
    };
    netns::within(host.as_fd(), || attach(pods, link_mode)).unwrap();
}

fn attach(pods: u16, link_mode: LinkMode) {
    if link_mode == LinkMode::Macvlan {
        for line in ["link add up0 type veth peer name up1", "link set up0 up", "link set up1 up"] {
            let ran = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(ran.success(), "ip {line}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        link_mode,
        uplink: Some("up0".into()),
        bridge: "many0".into(),
        pod_cidr: vec!["10.213.0.0/16".parse().unwrap()],
        mtu: None,
        masquerade: true,
        cluster_cidrs: Vec::new(),
        wait_for_pod_cidr: false,
        table: "many".into(),
        state_dir: dir.path().join("state"),
    };
    let bridge = BuiltinNetwork::open(config).unwrap();
    let mut held = Vec::new();
    let (mut took, mut cpu) = (Vec::new(), Vec::new());
    for number in 0..pods {
        let id = format!("{number:011x}{}", "6".repeat(53));
        let netns = netns::create().unwrap();
        let host_port = 20_000 + number;
        let port =
            PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: None };
        let (began, worked) = (Instant::now(), cpu_time());
        let pod = Pod { id: &id, short: &id[..11] };
        bridge.attach(&pod, netns.as_fd(), &[port], Bandwidth::default()).unwrap();
        took.push(began.elapsed());
        cpu.push(cpu_time() - worked);
        held.push((id, netns));
    }
    let hundreds = took.chunks(AT_A_TIME).zip(cpu.chunks(AT_A_TIME));
    for (number, (some, cpu)) in hundreds.enumerate() {
        let mean = some.iter().sum::<Duration>() / 100;
        let (number, cpu) = (number * AT_A_TIME, median(cpu));
        println!("{number:>5}: mean {mean:?}, median {:?}, processor {cpu:?}", median(some));
    }
    println!("last hundred / first hundred, by medians: {:.2}", ratio(&took));
    println!("the same for processor time: {:.2}", ratio(&cpu));
    let began = Instant::now();
    held.iter().for_each(|(id, _)| bridge.detach(id).unwrap());
    println!("detached in {:?}", began.elapsed());
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

fn ratio(all: &[Duration]) -> f64 {
    let (first, last) = (&all[..AT_A_TIME], &all[all.len() - AT_A_TIME..]);
    median(last).as_secs_f64() / median(first).as_secs_f64()
}

fn median(some: &[Duration]) -> Duration {
    let mut some = some.to_vec();
    some.sort_unstable();
    some[some.len() / 2]
}
