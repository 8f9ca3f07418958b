// SPDX-License-Identifier: Apache-2.0
//! Users, capabilities, seccomp and AppArmor profiles.

use crate::case::{Case, Set, Setup};
use hull_proto::cri as api;
use hull_tests::image::Image;
use hull_tests::{ExpectExt as _, debian, fixture};
use serde_json::json;

fn profile(setup: &mut Setup, name: &str) {
    let profile = api::SecurityProfile {
        profile_type: api::security_profile::ProfileType::Localhost.into(),
        localhost_ref: setup.seccomp.join(name).display().to_string(),
    };
    setup.security().seccomp = Some(profile);
}

fn drop_all(setup: &mut Setup) {
    let capabilities = setup.security().capabilities.get_or_insert_default();
    capabilities.drop_capabilities.push("ALL".into());
}

fn default_profile(setup: &mut Setup) {
    let profile_type = api::security_profile::ProfileType::RuntimeDefault.into();
    setup.security().seccomp =
        Some(api::SecurityProfile { profile_type, localhost_ref: String::new() });
}

/// A profile that allows all but these calls.
fn refusing(setup: &mut Setup, name: &str, calls: &[&str], action: &str) {
    let text = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": calls, "action": action}]});
    let written = std::fs::write(setup.seccomp.join(name), text.to_string());
    assert!(written.is_ok(), "write a profile: {written:?}");
    profile(setup, name);
}

/// busybox as a setuid program.
fn setuid() -> String {
    fixture::pushed("zoo-setuid", || {
        let file = debian::unpacked("busybox-static").join("bin/busybox");
        let bytes = std::fs::read(file).or_fail("read busybox");
        let layer = fixture::busybox_layer().dirs(&["opt"]).file("opt/su", 0o4755, bytes);
        Image::new(vec![layer.tar()], json!({}))
    })
}

pub(crate) static CASES: [Case; 11] = [
    Case {
        name: "a capability that is misspelt",
        set: Set::Configs(|setup| {
            let capabilities = setup.security().capabilities.get_or_insert_default();
            capabilities.add_capabilities.push("NET_ADMON".into());
        }),
        place: &["`NET_ADMON`"],
        cause: &["no capability with this name"],
        fix: &["did you mean NET_ADMIN?"],
        never: &[],
    },
    Case {
        name: "a seccomp profile that is not on the node",
        set: Set::Configs(|setup| profile(setup, "absent.json")),
        place: &["absent.json"],
        cause: &["no such file or directory"],
        fix: &["put the profile on the node"],
        never: &[],
    },
    Case {
        name: "a seccomp profile that is not JSON",
        set: Set::Configs(|setup| {
            let text = "{\"defaultAction\": \"SCMP_ACT_ALLOW\"\n \"syscalls\": []}";
            let written = std::fs::write(setup.seccomp.join("odd.json"), text);
            assert!(written.is_ok(), "write a profile: {written:?}");
            profile(setup, "odd.json");
        }),
        place: &["odd.json"],
        cause: &["line 2 column 2"],
        fix: &["correct the profile"],
        never: &[],
    },
    Case {
        name: "a port below 1024 without the capability",
        set: Set::Configs(|setup| {
            setup.sysctl("net.ipv4.ip_unprivileged_port_start", "1024");
            drop_all(setup);
            setup.user(1000);
            setup.command(&["httpd", "-f", "-p", "80"]);
        }),
        place: &["port 80"],
        cause: &["CAP_NET_BIND_SERVICE"],
        fix: &["use a port above 1024"],
        never: &[],
    },
    Case {
        name: "a system call that RuntimeDefault refuses",
        set: Set::Configs(|setup| {
            default_profile(setup);
            setup.script("unshare -U true");
        }),
        place: &["seccomp profile (RuntimeDefault)"],
        cause: &["refuses system call `unshare`"],
        fix: &["allow `unshare`"],
        never: &[],
    },
    Case {
        name: "a profile that refuses execve",
        set: Set::Configs(|setup| {
            refusing(setup, "exec.json", &["execve", "execveat"], "SCMP_ACT_ERRNO");
        }),
        place: &["seccomp profile"],
        cause: &["refuses system call `execve`"],
        fix: &["allow `execve`"],
        never: &[],
    },
    Case {
        name: "a profile that refuses the C library its calls",
        set: Set::Configs(|setup| {
            refusing(
                setup,
                "libc.json",
                &["arch_prctl", "brk", "set_tid_address"],
                "SCMP_ACT_ERRNO",
            );
        }),
        place: &["seccomp profile"],
        cause: &["arch_prctl"],
        fix: &["in the profile"],
        never: &[],
    },
    Case {
        name: "a profile that kills",
        set: Set::Configs(|setup| {
            refusing(
                setup,
                "kill.json",
                &["nanosleep", "clock_nanosleep"],
                "SCMP_ACT_KILL_PROCESS",
            );
        }),
        place: &["seccomp profile"],
        cause: &["SIGSYS"],
        fix: &["allow `clock_nanosleep`"],
        never: &[],
    },
    Case {
        name: "a setuid program without new privileges",
        set: Set::Configs(|setup| {
            setup.image(&setuid());
            setup.security().no_new_privs = true;
            setup.user(1000);
            setup.command(&["/opt/su", "root", "-c", "id"]);
        }),
        place: &["`/opt/su`"],
        cause: &["no_new_privs"],
        fix: &["allowPrivilegeEscalation: true"],
        never: &[],
    },
    Case {
        name: "chown without the capability",
        set: Set::Configs(|setup| {
            drop_all(setup);
            setup.command(&["chown", "1000", "/tmp"]);
        }),
        place: &["CAP_CHOWN"],
        cause: &["without CAP_CHOWN"],
        fix: &["add CHOWN"],
        never: &[],
    },
    Case {
        name: "ping without the capability",
        set: Set::Configs(|setup| {
            setup.sysctl("net.ipv4.ping_group_range", "1 0");
            drop_all(setup);
            setup.command(&["ping", "-c1", "127.0.0.1"]);
        }),
        place: &["CAP_NET_RAW"],
        cause: &["without CAP_NET_RAW"],
        fix: &["add NET_RAW"],
        never: &[],
    },
];
