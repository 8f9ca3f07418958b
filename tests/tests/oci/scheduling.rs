// SPDX-License-Identifier: Apache-2.0
//! Scheduling, limits that only OCI specs have, events, and sub-cgroups of execs.

use crate::refused;
use hull_tests::bundle::Bundle;
use hull_tests::eventually::{blocking, deadline};
use hull_tests::{host, shell};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

#[test]
fn an_exec_has_a_deadline_and_its_cpus_and_the_containers_nodes() {
    let bundle = Bundle::new();
    bundle.change(|config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
        config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"});
    });
    bundle.up("one");
    let pid = bundle.state("one")["pid"].to_string();
    let policy = shell::run("chrt", ["-p", &pid]).good();
    assert!(policy.contains("SCHED_BATCH"), "{policy}");
    let script = "head -n 1 /proc/self/numa_maps; grep Cpus_allowed_list /proc/self/status";
    let said = bundle.oci(&["exec", "one", "sh", "-c", script]).good();
    assert!(said.contains("interleave:0") && said.contains(":\t0\n"), "{said}");
    let document = bundle.scratch().join("process.json");
    let of = json!({
        "args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"],
        // Without it the container's one CPU, and a deadline needs all of them, sched(7).
        "execCPUAffinity": {},
        "scheduler": {
            "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 42_000, "deadline": 100_000, "period": 1_000_000,
        },
    });
    fs::write(&document, of.to_string()).unwrap();
    let file = bundle.scratch().join("pid");
    let (document, file) = (document.display().to_string(), file.display().to_string());
    let _said = bundle.oci(&["exec", "-d", "--pid-file", &file, "-p", &document, "one"]).good();
    let policy = shell::run("chrt", ["-p", &fs::read_to_string(&file).unwrap()]).good();
    assert!(policy.contains("SCHED_DEADLINE|SCHED_RESET_ON_FORK"), "{policy}");
    assert!(policy.contains("42000/100000/1000000"), "{policy}");
    bundle.change(|config| config["linux"]["memoryPolicy"]["nodes"] = "0-9876543210".into());
    refused(&bundle.create("two"), &["linux.memoryPolicy.nodes"]);
}

/// The content of the container's own file of a controller; `None` where the host has none.
fn limit(bundle: &Bundle, file: &str) -> Option<String> {
    let dirs = host::hierarchies().into_iter().map(|dir| dir.join(&bundle.cgroup()[1..]));
    dirs.into_iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok())
}

#[test]
fn limits_of_devices_are_set_and_updated() {
    let bundle = Bundle::new();
    let disks = fs::read_dir("/sys/block").unwrap().flatten();
    let numbers = disks.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok());
    let number = numbers.into_iter().next().unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    let rate = |rate: u64| json!([{"major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": rate}]);
    bundle.change(|config| {
        config["linux"]["resources"]["blockIO"] = json!({"throttleReadBpsDevice": rate(485_760)});
        config["linux"]["resources"]["pids"] = json!({"limit": 0});
    });
    let created = bundle.create("one");
    if limit(&bundle, "blkio.throttle.read_bps_device").is_none()
        && limit(&bundle, "io.max").is_none()
    {
        refused(&created, &["cgroup controller is not available"]);
        return;
    }
    let _said = created.good();
    let shown = || {
        let v1 = limit(&bundle, "blkio.throttle.read_bps_device");
        v1.or_else(|| limit(&bundle, "io.max")).unwrap_or_default()
    };
    assert!(shown().contains("485760"), "{}", shown());
    assert_eq!(limit(&bundle, "pids.max").as_deref(), Some("1\n"), "0 is the fewest there can be");
    let document = bundle.scratch().join("limits.json");
    fs::write(&document, json!({"blockIO": {"throttleReadBpsDevice": rate(999_999)}}).to_string())
        .unwrap();
    let _said = bundle.oci(&["update", "-r", &document.display().to_string(), "one"]).good();
    assert!(shown().contains("999999"), "{}", shown());
    refused(&bundle.oci(&["update", "--cpu-idle", "2", "one"]), &["--cpu-idle"]);
}

#[test]
fn a_limit_of_memory_below_what_is_in_use_is_refused_if_the_spec_says_so() {
    let bundle = Bundle::new();
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 && echo done; sleep 100000";
    bundle.change(|config| {
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["resources"]["memory"] =
            json!({"limit": 64 << 20, "checkBeforeUpdate": true});
    });
    bundle.up("one");
    let is_written = || {
        let said = bundle.oci(&["exec", "one", "stat", "-c", "%s", "/dev/shm/x"]);
        if said.stdout.trim() == (8 << 20).to_string() { Ok(()) } else { Err(format!("{said:?}")) }
    };
    blocking(deadline(), is_written).unwrap();
    let shown = || {
        let v1 = limit(&bundle, "memory.limit_in_bytes");
        v1.or_else(|| limit(&bundle, "memory.max")).unwrap().trim().parse::<u64>().unwrap()
    };
    let words = ["limit memory to 4194304 bytes", "bytes are in use", "hint: choose a limit"];
    // The setting of the spec holds for later updates, and a document may say it as well.
    refused(&bundle.oci(&["update", "--memory", "4m", "one"]), &words);
    let document = bundle.scratch().join("limits.json");
    let of = json!({"memory": {"limit": 4 << 20, "checkBeforeUpdate": true}, "pids": {"limit": 7}});
    fs::write(&document, of.to_string()).unwrap();
    refused(&bundle.oci(&["update", "-r", &document.display().to_string(), "one"]), &words);
    assert_eq!(shown(), 64 << 20, "nothing was changed");
    assert_ne!(limit(&bundle, "pids.max").as_deref(), Some("7\n"), "also no other limit");
    let _said = bundle.oci(&["update", "--memory", "32m", "one"]).good();
    assert_eq!(shown(), 32 << 20);
}

#[test]
fn events_come_until_the_container_ends() {
    let bundle = Bundle::new();
    bundle.change(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 32 << 20, "swap": 32 << 20});
    });
    bundle.up("one");
    let mut events = bundle.command(&["events", "--interval", "100ms", "one"]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(|line| line.unwrap());
    for _ in 0..2 {
        let line = next().unwrap();
        assert!(line.starts_with(r#"{"type":"stats","id":"one","data":{"#), "{line}");
    }
    let hungry = ["exec", "one", "sh", "-c", "x=$(dd if=/dev/zero bs=1M count=64 | tr '\\0' x)"];
    let _killed = bundle.oci(&hungry);
    // Statistics come every 100 ms: ten seconds of them without the event are enough.
    let mut seen = std::iter::from_fn(&mut next).take(100);
    let oom = seen.find(|line| line.contains("oom\"")).expect("an event of the kill");
    assert_eq!(oom, r#"{"type":"oom","id":"one"}"#);
    let _said = bundle.oci(&["kill", "one", "KILL"]).good();
    while next().is_some() {}
    assert!(events.wait().unwrap().success());
}

#[test]
fn an_exec_enters_a_sub_cgroup_and_no_other() {
    let bundle = Bundle::new();
    bundle.up("one");
    let has_v1 = limit(&bundle, "pids.max").is_some()
        && host::hierarchies()
            .iter()
            .filter(|dir| dir.join(&bundle.cgroup()[1..]).is_dir())
            .count()
            > 1;
    let dirs =
        host::hierarchies().into_iter().map(|dir| dir.join(&bundle.cgroup()[1..]).join("sub"));
    let dirs: Vec<_> = dirs.filter(|dir| fs::create_dir(dir).is_ok()).collect();
    for dir in dirs.iter().filter(|dir| dir.join("cpuset.mems").is_file()) {
        // Without CPUs and nodes of its own a cpuset of cgroup v1 takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(dir.parent().unwrap().join(file)).unwrap_or_default();
            let _none_in_v2 = fs::write(dir.join(file), own.trim());
        }
    }
    let file = bundle.scratch().join("pid").display().to_string();
    let exec = |cgroup: &str| {
        bundle.oci(&["exec", "-d", "--pid-file", &file, "--cgroup", cgroup, "one", "sleep", "1000"])
    };
    let places = || {
        fs::read_to_string(format!("/proc/{}/cgroup", fs::read_to_string(&file).unwrap())).unwrap()
    };
    let own = format!(":{}\n", bundle.cgroup());
    let _said = exec("sub").good();
    assert!(places().contains("/sub\n") && !places().contains(&own), "{}", places());
    if has_v1 {
        let _said = exec("pids:sub").good();
        let line = places().lines().find(|line| line.contains("pids")).unwrap().to_owned();
        assert!(line.ends_with("/sub") && places().contains(&own), "{}", places());
    }
    refused(&exec("../x"), &["bad sub cgroup path"]);
    refused(&exec("whaaat:sub"), &["unknown controller"]);
    refused(&exec(":sub"), &["--cgroup", "has no name"]);
    let two = ["exec", "--cgroup", "a", "--cgroup", "b", "one", "true"];
    refused(&bundle.oci(&two), &["--cgroup", "names its controllers", "`a`"]);
    if has_v1 {
        let twice = ["exec", "--cgroup", "pids:a", "--cgroup", "pids:b", "one", "true"];
        refused(&bundle.oci(&twice), &["--cgroup", "several paths", "`pids`"]);
    }
    assert!(!dirs.is_empty());
    let _said = bundle.oci(&["delete", "-f", "one"]).good();
}

#[test]
fn a_list_has_the_fields_in_their_order() {
    let bundle = Bundle::new();
    let _said = bundle.create("one").good();
    let list = bundle.oci(&["list", "-f", "json"]).good();
    assert!(list.starts_with(r#"[{"ociVersion":"1"#), "{list}");
    let keys = ["id", "pid", "status", "bundle", "rootfs", "created", "owner"];
    let places = keys.map(|key| list.find(&format!("\"{key}\":")).unwrap());
    assert!(places.is_sorted(), "{list}");
    let features: Value = serde_json::from_str(&bundle.oci(&["features"]).good()).unwrap();
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.contains(&json!("rrw")) && options.contains(&json!("ridmap")));
    assert_eq!(features["ociVersionMax"], "1.3.0");
}

#[test]
fn a_root_that_is_named_must_exist() {
    let mut runtime = hull_tests::bundle::runtime();
    let ran = shell::finish(runtime.args(["--root", "/no/such/root", "list"]));
    refused(&ran, &["/no/such/root"]);
}
