// SPDX-License-Identifier: Apache-2.0
//! Which values settings may have beyond their types. Pure.

use super::log_filter::Filter;
use super::logs::{self, Logs};
use super::settings::{
    Cgroup, Config, Driver, Image, Log, Metrics, Network, Nri, Runtime, Tracing,
};
use super::shown::without_account;
use super::size::LAYER_MIN;
use crate::limits::ulimits::Ulimit;
use crate::systemd::names;
use hull_sys::text::shown;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, in bytes: `sun_path` without the closing NUL.
const SOCKET_BYTES_MAX: usize = 107;
/// Longest state directory, in bytes: a monitor listens at `<state_dir>/run/<64 digits>/monitor.sock`.
const STATE_DIR_BYTES_MAX: usize = SOCKET_BYTES_MAX - "/run/".len() - 64 - "/monitor.sock".len();
/// Longest name of a link, in bytes: `IFNAMSIZ` without the closing NUL.
const LINK_NAME_BYTES_MAX: usize = 15;
/// Most subnets of a cluster's pods: each is a rule that packets from pods pass.
const CLUSTER_CIDRS_MAX: usize = 32;
/// Smallest limit on the memory of calls, in bytes: one message of 16 MiB, twice, and some to grow.
const CALL_MEMORY_BYTES_MIN: u64 = 48 << 20;
/// MTUs of links in bytes: from the smallest of IPv4 (RFC 791) to the largest of a veth link (`ETH_MAX_MTU`).
const MTU: RangeInclusive<u32> = 68..=65_535;
/// The same with IPv6: RFC 8200, section 5.
const MTU_OF_V6: RangeInclusive<u32> = 1_280..=65_535;
/// Fewest bits of a subnet that number its hosts: network, bridge, a pod, and broadcast.
const HOST_BITS_MIN: u8 = 2;
/// Longest time for a plugin, in milliseconds: all pods of the node wait for it.
const PLUGIN_MS_MAX: u64 = 600_000;

/// Longest value that is shown in a message, in bytes.
const SHOWN_BYTES: usize = 256;

/// A setting whose value cannot be used: its key, and the reason.
pub(super) type Invalid = (&'static str, String);

/// Checks every value, section by section; the first that cannot be used is the error.
pub(super) fn validate(config: &Config) -> Result<(), Invalid> {
    absolute("state_dir", [&config.state_dir])?;
    absolute("data_dir", [&config.data_dir])?;
    absolute("socket", [&config.socket])?;
    fits_sockets("state_dir", &config.state_dir, STATE_DIR_BYTES_MAX)?;
    fits_sockets("socket", &config.socket, SOCKET_BYTES_MAX)?;
    runtime(&config.runtime)?;
    cgroup(&config.cgroup)?;
    network(&config.network)?;
    nri(&config.nri)?;
    log(&config.log)?;
    container_logs(&config.logs)?;
    metrics(&config.metrics)?;
    tracing(&config.tracing)?;
    image(&config.image)
}

fn absolute<'p>(
    key: &'static str,
    paths: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<(), Invalid> {
    match paths.into_iter().find(|path| !path.is_absolute()) {
        Some(path) => Err((key, format!("`{}` is not an absolute path", path.display()))),
        None => Ok(()),
    }
}

fn fits_sockets(key: &'static str, path: &Path, bytes_max: usize) -> Result<(), Invalid> {
    if path.as_os_str().len() <= bytes_max {
        return Ok(());
    }
    let path = path.display();
    Err((key, format!("`{path}` is longer than {bytes_max} bytes, too long for sockets (unix(7))")))
}

fn positive(key: &'static str, value: u64) -> Result<(), Invalid> {
    if value == 0 { Err((key, "it must be at least 1".into())) } else { Ok(()) }
}

fn runtime(runtime: &Runtime) -> Result<(), Invalid> {
    absolute("runtime.seccomp_root", [&runtime.seccomp_root])?;
    absolute("runtime.cdi_spec_dirs", &runtime.cdi_spec_dirs)?;
    absolute("runtime.hooks_dir", &runtime.hooks_dir)?;
    absolute("runtime.subuid_file", [&runtime.subuid_file])?;
    absolute("runtime.subgid_file", [&runtime.subgid_file])?;
    let is_name = |name: &&String| !name.is_empty() && !name.contains([':', '#', '\n', ' ']);
    if let Some(name) = runtime.userns_user.as_ref().filter(|name| !is_name(name)) {
        let why = format!("`{}` is not the name of a user", shown(name, SHOWN_BYTES));
        return Err(("runtime.userns_user", why));
    }
    absolute("runtime.blockio_config_file", &runtime.blockio_config_file)?;
    absolute("runtime.criu", &runtime.criu)?;
    for limit in &runtime.default_ulimits {
        let bad = |why| ("runtime.default_ulimits", format!("`{limit}`: {why}"));
        Ulimit::parse(limit).map_err(bad)?;
    }
    // A single answer with the largest output has to fit.
    if runtime.call_memory_bytes_max < CALL_MEMORY_BYTES_MIN {
        let why = format!("one call needs at least {CALL_MEMORY_BYTES_MIN} bytes");
        return Err(("runtime.call_memory_bytes_max", why));
    }
    if let Some(size) = runtime.writable_layer_size.filter(|size| *size < LAYER_MIN) {
        let why = format!("{size} is less than {LAYER_MIN}");
        return Err(("runtime.writable_layer_size", why));
    }
    positive("runtime.shm_bytes", runtime.shm_bytes)?;
    positive("runtime.exec_syncs_max", runtime.exec_syncs_max as u64)?;
    positive("runtime.launch_timeout_s", runtime.launch_timeout_s)
}

fn cgroup(cgroup: &Cgroup) -> Result<(), Invalid> {
    let parent = &cgroup.parent;
    let is_path =
        parent.starts_with('/') && parent.len() >= 2 && !parent.split('/').any(|part| part == "..");
    let is_slice = cgroup.driver != Driver::Cgroupfs && names::slice(parent).is_ok();
    if is_path || is_slice {
        return Ok(());
    }
    let why = format!(
        "`{parent}` is neither an absolute path below the root nor, for the systemd driver, a slice"
    );
    Err(("cgroup.parent", why))
}

fn network(network: &Network) -> Result<(), Invalid> {
    let subnets = &network.pod_cidr;
    let of_v6 = subnets.iter().filter(|net| net.addr().is_ipv6()).count();
    if of_v6 > 1 || subnets.len() - of_v6 > 1 {
        let why = "it must name one IPv4 subnet, one IPv6 subnet, or one of each".into();
        return Err(("network.pod_cidr", why));
    }
    if let Some(small) =
        subnets.iter().find(|net| net.max_prefix_len() - net.prefix_len() < HOST_BITS_MIN)
    {
        let most = small.max_prefix_len() - HOST_BITS_MIN;
        let why = format!(
            "`{small}` has no room for pods: a subnet has at most /{most}, since its bridge has an address as well"
        );
        return Err(("network.pod_cidr", why));
    }
    if network.wait_for_pod_cidr && !subnets.is_empty() {
        let why =
            "pods do not wait for the kubelet if `network.pod_cidr` is set; remove one of them"
                .into();
        return Err(("network.wait_for_pod_cidr", why));
    }
    let (range, why) = if of_v6 > 0 {
        (MTU_OF_V6, ", as `network.pod_cidr` has an IPv6 subnet")
    } else {
        (MTU, "")
    };
    if let Some(mtu) = network.mtu.filter(|mtu| !range.contains(mtu)) {
        let why = format!("{mtu} is not within {} to {} bytes{why}", range.start(), range.end());
        return Err(("network.mtu", why));
    }
    if network.cluster_cidrs.len() > CLUSTER_CIDRS_MAX {
        let why = format!("it has more than {CLUSTER_CIDRS_MAX} subnets");
        return Err(("network.cluster_cidrs", why));
    }
    let cni = &network.cni;
    absolute("network.cni.conf_dir", [&cni.conf_dir])?;
    absolute("network.cni.netns_dir", [&cni.netns_dir])?;
    absolute("network.cni.bin_dirs", &cni.bin_dirs)?;
    positive("network.cni.networks_max", cni.networks_max as u64)?;
    positive("network.cni.plugin_timeout_s", cni.plugin_timeout_s)?;
    positive("network.cni.gc_interval_s", cni.gc_interval_s)?;
    let name = &network.bridge;
    if name.is_empty() || name.len() > LINK_NAME_BYTES_MAX || name.contains(['/', ' ']) {
        let why = format!("`{name}` is not a name of a link: 1 to {LINK_NAME_BYTES_MAX} letters");
        return Err(("network.bridge", why));
    }
    Ok(())
}

fn nri(nri: &Nri) -> Result<(), Invalid> {
    absolute("nri.socket", [&nri.socket])?;
    absolute("nri.plugin_path", [&nri.plugin_path])?;
    absolute("nri.plugin_config_path", [&nri.plugin_config_path])?;
    fits_sockets("nri.socket", &nri.socket, SOCKET_BYTES_MAX)?;
    let times = [
        ("nri.registration_timeout_ms", nri.registration_timeout_ms),
        ("nri.request_timeout_ms", nri.request_timeout_ms),
    ];
    match times.into_iter().find(|(_, value)| !(1..=PLUGIN_MS_MAX).contains(value)) {
        Some((key, value)) => Err((key, format!("{value} is not within 1 to {PLUGIN_MS_MAX}"))),
        None => Ok(()),
    }
}

fn log(log: &Log) -> Result<(), Invalid> {
    Filter::parse(&log.level).map(drop).map_err(|why| ("log.level", why))
}

fn container_logs(of: &Logs) -> Result<(), Invalid> {
    absolute("logs.journald_socket", [&of.journald_socket])?;
    fits_sockets("logs.journald_socket", &of.journald_socket, SOCKET_BYTES_MAX)?;
    logs::validate(of)
}

/// All of TLS or nothing of it; and nothing of it only where no other machine can connect.
fn metrics(metrics: &Metrics) -> Result<(), Invalid> {
    let files = [
        ("metrics.tls_cert", &metrics.tls_cert),
        ("metrics.tls_key", &metrics.tls_key),
        ("metrics.client_ca", &metrics.client_ca),
    ];
    for (key, file) in files {
        absolute(key, file)?;
    }
    let given = files.iter().filter(|(_, file)| file.is_some()).count();
    if let Some((key, _)) = files.into_iter().find(|(_, file)| file.is_none() && given > 0) {
        return Err((
            key,
            "it is not set, and TLS needs all of tls_cert, tls_key and client_ca".into(),
        ));
    }
    match metrics.address {
        None if given > 0 => Err((
            "metrics.address",
            "it is not set, so that the files of TLS have no effect; set it, or remove them".into(),
        )),
        Some(address) if given == 0 && !address.ip().is_loopback() => Err((
            "metrics.address",
            format!(
                "other machines reach {address}: set tls_cert, tls_key and client_ca, or an address of loopback such as 127.0.0.1:{}",
                address.port()
            ),
        )),
        None | Some(_) => Ok(()),
    }
}

fn tracing(tracing: &Tracing) -> Result<(), Invalid> {
    if let Some(endpoint) = &tracing.endpoint {
        let rest = ["https://", "http://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
        let host = rest.and_then(|rest| rest.split('/').next());
        if host.is_none_or(str::is_empty) {
            let endpoint = shown(without_account(endpoint), SHOWN_BYTES);
            let why = format!("`{endpoint}` is not an address such as http://127.0.0.1:4317");
            return Err(("tracing.endpoint", why));
        }
    }
    let files = [
        ("tracing.ca_file", &tracing.ca_file),
        ("tracing.client_cert", &tracing.client_cert),
        ("tracing.client_key", &tracing.client_key),
    ];
    let is_tls = tracing.endpoint.as_ref().is_some_and(|of| of.starts_with("https://"));
    for (key, file) in files {
        absolute(key, file)?;
        if file.is_some() && !is_tls {
            let why = "`tracing.endpoint` is not an `https://` address, so it has no effect";
            return Err((key, why.into()));
        }
    }
    for (key, file, other) in [
        ("tracing.client_cert", &tracing.client_cert, &tracing.client_key),
        ("tracing.client_key", &tracing.client_key, &tracing.client_cert),
    ] {
        if file.is_none() && other.is_some() {
            let why = "it is not set, and a client certificate needs client_cert and client_key";
            return Err((key, why.into()));
        }
    }
    if tracing.sample_percent > 100 {
        let why = format!("{} is not within 0 to 100", tracing.sample_percent);
        return Err(("tracing.sample_percent", why));
    }
    Ok(())
}

fn image(image: &Image) -> Result<(), Invalid> {
    positive("image.concurrent_layers", image.concurrent_layers as u64)?;
    positive("image.stall_s", image.stall_s)?;
    absolute("image.config_path", &image.config_path)?;
    absolute("image.docker_config", &image.docker_config)?;
    absolute("image.policy", &image.policy)?;
    match image.registry.iter().find(|registry| registry.host.is_empty()) {
        Some(_) => Err(("image.registry", "an entry has no `host`".into())),
        None => Ok(()),
    }
}

/// Checks the address of a mirror: it needs a scheme, and each pull would refuse one with an account.
pub(super) fn mirror(address: &str) -> Result<(), String> {
    let hidden = without_account(address);
    let has_account = hidden != address;
    let hidden = shown(hidden, SHOWN_BYTES);
    if has_account {
        return Err(format!("`{hidden}` has an account in it, and mirrors get none; remove it"));
    }
    let rest = ["https://", "http://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.trim_start_matches('/').is_empty() => Ok(()),
        Some(_) => Err(format!("`{hidden}` has no host")),
        None => Err(format!(
            "`{hidden}` has no scheme: write `https://{hidden}`, or `http://{hidden}` for one without TLS"
        )),
    }
}
