// SPDX-License-Identifier: Apache-2.0
//! A client of exec and attach sessions over WebSocket, for what crictl cannot be made to do: half a
//! session, a hundred of them, one that does not read.

use crate::cri::Cri;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hull_proto::cri as api;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::expect::ExpectExt;

/// The process's input.
pub const STDIN: u8 = 0;
/// Channel of standard output.
pub const STDOUT: u8 = 1;
/// Channel of standard error.
pub const STDERR: u8 = 2;
/// How it ended.
pub const ERROR: u8 = 3;
/// The terminal's size.
pub const RESIZE: u8 = 4;

/// The writing half of a session: input of the process.
#[derive(Debug)]
pub struct Input(SplitSink<WebSocketStream<TcpStream>, Message>);

/// The reading half of a session: output of the process.
#[derive(Debug)]
pub struct Output(SplitStream<WebSocketStream<TcpStream>>);

/// All that came.
#[derive(Debug, Default)]
pub struct Transcript {
    /// Of its output.
    pub stdout: Vec<u8>,
    /// Of its complaints.
    pub stderr: Vec<u8>,
    /// The document that says how it ended; null when none came.
    pub status: serde_json::Value,
}

impl Transcript {
    /// The exit code that the status tells.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        if self.status["status"] == "Success" {
            return Some(0);
        }
        let causes = self.status["details"]["causes"].as_array()?;
        let cause = causes.iter().find(|cause| cause["reason"] == "ExitCode")?;
        cause["message"].as_str()?.parse().ok()
    }
}

/// Opens the session at `url` with the newest protocol, as a client that soon does not keep up.
///
/// # Errors
/// What the server or the connection said.
pub async fn open(url: &str) -> Result<(Input, Output), String> {
    // Small, so that a client that does not read is noticed before megabytes have gone.
    connect(url, "v5.channel.k8s.io", Some(64 << 10)).await
}

/// Opens the session at `url` with a protocol that all runtimes know, and the system's buffers.
///
/// # Errors
/// What the server or the connection said.
pub async fn open_fast(url: &str) -> Result<(Input, Output), String> {
    connect(url, "v4.channel.k8s.io", None).await
}

async fn connect(
    url: &str,
    protocol: &'static str,
    buffer_bytes: Option<u32>,
) -> Result<(Input, Output), String> {
    let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let address: SocketAddr = address.parse().map_err(|_| format!("{url} names no address"))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|err| err.to_string())?;
    if let Some(bytes) = buffer_bytes {
        socket.set_recv_buffer_size(bytes).map_err(|err| err.to_string())?;
    }
    let stream = socket.connect(address).await.map_err(|err| err.to_string())?;
    let mut request =
        url.replacen("http", "ws", 1).into_client_request().map_err(|err| err.to_string())?;
    let protocol = HeaderValue::from_static(protocol);
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (client, _) = client_async(request, stream).await.map_err(|err| err.to_string())?;
    let (to, from) = client.split();
    Ok((Input(to), Output(from)))
}

/// Begins to run `command` in a container; with a terminal when `tty`.
pub async fn exec(cri: &Cri, container: &str, command: &[&str], tty: bool) -> (Input, Output) {
    let request = api::ExecRequest {
        container_id: container.into(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let mut runtime = cri.runtime.clone();
    let url = runtime.exec(request).await.or_fail("ask for an exec").into_inner().url;
    open(&url).await.map_err(std::io::Error::other).or_fail("open an exec session")
}

/// Attaches to a container; to its input as well when `stdin`.
pub async fn attach(cri: &Cri, container: &str, stdin: bool, tty: bool) -> (Input, Output) {
    let container_id = container.to_owned();
    let request = api::AttachRequest { container_id, stdin, tty, stdout: true, stderr: !tty };
    let mut runtime = cri.runtime.clone();
    let url = runtime.attach(request).await.or_fail("ask for an attach").into_inner().url;
    open(&url).await.map_err(std::io::Error::other).or_fail("open an attach session")
}

impl Input {
    /// Sends bytes on a channel; false when the session is over.
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) -> bool {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        self.0.send(Message::binary(message)).await.is_ok()
    }

    /// Ends a channel.
    pub async fn end(&mut self, channel: u8) {
        let _over = self.0.send(Message::binary(vec![255, channel])).await;
    }

    /// Tells the terminal its size.
    pub async fn resize(&mut self, width: u16, height: u16) {
        let size = serde_json::json!({"Width": width, "Height": height}).to_string();
        let _over = self.send(RESIZE, size.as_bytes()).await;
    }
}

impl Output {
    /// The next bytes of a channel; `None` once the session is over.
    pub async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            let message = self.0.next().await?.ok()?;
            let Message::Binary(mut bytes) = message else { continue };
            let channel = bytes.split_to(1);
            if !bytes.is_empty() {
                return Some((channel[0], bytes));
            }
        }
    }

    /// Waits until the server has begun, which it tells.
    pub async fn begun(&mut self) {
        let _first = self.0.next().await;
    }

    /// Everything until the session is over.
    pub async fn rest(&mut self) -> Transcript {
        let mut transcript = Transcript::default();
        let mut status = Vec::new();
        while let Some((channel, bytes)) = self.next().await {
            match channel {
                STDOUT => transcript.stdout.extend_from_slice(&bytes),
                STDERR => transcript.stderr.extend_from_slice(&bytes),
                ERROR => status.extend_from_slice(&bytes),
                other => panic!("channel {other} is not one that a server sends on"),
            }
        }
        transcript.status = serde_json::from_slice(&status).unwrap_or_default();
        transcript
    }

    /// Reads output until it holds `words`, and gives what came.
    pub async fn until(&mut self, words: &str) -> String {
        let mut text = String::new();
        while !text.contains(words) {
            let Some((_, bytes)) = self.next().await else {
                panic!("the session ended before it said {words:?}: {text:?}");
            };
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }
}
