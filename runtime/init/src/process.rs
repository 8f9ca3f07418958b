// SPDX-License-Identifier: Apache-2.0
//! The last stretch: from root in the new namespaces to the program.
//!
//! The order matters. Limits while we may still set them; every descriptor closed that is not the
//! program's, before a path of the container is looked up; the bounding set before the identity; the
//! identity with capabilities kept; the capability sets. Where others can see the process, what follows is
//! done by a sibling that is born with all of that ([`Birth`]): no-new-privs and the filter, as late as
//! possible; the exec. Without no-new-privs the filter needs CAP_SYS_ADMIN and goes before the sets.

use crate::attributes::{die_with_parent, lead_session, not_traceable};
use crate::filter_place::{FilterPlace, Phase};
use crate::hooks::{HookKind, Surroundings};
use crate::ids;
use crate::injected_init::become_init;
use crate::options::LaunchOptions;
use crate::pending_process::fail;
use crate::plan::{Process, Step, StepError};
use crate::streams::Io;
use crate::{scheduling, sysctl};
use hull_sys::{BirthSlot, CStringArray};
use rustix::fs::{Mode, ResolveFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The highest possible capability: the sets have 64 bits.
const CAPABILITIES: u32 = 63;

/// Files of the host's /proc that are opened before the container's mounts could replace them.
#[derive(Debug)]
pub(crate) struct PreMountFiles {
    labels: Vec<(OwnedFd, String)>,
}

impl PreMountFiles {
    /// Sets the out-of-memory score, and opens the files to which the labels will be written.
    pub(crate) fn open(process: &Process) -> Result<Self, StepError> {
        oom_score(process)?;
        let mut labels = Vec::new();
        let failed = |path: &str| {
            let call = format!("open(/proc/{path})");
            move |errno| StepError::new(Step::SecurityModule, errno, call)
        };
        if let Some(profile) = &process.apparmor {
            let path = "thread-self/attr/apparmor/exec";
            let file = match sysctl::open_proc(path, ResolveFlags::empty()) {
                // Before Linux 5.8 there was one place for all modules.
                Err(Errno::NOENT) => {
                    sysctl::open_proc("thread-self/attr/exec", ResolveFlags::empty())
                }
                other => other,
            };
            labels.push((file.map_err(failed(path))?, format!("exec {profile}")));
        }
        if let Some(label) = &process.selinux {
            let path = "thread-self/attr/exec";
            let file = sysctl::open_proc(path, ResolveFlags::empty());
            labels.push((file.map_err(failed(path))?, label.clone()));
        }
        Ok(Self { labels })
    }

    /// Writes the labels, for the next exec of this process or of its child.
    fn write(self) -> Result<(), StepError> {
        for (file, text) in self.labels {
            rustix::io::write(&file, text.as_bytes()).map_err(|errno| {
                StepError::new(Step::SecurityModule, errno, format!("write(attr/exec, {text})"))
            })?;
        }
        Ok(())
    }
}

/// The process in which the program runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Birth<'a> {
    /// The process that was cloned for it.
    InPlace,
    /// A sibling of that process, created when everything is the container's: only the sibling is visible in the
    /// pid namespace of others. The kernel writes its pid into a page that it cannot reach.
    Sibling(&'a BirthSlot),
}

/// Becomes the program, or reports which step failed and ends. `report` is our end of the status pipe.
pub(crate) fn exec_process(
    process: &Process,
    io: &Io,
    pre_mount: PreMountFiles,
    report: &mut OwnedFd,
    how: &LaunchOptions<'_>,
    birth: Birth<'_>,
) -> ! {
    let ready = match prepare(process, io, pre_mount, report, how, birth) {
        Ok(ready) => ready,
        Err(error) => fail(&*report, &error),
    };
    // From here on no owned descriptor may be dropped: all are closed.
    let Birth::Sibling(slot) = birth else { finish(process, io, ready, report, how) };
    match hull_sys::fork_sibling(slot) {
        // The process that created it has nothing left to do.
        Ok(false) => hull_sys::exit_now(0),
        Ok(true) => match lead_session() {
            Ok(()) => finish(process, io, ready, report, how),
            Err(error) => fail(&*report, &error),
        },
        Err(error) => fail(&*report, &StepError::at(Step::Clone)(error)),
    }
}

/// The input of the last steps.
struct Ready {
    /// Whether the working directory could be entered already.
    cwd: Result<(), StepError>,
    filter: FilterPlace,
    program: Result<Program, StepError>,
}

/// The phases of a start.
fn phases(how: &LaunchOptions<'_>, birth: Birth<'_>, io: &Io) -> Vec<Phase> {
    let is_terminal = matches!(io, Io::Terminal(_) | Io::NewTerminal(_));
    let has_hooks = how.hooks.is_some_and(|hooks| hooks.has(&[HookKind::StartContainer]));
    let all = [
        (Phase::Birth, matches!(birth, Birth::Sibling(_))),
        (Phase::Terminal, is_terminal),
        (Phase::ParentDeath, !how.outlives),
        (Phase::Wait, how.start_socket.is_some()),
        (Phase::Hooks, has_hooks),
        (Phase::Listener, how.seccomp_listener.is_some()),
        (Phase::Schedule, how.scheduled_by_parent.is_some()),
        (Phase::Init, how.init.is_some()),
    ];
    all.into_iter().filter(|(_, is_made)| *is_made).map(|(phase, _)| phase).collect()
}

/// All steps that need rights, and closing every descriptor that is not the program's.
fn prepare(
    process: &Process,
    io: &Io,
    pre_mount: PreMountFiles,
    report: &mut OwnedFd,
    how: &LaunchOptions<'_>,
    birth: Birth<'_>,
) -> Result<Ready, StepError> {
    io.install(process)?;
    rlimits(process)?;
    scheduling::set(process, how.scheduling, how.scheduled_by_parent.is_some())?;
    pre_mount.write()?;
    // Closed, not only marked so, and before any path of the container is looked up: through one that is open, if only
    // until the exec, `/proc/self/fd/<number>/..` leads out. Before the filter, as older profiles do not
    // know the call.
    let kept = [
        Some(report.as_fd()),
        how.start_socket,
        how.seccomp_listener,
        how.scheduled_by_parent,
        how.init,
    ];
    let kept: Vec<_> = kept.into_iter().flatten().collect();
    hull_sys::close_all_but(how.kept_fds.saturating_add(3), &kept)
        .map_err(StepError::at(Step::Stdio))?;
    lower_number(process, report, how.kept_fds);
    if let Birth::Sibling(slot) = birth {
        slot.keep_from_children().map_err(StepError::at(Step::Clone))?;
    }
    // What needs memory is made before the filter, which may refuse the allocator its calls.
    let program = Program::of(process);
    let phases = phases(how, birth, io);
    let filter = FilterPlace::choose(process.seccomp.as_ref(), process.no_new_privs, &phases);
    if filter == FilterPlace::WithRights {
        seccomp(process, how)?;
    }
    // Only the user may be allowed in (NFS), or only root.
    let cwd = enter_cwd(process);
    identity(process, how)?;
    if !how.keeps_capabilities {
        capabilities(process)?;
    }
    // Changed credentials may have undone it.
    not_traceable()?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    if filter == FilterPlace::BeforeBirth {
        no_new_privs_and_filter(process, how)?;
    }
    Ok(Ready { cwd, filter, program })
}

/// Gives the status pipe the lowest number that is free: with a limit on descriptors below its own, nothing could be put
/// in its place any more.
fn lower_number(process: &Process, report: &mut OwnedFd, kept: u32) {
    const NOFILE: u32 = 7;
    if process.rlimits.iter().all(|limit| limit.resource != NOFILE) {
        return;
    }
    let lowest = i32::try_from(kept.saturating_add(3)).unwrap_or(i32::MAX);
    if let Ok(lower) = rustix::io::fcntl_dupfd_cloexec(&*report, lowest) {
        *report = lower;
    }
}

/// The last steps, which need only rights that the container has.
fn finish(
    process: &Process,
    io: &Io,
    ready: Ready,
    report: &mut OwnedFd,
    how: &LaunchOptions<'_>,
) -> ! {
    let last = |report: &mut OwnedFd| -> Result<Infallible, StepError> {
        // Without a program there is nothing for an init: the error comes from where it always does.
        if let (Some(init), Ok(program)) = (how.init, &ready.program) {
            let confine = || match ready.filter {
                FilterPlace::Last => no_new_privs_and_filter(process, how),
                FilterPlace::WithRights | FilterPlace::BeforeBirth => Ok(()),
            };
            become_init(init, &program.env, report.as_fd(), how.outlives, confine)?;
        }
        io.control()?;
        ready.cwd.or_else(|_| enter_cwd(process))?;
        inside_root()?;
        if !how.outlives {
            die_with_parent(report.as_fd())?;
        }
        hull_sys::reset_signals().map_err(StepError::at(Step::Exec))?;
        if how.start_socket.is_some() {
            look_for_program(process)?;
            // A container that was not started is ended as one that was.
            hull_sys::exit_on_signals().map_err(StepError::at(Step::Exec))?;
        }
        let mut filter = ready.filter;
        if filter == FilterPlace::Last && how.seccomp_listener.is_some() {
            // Now, while there is somebody who passes the descriptor on.
            no_new_privs_and_filter(process, how)?;
            filter = FilterPlace::WithRights;
        }
        let confine = || match filter {
            FilterPlace::Last => no_new_privs_and_filter(process, how),
            // Already installed, and inherited.
            FilterPlace::WithRights | FilterPlace::BeforeBirth => Ok(()),
        };
        let surroundings =
            Surroundings { env: &process.env, confine: Some(&confine), ..Surroundings::default() };
        how.wait(report, &surroundings)?;
        if let Some(gate) = how.scheduled_by_parent {
            // Also its end: then the parent is gone.
            let _scheduled = rustix::io::read(gate, &mut [0]);
            hull_sys::close_now(gate);
        }
        if filter == FilterPlace::Last {
            no_new_privs_and_filter(process, how)?;
        }
        ready.program?.run()
    };
    match last(report) {
        Ok(never) => match never {},
        Err(error) => fail(&*report, &error),
    }
}

fn no_new_privs_and_filter(process: &Process, how: &LaunchOptions<'_>) -> Result<(), StepError> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| StepError::new(Step::Capabilities, errno, "prctl(NO_NEW_PRIVS)"))?;
    seccomp(process, how)
}

fn rlimits(process: &Process) -> Result<(), StepError> {
    for (at, limit) in process.rlimits.iter().enumerate() {
        let step = Step::Rlimit(u32::try_from(at).unwrap_or(u32::MAX));
        hull_sys::setrlimit(limit.resource, limit.soft, limit.hard).map_err(StepError::at(step))?;
    }
    Ok(())
}

fn oom_score(process: &Process) -> Result<(), StepError> {
    set_oom_score("self/oom_score_adj", process.oom_score_adj)
}

/// Sets the out-of-memory score of a process by its file in /proc.
pub(crate) fn set_oom_score(path: &str, score: Option<i32>) -> Result<(), StepError> {
    let Some(score) = score else { return Ok(()) };
    let file = sysctl::open_proc(path, ResolveFlags::empty());
    match file.and_then(|file| rustix::io::write(&file, score.to_string().as_bytes())) {
        // Lowering it needs CAP_SYS_RESOURCE, which a nested host may not have: it keeps ours.
        Ok(_) | Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(errno) => {
            Err(StepError::new(Step::OomScore, errno, format!("write(oom_score_adj, {score})")))
        }
    }
}

fn seccomp(process: &Process, how: &LaunchOptions<'_>) -> Result<(), StepError> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    let failed = StepError::at(Step::Seccomp);
    let Some(socket) = how.seccomp_listener else {
        return hull_sys::install_seccomp(&filter.bpf, filter.flags).map_err(failed);
    };
    let listener =
        hull_sys::install_seccomp_listener(&filter.bpf, filter.flags).map_err(&failed)?;
    hull_sys::send_fd(socket, b"seccomp", listener.as_fd()).map_err(failed)?;
    // The program is to have neither.
    drop(listener);
    hull_sys::close_now(socket);
    Ok(())
}

fn identity(process: &Process, how: &LaunchOptions<'_>) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Identity, errno, call);
    if !how.keeps_capabilities {
        bounding_set(process)?;
    }
    rustix::thread::set_keep_capabilities(true).map_err(failed("prctl(KEEPCAPS)"))?;
    let no_id = |what: &'static str| failed(what)(Errno::INVAL);
    let groups: Option<Vec<Gid>> = process.groups.iter().map(|raw| ids::group(*raw)).collect();
    let groups = groups.ok_or_else(|| no_id("setgroups()"))?;
    match rustix::thread::set_thread_groups(&groups) {
        // In a user namespace that nobody with rights has mapped, groups stay those of the caller, `user_namespaces(7)`.
        Err(Errno::PERM) if groups.is_empty() && how.groups_are_denied => {}
        other => other.map_err(failed("setgroups()"))?,
    }
    let gid = ids::group(process.gid).ok_or_else(|| no_id("setresgid()"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid()"))?;
    let uid = ids::user(process.uid).ok_or_else(|| no_id("setresuid()"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid()"))?;
    rustix::thread::set_keep_capabilities(false).map_err(failed("prctl(KEEPCAPS)"))
}

/// Takes what the plan does not name out of the bounding set.
fn bounding_set(process: &Process) -> Result<(), StepError> {
    let kept = own_permitted()?;
    for capability in 0..=CAPABILITIES {
        let bit = 1u64 << capability;
        if process.capabilities.bounding & kept & bit != 0 {
            continue;
        }
        let bit = CapabilitySet::from_bits_retain(bit);
        match rustix::thread::remove_capability_from_bounding_set(bit) {
            // Past the last capability of this kernel.
            Err(Errno::INVAL) => break,
            other => other
                .map_err(|errno| StepError::new(Step::Identity, errno, "prctl(CAPBSET_DROP)"))?,
        }
    }
    Ok(())
}

/// Our own permitted set: the program cannot get more.
fn own_permitted() -> Result<u64, StepError> {
    let sets = rustix::thread::capabilities(None)
        .map_err(|errno| StepError::new(Step::Capabilities, errno, "capget()"))?;
    Ok(sets.permitted.bits())
}

fn capabilities(process: &Process) -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Capabilities, errno, call);
    let have = own_permitted()?;
    let wanted = process.capabilities;
    let set = |bits: u64| CapabilitySet::from_bits_retain(bits & have);
    let sets = CapabilitySets {
        effective: set(wanted.effective),
        permitted: set(wanted.permitted),
        inheritable: set(wanted.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset()"))?;
    rustix::thread::clear_ambient_capability_set()
        .map_err(failed("prctl(CAP_AMBIENT_CLEAR_ALL)"))?;
    let ambient = wanted.ambient & wanted.permitted & wanted.inheritable & have;
    for capability in (0..=CAPABILITIES).filter(|bit| ambient >> bit & 1 == 1) {
        let capability = CapabilitySet::from_bits_retain(1 << capability);
        rustix::thread::configure_capability_in_ambient_set(capability, true)
            .map_err(failed("prctl(CAP_AMBIENT_RAISE)"))?;
    }
    Ok(())
}

fn enter_cwd(process: &Process) -> Result<(), StepError> {
    rustix::process::chdir(process.cwd.as_str())
        .map_err(|errno| StepError::new(Step::Cwd, errno, format!("chdir({})", process.cwd)))
}

/// Checks that the working directory is inside of the root: a directory that was reached through a leaked
/// descriptor of the host would be shown as unreachable.
fn inside_root() -> Result<(), StepError> {
    let cwd = rustix::process::getcwd(Vec::new())
        .map_err(|errno| StepError::new(Step::Cwd, errno, "getcwd()"))?;
    if cwd.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(StepError::new(Step::Cwd, Errno::XDEV, "getcwd() is outside of the root"))
}

/// A program with its arguments, as the kernel takes them.
struct Program {
    /// The file, or those that it may be by PATH.
    files: Vec<CString>,
    /// Its name, if it is searched for in PATH.
    searched: Option<String>,
    args: CStringArray,
    env: CStringArray,
}

impl Program {
    fn of(process: &Process) -> Result<Self, StepError> {
        let failed = |errno, call: String| StepError::new(Step::Exec, errno, call);
        let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
            return Err(failed(Errno::NOENT, "execve() of nothing".into()));
        };
        let args =
            CStringArray::new(&process.args).map_err(|errno| failed(errno, "arguments".into()))?;
        let env =
            CStringArray::new(&process.env).map_err(|errno| failed(errno, "environment".into()))?;
        let searched = !program.contains(&b'/');
        let searched = searched.then(|| String::from_utf8_lossy(program).into_owned());
        Ok(Self { files: candidates(process, program)?, searched, args, env })
    }

    /// As `execvp(3)`. Allocates nothing before the exec has failed.
    fn run(self) -> Result<Infallible, StepError> {
        let failed = |errno, call: String| StepError::new(Step::Exec, errno, call);
        let mut denied = None;
        for file in &self.files {
            let error = hull_sys::execve(file, &self.args, &self.env);
            match error.errno() {
                errno if self.searched.is_none() => return Err(failed(errno, error.to_string())),
                Errno::NOENT | Errno::NOTDIR if !exists(file) => {}
                // A file that may not be executed is skipped, but remembered.
                Errno::ACCESS => denied = Some(failed(Errno::ACCESS, error.to_string())),
                errno => return Err(failed(errno, error.to_string())),
            }
        }
        let name = self.searched.unwrap_or_default();
        Err(denied.unwrap_or_else(|| failed(Errno::NOENT, format!("execve({name}) in PATH"))))
    }
}

/// The files that a program may be: a name without a slash is searched for in PATH.
fn candidates(process: &Process, program: &[u8]) -> Result<Vec<CString>, StepError> {
    if program.contains(&b'/') {
        return Ok(vec![c_string(program)?]);
    }
    let path = process.env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH.as_bytes());
    let dirs = path.split(|byte| *byte == b':');
    dirs.map(|dir| if dir.is_empty() { b".".as_slice() } else { dir })
        .map(|dir| c_string(&[dir, b"/", program].concat()))
        .collect()
}

/// Reports a missing program when the container is created, and not only when it is started. All other errors
/// are left to the exec.
fn look_for_program(process: &Process) -> Result<(), StepError> {
    let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
        return Err(StepError::new(Step::Exec, Errno::NOENT, "execve() of nothing"));
    };
    if candidates(process, program)?.iter().any(exists) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(program);
    Err(StepError::new(Step::Exec, Errno::NOENT, format!("stat({shown})")))
}

/// Whether a file exists: if it does, ENOENT of its exec is about its interpreter, and is the error to show.
fn exists(file: &CString) -> bool {
    rustix::fs::stat(file.as_c_str()).is_ok()
}

fn c_string(bytes: &[u8]) -> Result<CString, StepError> {
    CString::new(bytes)
        .map_err(|_| StepError::new(Step::Exec, Errno::INVAL, "program name with a NUL"))
}
