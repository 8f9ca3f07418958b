// SPDX-License-Identifier: Apache-2.0
//! Many cgroups made below one parent at the same moment. Needs root and the host's hierarchies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says by its panic what is wrong"
)]

use hull_cgroup::{Cgroup, CgroupFs, Limits};
use std::process::{Child, Command};
use std::sync::Barrier;
use std::time::Duration;

/// Takes the parent away again, however the test ends.
struct Parent(Cgroup);

impl Drop for Parent {
    fn drop(&mut self) {
        self.0.kill_and_remove(Duration::from_secs(10)).unwrap();
    }
}

#[allow(clippy::disallowed_methods, reason = "a process to put into a cgroup")]
fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

/// The parent is there for the second a moment before it is whole: a cpuset has no CPUs at first, and
/// takes no process then.
#[test]
fn below_a_new_parent_every_cgroup_takes_a_process_at_once() {
    let host = CgroupFs::detect().unwrap();
    for round in 0..20 {
        let path = format!("/hull-test-together-{}-{round}", std::process::id());
        let _parent = Parent(Cgroup::at(&host, &path).unwrap());
        let (host, path, start) = (&host, &path, &Barrier::new(8));
        std::thread::scope(|scope| {
            for index in 0..8 {
                scope.spawn(move || {
                    let mut child = sleeper();
                    let pid = child.id().cast_signed();
                    let cgroup = Cgroup::at(host, &format!("{path}/pod/{index}")).unwrap();
                    start.wait();
                    let added =
                        cgroup.create(&Limits::default()).and_then(|()| cgroup.add(pid, true));
                    child.kill().unwrap();
                    child.wait().unwrap();
                    added.unwrap();
                });
            }
        });
    }
}
