// SPDX-License-Identifier: Apache-2.0
//! A session with a container for `hull exec`, `attach` and `run`: our standard streams at those of a process, by the
//! daemon's streaming, as kubectl has them.
//!
//! ```text
//! stdin ─ thread ─▶ detach keys? ─▶ queue ─▶ WebSocket ─▶ process
//! stdout, stderr ◀─ thread ◀─ queue ◀─ WebSocket ◀─┘
//! ```
//!
//! The rule: nothing here waits for the daemon or the process alone. A process that does not read its input, or a
//! daemon that does not answer, delays neither a signal nor the timeout.

use super::detach::DetachKeys;
use super::error::{Error, Result};
use super::exit_codes::exit_code;
use super::raw_mode::{self, RawMode};
use super::signals::EndSignals;
use super::stdin::{Input, Outgoing, Stdin};
use bytes::Bytes;
use hull_streaming::terminal::Size;
use hull_streaming::websocket::client::{self, ClientError, Received};
use rustix::io::Errno;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::thread;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

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
    /// Whether the process ends with the session, unless the daemon is asked to leave it running: that of an exec.
    pub(crate) owns_process: bool,
    pub(crate) timeout: Option<Duration>,
}

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process has exited with this code; 0 for an attached container, whatever its code.
    Exited(u8),
    /// The daemon could not run the process, or ended the session of a client that fell behind: its sentence.
    Failed { message: String, after_output: bool },
    /// The user typed the detach keys.
    Detached,
    /// The timeout of the options has passed.
    TimedOut,
    /// A signal to us, with the exit code for it.
    Signal(u8),
}

/// Runs the session at `url`, an answer of Exec or Attach, until either side ends it.
///
/// # Errors
/// The connection fails, our stdin is not a terminal although both -i and -t are given, our stdin cannot be read, or
/// our stdout cannot be written.
pub(crate) async fn run(
    url: &str,
    options: Options,
    stdin: &mut Stdin,
    signals: &mut EndSignals,
) -> Result<Ended> {
    let raw = (options.stdin && options.tty).then(RawMode::enter).transpose()?;
    let ended = connected(url, options, stdin, signals).await;
    drop(raw);
    ended
}

/// Both directions of a session, and its connection.
type Connection = (client::Sender<TcpStream>, client::Receiver<TcpStream>, OwnedFd);

async fn connect(url: &str) -> Result<Connection> {
    let address =
        url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or(url);
    let io = TcpStream::connect(address)
        .await
        .map_err(Error::io(format!("connect to the daemon's streaming server at {address}")))?;
    io.set_nodelay(true).map_err(Error::io("set TCP_NODELAY"))?;
    let connection = rustix::io::dup(&io)
        .map_err(|source| Error::Kernel { operation: "duplicate a descriptor", source })?;
    let (to, from) = client::connect(io, url).await.map_err(|source| Error::Session { source })?;
    Ok((to, from, connection))
}

async fn connected(
    url: &str,
    options: Options,
    stdin: &mut Stdin,
    signals: &mut EndSignals,
) -> Result<Ended> {
    let (to, from, connection) = tokio::select! {
        connection = connect(url) => connection?,
        code = signals.next() => return Ok(Ended::Signal(code)),
    };
    let (queue, outgoing) = mpsc::channel(CHUNKS_WAITING);
    let _sender = tokio::spawn(send_all(to, outgoing));
    let received = receive_all(from);
    tokio::pin!(received);
    let owns_process = options.owns_process;
    let ended = tokio::select! {
        ended = &mut received => return ended,
        ended = until_ended_here(&queue, options, stdin, signals, raw_mode::size) => ended?,
    };
    if owns_process && ended == Ended::Detached {
        return left_running(&queue, received, signals).await;
    }
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

/// Asks the daemon to leave the process running, and waits until it says that it does.
async fn left_running(
    queue: &mpsc::Sender<Outgoing>,
    received: Pin<&mut impl Future<Output = Result<Ended>>>,
    signals: &mut EndSignals,
) -> Result<Ended> {
    let asked = async {
        // The receiver reports a broken connection.
        let _broken = queue.send(Outgoing::Detach).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = received => ended,
        () = asked => Err(Error::NotDetached),
        () = tokio::time::sleep(END_MAX) => Err(Error::NotDetached),
        code = signals.next() => Ok(Ended::Signal(code)),
    }
}

/// Passes on input and sizes of the terminal, until this side ends the session.
async fn until_ended_here(
    queue: &mpsc::Sender<Outgoing>,
    options: Options,
    stdin: &mut Stdin,
    signals: &mut EndSignals,
    terminal_size: impl Fn() -> Option<Size>,
) -> Result<Ended> {
    let mut resized =
        signal(SignalKind::window_change()).map_err(Error::io("listen for signals"))?;
    let timeout = async {
        match options.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    let mut alive = tokio::time::interval(ALIVE);
    let mut input = Input::new(options.stdin, options.detach_keys);
    // The newest size that was not sent yet.
    let mut size = options.tty.then(&terminal_size).flatten();
    // Closed when the connection is broken, which the receiver reports.
    let mut is_open = true;
    loop {
        tokio::select! {
            code = signals.next() => return Ok(Ended::Signal(code)),
            () = &mut timeout => return Ok(Ended::TimedOut),
            place = queue.reserve(), if is_open && (size.is_some() || input.is_waiting()) => {
                match place {
                    Ok(place) => {
                        let message = size.take().map(Outgoing::Resize).or_else(|| input.take());
                        if let Some(message) = message {
                            place.send(message);
                        }
                    }
                    Err(_) => is_open = false,
                }
            }
            chunk = stdin.next(), if input.wants_more() => {
                if input.add(chunk_or_end(chunk, options.tty)?) {
                    // A process that does not read does not keep its user.
                    if let Some(last) = input.take() {
                        drop(queue.try_send(last));
                    }
                    return Ok(Ended::Detached);
                }
            }
            Some(()) = resized.recv(), if options.tty => size = terminal_size().or(size),
            // If the queue is full, something is being sent.
            _ = alive.tick() => drop(queue.try_send(Outgoing::Alive)),
        }
    }
}

/// A terminal that is gone reads as EIO: the end of its input. Any other error would pass for the end of a file.
fn chunk_or_end(chunk: Result<Option<Vec<u8>>>, tty: bool) -> Result<Option<Vec<u8>>> {
    match chunk {
        Err(Error::Io { source, .. })
            if tty && source.raw_os_error() == Some(Errno::IO.raw_os_error()) =>
        {
            Ok(None)
        }
        other => other,
    }
}

/// Sends messages until the queue or the session ends.
async fn send_all(mut to: client::Sender<TcpStream>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(message) = queue.recv().await {
        let sent = match message {
            Outgoing::Stdin(bytes) => to.stdin(&bytes).await,
            Outgoing::EndStdin => to.end_stdin().await,
            Outgoing::Resize(size) => to.resize(size).await,
            Outgoing::Detach => to.detach().await,
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
    let (mut status, mut after_output) = (Vec::new(), false);
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
        after_output = true;
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
        (false, _) => parse_status(&status, after_output),
        (true, Some(source)) => Err(Error::Session { source }),
        (true, None) => Err(Error::SessionCut),
    }
}

/// The result of the process in a `Status` of the Kubernetes API.
fn parse_status(json: &[u8], after_output: bool) -> Result<Ended> {
    let status: serde_json::Value =
        serde_json::from_slice(json).map_err(|source| Error::Json { source })?;
    if status["status"] == "Success" {
        let is_detached = status["reason"] == "Detached";
        return Ok(if is_detached { Ended::Detached } else { Ended::Exited(0) });
    }
    let causes = status["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
    let code = causes
        .iter()
        .find(|cause| cause["reason"] == "ExitCode")
        .and_then(|cause| cause["message"].as_str()?.parse().ok());
    Ok(match code {
        Some(code) => Ended::Exited(exit_code(code)),
        None => {
            let message = status["message"].as_str().unwrap_or_default().to_owned();
            Ended::Failed { message, after_output }
        }
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};
    use std::cell::Cell;

    #[test]
    fn the_exit_code_is_in_the_status() {
        let failure =
            br#"{"metadata":{},"status":"Failure","message":"m","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        for (json, ended) in [
            (&br#"{"metadata":{},"status":"Success"}"#[..], Ended::Exited(0)),
            (br#"{"status":"Success","reason":"Detached"}"#, Ended::Detached),
            (failure, Ended::Exited(3)),
            (
                br#"{"status":"Failure","message":"cannot start"}"#,
                Ended::Failed { message: "cannot start".into(), after_output: false },
            ),
            (
                br#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"-9"}]}}"#,
                Ended::Exited(255),
            ),
        ] {
            assert_eq!(parse_status(json, false).unwrap(), ended);
        }
        parse_status(b"not JSON", false).unwrap_err();
    }

    /// The end of a session whose process does not read: the queue is full, and stays so.
    async fn end_with_full_queue(options: Options, signal: Option<Number>) -> Ended {
        let (queue, _not_read) = mpsc::channel(1);
        queue.try_send(Outgoing::Alive).unwrap();
        let mut signals = EndSignals::only(SignalKind::user_defined1()).unwrap();
        let asked = Cell::new(0);
        let size = || {
            asked.set(asked.get() + 1);
            // The second size comes by a signal, while the first one waits.
            let sent = if asked.get() == 1 { Some(Number::WINCH) } else { signal };
            sent.into_iter().for_each(|sent| kill_process(getpid(), sent).unwrap());
            Some(Size { width: 80, height: 24 })
        };
        let mut stdin = Stdin::default();
        until_ended_here(&queue, options, &mut stdin, &mut signals, size).await.unwrap()
    }

    #[tokio::test]
    async fn a_new_size_for_a_process_that_does_not_read_delays_neither_timeout_nor_signal() {
        let options = |timeout| Options {
            stdin: false,
            tty: true,
            detach_keys: None,
            owns_process: true,
            timeout,
        };
        let timed = options(Some(Duration::from_millis(1)));
        assert_eq!(end_with_full_queue(timed, None).await, Ended::TimedOut);
        let ended = end_with_full_queue(options(None), Some(Number::USR1)).await;
        assert_eq!(ended, Ended::Signal(138));
    }

    #[test]
    fn the_end_of_a_terminal_is_not_an_error_but_that_of_a_file_is() {
        let failed = |errno: Errno| Err(Error::io("read stdin")(errno.into()));
        assert_eq!(chunk_or_end(failed(Errno::IO), true).unwrap(), None);
        chunk_or_end(failed(Errno::IO), false).unwrap_err();
        chunk_or_end(failed(Errno::ISDIR), true).unwrap_err();
    }
}
