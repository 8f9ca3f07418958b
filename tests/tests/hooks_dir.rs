// SPDX-License-Identifier: Apache-2.0
//! Hooks by files of the node's administrator (`runtime.hooks_dir`), as oci-hooks(5) describes them.

use hull_proto::cri as api;
use hull_tests::cri::{Cri, idle, mount};
use hull_tests::{ExpectExt as _, Node, eventually, node};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Two directories of hook files, and the file to which their hooks write.
struct Directories {
    dir: tempfile::TempDir,
}

impl Directories {
    fn new() -> Self {
        let directories = Self { dir: tempfile::tempdir().or_fail("make a directory") };
        for dir in [directories.vendor(), directories.local()] {
            fs::create_dir(&dir).or_fail("make a directory");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).or_fail("set a mode");
        }
        directories
    }

    fn vendor(&self) -> PathBuf {
        self.dir.path().join("vendor")
    }

    fn local(&self) -> PathBuf {
        self.dir.path().join("local")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn node(&self) -> Node {
        let dirs = [self.vendor(), self.local()];
        Node::start_with(&format!("[runtime]\nhooks_dir = {dirs:?}\n")).await
    }

    /// A hook that writes a word to the log.
    fn writes(&self, word: &str, when: Value, stages: &[&str]) -> Value {
        hook(&format!("echo {word} >> {}", self.log().display()), when, stages)
    }
}

fn hook(script: &str, when: Value, stages: &[&str]) -> Value {
    json!({
        "version": "1.0.0", "when": when, "stages": stages,
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20},
    })
}

fn put(dir: &Path, name: &str, hook: &Value) {
    let path = node::write(dir, name, &hook.to_string());
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).or_fail("set a mode");
}

/// Runs a container of this config to its end, and removes it: poststop hooks have run then.
async fn lives(cri: &Cri, pod: &str, config: api::ContainerConfig) {
    let id = cri.run(pod, config).await;
    cri.stop(&id, 0).await.or_fail("stop the container");
    cri.remove(&id).await.or_fail("remove the container");
}

#[tokio::test]
async fn a_hook_runs_at_each_of_its_stages_with_the_state_on_its_input() {
    let of = Directories::new();
    let node = of.node().await;
    let (cri, pod, image) = node.pod("web").await;
    let always = json!({"always": true});
    let kinds = ["poststop", "poststart", "createContainer", "createRuntime", "prestart"];
    for kind in kinds {
        // Its input is the state, which names the container and how far it is.
        let script = format!(
            "state=$(cat); case $state in *'\"id\":\"'*'\"status\":\"'*) echo {kind} >> {};; esac",
            of.log().display()
        );
        put(&of.vendor(), &format!("{kind}.json"), &hook(&script, always.clone(), &[kind]));
    }
    let inside = hook("cat > /from-inside", always, &["startContainer"]);
    put(&of.local(), "inside.json", &inside);
    let id = cri.run(&pod, idle("main", &image)).await;
    let state = cri.exec(&id, &["cat", "/from-inside"]).await.unwrap().stdout;
    assert!(state.contains("\"created\"") && state.contains(&id), "{state}");
    let before = ["prestart", "createRuntime", "createContainer", "poststart"];
    assert_eq!(of.lines(), before, "StartContainer returns after the poststart hooks");
    let info = cri.inspect(&id).await.unwrap().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    let hooks = &info["runtimeSpec"]["hooks"];
    assert_eq!(hooks["startContainer"][0]["args"][2], "cat > /from-inside", "{hooks}");
    cri.stop(&id, 0).await.or_fail("stop the container");
    cri.remove(&id).await.or_fail("remove the container");
    assert_eq!(of.lines()[4..], ["poststop"]);
}

#[tokio::test]
async fn files_choose_containers_by_annotation_command_and_bind_mounts() {
    let of = Directories::new();
    let node = of.node().await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    cri.pull(&image).await.unwrap();
    let stage = ["createRuntime"];
    for (name, when) in [
        ("annotated", json!({"annotations": {"^hooks\\.example/gpu$": "^(all|some)$"}})),
        ("command", json!({"commands": ["/sh$"]})),
        ("binds", json!({"hasBindMounts": true})),
        ("both", json!({"hasBindMounts": true, "annotations": {"gpu": "all"}})),
        ("never", json!({"commands": ["^sh$"]})),
    ] {
        put(&of.vendor(), &format!("{name}.json"), &of.writes(name, when, &stage));
    }
    let plain = cri.run_pod("plain").await.unwrap();
    let mut config = cri.pod_config("gpu");
    config.annotations.insert("hooks.example/gpu".into(), "all".into());
    let annotated = cri.run_pod_with(config).await.unwrap();
    let bound = |name: &str| {
        let mut config = idle(name, &image);
        config.mounts.push(mount(&node.host_dir(), "/data"));
        config
    };
    for (pod, config, chosen) in [
        (&plain, idle("a", &image), &["command"][..]),
        (&plain, bound("b"), &["binds", "command"][..]),
        (&annotated, idle("a", &image), &["annotated", "command"][..]),
        (&annotated, bound("b"), &["annotated", "binds", "both", "command"][..]),
    ] {
        let before = of.lines().len();
        lives(&cri, pod, config).await;
        assert_eq!(of.lines()[before..], *chosen);
    }
}

#[tokio::test]
async fn names_give_the_order_and_a_later_directory_replaces_files_while_the_daemon_runs() {
    let of = Directories::new();
    let node = of.node().await;
    let (cri, pod, image) = node.pod("web").await;
    let stages = ["createRuntime", "poststop"];
    let put_word = |dir: PathBuf, name: &str, word: &str| {
        put(&dir, name, &of.writes(word, json!({"always": true}), &stages));
    };
    put_word(of.vendor(), "20-b.json", "vendor-20");
    put_word(of.vendor(), "10-A.json", "vendor-10");
    lives(&cri, &pod, idle("first", &image)).await;
    assert_eq!(of.lines(), ["vendor-10", "vendor-20"].repeat(2));
    // The daemon is not started again.
    put_word(of.local(), "10-A.json", "local-10");
    put_word(of.local(), "10-b.json", "local-b");
    lives(&cri, &pod, idle("second", &image)).await;
    assert_eq!(of.lines()[4..], ["local-10", "local-b", "vendor-20"].repeat(2));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_refuses_containers_and_the_check_names_it() {
    let of = Directories::new();
    let node = of.node().await;
    let (cri, pod, image) = node.pod("web").await;
    let always = json!({"always": true});
    let fails = hook("echo 'no luck here' >&2; exit 3", always.clone(), &["createRuntime"]);
    put(&of.vendor(), "10-fails.json", &fails);
    let id = cri.create(&pod, idle("fails", &image)).await.unwrap();
    let said = cri.start(&id).await.unwrap_err();
    for part in ["createRuntime hook #0: `/bin/sh`", "exit code 3", "no luck here", "hooks_dir"] {
        assert!(said.message().contains(part), "{part:?} in {said}");
    }

    let path = of.vendor().join("10-fails.json");
    let config = node.names().root.join("hull.toml").display().to_string();
    let refused = async |parts: &[&str]| {
        let said = cri.create(&pod, idle("refused", &image)).await.unwrap_err();
        assert_eq!(said.code(), tonic::Code::FailedPrecondition, "{said}");
        let checked = node.hull(&["--config", &config, "check"]);
        for part in parts.iter().copied().chain([path.to_str().unwrap()]) {
            assert!(said.message().contains(part), "{part:?} in {said}");
            assert!(checked.stdout.contains(part), "{part:?} in {checked:?}");
        }
        assert_ne!(checked.code, 0);
    };
    let mut odd = fails.clone();
    odd["stages"] = json!(["someday"]);
    fs::write(&path, serde_json::to_string_pretty(&odd).unwrap()).unwrap();
    refused(&["someday", "line "]).await;
    put(&of.vendor(), "10-fails.json", &of.writes("good", always, &["createRuntime"]));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    refused(&["its mode 664"]).await;

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    lives(&cri, &pod, idle("good", &image)).await;
    assert_eq!(of.lines(), ["good"]);
    // What was created before keeps its hooks, whatever is in the files now.
    let id = cri.create(&pod, idle("kept", &image)).await.unwrap();
    fs::remove_file(&path).unwrap();
    cri.start(&id).await.unwrap();
    eventually("the hook has run", || async {
        if of.lines().len() == 2 { Ok(()) } else { Err(format!("{:?}", of.lines())) }
    })
    .await;
}

/// A program in a directory of its own, which writes a word to the log.
fn program(of: &Directories, word: &str) -> (PathBuf, PathBuf) {
    let place = of.dir.path().join("place");
    fs::create_dir_all(&place).or_fail("make a directory");
    let text = format!("#!/bin/sh\necho {word} >> {}\n", of.log().display());
    let program = node::write(&place, "program", &text);
    for path in [&place, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).or_fail("set a mode");
    }
    (place, program)
}

#[tokio::test]
async fn a_program_that_others_can_replace_after_the_create_is_not_run() {
    let of = Directories::new();
    let node = of.node().await;
    let (cri, pod, image) = node.pod("web").await;
    let (place, path) = program(&of, "ran");
    let put_hook = |kinds: &[&str]| {
        let mut file = hook("", json!({"always": true}), kinds);
        file["hook"] = json!({"path": path});
        put(&of.vendor(), "10-program.json", &file);
    };
    let mode = |mode| {
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).or_fail("set a mode");
    };
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        put_hook(&[kind]);
        mode(0o755);
        let id = cri.create(&pod, idle(kind, &image)).await.unwrap();
        mode(0o777);
        let said = cri.start(&id).await.unwrap_err();
        for part in [kind, "10-program.json", "place` on its path lets others", "hooks_dir"] {
            assert!(said.message().contains(part), "{part:?} in {said}");
        }
    }
    // The daemon knew already; what runs hooks does not believe it.
    mode(0o755);
    put_hook(&["poststop"]);
    let id = cri.run(&pod, idle("changed", &image)).await;
    mode(0o777);
    cri.stop(&id, 0).await.or_fail("stop the container");
    cri.remove(&id).await.or_fail("remove the container");
    assert_eq!(of.lines(), Vec::<String>::new(), "none of them ran");
    let logged = "poststop hook #0";
    eventually("the daemon has logged why", || async {
        let log = node.daemon_log();
        let found = log.lines().any(|line| line.contains(logged) && line.contains("was not run"));
        if found { Ok(()) } else { Err(log) }
    })
    .await;
    mode(0o755);
    lives(&cri, &pod, idle("good", &image)).await;
    assert_eq!(of.lines(), ["ran"]);
}

#[tokio::test]
async fn a_hook_that_takes_too_long_names_its_file_and_the_setting() {
    let of = Directories::new();
    let node = of.node().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut slow = hook("sleep 86403.11", json!({"always": true}), &["createRuntime"]);
    slow["hook"]["timeout"] = json!(1);
    put(&of.vendor(), "10-slow.json", &slow);
    let id = cri.create(&pod, idle("slow", &image)).await.unwrap();
    let said = cri.start(&id).await.unwrap_err();
    for part in ["10-slow.json", "killed after 1 s, its `timeout`", "longer `timeout`"] {
        assert!(said.message().contains(part), "{part:?} in {said}");
    }
    // A directory that is not there any more may have had what confines containers.
    fs::remove_dir_all(of.local()).or_fail("remove the directory");
    let said = cri.create(&pod, idle("refused", &image)).await.unwrap_err();
    assert_eq!(said.code(), tonic::Code::FailedPrecondition, "{said}");
    assert!(said.message().contains("hook directory"), "{said}");
    let config = node.names().root.join("hull.toml").display().to_string();
    let checked = node.hull(&["--config", &config, "check"]);
    assert!(checked.stdout.contains("cannot use hook directory"), "{checked:?}");
}
