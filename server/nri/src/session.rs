// SPDX-License-Identifier: Apache-2.0
//! The session of one plugin, from its connection to its end.
//!
//! ```text
//! connected ─▶ registered ─▶ configured ─▶ joined ─▶ synchronized ─▶ called, and calling ─▶ disconnected
//!                                            │ its turn is held: verbs that begin now wait for it,
//!                                            │ and only if they call it
//!                                            └ earlier verbs end; then a snapshot of the node is taken
//! ```
//!
//! The rule: a plugin receives every container exactly once, in Synchronize or by CreateContainer. Verbs
//! that began before it joined do not call it, so their results must be in the snapshot. Verbs that begin
//! later do, and their containers become visible only after the plugin has answered. Each step has a
//! timeout, after which the plugin is disconnected.

use crate::connection::{CallError, Connection, PluginCall, code};
use crate::launch::PreinstalledPlugin;
use crate::plugin::{ALL_EVENTS, Plugin};
use crate::plugin_set::{self, Registry};
use crate::types::{PluginRequest, Settings, State, Timeouts, is_index, is_name};
use bytes::Bytes;
use hull_proto::nri::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, Empty, PodSandbox,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse, UpdateContainersRequest,
    UpdateContainersResponse,
};
use hull_proto::ttrpc::Status;
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{Instrument as _, info, warn};

/// The implemented version of the interface.
const VERSION: &str = "v0.12.5";
/// Most bytes of the node's state in one Synchronize message; the rest is for the message around it.
const PART_BYTES_MAX: usize = crate::wire::MESSAGE_BYTES_MAX - (64 << 10);

/// A connection that did not become a synchronized plugin. The texts are sentences about the plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginError {
    #[error("it did not register within {0:?}")]
    NotRegistered(std::time::Duration),
    #[error("it registered with {0}")]
    InvalidName(String),
    #[error("its Configure failed: {0}")]
    Configure(CallError),
    #[error("it subscribes to unknown events: {0:#x}")]
    UnknownEvents(i32),
    #[error("verbs that began before it joined did not end within {0:?}")]
    VerbsInFlight(std::time::Duration),
    #[error("its Synchronize failed: {0}")]
    Synchronize(CallError),
    #[error("it does not accept the state of a large node in several messages")]
    NoMultipart,
    #[error("its connection is closed: {0}")]
    Closed(String),
}

/// The state that all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) requests: mpsc::Sender<PluginRequest>,
    pub(crate) next_number: AtomicU64,
}

/// Runs the session of one plugin until its connection ends.
pub(crate) async fn run(
    shared: Arc<Shared>,
    stream: UnixStream,
    preinstalled: Option<PreinstalledPlugin>,
) {
    let (connection, mut calls) = Connection::open(stream);
    let (config, name) = match &preinstalled {
        Some(plugin) => (plugin.config.clone(), Some((plugin.index.clone(), plugin.name.clone()))),
        None => (String::new(), None),
    };
    let registered = register(&connection, &mut calls, shared.settings.timeouts.get(), name).await;
    let (index, name) = match registered {
        Ok(name) => name,
        Err(err) => return disconnect("unregistered", &connection, &err).await,
    };
    let full_name = format!("{index}-{name}");
    let span = tracing::info_span!("plugin", plugin = %full_name);
    async {
        let serving = serve(&shared, &full_name, &mut calls);
        tokio::pin!(serving);
        let joining = configure_and_join(&shared, &connection, index, name, config);
        let joined = tokio::select! {
            joined = joining => joined,
            () = &mut serving => Err((None, PluginError::Closed(connection.ended().await))),
        };
        let number = match joined {
            Ok(number) => number,
            Err((number, err)) => {
                disconnect(&full_name, &connection, &err).await;
                if let Some(number) = number {
                    shared.registry.leave(number).await;
                }
                return;
            }
        };
        info!("plugin synchronized");
        serving.await;
        shared.registry.leave(number).await;
        let why = connection.ended().await;
        info!(why, "plugin disconnected");
    }
    .instrument(span)
    .await;
}

async fn disconnect(full_name: &str, connection: &Connection, err: &PluginError) {
    warn!(plugin = %full_name, why = %err, hint = "see the plugin's log; it may connect again", "plugin disconnected before it was ready");
    connection.close(err.to_string()).await;
}

/// Waits until the plugin has registered. Returns index and name; those of a pre-installed plugin come from its
/// file.
async fn register(
    connection: &Connection,
    calls: &mut mpsc::Receiver<PluginCall>,
    timeouts: Timeouts,
    preinstalled: Option<(String, String)>,
) -> Result<(String, String), PluginError> {
    let registering = async {
        while let Some(call) = calls.recv().await {
            if call.method != "RegisterPlugin" {
                refuse(call, code::FAILED_PRECONDITION, "register first");
                continue;
            }
            let named = match RegisterPluginRequest::decode(call.payload.clone()) {
                Ok(request) => preinstalled.clone().map_or_else(|| index_and_name(&request), Ok),
                Err(err) => Err(err.to_string()),
            };
            return match named {
                Ok(named) => {
                    answer(call, &Empty {});
                    Ok(named)
                }
                Err(why) => {
                    refuse(call, code::INVALID_ARGUMENT, &why);
                    Err(PluginError::InvalidName(why))
                }
            };
        }
        Err(PluginError::Closed(connection.ended().await))
    };
    let limit = timeouts.registration;
    tokio::time::timeout(limit, registering).await.unwrap_or(Err(PluginError::NotRegistered(limit)))
}

/// The index and name in a plugin's request, if they are valid.
fn index_and_name(request: &RegisterPluginRequest) -> Result<(String, String), String> {
    let shown =
        |text: &str| text.chars().take(80).flat_map(char::escape_default).collect::<String>();
    if !is_index(&request.plugin_idx) {
        return Err(format!("index `{}`, which is not two digits", shown(&request.plugin_idx)));
    }
    if !is_name(&request.plugin_name) {
        return Err(format!(
            "name `{}`, which has other characters than letters, digits and -_.+",
            shown(&request.plugin_name)
        ));
    }
    Ok((request.plugin_idx.clone(), request.plugin_name.clone()))
}

/// Configures the plugin, adds it to the set and synchronizes it. Returns its number, on errors too if it was
/// added.
async fn configure_and_join(
    shared: &Shared,
    connection: &Connection,
    index: String,
    name: String,
    config: String,
) -> Result<u64, (Option<u64>, PluginError)> {
    let timeouts = shared.settings.timeouts.clone();
    let configured = configure(shared, connection, config).await.map_err(|err| (None, err))?;
    let number = shared.next_number.fetch_add(1, Ordering::Relaxed);
    let plugin = Arc::new(Plugin {
        number,
        index,
        name,
        events: configured.0,
        policy: configured.1,
        connection: connection.clone(),
        timeouts,
        counters: Arc::clone(&shared.registry.counters),
        turn_lock: Arc::new(Semaphore::new(1)),
        by_state_change: AtomicU32::new(0),
    });
    // InUse until it is synchronised: verbs that begin meanwhile wait for their turn.
    let turn = turn(&plugin).map_err(|err| (None, err))?;
    let joined = join(shared, connection, &plugin).await;
    if let Err(err) = &joined {
        // Before the turn is released: no verb may call a plugin that is not synchronized.
        connection.close(err.to_string()).await;
    }
    drop(turn);
    let updates = joined.map_err(|err| (Some(number), err))?;
    // No caller waits for these: a container whose update fails keeps its limits.
    update(shared, plugin.full_name(), updates).await;
    Ok(number)
}

/// Adds the plugin to the set, waits for earlier verbs, and synchronizes it. Returns its updates of containers.
async fn join(
    shared: &Shared,
    connection: &Connection,
    plugin: &Arc<Plugin>,
) -> Result<Vec<ContainerUpdate>, PluginError> {
    let limit = shared.settings.timeouts.get().registration;
    let older = shared.registry.join(Arc::clone(plugin)).await;
    if !plugin_set::wait_until_unused(older, limit).await {
        return Err(PluginError::VerbsInFlight(limit));
    }
    let synchronizing = synchronize(connection, state(shared).await);
    let timeout = Err(PluginError::Synchronize(CallError::Timeout(limit)));
    tokio::time::timeout(limit, synchronizing).await.unwrap_or(timeout)
}

fn turn(plugin: &Plugin) -> Result<OwnedSemaphorePermit, PluginError> {
    let turn = Arc::clone(&plugin.turn_lock).try_acquire_owned();
    turn.map_err(|_| PluginError::Closed("it was called before it joined".into()))
}

async fn configure(
    shared: &Shared,
    connection: &Connection,
    config: String,
) -> Result<(u32, hull_proto::nri::FailurePolicy), PluginError> {
    let timeouts = shared.settings.timeouts.get();
    let milliseconds = |of: std::time::Duration| i64::try_from(of.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config,
        runtime_name: "hull".into(),
        runtime_version: shared.settings.version.clone(),
        registration_timeout: milliseconds(timeouts.registration),
        request_timeout: milliseconds(timeouts.request),
        nri_version: VERSION.into(),
    };
    let calling = connection.call("Configure", &request);
    let answer = tokio::time::timeout(timeouts.request, calling).await;
    let answer = answer
        .unwrap_or(Err(CallError::Timeout(timeouts.request)))
        .map_err(PluginError::Configure)?;
    let answer: ConfigureResponse = decoded(answer).map_err(PluginError::Configure)?;
    let events = match u32::try_from(answer.events) {
        Ok(0) => ALL_EVENTS,
        Ok(events) if events & !ALL_EVENTS == 0 => events,
        Ok(_) | Err(_) => return Err(PluginError::UnknownEvents(answer.events)),
    };
    Ok((events, answer.failure_policy.unwrap_or_default()))
}

async fn state(shared: &Shared) -> State {
    let (reply, state) = oneshot::channel();
    let _ending = shared.requests.send(PluginRequest::State { reply }).await;
    state.await.unwrap_or_default()
}

async fn update(
    shared: &Shared,
    plugin: String,
    updates: Vec<ContainerUpdate>,
) -> Vec<ContainerUpdate> {
    if updates.is_empty() {
        return Vec::new();
    }
    let (reply, failed) = oneshot::channel();
    let _ending = shared.requests.send(PluginRequest::Update { plugin, updates, reply }).await;
    failed.await.unwrap_or_default()
}

/// Sends the node's state to the plugin, in as many messages as needed. Returns its updates of containers.
async fn synchronize(
    connection: &Connection,
    state: State,
) -> Result<Vec<ContainerUpdate>, PluginError> {
    let mut parts = parts(state).into_iter().peekable();
    while let Some((pods, containers)) = parts.next() {
        let more = parts.peek().is_some();
        let request = SynchronizeRequest { pods, containers, more };
        let answer = connection.call("Synchronize", &request).await;
        let answer: SynchronizeResponse =
            answer.and_then(decoded).map_err(PluginError::Synchronize)?;
        if !more {
            return Ok(answer.update);
        }
        if !answer.more || !answer.update.is_empty() {
            return Err(PluginError::NoMultipart);
        }
    }
    Ok(Vec::new())
}

type Part = (Vec<PodSandbox>, Vec<Container>);

/// Splits the state into parts that fit into one message each; at least one.
fn parts(state: State) -> Vec<Part> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Part::default(), 0);
    let mut reserve = |part: &mut Part, more: usize| {
        // Upper bound of an entry's tag and length.
        let more = more + 8;
        if bytes + more > PART_BYTES_MAX && bytes > 0 {
            parts.push(std::mem::take(part));
            bytes = 0;
        }
        bytes += more;
    };
    for pod in state.pods {
        reserve(&mut part, pod.encoded_len());
        part.0.push(pod);
    }
    for container in state.containers {
        reserve(&mut part, container.encoded_len());
        part.1.push(container);
    }
    parts.push(part);
    parts
}

fn decoded<M: prost::Message + Default>(bytes: Bytes) -> Result<M, CallError> {
    M::decode(bytes).map_err(|err| CallError::Invalid { why: err.to_string() })
}

/// Serves the calls of the plugin until the connection ends.
async fn serve(shared: &Shared, full_name: &str, calls: &mut mpsc::Receiver<PluginCall>) {
    while let Some(call) = calls.recv().await {
        match call.method.as_str() {
            "UpdateContainers" => match UpdateContainersRequest::decode(call.payload.clone()) {
                Ok(UpdateContainersRequest { update: updates, evict }) => {
                    info!(
                        updates = updates.len(),
                        evictions = evict.len(),
                        "plugin requests changes"
                    );
                    if !evict.is_empty() {
                        let request =
                            PluginRequest::Evict { plugin: full_name.to_owned(), evictions: evict };
                        let _ending = shared.requests.send(request).await;
                    }
                    let failed = update(shared, full_name.to_owned(), updates).await;
                    answer(call, &UpdateContainersResponse { failed });
                }
                Err(err) => refuse(call, code::INVALID_ARGUMENT, &err.to_string()),
            },
            "RegisterPlugin" => {
                refuse(call, code::FAILED_PRECONDITION, "the plugin is registered already");
            }
            other => {
                let why = format!("there is no method {}", other.escape_default());
                refuse(call, code::UNIMPLEMENTED, &why);
            }
        }
    }
}

fn answer(call: PluginCall, message: &impl prost::Message) {
    // Fails if the connection has ended meanwhile.
    let _ended = call.reply.send(Ok(message.encode_to_vec()));
}

fn refuse(call: PluginCall, code: i32, why: &str) {
    let _ended = call.reply.send(Err(Status { code, message: why.to_owned() }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_nodes_state_goes_in_parts_that_fit_and_lose_nothing() {
        let pod = |id: usize| PodSandbox { id: id.to_string(), ..Default::default() };
        let long = "x".repeat(100 << 10);
        let container = |id: usize| Container {
            id: id.to_string(),
            args: vec![long.clone()],
            ..Default::default()
        };
        let state = State {
            pods: (0..100).map(pod).collect(),
            containers: (0..100).map(container).collect(),
        };
        let parts = parts(state.clone());
        assert!(parts.len() > 2);
        for (pods, containers) in &parts {
            let request = SynchronizeRequest {
                pods: pods.clone(),
                containers: containers.clone(),
                more: true,
            };
            assert!(request.encoded_len() < crate::wire::MESSAGE_BYTES_MAX - 1024);
        }
        let (pods, containers): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        assert_eq!(pods.concat(), state.pods);
        assert_eq!(containers.concat(), state.containers);
        assert_eq!(super::parts(State::default()).len(), 1);
    }

    #[test]
    fn a_plugins_own_name_is_checked() {
        let checked = |index: &str, name: &str| {
            index_and_name(&RegisterPluginRequest {
                plugin_idx: index.into(),
                plugin_name: name.into(),
                nri_version: String::new(),
            })
        };
        assert_eq!(checked("07", "a-b_c.d+e"), Ok(("07".into(), "a-b_c.d+e".into())));
        for (index, name) in
            [("7", "a"), ("007", "a"), ("a7", "a"), ("07", ""), ("07", "a/b"), ("07", "ä")]
        {
            assert!(checked(index, name).is_err(), "{index} {name}");
        }
    }
}
