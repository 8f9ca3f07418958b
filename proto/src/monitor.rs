// SPDX-License-Identifier: Apache-2.0
//! The protocol between the daemon and a pod's monitor.
//!
//! ```text
//! daemon ── Request{id, command} + descriptors ──▶ monitor      one stream socket per pod
//!        ◀── Reply{id, Response | Failure} ──────
//!        ◀── Event(exit) ────────────────────────              may come at any time after Hello
//! ```
//!
//! A frame is a little-endian `u32` length, then that many bytes of borsh; [`frame`] reads and writes them on both
//! sides. Descriptors of a request travel as SCM_RIGHTS with the frame's first byte, at most [`FDS_MAX`]. One
//! daemon is served at a time: a new connection replaces the old one once it has sent [`Command::Hello`], for
//! which it has five seconds. Only root in the monitor's own pid and user namespaces is accepted.
//!
//! The monitor owns the state of processes: it repeats every exit in [`HelloReply`] until the daemon has sent
//! [`Command::Delete`] for it. A plan travels as opaque bytes because this crate does not know plans: they are
//! `hull_init::Plan` and `hull_init::Process` in borsh, and `Failure::Step` is `hull_init::StepError`.
//!
//! New commands and fields go to the end of their enum; [`VERSION`] grows with every change, and a daemon drives
//! monitors down to [`VERSION_MIN`].

pub mod frame;

use crate::id::{ContainerId, PodId};
use borsh::{BorshDeserialize, BorshSerialize};

/// The protocol version of this build.
pub const VERSION: u16 = 9;
/// The oldest monitor that a daemon of this version can still drive.
pub const VERSION_MIN: u16 = 1;
/// The first version that has [`Command::Attach`].
pub const VERSION_ATTACH: u16 = 2;
/// The first version of a daemon that knows [`Event::LogLost`].
pub const VERSION_LOG_LOST: u16 = 3;
/// The first version whose plans may bind parts of the container's own root.
pub const VERSION_ROOT_BINDS: u16 = 4;
/// The first version that opens the terminal of an exec in the container.
pub const VERSION_TERMINALS: u16 = 5;
/// The first version that has [`Command::LastOutput`] and, of a daemon, that knows [`Event::LastOutput`] and
/// [`Event::OutOfMemory`].
pub const VERSION_LAST_OUTPUT: u16 = 6;
/// The first version that has [`Command::StartWithHooks`] and, of a daemon, that knows [`Event::HookFailed`].
pub const VERSION_HOOKS: u16 = 7;
/// The first version that knows which hooks are of files (`hull_init::Hook::file`).
pub const VERSION_HOOK_FILES: u16 = 8;
/// The first version that knows plans with an init (`hull_init::plan::Op::Init`).
pub const VERSION_INIT: u16 = 8;
/// The first version that has [`Command::StartWithLogging`] and, of a daemon, that knows [`Event::LogDropped`].
pub const VERSION_LOGGING: u16 = 8;
/// The first version that has [`Command::StartWithClasses`].
pub const VERSION_CLASSES: u16 = 9;
/// Longest frame, in bytes: a plan with 2 MiB of arguments and environment fits well.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;
/// Most descriptors with one request.
pub const FDS_MAX: usize = 8;
/// The descriptor on which a monitor finds its listening socket when it is started.
pub const LISTEN_FD: i32 = 3;
/// The descriptor on which a monitor finds the pause program when it is started.
pub const PAUSE_FD: i32 = 4;
/// First argument of a monitor that only tries whether pods can have user namespaces, with the lower
/// layers of a root named by the others. It writes [`USER_NAMESPACES_WORK`], or what the kernel
/// refused, to the descriptor [`LISTEN_FD`], and ends.
pub const TRY_USER_NAMESPACES: &str = "--try-user-namespaces";
/// The text that it writes when they can.
pub const USER_NAMESPACES_WORK: &str = "good";
/// First argument of a monitor that only runs the poststop hooks of a container whose own monitor is gone, if they have
/// not run. Its directory is the descriptor [`LISTEN_FD`]; what failed goes in words to the descriptor
/// [`HOOKS_OUTPUT_FD`].
pub const RUN_POSTSTOP: &str = "--run-poststop";
/// The descriptor for the output of [`RUN_POSTSTOP`].
pub const HOOKS_OUTPUT_FD: i32 = 4;
/// In a container's plan: the mount slot that the monitor fills with the pod's /dev/shm.
pub const SLOT_SHM: u32 = 0;

/// A request of the daemon; `id` comes back in the reply.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// Chosen by the daemon, unique on the connection.
    pub id: u64,
    /// The command to execute.
    pub command: Command,
}

/// A command of the daemon to a monitor.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Command {
    /// First on every connection. Answered by [`Response::Hello`].
    Hello {
        /// The daemon's [`VERSION`].
        version: u16,
    },
    /// Starts the pause process. With `netns` the request carries one descriptor, the network namespace to join.
    /// Answered by [`Response::Started`].
    StartPause {
        /// `hull_init::PausePlan` in borsh.
        plan: Vec<u8>,
        /// Whether the descriptor of a network namespace comes with the request.
        netns: bool,
    },
    /// Starts a container. Answered by [`Response::Started`] once its program runs (execve succeeded).
    /// A container whose start was requested by an earlier daemon is not started again: the answer is that of its
    /// start, and if it has ended since, its [`Event::ContainerExited`] comes after it.
    StartContainer {
        /// Id of the new container.
        container: ContainerId,
        /// `hull_init::Plan` in borsh.
        plan: Vec<u8>,
        /// The setup of its standard streams.
        stdio: Stdio,
    },
    /// Runs a further process in a running container. Descriptors: stdin, stdout, stderr in this
    /// order, those that `streams` names; the others are /dev/null. Answered by [`Response::Started`];
    /// its end comes as [`Event::ExecExited`].
    Exec {
        /// Id of the running container.
        container: ContainerId,
        /// Chosen by the daemon; unique in the pod for as long as the process lives.
        exec: u64,
        /// `hull_init::Process` in borsh.
        process: Vec<u8>,
        /// The descriptors that come with the request.
        streams: Streams,
    },
    /// Sends a signal. A target that has ended counts as a success.
    Signal {
        /// The process or processes that receive it.
        target: Target,
        /// The kernel's number of the signal.
        signal: i32,
    },
    /// Changes limits of a container; those that are `None` stay as they are.
    Update {
        /// Id of the container.
        container: ContainerId,
        /// `hull_cgroup::Limits` in borsh.
        limits: Vec<u8>,
    },
    /// Continues the log in the one descriptor that comes with the request. Output that was read before goes to the
    /// old file, whole lines first.
    ReopenLog {
        /// Id of the container.
        container: ContainerId,
    },
    /// Removes an ended container's cgroup and its state in the monitor: the daemon has recorded its exit.
    /// A container that still runs is killed and then deleted; an unknown one counts as deleted.
    Delete {
        /// Id of the container.
        container: ContainerId,
    },
    /// Kills what still runs in the pod, removes its cgroups and exits. The reply comes first.
    Shutdown,
    /// Copies a running container's output to a client from now on. Descriptors: unix stream
    /// sockets for stdin, stdout, stderr in this order, those that `streams` names. Over the first
    /// one, before the reply, comes a byte with the writing side of the container's input, if it
    /// has one. A client that does not keep up is disconnected. Since version 2.
    Attach {
        /// Id of the running container.
        container: ContainerId,
        /// The descriptors that come with the request; `tty` has no meaning here.
        streams: Streams,
    },
    /// Asks for the end of a container's output, while it runs or after its end. Answered by
    /// [`Response::LastOutput`]. Since version 6.
    LastOutput {
        /// Id of the container.
        container: ContainerId,
    },
    /// As [`Command::StartContainer`], with hooks. After the log comes the descriptor of the directory of the container's
    /// hooks, see `hull_init::hook_process`. Answered when the poststart hooks have run, too. The monitor runs the
    /// poststop hooks when the container has ended or its start has failed. Since version 7.
    StartWithHooks {
        /// Id of the new container.
        container: ContainerId,
        /// `hull_init::Plan` in borsh.
        plan: Vec<u8>,
        /// The setup of its standard streams.
        stdio: Stdio,
        /// `hull_init::Hooks` in borsh.
        hooks: Vec<u8>,
    },
    /// As [`Command::StartContainer`], or [`Command::StartWithHooks`] if there are hooks, with rules for the log. After
    /// the descriptors of those come, as far as `logging` names them, the directory of the log, and a datagram socket
    /// that is connected to journald. Since version 8.
    StartWithLogging {
        /// Id of the new container.
        container: ContainerId,
        /// `hull_init::Plan` in borsh.
        plan: Vec<u8>,
        /// The setup of its standard streams.
        stdio: Stdio,
        /// `hull_init::Hooks` in borsh, if it has any.
        hooks: Option<Vec<u8>>,
        /// The rules for its log.
        logging: Logging,
    },
    /// As [`Command::StartContainer`] or one of those that followed it, for a container with classes of resources. After
    /// the descriptors of those comes, with `resctrl`, the file `tasks` of a group of resctrl, open for writing: all
    /// processes of the container enter that group. Since version 9.
    StartWithClasses {
        /// Id of the new container.
        container: ContainerId,
        /// `hull_init::Plan` in borsh.
        plan: Vec<u8>,
        /// The setup of its standard streams.
        stdio: Stdio,
        /// `hull_init::Hooks` in borsh, if it has any.
        hooks: Option<Vec<u8>>,
        /// The rules for its log, if it has any.
        logging: Option<Logging>,
        /// `hull_cgroup::FurtherLimits` in borsh.
        limits: Vec<u8>,
        /// Whether the file of a group of resctrl comes with the request.
        resctrl: bool,
    },
}

/// Rules for a container's log; without any, all output is written to one file until that is reopened.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Logging {
    /// Limit on the rate at which the log grows.
    pub rate: Option<LogRate>,
    /// Most bytes in one file of the log; what exceeds them is dropped until the log is reopened or rotated.
    pub size_max: Option<u64>,
    /// Rotation by the monitor. The directory of the log comes with the request.
    pub rotate: Option<LogRotation>,
    /// Fields of every journal entry, as journald's native protocol has them, each with its line end. The socket comes
    /// with the request.
    pub journal: Option<Vec<u8>>,
}

/// A limit on the rate at which a log grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LogRate {
    /// Bytes of log per second.
    pub bytes_per_s: u64,
    /// Bytes of log that may come at once.
    pub burst_bytes: u64,
    /// The treatment of output that exceeds the rate.
    pub policy: LogPolicy,
}

/// The treatment of output that exceeds the rate of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LogPolicy {
    /// Whole lines are dropped, and counted.
    Drop,
    /// It is read later, so that the container waits once its pipe is full.
    Wait,
}

/// Rotation of a log: `name` becomes `name.1`, and so on; the oldest file is removed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LogRotation {
    /// Name of the log in its directory.
    pub name: String,
    /// Bytes of a file that is not continued.
    pub size: u64,
    /// Number of files that are kept beside the current one; at least 1.
    pub files: u32,
}

/// Output that the rules of a log kept out of it, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LogDropped {
    /// Bytes of output, dropped from the log by its limits.
    pub bytes: u64,
    /// Lines of output, dropped from the log by its limits.
    pub lines: u64,
    /// Lines that journald did not take.
    pub journal_lines: u64,
    /// The error of the last rotation, if it failed: the file before it is continued.
    pub rotation_errno: Option<i32>,
}

/// Standard streams of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Stdio {
    /// The request carries one descriptor: the log file, open for appending. Without it output is
    /// read and dropped.
    pub log: bool,
    /// A terminal instead of pipes; all output is stdout then.
    pub tty: bool,
    /// Keep stdin open for attaching; otherwise it is /dev/null.
    pub stdin: bool,
    /// Close stdin when the first attached client disconnects.
    pub stdin_once: bool,
}

/// The standard streams that come as descriptors. With `tty`, one descriptor stands for all: since version 5 the
/// socket for the master of a terminal that is opened in the container, a byte and the descriptor, before the reply;
/// before that the slave of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Streams {
    /// Descriptor for standard input.
    pub stdin: bool,
    /// Descriptor for standard output.
    pub stdout: bool,
    /// Descriptor for standard error.
    pub stderr: bool,
    /// The one descriptor is that of a terminal to become the controlling one.
    pub tty: bool,
}

/// The receiver of a signal.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Target {
    /// The container's first process.
    Container(ContainerId),
    /// Everything in the container's cgroup; only SIGKILL makes sense.
    ContainerAll(ContainerId),
    /// One exec's process.
    Exec(u64),
    /// The pause process.
    Pause,
}

/// A message from a monitor to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// The answer to a request.
    Reply {
        /// [`Request::id`] of the request.
        id: u64,
        /// The response, or why the command failed.
        result: Result<Response, Failure>,
    },
    /// A process ended, or part of a log was lost.
    Event(Event),
}

/// The response to a command that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Response {
    /// The response to [`Command::Hello`].
    Hello(HelloReply),
    /// The process was started, and its program runs.
    Started(Started),
    /// The command was executed; there is nothing to return.
    Ok,
    /// The response to [`Command::LastOutput`].
    LastOutput(LastOutput),
}

/// The end of what a container wrote, as it wrote it: some KiB of each stream, which may begin within a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LastOutput {
    /// Of its standard output, or of its terminal.
    pub stdout: Vec<u8>,
    /// Of its standard error.
    pub stderr: Vec<u8>,
}

/// The identity of a monitor, and the state of all its processes.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HelloReply {
    /// The monitor's [`VERSION`].
    pub version: u16,
    /// Id of its pod.
    pub pod: PodId,
    /// The monitor's own process id.
    pub monitor_pid: i32,
    /// State of the pause process, if it was started.
    pub pause: Option<ProcessState>,
    /// State of every container that is not deleted yet.
    pub containers: Vec<(ContainerId, ProcessState)>,
}

/// The state of a pause process or of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ProcessState {
    /// It was cloned; its program does not run yet.
    Starting,
    /// Its program runs.
    Running(Started),
    /// It ended, and all its output is in the log.
    Exited(Started, Exit),
}

/// Pid and start time of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Started {
    /// Process id in the host's namespace.
    pub pid: i32,
    /// Time at which its program was started, in nanoseconds since the epoch.
    pub at_ns: i64,
}

/// How a process ended, and the counters of its cgroup at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Exit {
    /// Exit code or signal.
    pub how: ExitHow,
    /// Time of its end, in nanoseconds since the epoch.
    pub at_ns: i64,
    /// Processes that the out-of-memory killer killed in its cgroup (memory.events `oom_kill`).
    pub oom_kills: u64,
    /// Most memory its cgroup ever held, in bytes; `None` where the kernel does not count it.
    pub memory_peak_bytes: Option<u64>,
    /// Forks refused by the pids limit (pids.events `max`).
    pub pids_refused: u64,
}

/// Exit code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ExitHow {
    /// Exited by itself with this code.
    Code(i32),
    /// Killed by this signal (kernel number).
    Signal(i32),
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Failure {
    /// A step of starting a process failed: `hull_init::StepError` in borsh.
    Step(Vec<u8>),
    /// The monitor does not have this container.
    NoSuchContainer,
    /// The container does not run, or not any more.
    NotRunning,
    /// A container or exec with this id exists already.
    AlreadyExists,
    /// The request is invalid; the text says why.
    BadRequest(String),
    /// A system call of the monitor failed; the text reads like strace.
    System(String),
}

/// A message that does not answer a request.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Event {
    /// A container's first process ended; all its output is in the log.
    ContainerExited(ContainerId, Exit),
    /// An exec ended.
    ExecExited(u64, Exit),
    /// The pause process ended: the sandbox is gone.
    PauseExited(Exit),
    /// Output of a container could not be written to its log. Sent when that begins, again when it is
    /// over, and before the container's end. Since version 3.
    LogLost {
        /// Id of the container.
        container: ContainerId,
        /// How much of the log is missing by now, in bytes.
        bytes: u64,
        /// The error of the last write that failed.
        errno: i32,
    },
    /// The end of the output of a container that failed. Sent before its [`Event::ContainerExited`], if it wrote
    /// anything. Since version 6.
    LastOutput(ContainerId, LastOutput),
    /// A running container, or a cgroup above it, ran out of memory. Since version 6.
    OutOfMemory {
        /// Id of the container.
        container: ContainerId,
        /// Processes of the container that were killed since the last report. On cgroup v1 the event comes before the
        /// kill, so it may not be counted yet.
        oom_kills: u64,
    },
    /// Poststart or poststop hooks failed, which changes nothing for the container. Since version 7.
    HookFailed {
        /// Id of the container.
        container: ContainerId,
        /// The hooks, and how each failed, in words.
        why: String,
    },
    /// Output was kept out of a log by its rules, or a rotation failed. Sent when that begins, at most every ten seconds
    /// while it goes on, and before the container's end. Since version 8.
    LogDropped {
        /// Id of the container.
        container: ContainerId,
        /// All of it so far.
        dropped: LogDropped,
    },
}
