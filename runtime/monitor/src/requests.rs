// SPDX-License-Identifier: Apache-2.0
//! Executes the commands of the daemon.

use crate::connection::RequestId;
use crate::draining::kill;
use crate::monitor::Monitor;
use crate::pause::Pause;
use crate::pending_start;
use hull_cgroup::Limits;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{
    Command, Failure, HelloReply, Logging, Request, Response, Streams, Target, VERSION,
};
use rustix::process::Signal;
use std::os::fd::{AsFd as _, OwnedFd};

/// The answer to a command; `None` if it comes later.
pub(crate) type Answer = Result<Option<Response>, Failure>;

/// The parts of a start beyond plan and streams; the default is a container without any.
#[derive(Debug, Default)]
pub(crate) struct Extras<'a> {
    /// `hull_init::Hooks` in borsh; their directory comes with the request.
    pub(crate) hooks: Option<&'a [u8]>,
    pub(crate) logging: Option<Logging>,
    /// `hull_cgroup::FurtherLimits` in borsh.
    pub(crate) limits: Option<&'a [u8]>,
    /// Whether the file of a group of resctrl comes with the request.
    pub(crate) resctrl: bool,
}

impl Monitor {
    pub(crate) fn request(&mut self, connection: u64, request: Request) {
        let Request { id, command } = request;
        let id = RequestId { connection, request: id };
        // They are created again when there is output; until then no new process has a copy of a container's output
        // in its memory.
        self.buffers = None;
        match self.execute(id, command) {
            Ok(Some(response)) => self.daemon.reply(id, Ok(response)),
            Ok(None) => {}
            Err(failure) => self.daemon.reply(id, Err(failure)),
        }
    }

    fn execute(&mut self, id: RequestId, command: Command) -> Answer {
        match command {
            Command::Hello { version } => {
                self.daemon.set_version(version);
                self.containers.values_mut().for_each(|of| of.log.reset_reported());
                Ok(Some(Response::Hello(self.hello())))
            }
            Command::StartPause { .. }
            | Command::StartContainer { .. }
            | Command::StartWithHooks { .. }
            | Command::StartWithLogging { .. }
            | Command::StartWithClasses { .. }
            | Command::Exec { .. }
                if self.shutdown.is_some() =>
            {
                Err(Failure::BadRequest("the pod is being shut down".into()))
            }
            Command::StartPause { plan, netns } => small_again(self.start_pause(id, &plan, netns)),
            Command::StartContainer { container, plan, stdio } => {
                small_again(self.start_container(id, container, &plan, stdio, Extras::default()))
            }
            Command::StartWithHooks { container, plan, stdio, hooks } => {
                let extras = Extras { hooks: Some(&hooks), ..Extras::default() };
                small_again(self.start_container(id, container, &plan, stdio, extras))
            }
            Command::StartWithLogging { container, plan, stdio, hooks, logging } => {
                let hooks = hooks.as_deref();
                let extras = Extras { hooks, logging: Some(logging), ..Extras::default() };
                small_again(self.start_container(id, container, &plan, stdio, extras))
            }
            Command::StartWithClasses {
                container,
                plan,
                stdio,
                hooks,
                logging,
                limits,
                resctrl,
            } => {
                let (hooks, limits) = (hooks.as_deref(), Some(&*limits));
                let extras = Extras { hooks, logging, limits, resctrl };
                small_again(self.start_container(id, container, &plan, stdio, extras))
            }
            Command::Exec { container, exec, process, streams } => {
                self.start_exec(id, &container, exec, &process, streams)
            }
            Command::Signal { target, signal } => {
                self.signal(&target, signal).map(|()| Some(Response::Ok))
            }
            Command::Update { container, limits } => self.update(&container, &limits),
            Command::ReopenLog { container } => self.reopen_log(&container),
            Command::Delete { container } => {
                self.delete_when_ended(&container);
                Ok(Some(Response::Ok))
            }
            Command::Attach { container, streams } => self.attach(&container, streams),
            Command::LastOutput { container } => {
                let container = self.containers.get(&container).ok_or(Failure::NoSuchContainer)?;
                Ok(Some(Response::LastOutput(container.tails.copy())))
            }
            Command::Shutdown => {
                self.begin_shutdown(id);
                Ok(None)
            }
        }
    }

    fn hello(&self) -> HelloReply {
        let containers =
            self.containers.iter().map(|(id, container)| (id.clone(), container.process_state()));
        HelloReply {
            version: VERSION,
            pod: self.pod.clone(),
            monitor_pid: self.pid,
            pause: self.pause.as_ref().map(Pause::process_state),
            containers: containers.collect(),
        }
    }

    /// The descriptors that come with a request.
    pub(crate) fn fds(&mut self, count: usize) -> Result<Vec<OwnedFd>, Failure> {
        self.daemon.take_fds(count).ok_or_else(|| {
            Failure::BadRequest(format!("it needs {count} descriptors to come with it"))
        })
    }

    fn signal(&mut self, target: &Target, signal: i32) -> Result<(), Failure> {
        let pidfd = match target {
            Target::ContainerAll(id) => {
                let Some(container) = self.containers.get(id) else { return Ok(()) };
                if container.has_ended() {
                    return Ok(());
                }
                return kill(&container.cgroup, self.pod_cgroup().as_ref())
                    .map_err(|err| Failure::System(with_causes(&err)));
            }
            Target::Container(id) => match self.containers.get(id) {
                Some(container) if container.is_running() => &container.pidfd,
                Some(_) => return Ok(()),
                None => return Err(Failure::NoSuchContainer),
            },
            Target::Exec(exec) => match self.execs.get_mut(exec) {
                Some(exec) if signal == Signal::KILL.as_raw() => {
                    exec.kill();
                    return Ok(());
                }
                Some(exec) => &exec.pidfd,
                None => return Ok(()),
            },
            Target::Pause => match &self.pause {
                Some(pause) => &pause.pidfd,
                None => return Ok(()),
            },
        };
        hull_sys::pidfd_send_signal(pidfd.as_fd(), signal)
            .map_err(|err| Failure::System(err.to_string()))
    }

    fn update(&mut self, id: &ContainerId, limits: &[u8]) -> Answer {
        let limits: Limits = decode(limits)?;
        let container = self.containers.get(id).ok_or(Failure::NoSuchContainer)?;
        container.cgroup.update(&limits).map_err(|err| {
            let hint = err.hint().map_or(String::new(), |hint| format!(" (hint: {hint})"));
            Failure::System(format!("{}{hint}", with_causes(&err)))
        })?;
        Ok(Some(Response::Ok))
    }

    fn reopen_log(&mut self, id: &ContainerId) -> Answer {
        let file = self.fds(1)?.pop();
        let container = self.containers.get_mut(id).ok_or(Failure::NoSuchContainer)?;
        if let Some(file) = file {
            container.log.reopen(file);
        }
        Ok(Some(Response::Ok))
    }

    fn attach(&mut self, id: &ContainerId, streams: Streams) -> Answer {
        let wanted = [streams.stdin, streams.stdout, streams.stderr];
        let fds = self.fds(wanted.into_iter().filter(|on| *on).count())?;
        let container = self.containers.get_mut(id).ok_or(Failure::NoSuchContainer)?;
        container.attach(streams, fds, &mut self.events)?;
        Ok(Some(Response::Ok))
    }

    /// Deletes an ended container at once; kills any other, to be deleted when it has ended.
    fn delete_when_ended(&mut self, id: &ContainerId) {
        let pod = self.pod_cgroup();
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.has_ended() {
            self.delete(id);
            return;
        }
        container.delete = true;
        let _gone = kill(&container.cgroup, pod.as_ref());
    }

    fn begin_shutdown(&mut self, request: RequestId) {
        self.shutdown = Some(request);
        let pod = self.pod_cgroup();
        for container in self.containers.values().filter(|of| !of.has_ended()) {
            let _gone = kill(&container.cgroup, pod.as_ref());
        }
        if let Some(pause) = &self.pause {
            pending_start::kill(&pause.pidfd);
            // It may be frozen.
            let _gone = kill(&pause.cgroup, pod.as_ref());
        }
    }
}

pub(crate) fn decode<T: borsh::BorshDeserialize>(bytes: &[u8]) -> Result<T, Failure> {
    borsh::from_slice(bytes).map_err(|err| Failure::BadRequest(err.to_string()))
}

/// The answer of a start, whose calls are the deepest: their stack need not stay resident as long as the pod lives.
fn small_again(answer: Answer) -> Answer {
    hull_sys::give_back_stack();
    answer
}

/// An error and its causes, in one line.
fn with_causes(error: &hull_cgroup::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
