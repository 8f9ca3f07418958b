// SPDX-License-Identifier: Apache-2.0
//! Tests with a plugin that breaks one rule at a time, over a real socket. tests/tests/plugins.rs has tests on a
//! node, with plugins built with the Go library.

use crate::connection::code;
use crate::wire::{self, Channel, Decoder, Kind};
use crate::{Error, LiveTimeouts, PluginRequest, Plugins, Settings, State, Timeouts, prepare};
use hull_proto::nri::{
    ConfigureResponse, Container, Event, FailurePolicy, PodSandbox, RegisterPluginRequest,
    SynchronizeResponse,
};
use hull_proto::ttrpc;
use prost::Message as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// The plugin's reaction to a call.
enum Act {
    Answer(Vec<u8>),
    Refuse(i32),
    /// Never sends an answer.
    Silence,
}

type Acts = fn(method: &str, earlier: usize) -> Act;

fn done(_: &str, _: usize) -> Act {
    Act::Answer(Vec::new())
}

/// The plugin's side: the calls that it got, and whether the daemon has disconnected it.
struct TestPlugin {
    calls: Arc<Mutex<Vec<String>>>,
    disconnected: watch::Receiver<bool>,
}

impl TestPlugin {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    async fn disconnected(&mut self) {
        self.disconnected.wait_for(|disconnected| *disconnected).await.unwrap();
    }
}

/// The timeout for a plugin that answers: long, for busy machines.
const LONG: Duration = Duration::from_secs(20);
/// The timeout for a plugin that does not answer, but must get the call.
const SHORT: Duration = Duration::from_secs(1);

/// Whether a daemon that ends leaves a file at the socket's path, after `meanwhile` has changed it.
fn is_left_at_the_end(meanwhile: impl FnOnce(&std::path::Path)) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_plugins, host) = prepare();
        drop(host.start(settings(&dir, LONG)));
        drop(UnixStream::connect(&socket).await.unwrap());
    });
    meanwhile(&socket);
    drop(runtime);
    socket.try_exists().unwrap()
}

#[test]
fn the_daemon_removes_its_own_socket_and_no_others() {
    assert!(!is_left_at_the_end(|_| {}));
    assert!(is_left_at_the_end(|socket| {
        // Created first: a freed inode number could be used again.
        let other = socket.with_extension("new");
        drop(std::os::unix::net::UnixListener::bind(&other).unwrap());
        std::fs::rename(other, socket).unwrap();
    }));
    assert!(!is_left_at_the_end(|socket| std::fs::remove_file(socket).unwrap()));
}

#[test]
fn only_a_socket_at_the_path_is_replaced() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nri.sock");
    let start = || {
        let (plugins, host) = prepare();
        drop(host.start(settings(&dir, LONG)));
        plugins
    };
    std::fs::write(&path, "precious").unwrap();
    drop(start());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let target = dir.path().join("target");
    std::fs::rename(&path, &target).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    drop(start());
    assert_eq!(std::fs::read_link(&path).unwrap(), target);
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _plugins = start();
    drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
}

fn settings(dir: &tempfile::TempDir, request: Duration) -> Settings {
    Settings {
        socket: Some(dir.path().join("nri.sock")),
        plugin_path: dir.path().join("none"),
        config_path: dir.path().join("none"),
        timeouts: LiveTimeouts::new(Timeouts { registration: LONG, request }),
        version: "test".into(),
    }
}

/// A host that a plugin `10-odd` has joined.
async fn host_with(
    configure: ConfigureResponse,
    acts: Acts,
    request: Duration,
) -> (Plugins, TestPlugin, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let (plugins, host) = prepare();
    let mut requests = host.start(settings(&dir, request));
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            if let PluginRequest::State { reply } = request {
                let _gone = reply.send(State::default());
            }
        }
    });
    let stream = UnixStream::connect(&socket).await.unwrap();
    let calls = Arc::default();
    let (disconnecting, disconnected) = watch::channel(false);
    let (joining, mut joined) = watch::channel(false);
    tokio::spawn(play(stream, configure, acts, Arc::clone(&calls), joining, disconnecting));
    // Fails if the plugin is disconnected before it has joined.
    let _joined = joined.wait_for(|joined| *joined).await;
    (plugins, TestPlugin { calls, disconnected }, dir)
}

async fn play(
    mut stream: UnixStream,
    configure: ConfigureResponse,
    acts: Acts,
    calls: Arc<Mutex<Vec<String>>>,
    joined: watch::Sender<bool>,
    disconnected: watch::Sender<bool>,
) {
    let register = RegisterPluginRequest {
        plugin_idx: "10".into(),
        plugin_name: "odd".into(),
        nri_version: String::new(),
    };
    let request = ttrpc::Request {
        service: "nri.pkg.api.v1alpha1.Runtime".into(),
        method: "RegisterPlugin".into(),
        payload: register.encode_to_vec(),
        ..Default::default()
    };
    let bytes = wire::encode(Channel::Runtime, 1, Kind::Request, &request.encode_to_vec());
    stream.write_all(&bytes.unwrap()).await.unwrap();
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        for message in decoder.feed(&buffer[..read]).unwrap() {
            if message.kind == Kind::Response {
                continue;
            }
            let request = ttrpc::Request::decode(message.payload).unwrap();
            let earlier = {
                let mut calls = calls.lock().unwrap();
                calls.push(request.method.clone());
                calls.iter().filter(|call| **call == request.method).count() - 1
            };
            let act = match request.method.as_str() {
                "Configure" => Act::Answer(configure.encode_to_vec()),
                "Synchronize" => Act::Answer(SynchronizeResponse::default().encode_to_vec()),
                method => acts(method, earlier),
            };
            let response = match act {
                Act::Answer(payload) => ttrpc::Response { status: None, payload },
                Act::Refuse(code) => {
                    let message = "no".to_owned();
                    let status = Some(ttrpc::Status { code, message });
                    ttrpc::Response { status, payload: Vec::new() }
                }
                Act::Silence => continue,
            };
            let bytes = response.encode_to_vec();
            let bytes = wire::encode(Channel::Plugin, message.stream, Kind::Response, &bytes);
            stream.write_all(&bytes.unwrap()).await.unwrap();
            if request.method == "Synchronize" {
                joined.send_replace(true);
            }
        }
    }
    disconnected.send_replace(true);
}

fn policy(fail_request: bool, keep_connected: bool) -> ConfigureResponse {
    ConfigureResponse {
        events: 0,
        failure_policy: Some(FailurePolicy { fail_request, keep_connected }),
    }
}

const RUN: Event = Event::RunPodSandbox;

#[tokio::test]
async fn an_old_plugin_gets_events_as_state_change() {
    let unknown: Acts = |method, _| match method {
        "RunPodSandbox" => Act::Refuse(code::UNIMPLEMENTED),
        _ => Act::Answer(Vec::new()),
    };
    let (plugins, plugin, _dir) = host_with(ConfigureResponse::default(), unknown, LONG).await;
    for _ in 0..2 {
        plugins.current().request_pod(RUN, &PodSandbox::default()).await.unwrap();
    }
    // Its own method is not tried again.
    let calls = ["Configure", "Synchronize", "RunPodSandbox", "StateChange", "StateChange"];
    assert_eq!(plugin.calls(), calls);
}

#[tokio::test]
async fn a_plugin_without_an_answer_is_disconnected_and_the_verb_continues() {
    let silent: Acts = |_, _| Act::Silence;
    let (plugins, mut plugin, _dir) = host_with(ConfigureResponse::default(), silent, SHORT).await;
    let plugin_set = plugins.current();
    plugin_set.request_pod(RUN, &PodSandbox::default()).await.unwrap();
    plugin.disconnected().await;
    // It gets no further call, from this verb neither.
    plugin_set.request_pod(RUN, &PodSandbox::default()).await.unwrap();
    assert_eq!(plugin.calls().len(), 3);
}

#[tokio::test]
async fn a_plugin_may_require_its_answer() {
    let silent: Acts = |_, _| Act::Silence;
    let (plugins, mut plugin, _dir) = host_with(policy(true, false), silent, SHORT).await;
    let failed = plugins.current().request_pod(RUN, &PodSandbox::default()).await.unwrap_err();
    assert!(matches!(failed, Error::NoAnswer { .. }), "{failed}");
    assert!(failed.to_string().contains("`10-odd`"), "{failed}");
    plugin.disconnected().await;
}

#[tokio::test]
async fn a_plugin_may_stay_connected_after_a_timeout() {
    let slow_at_first: Acts =
        |_, earlier| if earlier == 0 { Act::Silence } else { Act::Answer(Vec::new()) };
    let (plugins, plugin, _dir) = host_with(policy(false, true), slow_at_first, 2 * SHORT).await;
    plugins.current().request_pod(RUN, &PodSandbox::default()).await.unwrap();
    plugins.current().request_pod(RUN, &PodSandbox::default()).await.unwrap();
    assert_eq!(plugin.calls().len(), 4);
    assert!(plugins.current().is_subscribed(RUN));
}

#[tokio::test]
async fn an_invalid_answer_disconnects_the_plugin_and_the_verb_continues() {
    let garbage: Acts = |_, _| Act::Answer(vec![0xff; 20]);
    let (plugins, mut plugin, _dir) = host_with(ConfigureResponse::default(), garbage, LONG).await;
    // It is subscribed to validation too, but is disconnected by then.
    plugins.current().create_container(&PodSandbox::default(), Container::default()).await.unwrap();
    plugin.disconnected().await;
}

#[tokio::test]
async fn a_validating_plugin_without_an_answer_has_not_approved() {
    let silent: Acts = |_, _| Act::Silence;
    let events = 1 << (Event::ValidateContainerAdjustment as i32 - 1);
    let configure = ConfigureResponse { events, failure_policy: None };
    let (plugins, _plugin, _dir) = host_with(configure, silent, SHORT).await;
    let created =
        plugins.current().create_container(&PodSandbox::default(), Container::default()).await;
    assert!(matches!(created, Err(Error::NoAnswer { .. })), "{created:?}");
}

#[tokio::test]
async fn a_plugin_gets_only_the_events_that_it_subscribed_to() {
    let events = 1 << (Event::StopPodSandbox as i32 - 1);
    let configure = ConfigureResponse { events, failure_policy: None };
    let (plugins, plugin, _dir) = host_with(configure, done, LONG).await;
    let plugin_set = plugins.current();
    plugin_set.request_pod(RUN, &PodSandbox::default()).await.unwrap();
    plugin_set.notify_pod(Event::StopPodSandbox, &PodSandbox::default()).await;
    assert_eq!(plugin.calls(), ["Configure", "Synchronize", "StopPodSandbox"]);
}

#[tokio::test]
async fn unknown_events_are_refused() {
    let configure = ConfigureResponse { events: 1 << 20, failure_policy: None };
    let (plugins, mut plugin, _dir) = host_with(configure, done, LONG).await;
    plugin.disconnected().await;
    assert!(!plugins.current().is_subscribed(RUN));
    assert_eq!(plugin.calls(), ["Configure"]);
}

#[tokio::test]
async fn callers_that_wait_for_a_disconnected_plugin_continue_with_the_first() {
    let silent: Acts = |_, _| Act::Silence;
    let (plugins, mut plugin, _dir) = host_with(ConfigureResponse::default(), silent, SHORT).await;
    let plugin_set = plugins.current();
    let pod = PodSandbox::default();
    // One call at a time: the others were still waiting for their turn.
    let all = (0..20).map(|_| plugin_set.request_pod(RUN, &pod));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    plugin.disconnected().await;
    assert_eq!(plugin.calls().iter().filter(|call| *call == "RunPodSandbox").count(), 1);
}
