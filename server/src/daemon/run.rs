// SPDX-License-Identifier: Apache-2.0
//! The daemon, read down: open what is on disk, recover, listen, serve, drain.

use super::call_log::CallLog;
use super::call_memory::Budgeted;
use super::connection::Connection;
use super::directories;
use super::gc;
use super::in_flight::InFlight;
use super::measured::Measured;
use super::metrics_server::{self, MetricsServer};
use super::network_claim;
use super::reload;
use super::service::{self, Service};
use super::signals::Signals;
use super::socket;
use super::stop_requests::StopRequests;
use super::timelines;
use super::timeout::DeadlineLayer;
use crate::apparmor::AppArmor;
use crate::config::{Config, Loaded, Source};
use crate::container::hooks::Bundles;
use crate::container::plans::Plans;
use crate::cri::Cri;
use crate::error::{Chain, Error as VerbError};
use crate::history::History;
use crate::metrics::Metrics;
use crate::monitors::{self, Monitors};
use crate::node::{Node, PodCidr, Shared};
use crate::nri;
use crate::observe::log_level::LogLevel;
use crate::pod::driver::{self, Driver};
use crate::pod::recover;
use crate::records::{self, Store};
use crate::storage::blocking;
use crate::streaming::Streaming;
use crate::tracer::{self, Tracer};
use hull_network::Network;
use hull_proto::admin::hull_server::HullServer;
use hull_proto::containerd::containers::containers_server::ContainersServer;
use hull_proto::containerd::tasks::tasks_server::TasksServer;
use hull_proto::containerd::version::version_server::VersionServer;
use hull_proto::cri::image_service_server::ImageServiceServer;
use hull_proto::cri::runtime_service_server::RuntimeServiceServer;
use hull_sys::SocketFile;
use rustix::fd::{AsFd as _, OwnedFd};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::{debug, info, warn};

/// Longest message either way, in bytes: what the kubelet's client takes.
const MESSAGE_BYTES_MAX: usize = crate::limits::MESSAGE_BYTES.count();
/// How long calls under way may take once we were told to end.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How long a connection may take to carry its last answer, or to end when it has none.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("serve as user {uid}: only root can run containers")]
    NotRoot { uid: u32 },
    #[error("start the runtime's threads")]
    Threads { source: io::Error },
    #[error("make the daemon's directories")]
    Directories { source: records::Error },
    #[error(transparent)]
    Directory { source: directories::Error },
    #[error(transparent)]
    Socket { source: socket::Error },
    #[error("keep a second descriptor of the socket")]
    Backlog { source: io::Error },
    #[error("listen on loopback for exec and port-forward")]
    Streaming { source: io::Error },
    #[error(transparent)]
    Metrics { source: metrics_server::Error },
    #[error(transparent)]
    Tracing { source: tracer::Error },
    #[error("open the image store")]
    Images { source: hull_image::Error },
    #[error("open the pod network")]
    Network { source: hull_network::Error },
    #[error("open the pod network")]
    NetworkClaim { source: network_claim::Error },
    #[error("find out about this host's cgroups")]
    Cgroups { source: hull_cgroup::Error },
    #[error("choose the cgroup driver")]
    Driver { source: driver::Error },
    #[error("prepare the pod programs")]
    Monitors { source: monitors::Error },
    #[error("recover what was running")]
    Recover { source: VerbError },
    #[error("wait for signals")]
    Signals { source: io::Error },
    #[error("serve calls")]
    Serve { source: tonic::transport::Error },
}

impl Error {
    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotRoot { .. } => {
                Some("run it with sudo, or as a service: `systemctl start hull`".into())
            }
            Self::Directory { source } => source.hint(),
            Self::Socket { source } => source.hint(),
            Self::Directories { source } => source.hint(),
            Self::Metrics { source } => source.hint(),
            Self::Images { source } => source.hint(),
            Self::Network { source } => source.hint(),
            Self::NetworkClaim { source } => source.hint(),
            Self::Cgroups { source } => source.hint(),
            Self::Driver { source } => source.hint(),
            Self::Recover { source } => source.hint(),
            Self::Tracing { source } => Some(source.hint().into()),
            Self::Threads { .. }
            | Self::Backlog { .. }
            | Self::Streaming { .. }
            | Self::Monitors { .. }
            | Self::Signals { .. }
            | Self::Serve { .. } => None,
        }
    }
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(loaded: Loaded, log_level: Arc<LogLevel>) -> Result<(), Error> {
    let Loaded { config, source, origins: _ } = loaded;
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Err(Error::NotRoot { uid: uid.as_raw() });
    }
    // Files of pods and layers of images have modes of their own, whatever the daemon was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Before there are threads.
    if !hull_sys::heap::return_freed_memory() {
        warn!("the allocator keeps large allocations that were freed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::Threads { source })?;
    // It may wait for a program, and nothing waits for us yet.
    let (apparmor, failed) = AppArmor::prepare(&config.state_dir);
    if let Some(failed) = failed {
        warn!(error = %Chain(&failed), hint = failed.hint(), "no default AppArmor profile");
    }
    let served = runtime.block_on(run(config, (source, log_level), apparmor));
    // Monitors go on; blocking work that hangs on storage must not keep us from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Makes the daemon's directories its own, for as long as the locks are kept.
fn lock_directories(config: &Config) -> Result<(File, Option<File>), Error> {
    let directory = |source| Error::Directory { source };
    directories::check("state_dir", &config.state_dir).map_err(directory)?;
    directories::check("data_dir", &config.data_dir).map_err(directory)?;
    records::create_dir(&config.state_dir).map_err(|source| Error::Directories { source })?;
    let state = directories::lock(&config.state_dir).map_err(directory)?;
    let data = directories::lock_data(&config.data_dir).map_err(directory)?;
    Ok((state, data))
}

async fn run(
    config: Config,
    live: (Source, Arc<LogLevel>),
    apparmor: AppArmor,
) -> Result<(), Error> {
    // From the beginning: a signal that asks for something waits, and no other one ends the daemon.
    let signals = Signals::survive().map_err(|source| Error::Signals { source })?;
    let _locks = lock_directories(&config)?;
    let claim = network_claim::claim(&config);
    let _claim = claim.map_err(|source| Error::NetworkClaim { source })?;
    let socket = config.socket.clone();
    // Bound before the recovery: callers wait in the backlog instead of failing.
    let (listener, own_socket) = listen(&socket).map_err(|source| Error::Socket { source })?;
    // Kept open to the end: while calls in progress are finished, new callers wait in the backlog.
    let backlog = listener.as_fd().try_clone_to_owned();
    let backlog = backlog.map_err(|source| Error::Backlog { source })?;
    let (plugins, plugin_host) = hull_nri::prepare();
    let metrics = MetricsServer::listen(&config).await;
    let metrics = metrics.map_err(|source| Error::Metrics { source })?;
    let node = Arc::new(open(config, live, apparmor, plugins)?);
    let metrics_socket = metrics.start(&node);
    recover::recover(&node).await.map_err(|source| Error::Recover { source })?;
    timelines::resume(&node);
    gc::start(&node);
    let (history, tracer) = (Arc::clone(&node.history), Arc::clone(&node.tracer));
    // The first thing that they receive is the list of what runs.
    nri::start(&node, plugin_host);
    info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let service = Service::find();
    service.say("READY=1");
    verify_layers(&node);

    tokio::spawn(Service::find().live(socket.clone()));
    for source in node.denials.sources() {
        tokio::spawn(hear_denials(Arc::clone(&node), source));
    }
    let streaming = Streaming::start(Arc::clone(&node));
    let streaming = streaming.await.map_err(|source| Error::Streaming { source })?;
    let cri = Cri::new(Arc::clone(&node), streaming);
    let requested = StopRequests::listen().map_err(|source| Error::Signals { source })?;
    let calls = InFlight::new();
    let call_log = CallLog::default();
    reload::start(&node, signals, call_log.clone());
    let budget = Budgeted(Arc::clone(&node.call_memory));
    let serving = Server::builder()
        .layer(Measured { metrics: Arc::clone(&node.metrics), tracer: Arc::clone(&node.tracer) })
        .layer(calls.clone())
        .layer(call_log)
        .layer(DeadlineLayer)
        .layer(budget)
        .add_routes(services(cri))
        .serve_with_incoming_shutdown(connections(listener), shutdown(requested.clone(), service));
    let served = tokio::select! {
        served = serving => served.map_err(|source| Error::Serve { source }),
        () = drained(requested, &calls) => Ok(()),
    };
    for file in own_socket.iter().chain([&metrics_socket]) {
        socket::remove(file);
    }
    drop(backlog);
    blocking(move || {
        history.write();
        tracer.finish();
    })
    .await;
    info!("ended; pods go on running");
    served
}

/// Resolves at the first request to end.
async fn shutdown(mut requested: StopRequests, service: Service) {
    requested.wait_for(1).await;
    service.say("STOPPING=1");
    info!("shutdown requested; calls in progress are finished first, unless it is requested again");
}

/// Listens where the configuration says, or takes over what systemd listens on, whose file stays where it is: the next
/// daemon is handed it.
fn listen(path: &Path) -> Result<(UnixListener, Option<SocketFile>), socket::Error> {
    match service::handed_listener() {
        Some(handed) => socket::adopt(handed, path).map(|listener| (listener, None)),
        None => socket::listen(path).map(|(listener, file)| (listener, Some(file))),
    }
}

/// The connections of clients, as they come.
fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    UnixListenerStream::new(listener).map(|stream| stream.map(Connection::new))
}

/// All services of the socket: CRI's, the methods of containerd that cAdvisor calls, and Hull's own.
fn services(cri: Cri) -> Routes {
    let runtime = RuntimeServiceServer::new(cri.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let image = ImageServiceServer::new(cri.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(runtime)
        .add_service(image)
        .add_service(VersionServer::new(cri.clone()))
        .add_service(ContainersServer::new(cri.clone()))
        .add_service(TasksServer::new(cri.clone()))
        .add_service(HullServer::new(cri).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// Verifies layers in the background, beside the first calls.
fn verify_layers(node: &Arc<Node>) {
    let node = Arc::clone(node);
    drop(tokio::task::spawn_blocking(move || {
        // After a boot: what a power cut has left is found before it is used. Who needs a layer before
        // that looks itself.
        node.images.scan_layers();
        // What containers of an earlier daemon have written counts without anybody asking for each.
        node.layers.refresh(&node.images);
        // Of what the start has run, little is run again.
        match hull_sys::drop_code_pages() {
            Ok(bytes) => debug!(bytes, "let go of the program's pages"),
            Err(err) => debug!(error = %err, "the program's pages stay"),
        }
    }));
}

/// Opens all that a node consists of.
fn open(
    config: Config,
    (config_source, log_level): (Source, Arc<LogLevel>),
    apparmor: AppArmor,
    plugins: hull_nri::Plugins,
) -> Result<Node, Error> {
    let directories = |source| Error::Directories { source };
    let (images, problems) =
        hull_image::Store::open(config.images()).map_err(|source| Error::Images { source })?;
    for problem in problems {
        tracing::error!(problem = %problem, "image record set aside");
    }
    if let Err(err) = images.check_writable() {
        tracing::error!(error = %Chain(&err), hint = err.hint(),
            "data_dir is read-only: what is there is served, pulls and new containers are refused");
    }
    let settings_store = Store::open(config.state_dir.join("node")).map_err(directories)?;
    let (subnets, aside) = settings_store.load::<PodCidr>(|_, _| Ok(())).map_err(directories)?;
    for bad in aside {
        tracing::error!(path = %bad.path.display(), why = %bad.why,
            "the kubelet's pod subnets cannot be read and were set aside; restart the kubelet");
    }
    let network = network(&config, subnets.into_iter().next())?;
    let cgroups = hull_cgroup::CgroupFs::detect().map_err(|source| Error::Cgroups { source })?;
    let driver = Driver::choose(&config.cgroup, &cgroups);
    let driver = driver.map_err(|source| Error::Driver { source })?;
    let monitors = Monitors::prepare().map_err(|source| Error::Monitors { source })?;
    let user_namespaces = monitors.try_user_namespaces(&config.data_dir);
    if let Err(why) = &user_namespaces {
        warn!(why, "pods cannot have user namespaces on this node");
    }
    let (metrics, history) = (Arc::new(Metrics::default()), config.state_dir.join("history"));
    let tracer = Tracer::start(&config.tracing).map_err(|source| Error::Tracing { source })?;
    let tracer = Arc::new(tracer);
    let node = Node::new(Shared {
        images: Arc::new(images),
        network,
        cgroups,
        driver,
        host: hull_plan::HostFacts::read(),
        apparmor,
        monitors,
        user_namespaces,
        pods: Store::open(config.state_dir.join("pods")).map_err(directories)?,
        containers: Store::open(config.state_dir.join("containers")).map_err(directories)?,
        plans: Plans::open(config.state_dir.join("plans")).map_err(directories)?,
        bundles: Bundles::open(config.state_dir.join("bundles")).map_err(directories)?,
        settings: settings_store,
        history: History::open(history, Arc::clone(&metrics), Arc::clone(&tracer)),
        metrics,
        tracer,
        plugins,
        config,
        config_source,
        log_level,
    });
    records::create_dir(&node.run_dir()).map_err(directories)?;
    records::create_dir(&node.rootfs_dir()).map_err(directories)?;
    Ok(node)
}

/// Reads denials as they arrive, while the processes that they name can still be inspected.
async fn hear_denials(node: Arc<Node>, source: OwnedFd) {
    #[expect(
        deprecated,
        reason = "what is deprecated is a descriptor that can change; an OwnedFd's cannot"
    )]
    let Ok(source) = AsyncFd::with_interest(source, Interest::READABLE) else { return };
    while let Ok(mut ready) = source.readable().await {
        // Before it is read: what comes meanwhile is another event.
        ready.clear_ready();
        node.denials.read_on();
    }
}

/// The pods' network, with the subnets that the kubelet told an earlier daemon.
fn network(config: &Config, saved: Option<PodCidr>) -> Result<Network, Error> {
    let failed = |source| Error::Network { source };
    let network = Network::open(config.network_mode(), config.bridge(), config.cni());
    let network = network.map_err(failed)?;
    if let Some(saved) = saved
        && let Err(err) = network.set_pod_cidr(&saved.subnets)
    {
        warn!(error = %Chain(&err), hint = err.hint(), "the kubelet's pod subnets of an earlier daemon are not used; its next start names them again");
    }
    if let Err(err) = network.choose() {
        warn!(error = %Chain(&err), hint = err.hint(), "cannot decide on the network of new pods");
    }
    Ok(network)
}

/// Resolves, once told to end, when no call is under way, the time for that is up, or a second request does not wait
/// for calls. Connections that are still open then have nothing to say: their clients do not answer the GOAWAY.
async fn drained(mut requested: StopRequests, calls: &InFlight) {
    requested.wait_for(1).await;
    tokio::select! {
        none = tokio::time::timeout(DRAIN_MAX, calls.none()) => {
            if none.is_err() {
                warn!("calls under way took longer than {DRAIN_MAX:?}; ending without them");
                return;
            }
        }
        () = requested.wait_for(2) => {
            warn!("shutdown requested again; ending without the calls under way");
            return;
        }
    }
    tokio::time::sleep(GOODBYE_MAX).await;
}

/// Prints an error as the command line does.
pub(crate) fn shown(error: &Error) -> (String, Option<String>) {
    (format!("cannot {}", Chain(error)), error.hint())
}
