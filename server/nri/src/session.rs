// SPDX-License-Identifier: Apache-2.0
//! A plugin's life, from its connection to its end.
//!
//! ```text
//! connected ─▶ registered ─▶ configured ─▶ joined ─▶ synchronised ─▶ called, and calling ─▶ gone
//!                                            │ its turn is held: verbs that begin now wait for it,
//!                                            │ and for nobody else
//!                                            └ verbs that began before end; then the node is looked at
//! ```
//!
//! The rule: a plugin hears of every container exactly once, in Synchronize or by CreateContainer. Verbs
//! that began before it joined do not know it, so what they make must be visible when the node is looked
//! at. Verbs that begin later do, and no container of theirs is visible before the plugin was asked.
//! All of that has a deadline, past which the plugin is let go.

use crate::connection::{Connection, Failed, Incoming, code};
use crate::error::Unfit;
use crate::plugin::{ALL_EVENTS, Plugin};
use crate::roster::{self, Registrar};
use crate::{Ask, Settings, State, Times};
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

/// Version of the interface that is spoken.
const VERSION: &str = "v0.12.5";
/// Most of a node's state that goes into one message, in bytes. Room is left for what goes around it.
const PART_BYTES_MAX: usize = crate::wire::MESSAGE_BYTES_MAX - (64 << 10);

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) registrar: Registrar,
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) numbers: AtomicU64,
}

/// A pre-installed plugin's name and configuration, which it does not choose itself.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) index: String,
    pub(crate) name: String,
    pub(crate) config: String,
}

/// Speaks with a plugin until it is gone.
pub(crate) async fn run(shared: Arc<Shared>, stream: UnixStream, given: Option<Given>) {
    let (connection, mut calls) = Connection::open(stream);
    let (config, name) = match &given {
        Some(given) => (given.config.clone(), Some((given.index.clone(), given.name.clone()))),
        None => (String::new(), None),
    };
    let registered = registered(&connection, &mut calls, shared.settings.times, name).await;
    let (index, name) = match registered {
        Ok(name) => name,
        Err(unfit) => return let_go("unregistered", &connection, &unfit).await,
    };
    let title = format!("{index}-{name}");
    let span = tracing::info_span!("plugin", plugin = %title);
    async {
        let serving = serve(&shared, &title, &mut calls);
        tokio::pin!(serving);
        let beginning = begin(&shared, &connection, index, name, config);
        let begun = tokio::select! {
            begun = beginning => begun,
            () = &mut serving => Err((None, Unfit::Closed(connection.ended().await))),
        };
        let number = match begun {
            Ok(number) => number,
            Err((number, unfit)) => {
                let_go(&title, &connection, &unfit).await;
                if let Some(number) = number {
                    shared.registrar.leave(number).await;
                }
                return;
            }
        };
        info!("plugin synchronised");
        serving.await;
        shared.registrar.leave(number).await;
        let why = connection.ended().await;
        info!(why, "plugin is gone");
    }
    .instrument(span)
    .await;
}

async fn let_go(title: &str, connection: &Connection, unfit: &Unfit) {
    warn!(plugin = %title, why = %unfit, hint = "see the plugin's log; it may connect again", "plugin let go");
    connection.close(unfit.to_string()).await;
}

/// Waits until the plugin has said who it is. A pre-installed one is who its file says.
async fn registered(
    connection: &Connection,
    calls: &mut mpsc::Receiver<Incoming>,
    times: Times,
    given: Option<(String, String)>,
) -> Result<(String, String), Unfit> {
    let registering = async {
        while let Some(call) = calls.recv().await {
            if call.method != "RegisterPlugin" {
                refuse(call, code::FAILED_PRECONDITION, "register first");
                continue;
            }
            let named = match RegisterPluginRequest::decode(call.payload.clone()) {
                Ok(said) => given.clone().map_or_else(|| named(&said), Ok),
                Err(err) => Err(err.to_string()),
            };
            return match named {
                Ok(named) => {
                    answer(call, &Empty {});
                    Ok(named)
                }
                Err(why) => {
                    refuse(call, code::INVALID_ARGUMENT, &why);
                    Err(Unfit::Name(why))
                }
            };
        }
        Err(Unfit::Closed(connection.ended().await))
    };
    let limit = times.registration;
    tokio::time::timeout(limit, registering).await.unwrap_or(Err(Unfit::Silent(limit)))
}

/// Index and name that a plugin gives itself.
fn named(said: &RegisterPluginRequest) -> Result<(String, String), String> {
    let shown =
        |text: &str| text.chars().take(80).flat_map(char::escape_default).collect::<String>();
    if !crate::is_index(&said.plugin_idx) {
        return Err(format!("index `{}`, which is not two digits", shown(&said.plugin_idx)));
    }
    if !crate::is_name(&said.plugin_name) {
        return Err(format!(
            "name `{}`, which is not of letters, digits and -_.+",
            shown(&said.plugin_name)
        ));
    }
    Ok((said.plugin_idx.clone(), said.plugin_name.clone()))
}

/// Configures the plugin, has it join and tells it what there is. Its number, also when that fails
/// after it joined.
async fn begin(
    shared: &Shared,
    connection: &Connection,
    index: String,
    name: String,
    config: String,
) -> Result<u64, (Option<u64>, Unfit)> {
    let times = shared.settings.times;
    let configured = configure(shared, connection, config).await.map_err(|unfit| (None, unfit))?;
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let plugin = Arc::new(Plugin {
        number,
        index,
        name,
        events: configured.0,
        policy: configured.1,
        connection: connection.clone(),
        times,
        lane: Arc::new(Semaphore::new(1)),
        by_state_change: AtomicU32::new(0),
    });
    // Held until it is synchronised: verbs that begin meanwhile wait for their turn.
    let turn = turn(&plugin).map_err(|unfit| (None, unfit))?;
    let joined = join(shared, connection, &plugin).await;
    if let Err(unfit) = &joined {
        // Before the turn is given up: nobody may call what does not know the node.
        connection.close(unfit.to_string()).await;
    }
    drop(turn);
    let updates = joined.map_err(|unfit| (Some(number), unfit))?;
    // Nobody waits for these: a container that cannot have them keeps what it has.
    update(shared, plugin.title(), updates).await;
    Ok(number)
}

/// Enters the plugin, waits for verbs that began before, and synchronises it. What it wants changed.
async fn join(
    shared: &Shared,
    connection: &Connection,
    plugin: &Arc<Plugin>,
) -> Result<Vec<ContainerUpdate>, Unfit> {
    let limit = shared.settings.times.registration;
    let older = shared.registrar.join(Arc::clone(plugin)).await;
    if !roster::dropped(older, limit).await {
        return Err(Unfit::Busy(limit));
    }
    let synchronising = synchronize(connection, state(shared).await);
    let late = Err(Unfit::Synchronize(Failed::Late(limit)));
    tokio::time::timeout(limit, synchronising).await.unwrap_or(late)
}

fn turn(plugin: &Plugin) -> Result<OwnedSemaphorePermit, Unfit> {
    let turn = Arc::clone(&plugin.lane).try_acquire_owned();
    turn.map_err(|_| Unfit::Closed("it was called before it joined".into()))
}

async fn configure(
    shared: &Shared,
    connection: &Connection,
    config: String,
) -> Result<(u32, hull_proto::nri::FailurePolicy), Unfit> {
    let times = shared.settings.times;
    let milliseconds = |of: std::time::Duration| i64::try_from(of.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config,
        runtime_name: "hull".into(),
        runtime_version: shared.settings.version.clone(),
        registration_timeout: milliseconds(times.registration),
        request_timeout: milliseconds(times.request),
        nri_version: VERSION.into(),
    };
    let calling = connection.call("Configure", &request);
    let answer = tokio::time::timeout(times.request, calling).await;
    let answer = answer.unwrap_or(Err(Failed::Late(times.request))).map_err(Unfit::Configure)?;
    let answer: ConfigureResponse = decoded(answer).map_err(Unfit::Configure)?;
    let events = match u32::try_from(answer.events) {
        Ok(0) => ALL_EVENTS,
        Ok(events) if events & !ALL_EVENTS == 0 => events,
        Ok(_) | Err(_) => return Err(Unfit::Events(answer.events)),
    };
    Ok((events, answer.failure_policy.unwrap_or_default()))
}

async fn state(shared: &Shared) -> State {
    let (reply, state) = oneshot::channel();
    let _ending = shared.asks.send(Ask::State { reply }).await;
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
    let _ending = shared.asks.send(Ask::Update { plugin, updates, reply }).await;
    failed.await.unwrap_or_default()
}

/// Tells the plugin what there is, in as many parts as it takes. What it wants changed.
async fn synchronize(connection: &Connection, state: State) -> Result<Vec<ContainerUpdate>, Unfit> {
    let mut parts = parts(state).into_iter().peekable();
    while let Some((pods, containers)) = parts.next() {
        let more = parts.peek().is_some();
        let request = SynchronizeRequest { pods, containers, more };
        let answer = connection.call("Synchronize", &request).await;
        let answer: SynchronizeResponse = answer.and_then(decoded).map_err(Unfit::Synchronize)?;
        if !more {
            return Ok(answer.update);
        }
        if !answer.more || !answer.update.is_empty() {
            return Err(Unfit::OnePart);
        }
    }
    Ok(Vec::new())
}

type Part = (Vec<PodSandbox>, Vec<Container>);

/// The state in parts that fit into messages; at least one.
fn parts(state: State) -> Vec<Part> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Part::default(), 0);
    let mut room = |part: &mut Part, more: usize| {
        // Tag and length of an entry take no more than this.
        let more = more + 8;
        if bytes + more > PART_BYTES_MAX && bytes > 0 {
            parts.push(std::mem::take(part));
            bytes = 0;
        }
        bytes += more;
    };
    for pod in state.pods {
        room(&mut part, pod.encoded_len());
        part.0.push(pod);
    }
    for container in state.containers {
        room(&mut part, container.encoded_len());
        part.1.push(container);
    }
    parts.push(part);
    parts
}

fn decoded<M: prost::Message + Default>(bytes: Bytes) -> Result<M, Failed> {
    M::decode(bytes).map_err(|err| Failed::Garbled { why: err.to_string() })
}

/// Serves the plugin's own calls until the connection ends.
async fn serve(shared: &Shared, title: &str, calls: &mut mpsc::Receiver<Incoming>) {
    while let Some(call) = calls.recv().await {
        match call.method.as_str() {
            "UpdateContainers" => match UpdateContainersRequest::decode(call.payload.clone()) {
                Ok(UpdateContainersRequest { update: updates, evict }) => {
                    info!(
                        updates = updates.len(),
                        evictions = evict.len(),
                        "plugin asks for changes"
                    );
                    if !evict.is_empty() {
                        let ask = Ask::Evict { plugin: title.to_owned(), evictions: evict };
                        let _ending = shared.asks.send(ask).await;
                    }
                    let failed = update(shared, title.to_owned(), updates).await;
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

fn answer(call: Incoming, message: &impl prost::Message) {
    // A connection that ended meanwhile needs none.
    let _ended = call.reply.send(Ok(message.encode_to_vec()));
}

fn refuse(call: Incoming, code: i32, why: &str) {
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
        let said = |index: &str, name: &str| {
            named(&RegisterPluginRequest {
                plugin_idx: index.into(),
                plugin_name: name.into(),
                nri_version: String::new(),
            })
        };
        assert_eq!(said("07", "a-b_c.d+e"), Ok(("07".into(), "a-b_c.d+e".into())));
        for (index, name) in
            [("7", "a"), ("007", "a"), ("a7", "a"), ("07", ""), ("07", "a/b"), ("07", "ä")]
        {
            assert!(said(index, name).is_err(), "{index} {name}");
        }
    }
}
