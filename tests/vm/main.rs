// SPDX-License-Identifier: Apache-2.0
//! Tests that need a node as users have it: cgroup v2 alone, systemd as init, AppArmor. They run in
//! the VM (`make test-vm`) and nowhere else: a part of them stops services that the whole machine uses,
//! so they run one at a time.

mod apparmor;
mod cgroup2;
mod classes;
mod denials;
mod installer;
mod oci;
mod service;
mod systemd;
mod userns;

use hull_tests::ExpectExt as _;

/// The path of a process's cgroup.
fn cgroup_of(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    text.or_fail("read a process's cgroup").trim().trim_start_matches("0::").to_owned()
}

/// The command's output, without the line's end.
fn said(program: &str, args: &[&str]) -> String {
    hull_tests::shell::run(program, args).good().trim().to_owned()
}

/// Waits until a unit is in this state of `systemctl is-active`.
async fn unit_is(unit: &str, state: &str) {
    hull_tests::eventually(format!("{unit} is {state}"), || async {
        let ran = hull_tests::shell::run("systemctl", ["is-active", unit]);
        let is = ran.stdout.trim().to_owned();
        if is == state { Ok(()) } else { Err(is) }
    })
    .await;
}
