// SPDX-License-Identifier: Apache-2.0
//! Which crate may link which, and that each dependency of the workspace has its reason beside it.

use crate::report;
use hull_tests::{paths, shell};
use std::fs;

/// The crates of the project that each crate may link, without dev-dependencies.
const MAY_LINK: [(&str, &[&str]); 14] = [
    ("hull-proto", &[]),
    ("hull-sys", &[]),
    ("hull-cgroup", &["hull-sys"]),
    ("hull-records", &["hull-sys"]),
    ("hull-image", &["hull-sys", "hull-records"]),
    ("hull-netlink", &["hull-sys"]),
    ("hull-network", &["hull-sys", "hull-records", "hull-netlink"]),
    ("hull-streaming", &[]),
    ("hull-nri", &["hull-sys", "hull-proto"]),
    ("hull-init", &["hull-sys", "hull-cgroup"]),
    ("hull-plan", &["hull-sys", "hull-cgroup", "hull-init"]),
    ("hull-monitor", &["hull-sys", "hull-cgroup", "hull-init", "hull-proto"]),
    (
        "hull-oci",
        &["hull-sys", "hull-records", "hull-cgroup", "hull-init", "hull-plan", "hull-netlink"],
    ),
    (
        "hull",
        &[
            "hull-sys",
            "hull-records",
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

/// Crates that must not be in a crate's closure, and why.
const NEVER: [(&str, &[&str], &str); 7] = [
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
        "hull-records",
        &["tokio", "tracing"],
        "hull-oci links it: return what was set aside, and let the caller log it",
    ),
    (
        "hull-nri",
        &["tonic", "hull-plan", "oci-spec"],
        "it knows no pods of ours: hand them in as its messages",
    ),
];

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
