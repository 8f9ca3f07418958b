// SPDX-License-Identifier: Apache-2.0
//! The place of a container's cgroup.

use crate::shell_words;
use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt as _;
use hull_tests::host;
use hull_tests::shell::finish;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Cgroups of a caller of the runtime, a different one in each of some hierarchies, until it is dropped.
struct Caller {
    /// The hierarchy, as `/proc/PID/cgroup` names it, the caller's own cgroup, and the one in which relative paths begin.
    own: Vec<(&'static str, PathBuf, PathBuf)>,
}

impl Caller {
    fn of(bundle: &Bundle) -> Self {
        let hierarchies = host::hierarchies();
        let mut own = Vec::new();
        let top = |root: &PathBuf, end: &str| {
            root.join(format!("{}{end}", bundle.cgroup().trim_start_matches('/')))
        };
        if let [only] = hierarchies.as_slice() {
            let parent = top(only, "");
            own.push(("", parent.join("shell"), parent));
        } else {
            for (name, end) in [("memory", "m"), ("pids", "p")] {
                let root = hierarchies.iter().find(|of| of.ends_with(name));
                let own_dir = top(root.or_fail("find the hierarchy"), end);
                own.push((name, own_dir.clone(), own_dir));
            }
        }
        for (_, dir, _) in &own {
            fs::create_dir_all(dir).or_fail("make a cgroup");
        }
        Self { own }
    }

    /// Runs the command in these cgroups. Its output is not read, which a container holds for longer.
    fn run(&self, command: &Command) {
        let enter = |(_, dir, _): &(&str, PathBuf, PathBuf)| {
            format!("echo $$ > {}/cgroup.procs && ", dir.display())
        };
        let enter: String = self.own.iter().map(enter).collect();
        let script = format!("{enter}exec {} </dev/null >/dev/null 2>&1", shell_words(command));
        let _said = finish(Command::new("sh").args(["-c", &script])).good();
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        for (_, own, begin) in &self.own {
            let _gone = fs::remove_dir(own);
            let _gone = fs::remove_dir(begin);
        }
    }
}

/// As with runc: below the caller's own in each hierarchy of version 1, and beside it on version 2.
#[test]
fn a_cgroup_that_is_relative_or_not_named_belongs_to_the_callers() {
    let bundle = Bundle::new();
    let caller = Caller::of(&bundle);
    // In the hierarchies whose root the caller is in, another test's could have a common name.
    let id = format!("{}-id", bundle.cgroup().trim_start_matches('/'));
    let relative = format!("{id}-rel");
    for (path, name) in [(Value::Null, &id), (json!(relative), &relative)] {
        bundle.change(|config| config["linux"]["cgroupsPath"] = path);
        caller.run(&bundle.command(&["create", "-b", &bundle.path(), &id]));
        let pid = bundle.state(&id)["pid"].to_string();
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for (hierarchy, _, begin) in &caller.own {
            let want = begin.file_name().unwrap().display().to_string();
            let want = format!(":{hierarchy}:/{want}/{name}");
            assert!(table.lines().any(|line| line.ends_with(&want)), "no {want} in {table}");
        }
        // Commands of others find it.
        let _said = bundle.oci(&["start", &id]).good();
        let pids: Value =
            serde_json::from_str(&bundle.oci(&["ps", "-f", "json", &id]).good()).unwrap();
        assert_eq!(pids[0].to_string(), pid);
        let _said = bundle.oci(&["update", "--pids-limit", "44", &id]).good();
        let _said = bundle.oci(&["exec", &id, "true"]).good();
        let _said = bundle.oci(&["pause", &id]).good();
        assert_eq!(bundle.status(&id), "paused");
        let of_pids = |(.., begin): &(&str, PathBuf, PathBuf)| {
            fs::read_to_string(begin.join(name).join("pids.max")).ok()
        };
        assert_eq!(caller.own.iter().filter_map(of_pids).collect::<Vec<_>>(), ["44\n"]);
        let _said = bundle.oci(&["delete", "--force", &id]).good();
        let begins = caller.own.iter().map(|(.., begin)| begin.clone());
        for dir in begins.chain(host::hierarchies()) {
            assert!(!dir.join(name).is_dir(), "{} is left in {}", name, dir.display());
        }
    }
    drop(caller);
    assert_eq!(bundle.left(), Vec::<String>::new());
}
