// SPDX-License-Identifier: Apache-2.0
//! Hooks: their order, state, environment and failures.

use crate::{bind_scratch, refused, until};
use hull_tests::bundle::Bundle;
use hull_tests::eventually::{blocking, deadline};
use hull_tests::host;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Hooks that write their kind and their state, one line each.
fn hooks(log: &str, inside: &str) -> Value {
    let hook = |kind: &str, log: &str| {
        let script = format!("printf '%s ' {kind} >> {log}; tr -d '\\n' >> {log}; echo >> {log}");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    json!({
        "prestart": hook("prestart", log), "createRuntime": hook("createRuntime", log),
        "createContainer": hook("createContainer", log), "startContainer": hook("startContainer", inside),
        "poststart": hook("poststart", log), "poststop": hook("poststop", log),
    })
}

#[test]
fn hooks_run_in_their_order_and_receive_the_state() {
    let bundle = Bundle::new();
    let log = bundle.scratch().join("log");
    bind_scratch(&bundle);
    bundle.change(|config| {
        config["hooks"] = hooks(&log.display().to_string(), "/t/log");
        config["annotations"] = json!({"a": "b"});
    });
    let seen = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().map(|line| {
            let (kind, state) = line.split_once(' ').unwrap();
            let state: Value = serde_json::from_str(state).unwrap();
            assert_eq!((&state["id"], &state["annotations"]["a"]), (&json!("one"), &json!("b")));
            format!("{kind} {}", state["status"].as_str().unwrap())
        });
        lines.collect::<Vec<_>>()
    };
    let _said = bundle.create("one").good();
    let created = ["prestart creating", "createRuntime creating", "createContainer creating"];
    assert_eq!(seen(), created);
    let _said = bundle.oci(&["start", "one"]).good();
    assert_eq!(seen()[3..], ["startContainer created", "poststart running"]);
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
    assert_eq!(seen()[5..], ["poststop stopped"]);
}

#[test]
fn a_hook_has_its_own_environment_and_not_the_containers() {
    let bundle = Bundle::new();
    let log = bundle.scratch().join("log");
    bind_scratch(&bundle);
    bundle.change(|config| {
        // Where hooks of others execute what the image names here (CVE-2025-23266).
        config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "OF_IMAGE=yes"]);
        let hook = |log: &str| {
            let script = format!("tr '\\0' '\\n' < /proc/$$/environ >> {log}; echo -- >> {log}");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["OF_HOOK=yes", "PATH=/bin:/usr/bin"]}])
        };
        config["hooks"] = json!({
            "createRuntime": hook(&log.display().to_string()), "startContainer": hook("/t/log"),
        });
    });
    let _said = bundle.create("one").good();
    let _said = bundle.oci(&["start", "one"]).good();
    let text = fs::read_to_string(&log).unwrap();
    let parts: Vec<&str> = text.split("--\n").filter(|part| !part.is_empty()).collect();
    assert_eq!(parts, ["OF_HOOK=yes\nPATH=/bin:/usr/bin\n"; 2], "{text}");
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
}

#[test]
fn a_hook_that_fails_or_hangs_is_named_and_nothing_is_left() {
    let bundle = Bundle::new();
    let hook =
        |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}]);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        bundle.change(|config| config["hooks"] = json!({kind: hook("echo no luck; exit 3")}));
        let named = format!("error running {kind} hook #0: `/bin/sh`");
        refused(&bundle.create("one"), &[&named, "exit code 3", "no luck"]);
        assert_eq!(bundle.left(), Vec::<String>::new(), "after {kind}");
    }
    let missing = json!({"createRuntime": [{"path": "/no/such/hook"}]});
    bundle.change(|config| config["hooks"] = missing);
    refused(
        &bundle.create("one"),
        &["createRuntime hook", "execve(/no/such/hook)", "No such file"],
    );
    for kind in ["startContainer", "poststart"] {
        bundle.change(|config| config["hooks"] = json!({kind: hook("exit 4")}));
        let _said = bundle.create("one").good();
        let named = format!("error running {kind} hook #0: `/bin/sh`");
        refused(&bundle.oci(&["start", "one"]), &[&named, "exit code 4"]);
        until(&bundle, "one", "stopped");
        let _said = bundle.oci(&["delete", "one"]).good();
    }
    bundle.change(|config| config["hooks"] = json!({"createRuntime": hook("exec sleep 1000")}));
    refused(&bundle.create("one"), &["createRuntime hook", "killed after 1 s"]);
    // The container goes all the same.
    bundle.change(|config| config["hooks"] = json!({"poststop": hook("exit 5")}));
    bundle.up("one");
    let ran = bundle.oci(&["delete", "-f", "one"]);
    assert!(ran.code == 0 && ran.stderr.contains("exit code 5"), "{ran:?}");
}

#[test]
fn a_hook_on_the_host_without_an_environment_has_the_callers_and_runs_in_the_bundle() {
    let bundle = Bundle::new();
    let log = bundle.scratch().join("log");
    bundle.change(|config| {
        let hook = |kind: &str| {
            let script = format!("echo {kind} $PWD ${{PATH:+path}} $OWN >> {}", log.display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        let kinds = ["prestart", "createRuntime", "poststop"];
        let hooks = kinds.iter().map(|kind| ((*kind).to_owned(), hook(kind)));
        config["hooks"] = Value::Object(hooks.collect());
        // Where its own is given, it is all that it has.
        config["hooks"]["createRuntime"][0]["env"] = json!(["OWN=own"]);
    });
    let _said = bundle.create("one").good();
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
    let lines: Vec<_> =
        fs::read_to_string(&log).unwrap().lines().map(|line| line.trim().to_owned()).collect();
    let place = fs::canonicalize(bundle.path()).unwrap().display().to_string();
    let want = [
        format!("prestart {place} path"),
        // The shell's own default.
        format!("createRuntime {place} path own"),
        format!("poststop {place} path"),
    ];
    assert_eq!(lines, want);
}

#[test]
fn an_environment_without_names_is_refused() {
    let bundle = Bundle::new();
    for entry in ["NO_VALUE", "=x", ""] {
        bundle.change(|config| config["process"]["env"] = json!(["A=b", entry]));
        refused(&bundle.create("one"), &["process.env", &format!("`{entry}`")]);
    }
    bundle.change(|config| config["process"]["env"] = json!(["PATH=/bin", "EMPTY="]));
    bundle.up("one");
    refused(&bundle.oci(&["exec", "-e", "NO_VALUE", "one", "true"]), &["`NO_VALUE`"]);
    let ran = bundle.oci(&["exec", "-e", "A=", "one", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
}

#[test]
fn a_hook_in_the_container_that_its_filter_kills_is_explained_by_it() {
    let bundle = Bundle::new();
    bundle.change(|config| {
        let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "mkdir /made"]}]);
        config["hooks"] = json!({"startContainer": hook});
    });
    let _said = bundle.create("one").good();
    let started = bundle.oci(&["start", "one"]);
    refused(&started, &["startContainer hook #0", "seccomp profile", "likely"]);
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
}

/// In the pid namespace of another container it would be visible, with the host's root.
#[test]
fn a_create_container_hook_does_not_enter_the_pid_namespace_of_others() {
    let bundle = Bundle::new();
    bundle.up("owner");
    let of_owner = format!("/proc/{}/ns/pid", bundle.state("owner")["pid"]);
    bundle.change(|config| {
        config["linux"]["cgroupsPath"] = format!("{}b", bundle.cgroup()).into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|of| of["type"] != "pid");
        namespaces.push(json!({"type": "pid", "path": of_owner}));
        let script = "for of in pid mnt; do readlink /proc/self/ns/$of; done > from-hook";
        let hook =
            json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
        config["hooks"] = json!({"createContainer": [hook]});
        let looks = "for of in pid mnt; do readlink /proc/self/ns/$of; done; cat /from-hook";
        config["process"]["args"] = json!(["sh", "-c", looks]);
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "joined"]);
    let link = |path: &str| fs::read_link(path).unwrap().display().to_string();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{ran:?}");
    assert_eq!((lines[0], lines[2]), (&*link(&of_owner), &*link("/proc/self/ns/pid")), "{ran:?}");
    assert_eq!(lines[1], lines[3], "the mount namespace is the container's: {ran:?}");
}

/// Its process waits for the hook in the pid namespace of others, which can stop it.
#[test]
fn a_neighbour_that_stops_a_start_does_not_lift_the_time_of_its_hooks() {
    let bundle = Bundle::new();
    bundle.up("owner");
    let of_owner = format!("/proc/{}/ns/pid", bundle.state("owner")["pid"]);
    let cgroup = format!("{}b", bundle.cgroup());
    bundle.change(|config| {
        config["linux"]["cgroupsPath"] = cgroup.clone().into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|of| of["type"] != "pid");
        namespaces.push(json!({"type": "pid", "path": of_owner}));
        let script = "kill -STOP $PPID; exec sleep 1000";
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1});
        config["hooks"] = json!({"startContainer": [hook]});
    });
    let _said = bundle.create("joined").good();
    let started = bundle.oci(&["start", "joined"]);
    refused(&started, &["startContainer hooks", "have not ended 6 s", "killed", "hint:"]);
    until(&bundle, "joined", "stopped");
    // The hook, too.
    let nobody = || {
        let of = |root: PathBuf| root.join(cgroup.trim_start_matches('/')).join("cgroup.procs");
        let files = host::hierarchies().into_iter().map(of);
        let pids: String = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        if pids.is_empty() { Ok(()) } else { Err(pids) }
    };
    blocking(deadline(), nobody).unwrap_or_else(|pids| panic!("{pids} are in its cgroup"));
    let _said = bundle.oci(&["delete", "joined"]).good();
    assert_eq!(bundle.status("owner"), "running");
}
