// SPDX-License-Identifier: Apache-2.0
//! The symptoms of docs/troubleshooting.md, each explained by the code that explains it on a node: a line that a
//! program printed in a given container, a signal, an exit code, a limit.

use super::facts::{Facts, Full, Listener, PidsLimit, Volume};
use super::tests::{as_user, directory, ended, facts, under, with_volume, without_capabilities};
use super::{ExitDetails, ExitReason, exits, memory, operations};
use crate::container::state::OutOfMemory;
use crate::diagnostics::paths::Walked;
use crate::diagnostics::rights::Owner;
use crate::diagnostics::{frozen, running};
use hull_plan::Diagnosis;

/// A symptom with its explanation.
#[derive(Debug)]
pub(crate) struct Symptom {
    /// The text that a person sees.
    pub(crate) seen: String,
    /// The container that it was seen in, if that matters.
    pub(crate) when: &'static str,
    pub(crate) diagnosis: Diagnosis,
}

/// The last line of a program's output, the container that it ran in, and that container's facts.
type Printed = (&'static str, &'static str, fn() -> Facts);

fn app() -> Facts {
    facts(&["/app"])
}

fn script() -> Facts {
    facts(&["sh", "-c", "curl -s http://db/; chown 100000 /data; touch /srv/key"])
}

fn user() -> Facts {
    as_user(facts(&["/app"]), 1000)
}

fn walked(mut of: Facts, path: &str, mode: u32) -> Facts {
    let file = Owner { mode, is_directory: false, ..directory(0) };
    of.walked =
        Some(Walked { path: path.into(), parts: vec![(path.into(), file)], complete: true });
    of
}

fn volume(read_only: bool) -> Facts {
    with_volume(user(), "/data", read_only)
}

fn denied_volume() -> Facts {
    let parts = vec![("/data".into(), directory(0o755))];
    let walked = Some(Walked { path: "/data/file".into(), parts, complete: false });
    Facts { walked, ..volume(false) }
}

fn full_volume(of: Full) -> Facts {
    let full = Volume { target: "/data".into(), full: Some(of), ..Volume::default() };
    Facts { volumes: vec![full], ..app() }
}

fn filtered() -> Facts {
    under(facts(&["unshare", "-U", "true"]), "", "RuntimeDefault")
}

fn own_profile() -> Facts {
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone", "clone3", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}]}"#;
    under(script(), profile, "Localhost profile `own.json`")
}

/// Files, programs and rights.
const FILES: &[Printed] = &[
    ("sh: can't create /data/file: Permission denied", "uid 1000, a volume of root", denied_volume),
    ("open /srv/key: permission denied", "uid 1000, a file of root in the image", || {
        walked(as_user(script(), 1000), "/srv/key", 0o600)
    }),
    ("sh: /app: Permission denied", "a file without the x bit", || Facts {
        executes: true,
        ..walked(app(), "/app", 0o644)
    }),
    ("touch: /data/x: Read-only file system", "a volume with `readOnly: true`", || volume(true)),
    ("touch: /srv/x: Read-only file system", "`readOnlyRootFilesystem: true`", || Facts {
        root_read_only: true,
        ..app()
    }),
    ("sysctl: error setting key 'vm.x': Read-only file system", "", app),
    ("open /srv/x: read-only file system", "a writable root filesystem", app),
    ("write /data/x: no space left on device", "a full volume", || full_volume(Full::Space)),
    ("write /data/x: no space left on device", "a volume without inodes", || {
        full_volume(Full::Inodes)
    }),
    ("write: no space left on device", "a full disk of the node", || Facts {
        layer_full: Some(Full::Space),
        ..app()
    }),
    ("write: no space left on device", "a disk without inodes", || Facts {
        layer_full: Some(Full::Inodes),
        ..app()
    }),
    ("write /dev/shm/x: No space left on device", "", || Facts {
        shm_full: Some(64 << 20),
        ..app()
    }),
    ("write /data/x: Disk quota exceeded", "a volume with a quota", || full_volume(Full::Space)),
    ("cat: /srv/key: No such file or directory", "the command names the file", script),
    ("stat /data/x: stale file handle", "", app),
    ("ls: /data: Transport endpoint is not connected", "", app),
    ("whoami: cannot find name for user ID 1000", "", user),
];

/// Commands, libraries and devices.
const PROGRAMS: &[Printed] = &[
    ("sh: curl: not found", "", script),
    (
        "/app: error while loading shared libraries: libssl.so.3: cannot open shared object file: No such file or directory",
        "",
        app,
    ),
    ("/app: error while loading shared libraries: libx.so: wrong ELF class: ELFCLASS32", "", app),
    ("/app: error while loading shared libraries: libx.so: file too short", "", app),
    ("/app: error while loading shared libraries: libx.so: invalid ELF header", "", app),
    (
        "/app: error while loading shared libraries: libx.so: failed to map segment from shared object",
        "",
        app,
    ),
    (
        "/app: error while loading shared libraries: libx.so: cannot open shared object file: Permission denied",
        "",
        user,
    ),
    ("/app: symbol lookup error: /app: undefined symbol: SSL_new", "", app),
    ("sh: /app: Exec format error", "", app),
    ("open /dev/fuse: operation not permitted", "", app),
    ("open /dev/nvidia0: no such device or address", "", app),
    ("stty: /dev/tty: No such device or address", "", app),
    ("tcpdump: eth7: No such device exists (SIOCGIFHWADDR: No such device)", "", app),
    ("mount: /mnt: No such device", "", app),
];

/// Rights that the kernel refuses.
const RIGHTS: &[Printed] = &[
    ("chown: /data: Operation not permitted", "all capabilities dropped", || {
        without_capabilities(facts(&["chown", "1000", "/data"]))
    }),
    ("ping: permission denied (are you root?)", "all capabilities dropped", || {
        without_capabilities(facts(&["ping", "-c1", "db"]))
    }),
    ("setgid(101) failed (1: Operation not permitted)", "uid 101", || {
        as_user(facts(&["nginx"]), 101)
    }),
    ("ip: RTNETLINK answers: Operation not permitted", "", || {
        facts(&["ip", "link", "set", "eth0", "up"])
    }),
    ("unshare: unshare(0x10000000): Operation not permitted", "RuntimeDefault", filtered),
    ("app: operation not permitted", "all capabilities dropped", || without_capabilities(app())),
    ("su: must be suid to work properly", "`allowPrivilegeEscalation: false`", || {
        let mut su = as_user(facts(&["su", "root"]), 1000);
        su.process.no_new_privs = true;
        su
    }),
    ("sudo: effective uid is not 0", "uid 1000", || as_user(facts(&["sudo", "id"]), 1000)),
    ("chown: /data: Invalid argument", "`hostUsers: false`", || Facts {
        mapped_ids: Some(65_536),
        ..script()
    }),
    ("unshare: function not implemented", "a profile that refuses it", || {
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO"}]}"#;
        under(facts(&["unshare"]), profile, "Localhost profile `own.json`")
    }),
];

/// Errors of the network.
const NETWORK: &[Printed] = &[
    ("httpd: bind: Permission denied", "uid 1000, port 80", || Facts {
        first_free_port: 1024,
        ..as_user(facts(&["httpd", "-f", "-p", "80"]), 1000)
    }),
    ("httpd: bind: Address already in use", "`hostNetwork: true`", || Facts {
        host_network: true,
        listeners: vec![Listener { port: 8080, holder: None }],
        ..facts(&["httpd", "-f", "-p", "8080"])
    }),
    ("httpd: bind: Address already in use", "a network of its own", || {
        facts(&["httpd", "-f", "-p", "8080"])
    }),
    ("listen unix /run/app.sock: bind: address already in use", "", app),
    ("bind: cannot assign requested address", "", app),
    ("connect: cannot assign requested address", "", app),
    ("wget: bad address 'db'", "", app),
    ("dial tcp 10.0.0.1:5432: connect: connection refused", "", app),
    ("dial unix /run/db.sock: connect: connection refused", "", app),
    ("connect: No route to host", "", app),
    ("dial tcp 10.0.0.1:5432: i/o timeout", "", app),
    ("x509: certificate signed by unknown authority", "", app),
];

/// Limits that were reached.
const LIMITS: &[Printed] = &[
    ("open /srv/x: too many open files", "", app),
    ("open /srv/x: Too many open files in system", "", app),
    ("Error: ENOSPC: System limit for number of file watchers reached", "", app),
    ("inotify_add_watch: No space left on device", "", app),
    ("semget: No space left on device", "", app),
    ("epoll_ctl: No space left on device", "", app),
    ("unshare: No space left on device", "", app),
    ("mkdir /sys/fs/cgroup/x: No space left on device", "", app),
    ("mount: /mnt: No space left on device", "", app),
    ("keyctl: Disk quota exceeded", "", app),
    ("mlock: Cannot allocate memory", "", app),
    ("shmget: Cannot allocate memory", "", app),
    ("java.lang.OutOfMemoryError: Java heap space", "", app),
    ("sh: can't fork: Resource temporarily unavailable", "the pod's limit was reached", || Facts {
        pids: Some(PidsLimit { limit: Some(100), refused: 3 }),
        ..app()
    }),
    ("sh: can't fork: Resource temporarily unavailable", "the pod's limit refused nothing", || {
        Facts { pids: Some(PidsLimit { limit: Some(100), refused: 0 }), ..app() }
    }),
    ("sh: can't fork: Operation not permitted", "a profile that refuses it", own_profile),
];

/// All of them, with their headings.
const PRINTED: [(&str, &[Printed]); 5] = [
    ("Files and volumes", FILES),
    ("Programs, libraries and devices", PROGRAMS),
    ("Rights", RIGHTS),
    ("Network", NETWORK),
    ("Limits", LIMITS),
];

/// The explained output of programs that failed, by subject.
pub(crate) fn printed() -> Vec<(&'static str, Vec<Symptom>)> {
    let how = ExitReason::Code { code: 1, details: ExitDetails::default() };
    let explained = |(line, when, of): &Printed| {
        let diagnosis = ended(&how, line, Some(&of()), |_| {});
        let diagnosis = diagnosis.filter(|of| of.cause.is_some());
        let diagnosis = diagnosis.unwrap_or_else(|| panic!("no cause of: {line}"));
        Symptom { seen: (*line).into(), when, diagnosis }
    };
    let of = |(heading, lines): (&'static str, &[Printed])| {
        (heading, lines.iter().map(explained).collect())
    };
    PRINTED.into_iter().map(of).collect()
}

/// The signals of the table, in their order.
pub(crate) fn signals() -> Vec<Symptom> {
    let one = |signal: i32| {
        let cause = exits::of_signal(signal, None)?;
        let seen = format!("exit code {} ({})", signal + 128, exits::signal_name(signal));
        Some(Symptom { seen, when: "", diagnosis: super::inferred(String::new(), cause) })
    };
    (1..=31).filter_map(one).collect()
}

/// Ends by a code, a request, a denial or a limit.
pub(crate) fn ends() -> Vec<Symptom> {
    let code = |code| ExitReason::Code { code, details: ExitDetails::default() };
    let killed = ExitReason::Signal { signal: 9, details: ExitDetails::default() };
    let asked = |details: &mut ExitDetails| details.stop_requested = true;
    let denied = |details: &mut ExitDetails| {
        details.denials = ["seccomp denied system call mount".into()].into();
    };
    let limited = |details: &mut ExitDetails| details.pids_refused = 5;
    let shell = facts(&["sh", "-c", "./run"]);
    let cases: [(&str, &str, Option<Diagnosis>); 7] = [
        ("exit code 126", "a shell", ended(&code(126), "", Some(&shell), |_| {})),
        ("exit code 127", "", ended(&code(127), "", Some(&shell), |_| {})),
        ("exit code 137", "a shell or an init", ended(&code(137), "", Some(&shell), |_| {})),
        ("exit code 143", "asked to stop", ended(&code(143), "", Some(&shell), asked)),
        ("exit code 137", "asked to stop", ended(&killed, "", Some(&shell), asked)),
        ("a denial in the message", "", ended(&code(1), "", Some(&shell), denied)),
        ("refused processes in the message", "", ended(&code(1), "", Some(&shell), limited)),
    ];
    let symptom = |(seen, when, of): (&str, &'static str, Option<Diagnosis>)| {
        let diagnosis = of.unwrap_or_else(|| panic!("no explanation of {seen}"));
        Symptom { seen: seen.to_owned(), when, diagnosis }
    };
    cases.into_iter().map(symptom).collect()
}

/// Kills for memory: whose limit was reached.
pub(crate) fn memory() -> Vec<Symptom> {
    let details = |of, limit: Option<u64>| ExitDetails {
        oom_kills: 1,
        memory_peak_bytes: Some(64 << 20),
        out_of_memory: of,
        reached_limit_bytes: limit,
        reached_peak_bytes: limit,
        ..ExitDetails::default()
    };
    let above = OutOfMemory::Above { cgroup: "/kubepods".into() };
    let gib = Some(1 << 30);
    let kills = [
        ("container", details(Some(OutOfMemory::Container), None), 64 << 20),
        ("pod", details(Some(OutOfMemory::Pod), gib), 0),
        ("cgroup above the pods", details(Some(above), gib), 0),
        ("node", details(Some(OutOfMemory::Node), None), 0),
        ("not known", details(None, None), 0),
    ];
    let symptom = |(whose, details, limit): (&str, ExitDetails, u64)| Symptom {
        seen: format!("`OOMKilled`: {whose}"),
        when: "",
        diagnosis: memory::diagnosis(&details, limit, true),
    };
    kills.into_iter().map(symptom).collect()
}

/// Faults of containers that run.
pub(crate) fn running() -> Vec<Diagnosis> {
    vec![running::of_zombies(3), frozen::of_container("web"), frozen::of_pod("/kubepods/pod1")]
}

/// Privileged operations: words of programs and calls, the capability, and what else helps.
pub(crate) fn operations() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    let known = operations::OPERATIONS.iter().filter(|of| !of.capability.is_empty());
    known.map(|of| (of.words.join(", "), of.capability, of.instead))
}

mod checks {
    use super::*;
    use crate::diagnostics::ends::clues::Clue;
    use crate::diagnostics::ends::phrases::Phrase;
    use crate::diagnostics::ends::resources;

    #[test]
    fn every_phrase_and_every_resource_has_a_symptom() {
        let all: Vec<Symptom> = printed().into_iter().flat_map(|(_, of)| of).collect();
        for phrase in Phrase::all() {
            let has = |of: &&Symptom| Clue::of(&of.seen).is_some_and(|clue| clue.phrase == phrase);
            assert!(all.iter().any(|of| has(&of)), "no line has the phrase {phrase:?}");
        }
        for cause in resources::causes() {
            let is_there = all.iter().any(|of| of.diagnosis.cause.as_deref() == Some(cause));
            assert!(is_there, "no line leads to: {cause}");
        }
        let mut lines: Vec<_> = all.iter().map(|of| (of.seen.as_str(), of.when)).collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all.len(), "a line is there twice");
    }
}
