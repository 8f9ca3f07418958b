// SPDX-License-Identifier: Apache-2.0
//! Limits that the kernel checks against each other: from each valid set to each other, and all or none. Needs root
//! and the host's hierarchies.
#![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]

use hull_cgroup::{Cgroup, CgroupFs, Limits};
use std::fs;
use std::time::Duration;

/// Takes the parent away again, however the test ends.
struct Parent(Cgroup);

impl Drop for Parent {
    fn drop(&mut self) {
        self.0.kill_and_remove(Duration::from_secs(10)).unwrap();
    }
}

fn tree(name: &str) -> (Parent, Cgroup, String) {
    let host = CgroupFs::detect().unwrap();
    let path = format!("/hull-test-order-{name}-{}", std::process::id());
    let parent = Parent(Cgroup::at(&host, &path).unwrap());
    let middle = format!("{path}/middle");
    (parent, Cgroup::at(&host, &middle).unwrap(), middle)
}

/// The content of the first of `files` that exists, in the hierarchy that has it.
fn read(path: &str, files: &[&str]) -> String {
    let roots = ["", "/memory", "/cpu", "/cpu,cpuacct", "/unified"];
    let dirs = roots.map(|root| format!("/sys/fs/cgroup{root}{path}"));
    let mut found =
        files.iter().flat_map(|file| dirs.iter().map(move |dir| format!("{dir}/{file}")));
    found.find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default().trim().to_owned()
}

#[test]
fn a_share_of_the_processor_changes_from_any_to_any_between_parent_and_child() {
    let (parent, middle, path) = tree("cpu");
    let host = CgroupFs::detect().unwrap();
    let child = Cgroup::at(&host, &format!("{path}/child")).unwrap();
    let share = |quota, period, burst| Limits {
        cpu_quota_us: Some(quota),
        cpu_period_us: Some(period),
        cpu_burst_us: burst,
        ..Limits::default()
    };
    // Half a processor for all of them, whatever the period.
    parent.0.create(&share(50_000, 100_000, None)).unwrap();
    middle.create(&share(50_000, 100_000, None)).unwrap();
    child.create(&share(10_000, 20_000, None)).unwrap();
    let valid = [(50_000, 100_000), (100_000, 200_000), (20_000, 40_000), (400_000, 800_000)];
    for from in valid {
        for to in valid {
            for (quota, period) in [from, to] {
                middle.update(&share(quota, period, None)).unwrap();
                let now = read(&path, &["cpu.max", "cpu.cfs_quota_us"]);
                assert!(now.starts_with(&quota.to_string()), "{from:?} to {to:?}: {now}");
            }
        }
    }
    let (_parent, middle, path) = tree("burst");
    middle.create(&share(50_000, 100_000, Some(50_000))).unwrap();
    for (quota, burst) in [(10_000, 10_000), (90_000, 90_000), (20_000, 0), (80_000, 70_000)] {
        middle.update(&share(quota, 100_000, Some(burst))).unwrap();
        let now = read(&path, &["cpu.max.burst", "cpu.cfs_burst_us"]);
        assert_eq!(now, burst.to_string(), "{quota}");
    }
    // A period alone leaves the quota, and a share that the kernel refuses leaves all.
    let before = || ["cpu.max", "cpu.cfs_quota_us"].map(|file| read(&path, &[file]));
    middle.update(&Limits { cpu_period_us: Some(200_000), ..Limits::default() }).unwrap();
    let then = before();
    assert!(then.iter().any(|text| text.starts_with("80000")), "{then:?}");
    let refused = middle.update(&share(500, 100_000, Some(0))).unwrap_err();
    assert!(refused.to_string().contains("500"), "{refused}");
    assert_eq!(before(), then);
}

#[test]
fn memory_with_and_without_swap_changes_from_any_to_any() {
    let (_parent, middle, path) = tree("memory");
    let limits = |memory, both| Limits {
        memory_bytes: Some(memory),
        memory_swap_bytes: Some(both),
        ..Limits::default()
    };
    const MIB: i64 = 1 << 20;
    middle.create(&limits(64 * MIB, 64 * MIB)).unwrap();
    let valid = [(64, 64), (128, 256), (32, 128), (256, 256), (16, 16), (-1, -1)];
    for from in valid {
        for to in valid {
            for (memory, both) in [from, to] {
                let bytes = |of: i64| if of < 0 { -1 } else { of * MIB };
                middle.update(&limits(bytes(memory), bytes(both))).unwrap();
                let now = read(&path, &["memory.max", "memory.limit_in_bytes"]);
                let is_set = memory < 0 || now == bytes(memory).to_string();
                assert!(is_set, "{from:?} to {to:?}: {now}");
            }
        }
    }
    middle.update(&limits(64 * MIB, 64 * MIB)).unwrap();
    middle.update(&Limits { memory_bytes: Some(-1), ..Limits::default() }).unwrap();
    let now = read(&path, &["memory.max", "memory.limit_in_bytes"]);
    assert!(now == "max" || now.len() > 15, "{now}");
    // A refused limit leaves both as they were.
    middle.update(&limits(64 * MIB, 128 * MIB)).unwrap();
    let files = [
        ["memory.max", "memory.limit_in_bytes"],
        ["memory.swap.max", "memory.memsw.limit_in_bytes"],
    ];
    let both = || files.map(|names| read(&path, &names));
    let before = both();
    let too_many = Limits { memory_bytes: Some(-1), pids: Some(i64::MAX), ..Limits::default() };
    let refused = middle.update(&too_many).unwrap_err().to_string();
    assert!(refused.contains("pids.max"), "{refused}");
    assert_eq!(both(), before);
}
