// SPDX-License-Identifier: Apache-2.0
//! `hull oci` as containerd's shim, podman and people use it: real bundles, runc's command line.

mod cgroups;
mod engines;
mod failures;
mod hooks;
mod messages;
mod mounts;
mod net_devices;
mod notify;
mod rootless;
mod scheduling;
mod spec;
mod terminal;

use hull_tests::bundle::{Bundle, runtime};
use hull_tests::eventually::{blocking, deadline};
use hull_tests::expect::ExpectExt as _;
use hull_tests::shell::{self, Ran, finish};
use serde_json::{Value, json};
use std::fs::{self, File};

#[track_caller]
fn until(bundle: &Bundle, id: &str, status: &str) {
    let look = || match bundle.status(id) {
        now if now == status => Ok(()),
        now => Err(now),
    };
    blocking(deadline(), look).unwrap_or_else(|now| panic!("`{id}` is {now}, not {status}"));
}

#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert_ne!(ran.code, 0, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is not in {ran:?}");
    }
}

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let bundle = Bundle::new();
    let pid_file = bundle.scratch().join("pid");
    let create =
        ["create", "-b", &bundle.path(), "--pid-file", &pid_file.display().to_string(), "one"];
    let _said = bundle.oci(&create).good();
    let state = bundle.state("one");
    assert_eq!((&state["id"], &state["status"]), (&json!("one"), &json!("created")));
    assert_eq!(state["bundle"], bundle.path());
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    refused(&bundle.create("one"), &["container with given ID already exists", "hint:"]);
    let _said = bundle.oci(&["start", "one"]).good();
    assert_eq!(bundle.status("one"), "running");
    // The exec went through before start came back.
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, ["sleep", "100000", ""].join("\0"));
    refused(&bundle.oci(&["start", "one"]), &["cannot start", "running"]);
    refused(&bundle.oci(&["delete", "one"]), &["cannot delete", "running", "--force"]);
    let _said = bundle.oci(&["kill", "one", "KILL"]).good();
    until(&bundle, "one", "stopped");
    assert_eq!(bundle.state("one")["pid"], 0);
    refused(&bundle.oci(&["kill", "one"]), &["container not running"]);
    let _said = bundle.oci(&["delete", "one"]).good();
    refused(&bundle.oci(&["state", "one"]), &["container does not exist"]);
    let _said = bundle.oci(&["delete", "--force", "one"]).good();
    // One that was not started ends by the signals that end others.
    let _said = bundle.create("two").good();
    let _said = bundle.oci(&["kill", "two"]).good();
    until(&bundle, "two", "stopped");
    let _said = bundle.oci(&["delete", "two"]).good();
    assert_eq!(bundle.left(), Vec::<String>::new());
}

#[test]
fn run_gives_output_and_code_and_leaves_nothing() {
    let bundle = Bundle::shell("echo out; echo err >&2; exit 7");
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(bundle.left(), Vec::<String>::new());
    // The first process of a pid namespace cannot kill itself: its child does.
    bundle.change(|config| {
        config["process"]["args"] = json!(["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    });
    assert_eq!(bundle.oci(&["run", "-b", &bundle.path(), "two"]).code, 137);
}

#[test]
fn an_exec_is_what_its_command_line_or_its_document_says() {
    let bundle = Bundle::new();
    bundle.up("one");
    let exec = |options: &[&str], command: &[&str]| {
        bundle.oci(&[&["exec"], options, &["one"], command].concat())
    };
    let script = "echo $A $HOME; pwd; id -u; id -g; grep CapEff /proc/self/status; exit 9";
    let options =
        ["--env", "A=b", "--cwd", "/tmp", "-u", "1000:7", "-c", "CAP_NET_RAW", "--no-new-privs"];
    let ran = exec(&options, &["sh", "-c", script]);
    assert_eq!(ran.code, 9, "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[..4], ["b /home/app", "/tmp", "1000", "7"], "{ran:?}");
    let document = bundle.scratch().join("process.json");
    let process = json!({
        "args": ["sh", "-c", "echo from $WHERE; cat /proc/self/oom_score_adj"],
        "env": ["PATH=/bin", "WHERE=document"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "oomScoreAdj": 500,
    });
    fs::write(&document, process.to_string()).unwrap();
    let ran = bundle.oci(&["exec", "--process", &document.display().to_string(), "one"]);
    assert_eq!(ran.stdout, "from document\n500\n", "{ran:?}");
    let pid_file = bundle.scratch().join("pid");
    let detached = ["--detach", "--pid-file", &pid_file.display().to_string()];
    let _said = exec(&detached, &["sleep", "4242"]).good();
    let pid = fs::read_to_string(&pid_file).unwrap();
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, ["sleep", "4242", ""].join("\0"));
    let pids: Vec<u32> =
        serde_json::from_str(&bundle.oci(&["ps", "-f", "json", "one"]).good()).unwrap();
    assert!(pids.contains(&pid.parse().unwrap()), "{pids:?}");
    let ran = exec(&[], &["no-such-program"]);
    assert_eq!(ran.code, 255, "{ran:?}");
    refused(&ran, &["exec failed", "executable file not found in $PATH"]);
    refused(&exec(&["--user", "root"], &["id"]), &["`root`", "in numbers"]);
}

#[test]
fn signals_reach_the_first_process_or_all_of_them() {
    let script = "trap 'echo got >> /t/log' USR1; echo up >> /t/log; while :; do sleep 0.05; done";
    let bundle = Bundle::shell(script);
    let log = bundle.scratch().join("log");
    bind_scratch(&bundle);
    bundle.up("one");
    let has = |word: &str| {
        let look = || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains(word) { Ok(()) } else { Err(text) }
        };
        blocking(deadline(), look).unwrap_or_else(|log| panic!("no `{word}` in {log}"));
    };
    has("up");
    let _said = bundle.oci(&["kill", "one", "SIGUSR1"]).good();
    has("got");
    refused(&bundle.oci(&["kill", "one", "WRONG"]), &["`WRONG`", "signal"]);
    let _said = bundle.oci(&["kill", "--all", "one", "9"]).good();
    until(&bundle, "one", "stopped");
}

fn bind_scratch(bundle: &Bundle) {
    let source = bundle.scratch().display().to_string();
    bundle.change(|config| {
        let mount =
            json!({"destination": "/t", "type": "bind", "source": source, "options": ["rbind"]});
        config["mounts"].as_array_mut().or_fail("find the mounts").push(mount);
    });
}

fn shell_words(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

#[test]
fn features_and_list_are_documents() {
    let bundle = Bundle::new();
    let features: Value = serde_json::from_str(&bundle.oci(&["features"]).good()).unwrap();
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let _said = bundle.create("one").good();
    let list: Value = serde_json::from_str(&bundle.oci(&["list", "-f", "json"]).good()).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!("one"), &json!("created")));
    assert_eq!(bundle.oci(&["list", "-q"]).good(), "one\n");
    let version = finish(runtime().arg("--version"));
    assert!(version.stdout.contains("spec: 1."), "{version:?}");
}

#[test]
fn a_container_cannot_write_to_the_runtime() {
    // Its program is a script whose interpreter is the runtime itself, which then runs inside.
    let bundle = Bundle::new();
    let script = "#!/proc/self/exe --version\n";
    let path = format!("{}/rootfs/bin/trap", bundle.path());
    fs::write(&path, script).unwrap();
    let _said = shell::run("chmod", ["755", &path]).good();
    bundle.up("one");
    let ran = bundle.oci(&["exec", "one", "/bin/trap"]);
    // It may run: what matters is the file that it runs from.
    assert!(ran.stdout.contains("hull-oci") || ran.code != 0, "{ran:?}");
    let _said = bundle.oci(&["delete", "--force", "one"]).good();
    let _said = bundle.create("two").good();
    let pid = bundle.state("two")["pid"].to_string();
    let opened = File::options().write(true).open(format!("/proc/{pid}/exe"));
    let errno = opened.map(drop).map_err(|err| err.raw_os_error());
    assert!(
        matches!(errno, Err(Some(30 | 26 | 1))),
        "the program that waits inside can be opened for writing: {errno:?}"
    );
}
