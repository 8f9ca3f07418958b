// SPDX-License-Identifier: Apache-2.0
//! Invalid input, and commands that are killed at any moment.

use crate::refused;
use hull_tests::ExpectExt as _;
use hull_tests::bundle::Bundle;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// Replaces the namespace of this type.
fn namespace(config: &mut Value, kind: &str, by: &Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().or_fail("find the namespaces");
    namespaces.retain(|of| of["type"] != kind);
    if !by.is_null() {
        namespaces.push(by.clone());
    }
}

#[test]
fn invalid_input_is_named_with_a_hint_and_takes_no_id() {
    type Change = fn(&mut Value);
    let wrong: [(Change, &[&str]); 14] = [
        (|c| c["root"]["path"] = "nowhere".into(), &["nowhere", "root.path"]),
        (|c| c["ociVersion"] = "9.0".into(), &["9.0", "version 1"]),
        (|c| c["process"]["cwd"] = "x".into(), &["`x`", "process.cwd"]),
        (
            |c| c["process"]["args"] = json!(["nope"]),
            &["executable file not found in $PATH", "hint:"],
        ),
        (|c| c["process"]["args"] = json!(["/nope"]), &["/nope", "no such file or directory"]),
        (
            |c| c["process"]["capabilities"]["bounding"] = json!("CAP_KILL"),
            &["config.json", "CAP_KILL"],
        ),
        (|c| c["linux"]["intelRdt"] = json!({}), &["linux.intelRdt", "hint:", "resctrl"]),
        (
            |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            &["listenerPath"],
        ),
        (
            |c| {
                c["linux"]["seccomp"] =
                    json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"});
            },
            &["SCMP_ACT_NOTIFY"],
        ),
        (
            |c| c["linux"]["sysctl"] = json!({"vm.swappiness": "1"}),
            &["vm.swappiness", "not namespaced"],
        ),
        (|c| c["linux"]["cgroupsPath"] = "/../x".into(), &["/../x"]),
        (|c| c["hooks"] = json!({"poststop": [{"path": "x"}]}), &["hooks.path", "`x`"]),
        (|c| c["mounts"][0]["options"] = json!(["remount"]), &["remount"]),
        (
            |c| {
                c["linux"]["namespaces"][1] = json!({"type": "network", "path": "/nope"});
            },
            &["/nope", "namespace"],
        ),
    ];
    let bundle = Bundle::new();
    let original = fs::read(format!("{}/config.json", bundle.path())).unwrap();
    for (change, words) in wrong {
        bundle.change(change);
        refused(&bundle.create("one"), words);
        assert_eq!(bundle.left(), Vec::<String>::new(), "after {words:?}");
        fs::write(format!("{}/config.json", bundle.path()), &original).unwrap();
    }
    refused(&bundle.oci(&["create", "-b", "/nowhere", "one"]), &["/nowhere", "bundle", "hint:"]);
    refused(&bundle.create("a/b"), &["`a/b`", "id"]);
    refused(&bundle.oci(&["create", "--wrong", "one"]), &["--wrong", "hint:"]);
    // Its path is that of a cgroup, and not slice, prefix and name.
    let words = ["--systemd-cgroup", "create", "-b", &bundle.path(), "one"];
    refused(&bundle.oci(&words), &["--systemd-cgroup", "slice:prefix:name"]);
    refused(&bundle.oci(&["start", "none"]), &["container does not exist", "--root"]);
    let log = bundle.scratch().join("log").display().to_string();
    let words = ["--log", &log, "--log-format", "json", "start", "none"];
    let _refused = bundle.oci(&words);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("container does not exist"), "{line}");
}

/// As runc does, or because they would not be the container's own.
#[test]
fn settings_of_others_and_values_out_of_range_are_refused() {
    type Change = fn(&mut Value);
    let wrong: [(Change, &[&str]); 6] = [
        (
            |c| namespace(c, "mount", &Value::Null),
            &["no mount namespace of its own", "the caller's", "hint: add"],
        ),
        (
            |c| namespace(c, "mount", &json!({"type": "mount", "path": "/proc/self/ns/mnt"})),
            &["no mount namespace of its own", "that of others", "without a path"],
        ),
        (
            |c| {
                c["linux"]["namespaces"] =
                    json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}])
            },
            &["linux.namespaces", "pid", "there twice", "hint:"],
        ),
        (
            |c| c["linux"]["resources"]["memory"] = json!({"swappiness": 101}),
            &["memory.swappiness", "`101`", "0 to 100", "hint: correct"],
        ),
        (
            |c| {
                namespace(c, "network", &json!({"type": "network", "path": "/proc/self/ns/net"}));
                c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            },
            &["net.ipv4.ip_forward", "host network"],
        ),
        (
            |c| {
                namespace(c, "user", &json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 500_000, "size": 65536}]);
                c["linux"]["uidMappings"] = map;
            },
            &["linux.gidMappings"],
        ),
    ];
    let bundle = Bundle::new();
    let config = format!("{}/config.json", bundle.path());
    let original = fs::read(&config).unwrap();
    for (change, words) in wrong {
        bundle.change(change);
        refused(&bundle.create("one"), words);
        assert_eq!(bundle.left(), Vec::<String>::new(), "after {words:?}");
        fs::write(&config, &original).unwrap();
    }
    bundle.change(|c| c["linux"]["rootfsPropagation"] = "rprivate".into());
    let words = ["create", "--no-pivot", "-b", &bundle.path(), "one"];
    refused(&bundle.oci(&words), &["linux.rootfsPropagation", "not safe without pivot_root"]);
}

#[test]
fn an_errno_of_a_profile_that_no_program_can_get_is_named_with_its_bounds() {
    let bundle = Bundle::new();
    bundle.change(|config| {
        let rule = json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    });
    refused(&bundle.create("one"), &["errnoRet", "70000", "0 to 4094", "hint:"]);
    assert_eq!(bundle.left(), Vec::<String>::new());
}

#[test]
fn a_damaged_record_hides_no_other_container_and_is_removed_by_force() {
    let bundle = Bundle::new();
    bundle.up("one");
    let root = std::path::PathBuf::from(bundle.state("one")["bundle"].as_str().unwrap());
    let damaged = root.parent().unwrap().join("r/two");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("record.json"), "").unwrap();
    let listed = bundle.oci(&["list", "-q"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (0, "one\n"), "{listed:?}");
    let warning = "warning: container `two` is not listed: ";
    assert!(listed.stderr.contains(warning), "{listed:?}");
    let cause = "EOF while parsing";
    assert_eq!(listed.stderr.matches(cause).count(), 1, "{listed:?}");
    refused(&bundle.oci(&["delete", "two"]), &["record.json", cause]);
    let forced = bundle.oci(&["delete", "--force", "two"]);
    assert!(forced.code == 0 && forced.stderr.contains("warning:"), "{forced:?}");
    assert_eq!(bundle.oci(&["list", "-q"]).good(), "one\n");
}

#[test]
fn a_create_killed_anywhere_leaves_nothing_that_delete_does_not_take() {
    let bundle = Bundle::new();
    for hundred_us in 0..60 {
        let mut create = bundle.command(&["create", "-b", &bundle.path(), "one"]).spawn().unwrap();
        let (began, wait) = (Instant::now(), Duration::from_micros(hundred_us * 100));
        while began.elapsed() < wait {
            std::hint::spin_loop();
        }
        create.kill().unwrap();
        let _ended = create.wait().unwrap();
        let _said = bundle.oci(&["delete", "--force", "one"]).good();
        assert_eq!(bundle.left(), Vec::<String>::new(), "killed after {wait:?}");
    }
    // And where it is known how far it had got.
    let killer = json!([{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]);
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        bundle.change(|config| config["hooks"] = json!({kind: killer}));
        let _killed = bundle.create("one");
        let _killed = bundle.oci(&["start", "one"]);
        let _said = bundle.oci(&["delete", "--force", "one"]).good();
        assert_eq!(bundle.left(), Vec::<String>::new(), "killed by {kind}");
    }
}

#[test]
fn a_hundred_in_a_row_leave_nothing() {
    let bundle = Bundle::new();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = mounts();
    for _ in 0..100 {
        bundle.up("one");
        let _said = bundle.oci(&["delete", "--force", "one"]).good();
    }
    assert_eq!(bundle.left(), Vec::<String>::new());
    assert!(mounts() <= before + 20, "mounts grow: {before} before, {} now", mounts());
}
