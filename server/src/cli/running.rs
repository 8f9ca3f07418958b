// SPDX-License-Identifier: Apache-2.0
//! The started container of `hull run`: our streams at its streams until it has exited.
//!
//! ```text
//! -t        an attached terminal ── fell behind ─▶ attached again
//!                     └── never attached ─▶ the log
//! -i        stdin ─▶ the container; its output comes from the log, which waits for no reader
//! signals   1: stopped ─▶ 2: killed ─▶ 3: left alone
//! ```
//!
//! The rule: the container never takes a part of our stdin for all of it. If the rest cannot be passed on, it is
//! stopped, and the result is a failure, whatever its exit code.

use super::args::Run;
use super::attach::{self, Stdio};
use super::client::Client;
use super::error::{Error, Result};
use super::exit_codes::OWN_FAILURE;
use super::follow::{Tail, Watch};
use super::logs::streams;
use super::session::Ended;
use super::signals::EndSignals;
use super::stdin::Stdin;
use super::{output, wait};
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use hull_proto::cri as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{mpsc, oneshot};

/// Number of signals that stop the container; the next one ends this command alone.
const STOPS_MAX: usize = 2;

/// The started container.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) id: String,
    pub(crate) log: PathBuf,
    /// Grace period in seconds after the first signal.
    pub(crate) grace_s: i64,
}

/// How following a container ended.
#[derive(Debug)]
pub(crate) enum Followed {
    Exited(Box<api::ContainerStatus>),
    /// The user typed the detach keys.
    Detached,
    /// It was stopped because it did not get all of our stdin, which was reported.
    InputCut,
    /// The signals were not enough to end it. The exit code for the last one.
    LeftAlone(u8),
}

impl Running {
    /// Connects our streams to the container's until it has exited.
    pub(crate) async fn follow(&self, args: &Run, signals: &mut EndSignals) -> Result<Followed> {
        if args.tty {
            return self.in_terminal(args, signals).await;
        }
        let log = Some(LogPrinter::start(&self.log)?);
        let input = args.interactive.then(|| self.input());
        self.until_ended(signals, log, Stops::new(self), input).await
    }

    /// At a terminal, where a client that fell behind attaches again.
    async fn in_terminal(&self, args: &Run, signals: &mut EndSignals) -> Result<Followed> {
        let stdio = Stdio { stdin: args.interactive, tty: true };
        let (mut client, mut stdin) = (self.client.clone(), Stdin::default());
        let mut stops = Stops::new(self);
        let mut has_output = false;
        let failure = loop {
            let ours = (&mut stdin, &mut *signals);
            match attach::run(&mut client, &self.id, stdio, &args.detach_keys, ours).await {
                Ok(Ended::Detached) => return Ok(Followed::Detached),
                Ok(Ended::Exited(_) | Ended::TimedOut) => {
                    return self.until_ended(signals, None, stops, NO_INPUT).await;
                }
                Ok(Ended::Signal(_)) => {
                    stops.next();
                    return self.until_ended(signals, None, stops, NO_INPUT).await;
                }
                Ok(Ended::Failed { message, after_output: true }) => {
                    has_output = true;
                    output::to_stderr(&format!(
                        "\nhull: {}\nhull: output is missing here; `hull logs {}` prints all of it\n",
                        shown(message, MESSAGE_BYTES_MAX),
                        output::short(&self.id)
                    ));
                }
                Ok(Ended::Failed { message, after_output: false }) => {
                    break Error::daemon(&message);
                }
                Err(err @ Error::Daemon { .. }) => break err,
                Err(other) => return Err(other),
            }
        };
        // It may have exited already; then its output is in the log.
        let lost = args.interactive && !self.has_exited().await?;
        if lost {
            report_cut(failure);
            stops.next();
        }
        let log = if has_output { None } else { Some(LogPrinter::start(&self.log)?) };
        let followed = self.until_ended(signals, log, stops, NO_INPUT).await?;
        let is_cut = lost && matches!(followed, Followed::Exited(_));
        Ok(if is_cut { Followed::InputCut } else { followed })
    }

    /// Passes on stdin. An error if the container may have got only a part of it.
    async fn input(&self) -> Result<()> {
        match attach::input(&mut self.client.clone(), &self.id).await {
            // Nobody has attached, so it exited without having seen an end of its input.
            Err(Error::Daemon { .. }) if self.has_exited().await? => Ok(()),
            passed => passed,
        }
    }

    async fn has_exited(&self) -> Result<bool> {
        let mut client = self.client.clone();
        let request = api::ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let answer =
            wait::through_restart(async || client.runtime.container_status(request.clone()).await);
        let status = answer.await?.into_inner().status.unwrap_or_default();
        Ok(status.state() == api::ContainerState::ContainerExited)
    }

    /// Waits until the container has exited, and prints its log. Signals stop it, and an error of `input` does.
    async fn until_ended(
        &self,
        signals: &mut EndSignals,
        mut log: Option<LogPrinter>,
        mut stops: Stops,
        input: Option<impl Future<Output = Result<()>>>,
    ) -> Result<Followed> {
        let ended = wait::until_exited(self.client.clone(), self.id.clone());
        let mut is_open = input.is_some();
        let input = async {
            match input {
                Some(input) => input.await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(ended, input);
        let (mut status, mut is_cut) = (None, false);
        while status.is_none() || is_open {
            tokio::select! {
                exited = &mut ended, if status.is_none() => status = Some(exited?),
                passed = &mut input, if is_open => {
                    is_open = false;
                    if let Err(err) = passed {
                        report_cut(err);
                        is_cut = true;
                        stops.next();
                    }
                }
                printed = printed(&mut log) => printed?,
                code = signals.next() => {
                    if !stops.next() {
                        return Ok(Followed::LeftAlone(code));
                    }
                }
                Some(stopped) = stops.results.next() => {
                    if let Err(err) = stopped {
                        output::report(&err, OWN_FAILURE);
                        if is_cut {
                            return Ok(Followed::InputCut);
                        }
                    }
                }
            }
        }
        if let Some(log) = log {
            // The daemon reports the exit only when all output is in the log.
            tokio::select! {
                printed = log.finish() => printed?,
                code = signals.next() => return Ok(Followed::LeftAlone(code)),
            }
        }
        Ok(match status {
            Some(status) if !is_cut => Followed::Exited(Box::new(status)),
            _ => Followed::InputCut,
        })
    }
}

/// No input to wait for.
const NO_INPUT: Option<std::future::Ready<Result<()>>> = None;

fn report_cut(source: Error) {
    output::report(&Error::InputCut { source: Box::new(source) }, OWN_FAILURE);
}

/// Prints what is new in the log. Resolves when printing has failed.
async fn printed(log: &mut Option<LogPrinter>) -> Result<()> {
    match log {
        Some(log) => log.print().await,
        None => std::future::pending().await,
    }
}

/// The requests to stop the container.
#[derive(Debug)]
struct Stops {
    client: Client,
    id: String,
    grace_s: i64,
    sent: usize,
    results: FuturesUnordered<LocalBoxFuture<'static, Result<()>>>,
}

impl Stops {
    fn new(of: &Running) -> Self {
        let results = FuturesUnordered::new();
        Self { client: of.client.clone(), id: of.id.clone(), grace_s: of.grace_s, sent: 0, results }
    }

    /// Stops the container; the second time without a grace period. False if that was done already.
    fn next(&mut self) -> bool {
        let timeout = if self.sent == 0 { self.grace_s } else { 0 };
        self.sent += 1;
        if self.sent > STOPS_MAX {
            return false;
        }
        let (mut client, id) = (self.client.clone(), self.id.clone());
        self.results.push(Box::pin(async move {
            wait::through_restart(async || {
                let request = api::StopContainerRequest { container_id: id.clone(), timeout };
                client.runtime.stop_container(request).await
            })
            .await?;
            Ok(())
        }));
        true
    }
}

/// Prints the log by a thread, since our stdout may block: a signal must not wait for its reader.
#[derive(Debug)]
struct LogPrinter {
    watch: Watch,
    steps: mpsc::Sender<Step>,
    ended: oneshot::Receiver<Result<()>>,
}

/// The next work of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Prints new lines.
    Print,
    /// Prints the rest, and ends.
    Finish,
}

impl LogPrinter {
    /// Prints the log from its beginning.
    fn start(path: &Path) -> Result<Self> {
        let watch = Watch::beside(path)?;
        let mut tail = Tail::open(path, None)?;
        // One step waits: it prints everything from before it began.
        let (steps, mut next) = mpsc::channel(1);
        let (done, ended) = oneshot::channel();
        let mut print = move || -> Result<()> {
            let mut to = streams(false);
            tail.pump(&mut to)?;
            while let Some(step) = next.blocking_recv() {
                match step {
                    Step::Print => tail.pump(&mut to)?,
                    Step::Finish => return tail.finish(&mut to),
                }
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("log".into());
        thread
            .spawn(move || {
                // The receiver is gone when the command has ended.
                let _gone = done.send(print());
            })
            .map_err(Error::io("start a thread"))?;
        Ok(Self { watch, steps, ended })
    }

    /// Prints new lines as they come. Resolves when printing has failed. Cancel safe.
    async fn print(&mut self) -> Result<()> {
        loop {
            tokio::select! {
                ended = &mut self.ended => return result(ended),
                () = self.watch.changed() => drop(self.steps.try_send(Step::Print)),
            }
        }
    }

    /// Prints the rest.
    async fn finish(self) -> Result<()> {
        // Fails if the thread has ended with an error.
        let _ended = self.steps.send(Step::Finish).await;
        result(self.ended.await)
    }
}

/// The result of the thread.
fn result(ended: std::result::Result<Result<()>, RecvError>) -> Result<()> {
    let panicked = |err| Error::io("print the log")(io::Error::other(err));
    ended.map_err(panicked)?
}
