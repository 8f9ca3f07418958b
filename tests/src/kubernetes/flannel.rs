// SPDX-License-Identifier: Apache-2.0
//! Flannel on a cluster, as its users install it: a DaemonSet on the network of the nodes, whose pods install the
//! plugin and its configuration, and set routes to the subnets of the other nodes.

use super::layout::{self, Layout};
use super::machine::Machine;
use super::{images, programs};
use crate::expect::ExpectExt;
use crate::fixture::dynamic;
use crate::image::{self, Image};
use crate::layer::Layer;
use crate::registry::Registry;
use serde_json::json;
use std::fs;
use std::path::Path;

const MANIFEST: &str = include_str!("../../kubernetes/manifests/flannel.yaml");

/// Packages of `nft` and `iptables`, and their libraries.
const PACKAGES: [&str; 13] = [
    "nftables",
    "iptables",
    "libc6",
    "libbsd0",
    "libedit2",
    "libgmp10",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnftables1",
    "libnftnl11",
    "libtinfo6",
    "libxtables12",
];

/// Makes the image and puts it beside the others in `registry`, once.
pub fn push(registry: &Path, programs: &Path) {
    let marker = registry.join("made-flannel");
    let recipe = format!("{}{}", include_str!("flannel.rs"), programs::version(programs));
    let mark = image::digest(recipe.as_bytes());
    if fs::read_to_string(&marker).is_ok_and(|made| made == mark) {
        return;
    }
    // Its rules are nftables; with `iptables` it removes those that an earlier one may have made.
    let tools = ["usr/sbin/nft", "usr/sbin/xtables-nft-multi"];
    let layer = dynamic(Layer::new(), &tools, &PACKAGES)
        .symlink("usr/sbin/iptables", "xtables-nft-multi")
        .symlink("usr/sbin/ip6tables", "xtables-nft-multi")
        .copy("flanneld", &programs.join("flanneld"))
        .copy("flannel", &programs.join("flannel-cni"));
    let config = json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]});
    let packed = Image::new(vec![images::base().tar(), layer.tar()], config).pack();
    let served = Registry::start_kept(registry);
    let _reference = served.push("flannel-io/flannel", "project", &packed);
    drop(served);
    fs::write(&marker, mark).or_fail(format!("write {}", marker.display()));
}

/// Installs it; its pods run as soon as nodes are there.
pub fn install(hub: &Machine, layout: &Layout) {
    let subnets: Vec<&str> = layout.pods().split(',').collect();
    let mut network = json!({
        "Network": subnets[0], "EnableNFTables": true, "Backend": {"Type": "host-gw"},
    });
    if let Some(subnet) = subnets.get(1) {
        network["EnableIPv6"] = json!(true);
        network["IPv6Network"] = json!(subnet);
    }
    let text = MANIFEST
        .replace("@NETWORK@", &network.to_string())
        .replace("@CNI_CONF@", layout::CNI_CONF)
        .replace("@CNI_BIN@", layout::CNI_BIN);
    let file = layout::root().join("flannel.yaml");
    fs::write(&file, text).or_fail("write the manifest of Flannel");
    let name = file.display().to_string();
    let _output = layout::kubectl(hub, layout, &["apply", "-f", &name]).good();
}
