// SPDX-License-Identifier: Apache-2.0
//! Tries the pod network: on this host the pods' subnets must be free; then, in a network namespace of its own, with the settings of this host, a pod is
//! attached to a bridge and detached again. That wants bridge, veth, addresses, routes and nftables
//! of the kernel, and leaves nothing, whatever fails.

use super::Finding;
use crate::config::Config;
use hull_network::{Bandwidth, Bridge, Pod};
use hull_sys::netns;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

const WHAT: &str = "pod network";
const MEND: &str = "modprobe -a bridge veth nf_tables nft_masq nft_nat, and put them in /etc/modules-load.d/hull.conf";

pub(super) fn finding(config: &Config) -> Finding {
    if !rustix::process::geteuid().is_root() {
        return Finding::lacking(WHAT, "not tried: needs root", "sudo hull check");
    }
    // Where the daemon's leases lie nothing may be touched: it may be running.
    let leases = std::env::temp_dir().join(format!("hull-check-{}", std::process::id()));
    let tried = attach(config, &leases);
    let removed = match fs::remove_dir_all(&leases) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match (tried, removed) {
        (Ok(()), Ok(())) => Finding::good(WHAT, "bridge, veth, addresses and nftables work"),
        (Ok(()), Err(err)) => Finding::lacking(
            WHAT,
            format!("remove {}: {err}", leases.display()),
            "remove it by hand",
        ),
        (Err((found, mend)), _) => Finding::missing(WHAT, found, mend),
    }
}

/// Attaches and detaches; what failed and its mend.
fn attach(config: &Config, leases: &Path) -> Result<(), (String, String)> {
    let no_netns = |err: hull_sys::Error| {
        (err.to_string(), "use a kernel with CONFIG_NET_NS, and run as root".to_owned())
    };
    let (host, pod) = (netns::create().map_err(no_netns)?, netns::create().map_err(no_netns)?);
    let settings = hull_network::Config { state_dir: leases.to_owned(), ..config.bridge() };
    // Routes are looked at where they are.
    let told =
        |err: hull_network::Error| (chain(&err), err.hint().unwrap_or_else(|| MEND.to_owned()));
    Bridge::open(settings.clone()).and_then(|bridge| bridge.check()).map_err(told)?;
    let id = "0".repeat(64);
    let tried = netns::within(host.as_fd(), || {
        let bridge = Bridge::open(settings)?;
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

/// An error and what it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("cannot {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
