// SPDX-License-Identifier: Apache-2.0
//! Attaches and detaches pods for a long time while what does it is killed at random moments, and
//! plugins die in the middle of a call; then looks whether anything is left.
//!
//! `soak bridge 10000` or `soak cni 10000`, as root. It works in a network namespace of its own. The
//! process that attaches (`soak work …`) is killed after some steps, and a new one goes on with what it
//! finds, as daemons do.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a tool for people who work on the network: its output is its result"
)]

use hull_network::{
    Bandwidth, Dns, LinkMode, Mode, Network, Pod, PortMapping, Protocol, Request, RequestedNetwork,
    cni,
};
use hull_sys::netns;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const REFERENCE: &str = "/usr/lib/cni";
const BRIDGE: &str = "soak0";
const TABLE: &str = "soak";
const PODS: u16 = 8;

/// Hands on to the bridge plugin, and dies now and then: before, or when all is done but said.
const MORTAL: &str = r#"#!/bin/sh
dies() { [ "$(od -An -N1 -tu1 /dev/urandom)" -lt 10 ]; }
[ "$CNI_COMMAND" != VERSION ] && dies && kill -9 $$
said=$(/usr/lib/cni/bridge)
ended=$?
[ "$CNI_COMMAND" != VERSION ] && dies && kill -9 $$
echo "$said"
exit $ended
"#;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["work", mode, dir] => work(&open(mode, Path::new(dir)), true),
        ["settle", mode, dir] => work(&open(mode, Path::new(dir)), false),
        [mode @ ("bridge" | "cni"), cycles] => {
            let cycles: u64 = cycles.parse().unwrap();
            let host = netns::create().unwrap();
            hull_network::loopback_up(host.as_fd()).unwrap();
            let left = netns::within(host.as_fd(), || soak(mode, cycles)).unwrap();
            if left.is_empty() {
                println!("nothing is left");
                return ExitCode::SUCCESS;
            }
            println!("LEFT:\n{}", left.join("\n"));
            return ExitCode::FAILURE;
        }
        _ => {
            eprintln!("soak bridge|cni CYCLES");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs and kills workers until so many steps were done. What is left in the end.
fn soak(mode: &str, cycles: u64) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    if mode == "cni" {
        prepare_plugins(dir.path());
    }
    let worker = |verb: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([verb, mode]).arg(dir.path()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let (began, mut done, mut kills) = (Instant::now(), 0_u64, 0_u32);
    while done < cycles {
        let mut child = worker("work");
        let steps = 1 + random() % 60;
        let mut said = child.stdout.take().unwrap();
        for _ in 0..steps {
            if said.read_exact(&mut [0]).is_err() {
                break;
            }
            done += 1;
        }
        std::thread::sleep(Duration::from_micros(random() % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let mut last = worker("settle");
    assert!(last.wait().unwrap().success(), "what was left could not be taken away");
    println!("{mode}: {done} steps, {kills} kills, {:.1?}", began.elapsed());
    left(mode, dir.path())
}

/// The leftovers of pods on the host.
fn left(mode: &str, dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let said = |program: &str, args: &[&str]| {
        let ran = Command::new(program).args(args).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    let known = ["lo", BRIDGE];
    let links = said("ip", &["-o", "link", "show"]);
    let name = |line: &str| line.split(": ").nth(1).unwrap_or_default().to_owned();
    left.extend(links.lines().map(name).filter(|name| !known.contains(&name.as_str())));
    for below in ["state", "cni", "netns", "ipam/soak"] {
        let entries = fs::read_dir(dir.join(below)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        // host-local keeps its lock and the last address.
        left.extend(
            names.filter(|name| !["lock", "last_reserved_ip"].iter().any(|of| name.contains(of))),
        );
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = dir.display().to_string();
    left.extend(mounts.lines().filter(|line| line.contains(&here)).map(str::to_owned));
    if mode == "bridge" {
        let table = said("nft", &["list", "table", "inet", TABLE]);
        left.extend(table.lines().filter(|line| line.contains("elements")).map(str::to_owned));
    } else {
        let rules = said("iptables-save", &[]);
        left.extend(rules.lines().filter(|line| line.contains("10.213.255.")).map(str::to_owned));
    }
    left
}

/// Detaches what it finds; and then, when asked to, attaches and detaches for ever, and tells of
/// every step.
fn work(network: &Network, go_on: bool) {
    for pod in network.attachments() {
        while let Err(err) = network.detach(&pod) {
            // Plugins die at random here, so another try ends well.
            eprintln!("detach: {err}");
        }
    }
    if !go_on {
        return;
    }
    let mut pods: BTreeMap<u16, OwnedFd> = BTreeMap::new();
    loop {
        let number = u16::try_from(random() % u64::from(PODS)).unwrap();
        let id = format!("{number:011x}{}", "5".repeat(53));
        let there = match pods.remove(&number) {
            Some(netns) => network.detach(&id).is_err().then_some(netns),
            None => {
                let netns = netns::create().unwrap();
                attach(network, &id, number, &netns).is_ok().then_some(netns)
            }
        };
        pods.extend(there.map(|netns| (number, netns)));
        if std::io::stdout().write_all(b".").and_then(|()| std::io::stdout().flush()).is_err() {
            return;
        }
    }
}

fn attach(
    network: &Network,
    id: &str,
    number: u16,
    netns: &OwnedFd,
) -> Result<(), hull_network::Error> {
    let port = PortMapping {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_port: 9000 + number,
        host_ip: None,
    };
    let attached = network.attach(&Request {
        pod: Pod { id, short: &id[..11] },
        namespace: "soak",
        name: "pod",
        uid: "uid",
        netns: netns.as_fd(),
        ports: &[port],
        bandwidth: Bandwidth::default(),
        dns: &Dns::default(),
        cgroup: "",
        annotations: &HashMap::new(),
        network: RequestedNetwork::Configured,
    });
    attached.map(drop)
}

fn open(mode: &str, dir: &Path) -> Network {
    let builtin = hull_network::Config {
        link_mode: LinkMode::Bridge,
        uplink: None,
        bridge: BRIDGE.into(),
        pod_cidr: vec!["10.213.255.0/24".parse().unwrap(), "fd00:50ac::/112".parse().unwrap()],
        wait_for_pod_cidr: false,
        mtu: None,
        masquerade: true,
        cluster_cidrs: Vec::new(),
        table: TABLE.into(),
        state_dir: dir.join("state"),
    };
    let cni = cni::Config {
        conf_dir: dir.join("net.d"),
        bin_dirs: vec![dir.join("bin"), REFERENCE.into()],
        networks_max: 1,
        conf_template: None,
        plugin_timeout: Duration::from_secs(60),
        netns_dir: dir.join("netns"),
        state_dir: dir.join("cni"),
    };
    let mode = if mode == "bridge" { Mode::Builtin } else { Mode::Cni };
    Network::open(mode, builtin, cni).unwrap()
}

fn prepare_plugins(dir: &Path) {
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::create_dir_all(dir.join("net.d")).unwrap();
    let plugin = dir.join("bin/mortal");
    fs::write(&plugin, MORTAL).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let conf = format!(
        r#"{{"cniVersion": "1.0.0", "name": "soak", "plugins": [
            {{"type": "mortal", "bridge": "{BRIDGE}", "isGateway": true, "ipam": {{"type": "host-local",
              "dataDir": "{}", "ranges": [[{{"subnet": "10.213.255.0/24"}}]]}}}},
            {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
        dir.join("ipam").display()
    );
    fs::write(dir.join("net.d/10-soak.conflist"), conf).unwrap();
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    hull_sys::random(&mut bytes);
    u64::from_le_bytes(bytes)
}
