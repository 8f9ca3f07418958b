// SPDX-License-Identifier: Apache-2.0
//! Calls that only some crates may make, outside of tests. clippy has one list for the whole workspace and its
//! tests (`clippy.toml`), so what is right in one crate and wrong in another is held here.

use crate::lexer;
use crate::modules::without_tests;
use crate::report;
use crate::sources::sources;

/// A call, what to do instead, and the crates that may make it, each with the reason.
struct Ban {
    call: &'static str,
    instead: &'static str,
    but: &'static [(&'static str, &'static str)],
}

const BANS: [Ban; 3] = [
    Ban {
        call: "Command::new",
        instead: "have no program started: call the kernel, or hand the work to a crate that may",
        but: &[
            ("server/src/apparmor", "loads the default profile with apparmor_parser"),
            ("server/nri", "starts pre-installed plugins"),
            ("image/src/credentials", "credential helpers are programs"),
            ("network/src/cni", "CNI plugins are programs"),
            ("runtime/oci", "`hull oci ps` prints what ps(1) does"),
            ("server/build.rs", "builds the embedded programs"),
        ],
    },
    Ban {
        call: "thread::sleep",
        instead: "wait for the event, with a deadline",
        but: &[
            ("network", "the kernel reports no event when both ends of a new link are up"),
            ("runtime/cgroup", "version 1 has no event for a cgroup that is empty or frozen"),
        ],
    },
    Ban {
        call: "tokio::fs::",
        instead: "hand blocking file work to a thread that may block, whole",
        but: &[],
    },
];

#[test]
fn calls_are_made_only_where_they_are_right() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test() && !is_example(&source.path)) {
        let path = source.path.display().to_string();
        let code = without_tests(&lexer::split(&source.text).code);
        for ban in &BANS {
            let allowed = ban.but.iter().any(|(place, _)| source.path.starts_with(place));
            if !allowed && code.lines().any(|line| calls(line, ban.call)) {
                let but = ban.but.iter().map(|(place, why)| format!("\n    {place}: {why}"));
                let but: String = but.collect();
                wrong.push(format!("{path} has `{}`: {}; exceptions:{but}", ban.call, ban.instead));
            }
        }
    }
    report(&wrong);
}

/// Whether the line calls it: `std::process::Command::new(` does, `MyCommand::new(` does not.
fn calls(line: &str, call: &str) -> bool {
    line.match_indices(call).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        // A path that goes on is a module, such as tokio's.
        let called = call.ends_with("::") || line[at + call.len()..].starts_with('(');
        called && before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    })
}

fn is_example(path: &std::path::Path) -> bool {
    path.components().any(|part| part.as_os_str() == "examples")
}

#[test]
fn only_calls_of_that_very_name_count() {
    assert!(calls("let a = std::process::Command::new(x)", "Command::new"));
    assert!(calls("Command::new(x)", "Command::new"));
    assert!(!calls("SubCommand::new(x)", "Command::new"));
}
