// SPDX-License-Identifier: Apache-2.0
//! What a pod consists of on the host, how it is made and how it is taken away.
//!
//! ```text
//! directory ─▶ monitor ─┬▶ network (netns, link, address) ─┬▶ hosts file
//!                       └▶ pause (holds the namespaces) ───┘
//! ```
//!
//! [`take_down`] is the only teardown: a failed start, StopPodSandbox, RemovePodSandbox and recovery
//! all come here. Each part is found by a name worked out from the pod's id, and a part that is not
//! there counts as gone; so it may run at any time, any number of times.

use super::{PodRecord, driver, files};
use crate::limits::waits;
use crate::monitors::{self, Client, Notice};
use crate::node::Node;
use crate::records;
use crate::spec;
use crate::storage::blocking;
use hull_plan::Failure;
use hull_proto::id::PodId;
use hull_proto::monitor::{Failure as MonitorFailure, Verb};
use hull_sys::files::remove_any;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Why a part of a pod could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("record it")]
    Record { source: records::Error },
    #[error("make the pod's directory")]
    MakeDirectory { source: records::Error },
    #[error("write the pod's files in {}", path.display())]
    WriteFiles { path: PathBuf, source: io::Error },
    #[error("remove the pod's directory {}", path.display())]
    RemoveDirectory { path: PathBuf, source: io::Error },
    #[error("start its monitor")]
    Monitor { source: monitors::Error },
    #[error("make its cgroup")]
    Cgroup { source: driver::Error },
    #[error("make its network namespace")]
    Netns { source: hull_sys::Error },
    #[error("open the network namespace of its pause process")]
    OpenNetns { source: io::Error },
    #[error("attach its network")]
    Attach { source: hull_network::Error },
    #[error("give it host port {port}: pod {holder} has {held}")]
    HostPort { port: String, held: String, holder: String },
    #[error("detach its network")]
    Detach { source: hull_network::Error },
    #[error("work out its sandbox")]
    Spec { source: spec::Error },
    #[error("start its pause process: {failure}")]
    Pause { failure: Box<Failure> },
    #[error("tell plugins of it")]
    Plugins { source: hull_nri::Error },
    #[error("clear its cgroup")]
    ClearCgroup { source: hull_cgroup::Error },
    /// A bug: the work on a part panicked.
    #[error("finish it")]
    Internal { source: Box<crate::error::Error> },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Record { source } | Self::MakeDirectory { source } => source.hint(),
            Self::HostPort { holder, .. } => Some(format!(
                "remove pod {holder}, use another `hostPort`, or another `hostIP` for both"
            )),
            Self::Attach { source } | Self::Detach { source } => source.hint(),
            Self::Plugins { source } => source.hint(),
            Self::Spec { source } => source.hint(),
            Self::Pause { failure } => failure.hint.clone(),
            Self::ClearCgroup { source } => source.hint(),
            Self::Cgroup { source } => source.hint(),
            Self::Internal { source } => source.hint(),
            Self::WriteFiles { .. }
            | Self::RemoveDirectory { .. }
            | Self::Monitor { .. }
            | Self::OpenNetns { .. }
            | Self::Netns { .. } => None,
        }
    }
}

/// A pod that is up.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) client: Client,
    pub(crate) pause_pid: i32,
    pub(crate) ips: Vec<IpAddr>,
}

/// The monitor of a pod that is being built.
struct Monitor<'a> {
    client: &'a Client,
    pid: i32,
}

/// Makes all parts, in order. After an error the caller runs [`take_down`].
pub(crate) async fn bring_up(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    notices: mpsc::Sender<Notice>,
) -> Result<Up, Error> {
    let host_network = record.host_network();
    timed("record and files", make_files(node, id, record)).await?;

    let socket = node.monitor_socket(id);
    let monitor = timed("monitor", async {
        let started = node.monitors.start(id, &socket, notices).await;
        started.map_err(|source| Error::Monitor { source })
    });
    let id_maps = record.id_maps();
    let netns = timed("network namespace", async {
        if host_network || id_maps.is_some() {
            return Ok(None);
        }
        let made = blocking(hull_sys::netns::create).await;
        made.map(Some).map_err(|source| Error::Netns { source })
    });
    let ((client, pid), netns) = tokio::try_join!(monitor, netns)?;
    let monitor = Monitor { client: &client, pid };

    if id_maps.is_some() {
        let (ips, pause_pid) = bring_up_mapped(node, id, record, &monitor).await?;
        write_hosts(node, id, record, &ips).await?;
        return Ok(Up { client, pause_pid, ips });
    }
    // The network needs only the namespace, pause only the monitor: side by side. Both are waited
    // for even if one fails, so that nothing is still being made when the teardown begins.
    let for_pause = netns.as_ref().map(OwnedFd::try_clone).transpose();
    let for_pause = for_pause.map_err(|source| Error::OpenNetns { source })?;
    let (ips, pause_pid) = tokio::join!(
        timed("network", attach(node, id, record, netns)),
        timed("pause", start_pause(node, id, record, &monitor, for_pause))
    );
    let (ips, pause_pid) = (ips?, pause_pid?);
    write_hosts(node, id, record, &ips).await?;
    Ok(Up { client, pause_pid, ips })
}

/// Records the pod, before anything else of it exists, and makes its directories and files.
async fn make_files(node: &Arc<Node>, id: &PodId, record: &Arc<PodRecord>) -> Result<(), Error> {
    let (node, id, record) = (Arc::clone(node), id.clone(), Arc::clone(record));
    let made = blocking(move || {
        node.pods.save(id.as_str(), &*record).map_err(|source| Error::Record { source })?;
        let files = node.pod_files(&id);
        for dir in [&node.pod_dir(&id), &files] {
            records::make_dir(dir).map_err(|source| Error::MakeDirectory { source })?;
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
async fn bring_up_mapped(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    monitor: &Monitor<'_>,
) -> Result<(Vec<IpAddr>, i32), Error> {
    let pause_pid = timed("pause", start_pause(node, id, record, monitor, None)).await?;
    if record.host_network() {
        return Ok((Vec::new(), pause_pid));
    }
    let failed = |source| Error::OpenNetns { source };
    let netns = monitor.client.pause(pause_pid).await.map_err(failed)?.netns().map_err(failed)?;
    let ips = timed("network", attach(node, id, record, Some(netns))).await?;
    Ok((ips, pause_pid))
}

/// Tells in the log how long a part took.
async fn timed<T>(part: &'static str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    tracing::debug!(part, took_us = began.elapsed().as_micros(), "part done");
    done
}

async fn attach(
    node: &Arc<Node>,
    id: &PodId,
    record: &Arc<PodRecord>,
    netns: Option<OwnedFd>,
) -> Result<Vec<IpAddr>, Error> {
    let Some(netns) = netns else { return Ok(Vec::new()) };
    let spec = |source| Error::Spec { source };
    let ports = spec::ports(&record.config).map_err(spec)?;
    let bandwidth = spec::bandwidth(&record.config.annotations).map_err(spec)?;
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
            dns: &spec::dns(&record.config),
            cgroup: &record.cgroup,
            annotations: &record.config.annotations,
        });
        attached.map_err(|source| attach_failed(&node, source))
    });
    attached.await
}

/// Whoever holds a port is told by the name that people gave it.
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
    timed("cgroup", made).await.map_err(no_cgroup)?;
    let pid = have_pause_started(node, record, monitor.client, netns).await?;
    node.driver.give_back(monitor.pid).map_err(no_cgroup)?;
    Ok(pid)
}

async fn have_pause_started(
    node: &Node,
    record: &PodRecord,
    client: &Client,
    netns: Option<OwnedFd>,
) -> Result<i32, Error> {
    let (plan, _spec) = spec::pause(node, record).map_err(|source| Error::Spec { source })?;
    let encoded = hull_plan::encode(&plan);
    let verb = Verb::StartPause { plan: encoded, netns: netns.is_some() };
    match client.start(verb, netns.into_iter().collect()).await {
        Ok(started) => Ok(started.pid),
        Err(monitors::Error::Refused { failure: MonitorFailure::Step(step) }) => {
            Err(Error::Pause { failure: Box::new(hull_plan::describe_pause(&plan, &step)) })
        }
        Err(source) => Err(Error::Monitor { source }),
    }
}

/// Takes it all away again, last part first.
///
/// It stops at the first part that will not go, because taking away what lies below would make it
/// harder to try again. `containers` are the cgroups of the pod's containers. The pod's links go with
/// its network namespace a little later, and its addresses are kept for it until then.
pub(crate) async fn take_down(
    node: &Arc<Node>,
    id: &PodId,
    record: &PodRecord,
    containers: Vec<String>,
    client: Option<Client>,
) -> Result<(), Error> {
    let (stopped, closed) = tokio::join!(
        timed("end of processes", end_processes(node, id, record, containers, client)),
        timed("network withdrawn", withdraw(node, id, record.host_network()))
    );
    stopped?;
    closed?;
    timed("network let go", release(node, id, record.host_network())).await?;
    let dirs = [node.pod_files(id), node.pod_dir(id)];
    let removed = blocking(move || {
        dirs.into_iter().try_for_each(|path| {
            remove_any(&path).map_err(|source| Error::RemoveDirectory { path, source })
        })
    });
    timed("directories removed", removed).await
}

/// Nobody is led to a pod that is going, and the next can have its ports at once.
async fn withdraw(node: &Arc<Node>, id: &PodId, host_network: bool) -> Result<(), Error> {
    if host_network {
        return Ok(());
    }
    let (node, id) = (Arc::clone(node), id.clone());
    let withdrawn = blocking(move || node.network.unpublish_ports(id.as_str())).await;
    withdrawn.map_err(|source| Error::Detach { source })
}

async fn release(node: &Arc<Node>, id: &PodId, host_network: bool) -> Result<(), Error> {
    if host_network {
        return Ok(());
    }
    let (node, id) = (Arc::clone(node), id.clone());
    let released = blocking(move || node.network.release(id.as_str())).await;
    released.map_err(|source| Error::Detach { source })
}

/// Ends every process of the pod: by its monitor where there is one that answers, and by the cgroups in
/// any case.
async fn end_processes(
    node: &Arc<Node>,
    id: &PodId,
    record: &PodRecord,
    containers: Vec<String>,
    client: Option<Client>,
) -> Result<(), Error> {
    let client = match client {
        Some(client) => Some(client),
        None => find_monitor(node, id).await,
    };
    let shutdown = match client {
        Some(client) => shut_down(id, &client).await,
        None => Shutdown::Unresponsive,
    };
    let (node, id) = (Arc::clone(node), id.clone());
    let mut paths = cgroups(record, containers);
    // Whatever a record says, what goes by the pod's own name is the pod's.
    paths.push(node.driver.own(&id));
    let pod = record.cgroup.clone();
    let cleared = blocking(move || {
        if shutdown == Shutdown::Unresponsive && monitors::kill(&id) {
            tracing::warn!(pod = %id, "monitor that did not answer killed");
        }
        paths.iter().try_for_each(|path| clear_cgroup(&node.cgroups, path, &pod))?;
        // Nothing of the pod is left that it could wait for.
        if shutdown == Shutdown::InProgress && monitors::kill(&id) {
            tracing::warn!(pod = %id, "monitor that did not end with its pod killed");
        }
        Ok(())
    });
    cleared.await.map_err(|source| Error::ClearCgroup { source })
}

/// The cgroups of a pod that are ours to clear, inner ones first.
fn cgroups(record: &PodRecord, containers: Vec<String>) -> Vec<String> {
    let mut paths = containers;
    paths.push(format!("{}/{}", record.cgroup, record.id));
    if record.cgroup_is_ours {
        paths.push(record.cgroup.clone());
    }
    paths
}

/// The monitor's response to the end of its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    Done,
    /// It answers, but is not done yet.
    InProgress,
    /// It does not answer, or there is no connection.
    Unresponsive,
}

/// Has the monitor end its pod.
async fn shut_down(id: &PodId, client: &Client) -> Shutdown {
    if client.hangs() {
        return Shutdown::Unresponsive;
    }
    let asked = client.tell(Verb::Shutdown, Vec::new());
    match tokio::time::timeout(waits::SHUTDOWN_MAX, asked).await {
        Ok(Ok(())) => Shutdown::Done,
        // The cgroups have to do it.
        Ok(Err(err)) => {
            tracing::warn!(pod = %id, error = %err, "monitor did not shut its pod down");
            Shutdown::Unresponsive
        }
        Err(_) => {
            tracing::warn!(pod = %id, "monitor has not shut its pod down yet; clearing cgroups without it");
            match client.is_alive().await {
                Ok(()) => Shutdown::InProgress,
                Err(_) => Shutdown::Unresponsive,
            }
        }
    }
}

/// The monitor of a pod whose connection we do not have (any more).
async fn find_monitor(node: &Node, id: &PodId) -> Option<Client> {
    let (notices, _nobody) = mpsc::channel(1);
    let socket = node.monitor_socket(id);
    // Bounded by what a monitor may take to answer.
    node.monitors.reach(&socket, notices).await.ok().map(|(client, _)| client)
}

/// Kills what is in a cgroup, also what is frozen in it or by its pod's cgroup `pod`; waits until it is empty,
/// and removes it. A path that cannot be a cgroup's never was one: there is nothing to be cleared.
pub(crate) fn clear_cgroup(
    host: &hull_cgroup::CgroupFs,
    path: &str,
    pod: &str,
) -> Result<(), hull_cgroup::Error> {
    use hull_cgroup::Cgroup;
    let Ok(cgroup) = Cgroup::at(host, path) else {
        tracing::warn!(path, "recorded path is not a cgroup's; nothing to clear");
        return Ok(());
    };
    if !cgroup.exists()? {
        return Ok(());
    }
    match Cgroup::at(host, pod) {
        Ok(pod) => cgroup.kill_and_remove_within(&pod, waits::EMPTY_MAX),
        Err(_) => cgroup.kill_and_remove(waits::EMPTY_MAX),
    }
}
