// SPDX-License-Identifier: Apache-2.0
//! The types of a plan: `hull-plan` fills them, and this crate carries them out.
//!
//! A [`Plan`] is flat: namespaces, a cgroup, a list of operations run in order inside the new
//! mount namespace, and the process to become. Nothing in it is derived again at run time.
//! Paths with the type [`ContainerPath`] are resolved beneath the container's root by descriptor
//! (`openat2(2)`, `RESOLVE_IN_ROOT`); all other paths are the host's.

use borsh::{BorshDeserialize, BorshSerialize};
use hull_cgroup::Limits;

/// A path inside the container's root, absolute; never joined to a host path as text.
pub type ContainerPath = String;

/// Everything needed to start a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Plan {
    /// Which namespaces are new, joined or the caller's.
    pub namespaces: Namespaces,
    /// Maps of a new user namespace; empty without one.
    pub id_maps: IdMaps,
    /// The cgroup in which its processes are counted and limited.
    pub cgroup: Cgroup,
    /// Operations in the new mount namespace, in order. [`Op::Pivot`] is the last that can name a
    /// host path.
    #[borsh(deserialize_with = "crate::decode_exact::items")]
    pub ops: Vec<Op>,
    /// The program to execute, and its attributes.
    pub process: Process,
}

/// The choice of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Namespace {
    /// The namespace of the caller.
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
    /// Ranges of user ids.
    pub uids: Vec<IdMap>,
    /// Ranges of group ids.
    pub gids: Vec<IdMap>,
}

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct IdMap {
    /// First id in the user namespace.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// Number of ids.
    pub length: u32,
}

/// A cgroup to create and enter.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Cgroup {
    /// Path from the root of each hierarchy, such as `/kubepods/besteffort/pod1/0123…`.
    pub path: String,
    /// Limits of its resources.
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
    /// A detached mount that the caller of `spawn` passes, by its index in the list of slots.
    Slot(u32),
    /// A part of an image, always read-only: a path in its layers as one tree. Links of the image resolve as in a
    /// container of it.
    Image {
        /// Layer directories, topmost first; two or more, as overlayfs wants without an upper one.
        lower: Vec<String>,
        /// Path of the part, resolved beneath the image's root; empty for all.
        path: ContainerPath,
        /// A directory of the host at which it is mounted meanwhile, in the container's own mount namespace.
        at: String,
    },
    /// The container's own root at the target, a directory made where missing: what is bound there stays writable
    /// when the root becomes read-only. Where something else is mounted at the target, nothing is bound.
    Root,
    /// A path of the container, with the mounts of earlier operations.
    Inside(ContainerPath),
}

/// Attributes of a bind mount: `MOUNT_ATTR_*` bits of `mount_setattr(2)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BindAttributes {
    /// Bits to set on the top mount.
    pub set: u64,
    /// Bits to clear on the top mount; those to set come after them.
    pub clear: u64,
    /// Bits to set on the whole tree.
    pub set_all: u64,
    /// Bits to clear on the whole tree.
    pub clear_all: u64,
    /// How later mounts propagate, in this order; with true for the whole tree.
    pub propagation: Vec<(Propagation, bool)>,
}

/// Mapped ids of a bind mount (`MOUNT_ATTR_IDMAP`).
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MountIdMaps {
    /// Maps of users and of groups.
    pub maps: IdMaps,
    /// Whether the mounts below are mapped too.
    pub recursive: bool,
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
        /// Directory of the host at which the overlay is attached.
        at: String,
    },
    /// Makes a directory tree of the host the root (an OCI bundle's `rootfs`).
    RootBind {
        /// Path of the directory on the host.
        source: String,
    },
    /// Mounts a new file system instance.
    Mount {
        /// `proc`, `tmpfs`, …
        fstype: String,
        /// The text that mountinfo shows as its source.
        source: String,
        /// Mount point; a directory, created if missing.
        target: ContainerPath,
        /// Flags of the mount.
        attrs: Attrs,
        /// Options of the file system: key, and value where it takes one.
        options: Vec<(String, Option<String>)>,
        /// Fill a tmpfs with the image's content at that path (OCI `tmpcopyup`).
        copy_up: bool,
    },
    /// Binds a file or a tree.
    Bind {
        /// The file or tree to bind.
        source: Source,
        /// Mount point; created if missing, as a file or directory like the source.
        target: ContainerPath,
        /// Whether the mounts below the source are bound too.
        recursive: bool,
        /// Flags to set on the top mount; those of the source stay unless cleared.
        attrs: Attrs,
        /// Flags to set on the whole tree (`rro` and friends).
        recursive_attrs: Attrs,
        /// Flags named to be cleared (`exec`, `suid`, `dev`, `rw`).
        clear: Attrs,
        /// How later mounts propagate between the two.
        propagation: Option<Propagation>,
        /// Mapped ids (`MOUNT_ATTR_IDMAP`): maps, or `None`.
        id_maps: Option<IdMaps>,
    },
    /// Mounts the cgroup file system as the container sees it: on v2 a cgroup2 mount, on v1 a tmpfs
    /// with each hierarchy bound to the container's part.
    Cgroups {
        /// Mount point, usually /sys/fs/cgroup.
        target: ContainerPath,
        /// Flags of the mount.
        attrs: Attrs,
    },
    /// Makes a device node, or binds the host's where nodes cannot be made (user namespace).
    Device {
        /// Path of the node.
        path: ContainerPath,
        /// Block device; otherwise character.
        block: bool,
        /// FIFO; major and minor are ignored.
        fifo: bool,
        /// Major number of the device.
        major: u32,
        /// Minor number of the device.
        minor: u32,
        /// Permission bits of its mode.
        mode: u32,
        /// Owner, as an id in the container.
        uid: u32,
        /// Group, as an id in the container.
        gid: u32,
    },
    /// Makes a symbolic link. An existing link with the same content is accepted.
    Symlink {
        /// Target of the link, as it is written into it.
        content: String,
        /// Path of the link.
        path: ContainerPath,
    },
    /// Makes a directory with its parents where it is missing (the working directory).
    Mkdir {
        /// Path of the directory.
        path: ContainerPath,
        /// Permission bits of its mode.
        mode: u32,
    },
    /// Hides a path: a directory under an empty read-only tmpfs, a file under the container's
    /// verified /dev/null. A missing path is skipped.
    Mask {
        /// Path to hide.
        path: ContainerPath,
    },
    /// Makes a path, and all below, read-only by binding it over itself. A missing path is skipped.
    Readonly {
        /// Path of the file or directory.
        path: ContainerPath,
    },
    /// Makes the root mount itself read-only.
    RootReadonly,
    /// Sets how mounts propagate between the root and the host.
    RootPropagation(Propagation),
    /// Writes a kernel setting: `net.ipv4.ip_forward` is written as given, to
    /// /proc/sys/net/ipv4/ip_forward.
    Sysctl {
        /// Dotted or slashed name.
        name: String,
        /// The value to write.
        value: String,
    },
    /// `sethostname(2)`.
    Hostname(String),
    /// `setdomainname(2)`.
    Domainname(String),
    /// Makes the container's root that of the mount namespace, and unmounts the host's.
    Pivot,
    /// Covers the host's root with the container's, where `pivot_root` is not possible (an initramfs).
    MoveRoot,
    /// Brings the loopback link of the network namespace up, which the kernel creates down.
    LoopbackUp,
    /// As [`Op::Bind`], with every attribute that a mount can have.
    BindWith {
        /// The file or tree to bind.
        source: Source,
        /// Mount point; created if missing, as a file or directory like the source.
        target: ContainerPath,
        /// Whether the mounts below the source are bound too.
        recursive: bool,
        /// Attributes of the mount.
        attributes: BindAttributes,
        /// Mapped ids, if they are mapped.
        id_maps: Option<MountIdMaps>,
    },
    /// As [`Op::Mount`], with propagation.
    MountWith {
        /// `proc`, `tmpfs`, …
        fstype: String,
        /// The text that mountinfo shows as its source.
        source: String,
        /// Mount point; a directory, created if missing.
        target: ContainerPath,
        /// Flags of the mount.
        attrs: Attrs,
        /// Options of the file system: key, and value where it takes one.
        options: Vec<(String, Option<String>)>,
        /// Fill a tmpfs with the image's content at that path (OCI `tmpcopyup`).
        copy_up: bool,
        /// How later mounts in it propagate, in this order.
        propagation: Vec<Propagation>,
    },
    /// Says that an init is to be the first process: the launcher gives it in
    /// [`LaunchOptions::init`](crate::LaunchOptions::init). Changes nothing by itself.
    Init,
}

/// The program of a process and its attributes, for a container's first process and for execs.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Process {
    /// Program and arguments; without a slash the program is searched for in `PATH` of `env`, inside.
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`. Nothing is added, not even a missing `HOME`.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory.
    pub cwd: ContainerPath,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary group ids in the container.
    pub groups: Vec<u32>,
    /// File mode mask; `None` for 022.
    pub umask: Option<u32>,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// The filter, compiled.
    pub seccomp: Option<Seccomp>,
    /// AppArmor profile to enter on exec.
    pub apparmor: Option<String>,
    /// SELinux label to enter on exec.
    pub selinux: Option<String>,
    /// Resource limits to set.
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

/// Bit sets of `capabilities(7)`, bit n for capability n. Capabilities that our own sets lack
/// are left out.
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
    /// The soft limit.
    pub soft: u64,
    /// Hard limit; a value above our own hard limit is clamped if we may not raise it.
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
    /// The cgroup in which it is counted.
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

/// A step of a start; errors name the one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Step {
    /// Creating the cgroup or setting its limits.
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
    /// Setting `oom_score_adj` of the process.
    OomScore,
    /// Setting users and groups.
    Identity,
    /// Setting the capability sets.
    Capabilities,
    /// Setting the label of AppArmor or SELinux.
    SecurityModule,
    /// Installing the seccomp filter.
    Seccomp,
    /// Scheduler, I/O priority, personality.
    Scheduling,
    /// Entering the working directory.
    Cwd,
    /// `execve(2)` of the program.
    Exec,
    /// Communication with the child.
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

/// Separates the call of a [`StepError`] from a hint behind it.
pub const HINT: &str = "; hint: ";

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StepError {
    /// The step that failed.
    pub step: Step,
    /// The errno of the failed call.
    pub errno: i32,
    /// The failed call as strace would show it.
    pub call: String,
}
