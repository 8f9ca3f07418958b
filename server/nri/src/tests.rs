// SPDX-License-Identifier: Apache-2.0
//! A plugin that breaks one rule at a time, over a real socket. What plugins of the Go library do is
//! tested on a node, in tests/tests/plugins.rs.

use crate::connection::code;
use crate::wire::{self, Channel, Decoder, Kind};
use crate::{Ask, Error, Plugins, Settings, State, Times, prepare};
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

/// What the plugin does about a call.
enum Act {
    Answer(Vec<u8>),
    Refuse(i32),
    /// Never answers.
    Silence,
}

type Acts = fn(method: &str, earlier: usize) -> Act;

fn done(_: &str, _: usize) -> Act {
    Act::Answer(Vec::new())
}

/// The plugin's side: what it was called, and whether the daemon let it go.
struct Heard {
    calls: Arc<Mutex<Vec<String>>>,
    gone: watch::Receiver<bool>,
}

impl Heard {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    async fn gone(&mut self) {
        self.gone.wait_for(|gone| *gone).await.unwrap();
    }
}

/// For a plugin that answers, however busy the machine is.
const LONG: Duration = Duration::from_secs(20);
/// For one that does not, though it must get as far as that.
const SHORT: Duration = Duration::from_secs(1);

/// What a daemon that ends leaves at the socket's path, when `meanwhile` happened to it.
fn left_at_the_end(meanwhile: impl FnOnce(&std::path::Path)) -> bool {
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
fn the_socket_goes_with_the_daemon_and_nobody_elses_does() {
    assert!(!left_at_the_end(|_| {}));
    assert!(left_at_the_end(|socket| {
        // Made first: an inode that is free could be given again.
        let other = socket.with_extension("new");
        drop(std::os::unix::net::UnixListener::bind(&other).unwrap());
        std::fs::rename(other, socket).unwrap();
    }));
    assert!(!left_at_the_end(|socket| std::fs::remove_file(socket).unwrap()));
}

fn settings(dir: &tempfile::TempDir, request: Duration) -> Settings {
    Settings {
        socket: Some(dir.path().join("nri.sock")),
        plugin_path: dir.path().join("none"),
        config_path: dir.path().join("none"),
        times: Times { registration: LONG, request },
        version: "test".into(),
    }
}

/// A daemon's side with a plugin of index and name `10-odd` that has joined.
async fn with(
    configure: ConfigureResponse,
    acts: Acts,
    request: Duration,
) -> (Plugins, Heard, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let (plugins, host) = prepare();
    let mut asks = host.start(settings(&dir, request));
    tokio::spawn(async move {
        while let Some(ask) = asks.recv().await {
            if let Ask::State { reply } = ask {
                let _gone = reply.send(State::default());
            }
        }
    });
    let stream = UnixStream::connect(&socket).await.unwrap();
    let calls = Arc::default();
    let (going, gone) = watch::channel(false);
    let (joining, mut joined) = watch::channel(false);
    tokio::spawn(play(stream, configure, acts, Arc::clone(&calls), joining, going));
    // Ended early when it is not taken at all.
    let _joined = joined.wait_for(|joined| *joined).await;
    (plugins, Heard { calls, gone }, dir)
}

async fn play(
    mut stream: UnixStream,
    configure: ConfigureResponse,
    acts: Acts,
    calls: Arc<Mutex<Vec<String>>>,
    joined: watch::Sender<bool>,
    gone: watch::Sender<bool>,
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
    gone.send_replace(true);
}

fn policy(fail_request: bool, keep_connected: bool) -> ConfigureResponse {
    ConfigureResponse {
        events: 0,
        failure_policy: Some(FailurePolicy { fail_request, keep_connected }),
    }
}

const RUN: Event = Event::RunPodSandbox;

#[tokio::test]
async fn an_old_plugin_is_told_by_state_change() {
    let unknown: Acts = |method, _| match method {
        "RunPodSandbox" => Act::Refuse(code::UNIMPLEMENTED),
        _ => Act::Answer(Vec::new()),
    };
    let (plugins, heard, _dir) = with(ConfigureResponse::default(), unknown, LONG).await;
    for _ in 0..2 {
        plugins.roster().ask_pod(RUN, &PodSandbox::default()).await.unwrap();
    }
    // Its own method is not tried again.
    let calls = ["Configure", "Synchronize", "RunPodSandbox", "StateChange", "StateChange"];
    assert_eq!(heard.calls(), calls);
}

#[tokio::test]
async fn a_plugin_without_an_answer_is_let_go_and_the_call_goes_on() {
    let silent: Acts = |_, _| Act::Silence;
    let (plugins, mut heard, _dir) = with(ConfigureResponse::default(), silent, SHORT).await;
    let roster = plugins.roster();
    roster.ask_pod(RUN, &PodSandbox::default()).await.unwrap();
    heard.gone().await;
    // It is asked nothing any more, by this verb either.
    roster.ask_pod(RUN, &PodSandbox::default()).await.unwrap();
    assert_eq!(heard.calls().len(), 3);
}

#[tokio::test]
async fn a_plugin_may_want_calls_without_its_answer_to_fail() {
    let silent: Acts = |_, _| Act::Silence;
    let (plugins, mut heard, _dir) = with(policy(true, false), silent, SHORT).await;
    let failed = plugins.roster().ask_pod(RUN, &PodSandbox::default()).await.unwrap_err();
    assert!(matches!(failed, Error::NoAnswer { .. }), "{failed}");
    assert!(failed.to_string().contains("`10-odd`"), "{failed}");
    heard.gone().await;
}

#[tokio::test]
async fn a_plugin_may_stay_though_it_missed_a_deadline() {
    let slow_at_first: Acts =
        |_, earlier| if earlier == 0 { Act::Silence } else { Act::Answer(Vec::new()) };
    let (plugins, heard, _dir) = with(policy(false, true), slow_at_first, 2 * SHORT).await;
    plugins.roster().ask_pod(RUN, &PodSandbox::default()).await.unwrap();
    plugins.roster().ask_pod(RUN, &PodSandbox::default()).await.unwrap();
    assert_eq!(heard.calls().len(), 4);
    assert!(plugins.roster().hears(RUN));
}

#[tokio::test]
async fn an_answer_that_is_none_ends_the_plugin_not_the_call() {
    let garbage: Acts = |_, _| Act::Answer(vec![0xff; 20]);
    let (plugins, mut heard, _dir) = with(ConfigureResponse::default(), garbage, LONG).await;
    // It hears of validation too, and is gone by then.
    plugins.roster().create(&PodSandbox::default(), Container::default()).await.unwrap();
    heard.gone().await;
}

#[tokio::test]
async fn a_validator_without_an_answer_has_not_agreed() {
    let silent: Acts = |_, _| Act::Silence;
    let events = 1 << (Event::ValidateContainerAdjustment as i32 - 1);
    let configure = ConfigureResponse { events, failure_policy: None };
    let (plugins, _heard, _dir) = with(configure, silent, SHORT).await;
    let created = plugins.roster().create(&PodSandbox::default(), Container::default()).await;
    assert!(matches!(created, Err(Error::NoAnswer { .. })), "{created:?}");
}

#[tokio::test]
async fn a_plugin_hears_only_of_what_it_asked_for() {
    let events = 1 << (Event::StopPodSandbox as i32 - 1);
    let configure = ConfigureResponse { events, failure_policy: None };
    let (plugins, heard, _dir) = with(configure, done, LONG).await;
    let roster = plugins.roster();
    roster.ask_pod(RUN, &PodSandbox::default()).await.unwrap();
    roster.tell_pod(Event::StopPodSandbox, &PodSandbox::default()).await;
    assert_eq!(heard.calls(), ["Configure", "Synchronize", "StopPodSandbox"]);
}

#[tokio::test]
async fn events_that_there_are_not_are_refused() {
    let configure = ConfigureResponse { events: 1 << 20, failure_policy: None };
    let (plugins, mut heard, _dir) = with(configure, done, LONG).await;
    heard.gone().await;
    assert!(!plugins.roster().hears(RUN));
    assert_eq!(heard.calls(), ["Configure"]);
}

#[tokio::test]
async fn who_waits_for_a_plugin_that_is_let_go_goes_on_with_the_first() {
    let silent: Acts = |_, _| Act::Silence;
    let (plugins, mut heard, _dir) = with(ConfigureResponse::default(), silent, SHORT).await;
    let roster = plugins.roster();
    let pod = PodSandbox::default();
    // One at a time: the others were still waiting for their turn.
    let all = (0..20).map(|_| roster.ask_pod(RUN, &pod));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    heard.gone().await;
    assert_eq!(heard.calls().iter().filter(|call| *call == "RunPodSandbox").count(), 1);
}
