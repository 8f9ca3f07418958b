// SPDX-License-Identifier: Apache-2.0
//! The daemon's log: it says what happened to which pod, container and image, and its level changes while it runs.

use hull_tests::cri::container;
use hull_tests::{ExpectExt as _, Node, eventually};
use serde_json::Value;

/// The events of a log in JSON.
fn events(node: &Node) -> Vec<Value> {
    let log = node.daemon_log();
    log.lines().map(|line| serde_json::from_str(line).or_fail(format!("parse {line}"))).collect()
}

/// The event with this message; of several, the last.
fn event(events: &[Value], message: &str) -> Value {
    let found = events.iter().rfind(|event| event["fields"]["message"] == message);
    found.cloned().unwrap_or_else(|| panic!("no event `{message}`"))
}

/// A field of an event, or of the spans around it.
fn field(event: &Value, name: &str) -> Value {
    let own = event["fields"].get(name);
    let spans = event["spans"].as_array().into_iter().flatten();
    own.or_else(|| spans.rev().find_map(|span| span.get(name))).cloned().unwrap_or_default()
}

#[tokio::test]
async fn events_name_pod_container_and_image_and_refusals_are_events() {
    let node = Node::start_with("[log]\nlevel = \"debug\"\nformat = \"json\"\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "app", &image).await;
    let missing = image.replace("busybox", "does-not-exist");
    cri.pull(&missing).await.unwrap_err();
    let bad = cri.make(&pod, container("bad", &image, &["/does/not/exist"])).await;
    cri.start(&bad).await.unwrap_err();
    cri.stop(&made, 0).await.or_fail("stop the container");
    // One that has exited is not started again.
    cri.start(&made).await.unwrap_err();
    cri.remove(&made).await.or_fail("remove the container");
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    let all = events(&node);

    for (message, container) in [
        ("pod ready", None),
        ("container created", Some("bad")),
        ("container started", Some("app")),
        ("container did not start", Some("bad")),
        ("container exited", Some("app")),
        ("container removed", None),
        ("pod removed", None),
    ] {
        let event = event(&all, message);
        assert_eq!(field(&event, "pod"), "tests/web", "{event}");
        if let Some(container) = container {
            assert_eq!(field(&event, "container"), container, "{event}");
            assert_eq!(field(&event, "image"), image.as_str(), "{event}");
        }
    }
    assert!(field(&event(&all, "container started"), "pid").is_u64());
    let part = event(&all, "part done");
    assert!(field(&part, "took_us").is_u64() && field(&part, "pod") == "tests/web", "{part}");
    let took = field(&event(&all, "pod ready"), "took_ms");
    assert!(took.is_u64(), "{took}");

    let pulled = event(&all, "image pulled");
    assert_eq!(field(&pulled, "image"), image.as_str());
    assert!(field(&pulled, "size").is_u64() && field(&pulled, "took_ms").is_u64(), "{pulled}");
    let failed = event(&all, "image not pulled");
    assert_eq!(field(&failed, "image"), missing.as_str());
    assert_eq!(failed["level"], "WARN");
    let refused = all.iter().find(|of| {
        of["fields"]["message"] == "call refused"
            && field(of, "verb") == "StartContainer"
            && field(of, "container") == "app"
    });
    let refused = refused.or_fail("find the refused start");
    assert_eq!(field(refused, "code"), "FailedPrecondition", "{refused}");
    assert_eq!(field(refused, "pod"), "tests/web", "{refused}");
    assert_eq!(field(refused, "container"), "app", "{refused}");
    assert!(
        field(refused, "why").as_str().is_some_and(|why| why.starts_with("cannot ")),
        "{refused}"
    );
    let libraries: Vec<_> = all
        .iter()
        .filter(|event| !event["target"].as_str().unwrap_or_default().starts_with("hull"))
        .filter(|event| ["DEBUG", "INFO"].iter().any(|level| event["level"] == *level))
        .collect();
    assert!(libraries.is_empty(), "{libraries:?}");
}

#[tokio::test]
async fn the_level_changes_for_a_time_and_falls_back_by_itself() {
    let node = Node::start_with("[log]\nlevel = \"warn\"\n").await;
    let level = |args: &[&str]| node.hull(&[&["log-level"], args].concat());
    assert_eq!(level(&[]).good(), "warn (as configured)\n");
    let set = level(&["hull=info,h2=error", "--for", "1h"]).good();
    assert!(set.starts_with("warn,hull=info,h2=error (for 3600 s, then warn)"), "{set}");
    let (cri, pod, _) = node.pod("web").await;
    assert!(node.daemon_log().contains("pod ready"), "{}", node.daemon_log());
    assert_eq!(level(&["--reset"]).good(), "warn (as configured)\n");
    let before = node.daemon_log().len();
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    assert!(!node.daemon_log()[before..].contains("pod removed"));

    let short = level(&["debug", "--for", "200ms"]).good();
    assert!(short.starts_with("debug (for 1 s"), "{short}");
    eventually("the level is that of the configuration", || async {
        let now = level(&[]).good();
        if now == "warn (as configured)\n" { Ok(()) } else { Err(now) }
    })
    .await;
    let endless = level(&["error"]).good();
    assert!(endless.contains("until the daemon ends"), "{endless}");

    for (args, words) in [
        (&["hull::pods=debug"][..], "did you mean `hull::pod`?"),
        (&["serde=debug"], "there are hull, hull_image"),
        (&["loud"], "is none of off, error, warn"),
        (&["debug", "--for", "soon"], "it is not a duration"),
    ] {
        let refused = level(args);
        assert!(refused.code == 1 && refused.stderr.contains(words), "{args:?}: {refused:?}");
    }
    assert!(level(&["--for", "10m"]).code == 2);
    assert!(level(&[]).good().starts_with("error ("), "a refused level changes nothing");
}
