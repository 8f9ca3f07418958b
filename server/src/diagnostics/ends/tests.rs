// SPDX-License-Identifier: Apache-2.0
//! Tables of ends: how it ended and what was printed, and the message that comes of it.

use super::facts::{Full, Listener, Volume};
use super::*;
use crate::diagnostics::paths::Walked;
use crate::diagnostics::rights::Owner;
use hull_plan::{Process, seccomp};
use serde_json::json;

mod resources;

const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

/// The facts of a container that runs `args` as root with the default capabilities.
pub(super) fn facts(args: &[&str]) -> Facts {
    let oci = json!({"cwd": "/", "args": args, "user": {"uid": 0, "gid": 0}});
    let spec = ::oci_spec::runtime::Spec::default();
    let host = hull_plan::HostFacts::default();
    let mut process =
        hull_plan::process(&serde_json::from_value(oci).unwrap(), &spec, &host).unwrap();
    process.seccomp = None;
    (process.capabilities.effective, process.capabilities.bounding) =
        (DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES);
    Facts {
        process,
        root_read_only: false,
        profile: "Unconfined".into(),
        mapped_ids: None,
        host_network: false,
        first_free_port: 0,
        dns: vec!["10.96.0.10".into()],
        volumes: Vec::new(),
        walked: None,
        listeners: Vec::new(),
        layer_full: None,
        shm_full: None,
        program_is_setuid: false,
        program_fault: None,
        executes: false,
        lived_ms: Some(50),
        pids: None,
    }
}

pub(super) fn as_user(facts: Facts, uid: u32) -> Facts {
    let mut capabilities = facts.process.capabilities;
    capabilities.effective = 0;
    Facts { process: Process { uid, gid: uid, capabilities, ..facts.process }, ..facts }
}

pub(super) fn without_capabilities(mut facts: Facts) -> Facts {
    (facts.process.capabilities.effective, facts.process.capabilities.bounding) = (0, 0);
    facts
}

pub(super) fn under(mut facts: Facts, profile: &str, name: &str) -> Facts {
    let profile = match profile {
        "" => (*seccomp::runtime_default(None).unwrap()).clone(),
        json => seccomp::localhost(json.as_bytes()).unwrap(),
    };
    facts.process.seccomp = Some(seccomp::compiled(&profile).unwrap());
    facts.profile = name.into();
    facts
}

pub(super) fn with_volume(mut facts: Facts, target: &str, read_only: bool) -> Facts {
    let volume = Volume { target: target.into(), source: "/v".into(), read_only, full: None };
    facts.volumes.push(volume);
    facts
}

pub(super) fn directory(mode: u32) -> Owner {
    Owner { uid: 0, gid: 0, mode, is_directory: true }
}

pub(super) fn ended(
    how: &ExitReason,
    line: &str,
    facts: Option<&Facts>,
    change: impl FnOnce(&mut ExitDetails),
) -> Option<Diagnosis> {
    let mut details = ExitDetails::default();
    change(&mut details);
    let args = facts.map(|facts| facts.process.args.clone()).unwrap_or_default();
    let waited_s = details.stop_requested.then_some(3);
    let of = Circumstances {
        details: &details,
        memory_limit: 0,
        args: &args,
        waited_s,
        stop_signal: 15,
        signal_requested: None,
    };
    diagnose(how, &of, Clue::of(line).as_ref(), facts)
}

/// The message of a container that printed `line` and failed.
fn failed(line: &str, facts: &Facts) -> String {
    let how = ExitReason::Code { code: 1, details: ExitDetails::default() };
    let text = ended(&how, line, Some(facts), |_| {}).map_or(String::new(), |of| of.to_string());
    assert!(line.len() < 20 || !text.contains(line), "the output is in the message: {text}");
    text
}

fn contains(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
}

#[test]
fn missing_rights_are_named_with_their_capability() {
    let chown = without_capabilities(facts(&["chown", "1000", "/tmp"]));
    contains(
        &failed("chown: /tmp: Operation not permitted", &chown),
        &["likely: ", "CAP_CHOWN (dropped)", "add CHOWN"],
    );
    let ping = without_capabilities(facts(&["ping", "-c1", "127.0.0.1"]));
    contains(
        &failed("ping: permission denied (are you root?)", &ping),
        &["CAP_NET_RAW", "ping_group_range"],
    );
    let nginx = as_user(facts(&["nginx"]), 101);
    contains(
        &failed("setgid(101) failed (1: Operation not permitted)", &nginx),
        &["CAP_SETGID", "uid 101"],
    );
    let ip = facts(&["sh", "-c", "ip link set eth0 mtu 1400"]);
    let text = failed("ip: RTNETLINK answers: Operation not permitted", &ip);
    contains(&text, &["CAP_NET_ADMIN", "do not have by default", "(ip)"]);
    assert!(!text.contains("dropped") && !text.contains("iptables"), "{text}");
    let unknown = without_capabilities(facts(&["/app"]));
    contains(
        &failed("app: operation not permitted", &unknown),
        &["has no capabilities", "capabilities.add"],
    );
}

#[test]
fn a_filter_is_named_with_the_call_that_it_refuses() {
    let unshare = under(facts(&["sh", "-c", "unshare -U true"]), "", "RuntimeDefault");
    let text = failed("unshare: unshare(0x10000000): Operation not permitted", &unshare);
    contains(
        &text,
        &[
            "likely: its seccomp profile (RuntimeDefault) refuses system call `unshare`",
            "Localhost profile",
        ],
    );
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["arch_prctl", "brk"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let libc = under(facts(&["sleep", "1"]), profile, "Localhost profile `x.json`");
    let how = ExitReason::Code { code: 127, details: ExitDetails::default() };
    let text = ended(&how, "", Some(&libc), |_| {}).unwrap().to_string();
    contains(
        &text,
        &["Localhost profile `x.json`", "refuses arch_prctl, brk", "(hint: allow arch_prctl, brk"],
    );
    let long = Facts { lived_ms: Some(60_000), ..libc };
    let text = ended(&how, "", Some(&long), |_| {}).unwrap().to_string();
    assert!(!text.contains("seccomp"), "it had started: {text}");
}

#[test]
fn setuid_programs_and_user_namespaces() {
    let mut su = as_user(facts(&["/opt/su", "root", "-c", "id"]), 1000);
    su.process.no_new_privs = true;
    contains(
        &failed("su: must be suid to work properly", &su),
        &["no_new_privs", "allowPrivilegeEscalation: true"],
    );
    let mapped = Facts { mapped_ids: Some(65_536), ..facts(&["chown", "100000", "/tmp"]) };
    let text = failed("chown: /tmp: Invalid argument", &mapped);
    contains(&text, &["id 100000 is not mapped", "0-65535", "below 65536"]);
    let inside = Facts { mapped_ids: Some(65_536), ..facts(&["chown", "5", "/tmp"]) };
    contains(
        &failed("chown: /tmp: Invalid argument", &inside),
        &["exited with code 1: invalid argument", "log"],
    );
}

#[test]
fn files_that_the_user_may_not_use() {
    let base = as_user(facts(&["sh", "-c", "echo x > /data/f"]), 1000);
    let mut volume = with_volume(base.clone(), "/data", false);
    volume.walked = Some(Walked {
        path: "/data/f".into(),
        parts: vec![("/data".into(), directory(0o755))],
        complete: false,
    });
    let text = failed("sh: can't create /data/f: Permission denied", &volume);
    contains(&text, &["uid 1000 may not write to `/data` (owner 0:0, mode 0755)", "fsGroup"]);
    let unnamed = with_volume(base, "/data", false);
    let text = failed("permission denied", &unnamed);
    assert!(!text.contains("likely") && !text.contains("/data"), "nothing says what: {text}");
    let mut key = as_user(facts(&["cat", "/srv/key"]), 1000);
    let file = Owner { mode: 0o600, is_directory: false, ..directory(0) };
    let walked = |path: &str| Walked {
        path: path.into(),
        parts: vec![("/srv".into(), directory(0o755)), (path.into(), file)],
        complete: true,
    };
    key.walked = Some(walked("/srv/key"));
    let text = failed("cat: can't open '/srv/key': Permission denied", &key);
    contains(&text, &["uid 1000 may not read `/srv/key` (owner 0:0, mode 0600)", "in the image"]);
    assert!(!text.contains("runAsUser"), "never to become root: {text}");
    let mut secret = as_user(facts(&["app"]), 1000);
    secret.walked = Some(walked("/srv/secret-name"));
    let text = failed("open /srv/secret-name: permission denied", &secret);
    assert!(text.contains("a file of the image") && !text.contains("secret"), "{text}");
}

#[test]
fn commands_and_devices_that_are_there() {
    let mut script = facts(&["sh", "-c", "/opt/run"]);
    let file = Owner { mode: 0o644, is_directory: false, ..directory(0) };
    script.walked = Some(Walked {
        path: "/opt/run".into(),
        parts: vec![("/opt/run".into(), file)],
        complete: true,
    });
    script.executes = true;
    contains(
        &failed("sh: /opt/run: Permission denied", &script),
        &["may not execute `/opt/run`", "chmod +x"],
    );
    let what =
        "`/opt/run` is there, but its interpreter `/bin/bash` is not in the image".to_owned();
    let found =
        hull_plan::elf::Found { what, hint: Some("install it".into()), evidence: Vec::new() };
    let fault = Facts { program_fault: Some(found), ..facts(&["sh", "-c", "/opt/run"]) };
    contains(
        &failed("sh: /opt/run: not found", &fault),
        &["interpreter `/bin/bash` is not in the image"],
    );
    let device = facts(&["app"]);
    contains(
        &failed("open /dev/sda: operation not permitted", &device),
        &["device", "device plugin"],
    );
    contains(
        &failed("sysctl: error setting key 'vm.x': Read-only file system", &device),
        &["/proc/sys"],
    );
}

#[test]
fn read_only_and_full_file_systems() {
    let root = Facts { root_read_only: true, ..facts(&["sh", "-c", "touch /x"]) };
    contains(
        &failed("touch: /x: Read-only file system", &root),
        &["readOnlyRootFilesystem", "emptyDir"],
    );
    let volume = with_volume(facts(&["app"]), "/data", true);
    contains(
        &failed("touch: /data/x: Read-only file system", &volume),
        &["volume `/data` is mounted read-only"],
    );
    let mut full = with_volume(facts(&["app"]), "/data", false);
    full.volumes[0].full = Some(Full::Inodes);
    contains(
        &failed("write /data/x: no space left on device", &full),
        &["no inode left", "inodes"],
    );
    let disk = Facts { layer_full: Some(Full::Space), ..facts(&["app"]) };
    contains(&failed("write: No space left on device", &disk), &["full", "free space on the node"]);
    let shm = Facts { shm_full: Some(64 << 20), ..facts(&["app"]) };
    contains(
        &failed("write: No space left on device", &shm),
        &["/dev/shm (64 MiB) is full", "medium: Memory"],
    );
}

#[test]
fn ports_and_peers() {
    let httpd = as_user(facts(&["httpd", "-f", "-p", "80"]), 1000);
    let low = Facts { first_free_port: 1024, ..httpd.clone() };
    contains(
        &failed("httpd: bind: Permission denied", &low),
        &["may not bind port 80", "NET_BIND_SERVICE", "above 1024"],
    );
    let listeners = vec![Listener { port: 18481, holder: Some("process python3 (pid 7)".into()) }];
    let taken = Facts { host_network: true, listeners, ..facts(&["httpd", "-f", "-p", "18481"]) };
    let text = failed("httpd: bind: Address already in use", &taken);
    contains(
        &text,
        &["port 18481 is in use on the node already, by process python3 (pid 7)", "another port"],
    );
    contains(&failed("httpd: bind: Address in use", &httpd), &["port 80 was in use in the pod"]);
    contains(&failed("wget: bad address 'db'", &httpd), &["DNS", "10.96.0.10"]);
    contains(
        &failed("dial tcp 10.0.0.1:5432: connect: connection refused", &httpd),
        &["nothing listens"],
    );
}

#[test]
fn commands_and_libraries() {
    let curl = facts(&["sh", "-c", "curl -s http://example.invalid/"]);
    contains(&failed("sh: curl: not found", &curl), &["`curl` is not in the image", "install it"]);
    let hidden = failed("sh: hidden-tool: not found", &curl);
    assert!(hidden.contains("a command that it runs") && !hidden.contains("hidden"), "{hidden}");
    let run = facts(&["/opt/run"]);
    let line = "/opt/run: error while loading shared libraries: libc.so.6: cannot open shared object file: No such file";
    contains(
        &failed(line, &run),
        &["shared library `libc.so.6`", "/opt/run", "install the library"],
    );
    let line = "/opt/run: /lib/libc.so.6: version `GLIBC_2.34' not found (required by /opt/run)";
    contains(&failed(line, &run), &["newer C library", "base image"]);
}

#[test]
fn the_table_of_ends() {
    let code = |code| ExitReason::Code { code, details: ExitDetails::default() };
    let signal = |signal| ExitReason::Signal { signal, details: ExitDetails::default() };
    let run = facts(&["/opt/run"]);
    let text = |how: &ExitReason, change: fn(&mut ExitDetails)| {
        ended(how, "", Some(&run), change).map_or(String::new(), |of| of.to_string())
    };
    contains(
        &text(&signal(11), |_| {}),
        &["killed by signal 11 (SIGSEGV); likely: ", "/opt/run", "core dump"],
    );
    contains(&text(&signal(9), |_| {}), &["SIGKILL", "no out-of-memory kill was counted"]);
    contains(&text(&signal(4), |_| {}), &["SIGILL", "x86-64-v2"]);
    for (command, ran) in
        [("/opt/run", false), ("sh", true), ("/bin/bash", true), ("tini", true), ("/run.sh", true)]
    {
        for (code, wanted) in
            [(139, "SIGSEGV"), (137, "unless it chose this code itself"), (126, "chmod +x")]
        {
            let message = ended(
                &ExitReason::Code { code, details: ExitDetails::default() },
                "",
                Some(&facts(&[command])),
                |_| {},
            );
            let message = message.map_or(String::new(), |of| of.to_string());
            assert_eq!(message.contains(wanted), ran, "{command} {code}: {message}");
        }
    }
    assert_eq!(text(&code(1), |_| {}), "", "an ordinary failure");
    assert_eq!(text(&code(143), |_| {}), "", "nobody asked for it");
    let asked = |details: &mut ExitDetails| details.stop_requested = true;
    contains(&text(&code(143), asked), &["asked to stop", "128 + SIGTERM", "not a failure"]);
    contains(
        &text(&signal(9), asked),
        &["did not end within 3 s of SIGTERM", "terminationGracePeriodSeconds"],
    );
    assert_eq!(text(&signal(15), asked), "", "as it was asked to");
    let shm = Facts { shm_full: Some(64 << 20), ..run.clone() };
    let bus = ended(&signal(7), "", Some(&shm), |_| {}).unwrap();
    assert_eq!((bus.kind.as_str(), bus.certainty), ("shm-full", Certainty::Likely));
    let denied = ended(&signal(31), "", Some(&run), |details| {
        details.denials = ["its seccomp profile kills for system call mkdir".into()].into();
    });
    contains(
        &denied.unwrap().to_string(),
        &["killed by signal 31 (SIGSYS); its seccomp", "allow `mkdir`"],
    );
    let refused = ended(&code(2), "", Some(&run), |details| details.pids_refused = 5).unwrap();
    contains(&refused.to_string(), &["refused 5 new processes", "podPidsLimit"]);
    for args in
        [&["sh", "-c", "sleep 100 & exit 0"][..], &["nginx", "-t"], &["curl", "http://x/?a&b"]]
    {
        assert_eq!(
            ended(&code(0), "permission denied", Some(&facts(args)), |of| of.pids_refused = 1),
            None
        );
    }
}

#[test]
fn an_error_that_was_overcome_has_no_cause_and_hides_no_code() {
    let lines = |stderr: &[&str]| LastLines {
        stderr: stderr.iter().map(|line| (*line).into()).collect(),
        ..LastLines::default()
    };
    let message = |code, lines: &LastLines, facts: &Facts| {
        let details = ExitDetails::default();
        let of = Circumstances {
            details: &details,
            memory_limit: 0,
            args: &[],
            waited_s: None,
            stop_signal: 15,
            signal_requested: None,
        };
        let how = ExitReason::Code { code, details: details.clone() };
        diagnose(&how, &of, clues::find(lines).as_ref(), Some(facts)).unwrap().to_string()
    };
    let old =
        lines(&["dial tcp 10.0.0.1:1: connect: connection refused", "up", "ready", "bad option"]);
    let text = message(1, &old, &facts(&["app"]));
    assert!(
        text.starts_with("exited with code 1; its output mentions: connection refused"),
        "{text}"
    );
    assert!(!text.contains("likely"), "{text}");
    contains(
        &message(139, &old, &facts(&["sh", "-c", "app"])),
        &["output mentions", "likely: ", "SIGSEGV"],
    );
    let last = lines(&["app: permission denied"]);
    contains(&message(139, &last, &facts(&["sh", "-c", "app"])), &["likely: ", "SIGSEGV"]);
}

#[test]
fn words_that_may_come_from_secrets_are_not_shown() {
    let mut of = facts(&[
        "sh",
        "-c",
        "/opt/tool --key=/k/hunter2 -p 1234 --token abcd9 //h/x cat /srv/plain",
    ]);
    of.process.env = vec![
        b"PASS=hunter2".to_vec(),
        b"PIN=1234".to_vec(),
        b"LONG=x abcd9 y".to_vec(),
        b"E=".to_vec(),
    ];
    of.process.cwd = "/work".into();
    for (word, wanted) in [
        ("sh", true),
        ("/work", true),
        ("/opt/tool", true),
        ("/srv/plain", true),
        ("/k/hunter2", false),
        ("hunter2", false),
        ("1234", false),
        ("abcd9", false),
        ("//h/x", false),
        ("/opt", false),
        ("tool", false),
        ("", false),
    ] {
        assert_eq!(of.shows(word), wanted, "{word}");
    }
    assert!(of.ports().is_empty() && !of.shows_id(1234));
}

#[test]
fn nothing_is_inferred_from_other_numbers_and_words() {
    let mapped = Facts { mapped_ids: Some(65_536), ..facts(&["sh", "-c", "sleep 100000"]) };
    for (line, facts) in [
        ("chown: /tmp: Invalid argument", &mapped),
        ("setsockopt: invalid argument", &mapped),
        (
            "app: permission denied",
            &Facts { first_free_port: 1024, ..as_user(facts(&["app", "80"]), 1000) },
        ),
        (
            "bind /run/x.sock: permission denied",
            &Facts { first_free_port: 1024, ..as_user(facts(&["app", "-p", "80"]), 1) },
        ),
        (
            "bind: permission denied",
            &Facts { first_free_port: 1024, ..as_user(facts(&["sleep", "80"]), 1) },
        ),
        (
            "api: permission denied",
            &without_capabilities(facts(&["sh", "-c", "ping x; mount y; api"])),
        ),
    ] {
        let text = failed(line, facts);
        assert!(!text.contains("likely"), "{line}: {text}");
    }
    let other = facts(&["sleep", "80"]);
    contains(&failed("bind: Address already in use", &other), &["the port was in use"]);
}

#[test]
fn output_is_shown_where_it_is_allowed() {
    let how = ExitReason::Code { code: 1, details: ExitDetails::default() };
    let output = LastLines { stderr: vec!["one".into(), "two".into()], ..LastLines::default() };
    let text = with_output(None, &how, &output).unwrap().to_string();
    assert_eq!(text, "exited with code 1; last output: one | two");
    let killed = ExitReason::Signal { signal: 9, details: ExitDetails::default() };
    let text = with_output(None, &killed, &output).unwrap().to_string();
    assert_eq!(text, "killed by signal 9 (SIGKILL); last output: one | two");
    assert_eq!(with_output(None, &how, &LastLines::default()), None);
}

#[test]
fn lines_are_bounded_and_escaped() {
    let output = hull_proto::monitor::LastOutput {
        stdout: (0..100).flat_map(|line| format!("{line}\n").into_bytes()).collect(),
        stderr: [b"a\x1b[31mb\r\n\n".as_slice(), &[b'x'; 2000]].concat(),
    };
    let lines = lines(&output);
    assert_eq!(
        (lines.stdout.len(), lines.stdout.last().map(String::as_str)),
        (LINES_MAX, Some("99"))
    );
    assert_eq!(lines.stderr[0], "a\\u{1b}[31mb");
    assert!(lines.stderr[1].len() <= LINE_BYTES_MAX);
}
