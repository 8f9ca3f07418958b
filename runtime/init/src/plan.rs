// SPDX-License-Identifier: Apache-2.0
//! What to do, decided elsewhere: the types that `hull-plan` fills and this crate carries out.
//!
//! A [`Plan`] is flat: namespaces, a cgroup, a list of operations run in order inside the new
//! mount namespace, and the process to become. Nothing here is worked out again at run time.
//! Paths with the type [`Inside`] are resolved beneath the container's root by descriptor
//! (`openat2(2)`, `RESOLVE_IN_ROOT`); all other paths are the host's.

use borsh::{BorshDeserialize, BorshSerialize};
use hull_cgroup::Limits;

/// A path inside the container's root, absolute; never joined to a host path as text.
pub type Inside = String;

/// Everything needed to make a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Plan {
    /// Which namespaces are new, joined or the caller's.
    pub namespaces: Namespaces,
    /// Maps of a new user namespace; empty without one.
    pub id_maps: IdMaps,
    /// Where its processes are counted and limited.
    pub cgroup: Cgroup,
    /// What is done in the new mount namespace, in order. [`Op::Pivot`] is the last that can name a
    /// host path.
    pub ops: Vec<Op>,
    /// What to become.
    pub process: Process,
}

/// One namespace: whose?
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Namespace {
    /// The caller's.
    #[default]
    Inherit,
    /// A new one.
    New,
    /// The one behind this path, such as `/proc/123/ns/net`.
    Join(String),
}

/// The eight kinds of `namespaces(7)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs, reason = "named as in the man page")]
pub struct Namespaces {
    pub mount: Namespace,
    pub pid: Namespace,
    pub net: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub user: Namespace,
    pub cgroup: Namespace,
    pub time: Namespace,
    /// Offsets of a new time namespace: clock id (`CLOCK_MONOTONIC` 1, `CLOCK_BOOTTIME` 7), seconds,
    /// nanoseconds.
    pub time_offsets: Vec<(i32, i64, u32)>,
}

/// `user_namespaces(7)` maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
}

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many.
    pub length: u32,
}

/// A cgroup to make and enter.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Cgroup {
    /// From the root of each hierarchy, such as `/kubepods/besteffort/pod1/0123…`.
    pub path: String,
    /// What it may use.
    pub limits: Limits,
}

/// Flags of one mount, `mount_setattr(2)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs, reason = "named as in the man page")]
pub struct Attrs {
    pub rdonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    pub relatime: bool,
    pub strictatime: bool,
    pub nodiratime: bool,
    pub nosymfollow: bool,
}

/// `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs, reason = "named as in the man page")]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

/// Where a bind mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Source {
    /// A path on the host; symbolic links in it are followed.
    Host(String),
    /// A detached mount that the caller of `spawn` hands over, by its place in the list of slots.
    Slot(u32),
    /// A part of an image, never to be written to: its layers as one tree, and in it what a path
    /// names. Links of the image mean what they mean in a container of it.
    Image {
        /// Layer directories, topmost first; two or more, as overlayfs wants without an upper one.
        lower: Vec<String>,
        /// What of it, resolved beneath its root; empty for all.
        path: Inside,
        /// A directory of the host to put it together at, in the container's own mount namespace.
        at: String,
    },
}

/// One operation in the new mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Op {
    /// Makes an overlay the root. Lower layers from the topmost to the lowest. Without `upper` it is
    /// read-only. Attached at `at`, an empty host directory that any number of containers share,
    /// since it is only a place in each one's own mount namespace.
    RootOverlay {
        /// Layer directories, topmost first.
        lower: Vec<String>,
        /// Upper and work directory.
        upper: Option<(String, String)>,
        /// Further options of the overlay file system, such as `volatile`.
        options: Vec<(String, Option<String>)>,
        /// Where.
        at: String,
    },
    /// Makes a directory tree of the host the root (an OCI bundle's `rootfs`).
    RootBind {
        /// The directory.
        source: String,
    },
    /// Mounts a new file system instance.
    Mount {
        /// `proc`, `tmpfs`, …
        fstype: String,
        /// What shows up as its source in mountinfo.
        source: String,
        /// Where; made when missing (a directory).
        target: Inside,
        /// Flags.
        attrs: Attrs,
        /// Options of the file system: key, and value where it takes one.
        options: Vec<(String, Option<String>)>,
        /// Fill a tmpfs with what the image has at that place (OCI `tmpcopyup`).
        copy_up: bool,
    },
    /// Binds a file or a tree.
    Bind {
        /// What.
        source: Source,
        /// Where; made when missing, as a file or directory like the source.
        target: Inside,
        /// With the mounts below it.
        recursive: bool,
        /// Flags to set on the top mount; those of the source stay unless cleared.
        attrs: Attrs,
        /// Flags to set on the whole tree (`rro` and friends).
        recursive_attrs: Attrs,
        /// Flags named to be cleared (`exec`, `suid`, `dev`, `rw`).
        clear: Attrs,
        /// How mounts made later pass between the two.
        propagation: Option<Propagation>,
        /// Mapped ids (`MOUNT_ATTR_IDMAP`): maps, or `None`.
        id_maps: Option<IdMaps>,
    },
    /// Mounts the cgroup file system as the container sees it: on v2 a cgroup2 mount, on v1 a tmpfs
    /// with each hierarchy bound to the container's part.
    Cgroups {
        /// Where, usually /sys/fs/cgroup.
        target: Inside,
        /// Flags.
        attrs: Attrs,
    },
    /// Makes a device node, or binds the host's where nodes cannot be made (user namespace).
    Device {
        /// Where.
        path: Inside,
        /// Block device; otherwise character.
        block: bool,
        /// FIFO; major and minor are ignored.
        fifo: bool,
        /// Numbers.
        major: u32,
        /// Numbers.
        minor: u32,
        /// Permission bits.
        mode: u32,
        /// Owner inside.
        uid: u32,
        /// Group inside.
        gid: u32,
    },
    /// Makes a symbolic link. A link that is there with the same content is fine.
    Symlink {
        /// What it says.
        content: String,
        /// Where.
        path: Inside,
    },
    /// Makes a directory with its parents where it is missing (the working directory).
    Mkdir {
        /// Where.
        path: Inside,
        /// Permission bits.
        mode: u32,
    },
    /// Hides a path: a directory under an empty read-only tmpfs, a file under the container's
    /// verified /dev/null. A path that is not there is passed over.
    Mask {
        /// What.
        path: Inside,
    },
    /// Makes a path, and all below, read-only by binding it over itself. Not there: passed over.
    Readonly {
        /// What.
        path: Inside,
    },
    /// Makes the root mount itself read-only.
    RootReadonly,
    /// Sets how mounts pass between the root and the host.
    RootPropagation(Propagation),
    /// Writes a kernel setting: `net.ipv4.ip_forward` is written as given, to
    /// /proc/sys/net/ipv4/ip_forward.
    Sysctl {
        /// Dotted or slashed name.
        name: String,
        /// What to write.
        value: String,
    },
    /// `sethostname(2)`.
    Hostname(String),
    /// `setdomainname(2)`.
    Domainname(String),
    /// Becomes the root of the mount namespace; the host's goes.
    Pivot,
    /// Likewise where the host's root cannot be pivoted away from (an initramfs): it is covered.
    MoveRoot,
}

/// What a process becomes, for a container's first and for execs.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Process {
    /// Program and arguments; without a slash the program is looked for in `PATH` of `env`, inside.
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`. When no `HOME` is in it, the caller has decided so.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory.
    pub cwd: Inside,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
    /// File mode mask.
    pub umask: Option<u32>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// The filter, compiled.
    pub seccomp: Option<Seccomp>,
    /// AppArmor profile to enter on exec.
    pub apparmor: Option<String>,
    /// SELinux label to enter on exec.
    pub selinux: Option<String>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// -1000..=1000; clamped to what we may set.
    pub oom_score_adj: Option<i32>,
    /// Rows and columns of the terminal, when it has one.
    pub terminal: Option<(u16, u16)>,
    /// `ioprio_set(2)`: class and level.
    pub io_priority: Option<(u8, u8)>,
    /// `sched_setattr(2)`: policy, nice, priority.
    pub scheduler: Option<(u32, i32, u32)>,
    /// `personality(2)`.
    pub personality: Option<u64>,
}

/// Bit sets of `capabilities(7)`, bit n for capability n. What our own bounding set lacks is left
/// out, and logged once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs, reason = "named as in the man page")]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// A seccomp filter, `seccomp(2)`.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seccomp {
    /// `struct sock_filter` items, eight bytes each, host byte order.
    pub bpf: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// One resource limit, `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit; what is above our own hard limit is clamped when we may not raise it.
    pub hard: u64,
}

/// The pod's pause process: its own mount, ipc, uts (and pid, user) namespaces, a tmpfs that is the
/// pod's /dev/shm as its root, no capabilities.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PausePlan {
    /// `net` is decided by the descriptor that comes with the request; `ipc`, `uts`, `pid`, `user`
    /// are new or inherited; `mount` is always new.
    pub namespaces: Namespaces,
    /// Maps of a new user namespace.
    pub id_maps: IdMaps,
    /// Where it is counted.
    pub cgroup: Cgroup,
    /// Set in a new uts namespace.
    pub hostname: Option<String>,
    /// Written with the pod's namespaces entered.
    pub sysctls: Vec<(String, String)>,
    /// Size limit of the pod's /dev/shm in bytes.
    pub shm_bytes: u64,
    /// User id that the pause process takes.
    pub uid: u32,
    /// Group id that it takes.
    pub gid: u32,
    /// OOM score of the pause process.
    pub oom_score_adj: Option<i32>,
}

/// A step on the way, to say which one failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Step {
    /// Making the cgroup or setting its limits.
    Cgroup,
    /// `clone3(2)` with the new namespaces.
    Clone,
    /// Opening or entering a namespace that exists.
    Join(NamespaceKind),
    /// Writing the maps of a new user namespace.
    IdMaps,
    /// The operation of this index in `Plan::ops`; for a pause process, of the n-th sysctl.
    Op(u32),
    /// Setting up the standard streams or the terminal.
    Stdio,
    /// A resource limit, by its index.
    Rlimit(u32),
    /// `oom_score_adj`.
    OomScore,
    /// Users and groups.
    Identity,
    /// Capability sets.
    Capabilities,
    /// AppArmor or SELinux.
    SecurityModule,
    /// Installing the seccomp filter.
    Seccomp,
    /// Scheduler, I/O priority, personality.
    Scheduling,
    /// Entering the working directory.
    Cwd,
    /// `execve(2)` of the program.
    Exec,
    /// Talking to the child.
    Pipe,
    /// Setting up the pause process's own root.
    PauseRoot,
    /// Setting the pod's hostname.
    Hostname,
    /// The hook of this index.
    Hook(u32),
}

/// The kinds of `namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs, reason = "named as in the man page")]
pub enum NamespaceKind {
    Mount,
    Pid,
    Net,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StepError {
    /// Which.
    pub step: Step,
    /// The errno.
    pub errno: i32,
    /// The call as strace would show it, where the parent process made it; empty from the child,
    /// which sends only step, errno and call number.
    pub call: String,
}
