// SPDX-License-Identifier: Apache-2.0
//! House rules that no lint knows: what every file begins with, how long things may be, which crate
//! may link which, what tests may not do. Each message says what to do instead.

use hull_tests::rust_source::functions;
use hull_tests::{Must as _, paths, shell};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const TEST_FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const SPDX: &str = "// SPDX-License-Identifier: Apache-2.0";
/// Folders that hold no source of ours.
const NOT_OURS: [&str; 4] = ["target", ".git", ".cache", "node_modules"];

/// Who may link which of our crates, beside dev-dependencies.
const MAY_LINK: [(&str, &[&str]); 12] = [
    ("hull-proto", &[]),
    ("hull-sys", &[]),
    ("hull-cgroup", &["hull-sys"]),
    ("hull-image", &["hull-sys"]),
    ("hull-network", &["hull-sys"]),
    ("hull-streaming", &[]),
    ("hull-nri", &["hull-sys", "hull-proto"]),
    ("hull-init", &["hull-sys", "hull-cgroup"]),
    ("hull-plan", &["hull-sys", "hull-cgroup", "hull-init"]),
    ("hull-monitor", &["hull-sys", "hull-cgroup", "hull-init", "hull-proto"]),
    ("hull-oci", &["hull-sys", "hull-cgroup", "hull-init", "hull-plan"]),
    (
        "hull",
        &[
            "hull-sys",
            "hull-cgroup",
            "hull-plan",
            "hull-image",
            "hull-network",
            "hull-streaming",
            "hull-nri",
            "hull-proto",
        ],
    ),
];

/// What must not be in a crate's closure, and why.
const NEVER: [(&str, &[&str], &str); 6] = [
    (
        "hull-monitor",
        &["serde", "serde_json", "oci-spec", "tokio", "tonic", "prost", "hull-plan"],
        "its memory is paid once per pod: let the daemon work it out and send the result in borsh",
    ),
    (
        "hull-init",
        &["serde", "serde_json", "oci-spec", "tokio", "hull-proto"],
        "it runs between clone and exec in the monitor: it takes a Plan and knows no documents",
    ),
    (
        "hull-plan",
        &["tokio", "hull-proto"],
        "planning is pure: do the waiting and the CRI in server/",
    ),
    (
        "hull-oci",
        &["tokio", "clap", "tracing", "hull-proto"],
        "it is started for every step of a container's life: it has to be there at once",
    ),
    ("hull-cgroup", &["serde", "tokio"], "the monitor links it"),
    (
        "hull-nri",
        &["tonic", "hull-plan", "oci-spec"],
        "it knows no pods of ours: hand them in as its messages",
    ),
];

struct Source {
    /// From the project's folder.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests")
    }
}

fn sources() -> Vec<Source> {
    let root = paths::root();
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 20, "tidy found hardly any source below {}", root.display());
    let read = |file: PathBuf| Source {
        text: fs::read_to_string(&file).must(format!("read {}", file.display())),
        path: file.strip_prefix(&root).must("shorten a path").to_owned(),
    };
    files.into_iter().map(read).collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for name in shell::names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) && !name.starts_with("target-") {
                walk(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} to put right:\n  {}\n", wrong.len(), wrong.join("\n  "));
}

#[test]
fn every_file_begins_with_its_licence_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for Source { path, text } in sources() {
        let path = path.display();
        let mut lines = text.lines();
        if lines.next() != Some(SPDX) {
            wrong.push(format!("{path}: make its first line `{SPDX}`"));
        } else if !lines.next().is_some_and(|line| line.starts_with("//! ") && line.len() > 12) {
            wrong.push(format!("{path}: begin with a module doc (`//! …`): what it owns, the rule it keeps, what it does not do"));
        }
    }
    report(&wrong);
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.display();
        let (lines, most) = (
            source.text.lines().count(),
            if source.is_test() { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX },
        );
        if lines > most {
            wrong.push(format!(
                "{path}: {lines} lines: split it by what its parts own (at most {most})"
            ));
        }
        for function in functions(&source.text) {
            if function.lines > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "{path}:{}: `{}` is {} lines: name its parts as functions (at most {FUNCTION_LINES_MAX})",
                    function.line, function.name, function.lines
                ));
            }
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    // Put together here, so that this file does not find itself.
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "XX".to_owned() + "X"];
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            let marked = marks.iter().find(|mark| comment.contains(mark.as_str()));
            if let Some(mark) = marked.filter(|_| !comment.contains('#')) {
                let at = format!("{}:{}", source.path.display(), number + 1);
                wrong
                    .push(format!("{at}: do it now, or open an issue and write `{mark}(#number)`"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn tests_neither_sleep_nor_are_passed_over() {
    let ignored = "#[".to_owned() + "ignore";
    let sleeps = "sleep".to_owned() + "(";
    let mut wrong = Vec::new();
    for source in sources() {
        let waits_for_all = source.path.ends_with("tests/src/eventually.rs");
        let mut in_tests = source.is_test();
        for (number, line) in source.text.lines().enumerate() {
            in_tests |= line.starts_with("#[cfg(test)]");
            let at = || format!("{}:{}", source.path.display(), number + 1);
            if line.contains(&ignored) {
                wrong.push(format!(
                    "{}: let it run, or fail with what this machine lacks (`paths::cannot_run`)",
                    at()
                ));
            }
            if in_tests && !waits_for_all && line.contains(&sleeps) {
                wrong.push(format!(
                    "{}: wait for a state with `eventually`, not for time to pass",
                    at()
                ));
            }
        }
    }
    report(&wrong);
}

#[test]
fn unsafe_code_is_only_in_sys() {
    let allows = "(unsafe".to_owned() + "_code";
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.path.starts_with("runtime/sys") && source.text.contains(&allows) {
            wrong.push(format!(
                "{}: move the call to runtime/sys, one wrapper with its SAFETY sentence",
                source.path.display()
            ));
        }
    }
    report(&wrong);
}

/// Every crate in the closure of `package`, as it is built alone: features of others do not count.
fn closure(package: &str, depth: &str) -> Vec<String> {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo
        .current_dir(paths::root())
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"])
        .args(["--depth", depth]);
    let listed = shell::finish(&mut cargo).good();
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    // The first line is the package itself.
    listed.lines().skip(1).map(name).collect()
}

#[test]
fn crates_link_only_in_the_directions_of_the_design() {
    let mut wrong = Vec::new();
    for (package, may) in MAY_LINK {
        for linked in closure(package, "1") {
            if linked.starts_with("hull-") && !may.contains(&linked.as_str()) {
                wrong.push(format!(
                    "{package} links {linked}: it may link {may:?}; move what both need into one of those, or pass it in as a value"
                ));
            }
        }
    }
    for (package, never, instead) in NEVER {
        for linked in closure(package, "99") {
            if never.contains(&linked.as_str()) {
                wrong.push(format!("{package} has {linked} in its closure: {instead}"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn every_dependency_of_the_workspace_says_why() {
    let text = fs::read_to_string(paths::root().join("Cargo.toml")).unwrap();
    let dependencies = text.split("[workspace.dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let mut wrong = Vec::new();
    let mut above = "";
    for line in dependencies.lines() {
        let third_party = line.contains(" = ") && !line.contains("path = ");
        if third_party && !line.contains('#') && !above.starts_with('#') {
            wrong.push(format!("Cargo.toml: write beside `{line}` why it is there"));
        }
        above = line;
    }
    report(&wrong);
}
