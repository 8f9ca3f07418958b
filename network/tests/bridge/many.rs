// SPDX-License-Identifier: Apache-2.0
//! Many pods at once, with figures.

use crate::common::on_a_host;
use crate::support::{Host, id, links, port, table};
use hull_sys::netns;
use std::os::fd::AsFd as _;
use std::time::Instant;

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
