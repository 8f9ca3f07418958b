// SPDX-License-Identifier: Apache-2.0
//! A session with a container for `hull exec`, `attach` and `run`: our standard streams at those of a process, by the
//! daemon's streaming, as kubectl has them.
//!
//! ```text
//! stdin ─ thread ─ detach keys? ─▶ queue ─▶ WebSocket ─▶ process
//! stdout, stderr ◀─ thread ◀─ queue ◀─ WebSocket ◀─┘
//! ```
//!
//! Our stdin and stdout may block, so each has a thread. The threads end with this program; what stdin's thread has
//! read by then is lost, as with every program that reads ahead.

use super::detach::{DetachFilter, DetachKeys, Filtered};
use super::error::{Error, Result};
use super::exit_codes::exit_code;
use super::raw_mode::{self, RawMode};
use bytes::Bytes;
use hull_streaming::terminal::Size;
use hull_streaming::websocket::client::{self, ClientError, Received};
use std::io::{self, Read as _, Write as _};
use std::thread;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Size of one read of stdin, in bytes.
const CHUNK: usize = 32 << 10;
/// Most chunks that wait in either direction.
const CHUNKS_WAITING: usize = 4;
/// Interval of signs of life while nothing else is sent.
const ALIVE: Duration = Duration::from_secs(30);
/// Longest wait for the daemon after this side has ended the session: until it has killed the process of an exec.
const END_MAX: Duration = Duration::from_secs(15);
/// Longest status, in bytes: the longest message of the daemon, as JSON.
const STATUS_BYTES_MAX: usize = 64 << 10;

/// The streams of a session, and the ways for this side to end it.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
    pub(crate) detach_keys: Option<DetachKeys>,
    pub(crate) timeout: Option<Duration>,
}

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process has exited with this code; 0 for an attached container, whatever its code.
    Exited(u8),
    /// The daemon could not run the process: its sentence.
    Failed(String),
    /// The user typed the detach keys.
    Detached,
    /// The timeout of the options has passed.
    TimedOut,
    /// A signal to us, with the exit code for it.
    Signal(u8),
}

/// A message to the daemon.
enum Outgoing {
    Stdin(Vec<u8>),
    EndStdin,
    Resize(Size),
    Alive,
}

/// Runs the session at `url`, an answer of Exec or Attach, until either side ends it.
///
/// # Errors
/// The connection fails, our stdin is not a terminal although both -i and -t are given, or our stdout cannot be
/// written.
pub(crate) async fn run(url: &str, options: Options) -> Result<Ended> {
    // Before the terminal is raw: a signal must not leave it so.
    let signals = EndSignals::new()?;
    let raw = (options.stdin && options.tty).then(RawMode::enter).transpose()?;
    let ended = connected(url, options, signals).await;
    drop(raw);
    ended
}

async fn connected(url: &str, options: Options, mut signals: EndSignals) -> Result<Ended> {
    let address =
        url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or(url);
    let io = TcpStream::connect(address)
        .await
        .map_err(Error::io(format!("connect to the daemon's streaming server at {address}")))?;
    io.set_nodelay(true).map_err(Error::io("set TCP_NODELAY"))?;
    let connection = rustix::io::dup(&io)
        .map_err(|source| Error::Kernel { operation: "duplicate a descriptor", source })?;
    let (to, from) = client::connect(io, url).await.map_err(|source| Error::Session { source })?;
    let (queue, outgoing) = mpsc::channel(CHUNKS_WAITING);
    let _sender = tokio::spawn(send_all(to, outgoing));
    let received = receive_all(from);
    tokio::pin!(received);
    let ended = tokio::select! {
        ended = &mut received => return ended,
        ended = until_ended_here(&queue, options, &mut signals) => ended?,
    };
    // The daemon notices the end even if it does not read now. Output from before it is still printed.
    let _gone = rustix::net::shutdown(&connection, rustix::net::Shutdown::Write);
    tokio::select! {
        _either = received => {}
        () = tokio::time::sleep(END_MAX) => {}
        // A second signal does not wait.
        _ = signals.next() => {}
    }
    Ok(ended)
}

/// Passes on input and sizes of the terminal, until this side ends the session.
async fn until_ended_here(
    queue: &mpsc::Sender<Outgoing>,
    options: Options,
    signals: &mut EndSignals,
) -> Result<Ended> {
    let mut resized =
        signal(SignalKind::window_change()).map_err(Error::io("listen for signals"))?;
    if options.tty {
        send_size(queue).await;
    }
    let (detached, detach) = oneshot::channel();
    if options.stdin {
        read_stdin(queue.clone(), options.detach_keys, detached)?;
    }
    let detach = async {
        if detach.await.is_err() {
            // Stdin has ended.
            std::future::pending().await
        }
    };
    let timeout = async {
        match options.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(detach, timeout);
    let mut alive = tokio::time::interval(ALIVE);
    loop {
        tokio::select! {
            () = &mut detach => return Ok(Ended::Detached),
            () = &mut timeout => return Ok(Ended::TimedOut),
            code = signals.next() => return Ok(Ended::Signal(code)),
            Some(()) = resized.recv(), if options.tty => send_size(queue).await,
            // If the queue is full, something is being sent.
            _ = alive.tick() => drop(queue.try_send(Outgoing::Alive)),
        }
    }
}

async fn send_size(queue: &mpsc::Sender<Outgoing>) {
    if let Some(size) = raw_mode::size() {
        // Fails if the session has ended.
        let _ended = queue.send(Outgoing::Resize(size)).await;
    }
}

/// Sends messages until the queue or the session ends.
async fn send_all(mut to: client::Sender<TcpStream>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(message) = queue.recv().await {
        let sent = match message {
            Outgoing::Stdin(bytes) => to.stdin(&bytes).await,
            Outgoing::EndStdin => to.end_stdin().await,
            Outgoing::Resize(size) => to.resize(size).await,
            Outgoing::Alive => to.keep_alive().await,
        };
        // The receiver reports a broken connection.
        if sent.is_err() {
            return;
        }
    }
}

/// Prints output until the daemon ends the session, and reads the status.
async fn receive_all(mut from: client::Receiver<TcpStream>) -> Result<Ended> {
    let (output, mut written) = write_output()?;
    let mut status = Vec::new();
    let broken = loop {
        let chunk = match from.next().await {
            Ok(Some(Received::Status(bytes))) => {
                if status.len() + bytes.len() > STATUS_BYTES_MAX {
                    break Some(ClientError::Message);
                }
                status.extend_from_slice(&bytes);
                continue;
            }
            Ok(Some(Received::Stdout(bytes))) => (OutputStream::Stdout, bytes),
            Ok(Some(Received::Stderr(bytes))) => (OutputStream::Stderr, bytes),
            Ok(None) => break None,
            Err(err) => break Some(err),
        };
        // The writer has ended with an error.
        if output.send(chunk).await.is_err() {
            break None;
        }
    };
    drop(output);
    if let Ok(Err(source)) = (&mut written).await {
        return Err(Error::io("print the output")(source));
    }
    match (status.is_empty(), broken) {
        (false, _) => parse_status(&status),
        (true, Some(source)) => Err(Error::Session { source }),
        (true, None) => Err(Error::SessionCut),
    }
}

/// The result of the process in a `Status` of the Kubernetes API.
fn parse_status(json: &[u8]) -> Result<Ended> {
    let status: serde_json::Value =
        serde_json::from_slice(json).map_err(|source| Error::Json { source })?;
    if status["status"] == "Success" {
        return Ok(Ended::Exited(0));
    }
    let causes = status["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
    let code = causes
        .iter()
        .find(|cause| cause["reason"] == "ExitCode")
        .and_then(|cause| cause["message"].as_str()?.parse().ok());
    Ok(match code {
        Some(code) => Ended::Exited(exit_code(code)),
        None => Ended::Failed(status["message"].as_str().unwrap_or_default().to_owned()),
    })
}

/// Starts the thread that reads stdin until its end or the detach keys.
fn read_stdin(
    queue: mpsc::Sender<Outgoing>,
    detach_keys: Option<DetachKeys>,
    detached: oneshot::Sender<()>,
) -> Result<()> {
    let mut filter = detach_keys.map(DetachFilter::new);
    let read = move || {
        let mut stdin = io::stdin().lock();
        let mut chunk = vec![0; CHUNK];
        loop {
            let got = match stdin.read(&mut chunk) {
                Ok(0) => break,
                Ok(got) => got,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                // EIO of a terminal that is gone.
                Err(_) => break,
            };
            let input = match &mut filter {
                None => Filtered::Input(chunk[..got].to_vec()),
                Some(filter) => filter.feed(&chunk[..got]),
            };
            let (input, detach) = match input {
                Filtered::Input(input) => (input, false),
                Filtered::Detach(input) => (input, true),
            };
            if !input.is_empty() && queue.blocking_send(Outgoing::Stdin(input)).is_err() {
                return;
            }
            if detach {
                let _ended = detached.send(());
                return;
            }
        }
        let rest = filter.map(DetachFilter::rest).unwrap_or_default();
        if !rest.is_empty() {
            let _ended = queue.blocking_send(Outgoing::Stdin(rest));
        }
        let _ended = queue.blocking_send(Outgoing::EndStdin);
    };
    let thread = thread::Builder::new().name("stdin".into()).spawn(read);
    thread.map(drop).map_err(Error::io("start a thread"))
}

/// A stream of ours.
#[derive(Debug, Clone, Copy)]
enum OutputStream {
    Stdout,
    Stderr,
}

/// A queue of output, and the result of writing all of it.
type OutputQueue = (mpsc::Sender<(OutputStream, Bytes)>, oneshot::Receiver<io::Result<()>>);

/// Starts the thread that writes output until the queue ends.
fn write_output() -> Result<OutputQueue> {
    let (queue, mut chunks) = mpsc::channel::<(OutputStream, Bytes)>(CHUNKS_WAITING);
    let (done, written) = oneshot::channel();
    let write = move || {
        let mut write_all = || {
            while let Some((stream, bytes)) = chunks.blocking_recv() {
                match stream {
                    OutputStream::Stdout => {
                        let mut out = io::stdout().lock();
                        out.write_all(&bytes)?;
                        // A prompt has no newline.
                        out.flush()?;
                    }
                    OutputStream::Stderr => io::stderr().lock().write_all(&bytes)?,
                }
            }
            Ok(())
        };
        let _ended = done.send(write_all());
    };
    thread::Builder::new()
        .name("stdout".into())
        .spawn(write)
        .map_err(Error::io("start a thread"))?;
    Ok((queue, written))
}

/// The signals that end a session, with their exit codes.
struct EndSignals([(Signal, u8); 4]);

impl EndSignals {
    fn new() -> Result<Self> {
        let on = |kind: SignalKind| {
            let code = exit_code(128_i32.saturating_add(kind.as_raw_value()));
            let signal = signal(kind).map_err(Error::io("listen for signals"))?;
            Ok::<_, Error>((signal, code))
        };
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
            on(SignalKind::quit())?,
        ]))
    }

    /// Waits for a signal, and returns its exit code.
    async fn next(&mut self) -> u8 {
        let [first, second, third, fourth] = &mut self.0;
        tokio::select! {
            _ = first.0.recv() => first.1,
            _ = second.0.recv() => second.1,
            _ = third.0.recv() => third.1,
            _ = fourth.0.recv() => fourth.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_in_the_status() {
        let failure =
            br#"{"metadata":{},"status":"Failure","message":"m","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        for (json, ended) in [
            (&br#"{"metadata":{},"status":"Success"}"#[..], Ended::Exited(0)),
            (failure, Ended::Exited(3)),
            (br#"{"status":"Failure","message":"cannot start"}"#, Ended::Failed("cannot start".into())),
            (
                br#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"-9"}]}}"#,
                Ended::Exited(255),
            ),
        ] {
            assert_eq!(parse_status(json).unwrap(), ended);
        }
        parse_status(b"not JSON").unwrap_err();
    }
}
