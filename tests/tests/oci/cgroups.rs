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

    /// Runs the command in these cgroups.
    fn run(&self, command: &Command) {
        let enter = |(_, dir, _): &(&str, PathBuf, PathBuf)| {
            format!("echo $$ > {}/cgroup.procs && ", dir.display())
        };
        let enter: String = self.own.iter().map(enter).collect();
        let script = format!("{enter}exec {} >/dev/null", shell_words(command));
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
    for (path, name) in [(Value::Null, "one"), (json!("rel"), "rel")] {
        bundle.change(|config| config["linux"]["cgroupsPath"] = path);
        caller.run(&bundle.command(&["create", "-b", &bundle.path(), "one"]));
        let pid = bundle.state("one")["pid"].to_string();
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for (hierarchy, _, begin) in &caller.own {
            let want = begin.file_name().unwrap().display().to_string();
            let want = format!(":{hierarchy}:/{want}/{name}");
            assert!(table.lines().any(|line| line.ends_with(&want)), "no {want} in {table}");
        }
        // Commands of others find it.
        let _said = bundle.oci(&["start", "one"]).good();
        let pids = bundle.oci(&["ps", "-f", "json", "one"]).good();
        assert_eq!(serde_json::from_str::<Value>(&pids).unwrap(), json!([pid.parse::<u32>().unwrap()]));
        let _said = bundle.oci(&["update", "--pids-limit", "44", "one"]).good();
        let _said = bundle.oci(&["exec", "one", "true"]).good();
        let _said = bundle.oci(&["pause", "one"]).good();
        assert_eq!(bundle.status("one"), "paused");
        let limits: Vec<_> = caller
            .own
            .iter()
            .filter_map(|(.., begin)| fs::read_to_string(begin.join(name).join("pids.max")).ok())
            .collect();
        assert_eq!(limits, ["44\n"]);
        let _said = bundle.oci(&["delete", "--force", "one"]).good();
        for (.., begin) in &caller.own {
            assert!(!begin.join(name).is_dir(), "{} is left", begin.display());
        }
    }
    drop(caller);
    assert_eq!(bundle.left(), Vec::<String>::new());
}
