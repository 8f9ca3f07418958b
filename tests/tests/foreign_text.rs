// SPDX-License-Identifier: Apache-2.0
//! Names of programs, images, pods and cgroups are other people's words: they reach messages, the
//! log and terminals only escaped, so that nobody forges a line or moves a cursor.

use hull_tests::cri::{container, idle, mount};
use hull_tests::{Cri, ExpectExt as _, Node, bundle::Bundle};
use std::path::Path;
use tonic::Status;

/// A line that a tenant would like to see in the daemon's log, with escapes that hide it on a terminal.
const FORGED: &str =
    "x\n2026-11-29T00:00:00.000000Z  INFO hull::pod: forged\u{1b}[2J\u{9b}1m\u{202e}\r";

/// A character that shows nothing by itself or moves other text.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
}

#[track_caller]
fn assert_one_line(text: &str) {
    assert!(!text.chars().any(is_hidden), "{text:?}");
}

#[track_caller]
fn assert_lines(text: &str) {
    assert!(!text.chars().any(|c| c != '\n' && is_hidden(c)), "{text:?}");
    let forged = text.lines().find(|line| line.starts_with("2026-11-29T00:00:00.000000Z"));
    assert_eq!(forged, None, "{text}");
}

#[track_caller]
fn assert_escaped(refused: &Status) {
    assert_one_line(refused.message());
    assert!(refused.message().contains("x\\n2026-11-29"), "it is not named: {refused}");
}

fn refusal<T>(answer: Result<T, Status>) -> Status {
    match answer {
        Err(refused) => refused,
        Ok(_) => panic!("what makes no sense was done"),
    }
}

/// Everything that a caller may name, named so.
async fn refusals(cri: &Cri, pod: &str, image: &str) -> Vec<Status> {
    let running = cri.run_idle(pod, "runs", image).await;
    let mut refused = vec![
        refusal(cri.pull(FORGED).await),
        refusal(cri.create(pod, idle("main", FORGED)).await),
        refusal(cri.exec(&running, &[FORGED]).await),
        refusal(cri.run_pod(FORGED).await),
        refusal(cri.inspect(FORGED).await),
        refusal(cri.create(pod, idle(FORGED, image)).await),
    ];
    let mut config = cri.pod_config("cgroups");
    config.linux.get_or_insert_default().cgroup_parent = format!("/../{FORGED}");
    refused.push(refusal(cri.run_pod_with(config).await));
    let mut config = idle("logs", image);
    config.log_path = format!("../{FORGED}");
    refused.push(refusal(cri.create(pod, config).await));
    let mut config = idle("mounts", image);
    config.mounts = vec![mount(Path::new(FORGED), "/x")];
    refused.push(refusal(cri.create(pod, config).await));
    refused
}

#[tokio::test]
async fn no_message_and_no_line_of_the_log_has_a_tenants_control_characters() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for refused in refusals(&cri, &pod, &image).await {
        assert_escaped(&refused);
    }
    let program = container("program", &image, &[FORGED]);
    let made = cri.make(&pod, program).await;
    assert_escaped(&cri.start(&made).await.unwrap_err());
    let status = cri.status(&made).await;
    assert_eq!(status.reason, "StartError");
    assert_one_line(&status.message);
    assert!(status.message.contains("x\\n2026-11-29"), "{}", status.message);
    let log = node.daemon_log();
    assert!(log.contains("x\\n2026-11-29"), "the failed start is not in the log: {log}");
    assert_lines(&log);
}

#[tokio::test]
async fn no_output_of_a_command_has_a_tenants_control_characters() {
    let node = Node::start().await;
    let (cri, _, image) = node.pod("web").await;
    // Names may hold characters that reorder text, as these are not control characters.
    let mut odd = cri.pod_config("web\u{202e}bew\u{200b}");
    odd.hostname = "odd".into();
    let pod = cri.run_pod_with(odd).await.or_fail("run a pod with an odd name");
    let mut odd = container("c\u{202e}d\u{200b}", &image, &[FORGED]);
    odd.annotations.insert("note".into(), FORGED.into());
    let made = cri.make(&pod, odd).await;
    cri.start(&made).await.unwrap_err();
    for words in [
        &["ps", "-a"][..],
        &["inspect", &made],
        &["inspect", &pod],
        &["images", FORGED],
        &["pull", FORGED],
        &["rmi", FORGED],
        &["stop", FORGED],
        &["rm", FORGED],
        &["logs", FORGED],
        &["exec", FORGED, "true"],
        &["run", "--rm", &image, FORGED],
        &["run", "--rm", FORGED],
        &["stats"],
    ] {
        let ran = node.hull(words);
        assert_lines(&ran.stdout);
        assert_lines(&ran.stderr);
        assert!(
            ran.stderr.lines().filter(|line| line.starts_with("hint: ")).count() < 2,
            "{ran:?}"
        );
    }
    let listed = node.hull(&["ps", "-a"]).stdout;
    assert!(listed.contains("web\\u{202e}bew\\u{200b}"), "{listed}");
    let shown = node.hull(&["inspect", &made]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["status"]["annotations"]["note"], FORGED, "a document keeps what it says");
}

#[test]
fn no_error_of_the_oci_runtime_has_a_bundles_control_characters() {
    let bundle = Bundle::new();
    let log = bundle.scratch().join("log");
    let log_file = log.to_str().or_fail("name the log");
    for words in [&["state", FORGED][..], &["run", "--bundle", FORGED, "a"], &["kill", "a", FORGED]]
    {
        let ran = bundle.oci(&[&["--log", log_file][..], words].concat());
        assert_ne!(ran.code, 0, "{ran:?}");
        assert_lines(&ran.stderr);
    }
    let log = std::fs::read_to_string(&log).or_fail("read the log");
    assert_eq!(log.lines().count(), 3, "{log}");
    assert_lines(&log);
}
