// SPDX-License-Identifier: Apache-2.0
//! The end of a container as a kubelet shows it. It puts Hull's message before the program's own.

use crate::{container, started};
use hull_tests::ExpectExt as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// Uses all the memory that it may.
const HUNGRY: &str = "x=a; while true; do x=$x$x$x$x; done";
const SAYS: &str = "printf DONE > /dev/termination-log";

/// A container that runs `script` and ends; `more` is merged into it.
fn ending(name: &str, script: &str, more: &Value) -> Value {
    let mut made = container(name, &["sh", "-c", script]);
    for (key, value) in more.as_object().into_iter().flatten() {
        made[key] = value.clone();
    }
    made
}

/// Reason, exit code and message of every container that has ended.
fn ends(pod: &Value) -> BTreeMap<String, (String, i64, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let ends = statuses.map(|status| {
        let ended = &status["state"]["terminated"];
        let code = ended["exitCode"].as_i64().or_fail(format!("find the exit code in {status}"));
        (text(&status["name"]), (text(&ended["reason"]), code, text(&ended["message"])))
    });
    ends.collect()
}

#[tokio::test]
async fn the_termination_message_is_the_programs_own() {
    let Some(node) = started().await else { return };
    let from_log = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let little = json!({"limits": {"memory": "20Mi"}});
    let elsewhere = json!({"terminationMessagePath": "/tmp/message"});
    let mut hungry_log = from_log.clone();
    hungry_log["resources"] = little.clone();
    let mut missing = ending("start-error", "", &from_log);
    missing["command"] = json!(["/no/such/command"]);
    node.apply(
        "ends",
        &json!({"restartPolicy": "Never", "containers": [
            ending("zero", &format!("{SAYS}; exit 0"), &json!({})),
            ending("one", &format!("{SAYS}; exit 1"), &json!({})),
            ending("elsewhere", "printf THERE > /tmp/message; exit 3", &elsewhere),
            ending("silent", "echo only in the log; exit 1", &json!({})),
            ending("log", "printf DONE; exit 1", &from_log),
            ending("log-zero", "printf DONE; exit 0", &from_log),
            ending("oom-silent", HUNGRY, &json!({"resources": little})),
            ending("oom-says", &format!("{SAYS}; {HUNGRY}"), &json!({"resources": little})),
            ending("oom-log", &format!("printf DONE; {HUNGRY}"), &hungry_log),
            missing,
        ]}),
    );
    let ends = ends(&node.pod_in("ends", "Failed").await);
    for (name, reason, code, message) in [
        ("zero", "Completed", 0, "DONE"),
        ("one", "Error", 1, "DONE"),
        ("elsewhere", "Error", 3, "THERE"),
        ("silent", "Error", 1, ""),
        ("log", "Error", 1, "DONE"),
        ("log-zero", "Completed", 0, ""),
        ("oom-says", "OOMKilled", 137, "DONE"),
        ("oom-log", "OOMKilled", 137, "DONE"),
    ] {
        let (found_reason, found_code, found) = &ends[name];
        assert_eq!((&**found_reason, *found_code, &**found), (reason, code, message), "{name}");
    }
    let (reason, code, message) = &ends["oom-silent"];
    assert_eq!((&**reason, *code), ("OOMKilled", 137), "{message}");
    assert!(message.starts_with("out of memory: ") && message.contains("20 MiB"), "{message}");
    let (reason, code, message) = &ends["start-error"];
    assert_eq!((&**reason, *code), ("StartError", 128), "{message}");
    assert!(message.contains("/no/such/command"), "{message}");
    assert!(!message.contains("Error on reading"), "the log is there: {message}");
}

#[tokio::test]
async fn a_seccomp_kill_is_explained_unless_the_program_wrote_a_message() {
    let Some(node) = started().await else { return };
    let profiles = node.machine().path("/var/lib/kubelet/seccomp");
    fs::create_dir_all(&profiles).or_fail("make the directory of profiles");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    fs::write(profiles.join("no-mkdir.json"), profile.to_string()).or_fail("write a profile");
    let confined = json!({"securityContext": {"seccompProfile": {
        "type": "Localhost", "localhostProfile": "no-mkdir.json",
    }}});
    node.apply(
        "denied",
        &json!({"restartPolicy": "Never", "containers": [
            ending("silent", "exec mkdir /x", &confined),
            ending("says", &format!("{SAYS}; exec mkdir /x"), &confined),
        ]}),
    );
    let ends = ends(&node.pod_in("denied", "Failed").await);
    let (reason, code, message) = &ends["silent"];
    assert_eq!((&**reason, *code), ("Error", 159), "128 and SIGSYS: {message}");
    assert!(message.starts_with("killed by signal 31"), "{message}");
    assert_eq!(ends["says"], ("Error".into(), 159, "DONE".into()));
}
