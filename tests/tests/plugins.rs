// SPDX-License-Identifier: Apache-2.0
//! NRI plugins, made with the Go library that users' plugins are made with.

use hull_proto::cri as api;
use hull_tests::cri::{idle, resources, shell};
use hull_tests::plugin::{Files, Plugin, program};
use hull_tests::{Must as _, Node, eventually, paths};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

const NOTHING: Value = Value::Null;

/// Goes on only where the plugin is built.
fn can_run(test: &str) -> bool {
    let there = program().is_some();
    if !there {
        paths::cannot_run(test, "the plugin for tests (`make tools`)");
    }
    there
}

fn memory(limit: i64) -> Value {
    json!({"memory": {"limit": {"value": limit.to_string()}}})
}

fn update(container: &str, resources: Value) -> Value {
    json!({"containerId": container, "linux": {"resources": resources}})
}

/// What of a container's memory limit is in its cgroup.
async fn memory_limit(node: &Node, container: &str) -> String {
    let pid = node.cri().pid(container).await;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).must("read its cgroups");
    for line in groups.lines() {
        let of = line.splitn(3, ':').collect::<Vec<_>>();
        let [_, controllers, path] = of[..] else { continue };
        for (hierarchy, file) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ] {
            if controllers.is_empty() || controllers.split(',').any(|name| name == "memory") {
                let file = format!("{hierarchy}{path}/{file}");
                if let Ok(text) = fs::read_to_string(file) {
                    return text.trim().to_owned();
                }
            }
        }
    }
    panic!("no memory limit of {container} in {groups}")
}

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
    let run = first.files().hears("RunPodSandbox").await;
    assert_eq!((&run["pod"], &run["pod_id"]), (&json!("web"), &json!(pod)));
    assert_eq!(run["ips"].as_array().unwrap().len(), 1);
    let update = first.files().hears("UpdateContainer").await;
    assert_eq!(update["more"], 64 << 20);
    let stop = first.files().hears("StopContainer").await;
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
        (json!({"hooks": {"poststop": [{"path": "/bin/true"}]}}), "OCI hooks"),
        (json!({"linux": {"cgroupsPath": "/elsewhere"}}), "not the container's own"),
        (json!({"linux": {"sysctl": {"vm.swappiness": "1"}}}), "vm.swappiness"),
    ] {
        plugin.files().order(&json!({"adjust": adjust}));
        let said = cri.create(&pod, idle("main", &image)).await.unwrap_err();
        assert!(said.message().contains(says), "{says:?} in {said}");
    }
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
    assert!(said.message().contains("`10-one` and `20-two` ask: both set Env `SAME`"), "{said}");
    assert!(said.message().contains("(hint: configure"), "{said}");
    // The later one sees what the one before it asked for, and may take it away.
    assert!(two.files().hears("CreateContainer").await["env"].to_string().contains("SAME=1"));
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
    validator.files().hears("Synchronize").await;
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
}

#[tokio::test]
async fn a_plugin_that_hangs_is_let_go_and_pods_go_on_without_it() {
    if !can_run("a_plugin_that_hangs_is_let_go") {
        return;
    }
    let node = Node::start().await;
    let mut plugin = Plugin::start(&node, "10-hangs", &json!({"hang": "CreateContainer"})).await;
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
    plugin.ended().await;
    let log = node.daemon_log();
    assert!(log.contains("plugin gave no answer and is let go"), "{log}");
    assert!(log.contains("nri.request_timeout_ms"), "{log}");
    cri.run_idle(&pod, "next", &image).await;
}

#[tokio::test]
async fn a_plugin_that_hangs_while_it_is_synchronised_is_let_go() {
    if !can_run("a_plugin_that_hangs_while_it_is_synchronised_is_let_go") {
        return;
    }
    let node = Node::start_with("[nri]\nregistration_timeout_ms = 2000\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let plugin = Plugin::spawn(&node, "10-hangs", &json!({"hang": "Synchronize"}), &[]);
    plugin.files().hears("Synchronize").await;
    cri.run_idle(&pod, "main", &image).await;
    let log = node.daemon_log();
    assert!(log.contains("it is not synchronised: no answer within 2s"), "{log}");
    assert!(!plugin.files().calls().contains(&"CreateContainer".to_owned()));
}

#[tokio::test]
async fn a_plugin_that_dies_in_the_middle_of_a_call_holds_up_nobody() {
    if !can_run("a_plugin_that_dies_in_the_middle_of_a_call_holds_up_nobody") {
        return;
    }
    let node = Node::start().await;
    for call in
        ["RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "RemovePodSandbox"]
    {
        let mut plugin = Plugin::start(&node, "10-dies", &json!({"die": call})).await;
        let (cri, pod, image) = node.pod("web").await;
        let id = cri.run_idle(&pod, "main", &image).await;
        cri.stop(&id, 0).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
        plugin.ended().await;
    }
}

#[tokio::test]
async fn a_plugins_refusal_keeps_a_pod_from_starting_but_never_from_ending() {
    if !can_run("a_plugins_refusal_keeps_a_pod_from_starting_but_never_from_ending") {
        return;
    }
    let node = Node::start().await;
    let plugin = Plugin::start(&node, "10-refuses", &NOTHING).await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    cri.pull(&image).await.unwrap();
    plugin.files().order(&json!({"refuse": "RunPodSandbox"}));
    let said = cri.run_pod("web").await.unwrap_err();
    assert!(
        said.message().contains("`10-refuses`, which refuses RunPodSandbox: refused as ordered"),
        "{said}"
    );
    assert!(cri.pods().await.is_empty());
    plugin.files().order(&json!({"refuse": "StartContainer"}));
    let pod = cri.run_pod("web").await.unwrap();
    let id = cri.make(&pod, idle("main", &image)).await;
    let said = cri.start(&id).await.unwrap_err();
    assert!(said.message().contains("refuses StartContainer"), "{said}");
    cri.remove(&id).await.unwrap();
    for call in ["StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"] {
        plugin.files().order(&json!({"refuse": call}));
        let pod = cri.run_pod("web").await.unwrap();
        cri.run_idle(&pod, "main", &image).await;
        cri.stop_pod(&pod).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
    let failed: Vec<_> = plugin.files().calls().into_iter().take(5).collect();
    assert_eq!(
        failed,
        ["Configure", "Synchronize", "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    );
}

#[tokio::test]
async fn what_is_no_plugin_is_let_go() {
    let node = Node::start_with("[nri]\nregistration_timeout_ms = 300\n").await;
    let mut garbage = UnixStream::connect(node.nri_socket()).unwrap();
    garbage.write_all(&[0xff; 64]).unwrap();
    let silent = UnixStream::connect(node.nri_socket()).unwrap();
    let gone = UnixStream::connect(node.nri_socket()).unwrap();
    drop(gone);
    for mut stream in [garbage, silent] {
        // The daemon closes it.
        let ended = std::io::Read::read(&mut stream, &mut [0; 16]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let log = node.daemon_log();
    assert!(log.contains("it sent a frame of 4294967295 bytes"), "{log}");
    assert!(log.contains("it did not register within 300ms"), "{log}");
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
}

#[tokio::test]
async fn a_plugin_that_joins_hears_of_each_container_exactly_once() {
    if !can_run("a_plugin_that_joins_hears_of_each_container_exactly_once") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let before = cri.run_idle(&pod, "before", &image).await;
    // Containers are made one after another while plugins come.
    let making = async {
        let mut made = vec![before];
        for number in 0..12 {
            made.push(cri.make(&pod, idle(&format!("c{number}"), &image)).await);
        }
        made
    };
    let joining = async {
        let mut plugins = Vec::new();
        for number in 10..16 {
            plugins.push(Plugin::start(&node, &format!("{number}-joins"), &NOTHING).await);
        }
        plugins
    };
    let (made, plugins) = tokio::join!(making, joining);
    for plugin in plugins {
        let heard = plugin.files().heard();
        let synchronised = heard.iter().find(|of| of["call"] == "Synchronize").unwrap();
        let synchronised: Vec<_> =
            synchronised["more"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(synchronised.contains(&pod.as_str()));
        for id in &made {
            let asked =
                heard.iter().filter(|of| of["call"] == "CreateContainer" && of["id"] == **id);
            let times = asked.count() + synchronised.iter().filter(|one| *one == id).count();
            assert_eq!(times, 1, "{id} in {heard:#?}");
        }
    }
}

#[tokio::test]
async fn plugins_of_a_daemon_that_was_killed_join_the_next_one() {
    if !can_run("plugins_of_a_daemon_that_was_killed_join_the_next_one") {
        return;
    }
    let mut node = Node::start().await;
    let orders = json!({"adjust": {"env": [{"key": "FROM_PLUGIN", "value": "yes"}]}});
    let mut plugin = Plugin::start(&node, "10-stays", &orders).await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    node.kill();
    plugin.ended().await;
    node.start_again().await;
    let again = Plugin::start(&node, "10-stays", &NOTHING).await;
    let state = again.files().hears("Synchronize").await;
    let ids: Vec<_> = state["more"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(ids, [pod.as_str(), id.as_str()]);
    // What plugins asked for when it was made is in its record.
    let said = node.cri().exec(&id, &["sh", "-c", "echo $FROM_PLUGIN"]).await.unwrap();
    assert_eq!(said.stdout, "yes\n");
    node.cri().stop(&id, 0).await.unwrap();
    again.files().hears("StopContainer").await;
}

#[tokio::test]
async fn pre_installed_plugins_are_started_configured_and_end_with_the_daemon() {
    if !can_run("pre_installed_plugins_are_started_configured_and_end_with_the_daemon") {
        return;
    }
    let mut node = Node::start().await;
    let (dir, files) = (node.plugin_dir(), Files::of(&node.host_dir(), "10-installed"));
    files.order(&json!({"adjust": {"env": [{"key": "FROM_PLUGIN", "value": "yes"}]}}));
    let installed = dir.join("10-installed");
    symlink(program().unwrap(), &installed).unwrap();
    fs::write(dir.join("installed.conf"), files.config()).unwrap();
    let runs = || processes_of("10-installed").len();

    for ends in ["in order", "killed"] {
        node.terminate();
        node.start_again().await;
        files.hears("Synchronize").await;
        // What it heard may be of the daemon before this one.
        eventually("the plugin runs", || async {
            if runs() == 1 { Ok(()) } else { Err(format!("{} run", runs())) }
        })
        .await;
        if ends == "killed" {
            node.kill();
        } else {
            node.terminate();
        }
        eventually(format!("no plugin is left of a daemon that ended {ends}"), || async {
            if runs() == 0 { Ok(()) } else { Err("it runs".to_owned()) }
        })
        .await;
        node.start_again().await;
    }
    let (cri, pod, image) = node.pod("web").await;
    let said = cri.output(&pod, shell("main", &image, "echo $FROM_PLUGIN")).await;
    assert_eq!(said.stdout, "yes\n");
    fs::remove_file(installed).unwrap();
    node.restart().await;
}

/// Processes that were started as a file of this name.
fn processes_of(name: &str) -> Vec<String> {
    let pids = hull_tests::shell::names(std::path::Path::new("/proc"));
    let is = |pid: &String| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').next().is_some_and(|program| program.ends_with(&format!("/{name}")))
    };
    pids.into_iter().filter(|pid| pid.parse::<u32>().is_ok()).filter(is).collect()
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
}

#[tokio::test]
async fn a_socket_that_cannot_be_had_is_told_and_pods_are_served() {
    let node = Node::start_with("[nri]\nsocket = \"/proc/nowhere/nri.sock\"\n").await;
    let log = node.daemon_log();
    assert!(log.contains("plugins cannot connect; pods are served without them"), "{log}");
    assert!(log.contains("nri.socket"), "{log}");
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
}
