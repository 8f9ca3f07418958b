// SPDX-License-Identifier: Apache-2.0
//! Judgement of facts that no test's host has all of: security modules, maps, threads of several kinds.

use super::caps::Caps;
use super::facts::{
    DeviceNode, DeviceRules, Facts, FileOwner, HostMount, IdRange, Lsm, NamespaceOwner, Socket,
    Thread,
};
use super::judge::{Finding, findings};
use super::mounts::MountTable;
use super::neighbours;
use super::pss::{self, Level};
use super::reach::Reach;
use std::collections::BTreeMap;

const SYS_ADMIN: u64 = 1 << 21;
const SYS_RAWIO: u64 = 1 << 17;
const MKNOD: u64 = 1 << 27;
const DAC_OVERRIDE: u64 = 1 << 1;
const SYS_PTRACE: u64 = 1 << 19;

/// The mounts of every container.
const TABLE: &str = "\
10 9 0:50 / / rw - overlay overlay rw
11 10 0:51 / /proc rw - proc proc rw
12 11 0:51 /sys /proc/sys ro - proc proc rw
13 11 0:52 /null /proc/kcore rw - tmpfs tmpfs rw
14 11 0:53 / /proc/acpi ro - tmpfs tmpfs rw
15 10 0:54 / /sys ro - sysfs sysfs ro
16 15 0:55 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw
";

/// Of a container that meets Restricted.
fn restricted() -> Facts {
    let thread = Thread {
        uids: [1000].into(),
        gids: [1000].into(),
        permitted: Caps::default(),
        effective: Caps::default(),
        bounding: Caps::default(),
        ambient: Caps::default(),
        no_new_privs: true,
        seccomp: 2,
        filters: Some(1),
        nested: false,
    };
    let namespaces = [
        ("mnt", NamespaceOwner::Own),
        ("pid", NamespaceOwner::Own),
        ("net", NamespaceOwner::Pod),
        ("ipc", NamespaceOwner::Pod),
        ("uts", NamespaceOwner::Pod),
        ("user", NamespaceOwner::Host),
    ];
    Facts {
        pid: 1,
        pid_namespace: "pid:[1]".into(),
        namespaces: BTreeMap::from(namespaces),
        threads: vec![thread],
        more_threads: false,
        uid_map: vec![IdRange { inside: 0, outside: 0, length: u32::MAX }],
        gid_map: Vec::new(),
        lsm: Lsm::AppArmor("hull-default (enforce)".into()),
        mounts: MountTable::parse(TABLE),
        host_mounts: Vec::new(),
        nodes: Vec::new(),
        unseen: Vec::new(),
        rules: DeviceRules::Ebpf,
        listening: Vec::new(),
        kernel_has: ["/proc/kcore", "/proc/acpi", "/proc/sys/kernel/core_pattern"].into(),
        host_ports: Vec::new(),
        sysctls: Vec::new(),
    }
}

fn mapped(mut facts: Facts) -> Facts {
    facts.namespaces.insert("user", NamespaceOwner::Pod);
    facts.uid_map = vec![IdRange { inside: 0, outside: 200_000, length: 65_536 }];
    facts.threads[0].uids = [200_000].into();
    facts.threads[0].gids = [200_000].into();
    facts
}

/// Level, and what keeps it from the next.
fn level(facts: &Facts) -> (Level, String) {
    let standard = pss::judge(facts);
    (standard.level, standard.next.map_or(String::new(), |next| next.reason))
}

#[track_caller]
fn one(facts: &Facts, id: &str) -> Finding {
    let mut these = findings(facts).into_iter().filter(|finding| finding.id == id);
    let Some(only) = these.next() else { panic!("no {id} in {:?}", findings(facts)) };
    assert!(these.next().is_none(), "{id} twice");
    only
}

#[test]
fn what_is_closed_has_no_finding() {
    assert_eq!(findings(&restricted()), []);
    assert_eq!(level(&restricted()), (Level::Restricted, String::new()));
    // Root inside is not root there.
    assert_eq!(findings(&mapped(restricted())), []);
    assert_eq!(level(&mapped(restricted())).0, Level::Restricted);
}

#[test]
fn each_rule_of_the_standards_keeps_from_its_level() {
    type Change = fn(&mut Facts);
    let cases: [(Change, Level, &str); 13] = [
        (
            |of| _ = of.namespaces.insert("ipc", NamespaceOwner::Host),
            Level::Privileged,
            "ipc namespace of the host",
        ),
        (
            |of| _ = of.namespaces.insert("pid", NamespaceOwner::Host),
            Level::Privileged,
            "pid namespace of the host",
        ),
        (|of| of.threads[0].bounding = Caps(SYS_ADMIN), Level::Privileged, "SYS_ADMIN"),
        (|of| of.host_ports = vec![80], Level::Privileged, "80"),
        (|of| of.lsm = Lsm::AppArmor("unconfined".into()), Level::Privileged, "AppArmor"),
        (|of| of.lsm = Lsm::AppArmor("mine (complain)".into()), Level::Privileged, "AppArmor"),
        (
            |of| of.lsm = Lsm::SELinux("system_u:system_r:spc_t:s0".into()),
            Level::Privileged,
            "spc_t",
        ),
        (|of| of.sysctls = vec!["kernel.msgmax".into()], Level::Privileged, "kernel.msgmax"),
        (|of| of.kernel_has = ["/proc/keys"].into(), Level::Privileged, "/proc/keys"),
        (|of| of.threads[0].no_new_privs = false, Level::Baseline, "no_new_privs"),
        (|of| of.threads[0].uids = [1000, 0].into(), Level::Baseline, "root"),
        (|of| of.threads[0].seccomp = 0, Level::Baseline, "seccomp"),
        (|of| of.threads[0].bounding = Caps(1), Level::Baseline, "CHOWN"),
    ];
    for (change, expected, reason) in cases {
        let mut facts = restricted();
        change(&mut facts);
        let (level, why) = level(&facts);
        assert_eq!(level, expected, "{why}");
        assert!(why.contains(reason), "{reason:?} in {why:?}");
    }
    for fine in ["container_t", "container_kvm_t"] {
        let mut facts = restricted();
        facts.lsm = Lsm::SELinux(format!("system_u:system_r:{fine}:s0:c1,c2"));
        facts.threads[0].bounding = Caps(1 << 10);
        facts.sysctls = vec!["net.ipv4.tcp_rmem".into()];
        assert_eq!(level(&facts).0, Level::Restricted, "{fine}");
    }
}

#[test]
fn the_widest_thread_counts_and_one_in_a_namespace_of_its_own_making_does_not() {
    let mut facts = restricted();
    let thread = facts.threads[0].clone();
    facts.threads.push(Thread {
        permitted: Caps(u64::MAX),
        bounding: Caps(u64::MAX),
        nested: true,
        ..thread.clone()
    });
    assert_eq!(level(&facts).0, Level::Restricted);
    facts.threads.push(Thread { permitted: Caps(SYS_ADMIN), ..thread.clone() });
    assert_eq!(one(&facts, "capabilities").reach, Reach::Host);
    facts.threads[2] = Thread { seccomp: 0, filters: Some(0), ..thread };
    assert_eq!(facts.widest().filters, Some(0));
    one(&facts, "no-seccomp");
}

#[test]
fn a_user_namespace_counts_only_without_the_hosts_root_in_it() {
    let mut facts = mapped(restricted());
    facts.threads[0].permitted = Caps(SYS_ADMIN);
    assert_eq!(one(&facts, "capabilities").reach, Reach::None);
    facts.uid_map = vec![IdRange { inside: 7, outside: 0, length: 1 }, facts.uid_map[0]];
    assert_eq!(one(&facts, "capabilities").reach, Reach::Host);
}

#[test]
fn a_bounding_set_counts_as_long_as_files_may_give_rights() {
    let mut facts = restricted();
    facts.threads[0].bounding = Caps(SYS_ADMIN);
    assert_eq!(findings(&facts), []);
    facts.threads[0].no_new_privs = false;
    assert_eq!(one(&facts, "capabilities").reach, Reach::Host);
}

#[test]
fn a_procfs_is_judged_wherever_and_however_it_is_mounted() {
    for (line, path) in [
        ("20 10 0:51 / /hidden/p rw - proc proc rw", "/hidden/p/sys/kernel/core_pattern"),
        ("20 10 0:51 /sys/kernel /k rw - proc proc rw", "/k/core_pattern"),
        (
            "20 12 0:51 /sys/kernel /proc/sys/kernel rw - proc proc rw",
            "/proc/sys/kernel/core_pattern",
        ),
    ] {
        let mut facts = restricted();
        facts.mounts = MountTable::parse(&format!("{TABLE}{line}\n"));
        let finding = one(&facts, "proc-writable");
        assert_eq!(finding.reach, Reach::Host);
        assert!(finding.what.contains(path), "{finding:?}");
        assert_eq!(one(&mapped(facts), "proc-writable").reach, Reach::None);
    }
    let mut facts = restricted();
    facts.mounts = MountTable::parse(&TABLE.replace("/proc/kcore", "/elsewhere"));
    assert_eq!(one(&facts, "proc-unmasked").reach, Reach::None);
    facts.threads[0].bounding = Caps(SYS_RAWIO);
    assert_eq!(one(&facts, "proc-unmasked").reach, Reach::Host);
}

#[test]
fn devices_count_as_far_as_rules_and_owners_let_them_open() {
    let node = |kind, major, minor, uid, mode| DeviceNode {
        path: "/dev/x".into(),
        kind,
        major,
        minor,
        mode,
        uid,
        gid: 0,
    };
    let mut facts = restricted();
    facts.nodes = vec![node('c', 1, 3, 0, 0o666), node('c', 136, 0, 0, 0o620)];
    assert_eq!(findings(&facts), []);
    facts.nodes.push(node('b', 8, 0, 0, 0o660));
    assert_eq!(one(&facts, "devices").reach, Reach::None, "user 1000 does not open root's");
    assert_eq!(level(&facts).0, Level::Restricted);
    facts.threads[0].gids = [0].into();
    assert_eq!(one(&facts, "devices").reach, Reach::Host);
    facts.threads[0].gids = [1000].into();
    facts.threads[0].permitted = Caps(DAC_OVERRIDE);
    assert_eq!(one(&facts, "devices").reach, Reach::Host);
    facts.threads[0].permitted = Caps::default();
    facts.threads[0].gids = [0].into();
    assert_eq!(one(&facts, "devices").reach, Reach::Host);
    facts.rules = DeviceRules::V1(vec!["c 1:3 rwm".into()]);
    assert_eq!(findings(&facts), []);
    facts.rules = DeviceRules::V1(vec!["a *:* rwm".into()]);
    facts.threads[0].bounding = Caps(MKNOD);
    assert!(findings(&facts).iter().all(|of| of.id != "device-rules"), "it cannot come by MKNOD");
    facts.threads[0].permitted = Caps(MKNOD);
    assert_eq!(one(&facts, "device-rules").reach, Reach::Host);
    let mut facts = mapped(facts);
    assert_eq!(one(&facts, "devices").reach, Reach::None, "its owner has no number inside");
    facts.nodes[2].uid = 200_000;
    assert_eq!(one(&facts, "devices").reach, Reach::Host);
}

#[test]
fn mounts_of_the_host_reach_as_far_as_they_lead() {
    let mount = host_mount;
    for (host, writable, reach) in [
        ("/", true, Reach::Host),
        ("/", false, Reach::Node),
        ("/etc/cron.d", true, Reach::Host),
        ("/var", true, Reach::Host),
        ("/var/lib/kubelet/pods", false, Reach::Node),
        ("/proc", false, Reach::Node),
        ("/dev", true, Reach::Host),
        ("/srv/data", true, Reach::Node),
        ("/srv/data", false, Reach::None),
        ("/etcetera", false, Reach::None),
    ] {
        let mut facts = restricted();
        facts.host_mounts = vec![mount(host, writable)];
        assert_eq!(one(&facts, "host-path").reach, reach, "{host} {writable}");
        assert_eq!(level(&facts).0, Level::Privileged);
        let mut facts = mapped(facts);
        assert_eq!(one(&facts, "host-path").reach, Reach::None, "{host}");
        facts.host_mounts[0].idmapped = true;
        assert_eq!(one(&facts, "host-path").reach, reach, "{host} with mapped ids");
    }
    let mut facts = restricted();
    facts.host_mounts = vec![HostMount { shared: true, ..mount("/srv", false) }];
    facts.threads[0].bounding = Caps(SYS_ADMIN);
    assert_eq!(one(&facts, "mounts-reach-host").reach, Reach::Host);
}

fn host_mount(host: &str, writable: bool) -> HostMount {
    HostMount {
        container_path: "/m".into(),
        host_path: host.into(),
        writable,
        idmapped: false,
        shared: false,
        sockets: Vec::new(),
        search_cut: None,
        of_daemon: false,
        owned: None,
    }
}

#[test]
fn a_rule_beyond_the_usual_counts_as_far_as_nodes_of_it_can_be_made() {
    let with = |rules: &[&str], caps| {
        let mut facts = restricted();
        facts.rules = DeviceRules::V1(rules.iter().map(|rule| (*rule).to_owned()).collect());
        facts.threads[0].permitted = Caps(caps);
        facts
    };
    let make_all = ["b *:* m", "c *:* m", "c 1:3 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm"];
    let reach = |facts: &Facts| {
        let found = findings(facts);
        found.iter().filter(|of| of.id == "device-rules").map(|of| of.reach).max()
    };
    assert_eq!(reach(&with(&make_all, MKNOD)), None);
    for (rule, expected) in [
        ("b 254:0 rwm", Reach::Host),
        ("b 254:0 r", Reach::Host),
        ("b 8:* rw", Reach::Host),
        ("c 1:1 rwm", Reach::Host),
        ("c 1:* rwm", Reach::Host),
        ("c *:* rwm", Reach::Host),
        ("c 195:0 rw", Reach::Node),
    ] {
        let rules: Vec<&str> = make_all.into_iter().chain([rule]).collect();
        let facts = with(&rules, MKNOD);
        assert_eq!(reach(&facts), Some(expected), "{rule}");
        assert_eq!(reach(&with(&rules, 0)), None, "{rule} without CAP_MKNOD");
        assert_eq!(reach(&mapped(facts.clone())), None, "{rule} in a user namespace");
        if expected == Reach::Host {
            assert_eq!(level(&facts).0, Level::Privileged, "{rule}");
            assert!(level(&facts).1.contains(rule), "{}", level(&facts).1);
        }
    }
    assert_eq!(reach(&with(&["b 254:0 rw"], MKNOD)), None, "nothing lets it be made");
}

#[test]
fn processes_of_the_host_lead_to_its_files_for_root_and_with_ptrace() {
    type Change = fn(&mut Facts);
    let shares: [Change; 3] = [
        |of| _ = of.namespaces.insert("pid", NamespaceOwner::Host),
        |of| of.host_mounts = vec![host_mount("/proc", false)],
        |of| of.host_mounts = vec![host_mount("/proc/1", false)],
    ];
    for change in shares {
        let mut facts = restricted();
        change(&mut facts);
        let reach = |facts: &Facts| {
            let found = findings(facts);
            found.iter().find(|of| matches!(of.id, "host-pid" | "host-path")).map(|of| of.reach)
        };
        assert_eq!(reach(&facts), Some(Reach::Node), "another user");
        let mut with = facts.clone();
        with.threads[0].permitted = Caps(SYS_PTRACE);
        assert_eq!(reach(&with), Some(Reach::Host), "CAP_SYS_PTRACE");
        let mut root = facts.clone();
        root.threads[0].uids = [0].into();
        assert_eq!(reach(&root), Some(Reach::Host), "root");
        assert!(reach(&mapped(root)).unwrap() < Reach::Host);
    }
    let mut facts = restricted();
    facts.threads[0].uids = [0].into();
    facts.host_mounts = vec![host_mount("/proc/sys", false)];
    assert_eq!(one(&facts, "host-path").reach, Reach::Node);
}

#[test]
fn ports_of_the_host_are_a_finding() {
    let mut facts = restricted();
    facts.host_ports = vec![8080];
    assert!(one(&facts, "host-ports").what.contains("8080"));
    assert_eq!(level(&facts).0, Level::Privileged);
}

#[test]
fn what_the_daemon_keeps_and_where_it_listens_lead_to_the_host() {
    let socket = |of_root, mode: u32| Socket {
        path: "/x".into(),
        of_root,
        owned: Some(FileOwner { uid: 0, gid: 0, mode: 0o140_000 | mode }),
    };
    let mut facts = restricted();
    facts.host_mounts = vec![HostMount { of_daemon: true, ..host_mount("/data/h", true) }];
    assert_eq!(one(&facts, "host-path").reach, Reach::Host);
    facts.host_mounts[0].writable = false;
    let finding = one(&facts, "host-path");
    assert!(finding.reach == Reach::Node && finding.what.contains("other pods"), "{finding:?}");
    facts.host_mounts[0].search_cut = Some("the search ended after 7 entries".into());
    assert!(one(&facts, "host-path").what.contains("the search ended after 7 entries"));
    for (of_root, mode, uid, reach) in [
        (true, 0o600, 0, Reach::Host),
        (true, 0o600, 1000, Reach::None),
        (true, 0o666, 1000, Reach::Host),
        (false, 0o600, 0, Reach::Node),
    ] {
        facts.host_mounts[0].sockets = vec![socket(of_root, mode)];
        facts.threads[0].uids = [uid].into();
        assert_eq!(one(&facts, "host-socket").reach, reach, "{of_root} {mode:o} {uid}");
    }
}

#[test]
fn a_path_of_the_host_leads_as_far_as_its_mode_lets_it() {
    const DIR: u32 = 0o040_000;
    for (mode, writable, uid, reach) in [
        (DIR | 0o755, true, 0, Reach::Host),
        (DIR | 0o755, true, 1000, Reach::Node),
        (DIR | 0o700, true, 1000, Reach::None),
        (DIR | 0o777, true, 1000, Reach::Host),
        (0o100_600, true, 1000, Reach::None),
        (0o100_600, false, 1000, Reach::None),
        (0o100_644, false, 1000, Reach::Node),
        (0o100_600, true, 0, Reach::Host),
    ] {
        let mut facts = restricted();
        facts.threads[0].uids = [uid].into();
        let owned = Some(FileOwner { uid: 0, gid: 0, mode });
        facts.host_mounts = vec![HostMount { owned, ..host_mount("/etc/x", writable) }];
        assert_eq!(one(&facts, "host-path").reach, reach, "{mode:o} {writable} {uid}");
        facts.threads[0].permitted = Caps(DAC_OVERRIDE);
        let all = if writable { Reach::Host } else { Reach::Node };
        assert_eq!(one(&facts, "host-path").reach, all, "{mode:o} with CAP_DAC_OVERRIDE");
    }
}

#[test]
fn who_steers_a_neighbour_gets_as_far_as_it_does() {
    let mut strong = restricted();
    (strong.pid, strong.threads[0].uids) = (2, [0].into());
    strong.threads[0].permitted = Caps(SYS_ADMIN);
    let mut weak = restricted();
    let all = |weak: &Facts, strong: &Facts| {
        vec![("weak".to_owned(), weak.clone()), ("strong".to_owned(), strong.clone())]
    };
    assert_eq!(neighbours::judge(&weak, &all(&weak, &strong)), [], "another user");
    weak.threads[0].permitted = Caps(SYS_PTRACE);
    let found = neighbours::judge(&weak, &all(&weak, &strong));
    assert!(found[0].reach == Reach::Host && found[0].what.contains("strong"), "{found:?}");
    weak.pid_namespace = "pid:[2]".into();
    assert_eq!(neighbours::judge(&weak, &all(&weak, &strong)), [], "it does not see it");
    // The same user with no more rights is steered without the capability.
    let mut same = restricted();
    (same.pid, same.host_mounts) = (2, vec![host_mount("/etc", true)]);
    let found = neighbours::judge(&restricted(), &all(&restricted(), &same));
    assert_eq!(found[0].reach, Reach::Host);
}
