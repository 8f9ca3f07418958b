// SPDX-License-Identifier: Apache-2.0
//! Which namespaces of others a process enters, and which are made for it.

use crate::plan::{Namespace, NamespaceKind, Namespaces, Step, StepError};
use hull_sys::flags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Processes whose namespaces a plan may join as `/proc/<number>/ns/…`: their numbers in our pid namespace,
/// and their descriptors, by which they are entered. They are children that nobody has waited for.
pub type Processes<'a> = &'a [(i32, BorrowedFd<'a>)];

/// Namespaces to enter, opened while host paths can still be named.
#[derive(Debug, Default)]
pub(crate) struct JoinedNamespaces {
    /// Entered by children of who enters it.
    pub(crate) pid: Option<OwnedFd>,
    /// Entered before anything is made.
    pub(crate) user: Option<OwnedFd>,
    files: Vec<(NamespaceKind, LinkNameSpaceType, OwnedFd)>,
    /// Those of one process, entered at once.
    of_processes: Vec<(OwnedFd, ThreadNameSpaceType)>,
}

impl JoinedNamespaces {
    /// Opens those that are joined. With `processes`, a path to another process's namespace is refused:
    /// its number may have come to mean a stranger.
    pub(crate) fn open(
        namespaces: &Namespaces,
        processes: Option<Processes<'_>>,
    ) -> Result<Self, StepError> {
        use ThreadNameSpaceType as All;
        let kinds = [
            (&namespaces.net, NamespaceKind::Net, LinkNameSpaceType::Network, All::NETWORK),
            (
                &namespaces.ipc,
                NamespaceKind::Ipc,
                LinkNameSpaceType::InterProcessCommunication,
                All::INTER_PROCESS_COMMUNICATION,
            ),
            (
                &namespaces.uts,
                NamespaceKind::Uts,
                LinkNameSpaceType::HostNameAndNISDomainName,
                All::HOST_NAME_AND_NIS_DOMAIN_NAME,
            ),
            (
                &namespaces.cgroup,
                NamespaceKind::Cgroup,
                LinkNameSpaceType::ControlGroup,
                All::CONTROL_GROUP,
            ),
            (&namespaces.mount, NamespaceKind::Mount, LinkNameSpaceType::Mount, All::MOUNT),
        ];
        let mut joined = Self::default();
        for (of, kind, link, all) in kinds {
            let Namespace::Join(path) = of else { continue };
            match process_of(path, processes, kind)? {
                Some(process) => joined.add(copy(process, kind)?, all),
                None => joined.files.push((kind, link, open(path, kind)?)),
            }
        }
        // These two are needed as such, for a procfs and for mapped mounts.
        let alone = |of: &Namespace, kind| -> Result<Option<OwnedFd>, StepError> {
            let Namespace::Join(path) = of else { return Ok(None) };
            let process = process_of(path, processes, kind)?;
            let namespace = open(path, kind)?;
            if let Some(process) = process {
                // Opened by its number, which is its own as long as it has not ended.
                still_there(process, path, kind)?;
            }
            Ok(Some(namespace))
        };
        joined.pid = alone(&namespaces.pid, NamespaceKind::Pid)?;
        joined.user = alone(&namespaces.user, NamespaceKind::User)?;
        Ok(joined)
    }

    fn add(&mut self, process: OwnedFd, kind: ThreadNameSpaceType) {
        match self.of_processes.last_mut() {
            Some((_, kinds)) => *kinds |= kind,
            None => self.of_processes.push((process, kind)),
        }
    }

    /// Enters all but those of users and pids.
    pub(crate) fn enter(&self) -> Result<(), StepError> {
        for (process, kinds) in &self.of_processes {
            move_into_thread_name_spaces(process.as_fd(), *kinds).map_err(|errno| {
                StepError::new(Step::Join(NamespaceKind::Net), errno, "setns(pidfd)")
            })?;
        }
        for (kind, link, file) in &self.files {
            match move_into_link_name_space(file.as_fd(), Some(*link)) {
                // Entered with the host's rights, which a user namespace takes away.
                Err(Errno::PERM) if is_own(*kind, file.as_fd()) => {}
                other => {
                    other.map_err(|errno| StepError::new(Step::Join(*kind), errno, "setns()"))?;
                }
            }
        }
        Ok(())
    }

    /// Before a user namespace is entered: enters those by path that belong to another one. What fails here is tried
    /// again in [`JoinedNamespaces::enter`], with the rights of that user namespace.
    pub(crate) fn enter_early(&self) {
        for (kind, link, file) in &self.files {
            if *kind != NamespaceKind::Mount {
                let _tried_again = move_into_link_name_space(file.as_fd(), Some(*link));
            }
        }
    }
}

/// The process of `/proc/<number>/ns/…`; `None` for any other path, and where none are given.
fn process_of<'a>(
    path: &str,
    processes: Option<Processes<'a>>,
    kind: NamespaceKind,
) -> Result<Option<BorrowedFd<'a>>, StepError> {
    let Some(processes) = processes else { return Ok(None) };
    let Some((number, _)) = path.strip_prefix("/proc/").and_then(|rest| rest.split_once("/ns/"))
    else {
        return Ok(None);
    };
    let found = processes.iter().find(|(pid, _)| number.parse() == Ok(*pid));
    found.map(|(_, process)| Some(*process)).ok_or_else(|| {
        let call = format!("open({path}): not a running process of this pod");
        StepError::new(Step::Join(kind), Errno::SRCH, call)
    })
}

fn still_there(process: BorrowedFd<'_>, path: &str, kind: NamespaceKind) -> Result<(), StepError> {
    let failed = |errno| StepError::new(Step::Join(kind), errno, format!("open({path})"));
    let mut fds = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(failed)?;
    if fds[0].revents().is_empty() { Ok(()) } else { Err(failed(Errno::SRCH)) }
}

fn open(path: &str, kind: NamespaceKind) -> Result<OwnedFd, StepError> {
    fs::File::open(path).map(OwnedFd::from).map_err(|err| join_error(kind, &err, path))
}

/// Whether the calling process is in this namespace.
fn is_own(kind: NamespaceKind, file: BorrowedFd<'_>) -> bool {
    let name = match kind {
        NamespaceKind::Net => "net",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Mount | NamespaceKind::Pid | NamespaceKind::User | NamespaceKind::Time => {
            return false;
        }
    };
    let own = rustix::fs::stat(format!("/proc/thread-self/ns/{name}"));
    let other = rustix::fs::fstat(file);
    own.is_ok_and(|own| {
        other.is_ok_and(|other| (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    })
}

fn copy(process: BorrowedFd<'_>, kind: NamespaceKind) -> Result<OwnedFd, StepError> {
    process.try_clone_to_owned().map_err(|err| join_error(kind, &err, "pidfd"))
}

fn join_error(kind: NamespaceKind, err: &std::io::Error, path: &str) -> StepError {
    let errno = Errno::from_io_error(err).unwrap_or(Errno::IO);
    StepError::new(Step::Join(kind), errno, format!("open({path})"))
}

/// All namespaces of a container but the one of pids, at once; those that are the host's are entered again,
/// which does nothing.
pub(crate) fn join_all(process: BorrowedFd<'_>, with_user: bool) -> Result<(), StepError> {
    let mut kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    if with_user {
        kinds |= ThreadNameSpaceType::USER;
    }
    let joined = match move_into_thread_name_spaces(process, kinds | ThreadNameSpaceType::TIME) {
        // A kernel without time namespaces (before Linux 5.6, or not configured).
        Err(Errno::INVAL) => move_into_thread_name_spaces(process, kinds),
        other => other,
    };
    joined.map_err(|errno| {
        StepError::new(Step::Join(NamespaceKind::Mount), errno, "setns(pidfd of the container)")
    })
}

/// As [`join_all`], for callers without rights over the namespaces of the host: only those that are not ours.
pub(crate) fn join_differing(process: BorrowedFd<'_>) -> Result<(), StepError> {
    let failed =
        |errno, call: String| StepError::new(Step::Join(NamespaceKind::Mount), errno, call);
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let text =
        fs::read_to_string(&path).map_err(|err| join_error(NamespaceKind::Mount, &err, &path))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    let pid = pid.ok_or_else(|| failed(Errno::SRCH, format!("read({path})")))?;
    let mut kinds = ThreadNameSpaceType::empty();
    for (kind, name) in [
        (ThreadNameSpaceType::MOUNT, "mnt"),
        (ThreadNameSpaceType::NETWORK, "net"),
        (ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, "ipc"),
        (ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, "uts"),
        (ThreadNameSpaceType::CONTROL_GROUP, "cgroup"),
        (ThreadNameSpaceType::TIME, "time"),
    ] {
        let of = |process: &str| rustix::fs::stat(format!("/proc/{process}/ns/{name}"));
        match (of("self"), of(pid)) {
            (Ok(ours), Ok(theirs)) if ours.st_ino == theirs.st_ino => {}
            // A kernel without this kind.
            (Err(Errno::NOENT), _) => {}
            (Ok(_), Ok(_)) => kinds |= kind,
            (Err(errno), _) | (_, Err(errno)) => {
                return Err(failed(errno, format!("stat(/proc/{pid}/ns/{name})")));
            }
        }
    }
    if kinds.is_empty() {
        return Ok(());
    }
    move_into_thread_name_spaces(process, kinds)
        .map_err(|errno| failed(errno, "setns(pidfd of the container)".to_owned()))
}

/// Enters the user namespace of a process, by its pidfd.
pub(crate) fn enter_user_namespace_of(process: BorrowedFd<'_>) -> Result<(), StepError> {
    move_into_thread_name_spaces(process, ThreadNameSpaceType::USER)
        .map_err(|errno| StepError::new(Step::Join(NamespaceKind::User), errno, "setns(NEWUSER)"))
}

/// Points our future children at another pid namespace.
pub(crate) fn enter_pid_namespace(of: BorrowedFd<'_>) -> Result<(), StepError> {
    // A pidfd or a namespace's own descriptor: setns takes both, each by its own flags.
    let entered = move_into_thread_name_spaces(of, ThreadNameSpaceType::PROCESS_ID);
    let entered = match entered {
        Err(Errno::INVAL) => move_into_link_name_space(of, Some(LinkNameSpaceType::ProcessID)),
        other => other,
    };
    entered.map_err(|errno| StepError::new(Step::Join(NamespaceKind::Pid), errno, "setns(NEWPID)"))
}

/// The flags of `clone3(2)` for those that are new.
pub(crate) fn new_flags(namespaces: &Namespaces) -> u64 {
    [
        (&namespaces.mount, flags::NEWNS),
        (&namespaces.pid, flags::NEWPID),
        (&namespaces.net, flags::NEWNET),
        (&namespaces.ipc, flags::NEWIPC),
        (&namespaces.uts, flags::NEWUTS),
        (&namespaces.user, flags::NEWUSER),
    ]
    .into_iter()
    .filter(|(of, _)| **of == Namespace::New)
    .fold(0, |all, (_, flag)| all | flag)
}

/// A new time namespace is for children: made here, with its offsets, before the clone.
pub(crate) fn enter_time(namespaces: &Namespaces) -> Result<Option<fs::File>, StepError> {
    let kind = NamespaceKind::Time;
    let path = "/proc/self/ns/time";
    let file = match &namespaces.time {
        Namespace::Inherit => return Ok(None),
        Namespace::New => fs::File::open(path).map_err(|err| join_error(kind, &err, path))?,
        Namespace::Join(of) => {
            let home = fs::File::open(path).map_err(|err| join_error(kind, &err, path))?;
            let file = fs::File::open(of).map_err(|err| join_error(kind, &err, of))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Time))
                .map_err(|errno| StepError::new(Step::Join(kind), errno, "setns(NEWTIME)"))?;
            return Ok(Some(home));
        }
    };
    hull_sys::unshare(flags::NEWTIME).map_err(StepError::at(Step::Join(kind)))?;
    for (clock, seconds, nanoseconds) in &namespaces.time_offsets {
        let line = format!("{clock} {seconds} {nanoseconds}\n");
        fs::write("/proc/self/timens_offsets", line)
            .map_err(|err| join_error(kind, &err, "/proc/self/timens_offsets"))?;
    }
    Ok(Some(file))
}

pub(crate) fn leave_time(home: &fs::File) -> Result<(), StepError> {
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Time))
        .map_err(|errno| StepError::new(Step::Join(NamespaceKind::Time), errno, "setns(back)"))
}
