// SPDX-License-Identifier: Apache-2.0
//! Probes, hooks, restarts, init containers and sidecars: what a kubelet does with a pod over its life.

use crate::{container, started, started_with};
use hull_tests::ExpectExt as _;
use hull_tests::cri::text;
use hull_tests::kubernetes::standalone::Standalone;
use serde_json::{Value, json};
use std::fs;

fn statuses(pod: &Value, kind: &str, name: &str) -> Value {
    let all = pod["status"][kind].as_array().into_iter().flatten();
    all.clone().find(|status| status["name"] == name).cloned().unwrap_or_default()
}

fn exec(script: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "timeoutSeconds": 5})
}

const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[tokio::test]
async fn probes_by_exec_decide_on_readiness_and_restarts() {
    let Some(node) = started().await else { return };
    let shared = node.machine().dir().join("probes");
    fs::create_dir_all(&shared).or_fail("make a volume");
    let mut main = container("c", &["sh", "-c", IDLE]);
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    main["startupProbe"] = exec("test -e /v/started");
    main["readinessProbe"] = exec("test -e /v/ready");
    main["livenessProbe"] = exec("test ! -e /v/dead");
    main["livenessProbe"]["failureThreshold"] = json!(1);
    main["startupProbe"]["failureThreshold"] = json!(600);
    node.apply(
        "probed",
        &json!({
            "terminationGracePeriodSeconds": 2,
            "volumes": [{"name": "v", "hostPath": {"path": shared}}],
            "containers": [main],
        }),
    );
    let state = |pod: &Value| {
        let status = statuses(pod, "containerStatuses", "c");
        (status["started"].clone(), status["ready"].clone(), status["restartCount"].clone())
    };
    let reaches = async |what: &str, wanted: (bool, bool, u64)| {
        let wanted = (json!(wanted.0), json!(wanted.1), json!(wanted.2));
        node.pod_until("probed", what, |pod| (state(pod) == wanted).then_some(())).await;
    };
    reaches("has not started", (false, false, 0)).await;
    fs::write(shared.join("started"), "").or_fail("start");
    reaches("has started", (true, false, 0)).await;
    fs::write(shared.join("ready"), "").or_fail("be ready");
    reaches("is ready", (true, true, 0)).await;
    fs::remove_file(shared.join("ready")).or_fail("be ready no longer");
    reaches("is not ready", (true, false, 0)).await;
    fs::write(shared.join("dead"), "").or_fail("die");
    node.pod_until("probed", "is restarted", |pod| (state(pod).2 == json!(1)).then_some(())).await;
    fs::remove_file(shared.join("dead")).or_fail("live");
    let pod = node.pod_until("probed", "runs again", |pod| {
        let status = statuses(pod, "containerStatuses", "c");
        status["state"]["running"].is_object().then_some(status)
    });
    let last = &pod.await["lastState"]["terminated"];
    assert!(last["exitCode"].is_u64(), "{last}");
    assert_eq!(last["message"], Value::Null, "it was asked to stop: {last}");
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_stop() {
    let Some(node) = started().await else { return };
    let shared = node.machine().dir().join("hooks");
    let script = "trap 'echo ended >> /v/order; exit 0' TERM; while :; do sleep 0.1; done";
    let mut main = container("c", &["sh", "-c", script]);
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    main["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo post-start >> /v/order"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre-stop >> /v/order"]}},
    });
    node.apply(
        "hooked",
        &json!({
            "terminationGracePeriodSeconds": 20,
            "volumes": [{"name": "v", "hostPath": {"path": shared}}],
            "containers": [main],
        }),
    );
    node.pod_until("hooked", "is ready", |pod| {
        (statuses(pod, "containerStatuses", "c")["ready"] == true).then_some(())
    })
    .await;
    node.stop("hooked").await;
    let order = fs::read_to_string(shared.join("order")).or_fail("read the order");
    assert_eq!(order, "post-start\npre-stop\nended\n");
}

#[tokio::test]
async fn a_container_that_fails_is_restarted_with_back_off_and_keeps_its_last_message() {
    let Some(node) = started().await else { return };
    let script = "printf attempt > /dev/termination-log; echo run; exit 7";
    node.apply("loop", &json!({"containers": [container("c", &["sh", "-c", script])]}));
    let status = node.pod_until("loop", "backs off", |pod| {
        let status = statuses(pod, "containerStatuses", "c");
        let waits = status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        (waits && status["restartCount"].as_u64() >= Some(1)).then_some(status)
    });
    let last = &status.await["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["message"]), (&json!(7), &json!("attempt")), "{last}");
    let runs = text(&node.logs("loop", "c"), "stdout");
    assert!(runs.lines().count() >= 1 && runs.lines().all(|line| line == "run"), "{runs:?}");
}

#[tokio::test]
async fn init_containers_run_in_order_and_sidecars_beside_the_main_container() {
    let Some(node) = started().await else { return };
    init_containers_run_in_order(&node).await;
}

/// With the statuses of containers in that of the pod, Kubernetes 1.33 to 1.37 would start the sidecar again and again.
#[tokio::test]
async fn init_containers_and_sidecars_start_once_with_a_kubelet_that_watches_events() {
    let gates = json!({"featureGates": {"EventedPLEG": true, "PLEGOnDemandRelist": true}});
    let Some(node) = started_with(gates).await else { return };
    init_containers_run_in_order(&node).await;
}

async fn init_containers_run_in_order(node: &Standalone) {
    let shared = node.machine().dir().join("order");
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let with = |name: &str, script: &str| {
        let mut made = container(name, &["sh", "-c", script]);
        made["volumeMounts"] = mount.clone();
        made
    };
    let mut sidecar = with(
        "sidecar",
        "echo sidecar >> /v/order; touch /v/up; trap 'echo sidecar ended >> /v/order; exit 0' TERM; \
         while :; do sleep 0.1; done",
    );
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = exec("test -e /v/up");
    node.apply(
        "ordered",
        &json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 10,
            "volumes": [{"name": "v", "hostPath": {"path": shared}}],
            "initContainers": [
                with("first", "echo first >> /v/order"),
                sidecar,
                with("second", "echo second >> /v/order"),
            ],
            "containers": [with("main", "echo main >> /v/order")],
        }),
    );
    let pod = node.pod_in("ordered", "Succeeded").await;
    let order = fs::read_to_string(shared.join("order")).or_fail("read the order");
    assert_eq!(order, "first\nsidecar\nsecond\nmain\nsidecar ended\n");
    let init = statuses(&pod, "initContainerStatuses", "second");
    assert_eq!(init["state"]["terminated"]["reason"], "Completed", "{init}");
}

/// A static pod is not resized in place: its manifest is its identity.
#[tokio::test]
async fn a_changed_manifest_replaces_the_pod_with_its_new_limits() {
    let Some(node) = started().await else { return };
    let with = |memory: &str| {
        let mut main = container("c", &["sh", "-c", IDLE]);
        main["resources"] = json!({"limits": {"memory": memory, "cpu": "100m"}});
        json!({"terminationGracePeriodSeconds": 2, "containers": [main]})
    };
    let running = async |memory: &str| {
        node.apply("sized", &with(memory));
        let what = format!("runs with {memory}");
        node.pod_until("sized", &what, |pod| {
            let status = statuses(pod, "containerStatuses", "c");
            let limits = &status["resources"]["limits"];
            (status["state"]["running"].is_object() && limits["memory"] == *memory)
                .then(|| status["containerID"].to_string())
        })
        .await
    };
    let first = running("64Mi").await;
    let second = running("96Mi").await;
    assert_ne!(first, second);
}
