// SPDX-License-Identifier: Apache-2.0
//! Events that plugins receive, and the changes to containers that they request.

use crate::{NOTHING, can_run, memory, memory_limit, update};
use hull_proto::cri as api;
use hull_tests::cri::{idle, resources, shell};
use hull_tests::plugin::Plugin;
use hull_tests::scrape::Scrape;
use hull_tests::{Node, eventually};
use serde_json::{Value, json};
use std::fs;

#[tokio::test]
async fn plugins_hear_of_everything_in_order_and_in_the_order_of_their_indices() {
    if !can_run("plugins_hear_of_everything_in_order") {
        return;
    }
    let node = Node::start().await;
    let second = Plugin::start(&node, "20-second", &NOTHING).await;
    let first = Plugin::start(&node, "10-first", &NOTHING).await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let linux =
        api::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let request = api::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux.clone()),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.unwrap();
    let request = api::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        resources: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_pod_sandbox_resources(request).await.unwrap();
    cri.stop(&id, 0).await.unwrap();
    cri.remove(&id).await.unwrap();
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    let all = [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "UpdatePodSandbox",
        "PostUpdatePodSandbox",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(first.files().calls(), all);
    assert_eq!(second.files().calls(), all);
    let log = node.daemon_log();
    assert!(
        log.contains(r#"["10-first", "20-second"]"#),
        "the order of the plugins is not in {log}"
    );
    let run = first.files().wait_for_call("RunPodSandbox").await;
    assert_eq!((&run["pod"], &run["pod_id"]), (&json!("web"), &json!(pod)));
    assert_eq!(run["ips"].as_array().unwrap().len(), 1);
    // The pod still has its network while plugins are notified.
    let stopped = first.files().wait_for_call("StopPodSandbox").await;
    assert_eq!(stopped["ips"], run["ips"]);
    assert_eq!(stopped["netns"], run["netns"]);
    assert!(stopped["links"].as_array().unwrap().contains(&json!("eth0")), "{stopped}");
    let update = first.files().wait_for_call("UpdateContainer").await;
    assert_eq!(update["more"], 64 << 20);
    let stop = first.files().wait_for_call("StopContainer").await;
    assert_eq!((&stop["container"], &stop["exit_code"]), (&json!("main"), &json!(137)));
}

#[tokio::test]
async fn what_a_plugin_asks_for_is_seen_from_inside_the_container() {
    if !can_run("what_a_plugin_asks_for_is_seen_from_inside_the_container") {
        return;
    }
    let node = Node::start().await;
    fs::write(node.host_dir().join("greeting"), "hello").unwrap();
    let orders = json!({"adjust": {
        "annotations": {"example/key": "value"},
        "env": [{"key": "FROM_PLUGIN", "value": "yes"}, {"key": "-GONE"}],
        "mounts": [{"destination": "/given", "type": "bind", "source": node.host_dir(), "options": ["rbind", "ro"]}],
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": "333", "soft": "222"}],
        "linux": {
            "devices": [{"path": "/dev/mine", "type": "c", "major": "1", "minor": "5", "fileMode": {"value": 438}}],
            "oomScoreAdj": {"value": "777"},
            "resources": memory(48 << 20),
            "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
        },
    }});
    let _plugin = Plugin::start(&node, "10-adjusts", &orders).await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    config.envs.push(api::KeyValue { key: "GONE".into(), value: "no".into() });
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let id = cri.run(&pod, config).await;
    let script = "cat /given/greeting; touch /given/x 2>/dev/null || echo readonly
        echo \"$FROM_PLUGIN${GONE-gone}\"; ulimit -Sn; ulimit -Hn; cat /proc/1/oom_score_adj
        head -c 3 /dev/mine | od -An -tx1; awk '{print $19}' /proc/1/stat";
    let said = cri.exec(&id, &["sh", "-c", script]).await.unwrap();
    let lines: Vec<_> = said.stdout.split_whitespace().collect();
    // An exec has the container's limits and environment, so it shows them.
    assert_eq!(
        lines,
        ["helloreadonly", "yesgone", "222", "333", "777", "00", "00", "00", "3"],
        "{said:?}"
    );
    assert_eq!(memory_limit(&node, &id).await, (48 << 20).to_string());
    let status = cri.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!(status.memory_limit_in_bytes, 48 << 20);
    let info = cri.inspect(&id).await.unwrap().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["runtimeSpec"]["annotations"]["example/key"], "value");
}

#[tokio::test]
async fn what_hull_cannot_do_for_a_plugin_is_an_error_that_names_it() {
    if !can_run("what_hull_cannot_do_for_a_plugin_is_an_error_that_names_it") {
        return;
    }
    let node = Node::start().await;
    let plugin = Plugin::start(&node, "10-asks", &NOTHING).await;
    let (cri, pod, image) = node.pod("web").await;
    for (adjust, says) in [
        (json!({"CDIDevices": [{"name": "vendor/class=device"}]}), "CDI devices"),
        (json!({"hooks": {"poststop": [{"path": "true"}]}}), "`true` as hooks.path"),
        (json!({"linux": {"cgroupsPath": "/elsewhere"}}), "not the container's own"),
        (json!({"linux": {"sysctl": {"vm.swappiness": "1"}}}), "vm.swappiness"),
        (json!({"linux": {"resources": {"blockioClass": {"value": "fast"}}}}), "class `fast`"),
    ] {
        plugin.files().order(&json!({"adjust": adjust}));
        let said = cri.create(&pod, idle("main", &image)).await.unwrap_err();
        assert!(said.message().contains(says), "{says:?} in {said}");
    }
}

#[tokio::test]
async fn hooks_of_a_plugin_run_in_its_containers() {
    if !can_run("hooks_of_a_plugin_run_in_its_containers") {
        return;
    }
    let node = Node::start().await;
    let log = node.host_dir().join("log");
    let hook = |kind: &str| {
        let script = format!("echo {kind} >> {}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}])
    };
    let hooks = json!({"createRuntime": hook("createRuntime"), "poststop": hook("poststop")});
    let order = json!({"adjust": {"hooks": hooks}});
    let _plugin = Plugin::start(&node, "10-hooks", &order).await;
    let (cri, pod, image) = node.pod("web").await;
    let said = cri.output(&pod, shell("main", &image, "echo ran")).await;
    assert_eq!(said.stdout, "ran\n");
    eventually("both hooks have run", || async {
        let lines = fs::read_to_string(&log).unwrap_or_default();
        if lines == "createRuntime\npoststop\n" { Ok(()) } else { Err(lines) }
    })
    .await;
}

#[tokio::test]
async fn two_plugins_that_want_different_things_are_both_named() {
    if !can_run("two_plugins_that_want_different_things_are_both_named") {
        return;
    }
    let node = Node::start().await;
    let orders = |value: &str| json!({"adjust": {"env": [{"key": "SAME", "value": value}]}});
    let _one = Plugin::start(&node, "10-one", &orders("1")).await;
    let two = Plugin::start(&node, "20-two", &orders("2")).await;
    let (cri, pod, image) = node.pod("web").await;
    let said = cri.create(&pod, idle("main", &image)).await.unwrap_err();
    assert!(said.message().contains("`10-one` and `20-two`: both set Env `SAME`"), "{said}");
    assert!(said.message().contains("(hint: configure"), "{said}");
    // The later one sees what the one before it asked for, and may take it away.
    assert!(
        two.files().wait_for_call("CreateContainer").await["env"].to_string().contains("SAME=1")
    );
    two.files()
        .order(&json!({"adjust": {"env": [{"key": "-SAME"}, {"key": "SAME", "value": "2"}]}}));
    let said = cri.output(&pod, shell("main", &image, "echo $SAME")).await;
    assert_eq!(said.stdout, "2\n");
}

#[tokio::test]
async fn a_validator_keeps_a_container_from_being_made() {
    if !can_run("a_validator_keeps_a_container_from_being_made") {
        return;
    }
    let node = Node::start().await;
    let orders = json!({"refuse": "ValidateContainerAdjustment"});
    let validator = Plugin::spawn(&node, "90-guard", &orders, &["-validate"]);
    validator.files().wait_for_call("Synchronize").await;
    let (cri, pod, image) = node.pod("web").await;
    let said = cri.create(&pod, idle("main", &image)).await.unwrap_err();
    assert!(
        said.message().contains("90-guard") && said.message().contains("refused as ordered"),
        "{said}"
    );
    validator.files().order(&NOTHING);
    cri.run_idle(&pod, "main", &image).await;
}

#[tokio::test]
async fn plugins_change_limits_of_containers_that_run() {
    if !can_run("plugins_change_limits_of_containers_that_run") {
        return;
    }
    let node = Node::start().await;
    let plugin = Plugin::start(&node, "10-limits", &NOTHING).await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("one", &image);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let one = cri.run(&pod, config).await;

    // While another container is made.
    plugin.files().order(&json!({"update": [update(&one, memory(50 << 20))]}));
    let two = cri.run_idle(&pod, "two", &image).await;
    assert_eq!(memory_limit(&node, &one).await, (50 << 20).to_string());

    // Unasked.
    plugin.files().order(
        &json!({"update": [update(&one, memory(40 << 20)), update("gone", memory(1 << 20))]}),
    );
    assert_eq!(plugin.ask().await["more"], "1 <nil>");
    assert_eq!(memory_limit(&node, &one).await, (40 << 20).to_string());

    // What the kubelet asks for, on its way.
    plugin.files().order(&json!({"change": memory(30 << 20)}));
    let linux =
        api::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let request = api::UpdateContainerResourcesRequest {
        container_id: one.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.unwrap();
    assert_eq!(memory_limit(&node, &one).await, (30 << 20).to_string());
    let status = cri.status(&one).await.resources.unwrap().linux.unwrap();
    assert_eq!(status.memory_limit_in_bytes, 30 << 20);

    // When another has ended.
    plugin.files().order(&json!({"update": [update(&one, memory(60 << 20))]}));
    cri.stop(&two, 0).await.unwrap();
    eventually("the limit is what the plugin asked for", || async {
        let limit = memory_limit(&node, &one).await;
        if limit == (60 << 20).to_string() { Ok(()) } else { Err(limit) }
    })
    .await;
}

#[tokio::test]
async fn a_container_that_cannot_have_what_a_plugin_wants_fails_the_verb_unless_it_may() {
    if !can_run("a_container_that_cannot_have_what_a_plugin_wants") {
        return;
    }
    let node = Node::start().await;
    let plugin = Plugin::start(&node, "10-limits", &NOTHING).await;
    let (cri, pod, image) = node.pod("web").await;
    let mut wrong = update("gone", memory(1 << 20));
    plugin.files().order(&json!({"update": [wrong.clone()]}));
    let said = cri.create(&pod, idle("main", &image)).await.unwrap_err();
    assert!(said.message().contains("container gone"), "{said}");
    wrong["ignoreFailure"] = true.into();
    plugin.files().order(&json!({"update": [wrong]}));
    cri.run_idle(&pod, "main", &image).await;
    let called = Scrape::of(&node)
        .value("hull_nri_calls_total{method=\"CreateContainer\",result=\"success\"}");
    assert!(called >= 2.0, "the metrics have {called} calls");
}

#[tokio::test]
async fn an_evicted_container_is_ended() {
    if !can_run("an_evicted_container_is_ended") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let mut evictor = Plugin::spawn(&node, "50-evictor", &NOTHING, &["-evict", &id]);
    cri.ended(&id).await;
    evictor.ended().await;
    assert!(node.daemon_log().contains("a test wants it"));
    eventually("the eviction is counted", || async {
        let count = Scrape::of(&node).value("hull_evictions_total");
        if (count - 1.0).abs() < 0.001 { Ok(()) } else { Err(format!("{count} evictions")) }
    })
    .await;
}
