// SPDX-License-Identifier: Apache-2.0
//! The parts of the OCI spec, as the container's processes see them.

use crate::{bind_scratch, refused, shell_words};
use hull_tests::bundle::Bundle;
use hull_tests::eventually::{blocking, deadline};
use hull_tests::shell::finish;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_container_has_what_its_spec_says() {
    let script = "ulimit -n; id -G; grep NoNewPrivs /proc/self/status | cut -f 2; \
        cat /proc/keys 2>/dev/null | wc -c; \
        (echo x > /proc/sys/kernel/hostname) 2>&1 | grep -c Read-only; hostname; \
        grep Seccomp: /proc/self/status | cut -f 2; cut -d ' ' -f 1 /proc/uptime | cut -d . -f 1; \
        unshare -U true 2>&1 | grep -c 'not permitted'; stat -c %t:%T /dev/zero9; \
        cut -d ' ' -f 19 /proc/self/stat; cat /proc/self/personality; umask; cat <&3";
    let bundle = Bundle::shell(script);
    bundle.change(|config| {
        let process = &mut config["process"];
        process["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [29, 2000], "umask": 0o27});
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 77, "soft": 77}]);
        process["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 5});
        let linux = &mut config["linux"];
        linux["personality"] = json!({"domain": "LINUX"});
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        linux["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
        linux["devices"] = json!([{"path": "/dev/zero9", "type": "c", "major": 1, "minor": 5}]);
        linux["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
    });
    let kept = bundle.scratch().join("kept");
    fs::write(&kept, "kept\n").unwrap();
    let inner = format!(
        "exec {} 3< {}",
        shell_words(&bundle.command(&["run", "--preserve-fds", "1", "-b", &bundle.path(), "one"])),
        kept.display()
    );
    let ran = finish(std::process::Command::new("sh").args(["-c", &inner]));
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[..7], ["77", "0 29 2000", "1", "0", "1", "hull", "2"], "{ran:?}");
    assert!(lines[7].parse::<u64>().unwrap() >= 1_000_000_000, "{ran:?}");
    assert_eq!(lines[8..], ["1", "1:5", "5", "00000000", "0027", "kept"], "{ran:?}");
}

/// As with runc, whose capabilities are those of its caller then.
#[test]
fn a_process_without_capabilities_keeps_those_of_the_caller() {
    let bundle = Bundle::new();
    bundle.change(|config| {
        let process = config["process"].as_object_mut().unwrap();
        let _had = process.remove("capabilities").unwrap();
    });
    let set = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or_else(|| panic!("no {name} in {text}")).trim(), 16)
            .unwrap()
    };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let (all, inheritable) = (set(&own, "CapBnd:"), set(&own, "CapInh:"));
    assert_ne!(all, 0);
    bundle.up("one");
    let pid = bundle.state("one")["pid"].to_string();
    let started = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of_exec = |options: &[&str]| {
        bundle.oci(&[&["exec"], options, &["one", "cat", "/proc/self/status"]].concat()).good()
    };
    for text in [&started, &of_exec(&[]), &of_exec(&["--cap", "CAP_CHOWN"])] {
        assert_eq!((set(text, "CapBnd:"), set(text, "CapEff:")), (all, all), "{text}");
        assert_eq!((set(text, "CapInh:"), set(text, "CapAmb:")), (inheritable, 0), "{text}");
    }
    let user = of_exec(&["--user", "1000"]);
    assert_eq!((set(&user, "CapBnd:"), set(&user, "CapPrm:")), (all, 0), "{user}");
    let _said = bundle.oci(&["delete", "--force", "one"]).good();
    // The document of an exec without any has those of its container.
    bundle.change(|config| config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]}));
    bundle.up("two");
    let document = bundle.scratch().join("process.json");
    let process = json!({"args": ["cat", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"]});
    fs::write(&document, process.to_string()).unwrap();
    let text = bundle.oci(&["exec", "--process", &document.display().to_string(), "two"]).good();
    assert_eq!(set(&text, "CapBnd:"), 1 << 5, "{text}");
}

/// As with runc: programs bind and reach 127.0.0.1 in a namespace that nobody else sets up.
#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let bundle = Bundle::shell("ip -o addr show dev lo; cat /sys/class/net/lo/flags");
    for user in [false, true] {
        bundle.change(|config| {
            let linux = &mut config["linux"];
            let namespaces = linux["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|of| of["type"] != "network");
            namespaces.push(json!({"type": "network"}));
            if user {
                namespaces.push(json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 0, "size": 4_294_967_295_u32}]);
                linux["uidMappings"] = map.clone();
                linux["gidMappings"] = map;
            }
        });
        let ran = bundle.oci(&["run", "-b", &bundle.path(), "lo"]);
        assert!(ran.stdout.contains("127.0.0.1/8"), "user namespace {user}: {ran:?}");
        assert!(ran.stdout.trim_end().ends_with("0x9"), "up and loopback: {ran:?}");
    }
}

/// As with runc: what a spec does not allow is denied, whether it has rules or not. The device has no driver: the
/// kernel asks for the right to open it before it looks for one.
#[test]
fn without_device_rules_nothing_opens_but_what_every_container_has() {
    let script = "head -c 3 /dev/zero | wc -c; (head -c 1 < /dev/given) 2>&1 | tail -1";
    let bundle = Bundle::shell(script);
    let one = json!([{"allow": true, "type": "c", "major": 1, "minor": 98, "access": "rwm"}]);
    for (id, resources) in [
        ("none", Value::Null),
        ("empty", json!({"devices": []})),
        ("other", json!({"devices": one})),
        ("limits", json!({"pids": {"limit": 100}})),
    ] {
        bundle.change(|config| {
            let linux = &mut config["linux"];
            linux["devices"] =
                json!([{"path": "/dev/given", "type": "c", "major": 1, "minor": 99}]);
            if resources.is_null() {
                let _had = linux.as_object_mut().unwrap().remove("resources");
            } else {
                linux["resources"] = resources.clone();
            }
        });
        let ran = bundle.oci(&["run", "-b", &bundle.path(), id]);
        let (zeros, refused) = ran.stdout.split_once('\n').unwrap_or_default();
        assert_eq!(zeros, "3", "{id}: {ran:?}");
        assert!(refused.contains("Operation not permitted"), "{id}: {ran:?}");
    }
    bundle.change(|config| {
        config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "all"]);
    assert!(ran.stdout.contains("No such device"), "{ran:?}");
}

/// The masks of the spec that it writes are those of pods.
#[test]
fn the_spec_to_begin_with_hides_what_a_pod_hides() {
    let bundle = Bundle::new();
    let dir = bundle.scratch().join("new");
    fs::create_dir_all(&dir).unwrap();
    let _said = bundle.oci(&["spec", "--bundle", &dir.display().to_string()]).good();
    let text = fs::read_to_string(dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let masked = config["linux"]["maskedPaths"].as_array().unwrap();
    for path in ["/proc/interrupts", "/proc/latency_stats", "/sys/devices/virtual/powercap"] {
        assert!(masked.contains(&json!(path)), "{path}: {masked:?}");
    }
}

#[test]
fn a_user_namespace_has_its_maps_and_an_exec_joins_it() {
    let bundle = Bundle::new();
    let id = json!([{"containerID": 0, "hostID": 500_000, "size": 65536}]);
    bundle.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = id.clone();
        config["linux"]["gidMappings"] = id;
        let mounts = config["mounts"].as_array_mut().unwrap();
        // sysfs and cgroups may be mounted there, message queues not.
        mounts.retain(|mount| mount["destination"] != "/dev/mqueue");
    });
    bundle.up("one");
    let pid = bundle.state("one")["pid"].to_string();
    let owner = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(owner.split_whitespace().collect::<Vec<_>>(), ["0", "500000", "65536"]);
    let ran = bundle.oci(&["exec", "one", "sh", "-c", "id -u; cat /proc/self/uid_map"]);
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "500000", "65536"], "{ran:?}");
}

#[test]
fn limits_are_set_updated_and_read_and_a_container_stands_still() {
    let bundle = Bundle::shell("while :; do echo x >> /t/log; sleep 0.01; done");
    bind_scratch(&bundle);
    bundle.change(|config| config["linux"]["resources"]["pids"] = json!({"limit": 33}));
    bundle.up("one");
    let limit = || {
        let text = bundle.oci(&["events", "--stats", "one"]).good();
        serde_json::from_str::<Value>(&text).unwrap()["data"]["pids"]["limit"].clone()
    };
    assert_eq!(limit(), 33);
    let _said = bundle.oci(&["update", "--pids-limit", "44", "one"]).good();
    assert_eq!(limit(), 44);
    let document = bundle.scratch().join("limits.json");
    fs::write(&document, json!({"pids": {"limit": 55}}).to_string()).unwrap();
    let _said = bundle.oci(&["update", "-r", &document.display().to_string(), "one"]).good();
    assert_eq!(limit(), 55);
    let log = bundle.scratch().join("log");
    let length = || fs::metadata(&log).unwrap().len();
    let grown = |beyond: u64| match fs::metadata(&log) {
        Ok(log) if log.len() > beyond => Ok(()),
        other => Err(format!("{other:?}")),
    };
    blocking(deadline(), || grown(0)).unwrap();
    let _said = bundle.oci(&["pause", "one"]).good();
    assert_eq!(bundle.status("one"), "paused");
    refused(&bundle.oci(&["exec", "one", "true"]), &["paused"]);
    let paused = length();
    let _said = bundle.oci(&["list"]).good();
    assert_eq!(length(), paused);
    let _said = bundle.oci(&["resume", "one"]).good();
    blocking(deadline(), || grown(paused)).unwrap();
    let _said = bundle.oci(&["pause", "one"]).good();
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
}
