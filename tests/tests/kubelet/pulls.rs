// SPDX-License-Identifier: Apache-2.0
//! Failed pulls as the kubelet shows them in the status of a pod.

use crate::started_as;
use hull_tests::ExpectExt as _;
use hull_tests::fixture;
use hull_tests::kubernetes::standalone::{Settings, Standalone};
use serde_json::{Value, json};
use std::fs;

/// Nothing listens here.
const DOWN: &str = "127.0.0.1:1";

/// The status of the pod's container while it waits for its image: reason and message. The kubelet shows the reason
/// of the pull at first, and later the back-off with that reason and message behind it.
async fn waiting(node: &Standalone, name: &str) -> (String, String) {
    node.pod_until(name, "waits for its image", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let text = |key: &str| waiting[key].as_str().map(str::to_owned);
        let (reason, message) = (text("reason")?, text("message")?);
        let began = reason != "ContainerCreating" && reason != "PodInitializing";
        began.then_some((reason, message))
    })
    .await
}

fn of_image(image: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image, "command": ["true"]}]})
}

#[tokio::test]
async fn a_registry_that_is_down_is_the_reason_that_the_kubelet_shows() {
    let settings = Settings {
        hull: "[image]\nconfig_path = \"/var/lib/certs.d\"\n".into(),
        kubelet: json!({}),
    };
    let Some(node) = started_as(settings).await else { return };
    let up = &fixture::registry().host;
    // Images of one name come from a mirror that is down and an upstream that lacks them; of the other, the reverse.
    for (name, mirror, upstream) in
        [("mirror-down.test", DOWN, up.as_str()), ("upstream-down.test", up.as_str(), DOWN)]
    {
        let dir = node.machine().path("/var/lib/certs.d").join(name);
        fs::create_dir_all(&dir).or_fail("make the directory of a registry's hosts");
        let text = format!("server = \"http://{upstream}\"\n[host.\"http://{mirror}\"]\n");
        fs::write(dir.join("hosts.toml"), text).or_fail("write a registry's hosts");
    }
    node.apply("down", &of_image(&format!("{DOWN}/tests/nowhere:1")));
    node.apply("first", &of_image("mirror-down.test/tests/nowhere:1"));
    node.apply("second", &of_image("upstream-down.test/tests/nowhere:1"));
    node.apply("lacks", &of_image(&format!("{up}/tests/nowhere:1")));

    let unavailable = "because the registry is unavailable: cannot pull";
    for name in ["down", "second"] {
        let (reason, message) = waiting(&node, name).await;
        assert!(message.contains(unavailable), "{name}: {reason}: {message}");
        let shown = reason == "RegistryUnavailable" || message.contains(": RegistryUnavailable: ");
        assert!(shown, "{name}: {reason}: {message}");
        assert!(!message.contains("rpc error"), "{name}: {message}");
    }
    let (_, message) = waiting(&node, "down").await;
    assert!(message.contains(DOWN) && message.contains("hint: "), "{message}");
    // One has what both answered.
    let (reason, message) = waiting(&node, "first").await;
    assert!(reason == "ErrImagePull" || reason == "ImagePullBackOff", "{reason}: {message}");
    assert!(message.contains(&format!("mirror {DOWN}: ")), "{message}");
    assert!(message.contains("does not have tests/nowhere:1"), "{message}");
    let (_, message) = waiting(&node, "second").await;
    assert!(message.contains(&format!("mirror {up}: {up} does not have")), "{message}");
    let (reason, message) = waiting(&node, "lacks").await;
    assert!(reason == "ErrImagePull" || reason == "ImagePullBackOff", "{reason}: {message}");
    assert!(message.contains("does not have tests/nowhere:1"), "{message}");
    assert!(!message.contains("unavailable") && !message.contains("rpc error"), "{message}");
}
