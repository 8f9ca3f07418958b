// SPDX-License-Identifier: Apache-2.0
//! ExecSync: a command in a running container, its output and its exit code.
//!
//! The monitor makes the process; its output comes straight to us through pipes of our own, bounded
//! in bytes and, once the process has ended, in time: a grandchild that keeps the pipe open cannot
//! hold anything here.

use crate::container::{self, State};
use crate::error::{Error, Result};
use crate::monitors;
use crate::node::{Node, blocking};
use crate::pod::Pod;
use crate::{explain, spec};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Exit, ExitHow, Failure as MonitorFailure, Streams, Target, Verb};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

const SIGKILL: i32 = 9;
/// How much is read at a time, in bytes.
const CHUNK: usize = 16 << 10;

/// What a command gave.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) code: i32,
}

/// Runs `cmd` and waits for it, at most for `limit`; then it is killed.
pub(crate) async fn sync(
    node: &Arc<Node>,
    id: &ContainerId,
    pod: &Pod,
    cmd: Vec<String>,
    limit: Option<Duration>,
) -> Result<Output> {
    const DOING: &str = "run the command";
    let view = pod.view();
    let shown = view.containers.get(id).cloned();
    let shown = shown.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })?;
    if !matches!(shown.record.state, State::Running { .. }) {
        return Err(Arc::new(Error::WrongState {
            verb: "run a command in",
            kind: "container",
            id: id.to_string(),
            state: shown.record.state.name(),
        }));
    }
    let client = view
        .client
        .clone()
        .ok_or(Error::Monitor { doing: DOING, source: monitors::Error::Lost })?;
    let process = process(node, &view, &shown.record, &cmd, false)?;
    let (stdout, stdout_in) = pipe()?;
    let (stderr, stderr_in) = pipe()?;
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    let exec = node.next_exec();
    let encoded = hull_plan::encode(&process);
    // From here on a caller that goes away takes the process with it.
    let mut kill = Kill { client: client.clone(), exec: Some(exec) };
    let started = client.exec(id.clone(), exec, encoded, streams, vec![stdout_in, stderr_in]).await;
    if started.is_err() {
        kill.exec = None;
    }
    let (_, ended) = match started {
        Ok(started) => started,
        Err(monitors::Error::Refused { failure: MonitorFailure::Step(step) }) => {
            let (node, record) = (Arc::clone(node), Arc::clone(&shown.record));
            let failure = blocking(move || explain::exec(&node, &record, &process, &step)).await;
            return Err(Arc::new(Error::Failed { doing: DOING, failure: Box::new(failure) }));
        }
        Err(source) => return Err(Arc::new(Error::Monitor { doing: DOING, source })),
    };
    gather(node, stdout, stderr, ended, limit, kill).await
}

/// The process of an exec: as the container's own, with another command.
pub(crate) fn process(
    node: &Arc<Node>,
    view: &crate::pod::View,
    record: &container::ContainerRecord,
    cmd: &[String],
    tty: bool,
) -> Result<hull_plan::Process> {
    if cmd.is_empty() {
        return Err(Arc::new(Error::Invalid { field: "cmd", why: "it is empty".into() }));
    }
    let image = node
        .images
        .find(&record.image_id)
        .ok_or_else(|| Error::NoImage { image: record.image_id.clone() })?;
    let spec = container::start::spec(node, &view.id, &view.record, record, &image, None)?;
    let process = spec::exec(&spec, cmd, tty).map_err(|source| Error::Spec { source })?;
    let process = hull_plan::process(&process, &spec, &node.host);
    Ok(process.map_err(|source| Error::Plan { source })?)
}

fn pipe() -> std::result::Result<(Receiver, OwnedFd), Error> {
    let failed = |source| Error::ExecPipes { source };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|err| failed(err.into()))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|err| failed(err.into()))?;
    Ok((Receiver::from_owned_fd(read).map_err(failed)?, write))
}

/// Kills the exec unless it is told that the process has ended: also when the caller goes away.
struct Kill {
    client: monitors::Client,
    exec: Option<u64>,
}

impl Drop for Kill {
    fn drop(&mut self) {
        let Some(exec) = self.exec.take() else { return };
        let client = self.client.clone();
        tokio::spawn(async move {
            let verb = Verb::Signal { target: Target::Exec(exec), signal: SIGKILL };
            // A monitor that is gone has taken its execs along.
            let _gone = client.tell(verb, Vec::new()).await;
        });
    }
}

async fn gather(
    node: &Node,
    stdout: Receiver,
    stderr: Receiver,
    ended: oneshot::Receiver<Exit>,
    limit: Option<Duration>,
    mut kill: Kill,
) -> Result<Output> {
    let most = usize::try_from(node.config.runtime.exec_output_bytes_max).unwrap_or(usize::MAX);
    let drain = Duration::from_secs(node.config.runtime.exec_drain_s);
    let (mut out, mut err) = (Collector::new(stdout, most), Collector::new(stderr, most));
    let exit = {
        let all = async {
            tokio::pin!(ended);
            // Output is read while the process runs, or it would block on a full pipe.
            loop {
                tokio::select! {
                    exit = &mut ended => return exit,
                    () = out.fill(), if !out.done => {}
                    () = err.fill(), if !err.done => {}
                }
            }
        };
        match limit {
            Some(limit) => match tokio::time::timeout(limit, all).await {
                Ok(exit) => exit,
                Err(_) => return Err(Arc::new(Error::ExecTimeout { limit })),
            },
            None => all.await,
        }
    };
    kill.exec = None;
    let exit = exit.map_err(|_| Error::Monitor {
        doing: "wait for the command",
        source: monitors::Error::Lost,
    })?;
    let rest = async {
        tokio::join!(out.read_rest(), err.read_rest());
    };
    // Whoever holds the pipes open after the process ended gets no more of our time than this.
    let _held_open = tokio::time::timeout(drain, rest).await;
    let code = match exit.how {
        ExitHow::Code(code) => code,
        ExitHow::Signal(signal) => 128 + signal,
    };
    Ok(Output { stdout: out.bytes, stderr: err.bytes, code })
}

/// Reads one stream, keeps the first so many bytes and throws the rest away.
struct Collector {
    pipe: Receiver,
    bytes: Vec<u8>,
    most: usize,
    done: bool,
}

impl Collector {
    fn new(pipe: Receiver, most: usize) -> Self {
        Self { pipe, bytes: Vec::new(), most, done: false }
    }

    /// Takes what is there; waits until something is.
    async fn fill(&mut self) {
        if self.pipe.readable().await.is_err() {
            self.done = true;
            return;
        }
        let mut chunk = [0; CHUNK];
        match self.pipe.try_read(&mut chunk) {
            Ok(0) => self.done = true,
            Ok(read) => {
                let room = self.most - self.bytes.len();
                self.bytes.extend_from_slice(&chunk[..read.min(room)]);
            }
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.done = true,
        }
    }

    async fn read_rest(&mut self) {
        while !self.done {
            self.fill().await;
        }
    }
}
