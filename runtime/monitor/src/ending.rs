// SPDX-License-Identifier: Apache-2.0
//! What is on its way out: containers whose first process has ended, and what starts that failed left.
//!
//! ```text
//! cgroup killed ─ the kernel tells that it is empty ─▶ container: output drained, counters read, told
//!                                                    └▶ failed start: cgroup removed, start answered
//! ```
//!
//! Nothing here is waited for in place, and nothing is looked at without news: `cgroup.events` of the
//! v2 tree is in the loop. As the kernel tells of it once in ten milliseconds at most, the processes that
//! are on their way out are as well. Only where there is no such tree a clock looks.

use crate::connection::Asked;
use crate::log::Stream;
use crate::monitor::{Monitor, Watched};
use crate::processes::Stage;
use hull_cgroup::{Cgroup, Events};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Event, Exit, ExitHow, Failure};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long killed processes may hold up the word of a container's end.
const ENDING_MAX: Duration = crate::limits::ENDING_S.time();
/// How long the cgroup of a failed start may take to go: its process ends by itself, so this is not
/// used up.
const FAILED_MAX: Duration = Duration::from_secs(5);
/// How often what the kernel tells nothing of is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// How many processes of a cgroup are followed to their ends.
const FOLLOWED_MAX: usize = 16;

/// A cgroup that was killed and is not empty yet.
#[derive(Debug)]
pub(crate) struct Emptying {
    /// What the kernel tells, with its token in the loop.
    news: Option<(Events, u64)>,
    /// Processes on their way out, likewise; each tells once.
    followed: Vec<(OwnedFd, u64)>,
    /// Waited for no longer than this.
    until: Instant,
}

impl Emptying {
    /// Whether nobody is in it any more, or it was waited for long enough.
    fn is_over(&self, cgroup: &Cgroup) -> bool {
        let populated = match &self.news {
            Some((events, _)) => events.is_populated(),
            None => cgroup.is_populated(),
        };
        // One that cannot be looked at any more is gone. What was moved in the v2 tree is in the others.
        let populated = populated.unwrap_or(false) || cgroup.is_populated().unwrap_or(false);
        !populated || Instant::now() >= self.until
    }

    /// Whether the kernel tells of all that is left in it.
    fn is_told(&self) -> bool {
        self.news.as_ref().is_some_and(|(events, _)| events.is_populated().unwrap_or(false))
    }

    /// When it must be looked at, whatever is told.
    fn look_at(&self) -> Instant {
        if self.is_told() { self.until } else { self.until.min(Instant::now() + LOOK) }
    }
}

/// What a start that failed left, and whom to tell of the failure once that is gone.
#[derive(Debug)]
pub(crate) struct Leaving {
    cgroup: Cgroup,
    emptying: Emptying,
    answer: (Asked, Failure),
}

impl Monitor {
    /// Kills what is in a cgroup of the pod, also when the pod as a whole is frozen.
    pub(crate) fn kill(&self, cgroup: &Cgroup) -> Result<(), hull_cgroup::Error> {
        match self.pause.as_ref().and_then(|pause| pause.cgroup.parent()) {
            Some(pod) => cgroup.kill_within(&pod),
            None => cgroup.kill(),
        }
    }

    /// Kills what is in a cgroup, and waits for its end in the loop.
    fn empty(&mut self, cgroup: &Cgroup, limit: Duration) -> Emptying {
        // What cannot be killed is waited for all the same.
        let _gone = self.kill(cgroup);
        let until = Instant::now() + limit;
        let mut emptying = Emptying { news: None, followed: Vec::new(), until };
        // Nearly always the first process was the only one.
        if cgroup.is_populated().unwrap_or(false) {
            // Told nothing, we look.
            if let Ok(Some(events)) = cgroup.events() {
                let token = self.tells_of_an_end(events.as_fd(), EventFlags::PRI);
                emptying.news = token.map(|token| (events, token));
            }
            for pid in cgroup.procs().unwrap_or_default().into_iter().take(FOLLOWED_MAX) {
                let Some(pid) = Pid::from_raw(pid) else { continue };
                // Gone already is as good.
                let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                let once = EventFlags::IN | EventFlags::ONESHOT;
                let token = self.tells_of_an_end(pidfd.as_fd(), once);
                emptying.followed.extend(token.map(|token| (pidfd, token)));
            }
        }
        emptying
    }

    fn tells_of_an_end(&mut self, fd: BorrowedFd<'_>, flags: EventFlags) -> Option<u64> {
        let token = self.next_token;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags).ok()?;
        self.next_token += 1;
        self.watched.insert(token, Watched::Emptying);
        Some(token)
    }

    /// It is not waited for any more.
    fn emptied(&mut self, emptying: &Emptying) {
        let news = emptying.news.iter().map(|(events, token)| (events.as_fd(), token));
        let followed = emptying.followed.iter().map(|(pidfd, token)| (pidfd.as_fd(), token));
        for (fd, token) in news.chain(followed) {
            let _gone = epoll::delete(&self.epoll, fd);
            self.watched.remove(token);
        }
    }

    pub(crate) fn container_ended(&mut self, id: &ContainerId, how: ExitHow, at_ns: i64) {
        let Some(container) = self.containers.get(id) else { return };
        let Stage::Running(started) = container.stage else { return };
        // That its program ran may be in the status pipe only now, and clocks are set back.
        let at_ns = at_ns.max(started.at_ns);
        // The rest of it goes with its first process.
        let cgroup = container.cgroup.clone();
        let emptying = self.empty(&cgroup, ENDING_MAX);
        if let Some(container) = self.containers.get_mut(id) {
            container.stage = Stage::Ending { started, how, at_ns, emptying };
        }
        self.look_at(id);
    }

    /// Takes away the cgroup of a start that failed, and answers it once that is done. What does not go
    /// in time the daemon clears by its path.
    pub(crate) fn leave(&mut self, cgroup: Cgroup, asked: Asked, failure: Failure) {
        let emptying = self.empty(&cgroup, FAILED_MAX);
        self.leaving.push(Leaving { cgroup, emptying, answer: (asked, failure) });
    }

    /// Looks whether what is ending has ended.
    pub(crate) fn look_at_ending(&mut self) {
        let ending = self.containers.iter().filter(|(_, container)| container.is_ending());
        let ids: Vec<_> = ending.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.look_at(&id);
        }
        for leaving in std::mem::take(&mut self.leaving) {
            self.look_at_leaving(leaving);
        }
    }

    /// When something that is ending must be looked at next.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let ending = self.containers.values().filter_map(|container| match &container.stage {
            Stage::Ending { emptying, .. } => Some(emptying.look_at()),
            Stage::Starting(_) | Stage::Running(_) | Stage::Ended(..) => None,
        });
        ending.chain(self.leaving.iter().map(|leaving| leaving.emptying.look_at())).min()
    }

    fn look_at(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Stage::Ending { started, how, at_ns, emptying } = &container.stage else { return };
        if !emptying.is_over(&container.cgroup) {
            if !emptying.is_told() {
                // Without `cgroup.kill` something may have forked meanwhile.
                let cgroup = container.cgroup.clone();
                let _gone = self.kill(&cgroup);
            }
            return;
        }
        let (started, how, at_ns) = (*started, *how, *at_ns);
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(id, stream);
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        let counters = container.cgroup.exit_counters().unwrap_or_default();
        let exit = Exit {
            how,
            at_ns,
            oom_kills: counters.oom_kills,
            memory_peak_bytes: counters.memory_peak_bytes,
            pids_refused: counters.pids_refused,
        };
        let before = std::mem::replace(&mut container.stage, Stage::Ended(started, exit));
        let forget = container.forget;
        if let Stage::Ending { emptying, .. } = before {
            self.emptied(&emptying);
        }
        self.tell_losses();
        self.event(Event::ContainerExited(id.clone(), exit));
        if forget {
            self.forget(id);
        }
    }

    fn look_at_leaving(&mut self, mut leaving: Leaving) {
        let waits = Instant::now() < leaving.emptying.until;
        if !leaving.emptying.is_over(&leaving.cgroup) {
            self.leaving.push(leaving);
            return;
        }
        self.emptied(&leaving.emptying);
        if leaving.cgroup.remove().is_err() && waits {
            // In a v1 hierarchy a task may be on its way out a moment longer than in another, and
            // there nobody tells.
            leaving.emptying.news = None;
            leaving.emptying.followed = Vec::new();
            self.leaving.push(leaving);
            return;
        }
        let (asked, failure) = leaving.answer;
        self.reply(asked, Err(failure));
    }
}

/// An error and what caused it, in one line.
pub(crate) fn told(error: &hull_cgroup::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
