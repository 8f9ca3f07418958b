// SPDX-License-Identifier: Apache-2.0
//! Hooks of containers, which processes beside the monitor run: it goes on meanwhile.
//!
//! ```text
//! start ─ prestart, createRuntime (part of the launch) ─ program runs ─ poststart ─ start answered
//! end, or start failed ─ poststop ─ the container's obligation is gone
//! ```
//!
//! The end of a container is reported before its poststop hooks have run; the pod's monitor stays until they have.

use crate::connection::RequestId;
use crate::event_loop::EventSource;
use crate::hooks::{ContainerHooks, HookRun, Next};
use crate::monitor::Monitor;
use hull_init::HookKind;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Event, Response, Started, VERSION_HOOKS};
use rustix::event::epoll::EventFlags;
use rustix::io::{Errno, read};
use std::os::fd::AsFd as _;

/// Longest text of failed hooks that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

impl Monitor {
    /// Answers a start, after the poststart hooks if there are any.
    pub(crate) fn answer_start(&mut self, id: &ContainerId, request: RequestId, started: Started) {
        let hooks = self.containers.get(id).and_then(|container| container.hooks.clone());
        let hooks = hooks.filter(|of| of.hooks.has(&[HookKind::Poststart]));
        match hooks {
            Some(hooks) => {
                self.run_hooks(id, &hooks, HookKind::Poststart, Next::Answer(request, started));
            }
            None => self.daemon.reply(request, Ok(Response::Started(started))),
        }
    }

    /// Runs the poststop hooks of a container that has ended, or whose start has failed.
    pub(crate) fn run_poststop(&mut self, id: &ContainerId, hooks: &ContainerHooks) {
        if hooks.hooks.has(&[HookKind::Poststop]) {
            self.run_hooks(id, hooks, HookKind::Poststop, Next::Nothing);
        }
    }

    fn run_hooks(&mut self, id: &ContainerId, hooks: &ContainerHooks, kind: HookKind, next: Next) {
        let pid = match next {
            Next::Answer(_, started) => started.pid,
            Next::Nothing => 0,
        };
        // No output of a container is in the memory of the process.
        self.buffers = None;
        let number = self.next_hook_run;
        self.next_hook_run += 1;
        let dir = hooks.dir.as_fd();
        let output = hull_init::hook_process::run_beside(&hooks.hooks, kind, pid, dir)
            .map_err(|error| format!("{} hooks: {}", kind.name(), error.call));
        let watched = output.and_then(|output| {
            let (source, flags) = (EventSource::Hooks(number), EventFlags::IN);
            let token = self.events.add(output.as_fd(), source, flags);
            token.map(|token| (output, token)).map_err(|errno| format!("epoll_ctl(hooks): {errno}"))
        });
        match watched {
            Ok((output, token)) => {
                let container = id.clone();
                let run = HookRun { container, output, token, text: Vec::new(), next };
                self.hook_runs.insert(number, run);
            }
            // The obligation stays, for the daemon that removes the container.
            Err(why) => self.hooks_ended(id.clone(), why, next),
        }
    }

    /// Reads from a process that runs hooks.
    pub(crate) fn read_hooks(&mut self, number: u64) {
        let Some(run) = self.hook_runs.get_mut(&number) else { return };
        let mut chunk = [0; TEXT_BYTES_MAX];
        match read(&run.output, &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(got) if got > 0 => {
                let room = TEXT_BYTES_MAX.saturating_sub(run.text.len());
                run.text.extend_from_slice(&chunk[..got.min(room)]);
                return;
            }
            Ok(_) | Err(_) => {}
        }
        let Some(run) = self.hook_runs.remove(&number) else { return };
        self.events.remove(run.output.as_fd(), run.token);
        let why = String::from_utf8_lossy(&run.text).into_owned();
        self.hooks_ended(run.container, why, run.next);
    }

    fn hooks_ended(&mut self, container: ContainerId, why: String, next: Next) {
        if !why.is_empty() && self.daemon.version() >= VERSION_HOOKS {
            self.daemon.event(Event::HookFailed { container, why });
        }
        if let Next::Answer(request, started) = next {
            self.daemon.reply(request, Ok(Response::Started(started)));
        }
    }
}
