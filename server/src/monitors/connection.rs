// SPDX-License-Identifier: Apache-2.0
//! One connection to one monitor: frames out with descriptors, frames in, answers matched to their
//! requests by number.
//!
//! The task here owns the socket. [`Client`] is a handle any number of callers may hold; when the
//! connection breaks, every waiting caller gets [`Error::Lost`] and the pod's task gets
//! [`MonitorEvent::Lost`], once.

use super::error::Error;
use super::pause::Pause;
use crate::limits::waits;
use hull_plan::Hooks;
use hull_proto::id::ContainerId;
use hull_proto::monitor::frame::{FrameDecoder, FrameTooLong, encode};
use hull_proto::monitor::{
    Command, Event, Exit, FRAME_BYTES_MAX, Failure, HelloReply, LastOutput, Message, ProcessState,
    Request, Response, Started, Streams, Target, VERSION, VERSION_ATTACH, VERSION_CLASSES,
    VERSION_HOOK_FILES, VERSION_HOOKS, VERSION_INIT, VERSION_LAST_OUTPUT, VERSION_ROOT_BINDS,
    VERSION_TERMINALS,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Requests that may wait for the socket before callers have to wait themselves.
const QUEUE: usize = 64;
/// An exec that no monitor has: a signal to it changes nothing, and is answered.
const NO_EXEC: u64 = u64::MAX;

/// A message of a monitor that is not the reply to a request.
#[derive(Debug)]
pub(crate) enum MonitorEvent {
    /// A container or the pause process ended.
    Event(Event),
    /// The connection is gone, and with it (most likely) the monitor.
    Lost,
}

/// Sends requests to one monitor.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The protocol version of the monitor; 0 before its hello.
    pub(super) version: u16,
    calls: mpsc::Sender<ClientRequest>,
    /// The pod's pause process, once it was requested.
    pause: Arc<OnceLock<Pause>>,
    /// It did not answer in time, and has not answered anything since.
    hangs: Arc<AtomicBool>,
}

type Reply = Result<Response, Error>;

#[derive(Debug)]
enum ClientRequest {
    Command {
        command: Command,
        fds: Vec<OwnedFd>,
        answer: oneshot::Sender<Reply>,
    },
    /// An exec, and the report of its exit.
    Exec {
        command: Command,
        exec: u64,
        fds: Vec<OwnedFd>,
        answer: oneshot::Sender<Reply>,
        exit: oneshot::Sender<Exit>,
    },
}

impl Client {
    /// A client of a monitor of this version, which nothing answers.
    #[cfg(test)]
    pub(crate) fn of_version(version: u16) -> Self {
        let (calls, _queue) = mpsc::channel(1);
        Self { version, calls, pause: Arc::default(), hangs: Arc::default() }
    }

    /// Starts the task that owns the socket.
    pub(super) fn open(stream: UnixStream, monitor_events: mpsc::Sender<MonitorEvent>) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut connection = Connection::new(stream);
            connection.run(queue, &monitor_events).await;
            drop(connection);
            // The pod's task may be gone already.
            let _gone = monitor_events.send(MonitorEvent::Lost).await;
        });
        Self { version: 0, calls, pause: Arc::default(), hangs: Arc::default() }
    }

    /// Asks for `command` and waits for the answer: as long as it takes for what starts or ends processes, while
    /// the monitor answers other requests meanwhile; [`waits::ANSWER_MAX`] for all else.
    ///
    /// # Errors
    /// [`Error::Hangs`] when the monitor answers nothing. It may still carry the request out later.
    pub(crate) async fn request(&self, command: Command, fds: Vec<OwnedFd>) -> Reply {
        let takes_time = match command {
            Command::StartPause { .. }
            | Command::StartContainer { .. }
            | Command::StartWithHooks { .. }
            | Command::StartWithLogging { .. }
            | Command::StartWithClasses { .. }
            | Command::Exec { .. }
            | Command::Shutdown => true,
            Command::Hello { .. }
            | Command::Signal { .. }
            | Command::Update { .. }
            | Command::ReopenLog { .. }
            | Command::Delete { .. }
            | Command::Attach { .. }
            | Command::LastOutput { .. } => false,
        };
        let answer = self.unbounded(|answer| ClientRequest::Command { command, fds, answer });
        if takes_time {
            self.while_alive(answer).await
        } else {
            self.within(waits::ANSWER_MAX, answer).await
        }
    }

    async fn unbounded(&self, call: impl FnOnce(oneshot::Sender<Reply>) -> ClientRequest) -> Reply {
        let (answer, wait) = oneshot::channel();
        self.calls.send(call(answer)).await.map_err(|_| Error::Lost)?;
        wait.await.map_err(|_| Error::Lost)?
    }

    async fn within(&self, limit: Duration, answer: impl Future<Output = Reply>) -> Reply {
        let answered = timeout(limit, answer).await;
        self.hangs.store(answered.is_err(), Ordering::Relaxed);
        answered.map_err(|_| Error::Hangs { waited: limit })?
    }

    /// Waits for an answer for as long as the monitor shows that it is alive.
    async fn while_alive(&self, answer: impl Future<Output = Reply>) -> Reply {
        let mut answer = pin!(answer);
        loop {
            if let Ok(answered) = timeout(waits::ANSWER_MAX, &mut answer).await {
                return answered;
            }
            self.is_alive().await?;
        }
    }

    /// Checks that the monitor answers.
    ///
    /// # Errors
    /// It does not, or is gone.
    pub(crate) async fn is_alive(&self) -> Result<(), Error> {
        let command = Command::Signal { target: Target::Exec(NO_EXEC), signal: 0 };
        let nothing =
            self.unbounded(|answer| ClientRequest::Command { command, fds: Vec::new(), answer });
        self.within(waits::ANSWER_MAX, nothing).await.map(drop)
    }

    /// It did not answer in time, and has not answered since.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Relaxed)
    }

    /// Its protocol version.
    pub(crate) fn version(&self) -> u16 {
        self.version
    }

    /// Whether it knows binds of parts of a container's own root.
    pub(crate) fn has_root_binds(&self) -> bool {
        self.version >= VERSION_ROOT_BINDS
    }

    /// Checks that it can run hooks.
    pub(crate) fn check_hooks(&self) -> Result<(), Error> {
        if self.version < VERSION_HOOKS {
            return Err(Error::CannotRunHooks { version: self.version });
        }
        Ok(())
    }

    /// These hooks as it knows them: an earlier release knows of no files.
    pub(crate) fn known_hooks<'a>(&self, hooks: &'a Hooks) -> Cow<'a, Hooks> {
        if self.version >= VERSION_HOOK_FILES {
            return Cow::Borrowed(hooks);
        }
        let mut known = hooks.clone();
        known.list.iter_mut().for_each(|hook| hook.file = None);
        Cow::Owned(known)
    }

    /// Checks that it can start an init in a container.
    pub(crate) fn check_init(&self) -> Result<(), Error> {
        if self.version < VERSION_INIT {
            return Err(Error::CannotInit { version: self.version });
        }
        Ok(())
    }

    /// Checks that it can put a container into classes of resources.
    pub(crate) fn check_classes(&self) -> Result<(), Error> {
        if self.version < VERSION_CLASSES {
            return Err(Error::CannotClassify { version: self.version });
        }
        Ok(())
    }

    /// Whether it opens the terminal of an exec in the container.
    pub(crate) fn opens_terminals(&self) -> bool {
        self.version >= VERSION_TERMINALS
    }

    /// Sends a command whose reply has no content.
    pub(crate) async fn command(&self, command: Command, fds: Vec<OwnedFd>) -> Result<(), Error> {
        let done = self.request(command, fds).await?;
        if done == Response::Ok { Ok(()) } else { Err(wrong(&done)) }
    }

    /// Starts a process. Returns its id and start time.
    pub(crate) async fn start(
        &self,
        command: Command,
        fds: Vec<OwnedFd>,
    ) -> Result<Started, Error> {
        let done = self.request(command, fds).await?;
        if let Response::Started(started) = done { Ok(started) } else { Err(wrong(&done)) }
    }

    /// Runs a further process in a container. The receiver gets its end.
    pub(crate) async fn exec(
        &self,
        container: ContainerId,
        exec: u64,
        process: Vec<u8>,
        streams: Streams,
        fds: Vec<OwnedFd>,
    ) -> Result<(Started, oneshot::Receiver<Exit>), Error> {
        let (exit, ended) = oneshot::channel();
        let command = Command::Exec { container, exec, process, streams };
        let answer =
            self.unbounded(|answer| ClientRequest::Exec { command, exec, fds, answer, exit });
        let done = self.while_alive(answer).await?;
        if let Response::Started(started) = done { Ok((started, ended)) } else { Err(wrong(&done)) }
    }

    /// Attaches to a container: see [`Command::Attach`].
    pub(crate) async fn attach(
        &self,
        container: ContainerId,
        streams: Streams,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        if self.version < VERSION_ATTACH {
            return Err(Error::CannotAttach { version: self.version });
        }
        self.command(Command::Attach { container, streams }, fds).await
    }

    /// The end of a container's output, while it runs or after its end; `None` from a monitor of an earlier release.
    pub(crate) async fn last_output(&self, of: &ContainerId) -> Result<Option<LastOutput>, Error> {
        if self.version < VERSION_LAST_OUTPUT {
            return Ok(None);
        }
        let command = Command::LastOutput { container: of.clone() };
        match self.request(command, Vec::new()).await? {
            Response::LastOutput(output) => Ok(Some(output)),
            other @ (Response::Hello(_) | Response::Started(_) | Response::Ok) => {
                Err(wrong(&other))
            }
        }
    }

    /// The pod's pause process, which has the number `pid` if it runs.
    ///
    /// # Errors
    /// It has ended, or the monitor has.
    pub(crate) async fn pause(&self, pid: i32) -> io::Result<&Pause> {
        if let Some(known) = self.pause.get() {
            return Ok(known);
        }
        let gone = |why: &str| io::Error::new(io::ErrorKind::NotConnected, why.to_owned());
        let found = Pause::open(pid)?;
        let hello = self.hello().await.map_err(|err| gone(&err.to_string()))?;
        // It is the monitor's child, and was not reaped yet: so no other process had its id before.
        match hello.pause {
            Some(ProcessState::Running(started)) if started.pid == pid => {
                Ok(self.pause.get_or_init(|| found))
            }
            _ => Err(gone("the pod's pause process has ended")),
        }
    }

    /// The result of an earlier [`pause`](Self::pause).
    pub(crate) fn known_pause(&self) -> Option<&Pause> {
        self.pause.get()
    }

    pub(super) async fn hello(&self) -> Result<HelloReply, Error> {
        let done = self.request(Command::Hello { version: VERSION }, Vec::new()).await?;
        if let Response::Hello(hello) = done { Ok(hello) } else { Err(wrong(&done)) }
    }
}

fn wrong(answer: &Response) -> Error {
    Error::WrongAnswer { answer: format!("{answer:?}") }
}

struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

struct Connection {
    stream: UnixStream,
    next: u64,
    pending: HashMap<u64, oneshot::Sender<Reply>>,
    execs: HashMap<u64, oneshot::Sender<Exit>>,
    out: VecDeque<Frame>,
    input: FrameDecoder,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            next: 1,
            pending: HashMap::new(),
            execs: HashMap::new(),
            out: VecDeque::new(),
            input: FrameDecoder::default(),
        }
    }

    /// Runs until the monitor or all callers are gone.
    async fn run(
        &mut self,
        mut calls: mpsc::Receiver<ClientRequest>,
        monitor_events: &mpsc::Sender<MonitorEvent>,
    ) {
        loop {
            let interest = if self.out.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            tokio::select! {
                call = calls.recv(), if self.out.len() < QUEUE => match call {
                    Some(call) => self.queue(call),
                    None => return,
                },
                ready = self.stream.ready(interest) => {
                    let Ok(ready) = ready else { return };
                    if ready.is_writable() && self.write().is_err() {
                        return;
                    }
                    if ready.is_readable() && self.read(monitor_events).await.is_err() {
                        return;
                    }
                }
            }
            // Most requests fit the socket's buffer at once: spares a turn of the reactor.
            if self.write().is_err() {
                return;
            }
        }
    }

    fn queue(&mut self, call: ClientRequest) {
        let id = self.next;
        self.next += 1;
        let (command, fds, answer) = match call {
            ClientRequest::Command { command, fds, answer } => (command, fds, answer),
            ClientRequest::Exec { command, exec, fds, answer, exit } => {
                self.execs.insert(exec, exit);
                (command, fds, answer)
            }
        };
        match encode(&Request { id, command }) {
            Ok(bytes) => {
                self.pending.insert(id, answer);
                self.out.push_back(Frame { bytes, sent: 0, fds });
            }
            Err(FrameTooLong) => {
                let failure =
                    Failure::BadRequest(format!("it is longer than {FRAME_BYTES_MAX} bytes"));
                // The caller may have disconnected.
                let _gone = answer.send(Err(Error::Refused { failure }));
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while let Some(frame) = self.out.front_mut() {
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream, frame)) {
                Ok(sent) => {
                    // The descriptors went with the first byte.
                    frame.fds.clear();
                    frame.sent += sent;
                    if frame.sent == frame.bytes.len() {
                        self.out.pop_front();
                    }
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    async fn read(&mut self, monitor_events: &mpsc::Sender<MonitorEvent>) -> io::Result<()> {
        let mut chunk = [0; 8192];
        let mut ended = false;
        loop {
            match self.stream.try_read(&mut chunk) {
                Ok(0) => {
                    // What came before the end still counts: a monitor answers, then ends.
                    ended = true;
                    break;
                }
                Ok(read) => self.input.feed(&chunk[..read]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) => return Err(err),
            }
        }
        while let Some(message) =
            self.input.take().map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?
        {
            self.deliver(message, monitor_events).await;
        }
        if ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    async fn deliver(&mut self, message: Message, monitor_events: &mpsc::Sender<MonitorEvent>) {
        match message {
            Message::Reply { id, result } => {
                if let Some(answer) = self.pending.remove(&id) {
                    let result = result.map_err(|failure| Error::Refused { failure });
                    let _gone = answer.send(result);
                }
            }
            Message::Event(Event::ExecExited(exec, exit)) => {
                if let Some(ended) = self.execs.remove(&exec) {
                    let _gone = ended.send(exit);
                }
            }
            Message::Event(event) => {
                let _gone = monitor_events.send(MonitorEvent::Event(event)).await;
            }
        }
        // Callers that went away leave their slot until here.
        self.execs.retain(|_, ended| !ended.is_closed());
    }
}

fn send(stream: &UnixStream, frame: &Frame) -> io::Result<usize> {
    let fds: Vec<_> = frame.fds.iter().map(OwnedFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = [IoSlice::new(&frame.bytes[frame.sent..])];
    Ok(sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_of_an_earlier_release_runs_no_hooks_and_the_error_says_what_to_do() {
        let client = Client::of_version;
        let refused = client(VERSION_HOOKS - 1).check_hooks().unwrap_err();
        assert!(refused.to_string().contains("version 6"), "{refused}");
        assert!(refused.hint().unwrap().starts_with("delete the pod"));
        client(VERSION_HOOKS).check_hooks().unwrap();
        let refused = client(VERSION_INIT - 1).check_init().unwrap_err();
        assert!(refused.hint().is_some(), "{refused}");
        client(VERSION_INIT).check_init().unwrap();
        let refused = client(VERSION_CLASSES - 1).check_classes().unwrap_err();
        assert!(refused.hint().unwrap().starts_with("delete the pod"), "{refused}");
        client(VERSION_CLASSES).check_classes().unwrap();
    }
}
