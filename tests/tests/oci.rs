// SPDX-License-Identifier: Apache-2.0
//! `hull oci` as containerd's shim, podman and people use it: real bundles, runc's command line.

use hull_tests::bundle::{Bundle, runtime};
use hull_tests::eventually::{blocking, deadline};
use hull_tests::must::Must as _;
use hull_tests::shell::{self, Ran, finish};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

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

/// The master of a terminal, as it comes over the console socket.
fn terminal(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().must("accept on the console socket");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut name = [IoSliceMut::new(&mut name)];
    let _got =
        recvmsg(&stream, &mut name, &mut rights, RecvFlags::CMSG_CLOEXEC).must("take a terminal");
    let brought = rights.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut fds) = message else { return None };
        fds.next()
    });
    brought.must("find a terminal in the message").into()
}

/// What a terminal says until nobody holds its other side.
fn all_of(mut terminal: File) -> String {
    let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(got) = terminal.read(&mut chunk)
        && got > 0
    {
        said.extend_from_slice(&chunk[..got]);
    }
    String::from_utf8_lossy(&said).replace("\r\n", "\n")
}

#[test]
fn a_terminal_is_handed_over_by_the_console_socket() {
    let bundle = Bundle::shell("test -t 0 && test -c /dev/console && stty size");
    bundle.change(|config| {
        config["process"]["terminal"] = true.into();
        config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    });
    let path = bundle.scratch().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    refused(&bundle.create("one"), &["--console-socket"]);
    let path = path.display().to_string();
    let _said =
        bundle.oci(&["create", "-b", &bundle.path(), "--console-socket", &path, "one"]).good();
    let master = terminal(&listener);
    let _said = bundle.oci(&["start", "one"]).good();
    assert_eq!(all_of(master), "33 99\n");
    until(&bundle, "one", "stopped");
    let _said = bundle.oci(&["delete", "one"]).good();
    bundle.change(|config| {
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sleep", "100000"]);
    });
    bundle.up("two");
    let exec =
        ["exec", "-t", "-d", "--console-socket", &path, "two", "sh", "-c", "test -t 1 && echo yes"];
    let _said = bundle.oci(&exec).good();
    assert_eq!(all_of(terminal(&listener)), "yes\n");
    // Without a socket the runtime stays and relays.
    let ran = bundle.oci(&["exec", "-t", "two", "sh", "-c", "test -t 1 && echo yes; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "yes\r\n"), "{ran:?}");
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
        config["mounts"].as_array_mut().must("find the mounts").push(mount);
    });
}

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
fn hooks_run_in_their_order_and_are_told_the_state() {
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
        let named = format!("{kind} hook `/bin/sh`");
        refused(&bundle.create("one"), &[&named, "exit code 3", "no luck"]);
        assert_eq!(bundle.left(), Vec::<String>::new(), "after {kind}");
    }
    for kind in ["startContainer", "poststart"] {
        bundle.change(|config| config["hooks"] = json!({kind: hook("exit 4")}));
        let _said = bundle.create("one").good();
        let named = format!("{kind} hook `/bin/sh`");
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

fn shell_words(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
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
        // Without a network namespace of the same owner sysfs may be mounted; cgroups likewise.
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
fn what_is_wrong_is_named_with_its_mend_and_takes_no_id() {
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
            |c| c["process"]["capabilities"]["bounding"] = json!(["CAP_FLY"]),
            &["config.json", "CAP_FLY"],
        ),
        (|c| c["linux"]["intelRdt"] = json!({}), &["linux.intelRdt", "hint:"]),
        (
            |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            &["SCMP_ACT_NOTIFY"],
        ),
        (
            |c| {
                c["linux"]["seccomp"] =
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"});
            },
            &["listenerPath"],
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
    refused(&bundle.oci(&["--systemd-cgroup", "create", "one"]), &["--systemd-cgroup", "cgroupfs"]);
    refused(&bundle.oci(&["start", "none"]), &["container does not exist", "--root"]);
    let log = bundle.scratch().join("log").display().to_string();
    let words = ["--log", &log, "--log-format", "json", "start", "none"];
    let _refused = bundle.oci(&words);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("container does not exist"), "{line}");
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
    // That it runs is no harm: what it is run from is what counts.
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
