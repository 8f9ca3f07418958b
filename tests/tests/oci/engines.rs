// SPDX-License-Identifier: Apache-2.0
//! Requests of docker, podman and containerd, and the behaviour that they expect of a runtime.

use crate::{bind_scratch, refused};
use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt as _;
use hull_tests::host;
use hull_tests::shell::finish;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

#[test]
fn a_weight_of_zero_and_devices_that_every_container_has_are_taken() {
    let script = "stat -c '%A %n' /dev/null /dev/ptmx; readlink /dev/ptmx; echo x > /dev/null";
    let bundle = Bundle::shell(script);
    bundle.change(|config| {
        config["linux"]["resources"]["blockIO"] = json!({"weight": 0});
        config["linux"]["devices"] = json!([
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 0o666},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666},
            {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o666},
            {"path": "/dev/console", "type": "c", "major": 5, "minor": 1, "fileMode": 0o600},
        ]);
    });
    let said = bundle.oci(&["run", "-b", &bundle.path(), "one"]).good();
    assert_eq!(said, "crw-rw-rw- /dev/null\nlrwxrwxrwx /dev/ptmx\npts/ptmx\n");
    let bundle = Bundle::shell("exec sleep 1000000");
    bundle.up("two");
    let _said = bundle.oci(&["update", "--blkio-weight", "0", "two"]).good();
    let document = bundle.scratch().join("limits.json");
    fs::write(&document, r#"{"blockIO": {"weight": 0}, "pids": {"limit": 7}}"#).unwrap();
    let _said = bundle.oci(&["update", "-r", &document.display().to_string(), "two"]).good();
}

#[test]
fn unknown_capabilities_are_left_out_with_a_warning() {
    let bundle = Bundle::shell("grep CapBnd /proc/self/status");
    bundle.change(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_TO_FLY", "CHOWN"]);
        }
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "CapBnd:\t0000000000000020\n"), "{ran:?}");
    for left_out in ["`CAP_TO_FLY`", "`CHOWN`"] {
        assert!(ran.stderr.starts_with("warning:") && ran.stderr.contains(left_out), "{ran:?}");
    }
    bundle.change(|config| config["process"]["capabilities"]["bounding"] = json!([7]));
    refused(&bundle.oci(&["run", "-b", &bundle.path(), "one"]), &["config.json"]);
}

#[test]
fn an_exec_with_more_capabilities_has_them_where_no_inheritance_is_needed() {
    let bundle = Bundle::new();
    bundle.up("one");
    let sets = |words: &[&str]| {
        let script = ["sh", "-c", "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2"];
        let ran = bundle.oci(&[&["exec"], words, &["one"], &script].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        let bits = |line: &str| u64::from_str_radix(line, 16).unwrap();
        (ran.stdout.lines().map(bits).collect::<Vec<_>>(), ran.stderr)
    };
    let (plain, _) = sets(&[]);
    let (more, said) = sets(&[
        "--cap",
        "CAP_SYS_TIME",
        "--cap",
        "CAP_SYSLOG",
        "--cap",
        "CAP_TO_FLY",
        "-c",
        "SYS_ADMIN",
    ]);
    for left_out in ["`CAP_TO_FLY`", "`SYS_ADMIN`"] {
        assert!(said.contains("warning:") && said.contains(left_out), "{said}");
    }
    let bits = 1 << 25 | 1 << 34;
    // Inheritable, permitted, effective, bounding, ambient.
    let want = [plain[0], plain[1] | bits, plain[2] | bits, plain[3] | bits, plain[4]];
    assert_eq!(more, want, "{plain:x?}");
}

#[test]
fn a_frozen_parent_cgroup_is_an_error_that_says_so() {
    let bundle = Bundle::new();
    let parent = format!("{}/parent", bundle.cgroup());
    bundle.change(|config| config["linux"]["cgroupsPath"] = format!("{parent}/one").into());
    bundle.up("one");
    let hierarchy = host::hierarchies().into_iter().map(|dir| dir.join(&parent[1..]));
    let group = hierarchy
        .into_iter()
        .find(|dir| dir.join("freezer.state").is_file() || dir.join("cgroup.freeze").is_file());
    let (file, freeze, thaw) = host::freezer_of(&group.unwrap());
    fs::write(&file, freeze).unwrap();
    bundle.change(|config| config["linux"]["cgroupsPath"] = format!("{parent}/two").into());
    let created = bundle.create("two");
    let exec = bundle.oci(&["exec", "one", "true"]);
    fs::write(&file, thaw).unwrap();
    refused(&created, &[&parent, "frozen", "hint:"]);
    bundle.change(|config| config["linux"]["cgroupsPath"] = format!("{parent}/three").into());
    let _said = bundle.create("three").good();
    fs::write(&file, freeze).unwrap();
    let started = bundle.oci(&["start", "three"]);
    fs::write(&file, thaw).unwrap();
    // As runc has it: what is frozen with its parent is paused.
    refused(&started, &["start", "three", "paused"]);
    bundle.change(|config| config["linux"]["cgroupsPath"] = format!("{parent}/two").into());
    assert_ne!(exec.code, 0, "{exec:?}");
    let _said = bundle.create("two").good();
    for id in ["one", "two", "three"] {
        let _said = bundle.oci(&["delete", "-f", id]).good();
    }
    // The runtime takes away what it was asked for, and not the caller's parents.
    for dir in host::hierarchies() {
        let own = dir.join(&bundle.cgroup()[1..]);
        let _not_in_all = fs::remove_dir(own.join("parent")).and_then(|()| fs::remove_dir(own));
    }
}

#[test]
fn a_container_that_is_paused_before_its_start_is_not_started() {
    let bundle = Bundle::new();
    let _said = bundle.create("one").good();
    let _said = bundle.oci(&["pause", "one"]).good();
    assert!(bundle.oci(&["state", "one"]).good().contains("paused"));
    refused(&bundle.oci(&["start", "one"]), &["start", "one", "paused"]);
    let _said = bundle.oci(&["resume", "one"]).good();
    let _said = bundle.oci(&["start", "one"]).good();
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
}

#[test]
fn hooks_have_the_surroundings_that_the_spec_gives_them() {
    let bundle = Bundle::new();
    let log = bundle.scratch().join("log");
    bind_scratch(&bundle);
    for no_new_privileges in [true, false] {
        let _none_yet = fs::remove_file(&log);
        bundle.change(|config| {
            config["process"]["env"] = json!(["PATH=/bin", "OF_CONTAINER=yes"]);
            config["process"]["noNewPrivileges"] = no_new_privileges.into();
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["clone3", "vfork"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                    {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                ],
            });
            let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
            let report = "echo \"$OF_CONTAINER $(grep Seccomp: /proc/self/status)\" >> /t/log";
            config["hooks"] = json!({
                "createContainer": hook(&format!("pwd >> {}", log.display())),
                "startContainer": hook(report),
            });
        });
        bundle.up("one");
        let text = fs::read_to_string(&log).unwrap();
        let want = format!("{}/rootfs\nyes Seccomp:\t2\n", bundle.path());
        assert_eq!(text, want, "no new privileges: {no_new_privileges}");
        let _said = bundle.oci(&["delete", "-f", "one"]).good();
    }
}

#[test]
fn the_callers_affinity_stays_with_the_caller() {
    let bundle = Bundle::shell("grep Cpus_allowed_list /proc/self/status; sleep 1000");
    let list = "grep Cpus_allowed_list /proc/self/status";
    bundle.up("all");
    let all = bundle.oci(&["exec", "all", "sh", "-c", list]).good();
    let of_oci = |words: &[&str]| {
        let command = bundle.command(words);
        let mut confined = Command::new("taskset");
        confined.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
        finish(&mut confined).good()
    };
    assert_eq!(of_oci(&["exec", "all", "sh", "-c", list]), all);
    bundle.change(|config| config["process"]["args"] = json!(["sh", "-c", list]));
    let path = bundle.path();
    bundle.change(|config| config["linux"]["cgroupsPath"] = format!("{}b", bundle.cgroup()).into());
    assert_eq!(of_oci(&["run", "-b", &path, "one"]), all);
}

#[test]
fn a_failed_update_changes_nothing() {
    let bundle = Bundle::new();
    bundle.up("one");
    let pids = || bundle.oci(&["exec", "one", "true"]).code;
    let _said = bundle.oci(&["update", "--pids-limit", "50", "--memory", "64m", "one"]).good();
    let words = ["update", "--pids-limit", "1", "--memory", "32m", "--cpu-quota", "7", "one"];
    refused(&bundle.oci(&words), &["cpu", "7"]);
    assert_eq!(pids(), 0, "the limit of processes is still 50");
    // No such device, whatever controllers there are: this comes after all other limits.
    let weights = json!([{"major": 1, "minor": 7777, "weight": 100}]);
    let file = bundle.scratch().join("resources.json");
    let resources = json!({"pids": {"limit": 1}, "blockIO": {"weightDevice": weights}});
    fs::write(&file, resources.to_string()).unwrap();
    let ran = bundle.oci(&["update", "-r", &file.display().to_string(), "one"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert_eq!(pids(), 0, "the limit of processes is still 50: {ran:?}");
}

/// The process that starts it has more descriptors than that.
#[test]
fn a_container_with_few_descriptors_starts() {
    let bundle = Bundle::shell("ulimit -n");
    bundle.change(|config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 8, "soft": 8}]);
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "8\n"), "{ran:?}");
}

/// Below its root is the host's then, whose procfs must not be there: the kernel would let it mount another.
#[test]
fn without_a_pivot_no_unmasked_procfs_can_be_mounted() {
    let bundle = Bundle::new();
    bundle.change(|config| {
        let script = "mount -t proc none /proc && echo mounted";
        config["process"]["args"] = json!(["unshare", "-m", "-r", "-p", "-f", "sh", "-c", script]);
        for set in ["bounding", "permitted", "effective"] {
            let set = config["process"]["capabilities"][set].as_array_mut();
            set.or_fail("find the capabilities").push("CAP_SETFCAP".into());
        }
    });
    let ran = bundle.oci(&["run", "--no-pivot", "-b", &bundle.path(), "one"]);
    assert!(ran.stderr.contains("ermission denied"), "{ran:?}");
    assert!(!ran.stdout.contains("mounted"), "{ran:?}");
}

#[test]
fn an_ambient_capability_that_cannot_be_one_is_left_out_with_a_warning() {
    let bundle = Bundle::shell("grep CapAmb /proc/self/status");
    bundle.change(|config| {
        config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
        config["process"]["capabilities"]["inheritable"] = json!([]);
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "CapAmb:\t0000000000000000\n"), "{ran:?}");
    assert!(ran.stderr.contains("ambient capability CAP_KILL"), "{ran:?}");
}

/// Of a user namespace that is joined, and one of the network that belongs to another.
#[test]
fn namespaces_of_different_owners_are_joined() {
    let bundle = Bundle::new();
    let ours = |namespace: &str| format!("/proc/{}/ns/{namespace}", std::process::id());
    let user = json!([{"containerID": 0, "hostID": 500_000, "size": 65536}]);
    bundle.change(|config| {
        let linux = &mut config["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        linux["uidMappings"] = user.clone();
        linux["gidMappings"] = user.clone();
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/mqueue");
    });
    bundle.up("owner");
    let owner = format!("/proc/{}/ns/user", bundle.state("owner")["pid"]);
    bundle.change(|config| {
        let linux = &mut config["linux"];
        linux["cgroupsPath"] = format!("{}b", bundle.cgroup()).into();
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|of| of["type"] != "user" && of["type"] != "network");
        namespaces.push(json!({"type": "user", "path": owner}));
        namespaces.push(json!({"type": "network", "path": ours("net")}));
        let mounts = config["mounts"].as_array_mut().unwrap();
        // Only the owner of the network may mount a sysfs of it.
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
        let script = "readlink /proc/self/ns/net; stat -c %u:%g /dev/null";
        config["process"]["args"] = json!(["sh", "-c", script]);
    });
    let net = fs::read_link(ours("net")).unwrap().display().to_string();
    let want = format!("{net}\n0:0\n");
    // With the maps of that namespace, as engines write them, and without.
    let run = || bundle.oci(&["run", "-b", &bundle.path(), "joined"]);
    let ran = run();
    assert_eq!((ran.code, &ran.stdout), (0, &want), "{ran:?}");
    let maps = |config: &mut Value, of: &Value| {
        config["linux"]["uidMappings"] = of.clone();
        config["linux"]["gidMappings"] = of.clone();
    };
    bundle.change(|config| maps(config, &Value::Null));
    let ran = run();
    assert_eq!((ran.code, &ran.stdout), (0, &want), "{ran:?}");
    let other = json!([{"containerID": 0, "hostID": 500_001, "size": 65535}]);
    bundle.change(|config| maps(config, &other));
    refused(&run(), &["linux.uidMappings", "joins has other maps", "hint:"]);
}
