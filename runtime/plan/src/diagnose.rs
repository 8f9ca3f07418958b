// SPDX-License-Identifier: Apache-2.0
//! Turns a failed step into a sentence with a hint.

use hull_init::plan::{NamespaceKind, Op, Source};
use hull_init::{PausePlan, Plan, Process, Step, StepError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// The part of the system that a failure belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// The program itself.
    Process,
    /// Files and mounts.
    Filesystem,
    /// Namespaces and the network.
    Namespace,
    /// Cgroups and their limits.
    Cgroup,
    /// Capabilities, seccomp, security modules.
    Security,
    /// Pulling and images.
    Image,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The part of the system that it belongs to.
    pub layer: Layer,
    /// The stage of the start, in a word or two.
    pub stage: String,
    /// The sentence that says what failed.
    pub what: String,
    /// Observations that support it.
    pub evidence: Vec<String>,
    /// The change that fixes it.
    pub hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for seen in &self.evidence {
            write!(f, "; {seen}")?;
        }
        Ok(())
    }
}

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

/// Diagnoses a failed step of a container's start.
#[must_use]
pub fn diagnose(plan: &Plan, error: &StepError) -> Failure {
    let op = if let Step::Op(at) = error.step {
        usize::try_from(at).ok().and_then(|at| plan.ops.get(at))
    } else {
        None
    };
    match op {
        Some(op) => of_op(op, error),
        None => of_step(Some(&plan.process), &plan.cgroup.path, error),
    }
}

/// Diagnoses a failed step of an exec.
#[must_use]
pub fn diagnose_process(process: &Process, error: &StepError) -> Failure {
    of_step(Some(process), "of the container", error)
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
        let hint = "check the name and value under `securityContext.sysctls`, and that the node's kernel has it";
        return failure(Layer::Namespace, "sysctl", what, Some(hint));
    }
    of_step(None, &plan.cgroup.path, &error)
}

fn failure(layer: Layer, stage: &str, what: String, hint: Option<&str>) -> Failure {
    Failure {
        layer,
        stage: stage.into(),
        what,
        evidence: Vec::new(),
        hint: hint.map(str::to_owned),
    }
}

/// The errno in words.
fn reason(error: &StepError) -> String {
    let text = io::Error::from_raw_os_error(error.errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    if error.call.is_empty() { text } else { format!("{text} [{}]", error.call) }
}

const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EACCES: i32 = 13;
const EPERM: i32 = 1;
const ENODEV: i32 = 19;
const ENOTDIR: i32 = 20;
const EROFS: i32 = 30;
const EINVAL: i32 = 22;
const EXDEV: i32 = 18;
const ELOOP: i32 = 40;

/// The hint for a mount point below /dev, /proc or /sys that was refused; see `hull_init`'s places.
fn place_hint(target: &str, error: &StepError) -> Option<&'static str> {
    let strict = ["/dev", "/proc", "/sys"].iter().any(|top| target.starts_with(top));
    match error.errno {
        ELOOP if strict => Some(
            "the image, or a volume, has a symbolic link on that path: make it a directory in the image",
        ),
        EXDEV if error.call.contains("another mount is seen") => Some(
            "something else is mounted over it: remove the volume that covers this path, or report it as a fault of Hull",
        ),
        EXDEV => Some(
            "a volume is mounted there, and nothing is made in it: mount the volume elsewhere, or make what is missing in it",
        ),
        _ => None,
    }
}

fn of_op(op: &Op, error: &StepError) -> Failure {
    let why = reason(error);
    let fs = |stage: &str, what: String, hint: Option<&str>| {
        failure(Layer::Filesystem, stage, what, hint)
    };
    match op {
        Op::Bind { source, target, .. } => bind(source, target, error),
        Op::RootOverlay { lower, .. } => fs(
            "root",
            format!("the root filesystem of {} layers cannot be mounted: {why}", lower.len()),
            Some(
                "see `hull check` for what the kernel lacks; an image that is damaged on disk is repaired by `hull rmi` and `hull pull`",
            ),
        ),
        Op::RootBind { source } => {
            fs("root", format!("root `{source}` cannot be mounted: {why}"), None)
        }
        Op::Mount { fstype, target, options, .. } => new_mount(fstype, target, options, error),
        Op::Cgroups { target, .. } => fs(
            "mount",
            format!("the cgroup tree cannot be mounted at `{target}`: {why}"),
            place_hint(target, error),
        ),
        Op::Device { path, major, minor, .. } => fs(
            "device",
            format!("device `{path}` ({major}:{minor}) cannot be made: {why}"),
            place_hint(path, error).or(Some("check that the device is there on the node")),
        ),
        Op::Symlink { path, .. } => {
            fs("link", format!("link `{path}` cannot be made: {why}"), place_hint(path, error))
        }
        Op::Mkdir { path, .. } => mkdir(path, error),
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
        Op::Sysctl { name, value } => failure(
            Layer::Namespace,
            "sysctl",
            format!("sysctl `{name}` cannot be set to `{value}`: {why}"),
            Some("check the name and value under `securityContext.sysctls`"),
        ),
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
        Op::Pivot | Op::MoveRoot => fs("root", format!("the root cannot be changed: {why}"), None),
    }
}

fn new_mount(
    fstype: &str,
    target: &str,
    options: &[(String, Option<String>)],
    error: &StepError,
) -> Failure {
    let options: Vec<_> = options.iter().map(|(key, _)| key.as_str()).collect();
    let hint = match error.errno {
        ENODEV => Some("the node's kernel has no such file system: load its module"),
        EINVAL => Some("one of the options is not known to this kernel"),
        ENOTDIR => Some("the image has a file there: make it a directory in the image"),
        _ => place_hint(target, error),
    };
    let (options, why) = (options.join(","), reason(error));
    let what = format!("{fstype} ({options}) cannot be mounted at `{target}`: {why}");
    failure(Layer::Filesystem, "mount", what, hint)
}

fn mkdir(path: &str, error: &StepError) -> Failure {
    let hint = match error.errno {
        ENOTDIR => "the image has a file at that path: choose another `workingDir`",
        EROFS => {
            "it is on a read-only mount: choose another `workingDir`, or make the directory in the image"
        }
        _ => "choose a `workingDir` that the image has",
    };
    let why = reason(error);
    let what = format!("working directory `{path}` is not there and cannot be made: {why}");
    failure(Layer::Filesystem, "workdir", what, Some(hint))
}

fn bind(source: &Source, target: &str, error: &StepError) -> Failure {
    let why = reason(error);
    let named = match source {
        Source::Host(path) => path.as_str(),
        Source::Slot(_) => "the pod's /dev/shm",
        Source::Image { .. } => "an image volume",
        Source::Root => "a `VOLUME` of the image",
    };
    // The call shows which side failed.
    let of_source = error.call.contains("open_tree") || error.call.contains("statx(source)");
    let hint = match (of_source, error.errno) {
        (true, ENOENT) => format!("make `{named}` on the node, or correct the volume"),
        (true, _) => format!("see what is wrong with `{named}` on the node"),
        (false, ENOTDIR) => {
            format!("one of `{named}` and `{target}` is a file and the other a directory")
        }
        (false, ELOOP | EXDEV) if let Some(hint) = place_hint(target, error) => hint.to_owned(),
        (false, EROFS) => format!(
            "the image has no `{target}` and it cannot be made on a read-only filesystem: make it in the image"
        ),
        (false, _) => format!("check `{target}` in the image"),
    };
    let what = if of_source && error.errno == ENOENT {
        format!("mount source `{named}` (for `{target}`) does not exist")
    } else {
        format!("`{named}` cannot be mounted at `{target}`: {why}")
    };
    failure(Layer::Filesystem, "mount", what, Some(&hint))
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
        Some(
            "look at the node's and the pod's process limits (pids), and at `hull check` for namespaces",
        ),
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
            "it is above the daemon's own hard limit: raise LimitNOFILE and friends of the hull service",
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
            "check the profile; without `allowPrivilegeEscalation: false` it must let the runtime's own last calls pass",
        ),
    ),
    (Step::Scheduling, Layer::Process, "scheduling", "its scheduling cannot be set", None),
    (
        Step::Pipe,
        Layer::Process,
        "start",
        "lost the connection to the process that starts it",
        None,
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

fn of_step(process: Option<&Process>, cgroup: &str, error: &StepError) -> Failure {
    let why = reason(error);
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
