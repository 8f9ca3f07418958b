// SPDX-License-Identifier: Apache-2.0
//! Errors with more than one cause: the same errno of another resource, the same exit by a request.

use super::*;
use crate::diagnostics::ends::facts::PidsLimit;

#[test]
fn a_signal_that_a_client_had_sent_is_not_somebody_elses() {
    let after = |how: &ExitReason, signal_requested, details: &ExitDetails| {
        let of = Circumstances {
            details,
            memory_limit: 0,
            args: &[],
            waited_s: None,
            stop_signal: 15,
            signal_requested,
        };
        let found = diagnose(how, &of, None, Some(&facts(&["sleep", "60"])));
        found.map_or(String::new(), |of| of.to_string())
    };
    let ended = |how: &ExitReason, signal: Option<i32>| {
        after(how, signal.map(|signal| (signal, Certainty::Certain)), &ExitDetails::default())
    };
    let signal = |signal| ExitReason::Signal { signal, details: ExitDetails::default() };
    let code = |code| ExitReason::Code { code, details: ExitDetails::default() };
    for text in [ended(&signal(9), Some(9)), ended(&code(143), Some(15))] {
        contains(&text, &["a client of Hull sent SIG", "`hull kill`", "not a failure"]);
        assert!(!text.contains("likely") && !text.contains("on the node"), "{text}");
    }
    contains(&ended(&signal(9), Some(1)), &["likely: a process in the pod or on the node"]);
    contains(&ended(&signal(11), Some(9)), &["SIGSEGV", "likely: "]);
    assert_eq!(ended(&code(1), Some(15)), "");
    let long_ago = Some((15, Certainty::Likely));
    for how in [signal(15), code(143)] {
        let text = after(&how, long_ago, &ExitDetails::default());
        contains(&text, &["likely: a client of Hull sent SIGTERM", "on the node"]);
        assert!(!text.contains("not a failure"), "{text}");
        // What the kernel saw is certain, and is said before.
        let denials = vec!["seccomp denied system call mount".to_owned()];
        let denied = ExitDetails { denials: denials.into(), ..ExitDetails::default() };
        for certainty in [Certainty::Certain, Certainty::Likely] {
            let text = after(&how, Some((15, certainty)), &denied);
            contains(&text, &["seccomp denied system call mount", "allow `mount`"]);
            assert!(!text.contains("client of Hull"), "{text}");
        }
    }
}

#[test]
fn a_limit_of_another_resource_is_no_full_disk_and_no_heap() {
    let app = facts(&["app"]);
    for (line, wanted) in [
        ("inotify_add_watch: No space left on device", "fs.inotify.max_user_watches"),
        ("tail: inotify_init: Too many open files", "fs.inotify.max_user_watches"),
        ("failed to create fsnotify watcher: too many open files", "fs.inotify"),
        ("Failed to add watch on /etc: No space left on device", "fs.inotify"),
        ("Error: ENOSPC: no space left on device, watch '/app'", "fs.inotify"),
        ("FATAL:  could not create semaphores: No space left on device", "kernel.sem"),
        ("shmget: No space left on device", "kernel.shmmni"),
        ("epoll_ctl: No space left on device", "fs.epoll"),
        ("unshare: unshare failed: No space left on device", "user.max_user_namespaces"),
        ("mount: /mnt: No space left on device", "fs.mount-max"),
        ("mkdir /sys/fs/cgroup/x: no space left on device", "cgroup.max.descendants"),
        ("join session keyring: disk quota exceeded", "kernel.keys.maxkeys"),
        ("open /x: too many open files in system", "fs.file-max"),
        ("mlockall: Cannot allocate memory", "RLIMIT_MEMLOCK"),
        ("open /dev/tty: No such device or address", "tty: true"),
        ("SIOCGIFINDEX eth1: No such device", "network interface"),
        ("mount: mounting x on /mnt failed: No such device", "file system of this type"),
        ("dial tcp 10.0.0.1:80: connect: cannot assign requested address", "no local port"),
        ("listen unix /run/app.sock: bind: address already in use", "file of the socket"),
        ("dial unix /run/app.sock: connect: connection refused", "at the socket"),
        (
            "/x: error while loading shared libraries: libx.so: failed to map segment from shared object",
            "noexec",
        ),
        (
            "/x: error while loading shared libraries: libx.so: wrong ELF class: ELFCLASS32",
            "architecture",
        ),
    ] {
        let text = failed(line, &app);
        contains(&text, &["likely: ", wanted]);
        assert!(!text.contains("disk for containers") && !text.contains("-Xmx"), "{line}: {text}");
    }
    for (line, wanted) in [
        ("write /var/log/watcher.log: no space left on device", "is full"),
        ("watch: write error: No space left on device", "is full"),
        ("open /x: too many open files", "RLIMIT_NOFILE"),
        ("app: Cannot allocate memory", "-Xmx"),
        ("open /dev/nvidia0: no such device", "device"),
    ] {
        contains(&failed(line, &app), &[wanted]);
    }
    for line in [
        "shutdown: Transport endpoint is not connected",
        "pthread_create failed: Operation not permitted",
    ] {
        let text = failed(line, &app);
        assert!(!text.contains("likely"), "{line}: {text}");
    }
}

#[test]
fn what_cannot_be_executed_in_a_volume_is_not_a_matter_of_its_group() {
    let script = |mode, is_directory, uid| {
        let mut of = with_volume(facts(&["sh", "-c", "/data/run"]), "/data", false);
        if uid != 0 {
            of = as_user(of, uid);
        }
        let file = Owner { mode, is_directory, ..directory(0) };
        of.walked = Some(Walked {
            path: "/data/run".into(),
            parts: vec![("/data".into(), directory(0o755)), ("/data/run".into(), file)],
            complete: true,
        });
        of.executes = true;
        let text = failed("sh: /data/run: Permission denied", &of);
        assert!(!text.contains("fsGroup"), "{text}");
        text
    };
    for uid in [0, 1000] {
        contains(&script(0o644, false, uid), &["may not execute", "chmod +x", "defaultMode"]);
        contains(&script(0o755, true, uid), &["it is a directory", "program inside it"]);
    }
    contains(&script(0o700, false, 1000), &["may not execute", "chmod o+rx"]);
}

#[test]
fn a_code_that_the_script_itself_has_is_not_explained() {
    for code in [126, 127, 137, 139] {
        let how = ExitReason::Code { code, details: ExitDetails::default() };
        let own = facts(&["sh", "-c", &format!("true; exit {code}; false")]);
        assert_eq!(ended(&how, "", Some(&own), |_| {}), None, "{code}");
        let other = ended(&how, "", Some(&facts(&["sh", "-c", "run; exit 1"])), |_| {});
        assert_eq!(other.unwrap().certainty, Certainty::Likely, "{code}");
    }
}

/// A profile that refuses these calls with this errno.
fn refusing(calls: &[&str], errno: u32) -> String {
    let rule = json!({"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": errno});
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}).to_string()
}

#[test]
fn a_fork_that_the_profile_refuses_is_not_a_limit() {
    const NAME: &str = "Localhost profile `x.json`";
    let shell = || facts(&["sh", "-c", "true | true"]);
    let by = |calls: &[&str], errno| under(shell(), &refusing(calls, errno), NAME);
    let eperm = "sh: can't fork: Operation not permitted";
    let eagain = "sh: can't fork: Resource temporarily unavailable";
    for (line, calls, errno, wanted) in [
        (eperm, &["clone", "clone3", "fork", "vfork"][..], 1, "refuses clone, clone3, fork, vfork"),
        (eperm, &["fork"], 1, "refuses fork, by which"),
        (eagain, &["clone"], 11, "refuses clone, by which"),
        ("pthread_create failed", &["clone3"], 1, "refuses clone3, by which"),
        ("bash: fork: Operation not permitted", &["clone"], 1, "refuses clone, by which"),
    ] {
        let text = failed(line, &by(calls, errno));
        contains(&text, &["likely: its seccomp profile (Localhost", wanted, "in the profile"]);
        assert!(!text.contains("limit"), "{text}");
    }
    // Libraries take another call for one that the kernel does not have, and EPERM is of no limit.
    for facts in [by(&["clone3"], 38), by(&["mkdir"], 1), shell()] {
        let text = failed(eperm, &facts);
        assert!(!text.contains("seccomp") && !text.contains("limit"), "{text}");
    }
}

#[test]
fn a_limit_of_processes_is_the_pods_only_if_the_kernel_counted_a_refusal() {
    let line = "sh: can't fork: Resource temporarily unavailable";
    let with = |pids| Facts { pids, ..facts(&["sh", "-c", "true | true"]) };
    let text = failed(line, &with(Some(PidsLimit { limit: Some(20), refused: 3 })));
    contains(&text, &["the pod's pids limit (20)", "refused 3 new", "podPidsLimit"]);
    contains(&text, &["`--pids-limit`"]);
    let limited = |pids, nproc: u64| {
        let oci = json!({
            "cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0},
            "rlimits": [{"type": "RLIMIT_NPROC", "soft": nproc, "hard": nproc}],
        });
        let spec = ::oci_spec::runtime::Spec::default();
        let host = hull_plan::HostFacts::default();
        let process = hull_plan::process(&serde_json::from_value(oci).unwrap(), &spec, &host);
        let mut facts = with(pids);
        facts.process.rlimits = process.unwrap().rlimits;
        facts
    };
    let unreached = Some(PidsLimit { limit: None, refused: 0 });
    let text = failed(line, &limited(unreached, 7));
    contains(&text, &["RLIMIT_NPROC (7)", "refused nothing", "`nproc`"]);
    assert!(!text.contains("podPidsLimit"), "{text}");
    // An unlimited one is never reached.
    for (pids, wanted) in [
        (unreached, "a limit of the node or of a cgroup above the pod is reached"),
        (None, "pids limit or a limit of the node"),
    ] {
        let text = failed(line, &limited(pids, u64::MAX));
        contains(&text, &[wanted]);
        assert!(!text.contains("RLIMIT") && !text.contains("nproc"), "{text}");
    }
    contains(&failed(line, &with(None)), &["pids limit or RLIMIT_NPROC", "podPidsLimit"]);
}

#[test]
fn calls_for_the_start_of_a_program_are_named_together() {
    let profile = refusing(&["openat", "open", "mmap", "rseq", "getrandom", "clone3"], 1);
    let under = |program| under(facts(&[program]), &profile, "Localhost profile `x.json`");
    let code = |code| ExitReason::Code { code, details: ExitDetails::default() };
    let message = |how: &ExitReason, facts: &Facts, line: &str| {
        ended(how, line, Some(facts), |_| {}).map_or(String::new(), |of| of.to_string())
    };
    let wanted = ["likely: ", "refuses mmap, openat, open, which the C library", "also rseq"];
    let loader = "/app: error while loading shared libraries: libc.so.6: cannot open shared object \
                  file: Operation not permitted";
    for (how, line) in
        [(code(1), ""), (code(127), loader), (code(2), "app: operation not permitted")]
    {
        let text = message(&how, &under("/app"), line);
        contains(&text, &wanted);
        assert!(!text.contains("not in the image"), "{text}");
    }
    let signal = ExitReason::Signal { signal: 11, details: ExitDetails::default() };
    contains(&message(&signal, &under("/app"), ""), &wanted);
    // What ran for a while had started.
    let long = Facts { lived_ms: Some(60_000), ..under("/app") };
    assert_eq!(message(&code(1), &long, ""), "");
    let kills = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        {"names": ["execve", "exit_group", "read", "write"], "action": "SCMP_ACT_ALLOW"}]}"#;
    let kills = super::under(facts(&["/app"]), kills, "Localhost profile `k.json`");
    let killed = ExitReason::Signal { signal: 31, details: ExitDetails::default() };
    contains(&message(&killed, &kills, ""), &["likely: ", "one of", "brk, mmap", "type=1326"]);
    let long = Facts { lived_ms: Some(60_000), ..kills };
    assert!(!message(&killed, &long, "").contains("one of"));
}
