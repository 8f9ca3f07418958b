// SPDX-License-Identifier: Apache-2.0
//! Images that are small as they travel and would be dear to take: each is pulled in a process of its own, and
//! must end as it should, soon, with little memory and little on the disk.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Fake, TestStore, can_run, serves, told};
use hull_tests::hostile::{CORPUS, End, harmless};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Of the process that pulls, in all: an idle one has 20 MB.
const MEMORY_BYTES_MAX: u64 = 150 << 20;
const SECONDS_MAX: u64 = 300;

/// Largest that this process was. `VmHWM` of proc_pid_status(5).
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Runs one test of this program in a process of its own, and gives what it says of its memory.
fn alone(test: &str, image: &str) -> u64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("HOSTILE_IMAGE", image)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{image}: {said}{}", String::from_utf8_lossy(&child.stderr));
    let peak = said.lines().find_map(|line| line.split_once("peak ")).unwrap().1;
    peak.trim().parse().unwrap()
}

/// The work of a process of its own; run alone it pulls a harmless image.
#[test]
fn one_image_is_pulled_and_ends_as_it_should() {
    if !can_run("one_image_is_pulled_and_ends_as_it_should") {
        return;
    }
    let own = Fake::start(serves(&harmless(), "a/b", "1"));
    let told_to = std::env::var("HOSTILE_IMAGE").unwrap_or_else(|_| format!("{}|", own.host));
    let (host, name) = told_to.split_once('|').unwrap();
    let hostile = CORPUS.iter().find(|of| of.name == name);
    let (end, seconds) = hostile.map_or((End::Taken(1 << 20), 3600), |of| (of.end, of.seconds));
    let store = TestStore::configured(|config| config.limits.seconds = seconds);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pulled = runtime.block_on(store.pull(&format!("{host}/a/b:1")));
    match (pulled, end) {
        (Ok(_), End::Taken(bytes)) => {
            let all = runtime.block_on(store.store.verify(None)).unwrap();
            assert!(all.iter().all(hull_image::Verified::is_whole), "{all:?}");
            let taken = on_disk(&store.at("layers"));
            assert!(taken <= bytes, "{taken} bytes on the disk");
        }
        (Err(err), End::Refused(words)) => {
            assert!(told(&err).contains(words), "{}", told(&err));
            assert!(store.names("tmp").is_empty() && store.names("layers").is_empty());
        }
        (Ok(_), End::Refused(words)) => panic!("taken, but should be refused: {words}"),
        (Err(err), End::Taken(_)) => panic!("{}", told(&err)),
    }
    println!("peak {}", peak_bytes());
}

/// Bytes that a tree takes, holes not counted.
fn on_disk(path: &Path) -> u64 {
    let du = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let said = String::from_utf8(du.stdout).unwrap();
    said.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn no_image_costs_more_than_it_may() {
    if !can_run("no_image_costs_more_than_it_may") {
        return;
    }
    let mut dear = Vec::new();
    for hostile in CORPUS {
        let (name, packed) = (hostile.name, hostile.pack());
        let size: usize = packed.blobs.iter().map(|of| of.bytes.len()).sum();
        let fake = Fake::start(serves(&packed, "a/b", "1"));
        let began = Instant::now();
        let image = format!("{}|{name}", fake.host);
        let peak = alone("one_image_is_pulled_and_ends_as_it_should", &image);
        let took = began.elapsed().as_secs();
        println!("{name}: {size} bytes, peak {} MiB, {took} s", peak >> 20);
        if peak > MEMORY_BYTES_MAX || took > SECONDS_MAX {
            dear.push((name, peak, took));
        }
    }
    assert!(dear.is_empty(), "{dear:?}");
}

/// The writable layer of a container is measured by walking it, in a daemon that other pods need.
#[test]
fn a_container_of_many_directories_is_measured_in_little_memory() {
    if !can_run("a_container_of_many_directories_is_measured_in_little_memory") {
        return;
    }
    const DIRECTORIES: u64 = 100_000;
    if std::env::var("HOSTILE_IMAGE").is_err() {
        let peak = alone("a_container_of_many_directories_is_measured_in_little_memory", "|");
        println!("measured with a peak of {} MiB", peak >> 20);
        assert!(peak < 64 << 20, "{peak}");
        return;
    }
    let fake = Fake::start(serves(&harmless(), "a/b", "1"));
    let store = TestStore::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let image = runtime.block_on(store.pull(&format!("{}/a/b:1", fake.host))).unwrap();
    let rootfs = store.store.create_rootfs("c", &image, &|uid, gid| (uid, gid)).unwrap();
    let before = store.store.rootfs_usage("c").unwrap().inodes;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(&rootfs.upper, flags, Mode::empty()).unwrap();
    for _ in 0..18 {
        let name = "e".repeat(200);
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    for number in 0..DIRECTORIES {
        mkdirat(&at, number.to_string(), Mode::RWXU).unwrap();
    }
    let inodes = store.store.rootfs_usage("c").unwrap().inodes;
    assert_eq!(inodes, before + 18 + DIRECTORIES);
    store.store.remove_rootfs("c").unwrap();
    println!("peak {}", peak_bytes());
}
