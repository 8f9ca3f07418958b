// SPDX-License-Identifier: Apache-2.0
//! Ends of processes.
//!
//! ```text
//! cgroup killed ─ the kernel reports that it is empty ─▶ container: output drained, counters read, event sent
//!                                                       └▶ failed start: cgroup removed, start answered
//! ```

use crate::connection::RequestId;
use crate::containers::{Container, ContainerState};
use crate::draining::{DrainingCgroup, FailedStart};
use crate::hooks::ContainerHooks;
use crate::log::Stream;
use crate::monitor::Monitor;
use hull_cgroup::Cgroup;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Event, Exit, ExitHow, Failure, VERSION_LAST_OUTPUT};
use hull_sys::Reaped;
use hull_sys::time::now_ns;
use std::time::{Duration, Instant};

/// How long killed processes may delay the event of a container's end.
const ENDING_MAX: Duration = crate::limits::ENDING_S.time();
/// How long the cgroup of a failed start may take to become empty: its process ends by itself, so this is never
/// used up.
const FAILED_MAX: Duration = Duration::from_secs(5);
/// Pid of a start whose creating process was reaped before the program's process had appeared.
const NOBODY: i32 = 0;

impl Monitor {
    /// Reaps every child that has ended.
    pub(crate) fn reap(&mut self) {
        while let Some(pid) = hull_sys::next_ended() {
            // The owner of the pid must be known before another process can get it.
            self.containers.values_mut().for_each(|of| of.update_before_reaping(pid));
            self.execs.values_mut().for_each(|of| of.update_before_reaping(pid));
            if let Some(pending) = self.pause.as_mut().and_then(|of| of.pending.as_mut()) {
                let _its_own = pending.update_before_reaping(pid);
            }
            let Some(reaped) = hull_sys::reap(pid) else { return };
            let (pid, how) = match reaped {
                Reaped::Code(pid, code) => (pid, ExitHow::Code(code)),
                Reaped::Signal(pid, signal) => (pid, ExitHow::Signal(signal)),
            };
            self.ended(pid, how);
        }
    }

    fn ended(&mut self, pid: i32, how: ExitHow) {
        let at_ns = now_ns();
        // Only processes that are not reaped yet: the pid of another one may belong to a new process by now.
        if self.pause.as_ref().is_some_and(|pause| pause.pid == pid && pause.exit.is_none()) {
            self.poll_pause_start();
            self.pause_ended(how, at_ns);
            return;
        }
        let container = self.containers.iter().find(|(_, of)| of.pid == pid && of.is_unreaped());
        if let Some(id) = container.map(|(id, _)| id.clone()) {
            if let Some(container) = self.containers.get_mut(&id)
                && let ContainerState::Starting(pending) = &mut container.state
                && !pending.process.ended()
            {
                container.pid = NOBODY;
                return;
            }
            // Whether its program ever ran is known by now.
            self.poll_start(&id);
            self.container_ended(&id, how, at_ns);
            return;
        }
        let exec = self.execs.iter().find(|(_, exec)| exec.pid == pid).map(|(number, _)| *number);
        if let Some(number) = exec {
            if let Some(exec) = self.execs.get_mut(&number)
                && let Some(pending) = &mut exec.pending
                && !pending.process.ended()
            {
                exec.pid = NOBODY;
                return;
            }
            self.poll_exec_start(number);
            if self.execs.remove(&number).is_some() {
                self.daemon.event(Event::ExecExited(number, exit_of(how, at_ns)));
            }
        }
        // Any other process was orphaned in the pod, and is only reaped.
    }

    fn pause_ended(&mut self, how: ExitHow, at_ns: i64) {
        let Some(pause) = &mut self.pause else { return };
        let Some(started) = pause.started else {
            self.pause = None;
            return;
        };
        let exit = exit_of(how, at_ns.max(started.at_ns));
        pause.exit = Some(exit);
        self.daemon.event(Event::PauseExited(exit));
    }

    fn container_ended(&mut self, id: &ContainerId, how: ExitHow, at_ns: i64) {
        let pod = self.pod_cgroup();
        let Some(container) = self.containers.get_mut(id) else { return };
        let ContainerState::Running(started) = container.state else { return };
        // The status pipe may report only now that its program ran, and clocks are set back.
        let at_ns = at_ns.max(started.at_ns);
        if let Some(watch) = container.memory.take() {
            watch.remove(&mut self.events);
        }
        // The rest of the container ends with its first process.
        let (cgroup, events) = (&container.cgroup, &mut self.events);
        let draining = DrainingCgroup::start(cgroup, pod.as_ref(), ENDING_MAX, events);
        container.state = ContainerState::Ending { started, how, at_ns, draining };
        self.check_container(id);
    }

    /// Removes the cgroup of a failed start, and answers the start when that is done. A cgroup that is not removed in
    /// time is cleared by the daemon, by its path.
    pub(crate) fn drain_failed_start(
        &mut self,
        cgroup: Cgroup,
        request: RequestId,
        failure: Failure,
        hooks: Option<(ContainerId, ContainerHooks)>,
    ) {
        let (pod, events) = (self.pod_cgroup(), &mut self.events);
        let draining = DrainingCgroup::start(&cgroup, pod.as_ref(), FAILED_MAX, events);
        self.failed_starts.push(FailedStart { cgroup, draining, request, failure, hooks });
    }

    /// Checks all cgroups that are being drained.
    pub(crate) fn check_cgroups(&mut self) {
        let ending = self.containers.iter().filter(|(_, container)| container.is_ending());
        let ids: Vec<_> = ending.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.check_container(&id);
        }
        for failed in std::mem::take(&mut self.failed_starts) {
            self.check_failed_start(failed);
        }
    }

    /// When a cgroup must be checked next.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        let ending = self.containers.values().filter_map(|container| match &container.state {
            ContainerState::Ending { draining, .. } => Some(draining.check_at()),
            ContainerState::Starting(_)
            | ContainerState::Running(_)
            | ContainerState::Ended(..) => None,
        });
        ending.chain(self.failed_starts.iter().map(|failed| failed.draining.check_at())).min()
    }

    fn check_container(&mut self, id: &ContainerId) {
        let pod = self.pod_cgroup();
        let Some(container) = self.containers.get_mut(id) else { return };
        let ContainerState::Ending { started, how, at_ns, draining } = &mut container.state else {
            return;
        };
        if !draining.is_over(&container.cgroup) {
            if !draining.is_watched() {
                // Without `cgroup.kill` a process may have forked meanwhile.
                let _gone = crate::draining::kill(&container.cgroup, pod.as_ref());
            }
            return;
        }
        let (started, how, at_ns) = (*started, *how, *at_ns);
        draining.unwatch(&mut self.events);
        for stream in [Stream::Stdout, Stream::Stderr] {
            container.drain(stream, &mut self.buffers, &mut self.events);
        }
        container.log.finish();
        let counters = container.cgroup.exit_counters().unwrap_or_default();
        let exit = Exit {
            how,
            at_ns,
            oom_kills: counters.oom_kills,
            memory_peak_bytes: counters.memory_peak_bytes,
            pids_refused: counters.pids_refused,
        };
        container.state = ContainerState::Ended(started, exit);
        let (delete, hooks) = (container.delete, container.hooks.take());
        let failed = exit.how != ExitHow::Code(0) || exit.oom_kills > 0;
        let output = (failed && !container.tails.is_empty()).then(|| container.tails.copy());
        self.report_log_loss();
        if let Some(output) = output.filter(|_| self.daemon.version() >= VERSION_LAST_OUTPUT) {
            self.daemon.event(Event::LastOutput(id.clone(), output));
        }
        self.daemon.event(Event::ContainerExited(id.clone(), exit));
        if let Some(hooks) = hooks {
            self.run_poststop(id, &hooks);
        }
        if delete {
            self.delete(id);
        }
    }

    fn check_failed_start(&mut self, mut failed: FailedStart) {
        let in_time = !failed.draining.is_late();
        if !failed.draining.is_over(&failed.cgroup) {
            self.failed_starts.push(failed);
            return;
        }
        failed.draining.unwatch(&mut self.events);
        if failed.cgroup.remove().is_err() && in_time {
            // In a v1 hierarchy a task may take a moment longer to end than in another, and the kernel does not
            // report it.
            self.failed_starts.push(failed);
            return;
        }
        if let Some((id, hooks)) = failed.hooks {
            self.run_poststop(&id, &hooks);
        }
        self.daemon.reply(failed.request, Err(failed.failure));
    }

    /// Deletes an ended container.
    pub(crate) fn delete(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.remove(id) {
            self.events.remove_clients(id);
            // Busy only if a process hangs in it; the daemon clears it by its path.
            let _busy = container.cgroup.remove();
        }
    }

    /// Whether no process of the pod is left.
    pub(crate) fn has_no_process(&self) -> bool {
        self.pause.as_ref().is_none_or(|pause| pause.exit.is_some())
            && self.containers.values().all(Container::has_ended)
            && self.execs.is_empty()
            && self.failed_starts.is_empty()
            && self.hook_runs.is_empty()
    }

    /// Removes the cgroups that were created here: all processes are gone.
    pub(crate) fn remove_cgroups(&mut self) {
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            self.delete(&id);
        }
        if let Some(pause) = self.pause.take() {
            let _busy = pause.cgroup.remove();
        }
    }
}

/// An exit without counters.
fn exit_of(how: ExitHow, at_ns: i64) -> Exit {
    Exit { how, at_ns, oom_kills: 0, memory_peak_bytes: None, pids_refused: 0 }
}
