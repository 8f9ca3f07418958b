// SPDX-License-Identifier: Apache-2.0
//! The failure zoo: failures that people search for in five layers and in images, and whether Hull's answer names
//! where, why and what to do.
//!
//! A case is data: how it is set up, and words of which the answer must contain one for each point. The words are those
//! that a reader needs; `never` are words that would mislead. The answer is what a kubelet gets: errors of calls, reason
//! and message of a status. Each layer is one test, and all its cases run on one node at the same time.

mod case;
mod cgroup;
mod driver;
mod filesystem;
mod image;
mod network;
mod plugins;
mod process;
mod registry;
mod security;

use case::{Case, Setup};
use futures_util::StreamExt as _;
use hull_tests::node::Driver;
use hull_tests::shell::say;
use hull_tests::{ExpectExt as _, Node, fixture};
use std::path::Path;

/// Cases of one layer that run at the same time.
const AT_ONCE: usize = 8;

/// A case with the answer.
struct Judged {
    name: &'static str,
    points: [bool; 3],
    misleads: bool,
    answer: String,
}

impl Judged {
    fn is_complete(&self) -> bool {
        self.points == [true; 3] && !self.misleads
    }

    fn letters(&self) -> String {
        let letters = self.points.iter().zip("WCF".chars());
        letters.map(|(has, letter)| if *has { letter } else { '-' }).collect()
    }
}

fn judge(case: &Case, answer: String) -> Judged {
    let text = answer.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(&word.to_lowercase()));
    Judged {
        name: case.name,
        points: [has(case.place), has(case.cause), has(case.fix)],
        misleads: has(case.never),
        answer,
    }
}

/// Runs the cases, prints the table of the layer, and fails where a point is lost.
async fn run(layer: &str, node: &Node, cases: impl IntoIterator<Item = &Case>) {
    let _id = node.cri().pull(&fixture::busybox()).await.or_fail("pull busybox");
    let runs = cases.into_iter().enumerate().map(|(number, case)| async move {
        let setup = Setup::new(node, number);
        judge(case, driver::answer(&node.cri(), setup, case.set.clone()).await)
    });
    let mut judged: Vec<Judged> =
        futures_util::stream::iter(runs).buffered(AT_ONCE).collect().await;
    let all = judged.len() * 3;
    let points = judged.iter().flat_map(|of| of.points).filter(|has| *has).count();
    say(&format!("{layer}: {points} of {all} points"));
    for of in &judged {
        say(&format!("  {} {}: {}", of.letters(), of.name, of.answer));
    }
    judged.retain(|of| !of.is_complete());
    let lost: Vec<String> = judged
        .iter()
        .map(|of| {
            let misleads = if of.misleads { ", misleading" } else { "" };
            format!("{} ({}{misleads}): {}", of.name, of.letters(), of.answer)
        })
        .collect();
    assert!(lost.is_empty(), "points lost (where, cause, fix):\n{}", lost.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_images_are_explained() {
    let node = Node::start_with("[image]\nstall_s = 2\n").await;
    run("image", &node, &image::cases().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_processes_are_explained() {
    let node = Node::start().await;
    run("process", &node, &process::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_filesystems_are_explained() {
    let node = Node::start().await;
    run("filesystem", &node, &filesystem::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_namespaces_and_networks_are_explained() {
    let node = Node::start().await;
    run("network", &node, &network::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_network_plugins_are_explained() {
    plugins::run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_cgroups_are_explained() {
    let node = Node::start().await;
    let is_v1 = !Path::new("/sys/fs/cgroup/cgroup.controllers").is_file();
    let of_v1 = [&cgroup::BELOW_USE, &cgroup::UNIFIED].into_iter().filter(|_| is_v1);
    let is_cgroupfs = Driver::of_the_run() == Driver::Cgroupfs;
    let of_driver = is_cgroupfs.then_some(&cgroup::OF_CGROUPFS);
    run("cgroup", &node, cgroup::CASES.iter().chain(of_v1).chain(of_driver)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_security_settings_are_explained() {
    let node = Node::start().await;
    run("security", &node, &security::CASES).await;
}
