// SPDX-License-Identifier: Apache-2.0
//! Making the process: cgroup, clone, what the parent has to do for it, and the child's way to the
//! exec.

use crate::launch::{Launch, Turn};
use crate::plan::{IdMaps, Namespace, NamespaceKind, Namespaces, Plan, Process, Step, StepError};
use crate::starting::{Starting, fail, status_pipe};
use crate::{apply, ids, process, sources};
use hull_cgroup::{Cgroup, Host};
use hull_sys::{Forked, clone3, flags};
use rustix::fs::FileType;
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Standard streams of a new process.
#[derive(Debug)]
pub enum Io {
    /// One descriptor each.
    Streams {
        /// 0.
        stdin: OwnedFd,
        /// 1.
        stdout: OwnedFd,
        /// 2.
        stderr: OwnedFd,
    },
    /// A terminal for all three, to become the controlling one.
    Terminal {
        /// The terminal's own side.
        slave: OwnedFd,
        /// Its path on the host, bound to /dev/console of a container.
        path: String,
    },
}

/// A running container that a further process joins.
#[derive(Debug)]
pub struct ExecTarget<'a> {
    /// Its first process.
    pub pidfd: BorrowedFd<'a>,
    /// Maps of its user namespace, when it has one that is not ours.
    pub id_maps: Option<&'a IdMaps>,
    /// Its cgroup.
    pub cgroup: &'a str,
}

/// Starts a container's first process.
///
/// The cgroup is made first and is there when this fails too: the caller removes it. `slots` are the
/// detached mounts that the plan's binds name by number.
pub fn spawn(host: &Host, plan: &Plan, io: Io, slots: &[OwnedFd]) -> Result<Starting, StepError> {
    launch(host, plan, io, slots, &Launch::default())
}

/// As [`spawn`], with what goes beyond a plan. With hooks for the time before the root is changed it
/// comes back when those have run; when one fails the process is gone.
pub fn launch(
    host: &Host,
    plan: &Plan,
    io: Io,
    slots: &[OwnedFd],
    how: &Launch<'_>,
) -> Result<Starting, StepError> {
    let cgroup = cgroup(host, &plan.cgroup.path)?;
    cgroup.create(&plan.cgroup.limits).map_err(|err| cgroup_error(&err))?;
    if let Some((uid, gid)) = root_outside(plan) {
        cgroup.delegate(uid, gid).map_err(|err| cgroup_error(&err))?;
    }
    let mut joins = Joins::open(&plan.namespaces)?;
    let user = joins.take_user();
    let sources = sources::open(plan, user.as_ref().map(|file| file.as_fd()))?;
    own_streams(&io, plan);
    let new = new_flags(&plan.namespaces);
    let time = enter_time(&plan.namespaces)?;
    let clone = Clone {
        host,
        cgroup: &cgroup,
        flags: new,
        pid: joins.pid.as_ref().map(|file| file.as_fd()),
        user: user.as_ref().map(|file| file.as_fd()),
        maps: &plan.id_maps,
        oom_score_adj: plan.process.oom_score_adj,
    };
    let turn = Turn::of(how)?;
    let started = clone.run(|report| {
        // The host's /proc, which nobody in the container can have changed.
        let early = process::Early::open(&plan.process)?;
        how.leave_keyring()?;
        joins.enter()?;
        if plan.namespaces.cgroup == Namespace::New {
            hull_sys::unshare(flags::NEWCGROUP)
                .map_err(StepError::of(Step::Join(NamespaceKind::Cgroup)))?;
        }
        let console = match &io {
            Io::Terminal { path, .. } => Some(path.as_str()),
            Io::Streams { .. } => None,
        };
        let before_pivot = || turn.child(how);
        apply::all(host, plan, sources, slots, apply::Last { console, before_pivot })?;
        Err(process::become_program(&plan.process, &io, early, report, how))
    });
    if let Some(before) = time {
        leave_time(&before)?;
    }
    turn.parent(how, started?)
}

/// Whom root of the container's own user namespace is outside.
fn root_outside(plan: &Plan) -> Option<(u32, u32)> {
    let IdMaps { uids, gids } = &plan.id_maps;
    if plan.namespaces.user == Namespace::Inherit || plan.namespaces.cgroup != Namespace::New {
        return None;
    }
    sources::outside(uids, 0).zip(sources::outside(gids, 0))
}

/// Lets the container's user open its own streams anew, as in `/dev/stdout`. Done by the parent: in a
/// user namespace the child has no right to give away what is the host's. Refused is no reason to
/// fail.
fn own_streams(io: &Io, plan: &Plan) {
    let maps = (plan.namespaces.user != Namespace::Inherit).then_some(&plan.id_maps);
    io.give_inside(plan.process.uid, plan.process.gid, maps);
}

impl Io {
    /// To whom these ids mean inside.
    fn give_inside(&self, uid: u32, gid: u32, maps: Option<&IdMaps>) {
        match maps {
            Some(IdMaps { uids, gids }) => {
                self.give(sources::outside(uids, uid), sources::outside(gids, gid));
            }
            None => self.give(Some(uid), Some(gid)),
        }
    }

    fn give(&self, uid: Option<u32>, gid: Option<u32>) {
        let (uid, gid) = (uid.and_then(ids::user), gid.and_then(ids::group));
        match self {
            Self::Terminal { slave, .. } => {
                // The group stays the one of all terminals.
                let _refused = rustix::fs::fchown(slave, uid, None);
            }
            Self::Streams { stdin, stdout, stderr } => {
                for stream in [stdin, stdout, stderr] {
                    let is_pipe = rustix::fs::fstat(stream)
                        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
                    // Never /dev/null or a file of the host.
                    if is_pipe {
                        let _refused = rustix::fs::fchown(stream, uid, gid);
                    }
                }
            }
        }
    }
}

/// Starts a further process in a container. No program in between, no second fork.
pub fn exec(
    host: &Host,
    target: &ExecTarget<'_>,
    process: &Process,
    io: &Io,
) -> Result<Starting, StepError> {
    launch_exec(host, target, process, io, &Launch::default())
}

/// As [`exec`], with what goes beyond a process. Its hooks are not looked at.
pub fn launch_exec(
    host: &Host,
    target: &ExecTarget<'_>,
    process: &Process,
    io: &Io,
    how: &Launch<'_>,
) -> Result<Starting, StepError> {
    let cgroup = cgroup(host, target.cgroup)?;
    // Only the first process's pidfd gives its namespaces; for the clone it is the parent that must
    // already be pointed at the pid namespace.
    let maps = IdMaps::default();
    io.give_inside(process.uid, process.gid, target.id_maps);
    let clone = Clone {
        host,
        cgroup: &cgroup,
        flags: 0,
        pid: Some(target.pidfd),
        // All namespaces are entered at once, none is made: nobody is needed in between.
        user: None,
        maps: &maps,
        oom_score_adj: process.oom_score_adj,
    };
    clone.run(|report| {
        let early = process::Early::open(process)?;
        how.leave_keyring()?;
        join_all(target)?;
        Err(process::become_program(process, io, early, report, how))
    })
}

/// All namespaces at once; those that are the host's are entered again, which does nothing.
fn join_all(target: &ExecTarget<'_>) -> Result<(), StepError> {
    let mut kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    if target.id_maps.is_some() {
        kinds |= ThreadNameSpaceType::USER;
    }
    let joined = move_into_thread_name_spaces(target.pidfd, kinds | ThreadNameSpaceType::TIME);
    let joined = match joined {
        // A kernel without time namespaces (before Linux 5.6, or not configured).
        Err(Errno::INVAL) => move_into_thread_name_spaces(target.pidfd, kinds),
        other => other,
    };
    joined.map_err(|errno| {
        StepError::new(Step::Join(NamespaceKind::Mount), errno, "setns(pidfd of the container)")
    })
}

fn cgroup(host: &Host, path: &str) -> Result<Cgroup, StepError> {
    Cgroup::at(host, path).map_err(|err| cgroup_error(&err))
}

/// With the chain of causes: what reads the report has nothing else.
pub(crate) fn cgroup_error(err: &hull_cgroup::Error) -> StepError {
    let mut call = err.to_string();
    if let Some(source) = std::error::Error::source(err) {
        call = format!("{call}: {source}");
    }
    if let Some(hint) = err.hint() {
        call = format!("{call} ({hint})");
    }
    StepError { step: Step::Cgroup, errno: err.errno(), call }
}

/// A clone with everything that belongs to it.
pub(crate) struct Clone<'a> {
    pub(crate) host: &'a Host,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) flags: u64,
    /// A descriptor whose pid namespace the child is born into.
    pub(crate) pid: Option<BorrowedFd<'a>>,
    /// A user namespace that the child is born into, and what it makes belongs to.
    pub(crate) user: Option<BorrowedFd<'a>>,
    /// Of a user namespace that `flags` makes.
    pub(crate) maps: &'a IdMaps,
    /// Set before a user namespace is entered, where nobody may lower it.
    pub(crate) oom_score_adj: Option<i32>,
}

impl Clone<'_> {
    /// Clones; the child runs `work`, which does not come back unless it failed.
    pub(crate) fn run(
        &self,
        work: impl FnOnce(&mut OwnedFd) -> Result<std::convert::Infallible, StepError>,
    ) -> Result<Starting, StepError> {
        if let Some(user) = self.user {
            return self.run_inside(user, work);
        }
        let (news, mut report) = status_pipe()?;
        let into = self.cgroup.dir_fd().map_err(|err| cgroup_error(&err))?;
        let user = self.flags & flags::NEWUSER != 0;
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "pipe2(CLOEXEC)"))?;
        let visit = self.pid.map(visit_pid_namespace).transpose()?;
        let forked = clone3(self.flags, into.as_ref().map(OwnedFd::as_fd));
        if let (Some(home), Ok(Forked::Parent { .. }) | Err(_)) = (visit, &forked) {
            leave_pid_namespace(&home)?;
        }
        match forked.map_err(StepError::of(Step::Clone))? {
            Forked::Parent { pid, pidfd } => {
                drop(report);
                if user {
                    // The child waits; when this fails the closed pipe ends it.
                    self.cgroup.add(pid, false).map_err(|err| cgroup_error(&err))?;
                    write_maps(pid, self.maps)?;
                    process::set_oom_score(&format!("{pid}/oom_score_adj"), self.oom_score_adj)?;
                    write(&go, b"g")
                        .map_err(|errno| StepError::new(Step::Pipe, errno, "write(go)"))?;
                }
                Ok(Starting::new(pid, pidfd, news))
            }
            Forked::Child => {
                drop((news, go));
                let failed = self.child(user, &wait).and_then(|()| work(&mut report));
                match failed {
                    Err(error) => fail(&report, &error),
                    Ok(never) => match never {},
                }
            }
        }
    }

    /// What every child does first.
    fn child(&self, user: bool, wait: &OwnedFd) -> Result<(), StepError> {
        // Our memory and descriptors are the monitor's: nobody in a pid namespace that we are in or
        // about to enter may trace us. The exec makes the program itself open to that again.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(|errno| StepError::new(Step::Clone, errno, "prctl(SET_DUMPABLE)"))?;
        if user {
            let mut byte = [0];
            let got = read(wait, &mut byte).unwrap_or(0);
            if got == 0 {
                return Err(StepError::new(Step::IdMaps, Errno::CANCELED, "read(go)"));
            }
        } else {
            self.enter_cgroups()?;
        }
        rustix::process::setsid()
            .map_err(|errno| StepError::new(Step::Stdio, errno, "setsid()"))?;
        Ok(())
    }

    /// The calling process enters the v1 trees; the v2 tree was entered by its clone, if there is one.
    pub(crate) fn enter_cgroups(&self) -> Result<(), StepError> {
        if self.host.hierarchies().is_empty() {
            return Ok(());
        }
        let cloned_into = self.host.unified().is_some();
        // 0 is whoever writes.
        self.cgroup.add(0, !cloned_into).map_err(|err| cgroup_error(&err))
    }
}

/// Points our future children at another pid namespace; gives the way back.
fn visit_pid_namespace(of: BorrowedFd<'_>) -> Result<fs::File, StepError> {
    let path = "/proc/self/ns/pid";
    let home = fs::File::open(path).map_err(|err| join_error(NamespaceKind::Pid, &err, path))?;
    enter_pid_namespace(of)?;
    Ok(home)
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

fn leave_pid_namespace(home: &fs::File) -> Result<(), StepError> {
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::ProcessID))
        .map_err(|errno| StepError::new(Step::Join(NamespaceKind::Pid), errno, "setns(back)"))
}

fn join_error(kind: NamespaceKind, err: &std::io::Error, path: &str) -> StepError {
    let errno = Errno::from_io_error(err).unwrap_or(Errno::IO);
    StepError::new(Step::Join(kind), errno, format!("open({path})"))
}

/// Namespaces to enter, opened while host paths can still be named.
struct Joins {
    pid: Option<fs::File>,
    others: Vec<(NamespaceKind, LinkNameSpaceType, fs::File)>,
}

impl Joins {
    fn open(namespaces: &Namespaces) -> Result<Self, StepError> {
        let kinds = [
            (&namespaces.user, NamespaceKind::User, LinkNameSpaceType::User),
            (&namespaces.net, NamespaceKind::Net, LinkNameSpaceType::Network),
            (&namespaces.ipc, NamespaceKind::Ipc, LinkNameSpaceType::InterProcessCommunication),
            (&namespaces.uts, NamespaceKind::Uts, LinkNameSpaceType::HostNameAndNISDomainName),
            (&namespaces.cgroup, NamespaceKind::Cgroup, LinkNameSpaceType::ControlGroup),
            (&namespaces.mount, NamespaceKind::Mount, LinkNameSpaceType::Mount),
        ];
        let mut others = Vec::new();
        for (of, kind, raw) in kinds {
            if let Namespace::Join(path) = of {
                let file = fs::File::open(path).map_err(|err| join_error(kind, &err, path))?;
                others.push((kind, raw, file));
            }
        }
        let pid = match &namespaces.pid {
            Namespace::Join(path) => {
                let kind = NamespaceKind::Pid;
                Some(fs::File::open(path).map_err(|err| join_error(kind, &err, path))?)
            }
            Namespace::Inherit | Namespace::New => None,
        };
        Ok(Self { pid, others })
    }

    /// The user namespace is entered before the process is made.
    fn take_user(&mut self) -> Option<fs::File> {
        let at = self.others.iter().position(|(kind, ..)| *kind == NamespaceKind::User)?;
        Some(self.others.remove(at).2)
    }

    fn enter(&self) -> Result<(), StepError> {
        for (kind, raw, file) in &self.others {
            move_into_link_name_space(file.as_fd(), Some(*raw))
                .map_err(|errno| StepError::new(Step::Join(*kind), errno, "setns()"))?;
        }
        Ok(())
    }
}

fn new_flags(namespaces: &Namespaces) -> u64 {
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
fn enter_time(namespaces: &Namespaces) -> Result<Option<fs::File>, StepError> {
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
    hull_sys::unshare(flags::NEWTIME).map_err(StepError::of(Step::Join(kind)))?;
    for (clock, seconds, nanoseconds) in &namespaces.time_offsets {
        let line = format!("{clock} {seconds} {nanoseconds}\n");
        fs::write("/proc/self/timens_offsets", line)
            .map_err(|err| join_error(kind, &err, "/proc/self/timens_offsets"))?;
    }
    Ok(Some(file))
}

fn leave_time(home: &fs::File) -> Result<(), StepError> {
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Time))
        .map_err(|errno| StepError::new(Step::Join(NamespaceKind::Time), errno, "setns(back)"))
}

/// `user_namespaces(7)`: each map in one write.
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> Result<(), StepError> {
    for (file, ranges) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let path = format!("/proc/{pid}/{file}");
        let text: String = ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.length))
            .collect();
        fs::write(&path, text).map_err(|err| {
            let errno = Errno::from_io_error(&err).unwrap_or(Errno::IO);
            StepError::new(Step::IdMaps, errno, format!("write({path})"))
        })?;
    }
    Ok(())
}
