// SPDX-License-Identifier: Apache-2.0
//! Reads the facts of an end from records, the kept plan, the image, volumes and the kernel, as far as the clue needs
//! them. An end without a failure costs nothing here.

use super::clues::{self, Clue};
use super::facts::{Facts, Full, Listener, PidsLimit, Volume, is_below};
use super::phrases::Phrase;
use super::{Circumstances, diagnose, lines, listeners, with_output};
use crate::container::ContainerRecord;
use crate::container::state::{ExitDetails, ExitReason};
use crate::diagnostics::paths::{Inside, Walked, image_view, open_path, owner_in, view, walk};
use crate::diagnostics::program::candidates;
use crate::diagnostics::rights::Owner;
use crate::node::Node;
use crate::oci_spec;
use crate::pod::{PodRecord, State as PodState};
use crate::storage::blocking;
use hull_cgroup::Cgroup;
use hull_plan::{Certainty, Op, Plan, Process, elf};
use hull_proto::cri::{self, security_profile::ProfileType};
use hull_proto::monitor::LastOutput;
use rustix::fs::{StatVfs, fstatvfs};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Most volumes that are looked at.
const VOLUMES_MAX: usize = 16;
/// A file system with less space than this is full, in bytes: a write fails that needs a page more.
const FULL_BYTES: u64 = 64 << 10;

/// Longest time from a signal by a client to an end that is its effect for certain: the grace period of Kubernetes.
const REQUESTED_MAX: Duration = Duration::from_secs(30);

/// Longest time for facts: the exit is published after it.
const FACTS_MAX: Duration = Duration::from_secs(1);

/// An end that is to be explained.
pub(crate) struct Ended<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) pod: &'a Arc<PodRecord>,
    pub(crate) record: &'a Arc<ContainerRecord>,
    /// Nanoseconds since the epoch.
    pub(crate) started_ns: Option<i64>,
    pub(crate) at_ns: i64,
    pub(crate) output: Option<LastOutput>,
}

/// Adds the diagnosis, and the last lines of a failure, to the details of an end.
pub(crate) async fn explain(ended: Ended<'_>, mut how: ExitReason) -> ExitReason {
    let Some(details) = details(&how) else { return how };
    let failed = !matches!(how, ExitReason::Code { code: 0, .. }) || details.oom_kills > 0;
    let output = ended.output.as_ref().filter(|_| failed).map(lines).unwrap_or_default();
    let clue = clues::find(&output);
    let facts = if failed && !details.stop_requested && details.oom_kills == 0 {
        let sought = Sought::new(&ended, &how, clue.as_ref());
        // If it is late it goes on, so that a volume that hangs is known as such; the exit does not wait for it.
        let found = timeout(FACTS_MAX, tokio::spawn(facts(sought))).await;
        found.ok().and_then(Result::ok).flatten()
    } else {
        None
    };
    let args = match &facts {
        Some(facts) => facts.process.args.clone(),
        None => args(ended.node, ended.record),
    };
    let limit = ended.record.resources().map_or(0, |resources| resources.memory_limit_in_bytes);
    let circumstances = Circumstances {
        details,
        memory_limit: u64::try_from(limit).unwrap_or(0),
        args: &args,
        waited_s: waited_s(ended.record, ended.at_ns),
        stop_signal: ended.record.stop_signal,
        signal_requested: signal_requested(ended.record, ended.at_ns),
    };
    let mut diagnosis = diagnose(&how, &circumstances, clue.as_ref(), facts.as_ref());
    if failed && shows_output(&ended) {
        diagnosis = with_output(diagnosis, &how, &output);
    }
    if let Some(details) = details_mut(&mut how) {
        (details.diagnosis, details.output) = (diagnosis.map(Box::new), output);
    }
    how
}

/// Whether the node's settings or the pod allow lines of output in the message.
fn shows_output(ended: &Ended<'_>) -> bool {
    const ANNOTATION: &str = "hull.run/exit-message-output";
    let wanted = ended.pod.config.annotations.get(ANNOTATION);
    ended.node.config.current().runtime.exit_message_output
        || wanted.is_some_and(|value| value == "true")
}

fn details(how: &ExitReason) -> Option<&ExitDetails> {
    match how {
        ExitReason::Code { details, .. } | ExitReason::Signal { details, .. } => Some(details),
        ExitReason::StartFailed { .. } | ExitReason::Lost => None,
    }
}

fn details_mut(how: &mut ExitReason) -> Option<&mut ExitDetails> {
    match how {
        ExitReason::Code { details, .. } | ExitReason::Signal { details, .. } => Some(details),
        ExitReason::StartFailed { .. } | ExitReason::Lost => None,
    }
}

/// Whole seconds from the stop signal to the end.
fn waited_s(record: &ContainerRecord, at_ns: i64) -> Option<u64> {
    let waited = at_ns.checked_sub(record.stop_signal_ns?)?;
    u64::try_from(waited / 1_000_000_000).ok()
}

/// The signal that a client had sent before an end at `at_ns`. Certain as its reason only for a while: a program that
/// handled the signal goes on, and whatever sends the same one later is another.
fn signal_requested(record: &ContainerRecord, at_ns: i64) -> Option<(i32, Certainty)> {
    let signal = record.signal_requested?;
    let waited = record.signal_requested_ns.and_then(|since| at_ns.checked_sub(since));
    let waited = waited.and_then(|waited| u64::try_from(waited).ok()).map(Duration::from_nanos);
    let is_soon = waited.is_some_and(|waited| waited <= REQUESTED_MAX);
    Some((signal, if is_soon { Certainty::Certain } else { Certainty::Likely }))
}

/// The arguments of the first process, from config and image.
fn args(node: &Node, record: &ContainerRecord) -> Vec<Vec<u8>> {
    let image = node.images.find(&record.image_id);
    let args = image.and_then(|image| oci_spec::command_line(&record.config, &image.config).ok());
    args.unwrap_or_default().into_iter().map(String::into_bytes).collect()
}

/// An end whose facts are sought.
struct Sought {
    node: Arc<Node>,
    pod: Arc<PodRecord>,
    record: Arc<ContainerRecord>,
    clue: Option<Clue>,
    bus_error: bool,
    executes: bool,
    lived_ms: Option<i64>,
}

impl Sought {
    fn new(ended: &Ended<'_>, how: &ExitReason, clue: Option<&Clue>) -> Self {
        let lived = ended.started_ns.and_then(|started| ended.at_ns.checked_sub(started));
        Self {
            node: Arc::clone(ended.node),
            pod: Arc::clone(ended.pod),
            record: Arc::clone(ended.record),
            clue: clue.filter(|clue| clue.is_last).cloned(),
            bus_error: matches!(how, ExitReason::Signal { signal: 7, .. }),
            executes: matches!(how, ExitReason::Code { code: 126, .. }),
            lived_ms: lived.map(|lived| lived / 1_000_000),
        }
    }

    fn phrase(&self) -> Option<Phrase> {
        self.clue.as_ref().map(|clue| clue.phrase)
    }

    /// Whether owners of files on the host are those that the container sees.
    fn knows_owners(&self) -> bool {
        self.pod.id_maps().is_none()
    }

    /// The path that the clue is about, if owners and modes say more about it.
    fn subject(&self) -> Option<&str> {
        let clue = self.clue.as_ref().filter(|_| self.knows_owners())?;
        clue.subject().filter(|_| clue.phrase == Phrase::PermissionDenied)
    }
}

async fn facts(sought: Sought) -> Option<Facts> {
    let (volumes, answer) = volumes(&sought).await;
    let walked = if answer { walk_volumes(&sought, &volumes).await } else { None };
    blocking(move || read(&sought, volumes, walked)).await
}

/// The facts that need no volume. Blocks.
fn read(of: &Sought, volumes: Vec<Volume>, mut walked: Option<Walked>) -> Option<Facts> {
    let (node, record, pod) = (&*of.node, &*of.record, &*of.pod);
    let plan = node.plans.load(&record.id)?;
    let phrase = of.phrase();
    let image = needs_files(phrase).then(|| node.images.find(&record.image_id)).flatten();
    let view = image.as_ref().and_then(|image| view(node, record, image));
    let is_in_volume = |path: &str| volumes.iter().any(|volume| is_below(path, &volume.target));
    if let (Some(view), Some(path)) = (&view, of.subject().filter(|path| !is_in_volume(path))) {
        walked = walk(view.as_fd(), "", path);
    }
    let program = view.as_ref().filter(|_| of.knows_owners());
    let program = program.and_then(|view| owner_of_program(view.as_fd(), &plan.process));
    // Without the writable layer: what the container wrote there is not shown.
    let layers = image.as_ref().and_then(|image| image_view(node, record, image));
    let space = matches!(phrase, Some(Phrase::NoSpace | Phrase::QuotaExceeded));
    let clue = of.clue.as_ref();
    let mut facts = Facts {
        root_read_only: plan.ops.iter().any(|op| matches!(op, Op::RootReadonly)),
        profile: profile(record, &plan),
        mapped_ids: mapped_ids(pod),
        host_network: is_on_host_network(pod),
        first_free_port: first_free_port(pod),
        dns: pod.config.dns_config.as_ref().map(|dns| dns.servers.clone()).unwrap_or_default(),
        listeners: Vec::new(),
        layer_full: space.then(|| layer_full(node, record)).flatten(),
        shm_full: (space || of.bus_error).then(|| shm_full(pod)).flatten(),
        program_fault: None,
        executes: of.executes,
        program_is_setuid: program.is_some_and(|owner| owner.mode & 0o6000 != 0),
        lived_ms: of.lived_ms,
        pids: (phrase == Some(Phrase::ForkRefused)).then(|| pids(node, pod)).flatten(),
        process: plan.process,
        volumes,
        walked,
    };
    if let Some(clue) = clue {
        facts.program_fault = layers.and_then(|layers| fault(&layers, &facts, clue));
        if clue.phrase == Phrase::AddressInUse {
            facts.listeners = listening(of, &facts, clue);
        }
    }
    Some(facts)
}

/// Owner and mode of the program that the process executes, searched for in PATH as it was when it started.
fn owner_of_program(view: BorrowedFd<'_>, process: &Process) -> Option<Owner> {
    let paths = candidates(process);
    let mut found = paths.iter().filter_map(|path| owner_in(view, path));
    found.find(|owner| !owner.is_directory)
}

/// Whether owners and modes of the image's files say more about the phrase.
fn needs_files(phrase: Option<Phrase>) -> bool {
    matches!(
        phrase,
        Some(
            Phrase::PermissionDenied
                | Phrase::NotPermitted
                | Phrase::SetuidIneffective
                | Phrase::CommandMissing
                | Phrase::WrongFormat
        )
    )
}

/// Why a command that the clue names, and the spec too, cannot be executed although it is there.
fn fault(layers: &OwnedFd, facts: &Facts, clue: &Clue) -> Option<elf::Found> {
    let command = clue.command().filter(|command| facts.shows(command))?;
    let args = vec![command.as_bytes().to_vec()];
    let process = Process { args, ..facts.process.clone() };
    elf::explain(&process, &Inside::new(layers.as_fd()))
}

fn profile(record: &ContainerRecord, plan: &Plan) -> String {
    if plan.process.seccomp.is_none() {
        return "Unconfined".into();
    }
    let context = record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let profile = context.and_then(|context| context.seccomp.as_ref());
    match profile.filter(|profile| profile.profile_type == ProfileType::Localhost as i32) {
        Some(profile) => {
            let name = profile.localhost_ref.rsplit('/').next().unwrap_or_default();
            format!("Localhost profile `{}`", hull_sys::text::shown(name, 128))
        }
        None => "RuntimeDefault".into(),
    }
}

fn namespace_options(pod: &PodRecord) -> Option<&cri::NamespaceOption> {
    pod.config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
}

fn mapped_ids(pod: &PodRecord) -> Option<u32> {
    let maps = pod.id_maps()?;
    maps.uids.iter().map(|map| map.container_id.saturating_add(map.length)).max()
}

fn is_on_host_network(pod: &PodRecord) -> bool {
    namespace_options(pod).is_some_and(|options| options.network == cri::NamespaceMode::Node as i32)
}

/// The pod's own setting, else the host's or Hull's default for pods.
fn first_free_port(pod: &PodRecord) -> u32 {
    const NAME: &str = "net.ipv4.ip_unprivileged_port_start";
    let own = pod.config.linux.as_ref().and_then(|linux| linux.sysctls.get(NAME));
    if let Some(port) = own.and_then(|value| value.trim().parse().ok()) {
        return port;
    }
    if !is_on_host_network(pod) {
        return 0;
    }
    let host = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    host.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// The pause process, if it still is the pod's.
fn pause_pid(pod: &PodRecord) -> Option<i32> {
    let PodState::Ready { pause_pid, .. } = pod.state else { return None };
    let cgroups = fs::read_to_string(format!("/proc/{pause_pid}/cgroup")).ok()?;
    cgroups.contains(&pod.id).then_some(pause_pid)
}

fn listening(of: &Sought, facts: &Facts, clue: &Clue) -> Vec<Listener> {
    let process = if facts.host_network {
        "self".to_owned()
    } else {
        let Some(pid) = pause_pid(&of.pod) else { return Vec::new() };
        pid.to_string()
    };
    let ports: Vec<u16> = clue.ports().into_iter().chain(facts.ports()).collect();
    let cgroup = Cgroup::at(&of.node.cgroups, &of.pod.cgroup);
    let pids = cgroup.and_then(|cgroup| cgroup.procs()).unwrap_or_default();
    listeners::of(&process, &ports, &pids)
}

/// The pod's limit of processes. The kernel counts a refusal at the cgroup with the limit (Linux 6.11), or at that of
/// the process, which is the container's and known by its counters.
fn pids(node: &Node, pod: &PodRecord) -> Option<PidsLimit> {
    let cgroup = Cgroup::at(&node.cgroups, &pod.cgroup).ok()?;
    let refused = cgroup.exit_counters().ok()?.pids_refused;
    Some(PidsLimit { limit: cgroup.counters().ok()?.pids_max, refused })
}

/// The size of the pod's /dev/shm in bytes, if it is full.
fn shm_full(pod: &PodRecord) -> Option<u64> {
    let root = open_path(format!("/proc/{}/root", pause_pid(pod)?).into())?;
    let space = fstatvfs(&root).ok()?;
    let size = space.f_blocks.checked_mul(space.f_frsize)?;
    full(&space).map(|_| size)
}

/// Whether the disk with the writable layer is full.
fn layer_full(node: &Node, record: &ContainerRecord) -> Option<Full> {
    let image = node.images.find(&record.image_id)?;
    let upper = open_path(node.images.rootfs(&record.id, &image).upper)?;
    full(&fstatvfs(&upper).ok()?)
}

fn full(space: &StatVfs) -> Option<Full> {
    if space.f_blocks > 0 && space.f_bavail.saturating_mul(space.f_frsize) < FULL_BYTES {
        return Some(Full::Space);
    }
    (space.f_files > 0 && space.f_favail == 0).then_some(Full::Inodes)
}

/// The container's volumes, looked at if the clue may be about one, and whether all of these answered.
async fn volumes(of: &Sought) -> (Vec<Volume>, bool) {
    let phrase = of.phrase();
    let mut needed =
        needs_files(phrase) || matches!(phrase, Some(Phrase::NoSpace | Phrase::QuotaExceeded));
    let (mut volumes, mut answer) = (Vec::new(), true);
    for mount in &of.record.config.mounts {
        let mut volume = Volume {
            target: mount.container_path.clone(),
            source: mount.host_path.clone(),
            read_only: mount.readonly || mount.image.is_some(),
            ..Volume::default()
        };
        if needed && volumes.len() < VOLUMES_MAX && !volume.source.is_empty() {
            let path = PathBuf::from(&volume.source);
            let look = move || fstatvfs(open_path(path)?).ok().and_then(|space| full(&space));
            match of.node.storage.within("look at a volume", &volume.source, look).await {
                Ok(full) => volume.full = full,
                // One that hangs is reason enough not to wait for others.
                Err(_) => (needed, answer) = (false, false),
            }
        }
        volumes.push(volume);
    }
    (volumes, answer)
}

/// The path that the clue is about, if it is in a volume.
async fn walk_volumes(of: &Sought, volumes: &[Volume]) -> Option<Walked> {
    let path = of.subject()?;
    let within = volumes.iter().filter(|volume| is_below(path, &volume.target));
    let volume = within.max_by_key(|volume| volume.target.len())?;
    if volume.source.is_empty() {
        return None;
    }
    let (source, target, path) =
        (PathBuf::from(&volume.source), volume.target.clone(), path.to_owned());
    let look = move || walk(open_path(source)?.as_fd(), &target, &path);
    of.node.storage.within("look at a volume", &volume.source, look).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_signal_by_a_client_is_the_certain_reason_of_an_end_soon_after_it() {
        let of = |signal: Option<i32>, at_s: Option<i64>, end_s: i64| {
            let record = serde_json::json!({
                "id": "c", "pod": "p", "config": {}, "image_id": "i", "image_ref": "i", "created_ns": 0,
                "cgroup": "/c", "log_path": "", "user": null, "stop_signal": 15, "state": "Created",
                "signal_requested": signal, "signal_requested_ns": at_s.map(|at| at * 1_000_000_000),
            });
            signal_requested(&serde_json::from_value(record).unwrap(), end_s * 1_000_000_000)
        };
        assert_eq!(of(None, None, 100), None);
        for (at, wanted) in [
            (Some(100), Certainty::Certain),
            (Some(70), Certainty::Certain),
            (Some(69), Certainty::Likely),
            (Some(101), Certainty::Likely),
            (None, Certainty::Likely),
        ] {
            assert_eq!(of(Some(9), at, 100), Some((9, wanted)), "{at:?}");
        }
    }

    #[test]
    fn a_program_is_found_by_its_bare_name_as_the_kernel_found_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::create_dir_all(at("usr/sbin/su")).unwrap();
        for (path, mode) in [("su", 0o755), ("usr/bin/su", 0o4755)] {
            fs::write(at(path), "").unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("/usr/bin", at("bin")).unwrap();
        let view = open_path(root.path().to_owned()).unwrap();
        let mode = |program: &str, path: &str| {
            let process = serde_json::json!({
                "cwd": "/usr", "args": [program], "env": [format!("PATH={path}")],
                "user": {"uid": 0, "gid": 0},
            });
            let spec = ::oci_spec::runtime::Spec::default();
            let process = serde_json::from_value(process).unwrap();
            let process = hull_plan::process(&process, &spec, &hull_plan::HostFacts::default());
            let process = process.unwrap();
            owner_of_program(view.as_fd(), &process).map(|owner| owner.mode)
        };
        assert_eq!(mode("su", "/usr/sbin:/bin"), Some(0o4755), "past a directory, by a link");
        assert_eq!(mode("su", "/:/usr/bin"), Some(0o755));
        assert_eq!(mode("su", "/none"), None);
        assert_eq!(mode("/su", "/usr/bin"), Some(0o755));
        assert_eq!(mode("bin/su", "/"), Some(0o4755));
    }
}
