// SPDX-License-Identifier: Apache-2.0
//! The protocol between the daemon and a pod's monitor.
//!
//! ```text
//! daemon ── Request{id, verb} + descriptors ──▶ monitor      one stream socket per pod
//!        ◀── Reply{id, Ok | Failure} ─────────
//!        ◀── Event(exit) ─────────────────────              may come at any time after Hello
//! ```
//!
//! A frame is a little-endian `u32` length, then that many bytes of borsh. Descriptors of a request
//! travel as SCM_RIGHTS with the frame's first byte, at most [`FDS_MAX`]. One daemon is served at a
//! time: a new connection replaces the old one once it has said [`Verb::Hello`], for which it has five
//! seconds. Only root in the monitor's own pid and user namespaces is listened to.
//!
//! Facts belong to the monitor: it repeats every exit in [`HelloReply`] until the daemon has sent
//! [`Verb::Forget`] for it. A plan travels as opaque bytes because this crate knows no plans: they
//! are `hull_init::Plan` and `hull_init::Process` in borsh, and `Failure::Step` is
//! `hull_init::StepError`.
//!
//! New verbs and fields go to the end of their enum; [`VERSION`] grows with every change, and
//! a daemon speaks to monitors down to [`VERSION_MIN`].

use crate::id::{ContainerId, PodId};
use borsh::{BorshDeserialize, BorshSerialize};

/// The version spoken here.
pub const VERSION: u16 = 3;
/// The oldest monitor that a daemon of this version can still drive.
pub const VERSION_MIN: u16 = 1;
/// The first version that has [`Verb::Attach`].
pub const VERSION_ATTACH: u16 = 2;
/// The first version of a daemon that knows [`Event::LogLost`].
pub const VERSION_LOG_LOST: u16 = 3;
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
/// What it says when they can.
pub const USER_NAMESPACES_WORK: &str = "good";
/// In a container's plan: the mount slot that the monitor fills with the pod's /dev/shm.
pub const SLOT_SHM: u32 = 0;

/// What the daemon asks; `id` comes back in the reply.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// Chosen by the daemon, unique on the connection.
    pub id: u64,
    /// What to do.
    pub verb: Verb,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Verb {
    /// First on every connection. Answered by [`Done::Hello`].
    Hello {
        /// The daemon's [`VERSION`].
        version: u16,
    },
    /// Starts the pause process. `plan` is a `hull_init::PausePlan`. With `netns` the request
    /// carries one descriptor, the network namespace to join. Answered by [`Done::Started`].
    StartPause {
        /// `hull_init::PausePlan` in borsh.
        plan: Vec<u8>,
        /// Whether a network namespace comes with it.
        netns: bool,
    },
    /// Starts a container. Answered by [`Done::Started`] once its program runs (execve went through).
    /// One whose start an earlier daemon asked for is not started again: the answer is that of its
    /// start, and if it has ended since, its [`Event::ContainerExited`] comes after it.
    StartContainer {
        /// Whose.
        container: ContainerId,
        /// `hull_init::Plan` in borsh.
        plan: Vec<u8>,
        /// What becomes of its standard streams.
        stdio: Stdio,
    },
    /// Runs a further process in a running container. Descriptors: stdin, stdout, stderr in this
    /// order, those that `streams` names; the others are /dev/null. Answered by [`Done::Started`];
    /// its end comes as [`Event::ExecExited`].
    Exec {
        /// In which.
        container: ContainerId,
        /// Chosen by the daemon; unique in the pod for as long as the process lives.
        exec: u64,
        /// `hull_init::Process` in borsh.
        process: Vec<u8>,
        /// Which descriptors come with it.
        streams: Streams,
    },
    /// Sends a signal. A target that has ended counts as a success.
    Signal {
        /// To whom.
        target: Target,
        /// Kernel number.
        signal: i32,
    },
    /// Sets limits anew. `limits` is a `hull_cgroup::Limits`; what is `None` in it stays.
    Update {
        /// Whose.
        container: ContainerId,
        /// `hull_cgroup::Limits` in borsh.
        limits: Vec<u8>,
    },
    /// Continues the log in the one descriptor that comes with it; what was read before goes to the
    /// old one, whole lines first.
    ReopenLog {
        /// Whose.
        container: ContainerId,
    },
    /// Removes an ended container's cgroup and forgets it: the daemon has taken note of its exit.
    /// Unknown containers count as forgotten.
    Forget {
        /// Whose.
        container: ContainerId,
    },
    /// Kills what still runs in the pod, removes its cgroups and exits. The reply comes first.
    Shutdown,
    /// Copies a running container's output to a client from now on. Descriptors: unix stream
    /// sockets for stdin, stdout, stderr in this order, those that `streams` names. Over the first
    /// one, before the reply, comes a byte with the writing side of the container's input, if it
    /// has one. A client that does not keep up is let go. Since version 2.
    Attach {
        /// To which.
        container: ContainerId,
        /// Which descriptors come with it; `tty` means nothing here.
        streams: Streams,
    },
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
    /// Close stdin when the first attached client goes.
    pub stdin_once: bool,
}

/// Which standard streams come as descriptors. With `tty`, one descriptor is the terminal and
/// stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// The one descriptor is a terminal to become the controlling one.
    pub tty: bool,
}

/// Whom a signal goes to.
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

/// What a monitor sends.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// The answer to a request.
    Reply {
        /// Of the request.
        id: u64,
        /// How it went.
        result: Result<Done, Failure>,
    },
    /// Something ended.
    Event(Event),
}

/// A request that went through.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Done {
    /// To [`Verb::Hello`].
    Hello(HelloReply),
    /// A process runs.
    Started(Started),
    /// Nothing to tell.
    Ok,
}

/// Who the monitor is and all it knows.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HelloReply {
    /// The monitor's [`VERSION`].
    pub version: u16,
    /// Whose monitor.
    pub pod: PodId,
    /// The monitor's own process id.
    pub monitor_pid: i32,
    /// The pause process, when it was started.
    pub pause: Option<Fact>,
    /// Every container not forgotten yet.
    pub containers: Vec<(ContainerId, Fact)>,
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Fact {
    /// Is being started.
    Starting,
    /// Runs.
    Running(Started),
    /// Ended.
    Exited(Started, Exit),
}

/// A process that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Started {
    /// Process id in the host's namespace.
    pub pid: i32,
    /// When, in nanoseconds since the epoch.
    pub at_ns: i64,
}

/// How a process ended and what was seen of it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Exit {
    /// Exit code or signal.
    pub how: ExitHow,
    /// When, in nanoseconds since the epoch.
    pub at_ns: i64,
    /// Processes that the out-of-memory killer took in its cgroup (memory.events `oom_kill`).
    pub oom_kills: u64,
    /// Most memory its cgroup ever held, in bytes, where the kernel tells.
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

/// Why a request did not go through.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Failure {
    /// A step of starting a process failed: `hull_init::StepError` in borsh.
    Step(Vec<u8>),
    /// The monitor knows no such container.
    NoSuchContainer,
    /// It is not running (any more).
    NotRunning,
    /// A process of that name is there already.
    AlreadyThere,
    /// The request cannot be understood; the text says why.
    BadRequest(String),
    /// A system call of the monitor failed; the text reads like strace.
    System(String),
}

/// What happens without being asked for.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Event {
    /// A container's first process ended; all its output is in the log.
    ContainerExited(ContainerId, Exit),
    /// An exec ended.
    ExecExited(u64, Exit),
    /// The pause process ended: the sandbox is gone.
    PauseExited(Exit),
    /// Output of a container could not be written to its log. Told when that begins, again when it is
    /// over, and before the container's end. Since version 3.
    LogLost {
        /// Whose.
        container: ContainerId,
        /// How much of the log is missing by now, in bytes.
        bytes: u64,
        /// What the kernel said to the last write that failed.
        errno: i32,
    },
}
