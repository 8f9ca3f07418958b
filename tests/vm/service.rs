// SPDX-License-Identifier: Apache-2.0
//! Hull as a package and a service: installed, upgraded under running pods, watched, removed.

use super::{said, unit_is};
use hull_tests::fixture;
use hull_tests::shell::run;
use hull_tests::{eventually, paths};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A package of the program under test with this version.
fn package(version: &str) -> String {
    let mut deb = Command::new(paths::root().join("scripts/deb"));
    // Compressing takes minutes under emulation, and is not what is tested.
    deb.arg(paths::hull()).env("VERSION", version).env("COMPRESSION", "none");
    let ran = hull_tests::shell::finish(&mut deb).good();
    let path = ran.lines().last().unwrap_or_default();
    paths::root().join(path).display().to_string()
}

fn hull(args: &[&str]) -> String {
    said("/usr/bin/hull", args)
}

fn main_pid() -> String {
    said("systemctl", &["show", "hull.service", "-p", "MainPID", "--value"])
}

/// One story, because each part needs the one before: there is one `hull.service` on a machine.
#[tokio::test]
async fn it_is_installed_upgraded_under_pods_watched_and_removed() {
    let (old, new) = (package("0.0.1"), package("0.0.2"));
    said("dpkg", &["--install", &old]);
    unit_is("hull.service", "active").await;
    unit_is("hull.socket", "active").await;

    let image = fixture::busybox();
    hull(&["pull", &image]);
    hull(&[
        "run",
        "--detach",
        "--name",
        "keeps",
        &image,
        "sh",
        "-c",
        "while true; do echo tick; sleep 1; done",
    ]);
    let monitors = || {
        let shown = run("pgrep", ["-x", "hull-monitor"]).stdout;
        shown.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (daemon, monitor) = (main_pid(), monitors());
    assert_eq!(monitor.len(), 1);
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", monitor[0])).unwrap();
    assert!(cgroups.contains("/hull.service"), "not in its pod: {cgroups}");

    // The upgrade: another daemon, the same monitor, nothing lost.
    said("dpkg", &["--install", &new]);
    unit_is("hull.service", "active").await;
    assert_ne!(main_pid(), daemon);
    assert_eq!(monitors(), monitor, "the old monitor works under the new daemon");
    assert!(hull(&["exec", "keeps", "echo", "still"]).contains("still"));
    assert!(said("dpkg-query", &["-W", "-f", "${Version}", "hull"]).contains("0.0.2"));

    // Callers wait at the socket while there is no daemon.
    said("systemctl", &["stop", "hull.service"]);
    assert!(hull(&["ps"]).contains("keeps"), "the call started it again");
    unit_is("hull.service", "active").await;

    hangs_and_is_replaced().await;
    assert_eq!(monitors(), monitor);
    assert!(hull(&["ps"]).contains("keeps"));

    // Nobody could say what runs: it stays, and so does what would take it away.
    said("systemctl", &["stop", "hull.socket", "hull.service"]);
    let refused = run("dpkg", ["--remove", "hull"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("systemctl start hull.socket hull"), "{refused:?}");
    assert_eq!(monitors(), monitor);
    said("systemctl", &["start", "hull.socket", "hull.service"]);
    assert!(hull(&["exec", "keeps", "echo", "still"]).contains("still"));

    let removal = run("dpkg", ["--remove", "hull"]);
    let told = format!("{}{}", removal.stdout, removal.stderr);
    assert!(told.contains("keeps"), "running pods are mentioned: {told}");
    let _good = removal.good();
    assert_eq!(monitors(), Vec::<String>::new());
    for left in
        ["/run/hull", "/usr/bin/hull", "/sys/class/net/hull0", "/lib/systemd/system/hull.service"]
    {
        assert!(!Path::new(left).try_exists().unwrap(), "{left} is left");
    }
    assert!(!run("nft", ["list", "tables"]).stdout.contains("hull\n"));
    no_unit_is_known().await;
    said("dpkg", &["--purge", "hull"]);
    assert!(!Path::new("/var/lib/hull").try_exists().unwrap());
}

/// A daemon that hangs looks alive to everybody but its callers.
async fn hangs_and_is_replaced() {
    let before = main_pid();
    said("kill", &["-STOP", &before]);
    eventually("the watchdog has replaced it", || async {
        let now = main_pid();
        if now != before && now != "0" { Ok(()) } else { Err(format!("still {now}")) }
    })
    .await;
    unit_is("hull.service", "active").await;
}

/// systemd lets go of units a moment after they ended.
async fn no_unit_is_known() {
    eventually("systemd knows no unit of ours any more", || async {
        let units = ["list-units", "--all", "--plain", "--no-legend", "hull.*", "hull-*"];
        let shown = run("systemctl", units).stdout;
        if shown.trim().is_empty() { Ok(()) } else { Err(shown) }
    })
    .await;
}

/// The output of `hull check` after `change`, in a mount namespace of its own.
fn check_after(change: &str) -> String {
    let script = format!("({change}) > /dev/null 2>&1; exec {} check", paths::hull().display());
    run("unshare", ["--mount", "sh", "-c", &script]).stdout
}

#[test]
fn the_check_finds_this_node_fit_and_names_what_is_missing() {
    said("modprobe", &["br_netfilter"]);
    let good = check_after("true");
    assert!(good.contains("this host is ready"), "{good}");
    for part in ["AppArmor", "cgroup driver", "systemd: one scope per pod", "br_netfilter"] {
        assert!(good.contains(part), "{part} in {good}");
    }
    let over = |text: &str, path: &str| {
        format!(
            "echo {text} > /run/over; mount --bind /run/over {path}; mount -o remount,bind,ro {path}"
        )
    };
    for (change, hint) in [
        ("umount -l /sys/fs/cgroup".to_owned(), "mount cgroup v2"),
        (over("cpu io", "/sys/fs/cgroup/cgroup.controllers"), "cgroup_enable=memory"),
        (over("0", "/proc/sys/net/ipv4/ip_forward"), "sysctl net.ipv4.ip_forward=1"),
        (over("0", "/proc/sys/net/bridge/bridge-nf-call-iptables"), "bridge-nf-call-iptables=1"),
        ("mount --bind /dev/null /usr/sbin/apparmor_parser".to_owned(), "apt-get install apparmor"),
        ("mount -t tmpfs none /run/systemd".to_owned(), "cgroupfs: Hull creates"),
    ] {
        let broken = check_after(&change);
        assert!(broken.contains(hint), "after {change}: {broken}");
    }
    // Modules are the whole machine's. One that is missing is so in a mount namespace too; nothing
    // has an overlay mounted now, and nobody a bridge whose packets pass the host's rules.
    said("sh", &["-c", "rmmod br_netfilter"]);
    let broken = check_after("true");
    said("modprobe", &["br_netfilter"]);
    assert!(broken.contains("modprobe br_netfilter"), "{broken}");
    said(
        "sh",
        &["-c", "echo install overlay /bin/false > /etc/modprobe.d/none.conf; rmmod overlay"],
    );
    let broken = check_after("true");
    said("sh", &["-c", "rm /etc/modprobe.d/none.conf; modprobe overlay"]);
    assert!(broken.contains("modprobe overlay") && broken.contains("cannot run pods"), "{broken}");
}
