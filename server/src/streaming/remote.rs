// SPDX-License-Identifier: Apache-2.0
//! The standard streams of a process, for a client far away: remotecommand, versions 1 to 5.
//!
//! ```text
//! client ── stdin, resize ──▶ pipes or terminal ──▶ process
//!        ◀─ stdout, stderr ──                  ◀──
//!        ◀─ error ── how it ended, once all output was sent
//! ```
//!
//! A process lives no longer than its client is there; a client is let go no earlier than the
//! process has ended. Output of what the process left behind is waited for as long as for ExecSync.

use crate::container::exec::{self, Running};
use crate::error::{Chain, Error, Result};
use crate::node::Node;
use bytes::{Bytes, BytesMut};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{ExitHow, Streams};
use hull_streaming::channel::{CHUNK, Inbound, Outbound};
use hull_streaming::remotecommand::{Version, Wanted};
use hull_streaming::session::{Alive, Session, Stream};
use hull_streaming::terminal::Terminal;
use hull_sys::text::shown_json;
use serde_json::json;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tracing::{debug, info};

/// How long a client may take to open its streams.
const OPENING_MAX: Duration = crate::limits::OPENING_S.time();
/// What a pipe holds, in bytes: so much may wait in it when a process ends.
const PIPE_BYTES: usize = 64 << 10;

/// The client's streams.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) sides: Sides,
    /// Says how it went, last of all.
    pub(super) error: Outbound,
}

impl Remote {
    /// What is copied, once.
    pub(super) fn take(&mut self) -> Sides {
        std::mem::take(&mut self.sides)
    }
}

/// How a process ended, or why there was none.
type Outcome = Result<i32>;

/// Runs a command for the client of `session`.
pub(super) async fn exec(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: Vec<String>,
    wanted: Wanted,
    version: Version,
    mut session: Session,
) {
    let Some(Remote { sides, error }) = opened(&mut session, wanted, version).await else { return };
    let alive = session.alive.clone();
    let outcome = if wanted.tty {
        in_terminal(node, container, cmd, sides, alive).await
    } else {
        with_pipes(node, container, cmd, sides, alive).await
    };
    let Some(outcome) = outcome else {
        info!(%container, "client of an exec went away; its process is killed");
        return;
    };
    // A client that is gone now misses nothing but this.
    let _gone = error.write(verdict(&outcome, version)).await;
    error.end().await;
    session.finish().await;
}

/// The client's streams, once it has opened them.
pub(super) async fn opened(
    session: &mut Session,
    wanted: Wanted,
    version: Version,
) -> Option<Remote> {
    let opening = tokio::time::timeout(OPENING_MAX, remote(session, wanted, version)).await;
    // Any further stream is refused: nobody waits for it.
    session.streams.close();
    if !matches!(opening, Ok(Some(_))) {
        debug!("client did not open its streams");
    }
    opening.ok().flatten()
}

/// Waits until the client has opened every stream that it must.
async fn remote(session: &mut Session, wanted: Wanted, version: Version) -> Option<Remote> {
    let (mut stdin, mut stdout, mut stderr, mut resize, mut error) = (None, None, None, None, None);
    let wants_resize = wanted.tty && version.has_sizes();
    loop {
        let complete = error.is_some()
            && stdin.is_some() >= wanted.stdin
            && stdout.is_some() >= wanted.stdout
            && stderr.is_some() >= (wanted.stderr && !wanted.tty)
            && resize.is_some() >= wants_resize;
        if complete {
            let sides = Sides { stdin, stdout, stderr, resize };
            return Some(Remote { sides, error: error? });
        }
        let Stream { headers, input, output } = session.streams.recv().await?;
        match headers.get("streamtype").map(String::as_str) {
            Some("stdin") if wanted.stdin => stdin = Some(input),
            Some("resize") if wanted.tty => resize = Some(input),
            Some("stdout") if wanted.stdout => stdout = Some(output),
            Some("stderr") if wanted.stderr && !wanted.tty => stderr = Some(output),
            Some("error") => error = Some(output),
            _ => output.end().await,
        }
    }
}

/// What is copied.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) stdin: Option<Inbound>,
    pub(super) stdout: Option<Outbound>,
    pub(super) stderr: Option<Outbound>,
    pub(super) resize: Option<Inbound>,
}

async fn with_pipes(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: Vec<String>,
    sides: Sides,
    alive: Alive,
) -> Option<Outcome> {
    let Sides { stdin, stdout, stderr, .. } = sides;
    let streams = Streams {
        stdin: stdin.is_some(),
        stdout: stdout.is_some(),
        stderr: stderr.is_some(),
        tty: false,
    };
    let (told, ended) = watch::channel(false);
    let drain = Duration::from_secs(node.config.runtime.exec_drain_s);
    let (mut fds, mut out, mut input) = (Vec::new(), Vec::new(), None);
    if let Some(client) = stdin {
        match exec::pipe_in() {
            Ok((to, fd)) => {
                fds.push(fd);
                input = Some(feed(client, to));
            }
            Err(err) => return Some(Err(err.into())),
        }
    }
    for client in [stdout, stderr].into_iter().flatten() {
        match exec::pipe() {
            Ok((from, fd)) => {
                fds.push(fd);
                out.push(drain_into(from, client, ended.clone(), drain));
            }
            Err(err) => return Some(Err(err.into())),
        }
    }
    let input = async {
        if let Some(input) = input {
            input.await;
        }
    };
    let output = futures_util::future::join_all(out);
    let output = async { drop(output.await) };
    run(node, container, &cmd, (streams, fds), (input, output), told, alive).await
}

async fn in_terminal(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: Vec<String>,
    sides: Sides,
    alive: Alive,
) -> Option<Outcome> {
    let Sides { stdin, stdout, resize, .. } = sides;
    let (terminal, slave) = match Terminal::open() {
        Ok(both) => both,
        Err(source) => return Some(Err(Error::ExecPipes { source }.into())),
    };
    let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let (told, ended) = watch::channel(false);
    let drain = Duration::from_secs(node.config.runtime.exec_drain_s);
    let Terminal { output: from, input: to, sizes } = terminal;
    let sizes = async {
        if let Some(resize) = resize {
            sizes.follow(resize).await;
        }
    };
    let keys = async {
        if let Some(stdin) = stdin {
            feed(stdin, to).await;
        }
    };
    let input = async {
        tokio::join!(sizes, keys);
    };
    let output = async {
        if let Some(stdout) = stdout {
            drain_into(from, stdout, ended, drain).await;
        }
    };
    run(node, container, &cmd, (streams, vec![slave]), (input, output), told, alive).await
}

/// Starts the process and copies until it has ended and its output was sent. `None` when the client
/// went away first; the process is killed then.
async fn run(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: &[String],
    (streams, fds): (Streams, Vec<OwnedFd>),
    (input, output): (impl Future<Output = ()>, impl Future<Output = ()>),
    told: watch::Sender<bool>,
    mut alive: Alive,
) -> Option<Outcome> {
    let started = async {
        let (_, pod) = node
            .registry
            .container(container.as_str())
            .ok_or_else(|| Error::NotFound { kind: "container", id: container.to_string() })?;
        exec::start(node, container, &pod, cmd, streams, fds).await
    };
    let Running { mut kill, ended } = tokio::select! {
        started = started => match started {
            Ok(running) => running,
            Err(err) => return Some(Err(err)),
        },
        () = alive.gone() => return None,
    };
    tokio::pin!(input, output, ended);
    let (mut input_done, mut output_done) = (false, false);
    let exit = loop {
        tokio::select! {
            exit = &mut ended => break exit,
            () = &mut input, if !input_done => input_done = true,
            () = &mut output, if !output_done => output_done = true,
            () = alive.gone() => return None,
        }
    };
    kill.disarm();
    told.send_replace(true);
    if !output_done {
        tokio::select! {
            () = output => {}
            () = alive.gone() => return None,
        }
    }
    Some(match exit {
        Ok(exit) => Ok(match exit.how {
            ExitHow::Code(code) => code,
            ExitHow::Signal(signal) => 128 + signal,
        }),
        Err(_) => Err(exec::lost()),
    })
}

/// Copies what the client sends, then closes. A process that reads no more ends it.
pub(super) async fn feed(mut client: Inbound, mut to: impl AsyncWrite + Unpin) {
    while let Some(chunk) = client.next().await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

/// Copies output to the client. Once the process has ended, `limit` is all the time that there is
/// for what others hold open; what was in the pipe by then is sent anyway.
pub(super) async fn drain_into(
    mut from: impl AsyncRead + Unpin,
    client: Outbound,
    mut ended: watch::Receiver<bool>,
    limit: Duration,
) {
    let mut left_in_pipe = PIPE_BYTES;
    let over = async {
        // The sender outlives this, or the whole session is over.
        drop(ended.wait_for(|ended| *ended).await);
        tokio::time::sleep(limit).await;
    };
    tokio::pin!(over);
    let mut is_over = false;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut chunk) => read,
            () = &mut over, if !is_over => {
                is_over = true;
                continue;
            }
            () = std::future::ready(()), if is_over => break,
        };
        match read {
            Ok(read) if read > 0 => {
                left_in_pipe = left_in_pipe.saturating_sub(if is_over { read } else { 0 })
            }
            // EIO is how a terminal says that nobody holds its other side any more.
            Ok(_) | Err(_) => break,
        }
        if client.write(chunk.freeze()).await.is_err() || left_in_pipe == 0 {
            break;
        }
    }
    client.end().await;
}

/// What the error stream says.
pub(super) fn verdict(outcome: &Outcome, version: Version) -> Bytes {
    let message = match outcome {
        Ok(0) => None,
        Ok(code) => Some(format!("command terminated with non-zero exit code: exit status {code}")),
        Err(err) => Some(crate::error::sentence(err)),
    };
    if let Err(err) = outcome {
        debug!(error = %Chain(&**err), "exec failed");
    }
    if !version.has_status() {
        return message.unwrap_or_default().into();
    }
    let said: serde_json::Value = match (outcome, message) {
        (Ok(code), Some(message)) => json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        (Err(_), Some(message)) => json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
            "details": {"causes": [{"message": message}]}, "code": 500,
        }),
        (_, None) => json!({"metadata": {}, "status": "Success"}),
    };
    shown_json(&said.to_string()).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_where_clients_look_for_it() {
        let v4 = Version::of("v4.channel.k8s.io");
        let said: serde_json::Value = serde_json::from_slice(&verdict(&Ok(3), v4)).unwrap();
        assert_eq!(said["status"], "Failure");
        assert_eq!(said["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        let said: serde_json::Value = serde_json::from_slice(&verdict(&Ok(0), v4)).unwrap();
        assert_eq!(said["status"], "Success");
        assert!(verdict(&Ok(0), Version::of("v2.channel.k8s.io")).is_empty());
    }
}
