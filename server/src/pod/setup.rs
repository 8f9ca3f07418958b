// SPDX-License-Identifier: Apache-2.0
//! The setup of a pod on the host.
//!
//! ```text
//! directory ─▶ monitor ─┬▶ network (netns, link, address) ─┬▶ hosts file
//!                       └▶ pause (holds the namespaces) ───┘
//! ```
//!
//! After an error the caller runs [`take_down`](super::teardown::take_down).

use super::error::Error;
use super::files;
use super::pause_plan::pause_plan;
use super::record::PodRecord;
use super::run_pods;
use crate::history::timed;
use crate::monitors::{self, Client, MonitorEvent};
use crate::node::Node;
use crate::oci_spec;
use crate::records;
use crate::storage::blocking;
use hull_network::RequestedNetwork;
use hull_proto::id::PodId;
use hull_proto::monitor::{Command, Failure as MonitorFailure};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A pod that is up.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) client: Client,
    pub(crate) pause_pid: i32,
    pub(crate) ips: Vec<IpAddr>,
}

/// The stage of a pod's timeline that all of this is a part of.
const STAGE: &str = "start pod";

/// The monitor of a pod that is being built.
struct Monitor<'a> {
    client: &'a Client,
    pid: i32,
}

/// Makes all parts, in order. After an error the caller runs [`take_down`].
pub(crate) async fn setup(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    monitor_events: mpsc::Sender<MonitorEvent>,
) -> Result<Sandbox, Error> {
    let host_network = record.host_network();
    timed(&node.history, id.as_str(), (STAGE, "record and files"), make_files(node, id, record))
        .await?;

    let socket = node.monitor_socket(id);
    let monitor = timed(&node.history, id.as_str(), (STAGE, "monitor"), async {
        let started = node.monitors.start(id, &socket, monitor_events).await;
        if started.is_ok() {
            node.metrics.monitors_started.count(&[]);
        }
        started.map_err(|source| Error::Monitor { source })
    });
    let id_maps = record.id_maps();
    let netns = timed(&node.history, id.as_str(), (STAGE, "network namespace"), async {
        if host_network || id_maps.is_some() {
            return Ok(None);
        }
        let made = blocking(hull_sys::netns::create).await;
        made.map(Some).map_err(|source| Error::Netns { source })
    });
    let ((client, pid), netns) = tokio::try_join!(monitor, netns)?;
    let monitor = Monitor { client: &client, pid };

    if id_maps.is_some() {
        let (ips, pause_pid) = setup_in_user_namespace(node, id, record, &monitor).await?;
        write_hosts(node, id, record, &ips).await?;
        return Ok(Sandbox { client, pause_pid, ips });
    }
    // The network needs only the namespace, pause only the monitor: side by side. Both are waited
    // for even if one fails, so that nothing is still being made when the teardown begins.
    let for_pause = netns.as_ref().map(OwnedFd::try_clone).transpose();
    let for_pause = for_pause.map_err(|source| Error::OpenNetns { source })?;
    let (ips, pause_pid) = tokio::join!(
        timed(&node.history, id.as_str(), (STAGE, "network"), attach(node, id, record, netns)),
        timed(
            &node.history,
            id.as_str(),
            (STAGE, "pause"),
            start_pause(node, id, record, &monitor, for_pause)
        )
    );
    let (ips, pause_pid) = (ips?, pause_pid?);
    write_hosts(node, id, record, &ips).await?;
    Ok(Sandbox { client, pause_pid, ips })
}

/// Records the pod, before anything else of it exists, and makes its directories and files.
async fn make_files(node: &Arc<Node>, id: &PodId, record: &Arc<PodRecord>) -> Result<(), Error> {
    let (node, id, record) = (Arc::clone(node), id.clone(), Arc::clone(record));
    let made = blocking(move || {
        node.pods.save(id.as_str(), &*record).map_err(|source| Error::Record { source })?;
        let files = node.pod_files(&id);
        for dir in [&node.pod_dir(&id), &files] {
            records::create_dir(dir).map_err(|source| Error::MakeDirectory { source })?;
        }
        files::write(&files, &record.config, record.host_network())
            .map_err(|source| Error::WriteFiles { path: files, source })
    });
    made.await
}

async fn write_hosts(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    ips: &[IpAddr],
) -> Result<(), Error> {
    if record.host_network() {
        return Ok(());
    }
    let (dir, record, ips) = (node.pod_files(id), Arc::clone(record), ips.to_vec());
    let written = blocking(move || {
        files::write_hosts(&dir, &record.config, &ips)
            .map_err(|source| Error::WriteFiles { path: dir, source })
    });
    written.await
}

/// Pause, then the network: a pod with a user namespace may configure its network only if that
/// belongs to the user namespace, so pause makes both.
async fn setup_in_user_namespace(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    monitor: &Monitor<'_>,
) -> Result<(Vec<IpAddr>, i32), Error> {
    let pause_pid = timed(
        &node.history,
        id.as_str(),
        (STAGE, "pause"),
        start_pause(node, id, record, monitor, None),
    )
    .await?;
    if record.host_network() {
        return Ok((Vec::new(), pause_pid));
    }
    let failed = |source| Error::OpenNetns { source };
    let netns = monitor.client.pause(pause_pid).await.map_err(failed)?.netns().map_err(failed)?;
    let ips = timed(
        &node.history,
        id.as_str(),
        (STAGE, "network"),
        attach(node, id, record, Some(netns)),
    )
    .await?;
    Ok((ips, pause_pid))
}

async fn attach(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    netns: Option<OwnedFd>,
) -> Result<Vec<IpAddr>, Error> {
    let Some(netns) = netns else { return Ok(Vec::new()) };
    let spec = |source| Error::Spec { source };
    let ports = oci_spec::ports(&record.config).map_err(spec)?;
    let bandwidth = oci_spec::bandwidth(&record.config.annotations).map_err(spec)?;
    let (node, id, record) = (Arc::clone(node), id.clone(), Arc::clone(record));
    let attached = blocking(move || {
        let metadata = record.config.metadata.clone().unwrap_or_default();
        let attached = node.network.attach(&hull_network::Request {
            pod: hull_network::Pod { id: id.as_str(), short: id.short() },
            namespace: &metadata.namespace,
            name: &metadata.name,
            uid: &metadata.uid,
            netns: netns.as_fd(),
            ports: &ports,
            bandwidth,
            dns: &oci_spec::dns(&record.config),
            cgroup: &record.cgroup,
            annotations: &record.config.annotations,
            network: requested_network(&record),
        });
        attached.map_err(|source| attach_failed(&node, source))
    });
    attached.await
}

/// The network of a pod: that of its request, else that of its handler, else that of the node.
fn requested_network(record: &PodRecord) -> RequestedNetwork<'_> {
    let of_handler = || record.handler_settings.as_ref().and_then(|of| of.network.as_deref());
    match run_pods::network(&record.config).or_else(of_handler) {
        None => RequestedNetwork::Configured,
        Some("none") => RequestedNetwork::Loopback,
        Some(name) => RequestedNetwork::Cni(name),
    }
}

/// Names the pod that holds a port by `namespace/name` where that is known.
fn attach_failed(node: &Node, source: hull_network::Error) -> Error {
    let hull_network::Error::PortTaken { port, held, holder } = source else {
        return Error::Attach { source };
    };
    Error::HostPort {
        port: port.to_string(),
        held: held.to_string(),
        holder: node.registry.pod(&holder).map_or(holder, |pod| pod.view().record.full_name()),
    }
}

/// Starts pause in the pod's cgroup.
async fn start_pause(
    node: &Node,
    id: &PodId,
    record: &PodRecord,
    monitor: &Monitor<'_>,
    netns: Option<OwnedFd>,
) -> Result<i32, Error> {
    let no_cgroup = |source| Error::Cgroup { source };
    let made = node.driver.make(&node.cgroups, id, &record.cgroup, monitor.pid);
    timed(&node.history, id.as_str(), (STAGE, "cgroup"), made).await.map_err(no_cgroup)?;
    let pid = request_pause(node, record, monitor.client, netns).await?;
    node.driver.release(monitor.pid).map_err(no_cgroup)?;
    Ok(pid)
}

async fn request_pause(
    node: &Node,
    record: &PodRecord,
    client: &Client,
    netns: Option<OwnedFd>,
) -> Result<i32, Error> {
    let (plan, _spec) = pause_plan(node, record).map_err(|source| Error::Spec { source })?;
    let encoded = hull_plan::encode(&plan);
    let command = Command::StartPause { plan: encoded, netns: netns.is_some() };
    match client.start(command, netns.into_iter().collect()).await {
        Ok(started) => Ok(started.pid),
        Err(monitors::Error::Refused { failure: MonitorFailure::Step(step) }) => {
            Err(Error::Pause { failure: Box::new(hull_plan::diagnose_pause(&plan, &step)) })
        }
        Err(source) => Err(Error::Monitor { source }),
    }
}
