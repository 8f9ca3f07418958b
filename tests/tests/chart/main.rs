// SPDX-License-Identifier: Apache-2.0
//! The Helm chart, rendered by Helm: it passes `helm lint`, renders what golden/ has, makes a configuration that Hull
//! reads, and refuses values that Hull would refuse. What its installer does on a node is in tests/installer.
//!
//! `HULL_BLESS=1` writes golden/ as the chart is now.

use hull_tests::shell::{Ran, finish, run};
use hull_tests::{ExpectExt as _, paths};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of values that are rendered, each with a file in golden/.
const CASES: [&str; 2] = ["defaults", "everything"];

fn chart() -> PathBuf {
    paths::root().join("charts/hull")
}

fn here() -> PathBuf {
    paths::root().join("tests/tests/chart")
}

/// Helm, or nothing where a test may be left out.
fn helm(test: &str) -> Option<Command> {
    let Some(program) = paths::helm() else {
        paths::cannot_run(test, "helm (make tools)");
        return None;
    };
    let mut command = Command::new(program);
    // Nothing of the person who runs the tests: no repositories, no plugins, no cluster.
    let nowhere = paths::target().join("helm");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, &nowhere);
    }
    command.env_remove("KUBECONFIG");
    Some(command)
}

fn template(mut helm: Command, values: &Path, more: &[&str]) -> Ran {
    helm.args(["template", "node-runtime"]).arg(chart()).args(["--namespace", "hull-system"]);
    // The oldest Kubernetes that the chart accepts.
    helm.args(["--kube-version", "1.30.0", "--values"]).arg(values).args(more);
    finish(&mut helm)
}

fn values(case: &str) -> PathBuf {
    here().join(format!("values/{case}.yaml"))
}

#[test]
fn the_chart_passes_lint_with_each_of_the_values() {
    for case in CASES {
        let Some(mut helm) = helm("the_chart_passes_lint_with_each_of_the_values") else { return };
        helm.args(["lint", "--strict"]).arg(chart()).arg("--values").arg(values(case));
        let said = finish(&mut helm).good();
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    }
}

#[test]
fn the_chart_renders_what_it_did() {
    for case in CASES {
        let Some(helm) = helm("the_chart_renders_what_it_did") else { return };
        let rendered = template(helm, &values(case), &[]).good();
        let golden = here().join(format!("golden/{case}.yaml"));
        if std::env::var_os("HULL_BLESS").is_some() {
            fs::write(&golden, &rendered).or_fail("write a golden file");
        }
        let want = fs::read_to_string(&golden).or_fail(format!("read {}", golden.display()));
        let first = want.lines().zip(rendered.lines()).find(|(want, have)| want != have);
        assert!(
            want == rendered,
            "{case} renders differently, first at {first:?}: if that is right, run this test with HULL_BLESS=1"
        );
    }
}

/// The lines of a block scalar `key` in a rendered document, without their indent.
fn block(rendered: &str, key: &str) -> String {
    let after = rendered.lines().skip_while(|line| line.trim() != key).skip(1);
    let lines = after.take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| format!("{}\n", line.get(4..).unwrap_or_default())).collect()
}

#[test]
fn hull_reads_the_configuration_that_the_chart_makes() {
    let Some(helm) = helm("hull_reads_the_configuration_that_the_chart_makes") else { return };
    let only = ["--show-only", "templates/configmap.yaml"];
    let rendered = template(helm, &values("everything"), &only).good();
    let dir = tempfile::tempdir().or_fail("make a directory");
    let file = dir.path().join("config.toml");
    let text = block(&rendered, "chart.toml: |");
    fs::write(&file, &text).or_fail("write the configuration");
    let shown = run(paths::hull(), ["--config", &file.to_string_lossy(), "config", "show"]).good();
    let config: toml::Table = toml::from_str(&shown).or_fail("read what Hull shows");
    let rendered: toml::Table = toml::from_str(&text).or_fail("read what the chart makes");
    assert_eq!(rendered["image"]["registry"][1]["host"].as_str(), Some("other.test"));
    assert_eq!(config["image"]["layer_bytes_max"].as_integer(), Some(137_438_953_472));
    assert_eq!(config["network"]["mtu"].as_integer(), Some(1450));
    assert_eq!(config["network"]["masquerade"].as_bool(), Some(false));
    let template = config["network"]["cni"]["conf_template"].as_str();
    assert_eq!(template, Some(r#"/etc/hull/a "quoted" \ path"#));
    let mirrors = config["image"]["registry"][0]["mirrors"].as_array().or_fail("find the mirrors");
    assert_eq!(mirrors.len(), 2);
}

#[test]
fn values_that_hull_would_refuse_are_refused() {
    for (value, named) in [
        ("config.log.levle=debug", "levle"),
        ("config.network.mtu=big", "mtu"),
        ("config.image.registry[0].mirror=x", "mirror"),
        ("node.binDir=relative", "binDir"),
        ("node.binDir=/x y", "binDir"),
        ("kubelet.variable=A-B", "variable"),
        ("nodes.attempt=2", "nodes"),
        ("image.digest=sha256:short", "digest"),
    ] {
        let Some(helm) = helm("values_that_hull_would_refuse_are_refused") else { return };
        let ran = template(helm, &values("defaults"), &["--set", value]);
        assert_ne!(ran.code, 0, "{value}");
        assert!(ran.stderr.contains(named), "{value}: {ran:?}");
    }
}

#[test]
fn without_the_image_the_chart_says_what_it_needs() {
    let Some(helm) = helm("without_the_image_the_chart_says_what_it_needs") else { return };
    let ran = template(helm, &values("defaults"), &["--set", "image.repository="]);
    assert!(ran.code != 0 && ran.stderr.contains("image.repository is not set"), "{ran:?}");
}

#[test]
fn the_board_and_the_alerts_are_those_of_the_chart() {
    let test = "the_board_and_the_alerts_are_those_of_the_chart";
    for (part, file, set) in [
        ("board", "files/board.json", "monitoring.board.enabled=true"),
        ("alerts", "files/alerts.yaml", "monitoring.alerts.enabled=true"),
    ] {
        let Some(helm) = helm(test) else { return };
        let only = format!("templates/{part}.yaml");
        let ran = template(helm, &values("defaults"), &["--set", set, "--show-only", &only]);
        let Ok(source) = fs::read_to_string(chart().join(file)) else {
            assert!(ran.code != 0 && ran.stderr.contains("this chart has no"), "{ran:?}");
            continue;
        };
        let rendered = ran.good();
        if part == "board" {
            let want: Value = serde_json::from_str(&source).or_fail("read the board");
            let have: Value = serde_json::from_str(&block(&rendered, "hull.json: |-"))
                .or_fail("read the rendered board");
            assert_eq!(have, want);
        } else {
            for line in source.lines() {
                assert!(rendered.contains(line), "{line} is not in the rule: {rendered}");
            }
        }
    }
}

#[test]
fn the_versions_of_chart_and_workspace_agree() {
    let cargo = fs::read_to_string(paths::root().join("Cargo.toml")).or_fail("read Cargo.toml");
    let workspace: toml::Table = toml::from_str(&cargo).or_fail("read Cargo.toml");
    let version = workspace["workspace"]["package"]["version"].as_str().or_fail("find the version");
    let chart = fs::read_to_string(chart().join("Chart.yaml")).or_fail("read Chart.yaml");
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {version}\n");
        assert!(chart.contains(&line), "charts/hull/Chart.yaml: write `{}`", line.trim());
    }
}
