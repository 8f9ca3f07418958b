// SPDX-License-Identifier: Apache-2.0
//! Turns a failed step into a sentence with a hint.

mod mounts;

use crate::failure::{
    E2BIG, EACCES, EAGAIN, ECHILD, EINVAL, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, ENOSYS, ENOTDIR,
    EPERM, ERANGE, EROFS, ESRCH, Failure, Layer, failure, reason,
};
use crate::{own_limit, refused_call};
use hull_init::plan::{HINT, NamespaceKind, Op};
use hull_init::{PausePlan, Plan, Process, Step, StepError};
use mounts::{bind, mkdir, new_mount, place_hint};

/// Whether the program could not be executed.
#[must_use]
pub fn is_exec(error: &StepError) -> bool {
    error.step == Step::Exec
}

/// Whether a process whose namespaces were to be joined has ended meanwhile.
#[must_use]
pub fn is_gone(error: &StepError) -> bool {
    matches!(error.step, Step::Join(_)) && error.errno == ESRCH
}

/// Whether the kernel killed the process for memory before its program ran.
#[must_use]
pub fn is_memory(error: &StepError) -> bool {
    error.step == Step::Pipe && error.errno == ENOMEM
}

/// Whether the process was killed before its program ran, by something else than what [`is_memory`] says.
#[must_use]
pub fn is_killed_before_exec(error: &StepError) -> bool {
    error.step == Step::Pipe && error.errno == ECHILD
}

/// Diagnoses a failed step of a container's start.
#[must_use]
pub fn diagnose(plan: &Plan, error: &StepError) -> Failure {
    let found = if let Step::Op(at) = error.step {
        usize::try_from(at).ok().and_then(|at| Some((plan.ops.get(..at)?, plan.ops.get(at)?)))
    } else {
        None
    };
    match found {
        _ if is_memory(error) => memory(plan.cgroup.limits.memory_bytes),
        Some((earlier, op)) => of_op(earlier, op, error),
        None => {
            let has_init = plan.ops.contains(&Op::Init);
            of_step(Some(&plan.process), has_init, &plan.cgroup.path, error)
        }
    }
}

/// Diagnoses a failed step of an exec.
#[must_use]
pub fn diagnose_process(process: &Process, error: &StepError) -> Failure {
    of_step(Some(process), false, "of the container", error)
}

/// Diagnoses a failed step of the pause process, as the monitor sent it.
#[must_use]
pub fn diagnose_pause(plan: &PausePlan, step: &[u8]) -> Failure {
    let Some(error) = crate::decode_step(step) else {
        return failure(Layer::Process, "start", "the monitor's error cannot be read".into(), None);
    };
    if let Step::Op(at) = error.step {
        let sysctl = usize::try_from(at).ok().and_then(|at| plan.sysctls.get(at));
        let (name, value) =
            sysctl.map_or(("?", "?"), |(name, value)| (name.as_str(), value.as_str()));
        let what = format!("sysctl `{name}` cannot be set to `{value}`: {}", reason(&error));
        return failure(Layer::Namespace, "sysctl", what, Some(sysctl_hint(error.errno)));
    }
    of_step(None, false, &plan.cgroup.path, &error)
}

const ROOT_HINT: &str = "see `hull check` for what the kernel lacks; an image that is damaged on disk is repaired by \
    `hull rmi` and `hull pull`";

fn device_hint(errno: i32) -> &'static str {
    match errno {
        EPERM | EACCES => {
            "let hull create devices: it needs CAP_MKNOD, and on a nested node the outer container's device rules must let it"
        }
        _ => "check that the device is there on the node",
    }
}

fn sysctl_hint(errno: i32) -> &'static str {
    match errno {
        ENOENT => {
            "check the name under `securityContext.sysctls`: the node's kernel has no such setting, or not without a module"
        }
        EINVAL | ERANGE | E2BIG => {
            "correct the value under `securityContext.sysctls`: the kernel does not accept it for this setting"
        }
        EACCES | EPERM | EROFS => {
            "remove it from `securityContext.sysctls`: the node's kernel lets no container change it; set it on the node"
        }
        _ => "check the name and value under `securityContext.sysctls`",
    }
}

fn of_sysctl(name: &str, value: &str, error: &StepError) -> Failure {
    let what = format!("sysctl `{name}` cannot be set to `{value}`: {}", reason(error));
    failure(Layer::Namespace, "sysctl", what, Some(sysctl_hint(error.errno)))
}

/// `earlier` are the operations before it, which all succeeded.
fn of_op(earlier: &[Op], op: &Op, error: &StepError) -> Failure {
    let why = reason(error);
    let fs = |stage: &str, what: String, hint: Option<&str>| {
        failure(Layer::Filesystem, stage, what, hint)
    };
    match op {
        Op::Bind { source, target, .. } | Op::BindWith { source, target, .. } => {
            bind(earlier, (source, target), error)
        }
        Op::RootOverlay { lower, .. } => fs(
            "root",
            format!("the root filesystem of {} layers cannot be mounted: {why}", lower.len()),
            Some(ROOT_HINT),
        ),
        Op::RootBind { source } => {
            fs("root", format!("root `{source}` cannot be mounted: {why}"), None)
        }
        Op::Mount { fstype, target, options, .. }
        | Op::MountWith { fstype, target, options, .. } => {
            new_mount(earlier, (fstype, target), options, error)
        }
        Op::Cgroups { target, .. } => fs(
            "mount",
            format!("the cgroup tree cannot be mounted at `{target}`: {why}"),
            place_hint(target, error),
        ),
        Op::Device { path, major, minor, .. } => fs(
            "device",
            format!("device `{path}` ({major}:{minor}) cannot be made: {why}"),
            place_hint(path, error).or(Some(device_hint(error.errno))),
        ),
        Op::Symlink { path, .. } => {
            fs("link", format!("link `{path}` cannot be made: {why}"), place_hint(path, error))
        }
        Op::Mkdir { path, .. } => mkdir(earlier, path, error),
        Op::Mask { path } => {
            fs("mask", format!("`{path}` cannot be masked: {why}"), place_hint(path, error))
        }
        Op::Readonly { path } => fs(
            "read-only",
            format!("`{path}` cannot be made read-only: {why}"),
            place_hint(path, error),
        ),
        Op::RootReadonly => {
            fs("read-only", format!("the root cannot be made read-only: {why}"), None)
        }
        Op::RootPropagation(_) => {
            fs("propagation", format!("the root's mount propagation cannot be set: {why}"), None)
        }
        Op::Sysctl { name, value } => of_sysctl(name, value, error),
        Op::Hostname(name) | Op::Domainname(name) => failure(
            Layer::Namespace,
            "hostname",
            format!("host name `{name}` cannot be set: {why}"),
            None,
        ),
        Op::LoopbackUp => failure(
            Layer::Namespace,
            "loopback",
            format!("the loopback link of the new network namespace cannot be brought up: {why}"),
            None,
        ),
        Op::Pivot | Op::MoveRoot | Op::Init => {
            fs("root", format!("the root cannot be changed: {why}"), None)
        }
    }
}

/// A step, its layer, its stage, the sentence, and a hint.
type Words = (Step, Layer, &'static str, &'static str, Option<&'static str>);

/// In the order of the steps; numbers and kinds inside a step do not count.
const WORDS: [Words; 17] = [
    (Step::Cgroup, Layer::Cgroup, "cgroup", "its cgroup cannot be set up", None),
    (
        Step::Clone,
        Layer::Namespace,
        "clone",
        "its process cannot be made",
        Some("see `hull check` for the namespaces and rights that the node lacks"),
    ),
    (
        Step::Join(NamespaceKind::Net),
        Layer::Namespace,
        "join",
        "a namespace of its pod cannot be entered",
        Some(
            "the pod's pause process, or the container it targets, is gone: delete the pod, so that it is created again",
        ),
    ),
    (Step::IdMaps, Layer::Namespace, "user namespace", "its id maps cannot be written", None),
    (Step::Op(0), Layer::Filesystem, "mount", "a mount failed", None),
    (Step::Stdio, Layer::Process, "stdio", "its standard streams cannot be set up", None),
    (
        Step::Rlimit(0),
        Layer::Process,
        "rlimit",
        "a resource limit cannot be set",
        Some(
            "choose a lower limit: open files (nofile) are bounded by the node's fs.nr_open, and without CAP_SYS_RESOURCE every limit is by that of hull's service",
        ),
    ),
    (Step::OomScore, Layer::Process, "oom score", "its OOM score cannot be set", None),
    (Step::Capabilities, Layer::Security, "capabilities", "its capabilities cannot be set", None),
    (
        Step::SecurityModule,
        Layer::Security,
        "security module",
        "its AppArmor or SELinux label cannot be set",
        Some("check that the profile is loaded on the node"),
    ),
    (
        Step::Seccomp,
        Layer::Security,
        "seccomp",
        "its seccomp profile cannot be installed",
        Some(
            "check the profile: it must let the runtime's own last calls pass, unless `allowPrivilegeEscalation: false` is set and no init is injected",
        ),
    ),
    (
        Step::Scheduling,
        Layer::Process,
        "scheduling",
        "its scheduling cannot be set",
        Some(
            "CPUs (`execCPUAffinity`) must be in the container's cpuset and online, memory nodes must exist, and real-time policies need CAP_SYS_NICE",
        ),
    ),
    (
        Step::Pipe,
        Layer::Process,
        "start",
        "lost the connection to the process that starts it",
        Some(
            "something on the node killed that process: see the kernel's log (dmesg; `type=1326` is its seccomp profile), and what sends signals there",
        ),
    ),
    (
        Step::PauseRoot,
        Layer::Filesystem,
        "sandbox",
        "the pod's /dev/shm cannot be set up",
        Some("see `hull check`"),
    ),
    (Step::Hook(0), Layer::Process, "hook", "a hook failed", None),
    (Step::Hostname, Layer::Namespace, "hostname", "the pod's host name cannot be set", None),
    (
        Step::Identity,
        Layer::Security,
        "user",
        "its user and group cannot be taken",
        Some("with a user namespace both must be in its range"),
    ),
];

/// For a process that the kernel did not create: clone(2), namespaces(7).
fn clone_hint(errno: i32) -> Option<&'static str> {
    match errno {
        EAGAIN => Some(
            "the pod's limit of processes is reached (the kubelet's `podPidsLimit`, or `--pids-limit` of `hull run`), or the node's (kernel.pid_max, kernel.threads-max): raise it, or find what uses it up",
        ),
        ENOMEM => Some(
            "raise the memory limit of the container or its pod if it is reached (`hull stats`), or free memory on the node",
        ),
        ENOSPC => Some(
            "raise the node's limit of namespaces (sysctl user.max_pid_namespaces, user.max_mnt_namespaces and so on), and find out who keeps them with lsns",
        ),
        _ => None,
    }
}

/// A call about a pipe or socket of the start that the kernel refused: nobody was killed.
fn refused_pipe(error: &StepError) -> Option<Failure> {
    let hint = match error.errno {
        EPERM | EACCES | ENOSYS => {
            "a seccomp filter or security module refuses the call: of the container, or one around hull itself (a nested node)"
        }
        EMFILE | ENFILE => {
            "raise the limit of open files: LimitNOFILE of hull's service, or fs.file-max of the node"
        }
        _ => return None,
    };
    let what = format!("a system call that its start needs was refused: {}", reason(error));
    Some(failure(Layer::Process, "start", what, Some(hint)))
}

fn of_step(process: Option<&Process>, has_init: bool, cgroup: &str, error: &StepError) -> Failure {
    if error.step == Step::Cgroup
        && let Some((call, hint)) = error.call.rsplit_once(HINT)
    {
        let error = StepError { call: call.to_owned(), ..error.clone() };
        let hint = Some(hint.to_owned());
        return Failure { hint, ..of_call(process, has_init, cgroup, &error) };
    }
    of_call(process, has_init, cgroup, error)
}

/// Of a step whose call has no hint behind it.
fn of_call(process: Option<&Process>, has_init: bool, cgroup: &str, error: &StepError) -> Failure {
    if is_memory(error) {
        return memory(None);
    }
    let why = reason(error);
    let refused = process.and_then(|process| refused_call::found(process, has_init, error));
    if let Some((what, hint)) = refused {
        return failure(Layer::Security, "seccomp", what, Some(&hint));
    }
    if error.step == Step::Exec {
        return exec(process, error);
    }
    if error.step == Step::Cwd {
        let cwd = process.map_or("?", |process| process.cwd.as_str());
        let hint = match error.errno {
            EACCES => {
                "the user may not enter it: correct its permissions in the image, or choose another `workingDir`"
            }
            ENOTDIR => "it is a file: choose another `workingDir`",
            _ => "choose a `workingDir` that the image has",
        };
        let what = format!("working directory `{cwd}` cannot be entered: {why}");
        return failure(Layer::Filesystem, "workdir", what, Some(hint));
    }
    if error.step == Step::Stdio && error.call.contains("/dev/pts") {
        let hint = "a terminal is opened in the container: mount a devpts at /dev/pts there, and nothing over its ptmx; or \
                    request no terminal";
        let what = format!("the container has no terminal for it: {why}");
        return failure(Layer::Filesystem, "terminal", what, Some(hint));
    }
    if error.step == Step::Pipe
        && let Some(failure) = refused_pipe(error)
    {
        return failure;
    }
    if let Some(hint) = process.and_then(|process| own_limit::hint(process, error)) {
        let what = format!("its process cannot be created: {why}");
        return failure(Layer::Process, "clone", what, Some(&hint));
    }
    if error.step == Step::Clone
        && let Some(hint) = clone_hint(error.errno)
    {
        let what = format!("its process cannot be created: {why}");
        return failure(Layer::Namespace, "clone", what, Some(hint));
    }
    let kind = std::mem::discriminant(&error.step);
    let words = WORDS.iter().find(|(step, ..)| std::mem::discriminant(step) == kind);
    match words {
        Some((step, layer, stage, what, hint)) => {
            let named =
                if *step == Step::Cgroup { format!(" (`{cgroup}`)") } else { String::new() };
            failure(*layer, stage, format!("{what}{named}: {why}"), *hint)
        }
        None => failure(Layer::Process, "start", why, None),
    }
}

/// The kernel killed the process before its program ran.
fn memory(limit_bytes: Option<i64>) -> Failure {
    let limit = limit_bytes.filter(|bytes| *bytes >= 0);
    let limit = limit.map_or_else(String::new, |bytes| format!(": its limit is {bytes} bytes"));
    let what = format!("it ran out of memory before its program ran{limit}");
    let hint = "raise the memory limit of the container, or of its pod; a number without a unit is one of bytes";
    failure(Layer::Cgroup, "memory", what, Some(hint))
}

fn exec(process: Option<&Process>, error: &StepError) -> Failure {
    let program = process.and_then(|process| process.args.first());
    let program =
        program.map(|program| String::from_utf8_lossy(program).into_owned()).unwrap_or_default();
    let in_path = !program.contains('/');
    let (what, hint) = match error.errno {
        ENOENT if in_path => (
            format!("`{program}`: executable file not found in $PATH"),
            "correct the command, or install the program in the image",
        ),
        ENOENT => (
            format!("executable `{program}` not found: no such file or directory"),
            "correct the command, or install the program in the image",
        ),
        EACCES => (
            format!("`{program}` may not be executed: permission denied"),
            "chmod +x it in the image; check that it is a file, not on a noexec mount, and that the user may reach it",
        ),
        EPERM => (
            format!("`{program}` may not be executed: operation not permitted"),
            "a seccomp profile or security module forbids it",
        ),
        8 => (
            format!("`{program}` cannot be executed: exec format error"),
            "it is a script without a `#!` line, or a program for another architecture",
        ),
        7 => (
            format!("`{program}` cannot be executed: its arguments and environment are too long"),
            "pass less, or in a file",
        ),
        _ => (
            format!("`{program}` cannot be executed: {}", reason(error)),
            "check the program in the image",
        ),
    };
    failure(Layer::Process, "exec", what, Some(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_created_has_a_hint_for_its_limit() {
        for (errno, wanted) in
            [(EAGAIN, "podPidsLimit"), (ENOMEM, "memory"), (ENOSPC, "max_pid_namespaces")]
        {
            let error = StepError { step: Step::Clone, errno, call: "clone3".into() };
            let hint = of_step(None, false, "/x", &error).hint.unwrap();
            assert!(hint.contains(wanted) && !hint.contains("disk"), "{hint}");
        }
        let error = StepError { step: Step::Clone, errno: EPERM, call: "clone3".into() };
        let hint = of_step(None, false, "/x", &error).hint.unwrap();
        assert!(hint.contains("hull check") && !hint.contains("limit"), "{hint}");
    }

    #[test]
    fn a_lost_process_is_not_guessed_to_be_out_of_memory() {
        let text = |errno| {
            let error = StepError { step: Step::Pipe, errno, call: "ppoll(status)".into() };
            let failure = of_step(None, false, "/x", &error);
            format!("{failure}; hint: {}", failure.hint.as_deref().unwrap_or_default())
        };
        let lost = text(ECHILD);
        assert!(lost.contains("lost the connection") && !lost.contains("OOM"), "{lost}");
        for errno in [EPERM, ENOSYS] {
            let refused = text(errno);
            assert!(refused.contains("was refused") && refused.contains("seccomp"), "{refused}");
            assert!(!refused.contains("lost") && !refused.contains("kill"), "{refused}");
        }
        assert!(text(EMFILE).contains("LimitNOFILE"));
    }

    #[test]
    fn a_start_without_memory_names_its_limit() {
        let failure = memory(Some(1));
        let wanted = "it ran out of memory before its program ran: its limit is 1 bytes";
        assert_eq!(failure.what, wanted);
        assert!(failure.hint.unwrap().contains("of bytes"));
        for none in [None, Some(-1)] {
            assert!(memory(none).what.ends_with("before its program ran"));
        }
        let error = StepError { step: Step::Pipe, errno: ENOMEM, call: "read(status)".into() };
        let of_exec = of_step(None, false, "/x", &error);
        assert_eq!(of_exec.what, memory(None).what);
        assert!(is_memory(&error) && !is_killed_before_exec(&error));
        for (step, errno) in [(Step::Clone, ENOMEM), (Step::Pipe, EPERM)] {
            let error = StepError { step, errno, call: String::new() };
            assert!(!is_memory(&error) && !is_killed_before_exec(&error));
        }
    }

    #[test]
    fn the_hint_of_a_refused_cgroup_file_is_not_part_of_the_call() {
        // The value is the user's.
        let call = format!("write `64{HINT}x` to /sys/fs/cgroup/x/cpuset.cpus{HINT}choose CPUs");
        let error = StepError { step: Step::Cgroup, errno: 34, call };
        let failure = of_step(None, false, "/x", &error);
        assert_eq!(failure.hint.as_deref(), Some("choose CPUs"));
        assert!(
            failure.what.ends_with("[write `64; hint: x` to /sys/fs/cgroup/x/cpuset.cpus]"),
            "{failure}"
        );
    }
}
