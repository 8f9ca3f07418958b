// SPDX-License-Identifier: Apache-2.0
//! Checks of the pod network.
//!
//! The built-in network is tried: the subnets of pods must be free on this host; then a pod is attached to
//! a bridge and detached again, in a network namespace created for the check, with the settings of this
//! host. This needs bridge, veth, addresses, routes and nftables of the kernel, and leaves nothing behind,
//! whatever fails.
//!
//! With `mode = "auto"` the check says which network attaches new pods, and why.
//!
//! For CNI, the check reads the configurations: a network must be configured, its plugins must exist and
//! support its version, and plugins with a STATUS call must report that they are ready. No plugin is called
//! to attach a pod.

use super::finding::Finding;
use crate::config::{Config, NetworkMode};
use crate::error::Chain;
use hull_network::{Bandwidth, BuiltinNetwork, Choice, Cni, Network, Pod, Provider};
use hull_sys::netns;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

const SUBJECT: &str = "pod network";
const PLUGINS: &str = "CNI plugins";
const HINT: &str = "modprobe -a bridge veth nf_tables nft_masq nft_nat, and put them in /etc/modules-load.d/hull.conf";

/// An error message, and its hint.
type Failed = (String, String);

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if !rustix::process::geteuid().is_root() {
        return vec![Finding::warning(SUBJECT, "not checked: needs root", "run `sudo hull check`")];
    }
    // The records of the daemon must not be touched: it may be running.
    let records = std::env::temp_dir().join(format!("hull-check-{}", std::process::id()));
    let mut findings = choose(config, &records)
        .and_then(|choice| of_choice(config, &choice, &records))
        .unwrap_or_else(|(found, hint)| vec![Finding::missing(SUBJECT, found, hint)]);
    match fs::remove_dir_all(&records) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => findings.push(Finding::warning(
            SUBJECT,
            format!("remove {}: {err}", records.display()),
            "remove it manually",
        )),
        _ => {}
    }
    findings
}

/// The network of new pods, decided as the daemon decides it.
fn choose(config: &Config, records: &Path) -> Result<Choice, Failed> {
    let network =
        Network::open(config.network_mode(), bridge(config, records), cni(config, records));
    network.and_then(|network| network.choose()).map_err(failed)
}

fn of_choice(config: &Config, choice: &Choice, records: &Path) -> Result<Vec<Finding>, Failed> {
    let mut findings = match choice.provider {
        Provider::Cni => plugins(config, choice, records)?,
        Provider::None => vec![Finding::good(SUBJECT, "none, as configured")],
        Provider::Builtin => vec![builtin(config, choice, records)?],
    };
    let others = recorded_by_others(config, choice.provider);
    if others > 0 {
        findings.push(Finding::warning(
            SUBJECT,
            format!("{others} pods were attached by another network than {}", choice.provider),
            "drain this node: those pods stay on the network that attached them",
        ));
    }
    Ok(findings)
}

/// Tries the built-in network, and reports a configuration of CNI that the daemon does not use.
fn builtin(config: &Config, choice: &Choice, records: &Path) -> Result<Finding, Failed> {
    let works = match config.network.mode {
        NetworkMode::Macvlan | NetworkMode::Ipvlan => {
            probe(bridge(config, records))?;
            "links on the uplink and nftables work"
        }
        NetworkMode::Auto | NetworkMode::Bridge | NetworkMode::Cni | NetworkMode::None => {
            attach(bridge(config, records))?;
            "bridge, veth, addresses and nftables work"
        }
    };
    let text = format!("{choice}; {works}");
    if config.network.wait_for_pod_cidr {
        return Ok(Finding::good(SUBJECT, format!("{text}; pods wait for the kubelet's subnets")));
    }
    Ok(Finding::good(SUBJECT, text))
}

/// The number of pods that the other network has attached, from the names of the daemon's records.
fn recorded_by_others(config: &Config, provider: Provider) -> usize {
    let count = |dir: &Path| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        names.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count()
    };
    let builtin = if provider == Provider::Builtin { 0 } else { count(&config.bridge().state_dir) };
    let cni = if provider == Provider::Cni { 0 } else { count(&config.cni().state_dir) };
    builtin + cni
}

/// The settings of the built-in network, with records of the check's own. It waits for no kubelet.
fn bridge(config: &Config, records: &Path) -> hull_network::Config {
    let of = config.bridge();
    hull_network::Config { state_dir: records.join("network"), wait_for_pod_cidr: false, ..of }
}

/// The settings of CNI, with records of the check's own.
fn cni(config: &Config, records: &Path) -> hull_network::cni::Config {
    hull_network::cni::Config { state_dir: records.join("cni"), ..config.cni() }
}

/// Checks the CNI configurations and plugins.
fn plugins(config: &Config, choice: &Choice, records: &Path) -> Result<Vec<Finding>, Failed> {
    let cni_failed = |err: hull_network::cni::Error| {
        let hint = err.hint().unwrap_or_else(|| "see the documentation of the CNI plugin".into());
        (chain(&err), hint)
    };
    let inspected = Cni::open(cni(config, records)).and_then(|cni| cni.inspect());
    let inspected = inspected.map_err(cni_failed)?;
    let mut text = inspected.networks.join("; ");
    if config.network.mode == NetworkMode::Auto {
        text = format!("{text}: {choice}");
    }
    let mut findings = vec![Finding::good(SUBJECT, text)];
    findings.extend(inspected.missing.into_iter().map(|missing| {
        let (found, hint) = cni_failed(missing);
        Finding::warning(PLUGINS, found, hint)
    }));
    findings.extend(inspected.bad.iter().map(|bad| {
        let found = format!("{} is not usable: {}", bad.file.display(), bad.why);
        Finding::warning(PLUGINS, found, "fix that file, or remove it")
    }));
    Ok(findings)
}

/// Attaches a pod to a bridge in a network namespace of its own, and detaches it.
fn attach(settings: hull_network::Config) -> Result<(), Failed> {
    let no_netns = |err: hull_sys::Error| {
        (err.to_string(), "use a kernel with CONFIG_NET_NS, and run as root".to_owned())
    };
    let (host, pod) = (netns::create().map_err(no_netns)?, netns::create().map_err(no_netns)?);
    // The routes that pods must not collide with are those of this host.
    probe(settings.clone())?;
    let id = "0".repeat(64);
    let attached = netns::within(host.as_fd(), || {
        let bridge = BuiltinNetwork::open(settings)?;
        bridge.attach(
            &Pod { id: &id, short: &id[..11] },
            pod.as_fd(),
            &[],
            Bandwidth::default(),
        )?;
        bridge.detach(&id)
    });
    attached.map_err(no_netns)?.map_err(failed)
}

/// Checks whether pods could be attached: reads the state of this host, and tries the rest in a network
/// namespace of its own.
fn probe(settings: hull_network::Config) -> Result<(), Failed> {
    BuiltinNetwork::open(settings).and_then(|bridge| bridge.check()).map_err(failed)
}

fn failed(err: hull_network::Error) -> Failed {
    let hint = err.hint().unwrap_or_else(|| HINT.to_owned());
    (chain(&err), hint)
}

/// An error with its sources, as a sentence.
fn chain(error: &dyn std::error::Error) -> String {
    format!("cannot {}", Chain(error))
}
