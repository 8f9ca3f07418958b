// SPDX-License-Identifier: Apache-2.0
//! Volumes as a kubelet hands them over.

use crate::{container, started};
use hull_tests::cri::text;
use hull_tests::{ExpectExt as _, fixture};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

/// Without a `type` the kubelet leaves it to the runtime; with `DirectoryOrCreate` it makes the directory itself.
#[tokio::test]
async fn a_host_path_that_is_missing_becomes_a_directory() {
    let Some(node) = started().await else { return };
    let at = |name: &str| node.machine().dir().join(name);
    let script = "stat -c '%n %a %u' /untyped /typed; touch /untyped/a /typed/b";
    let mut main = container("c", &["sh", "-c", script]);
    main["volumeMounts"] =
        json!([{"name": "u", "mountPath": "/untyped"}, {"name": "t", "mountPath": "/typed"}]);
    node.apply(
        "missing",
        &json!({
            "restartPolicy": "Never",
            "volumes": [
                {"name": "u", "hostPath": {"path": at("untyped/deep")}},
                {"name": "t", "hostPath": {"path": at("typed/deep"), "type": "DirectoryOrCreate"}},
            ],
            "containers": [main],
        }),
    );
    node.pod_in("missing", "Succeeded").await;
    assert_eq!(text(&node.logs("missing", "c"), "stdout"), "/untyped 755 0\n/typed 755 0\n");
    assert!(at("untyped/deep/a").is_file() && at("typed/deep/b").is_file());
    let mode = fs::metadata(at("untyped")).or_fail("look at the parent").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);

    // What is in the way is named in the container's status, and stays.
    symlink(at("nowhere"), at("dangling")).or_fail("make a link");
    let mut main = container("c", &["true"]);
    main["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
    node.apply(
        "dangling",
        &json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "d", "hostPath": {"path": at("dangling")}}],
            "containers": [main],
        }),
    );
    let message = node.pod_until("dangling", "waits for its volume", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == "CreateContainerError").then(|| waiting["message"].to_string())
    });
    let message = message.await;
    assert!(message.contains("symbolic link") && message.contains("hint: "), "{message}");
    assert!(fs::symlink_metadata(at("nowhere")).is_err(), "the link's target was made");
}

/// A kubelet that knows image volumes sends the sub-path of every mount of such a pod twice.
#[tokio::test]
async fn a_sub_path_beside_an_image_volume_is_the_volumes() {
    let Some(node) = started().await else { return };
    let image = fixture::busybox();
    let mut init = container("prepare", &["sh", "-c", "mkdir -p /v/a/b; echo below > /v/a/b/file"]);
    init["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let mut main = container("c", &["sh", "-c", "cat /s/file; ls -d /i/etc/passwd /p/passwd"]);
    main["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/s", "subPath": "a/b"},
        {"name": "i", "mountPath": "/i"},
        {"name": "i", "mountPath": "/p", "subPath": "etc"},
    ]);
    node.apply(
        "sub",
        &json!({
            "restartPolicy": "Never",
            "volumes": [
                {"name": "v", "emptyDir": {}},
                {"name": "i", "image": {"reference": image, "pullPolicy": "IfNotPresent"}},
            ],
            "initContainers": [init],
            "containers": [main],
        }),
    );
    node.pod_in("sub", "Succeeded").await;
    assert_eq!(text(&node.logs("sub", "c"), "stdout"), "below\n/i/etc/passwd\n/p/passwd\n");
}
