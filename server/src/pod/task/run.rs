// SPDX-License-Identifier: Apache-2.0
//! The loop of a pod's task: takes commands, events of the monitor, and results of its work.

use super::data::Task;
use super::result::WorkResult;
use super::teardown_state::Removal;
use crate::monitors::MonitorEvent;
use crate::pod::{Command, Requested, State};
use crate::tracer::{self, SpanPlace};
use hull_proto::monitor;
use tokio::sync::mpsc;
use tracing::warn;

impl Task {
    /// Runs until nothing is left of the pod. Its setup is part of the span `began_in`.
    pub(super) async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<Requested>,
        began_in: Option<SpanPlace>,
    ) {
        match self.record.state {
            State::Building => tracer::within(began_in, async { self.build() }).await,
            State::Stopping => self.tear_down().await,
            State::Ready { .. } | State::Stopped => {}
        }
        while !self.teardown.is_done() {
            if self.remove_if_over().await {
                continue;
            }
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(of) => tracer::within(of.span, self.command(of.command)).await,
                    // Every handle is gone: the daemon is ending. Monitors go on without it.
                    None => return,
                },
                Some(monitor_event) = self.monitor_events.recv() => self.monitor_event(monitor_event).await,
                Some(result) = self.work.next() => self.work_ended(result).await,
            }
        }
    }

    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Create { config, reply } => self.create(*config, reply),
            Command::Start { id, reply } => self.start(&id, reply).await,
            Command::StartAgain { id, reply } => self.start_again(&id, reply).await,
            Command::Stop { id, grace_s, reply } => self.stop(&id, grace_s, reply).await,
            Command::Remove { id, reply } => self.remove(&id, reply).await,
            Command::Update { id, resources, reply } => self.update(&id, *resources, reply).await,
            Command::Limit { id, resources, reply } => self.limit(&id, *resources, reply).await,
            Command::Hold { id, reply } => self.hold(&id, reply),
            Command::Signal { id, signal, reply } => self.signal(&id, signal, reply).await,
            Command::ReopenLog { id, reply } => self.reopen_log(&id, reply),
            Command::UpdatePod { sizes, reply } => self.resize(*sizes, reply).await,
            Command::StopPod { reply } => self.stop_pod(Some(reply)).await,
            Command::RemovePod { reply } => {
                self.remove_waiters.push(reply);
                self.stop_pod(None).await;
            }
        }
    }

    pub(super) async fn monitor_event(&mut self, monitor_event: MonitorEvent) {
        match monitor_event {
            MonitorEvent::Event(monitor::Event::ContainerExited(id, exit)) => {
                self.exited(&id, exit).await;
            }
            MonitorEvent::Event(monitor::Event::PauseExited(exit)) => {
                if self.record.state.is_ready() {
                    warn!(how = ?exit.how, "pause process ended by itself; the sandbox is gone");
                    self.lost_sandbox().await;
                }
            }
            // Delivered to their callers by the connection.
            MonitorEvent::Event(monitor::Event::ExecExited(..)) => {}
            MonitorEvent::Event(monitor::Event::LastOutput(id, output)) => {
                self.keep_output(&id, output);
            }
            MonitorEvent::Event(monitor::Event::OutOfMemory { container, oom_kills }) => {
                self.out_of_memory(&container, oom_kills);
            }
            MonitorEvent::Event(monitor::Event::LogLost { container, bytes, errno }) => {
                self.log_lost(&container, bytes, errno).await;
            }
            MonitorEvent::Event(monitor::Event::LogDropped { container, dropped }) => {
                self.log_dropped(&container, dropped).await;
            }
            MonitorEvent::Event(monitor::Event::HookFailed { container, why }) => {
                warn!(container = self.name_of(&container), container_id = %container.short(), why, "hooks of a container failed; it goes on without them");
            }
            MonitorEvent::Lost => {
                self.client = None;
                if self.record.state.is_ready() {
                    warn!("monitor is gone; ending what it left");
                    self.node.metrics.monitors_lost.count(&[]);
                    self.lost_sandbox().await;
                }
            }
        }
    }

    pub(super) async fn work_ended(&mut self, result: WorkResult) {
        match result {
            // The plugin set is held until the result is visible.
            WorkResult::Built(Ok(up), _plugins) => self.built(up).await,
            WorkResult::Built(Err(source), _plugins) => self.build_failed(source).await,
            WorkResult::ContainersEnded => self.containers_ended(),
            WorkResult::TornDown(result) => self.torn_down(result).await,
            WorkResult::PluginsNotifiedOfRemoval => self.forget().await,
            WorkResult::Created(id, result) => self.created(&id, result).await,
            WorkResult::Started(id, result, plugins) => self.started(&id, result, plugins).await,
            WorkResult::Stopped(id, waiter, result) => self.stopped(&id, waiter, result).await,
            WorkResult::Killed(id, Ok(stopped)) => {
                self.lose_unreported(&id, stopped).await;
                self.remove_stopped(&id).await;
            }
            WorkResult::Killed(id, Err(err)) => self.removed(&id, Err(err)).await,
            WorkResult::Removed(id, result) => self.removed(&id, result).await,
            WorkResult::UpdateDecided(id, waiter, result) => {
                self.decided(&id, waiter, result).await;
            }
            WorkResult::Updated(id, waiter, decision, result) => {
                self.updated(&id, waiter, decision, result).await;
            }
            WorkResult::ResizeAllowed(wanted, result) => self.resizable(*wanted, result).await,
            WorkResult::SignalNotSent(id, request) => self.signal_not_sent(&id, &request).await,
            WorkResult::RestartDue(id, turn) => self.restart_due(&id, turn),
            WorkResult::Cleared(id, result) => self.cleared(&id, result).await,
            WorkResult::Restarted(id, result) => self.restarted(&id, result).await,
            WorkResult::RetryTeardown(failures)
                if self.teardown.awaits(failures)
                    && matches!(self.record.state, State::Stopping) =>
            {
                if self.removal != Removal::OnRequest {
                    self.remove_automatically().await;
                }
                self.tear_down().await;
            }
            WorkResult::RetryTeardown(_) | WorkResult::Nothing => {}
        }
        if !self.remove_waiters.is_empty() {
            self.remove_when_possible().await;
        }
    }
}
