// SPDX-License-Identifier: Apache-2.0
//! Plugins that join: beside running verbs, after a restart of the daemon, and those that the daemon starts itself.

use crate::{NOTHING, can_run};
use hull_tests::cri::{idle, shell};
use hull_tests::plugin::{Files, Plugin, program};
use hull_tests::{Node, eventually};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

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
        let received = plugin.files().received();
        let synchronised = received.iter().find(|of| of["call"] == "Synchronize").unwrap();
        let synchronised: Vec<_> =
            synchronised["more"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(synchronised.contains(&pod.as_str()));
        for id in &made {
            let asked =
                received.iter().filter(|of| of["call"] == "CreateContainer" && of["id"] == **id);
            let times = asked.count() + synchronised.iter().filter(|one| *one == id).count();
            assert_eq!(times, 1, "{id} in {received:#?}");
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
    let state = again.files().wait_for_call("Synchronize").await;
    let ids: Vec<_> = state["more"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(ids, [pod.as_str(), id.as_str()]);
    // What plugins asked for when it was made is in its record.
    let said = node.cri().exec(&id, &["sh", "-c", "echo $FROM_PLUGIN"]).await.unwrap();
    assert_eq!(said.stdout, "yes\n");
    node.cri().stop(&id, 0).await.unwrap();
    again.files().wait_for_call("StopContainer").await;
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
        files.wait_for_call("Synchronize").await;
        // Calls that it received may be of the daemon before this one.
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
async fn a_socket_that_cannot_be_had_is_told_and_pods_are_served() {
    let node = Node::start_with("[nri]\nsocket = \"/proc/nowhere/nri.sock\"\n").await;
    let log = node.daemon_log();
    assert!(log.contains("plugins cannot connect; pods run without them"), "{log}");
    assert!(log.contains("nri.socket"), "{log}");
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
}
