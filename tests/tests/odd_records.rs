// SPDX-License-Identifier: Apache-2.0
//! Records as no daemon wrote them: other ids, names, paths and states, fields that are missing, other versions, and
//! links, directories and FIFOs in place of files. The daemon starts, every pod and container that it shows can be
//! removed, and nothing stays but what was set aside for a person to see.

#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]

use hull_proto::cri as api;
use hull_tests::cri::idle;
use hull_tests::shell::{names, run};
use hull_tests::{Cri, Node, eventually};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Daemons that are started on odd records. Each has some oddities at once.
const ROUNDS: usize = 16;
const ODDITIES_MAX: usize = 4;

/// The change to one file.
#[derive(Debug, Clone)]
enum Oddity {
    /// A field has this value.
    Field(&'static [&'static str], Value),
    /// A field is not there.
    Missing(&'static [&'static str]),
    Version(Value),
    /// So much of it is there.
    Cut(usize),
    Bytes(Vec<u8>),
    Link(&'static str),
    Directory,
    Fifo,
    /// It lies under another name, or under both.
    Named(String),
    Copied(String),
    /// A write of it that was cut short is a directory.
    NewIsDirectory,
}

fn field() -> impl Strategy<Value = &'static [&'static str]> {
    select(vec![
        &["record", "id"][..],
        &["record", "pod"],
        &["record", "config"],
        &["record", "config", "metadata"],
        &["record", "config", "metadata", "name"],
        &["record", "config", "linux"],
        &["record", "config", "linux", "cgroup_parent"],
        &["record", "config", "linux", "security_context", "namespace_options", "network"],
        &["record", "cgroup"],
        &["record", "cgroup_is_ours"],
        &["record", "created_ns"],
        &["record", "handler"],
        &["record", "image_id"],
        &["record", "log_path"],
        &["record", "stop_signal"],
        &["record", "state"],
        &["record", "user"],
        &["record"],
    ])
}

fn value() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        ".",
        "..",
        "/",
        "//",
        "/a/./b",
        "/..",
        "x",
        "../../x",
        "\u{0}",
        "a\nb",
        "Building",
        "Ready",
        "Stopping",
        "Stopped",
        "Creating",
        "Created",
        "Removing",
        "sha256:none",
    ];
    let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
    values.extend([
        json!("A".repeat(64)),
        json!("0".repeat(64)),
        json!("x".repeat(300)),
        json!("/x".repeat(3000)),
        json!({"Ready": {"pause_pid": 1, "ips": []}}),
        json!({"Ready": {"pause_pid": -5, "ips": ["10.0.0.1"]}}),
        json!({"Running": {"pid": 1, "since_ns": 0}}),
        json!({"Running": {"pid": -1, "since_ns": i64::MAX}}),
        json!({"Exited": {"how": "Lost", "since_ns": null, "at_ns": i64::MIN}}),
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(2),
        json!(-1),
        json!(9999),
        json!(i64::MAX),
        json!([]),
        json!({}),
    ]);
    select(values)
}

fn oddity() -> impl Strategy<Value = Oddity> {
    let name = prop_oneof![Just("x".to_owned()), Just("0".repeat(64)), Just("F".repeat(64))];
    prop_oneof![
        8 => (field(), value()).prop_map(|(at, value)| Oddity::Field(at, value)),
        2 => field().prop_map(Oddity::Missing),
        1 => select(vec![json!(0), json!(99), json!(-1), json!("1")]).prop_map(Oddity::Version),
        1 => (0..200_usize).prop_map(Oddity::Cut),
        1 => proptest::collection::vec(any::<u8>(), 0..64).prop_map(Oddity::Bytes),
        1 => select(vec!["/dev/zero", "/nowhere", "/etc/hostname"]).prop_map(Oddity::Link),
        1 => Just(Oddity::Directory),
        1 => Just(Oddity::Fifo),
        1 => name.clone().prop_map(Oddity::Named),
        1 => name.prop_map(Oddity::Copied),
        1 => Just(Oddity::NewIsDirectory),
    ]
}

fn at<'v>(value: &'v mut Value, path: &[&str]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, key| value.get_mut(*key))
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let Ok(bytes) = fs::read(file) else { return };
    let Ok(mut value) = serde_json::from_slice(&bytes) else { return };
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

impl Oddity {
    fn befall(&self, file: &Path) {
        let under = |name: &str| file.with_file_name(name).with_extension("json");
        match self {
            Self::Field(path, new) => change(file, |value| {
                if let Some(of) = at(value, path) {
                    *of = new.clone();
                }
            }),
            Self::Missing(path) => change(file, |value| {
                let (last, above) = path.split_last().unwrap();
                if let Some(above) = at(value, above).and_then(Value::as_object_mut) {
                    above.remove(*last);
                }
            }),
            Self::Version(version) => change(file, |value| value["version"] = version.clone()),
            Self::Cut(length) => {
                let bytes = fs::read(file).unwrap_or_default();
                fs::write(file, &bytes[..bytes.len().min(*length)]).unwrap();
            }
            Self::Bytes(bytes) => fs::write(file, bytes).unwrap(),
            Self::Link(to) => {
                fs::remove_file(file).unwrap();
                std::os::unix::fs::symlink(to, file).unwrap();
            }
            Self::Directory => {
                fs::remove_file(file).unwrap();
                fs::create_dir_all(file.join("inner")).unwrap();
            }
            Self::Fifo => {
                fs::remove_file(file).unwrap();
                let _made = run("mkfifo", [&file.display().to_string()]).good();
            }
            Self::Named(_) | Self::Copied(_) if file.extension().is_none() => {}
            Self::Named(name) | Self::Copied(name) if under(name).symlink_metadata().is_ok() => {}
            Self::Named(name) => fs::rename(file, under(name)).unwrap(),
            Self::Copied(name) => drop(fs::copy(file, under(name)).unwrap()),
            Self::NewIsDirectory => {
                fs::create_dir_all(file.with_extension("new").join("inner")).unwrap();
            }
        }
    }
}

/// Regular files that are records, plans too.
fn records(node: &Node) -> Vec<PathBuf> {
    let dirs = ["pods", "containers", "plans"].map(|dir| node.state_dir().join(dir));
    let files = dirs.iter().flat_map(|dir| names(dir).into_iter().map(|name| dir.join(name)));
    files.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file())).collect()
}

async fn make(cri: &Cri, image: &str) {
    for name in ["one", "two"] {
        let pod = cri.run_pod(name).await.unwrap();
        cri.run(&pod, idle("runs", image)).await;
        cri.make(&pod, idle("made", image)).await;
    }
    let pod = cri.run_pod("stopped").await.unwrap();
    cri.run(&pod, idle("ran", image)).await;
    cri.stop_pod(&pod).await.unwrap();
}

async fn remove_all(cri: &Cri, what: &str) {
    let mut runtime = cri.runtime.clone();
    let listed = runtime.list_containers(api::ListContainersRequest::default()).await.unwrap();
    // Some by themselves, the others with their pods.
    for container in listed.into_inner().containers.iter().step_by(2) {
        cri.stop(&container.id, 0).await.unwrap_or_else(|err| panic!("{what}: {err}"));
        cri.remove(&container.id).await.unwrap_or_else(|err| panic!("{what}: {err}"));
    }
    for pod in cri.pods().await {
        cri.stop_pod(&pod.id).await.unwrap_or_else(|err| panic!("{what}: {err}"));
        cri.remove_pod(&pod.id).await.unwrap_or_else(|err| panic!("{what}: {err}"));
    }
    assert!(cri.pods().await.is_empty(), "{what}");
}

/// Nothing but what was set aside, which this takes away.
async fn only_set_aside_is_left(node: &Node, what: &str) {
    eventually(format!("nothing is left after {what}"), || async {
        let more = node.on_host().diff(node.before());
        let left: Vec<_> = more.0.iter().filter(|line| !line.contains(".bad")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    for dir in ["pods", "containers"].map(|dir| node.state_dir().join(dir)) {
        for path in names(&dir).iter().map(|name| dir.join(name)) {
            assert_eq!(path.extension().unwrap(), "bad", "{what}");
            let removed = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            removed.unwrap();
        }
    }
}

async fn round(node: &mut Node, image: &str, oddities: &[(usize, Oddity)]) {
    let (cri, what) = (node.cri(), format!("{oddities:?}"));
    make(&cri, image).await;
    node.kill();
    for (number, oddity) in oddities {
        let files = records(node);
        oddity.befall(&files[number % files.len()]);
    }
    node.start_again().await;
    remove_all(&cri, &what).await;
    only_set_aside_is_left(node, &what).await;
}

#[tokio::test]
async fn whatever_its_record_says_everything_can_be_removed() {
    let mut node = Node::start().await;
    let image = hull_tests::fixture::busybox();
    node.cri().pull(&image).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec((any::<usize>(), oddity()), 1..=ODDITIES_MAX);
    for _ in 0..ROUNDS {
        let oddities = strategy.new_tree(&mut runner).unwrap().current();
        round(&mut node, &image, &oddities).await;
    }
}

#[tokio::test]
async fn two_pods_of_one_name_are_both_listed_and_removed() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let (one, two) = (cri.run_pod("one").await.unwrap(), cri.run_pod("two").await.unwrap());
    let lost = cri.run_pod("lost").await.unwrap();
    node.kill();
    let record = |pod: &str| node.state_dir().join("pods").join(format!("{pod}.json"));
    let metadata = serde_json::from_slice::<Value>(&fs::read(record(&one)).unwrap()).unwrap();
    let metadata = metadata["record"]["config"]["metadata"].clone();
    change(&record(&two), |value| value["record"]["config"]["metadata"] = metadata);
    change(&record(&lost), |value| value["record"]["id"] = "0".repeat(64).into());
    node.start_again().await;
    let mut listed: Vec<_> = cri.pods().await.into_iter().map(|pod| pod.id).collect();
    listed.sort();
    let mut wanted = vec![one, two];
    wanted.sort();
    assert_eq!(listed, wanted, "the one whose record is another's is set aside");
    assert!(node.daemon_log().contains("two pods have the same name"));
    remove_all(&cri, "two of one name").await;
    only_set_aside_is_left(&node, "two of one name").await;
    let again = cri.run_pod("one").await.unwrap();
    cri.remove_pod(&again).await.unwrap();
}
