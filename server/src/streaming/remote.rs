// SPDX-License-Identifier: Apache-2.0
//! Exec: the standard streams of a new process for a remote client. remotecommand, versions 1 to 5.
//!
//! ```text
//! client ── stdin, resize ──▶ pipes or terminal ──▶ process
//!        ◀─ stdout, stderr ──                  ◀──
//!        ◀─ error ── exit status, after all output
//! ```
//!
//! The process is killed when its client disconnects, and the session ends only after the process. Output of
//! processes that it left behind is awaited as long as for ExecSync. A client with a terminal may ask to leave the
//! process running (`DETACH`): its output is dropped from then on, and it keeps the place of its session.

use super::terminal::{Terminal, first_size};
use crate::container::exec::{self, Running};
use crate::error::{Chain, Error, Result};
use crate::node::Node;
use crate::pod::Pod;
use bytes::{Bytes, BytesMut};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{ExitHow, Streams};
use hull_streaming::channel::{CHUNK, Inbound, Outbound};
use hull_streaming::remotecommand::{RequestedStreams, Version};
use hull_streaming::session::{Liveness, Session, Stream};
use hull_streaming::terminal::Sizes;
use hull_sys::text::shown_json;
use serde_json::json;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

/// Time for a client to open its streams.
const OPENING_MAX: Duration = crate::limits::OPENING_S.time();
/// Capacity of a pipe, in bytes: so much output may be left in it when a process ends.
const PIPE_BYTES: usize = 64 << 10;

/// The client's streams.
#[derive(Debug)]
pub(super) struct ClientStreams {
    pub(super) std: StdStreams,
    /// Carries the exit status, after all output.
    pub(super) error: Outbound,
}

impl ClientStreams {
    /// Takes the standard streams, once.
    pub(super) fn take(&mut self) -> StdStreams {
        std::mem::take(&mut self.std)
    }
}

/// The exit code, or the reason why the process did not run.
type Outcome = Result<i32>;

/// Runs a command for the client of `session`.
pub(super) async fn exec(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: Vec<String>,
    requested: RequestedStreams,
    version: Version,
    mut session: Session,
) {
    let Some(ClientStreams { std, error }) =
        open_client_streams(&mut session, requested, version).await
    else {
        return;
    };
    let liveness = session.liveness.clone();
    let outcome = if requested.tty {
        in_terminal(node, container, cmd, std, liveness).await
    } else {
        with_pipes(node, container, cmd, std, liveness).await
    };
    let (status, left) = match outcome {
        Copied::Disconnected => {
            let (pod, name) = names(node, container);
            info!(pod, container = name, container_id = %container.short(), "client of an exec disconnected; its process is killed");
            return;
        }
        Copied::Ended(outcome) => (status_message(&outcome, version), None),
        Copied::LeftRunning(process) => (DETACHED.into(), Some(process)),
    };
    session
        .finish_after(async {
            // Fails if the client disconnects now.
            let _disconnected = error.write(status).await;
            error.end().await;
        })
        .await;
    if let Some(process) = left {
        let (pod, name) = names(node, container);
        info!(pod, container = name, container_id = %container.short(), "client of an exec detached; its process runs on");
        process.discard_output().await;
    }
}

/// The names of a container's pod and its own, for the log.
fn names(node: &Node, id: &ContainerId) -> (Option<String>, Option<String>) {
    let view = node.registry.container(id.as_str()).map(|(_, pod)| pod.view());
    let name = view.as_ref().and_then(|view| view.containers.get(id));
    let name = name.map(|of| of.record.metadata().0.to_owned());
    (view.map(|view| view.record.full_name()), name)
}

/// The status for a client that has left its process running.
const DETACHED: &str = r#"{"metadata":{},"status":"Success","reason":"Detached"}"#;

/// How a session with a process ended.
enum Copied {
    /// The process has ended, or did not start.
    Ended(Outcome),
    /// The client has left it running.
    LeftRunning(Detached),
    /// The client has disconnected; the process is killed.
    Disconnected,
}

/// A process at a terminal whose client has left it running, and the terminal's master.
struct Detached {
    running: Running,
    master: OwnedFd,
}

impl Detached {
    /// Reads output and drops it until the process has ended: a terminal that nobody reads would stop it.
    async fn discard_output(self) {
        let Running { mut kill, mut ended } = self.running;
        kill.disarm();
        let Ok(mut output) = Receiver::from_owned_fd_unchecked(self.master) else { return };
        let (mut chunk, mut is_open) = (BytesMut::with_capacity(CHUNK), true);
        loop {
            chunk.clear();
            tokio::select! {
                _exit = &mut ended => return,
                // A terminal reads EIO when all processes have closed its other end.
                read = output.read_buf(&mut chunk), if is_open => is_open = matches!(read, Ok(1..)),
            }
        }
    }
}

/// Waits until the client has opened its streams; `None` if it does not in time.
pub(super) async fn open_client_streams(
    session: &mut Session,
    requested: RequestedStreams,
    version: Version,
) -> Option<ClientStreams> {
    let opening = tokio::time::timeout(OPENING_MAX, all_streams(session, requested, version)).await;
    // Further streams are refused.
    session.streams.close();
    if !matches!(opening, Ok(Some(_))) {
        debug!("client did not open its streams");
    }
    opening.ok().flatten()
}

/// Waits until the client has opened every stream that was requested.
async fn all_streams(
    session: &mut Session,
    requested: RequestedStreams,
    version: Version,
) -> Option<ClientStreams> {
    let (mut stdin, mut stdout, mut stderr, mut resize, mut error) = (None, None, None, None, None);
    let wants_resize = requested.tty && version.has_resize();
    loop {
        let complete = error.is_some()
            && stdin.is_some() >= requested.stdin
            && stdout.is_some() >= requested.stdout
            && stderr.is_some() >= (requested.stderr && !requested.tty)
            && resize.is_some() >= wants_resize;
        if complete {
            let std = StdStreams { stdin, stdout, stderr, resize };
            return Some(ClientStreams { std, error: error? });
        }
        let Stream { headers, input, output } = session.streams.recv().await?;
        match headers.get("streamtype").map(String::as_str) {
            Some("stdin") if requested.stdin => stdin = Some(input),
            Some("resize") if requested.tty => resize = Some(input),
            Some("stdout") if requested.stdout => stdout = Some(output),
            Some("stderr") if requested.stderr && !requested.tty => stderr = Some(output),
            Some("error") => error = Some(output),
            _ => output.end().await,
        }
    }
}

/// The streams that are copied, and the sizes of a terminal.
#[derive(Debug, Default)]
pub(super) struct StdStreams {
    pub(super) stdin: Option<Inbound>,
    pub(super) stdout: Option<Outbound>,
    pub(super) stderr: Option<Outbound>,
    pub(super) resize: Option<Inbound>,
}

async fn with_pipes(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: Vec<String>,
    std: StdStreams,
    liveness: Liveness,
) -> Copied {
    let StdStreams { stdin, stdout, stderr, .. } = std;
    let streams = Streams {
        stdin: stdin.is_some(),
        stdout: stdout.is_some(),
        stderr: stderr.is_some(),
        tty: false,
    };
    let (exited, ended) = watch::channel(false);
    let drain = Duration::from_secs(node.config.current().runtime.exec_drain_s);
    let (mut fds, mut out, mut input) = (Vec::new(), Vec::new(), None);
    if let Some(client) = stdin {
        match exec::pipe_in() {
            Ok((to, fd)) => {
                fds.push(fd);
                input = Some(copy_input(client, to));
            }
            Err(err) => return Copied::Ended(Err(err.into())),
        }
    }
    for client in [stdout, stderr].into_iter().flatten() {
        match exec::pipe() {
            Ok((from, fd)) => {
                fds.push(fd);
                out.push(copy_output(from, client, ended.clone(), drain));
            }
            Err(err) => return Copied::Ended(Err(err.into())),
        }
    }
    let input = async {
        if let Some(input) = input {
            input.await;
        }
    };
    let output = futures_util::future::join_all(out);
    let output = async { drop(output.await) };
    run(node, container, &cmd, (streams, fds), (input, output), exited, liveness).await
}

async fn in_terminal(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: Vec<String>,
    std: StdStreams,
    mut liveness: Liveness,
) -> Copied {
    let StdStreams { stdin, stdout, resize, .. } = std;
    let mut sizes = resize.map(Sizes::new);
    let started = async {
        let size = first_size(sizes.as_mut()).await.map(|size| (size.height, size.width));
        let pod = pod_of(node, container)?;
        exec::start_at_terminal(node, container, &pod, &cmd, size).await
    };
    let (running, master) = tokio::select! {
        started = started => match started {
            Ok(started) => started,
            Err(err) => return Copied::Ended(Err(err)),
        },
        () = liveness.disconnected() => return Copied::Disconnected,
    };
    let opened = master.try_clone().and_then(|own| Ok((own, Terminal::new(master)?)));
    let (master, Terminal { output: from, input: to, resizer }) = match opened {
        Ok(opened) => opened,
        Err(source) => return Copied::Ended(Err(Error::ExecPipes { source }.into())),
    };
    let (exited, ended) = watch::channel(false);
    let drain = Duration::from_secs(node.config.current().runtime.exec_drain_s);
    let left = Notify::new();
    let sizes = async {
        if let Some(sizes) = sizes
            && resizer.apply_all(sizes).await
        {
            left.notify_one();
        }
    };
    let keys = async {
        if let Some(stdin) = stdin {
            copy_input(stdin, to).await;
        }
    };
    let input = async {
        tokio::join!(sizes, keys);
    };
    let output = async {
        if let Some(stdout) = stdout {
            copy_output(from, stdout, ended, drain).await;
        }
    };
    let detach = async {
        left.notified().await;
        master
    };
    copy(running, (input, output), exited, liveness, detach).await
}

fn pod_of(node: &Node, container: &ContainerId) -> Result<Pod> {
    let found = node.registry.container(container.as_str());
    let not_found = || Error::NotFound { kind: "container", id: container.to_string() };
    Ok(found.map(|(_, pod)| pod).ok_or_else(not_found)?)
}

/// Starts the process and copies until it has ended and its output was sent, or the client disconnects first.
async fn run(
    node: &Arc<Node>,
    container: &ContainerId,
    cmd: &[String],
    (streams, fds): (Streams, Vec<OwnedFd>),
    copies: (impl Future<Output = ()>, impl Future<Output = ()>),
    exited: watch::Sender<bool>,
    mut liveness: Liveness,
) -> Copied {
    let started = async {
        let pod = pod_of(node, container)?;
        exec::start(node, container, &pod, cmd, streams, fds).await
    };
    let running = tokio::select! {
        started = started => match started {
            Ok(running) => running,
            Err(err) => return Copied::Ended(Err(err)),
        },
        () = liveness.disconnected() => return Copied::Disconnected,
    };
    copy(running, copies, exited, liveness, std::future::pending()).await
}

/// Copies until the process has ended and its output was sent, or the client disconnects first; or until `detach` has the
/// master of its terminal, at which the client has left it running.
async fn copy(
    Running { mut kill, mut ended }: Running,
    (input, output): (impl Future<Output = ()>, impl Future<Output = ()>),
    exited: watch::Sender<bool>,
    mut liveness: Liveness,
    detach: impl Future<Output = OwnedFd>,
) -> Copied {
    tokio::pin!(input, output, detach);
    let (mut input_done, mut output_done) = (false, false);
    let exit = loop {
        tokio::select! {
            exit = &mut ended => break exit,
            () = &mut input, if !input_done => input_done = true,
            () = &mut output, if !output_done => output_done = true,
            master = &mut detach => {
                let running = Running { kill, ended };
                return Copied::LeftRunning(Detached { running, master });
            }
            () = liveness.disconnected() => return Copied::Disconnected,
        }
    };
    kill.disarm();
    exited.send_replace(true);
    if !output_done {
        tokio::select! {
            () = output => {}
            () = liveness.disconnected() => return Copied::Disconnected,
        }
    }
    Copied::Ended(match exit {
        Ok(exit) => Ok(match exit.how {
            ExitHow::Code(code) => code,
            ExitHow::Signal(signal) => 128 + signal,
        }),
        Err(_) => Err(exec::lost()),
    })
}

/// Copies the client's input to the process, then closes it. Ends early if the process closes its input.
pub(super) async fn copy_input(mut client: Inbound, mut to: impl AsyncWrite + Unpin) {
    while let Some(chunk) = client.next().await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

/// Copies output to the client. After the process has ended, other processes may keep the output open for at most
/// `limit`; output that is in the pipe by then is still sent.
pub(super) async fn copy_output(
    mut from: impl AsyncRead + Unpin,
    client: Outbound,
    mut ended: watch::Receiver<bool>,
    limit: Duration,
) {
    let mut left_in_pipe = PIPE_BYTES;
    let over = async {
        // The sender outlives this future, unless the whole session ends.
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
            // A terminal reads EIO when all processes have closed its other end.
            Ok(_) | Err(_) => break,
        }
        if client.write(chunk.freeze()).await.is_err() || left_in_pipe == 0 {
            break;
        }
    }
    client.end().await;
}

/// The message on the error stream.
pub(super) fn status_message(outcome: &Outcome, version: Version) -> Bytes {
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
    fn the_exit_code_has_the_form_that_clients_parse() {
        let v4 = Version::of("v4.channel.k8s.io");
        let said: serde_json::Value = serde_json::from_slice(&status_message(&Ok(3), v4)).unwrap();
        assert_eq!(said["status"], "Failure");
        assert_eq!(said["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        let said: serde_json::Value = serde_json::from_slice(&status_message(&Ok(0), v4)).unwrap();
        assert_eq!(said["status"], "Success");
        assert!(status_message(&Ok(0), Version::of("v2.channel.k8s.io")).is_empty());
    }
}
