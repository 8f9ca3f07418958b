// SPDX-License-Identifier: Apache-2.0
//! A plugin's connection: calls of the daemon and calls of the plugin, in both directions at once.
//!
//! ```text
//! call ──▶ task ──▶ writer ──▶ socket           one task owns the calls in flight; the writer is separate,
//!           ▲                    │              so a plugin that does not read cannot block reading from it,
//!           └────────────────────┘ read         nor the other way round
//! ```
//!
//! The rule: a connection ends in both directions at once, and calls in flight then fail with
//! [`CallError::Closed`]. Timeouts are the callers': a caller that stops waiting drops its future.

use crate::wire::{self, Channel, Decoder, Kind, Message};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hull_proto::ttrpc;
use prost::Message as _;
use std::collections::HashMap;
use std::pin::Pin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument as _;

/// Calls that may wait for the connection's task.
const CALLS_QUEUED: usize = 16;
/// Messages that may wait until the plugin reads them.
const UNREAD: usize = crate::limits::UNREAD.count();
/// Calls of the plugin that are served at a time.
const SERVED: usize = crate::limits::SERVED.count();
/// Size of one read, in bytes.
const READ_BYTES: usize = 16 << 10;

const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// gRPC's next_number, of which these few are used.
pub(crate) mod code {
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const UNIMPLEMENTED: i32 = 12;
}

/// A call without a valid answer. The texts are sentences about the plugin.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{message}")]
    Refused { code: i32, message: String },
    #[error("the connection is closed: {why}")]
    Closed { why: String },
    #[error("it does not read its messages")]
    NotReading,
    #[error("the message would be longer than 4 MiB")]
    TooLong,
    #[error("its answer is invalid: {why}")]
    Invalid { why: String },
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
}

/// A call by the plugin.
#[derive(Debug)]
pub(crate) struct PluginCall {
    pub(crate) method: String,
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Result<Vec<u8>, ttrpc::Status>>,
}

#[derive(Debug)]
enum Command {
    Call { method: &'static str, payload: Vec<u8>, reply: Answer },
    Close { why: String },
}

type Answer = oneshot::Sender<Result<Bytes, CallError>>;

/// A handle on a plugin's connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    commands: mpsc::Sender<Command>,
    closed: watch::Receiver<Option<String>>,
}

impl Connection {
    /// Serves the connection on `stream`. Calls by the plugin arrive at the receiver.
    pub(crate) fn open(stream: UnixStream) -> (Self, mpsc::Receiver<PluginCall>) {
        let (commands, inbox) = mpsc::channel(CALLS_QUEUED);
        let (closing, closed) = watch::channel(None);
        let (incoming, calls) = mpsc::channel(SERVED);
        let (read, write) = stream.into_split();
        let (out, unread) = mpsc::channel(UNREAD);
        let task = ConnectionTask { pending: HashMap::new(), stream: 1, out, incoming };
        tokio::spawn(
            async move {
                let writer = tokio::spawn(write_all(write, unread));
                let why = task.run(read, inbox).await;
                writer.abort();
                closing.send_replace(Some(why));
            }
            .in_current_span(),
        );
        (Self { commands, closed }, calls)
    }

    /// Calls a method of the plugin.
    pub(crate) async fn call(
        &self,
        method: &'static str,
        message: &impl prost::Message,
    ) -> Result<Bytes, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = Command::Call { method, payload: message.encode_to_vec(), reply };
        if self.commands.send(call).await.is_err() {
            return Err(self.closed_error().await);
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.closed_error().await),
        }
    }

    /// Closes the connection and waits for its end. Calls in flight fail with `why`.
    pub(crate) async fn close(&self, why: String) {
        // Fails if it is closed already, for its own reason.
        let _closed = self.commands.send(Command::Close { why }).await;
        self.ended().await;
    }

    /// Waits for the end of the connection. Returns the reason.
    pub(crate) async fn ended(&self) -> String {
        let mut closed = self.closed.clone();
        let why = closed.wait_for(Option::is_some).await.ok();
        why.and_then(|why| why.clone()).unwrap_or_else(|| "it ended".into())
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    async fn closed_error(&self) -> CallError {
        CallError::Closed { why: self.ended().await }
    }
}

/// Writes queued messages until the queue or the socket is closed.
async fn write_all(mut to: OwnedWriteHalf, mut messages: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = messages.recv().await {
        if to.write_all(&message).await.is_err() {
            // The reading half gets the same error and reports it.
            return;
        }
    }
}

/// The pending result of a call by the plugin, with its ttrpc stream.
type PendingResult = Pin<Box<dyn Future<Output = (u32, Result<Vec<u8>, ttrpc::Status>)> + Send>>;

struct ConnectionTask {
    pending: HashMap<u32, Answer>,
    /// Stream number of the next call. ttrpc clients use odd ones.
    stream: u32,
    out: mpsc::Sender<Vec<u8>>,
    incoming: mpsc::Sender<PluginCall>,
}

impl ConnectionTask {
    /// Runs until the connection ends. Returns the reason.
    async fn run(mut self, mut read: OwnedReadHalf, mut inbox: mpsc::Receiver<Command>) -> String {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut serving: FuturesUnordered<PendingResult> = FuturesUnordered::new();
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Call { method, payload, reply }) => self.call(method, payload, reply),
                    Some(Command::Close { why }) => return why,
                    None => return "the daemon does not use it any more".into(),
                },
                Some((stream, result)) = serving.next() => self.answer(stream, result),
                got = read.read_buf(&mut buffer) => {
                    match got {
                        Ok(0) => return "the plugin closed it".into(),
                        Ok(_) => {}
                        Err(err) => return err.to_string(),
                    }
                    let messages = match decoder.feed(&buffer) {
                        Ok(messages) => messages,
                        Err(err) => return format!("it sent {err}"),
                    };
                    buffer.clear();
                    for message in messages {
                        if let Err(why) = self.receive(message, &mut serving) {
                            return why;
                        }
                    }
                }
            }
        }
    }

    fn call(&mut self, method: &'static str, payload: Vec<u8>, reply: Answer) {
        let request = ttrpc::Request {
            service: PLUGIN_SERVICE.into(),
            method: method.into(),
            payload,
            ..Default::default()
        };
        let stream = self.stream;
        let sent = wire::encode(Channel::Plugin, stream, Kind::Request, &request.encode_to_vec());
        let refused = match sent.map(|bytes| self.out.try_send(bytes)) {
            Some(Ok(())) => None,
            Some(Err(_)) => Some(CallError::NotReading),
            None => Some(CallError::TooLong),
        };
        if let Some(failed) = refused {
            // Fails if the caller has stopped waiting.
            let _gone = reply.send(Err(failed));
            return;
        }
        self.stream = self.stream.wrapping_add(2);
        // Calls whose caller stopped waiting are dropped; a late answer to them is ignored.
        self.pending.retain(|_, waiting| !waiting.is_closed());
        self.pending.insert(stream, reply);
    }

    fn receive(
        &mut self,
        message: Message,
        serving: &mut FuturesUnordered<PendingResult>,
    ) -> Result<(), String> {
        match (message.channel, message.kind) {
            (Channel::Plugin, Kind::Response) => {
                if let Some(reply) = self.pending.remove(&message.stream) {
                    let _gone = reply.send(decode_response(message.payload));
                }
            }
            (Channel::Runtime, Kind::Request) => {
                let (stream, mut result) = (message.stream, None);
                match self.request(message.payload, serving.len()) {
                    Ok(answer) => serving.push(Box::pin(async move {
                        let none = ttrpc::Status {
                            code: code::FAILED_PRECONDITION,
                            message: "the connection is being closed".into(),
                        };
                        (stream, answer.await.unwrap_or(Err(none)))
                    })),
                    Err(status) => result = Some(Err(status)),
                }
                if let Some(result) = result {
                    self.answer(stream, result);
                }
            }
            (Channel::Plugin, Kind::Request) => {
                return Err("it sent a request on the channel of its responses".into());
            }
            (Channel::Runtime, Kind::Response) => {
                return Err("it sent a response on the channel of its requests".into());
            }
        }
        Ok(())
    }

    /// Passes a call by the plugin to its session.
    fn request(
        &self,
        payload: Bytes,
        in_flight: usize,
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, ttrpc::Status>>, ttrpc::Status> {
        let refuse = |code, message: String| Err(ttrpc::Status { code, message });
        let request = match ttrpc::Request::decode(payload) {
            Ok(request) => request,
            Err(err) => return refuse(code::INVALID_ARGUMENT, err.to_string()),
        };
        if request.service != RUNTIME_SERVICE {
            return refuse(code::UNIMPLEMENTED, format!("there is no service {}", request.service));
        }
        let (reply, answer) = oneshot::channel();
        let call = PluginCall { method: request.method, payload: request.payload.into(), reply };
        if in_flight >= SERVED || self.incoming.try_send(call).is_err() {
            let most = format!("{SERVED} calls are in flight already");
            return refuse(code::RESOURCE_EXHAUSTED, most);
        }
        Ok(answer)
    }

    fn answer(&mut self, stream: u32, result: Result<Vec<u8>, ttrpc::Status>) {
        let response = match result {
            Ok(payload) => ttrpc::Response { status: None, payload },
            Err(status) => ttrpc::Response { status: Some(status), payload: Vec::new() },
        };
        let sent =
            wire::encode(Channel::Runtime, stream, Kind::Response, &response.encode_to_vec());
        // A plugin that does not read misses the answers to its own calls.
        if sent.is_none_or(|bytes| self.out.try_send(bytes).is_err()) {
            tracing::debug!(stream, "answer to a plugin's call not sent");
        }
    }
}

fn decode_response(payload: Bytes) -> Result<Bytes, CallError> {
    let response = ttrpc::Response::decode(payload)
        .map_err(|err| CallError::Invalid { why: err.to_string() })?;
    match response.status {
        Some(status) if status.code != 0 => {
            Err(CallError::Refused { code: status.code, message: status.message })
        }
        Some(_) | None => Ok(response.payload.into()),
    }
}
