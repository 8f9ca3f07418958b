// SPDX-License-Identifier: Apache-2.0
//! The installer of the chart on a node that is a directory: it installs, upgrades, goes back after a failed gate,
//! switches a kubelet and gives it back. Hull itself is not run; `tests/vm/service.rs` has its units on a real systemd.

mod machine;

use machine::{Machine, Release};

/// Asserts that `calls` has these, in this order, among others.
#[track_caller]
fn in_order(calls: &[String], wanted: &[&str]) {
    let mut rest = calls.iter();
    for want in wanted {
        assert!(rest.any(|call| call == want), "`{want}` is not there in its place: {calls:#?}");
    }
}

#[track_caller]
fn never(calls: &[String], part: &str) {
    assert!(!calls.iter().any(|call| call.contains(part)), "`{part}`: {calls:#?}");
}

const FILES: [&str; 5] = [
    "usr/local/bin/hull",
    "etc/systemd/system/hull.service",
    "etc/systemd/system/hull.socket",
    "etc/hull/config.toml.d/90-chart.toml",
    "etc/modules-load.d/hull-chart.conf",
];

#[test]
fn a_node_gets_binary_units_and_configuration_and_its_pod_is_ready() {
    let machine = Machine::new();
    let _ran = machine.start_pod(Release::working("one")).good();
    let calls = machine.calls();
    in_order(
        &calls,
        &[
            "systemd-run",
            "modprobe -q overlay",
            "hull one config show",
            "hull one check",
            "systemctl daemon-reload",
            "systemctl enable hull.socket hull.service",
            "systemctl start hull.socket",
            "systemctl restart hull.service",
            "hull one serve",
            "hull one info /run/hull/hull.sock",
        ],
    );
    never(&calls, "kubelet");
    assert_eq!(machine.installed().as_deref(), Some("one"));
    for file in FILES {
        assert!(machine.file(file).is_some(), "{file}");
    }
    assert_eq!(machine.mode("usr/local/bin/hull"), 0o755);
    let service = machine.file("etc/systemd/system/hull.service").unwrap();
    assert!(service.contains("\nExecStart=/usr/local/bin/hull serve\n"), "{service}");
    assert!(machine.file("etc/hull/config.toml.d/90-chart.toml").unwrap().contains("debug"));
    let _ran = machine.ready().good();

    // The pod starts again, as after a restart of the kubelet: nothing of the node changes.
    let _calls = machine.calls();
    let ran = machine.start_pod(Release::working("one"));
    assert!(ran.stdout.contains("is installed already"), "{ran:?}");
    never(&machine.calls(), "restart");
    let _ran = machine.ready().good();
}

#[test]
fn the_pod_is_not_ready_while_the_daemon_does_not_answer() {
    let machine = Machine::new();
    let _ran = machine.start_pod(Release::working("one")).good();
    let _ran = machine.ready().good();
    machine.touch("daemon-is-dead");
    assert_ne!(machine.ready().code, 0);
}

#[test]
fn an_upgrade_replaces_the_binary_and_restarts_only_the_daemon() {
    let mut machine = Machine::new();
    let _ran = machine.start_pod(Release::working("one")).good();
    let _calls = machine.calls();
    let _ran = machine.start_pod(Release::working("two")).good();
    let calls = machine.calls();
    assert_eq!(machine.installed().as_deref(), Some("two"));
    in_order(&calls, &["systemctl restart hull.service", "hull two serve"]);
    never(&calls, "stop");
    let _ran = machine.ready().good();

    // Another address is a new socket.
    machine.set("SOCKET", "/run/other/hull.sock");
    let _ran = machine.start_pod(Release::working("two")).good();
    in_order(
        &machine.calls(),
        &["systemctl stop hull.service hull.socket", "systemctl start hull.socket"],
    );
    let socket = machine.file("etc/systemd/system/hull.socket").unwrap();
    assert!(socket.contains("\nListenStream=/run/other/hull.sock\n"), "{socket}");
}

#[test]
fn an_upgrade_that_fails_its_gate_goes_back_and_is_not_tried_again() {
    for broken in [&["serve"][..], &["info"], &["config"]] {
        let mut machine = Machine::new();
        let _ran = machine.start_pod(Release::working("one")).good();
        let _calls = machine.calls();
        let bad = Release { name: "two", broken };
        let ran = machine.start_pod(bad);
        let why = format!("two cannot {}", broken[0]);
        assert!(ran.stdout.contains(&why), "{ran:?}");
        assert_eq!(machine.installed().as_deref(), Some("one"), "{broken:?}");
        in_order(
            &machine.calls(),
            &[
                "systemctl restart hull.service",
                "hull one serve",
                "hull one info /run/hull/hull.sock",
            ],
        );
        let ran = machine.ready();
        assert!(ran.code != 0 && ran.stderr.contains(&why), "{ran:?}");

        // The kubelet starts the pod again.
        let ran = machine.start_pod(bad);
        assert!(ran.stdout.contains("failed on this node before"), "{ran:?}");
        never(&machine.calls(), "systemd-run");
        assert_ne!(machine.ready().code, 0);

        // A person asks for another attempt.
        machine.set("ATTEMPT", "2");
        let _ran = machine.start_pod(bad);
        in_order(&machine.calls(), &["systemd-run"]);
        assert_eq!(machine.installed().as_deref(), Some("one"));
        let _ran = machine.start_pod(Release::working("three")).good();
        assert_eq!(machine.installed().as_deref(), Some("three"));
        let _ran = machine.ready().good();
    }
}

#[test]
fn a_first_installation_that_fails_leaves_nothing() {
    for broken in [&["check"][..], &["serve"], &["info"]] {
        let machine = Machine::new();
        let ran = machine.start_pod(Release { name: "one", broken });
        assert!(ran.stdout.contains(&format!("one cannot {}", broken[0])), "{ran:?}");
        for file in FILES {
            assert_eq!(machine.file(file), None, "{broken:?}: {file}");
        }
        in_order(&machine.calls(), &["systemctl disable --now hull.service hull.socket"]);
        assert_ne!(machine.ready().code, 0);
    }
}

/// A node with a kubelet that runs on containerd.
fn with_kubelet() -> Machine {
    let mut machine = Machine::new();
    machine.set("KUBELET", "true");
    machine.write("etc/default/kubelet", "KUBELET_EXTRA_ARGS=\"--v=2 --node-ip=192.0.2.1\"\n");
    machine.write("run/containerd/containerd.sock", "");
    machine.touch("kubelet-runs");
    machine
}

const DROPIN: &str = "etc/systemd/system/kubelet.service.d/90-hull.conf";

#[test]
fn a_kubelet_is_pointed_at_hull_and_given_back() {
    let machine = with_kubelet();
    let _ran = machine.start_pod(Release::working("one")).good();
    in_order(
        &machine.calls(),
        &[
            "hull one info /run/hull/hull.sock",
            "systemctl stop kubelet.service",
            "hull one rm --force --all /run/containerd/containerd.sock",
            "systemctl disable --now containerd.service",
            "systemctl daemon-reload",
            "systemctl start kubelet.service",
        ],
    );
    let arguments = "KUBELET_EXTRA_ARGS=--v=2 --node-ip=192.0.2.1 --container-runtime-endpoint=unix:///run/hull/hull.sock\n";
    assert_eq!(machine.file("etc/hull/kubelet.env").as_deref(), Some(arguments));
    assert!(machine.file(DROPIN).unwrap().contains("EnvironmentFile=/etc/hull/kubelet.env"));
    let _ran = machine.ready().good();

    // An upgrade leaves the kubelet alone.
    let _ran = machine.start_pod(Release::working("two")).good();
    never(&machine.calls(), "kubelet");

    let _ran = machine.uninstall().good();
    in_order(
        &machine.calls(),
        &[
            "systemctl stop kubelet.service",
            "hull two rm --force --all /run/hull/hull.sock",
            "systemctl enable --now containerd.service",
            "systemctl start kubelet.service",
            "systemctl disable --now hull.service hull.socket",
        ],
    );
    assert_eq!(machine.file(DROPIN), None);
    for file in FILES {
        assert_eq!(machine.file(file), None, "{file}");
    }
    assert_eq!(machine.file("var/lib/hull-installer/current"), None);
}

#[test]
fn a_kubelet_that_does_not_run_on_hull_gets_its_runtime_back() {
    for (fault, reason) in [
        ("kubelet-refuses", "the kubelet failed: activating"),
        ("kubelet-ignores", "does not use KUBELET_EXTRA_ARGS"),
    ] {
        let machine = with_kubelet();
        machine.touch(fault);
        let ran = machine.start_pod(Release::working("one"));
        assert!(ran.stdout.contains(reason), "{ran:?}");
        in_order(
            &machine.calls(),
            &[
                "systemctl disable --now containerd.service",
                "systemctl start kubelet.service",
                "systemctl stop kubelet.service",
                "systemctl enable --now containerd.service",
                "systemctl start kubelet.service",
                "systemctl disable --now hull.service hull.socket",
            ],
        );
        assert_eq!(machine.file(DROPIN), None);
        assert!(machine.has("kubelet-runs"), "the kubelet runs again");
        assert_eq!(machine.installed(), None);

        // The pod comes back on the former runtime, and must not switch the kubelet again and again.
        let _ran = machine.start_pod(Release::working("one"));
        assert_eq!(machine.calls(), Vec::<String>::new());
    }
}

#[test]
fn pods_that_the_former_runtime_cannot_remove_keep_their_runtime() {
    let machine = with_kubelet();
    let ran = machine.start_pod(Release { name: "one", broken: &["rm"] });
    assert!(
        ran.stdout.contains("removing the pods of /run/containerd/containerd.sock failed"),
        "{ran:?}"
    );
    let calls = machine.calls();
    never(&calls, "disable --now containerd");
    in_order(&calls, &["systemctl stop kubelet.service", "systemctl start kubelet.service"]);
    assert_eq!(machine.file(DROPIN), None);
}

#[test]
fn values_that_a_shell_would_read_are_refused() {
    for (name, value) in
        [("BIN_DIR", "/x$(touch hacked)"), ("FORMER_UNIT", "a b"), ("SOCKET", "/x';id;'")]
    {
        let mut machine = Machine::new();
        machine.set(name, value);
        let ran = machine.start_pod(Release::working("one"));
        assert!(ran.code != 0 && ran.stderr.contains(&format!("{name} may have only")), "{ran:?}");
        assert_eq!(machine.calls(), Vec::<String>::new());
        assert_eq!(machine.installed(), None);
    }
}

#[test]
fn a_node_with_a_package_of_hull_is_left_alone() {
    let machine = Machine::new();
    machine.write("lib/systemd/system/hull.service", "");
    let ran = machine.start_pod(Release::working("one"));
    assert!(ran.code != 0 && ran.stderr.contains("hint: remove the package"), "{ran:?}");
    assert_eq!(machine.calls(), Vec::<String>::new());
}

#[test]
fn only_the_last_two_releases_stay_on_the_node() {
    let machine = Machine::new();
    for name in ["one", "two", "three"] {
        let _ran = machine.start_pod(Release::working(name)).good();
    }
    let releases =
        hull_tests::shell::names(&machine.root().join("var/lib/hull-installer/releases"));
    assert_eq!(releases.len(), 2, "{releases:?}");
}
