// SPDX-License-Identifier: Apache-2.0
//! Upgrades under running pods, and the way back: earlier releases of Hull start pods, today's takes them over while
//! clients are at work, and the earlier one gets them back, with a pod of today's beside them.
//!
//! `make test-upgrades` builds the earlier releases (`scripts/upgrades`) and runs this. No other command does.

mod releases;
mod work;

use hull_proto::monitor::VERSION;
use hull_tests::cri::{Cri, idle, mount, shell};
use hull_tests::{Node, node, paths};
use work::{Known, Sessions};

/// Protocols of monitors before today's with which pods are taken over.
const EARLIER: u16 = 3;

#[tokio::test]
async fn the_earliest_of_three_protocols_is_upgraded_and_gone_back_to() {
    there_and_back(VERSION - 3).await;
}

#[tokio::test]
async fn the_protocol_before_the_last_is_upgraded_and_gone_back_to() {
    there_and_back(VERSION - 2).await;
}

#[tokio::test]
async fn the_last_protocol_is_upgraded_and_gone_back_to() {
    there_and_back(VERSION - 1).await;
}

#[test]
fn the_list_has_the_protocols_before_todays() {
    let listed: Vec<u16> = releases::listed().iter().map(|(version, _)| *version).collect();
    let wanted: Vec<u16> = (VERSION - EARLIER..VERSION).collect();
    assert_eq!(
        listed, wanted,
        "add the last commit with the previous VERSION to tests/upgrades/commits"
    );
}

/// Counts, one line after the other, until a file says that it is enough.
const COUNTS: &str =
    "i=0; while [ ! -e /host/stop ]; do i=$((i+1)); echo n$i; sleep 0.01; done; exit 3";
/// Answers on port 9000.
const SERVES: &str = "while true; do echo answer | nc -l -p 9000; done";

async fn there_and_back(protocol: u16) {
    let (earlier, today) = (releases::program(protocol), paths::hull());
    let mut node = Node::start_by(&earlier).await;
    let (cri, pod, image) = node.pod("old").await;
    let mut config = shell("counts", &image, COUNTS);
    config.mounts = vec![mount(&node.host_dir(), "/host")];
    let counts = cri.run(&pod, config).await;
    let serves = cri.run(&pod, shell("serves", &image, SERVES)).await;
    let ended = cri.run(&pod, shell("ended", &image, "echo out; exit 5")).await;
    assert_eq!(cri.ended(&ended).await.exit_code, 5);
    let created = cri.create(&pod, idle("created", &image)).await.unwrap();
    let known = Known::of(&cri, &pod, &[&counts, &serves, &ended, &created]).await;

    let sessions = Sessions::begin(&node, &counts, &pod).await;
    node.restart_by(&today).await;
    sessions.end_with_the_daemon().await;
    known.is_unchanged(&cri).await;
    work::everything_works(&node, &counts, &pod).await;

    // A pod of today's, which the earlier release gets as well.
    let second = cri.run_pod("new").await.unwrap();
    let serves_too = cri.run(&second, shell("serves", &image, SERVES)).await;
    let main_too = cri.run_idle(&second, "main", &image).await;
    let known_too = Known::of(&cri, &second, &[&serves_too, &main_too]).await;

    let sessions = Sessions::begin(&node, &counts, &pod).await;
    node.restart_by(&earlier).await;
    sessions.end_with_the_daemon().await;
    known.is_unchanged(&cri).await;
    known_too.is_unchanged(&cri).await;
    work::everything_works(&node, &counts, &pod).await;
    work::everything_works(&node, &main_too, &second).await;
    images_are_there(&cri, &second, &image).await;
    cri.stop(&main_too, 10).await.unwrap();
    assert_eq!(cri.status(&main_too).await.exit_code, 0);
    cri.stop_pod(&second).await.unwrap();
    cri.remove_pod(&second).await.unwrap();

    node.restart_by(&today).await;
    known.is_unchanged(&cri).await;
    images_are_there(&cri, &pod, &image).await;
    cri.start(&created).await.unwrap();
    cri.catches_term(&created).await;
    cri.stop(&created, 10).await.unwrap();
    assert_eq!(cri.status(&created).await.exit_code, 0);
    let _path = node::write(&node.host_dir(), "stop", "");
    assert_eq!(cri.ended(&counts).await.exit_code, 3);
    let lines = cri.logs(&counts).await;
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line.text, format!("n{}", at + 1), "line {} of {}", at + 1, lines.len());
    }
    for id in [&counts, &ended, &created] {
        cri.remove(id).await.unwrap();
    }
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    node.finish().await;
}

/// The stored image is listed, and a new container can be made of it.
async fn images_are_there(cri: &Cri, pod: &str, image: &str) {
    assert!(cri.image_status(image).await.unwrap().is_some(), "{image} is not listed");
    let ran = cri.output(pod, shell("stored", image, "echo from the store")).await;
    assert_eq!(ran.stdout, "from the store\n", "{ran:?}");
}
