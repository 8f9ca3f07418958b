// SPDX-License-Identifier: Apache-2.0
//! Settings that cannot be applied are refused by name, and messages say what to change.

use crate::refused;
use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt as _;
use hull_tests::host;
use hull_tests::shell::Ran;
use serde_json::{Value, json};
use std::fs;

/// A container's id, a change of its config.json, and the words of its refusal.
type Refusal = (&'static str, Box<dyn Fn(&mut Value)>, &'static [&'static str]);

fn refusals() -> [Refusal; 9] {
    type Change = fn(&mut Value);
    let map = || json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let map_uids: Change = |c| {
        c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    };
    let execve = |action: &str| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["execve"], "action": action}],
        })
    };
    [
        ("uids", Box::new(map_uids), &["linux.uidMappings", "user namespace", "hint:"]),
        ("gids", Box::new(move |c| c["linux"]["gidMappings"] = map()), &["linux.gidMappings"]),
        (
            "times",
            Box::new(|c| c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 9}})),
            &["linux.timeOffsets", "time namespace", "hint:"],
        ),
        (
            "name",
            Box::new(|c| {
                let namespaces =
                    c["linux"]["namespaces"].as_array_mut().or_fail("find the namespaces");
                namespaces.retain(|of| of["type"] != "uts");
                c["hostname"] = json!("web");
            }),
            &["hostname", "uts namespace", "hint:"],
        ),
        (
            "root",
            Box::new(|c| c["linux"]["cgroupsPath"] = "/".into()),
            &["linux.cgroupsPath", "root cgroup is not allowed", "hint:"],
        ),
        (
            "rlimit",
            Box::new(|c| {
                c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]);
            }),
            &[
                "RLIMIT_NOFILE",
                "soft limit is above its hard limit",
                "hint: correct `process.rlimits`",
            ],
        ),
        (
            "refusing",
            Box::new(move |c| c["linux"]["seccomp"] = execve("SCMP_ACT_ERRNO")),
            &["execve", "no program starts", "hint:"],
        ),
        (
            "killing",
            Box::new(move |c| c["linux"]["seccomp"] = execve("SCMP_ACT_KILL_PROCESS")),
            &["execve", "no program starts", "hint:"],
        ),
        (
            "tree",
            Box::new(|c| {
                let mount = json!({
                    "source": "rootfs", "destination": "/mnt", "type": "bind",
                    "options": ["rbind"],
                });
                c["mounts"].as_array_mut().or_fail("find the mounts").push(mount);
            }),
            &["a kernel file system is below"],
        ),
    ]
}

#[test]
fn no_setting_is_ignored_without_a_word() {
    let bundle = Bundle::new();
    let config = format!("{}/config.json", bundle.path());
    let original = fs::read(&config).unwrap();
    for (id, change, words) in refusals() {
        bundle.change(change);
        refused(&bundle.create(id), words);
        assert_eq!(bundle.left(), Vec::<String>::new(), "after {id}");
        fs::write(&config, &original).unwrap();
    }
    if !fs::exists("/sys/fs/selinux/enforce").unwrap() {
        bundle.change(|c| c["linux"]["mountLabel"] = "a:b:c:d".into());
        refused(&bundle.create("label"), &["SELinux", "a:b:c:d", "hint:"]);
    }
}

/// As with runc: the kernel has no such limits any more.
#[test]
fn limits_of_kernel_memory_are_ignored_with_a_warning() {
    let bundle = Bundle::new();
    for name in ["kernel", "kernelTCP"] {
        let _said = bundle.oci(&["delete", "--force", "one"]).good();
        bundle.change(|c| c["linux"]["resources"]["memory"] = json!({name: 40 << 20}));
        let created = bundle.create("one");
        assert_eq!(created.code, 0, "{created:?}");
        assert!(created.stderr.contains("warning: limits of kernel memory"), "{created:?}");
    }
    for option in ["--kernel-memory", "--kernel-memory-tcp"] {
        let updated = bundle.oci(&["update", option, "50000000", "one"]);
        assert_eq!(updated.code, 0, "{updated:?}");
        assert!(updated.stderr.contains("warning: limits of kernel memory"), "{updated:?}");
    }
    let updated = bundle.oci(&["update", "--pids-limit", "50", "one"]);
    assert_eq!((updated.code, updated.stderr.as_str()), (0, ""));
}

/// As with runc: no kernel has flags of a personality for a whole container.
#[test]
fn flags_of_a_personality_are_ignored_with_a_warning() {
    let bundle = Bundle::shell("cat /proc/self/personality");
    bundle.change(|c| c["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["X"]}));
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "00000000\n"), "{ran:?}");
    assert!(ran.stderr.contains("warning: linux.personality.flags are ignored"), "{ran:?}");
}

/// As with runc: the kernel would take the nearest that it has.
#[test]
fn values_out_of_range_are_refused_by_an_update_too() {
    let bundle = Bundle::new();
    bundle.up("one");
    let document = bundle.scratch().join("limits.json");
    let update = |limits: &Value| {
        fs::write(&document, limits.to_string()).unwrap();
        bundle.oci(&["update", "-r", &document.display().to_string(), "one"])
    };
    refused(&update(&json!({"memory": {"swappiness": 101}})), &["memory.swappiness", "0 to 100"]);
    refused(&update(&json!({"memory": {"limit": -7}})), &["memory.limit", "`-7`", "hint:"]);
    refused(&update(&json!({"blockIO": {"weight": 5}})), &["blockIO.weight", "10 to 1000"]);
    let _said = update(&json!({"memory": {"swappiness": u64::MAX, "limit": -1}})).good();
    let shares = [
        update(&json!({"cpu": {"shares": 1}})),
        bundle.oci(&["update", "--cpu-share", "1", "one"]),
    ];
    for ran in shares {
        if host::hierarchies().len() > 1 {
            refused(&ran, &["cpu.shares", "2 to 262144", "hint:"]);
        } else {
            let _said = ran.good();
        }
    }
}

#[test]
fn an_option_whose_path_cannot_be_used_is_named() {
    let bundle = Bundle::new();
    let create =
        |option: &str| bundle.oci(&["create", "-b", &bundle.path(), option, "/nosuch/x", "one"]);
    refused(&create("--pid-file"), &["--pid-file", "/nosuch/x", "hint: create the directory"]);
    refused(&create("--pidfd-socket"), &["--pidfd-socket", "/nosuch/x", "hint:"]);
    assert_eq!(bundle.left(), Vec::<String>::new());
    bundle.up("two");
    let exec = ["exec", "-d", "--pid-file", "/nosuch/x", "two", "true"];
    refused(&bundle.oci(&exec), &["--pid-file", "/nosuch/x", "hint:"]);
    let document = bundle.scratch().join("process.json");
    for (kind, words) in [
        ("initial", ["process.execCPUAffinity.initial", "`1000`"]),
        ("final", ["scheduling", "execCPUAffinity"]),
    ] {
        let process = json!({
            "args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "execCPUAffinity": {kind: "1000"},
        });
        fs::write(&document, process.to_string()).unwrap();
        let ran = bundle.oci(&["exec", "--process", &document.display().to_string(), "two"]);
        refused(&ran, &words);
        refused(&ran, &["hint:"]);
    }
}

/// The calls that the hint of a refusal says to allow.
#[track_caller]
fn to_allow(ran: &Ran) -> Vec<String> {
    assert_ne!(ran.code, 0, "{ran:?}");
    let (_, hint) = ran.stderr.split_once("hint: allow ").or_fail("find the hint");
    let (names, _) = hint.split_once(" in the seccomp profile").or_fail("find the names");
    names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_calls_that_a_profile_lacks_are_named_at_once_and_it_is_enough_to_add_them() {
    let bundle = Bundle::new();
    let profile = |names: &[String]| {
        bundle.change(|config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
            });
        });
    };
    let own: Vec<String> = hull_tests::calls::OF_PROGRAM.map(str::to_owned).to_vec();
    let hook = json!({"startContainer": [{"path": "/bin/true"}]});
    for (no_new_privs, hooks, hulls) in [
        (true, Value::Null, &["execve", "exit_group"][..]),
        (false, Value::Null, &["setresuid", "rt_sigprocmask", "recvmsg", "execve"]),
        (false, hook, &["setresuid", "clone", "waitid", "close_range"]),
    ] {
        bundle.change(|config| {
            config["process"]["args"] = json!(["/bin/true"]);
            config["process"]["noNewPrivileges"] = no_new_privs.into();
            config["hooks"] = hooks.clone();
        });
        profile(&own);
        let refused = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
        let missing = to_allow(&refused);
        for call in hulls {
            assert!(missing.iter().any(|name| name == call), "{call} in {refused:?}");
        }
        assert!(refused.stderr.contains("without which no program starts"), "{refused:?}");
        assert_eq!(bundle.left(), Vec::<String>::new());
        profile(&[own.as_slice(), missing.as_slice()].concat());
        let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "with {missing:?}");
    }
}
