// SPDX-License-Identifier: Apache-2.0
//! Checks of the pod network.
//!
//! The built-in network is tried: the subnets of pods must be free on this host; then a pod is attached to
//! a bridge and detached again, in a network namespace created for the check, with the settings of this
//! host. This needs bridge, veth, addresses, routes and nftables of the kernel, and leaves nothing behind,
//! whatever fails.
//!
//! For CNI, the check reads the configurations: a network must be configured, its plugins must exist and
//! support its version, and plugins with a STATUS call must report that they are ready. No plugin is called
//! to attach a pod.

use super::finding::Finding;
use crate::config::{Config, NetworkMode};
use crate::error::Chain;
use hull_network::{Bandwidth, BuiltinNetwork, Cni, Pod};
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
    let checked = match config.network.mode {
        NetworkMode::Cni => cni(config, &records),
        NetworkMode::None => Ok(vec![Finding::good(SUBJECT, "none, as configured")]),
        NetworkMode::Macvlan | NetworkMode::Ipvlan => probe(config.bridge(), &records)
            .map(|()| vec![Finding::good(SUBJECT, "links on the uplink and nftables work")]),
        NetworkMode::Bridge => attach(config, &records)
            .map(|()| vec![Finding::good(SUBJECT, "bridge, veth, addresses and nftables work")]),
    };
    let mut findings =
        checked.unwrap_or_else(|(found, hint)| vec![Finding::missing(SUBJECT, found, hint)]);
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

/// Checks the CNI configurations and plugins.
fn cni(config: &Config, records: &Path) -> Result<Vec<Finding>, Failed> {
    let cni_failed = |err: hull_network::cni::Error| {
        let hint = err.hint().unwrap_or_else(|| "see the documentation of the CNI plugin".into());
        (chain(&err), hint)
    };
    let settings = hull_network::cni::Config { state_dir: records.to_owned(), ..config.cni() };
    let inspected = Cni::open(settings).and_then(|cni| cni.inspect()).map_err(cni_failed)?;
    let mut findings = vec![Finding::good(SUBJECT, inspected.networks.join("; "))];
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
fn attach(config: &Config, leases: &Path) -> Result<(), Failed> {
    let no_netns = |err: hull_sys::Error| {
        (err.to_string(), "use a kernel with CONFIG_NET_NS, and run as root".to_owned())
    };
    let (host, pod) = (netns::create().map_err(no_netns)?, netns::create().map_err(no_netns)?);
    // The routes that pods must not collide with are those of this host.
    probe(config.bridge(), leases)?;
    let settings = hull_network::Config { state_dir: leases.to_owned(), ..config.bridge() };
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
fn probe(settings: hull_network::Config, leases: &Path) -> Result<(), Failed> {
    let settings = hull_network::Config { state_dir: leases.to_owned(), ..settings };
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
