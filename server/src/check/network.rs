// SPDX-License-Identifier: Apache-2.0
//! Whether pods get a network here.
//!
//! The built-in one is tried: on this host the pods' subnets must be free; then, in a network namespace
//! of its own, with the settings of this host, a pod is attached to a bridge and detached again. That
//! wants bridge, veth, addresses, routes and nftables of the kernel, and leaves nothing, whatever fails.
//!
//! Plugins are judged by their set-up: there is a network, its programs are there and speak its version,
//! and those that can tell say that they are ready. None is asked to attach anything.

use super::finding::Finding;
use crate::config::{Config, NetworkMode};
use crate::error::Chain;
use hull_network::{Bandwidth, BuiltinNetwork, Cni, Pod};
use hull_sys::netns;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

const WHAT: &str = "pod network";
const PLUGINS: &str = "network plugins";
const HINT: &str = "modprobe -a bridge veth nf_tables nft_masq nft_nat, and put them in /etc/modules-load.d/hull.conf";

/// What failed, and its hint.
type Failed = (String, String);

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if !rustix::process::geteuid().is_root() {
        return vec![Finding::lacking(WHAT, "not tried: needs root", "sudo hull check")];
    }
    // Where the daemon's records lie nothing may be touched: it may be running.
    let records = std::env::temp_dir().join(format!("hull-check-{}", std::process::id()));
    let looked = match config.network.mode {
        NetworkMode::Cni => plugins(config, &records),
        NetworkMode::None => Ok(vec![Finding::good(WHAT, "none, as configured")]),
        NetworkMode::Macvlan | NetworkMode::Ipvlan => try_out(config.bridge(), &records)
            .map(|()| vec![Finding::good(WHAT, "links on the uplink and nftables work")]),
        NetworkMode::Bridge => attach(config, &records)
            .map(|()| vec![Finding::good(WHAT, "bridge, veth, addresses and nftables work")]),
    };
    let mut findings =
        looked.unwrap_or_else(|(found, hint)| vec![Finding::missing(WHAT, found, hint)]);
    match fs::remove_dir_all(&records) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => findings.push(Finding::lacking(
            WHAT,
            format!("remove {}: {err}", records.display()),
            "remove it by hand",
        )),
        _ => {}
    }
    findings
}

/// Looks at the set-up of plugins.
fn plugins(config: &Config, records: &Path) -> Result<Vec<Finding>, Failed> {
    let failed = |err: hull_network::cni::Error| {
        let hint = err.hint().unwrap_or_else(|| "see the network plugin's documentation".into());
        (chain(&err), hint)
    };
    let settings = hull_network::cni::Config { state_dir: records.to_owned(), ..config.cni() };
    let seen = Cni::open(settings).and_then(|cni| cni.inspect()).map_err(failed)?;
    let mut findings = vec![Finding::good(WHAT, seen.networks.join("; "))];
    findings.extend(seen.missing.into_iter().map(|missing| {
        let (found, hint) = failed(missing);
        Finding::lacking(PLUGINS, found, hint)
    }));
    findings.extend(seen.bad.iter().map(|bad| {
        let found = format!("{} is not usable: {}", bad.file.display(), bad.why);
        Finding::lacking(PLUGINS, found, "fix that file, or remove it")
    }));
    Ok(findings)
}

/// Attaches and detaches.
fn attach(config: &Config, leases: &Path) -> Result<(), Failed> {
    let no_netns = |err: hull_sys::Error| {
        (err.to_string(), "use a kernel with CONFIG_NET_NS, and run as root".to_owned())
    };
    let (host, pod) = (netns::create().map_err(no_netns)?, netns::create().map_err(no_netns)?);
    // Routes are looked at where they are.
    try_out(config.bridge(), leases)?;
    let settings = hull_network::Config { state_dir: leases.to_owned(), ..config.bridge() };
    let id = "0".repeat(64);
    let tried = netns::within(host.as_fd(), || {
        let bridge = BuiltinNetwork::open(settings)?;
        bridge.attach(
            &Pod { id: &id, short: &id[..11] },
            pod.as_fd(),
            &[],
            Bandwidth::default(),
        )?;
        bridge.detach(&id)
    });
    tried.map_err(no_netns)?.map_err(told)
}

/// Looks whether pods could be attached: what of it is on this host is looked at, the rest tried where
/// nobody sees it.
fn try_out(settings: hull_network::Config, leases: &Path) -> Result<(), Failed> {
    let settings = hull_network::Config { state_dir: leases.to_owned(), ..settings };
    BuiltinNetwork::open(settings).and_then(|bridge| bridge.check()).map_err(told)
}

fn told(err: hull_network::Error) -> Failed {
    let hint = err.hint().unwrap_or_else(|| HINT.to_owned());
    (chain(&err), hint)
}

/// An error and what it came from.
fn chain(error: &dyn std::error::Error) -> String {
    format!("cannot {}", Chain(error))
}
