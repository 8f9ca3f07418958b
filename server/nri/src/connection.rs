// SPDX-License-Identifier: Apache-2.0
//! A plugin's connection: our calls and their answers, the plugin's calls and ours.
//!
//! ```text
//! call ──▶ owner ──▶ writer ──▶ socket          one task owns what is under way; the writer is apart,
//!            ▲                    │             so that a plugin that does not read keeps nobody from
//!            └────────────────────┘ read        hearing it, and the other way round
//! ```
//!
//! The rule: a connection ends whole. What was under way then is answered with [`Failed::Closed`].
//! Deadlines are the callers': who gives up waiting just drops its call.

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

/// Calls that may wait for the owner.
const CALLS: usize = 16;
/// Messages that may wait for a plugin to read.
const UNREAD: usize = crate::limits::UNREAD.count();
/// Calls of the plugin that are served at a time.
const SERVED: usize = crate::limits::SERVED.count();
/// Read at a time, in bytes.
const READ_BYTES: usize = 16 << 10;

const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// gRPC's numbers, of which these few are used.
pub(crate) mod code {
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const UNIMPLEMENTED: i32 = 12;
}

/// Why a call has no answer, or a bad one.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{message}")]
    Refused { code: i32, message: String },
    #[error("the connection is closed: {why}")]
    Closed { why: String },
    #[error("it does not read what it is sent")]
    Unread,
    #[error("the message would be longer than 4 MiB")]
    TooLong,
    #[error("its answer cannot be understood: {why}")]
    Garbled { why: String },
    #[error("no answer within {0:?}")]
    Late(std::time::Duration),
}

/// A call of the plugin.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) method: String,
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Result<Vec<u8>, ttrpc::Status>>,
}

#[derive(Debug)]
enum Command {
    Call { method: &'static str, payload: Vec<u8>, reply: Answer },
    Close { why: String },
}

type Answer = oneshot::Sender<Result<Bytes, Failed>>;

/// A handle on the connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    commands: mpsc::Sender<Command>,
    closed: watch::Receiver<Option<String>>,
}

impl Connection {
    /// Takes the socket over; the plugin's calls come out of the receiver.
    pub(crate) fn open(stream: UnixStream) -> (Self, mpsc::Receiver<Incoming>) {
        let (commands, inbox) = mpsc::channel(CALLS);
        let (closing, closed) = watch::channel(None);
        let (incoming, calls) = mpsc::channel(SERVED);
        let (read, write) = stream.into_split();
        let (out, unread) = mpsc::channel(UNREAD);
        let owner = Owner { pending: HashMap::new(), stream: 1, out, incoming };
        tokio::spawn(
            async move {
                let writer = tokio::spawn(write_all(write, unread));
                let why = owner.run(read, inbox).await;
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
    ) -> Result<Bytes, Failed> {
        let (reply, answer) = oneshot::channel();
        let call = Command::Call { method, payload: message.encode_to_vec(), reply };
        if self.commands.send(call).await.is_err() {
            return Err(self.gone().await);
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.gone().await),
        }
    }

    /// Ends it, for a reason that all who wait for an answer are told. When this comes back it has ended.
    pub(crate) async fn close(&self, why: String) {
        // One that is closed already has its reason.
        let _closed = self.commands.send(Command::Close { why }).await;
        self.ended().await;
    }

    /// Waits until it has ended, and tells why.
    pub(crate) async fn ended(&self) -> String {
        let mut closed = self.closed.clone();
        let why = closed.wait_for(Option::is_some).await.ok();
        why.and_then(|why| why.clone()).unwrap_or_else(|| "it ended".into())
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    async fn gone(&self) -> Failed {
        Failed::Closed { why: self.ended().await }
    }
}

/// Sends what is queued until it cannot.
async fn write_all(mut to: OwnedWriteHalf, mut messages: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = messages.recv().await {
        if to.write_all(&message).await.is_err() {
            // The reading half meets the same end and tells why.
            return;
        }
    }
}

/// A call of the plugin, with the stream that its answer belongs to.
type Serving = Pin<Box<dyn Future<Output = (u32, Result<Vec<u8>, ttrpc::Status>)> + Send>>;

struct Owner {
    pending: HashMap<u32, Answer>,
    /// Number of the next call: odd, as ttrpc has it for who calls.
    stream: u32,
    out: mpsc::Sender<Vec<u8>>,
    incoming: mpsc::Sender<Incoming>,
}

impl Owner {
    /// Runs until the connection ends. Why it did.
    async fn run(mut self, mut read: OwnedReadHalf, mut inbox: mpsc::Receiver<Command>) -> String {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut serving: FuturesUnordered<Serving> = FuturesUnordered::new();
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Call { method, payload, reply }) => self.call(method, payload, reply),
                    Some(Command::Close { why }) => return why,
                    None => return "nobody needs it any more".into(),
                },
                Some((stream, result)) = serving.next() => self.answer(stream, result),
                got = read.read_buf(&mut buffer) => {
                    match got {
                        Ok(0) => return "the plugin ended it".into(),
                        Ok(_) => {}
                        Err(err) => return err.to_string(),
                    }
                    let messages = match decoder.feed(&buffer) {
                        Ok(messages) => messages,
                        Err(err) => return format!("it sent {err}"),
                    };
                    buffer.clear();
                    for message in messages {
                        if let Err(why) = self.take(message, &mut serving) {
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
            Some(Err(_)) => Some(Failed::Unread),
            None => Some(Failed::TooLong),
        };
        if let Some(failed) = refused {
            // Whoever asked may have given up.
            let _gone = reply.send(Err(failed));
            return;
        }
        self.stream = self.stream.wrapping_add(2);
        // Those who gave up waiting are forgotten; a late answer then belongs to nobody.
        self.pending.retain(|_, waiting| !waiting.is_closed());
        self.pending.insert(stream, reply);
    }

    fn take(
        &mut self,
        message: Message,
        serving: &mut FuturesUnordered<Serving>,
    ) -> Result<(), String> {
        match (message.channel, message.kind) {
            (Channel::Plugin, Kind::Response) => {
                if let Some(reply) = self.pending.remove(&message.stream) {
                    let _gone = reply.send(answer_in(message.payload));
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
                return Err("it sent a call where it answers".into());
            }
            (Channel::Runtime, Kind::Response) => {
                return Err("it sent an answer where it calls".into());
            }
        }
        Ok(())
    }

    /// Hands a call of the plugin to who serves it.
    fn request(
        &self,
        payload: Bytes,
        under_way: usize,
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
        let call = Incoming { method: request.method, payload: request.payload.into(), reply };
        if under_way >= SERVED || self.incoming.try_send(call).is_err() {
            let most = format!("{SERVED} calls are under way already");
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
        // A plugin that reads nothing misses the answers to its own calls.
        if sent.is_none_or(|bytes| self.out.try_send(bytes).is_err()) {
            tracing::debug!(stream, "answer to the plugin's call not sent");
        }
    }
}

fn answer_in(payload: Bytes) -> Result<Bytes, Failed> {
    let response =
        ttrpc::Response::decode(payload).map_err(|err| Failed::Garbled { why: err.to_string() })?;
    match response.status {
        Some(status) if status.code != 0 => {
            Err(Failed::Refused { code: status.code, message: status.message })
        }
        Some(_) | None => Ok(response.payload.into()),
    }
}
