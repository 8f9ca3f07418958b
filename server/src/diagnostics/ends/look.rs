// SPDX-License-Identifier: Apache-2.0
//! Reads the facts of an end from records, the kept plan, the image, volumes and the kernel, as far as the clue needs
//! them. An end without a failure costs nothing here.

use super::clues::{self, Clue, Phrase};
use super::facts::{Facts, Full, Listener, Volume, is_below};
use super::{Circumstances, diagnose, lines, listeners, with_output};
use crate::container::ContainerRecord;
use crate::container::state::{ExitDetails, ExitReason};
use crate::diagnostics::paths::{Inside, Walked, open_path, owner, owner_in, view, walk};
use crate::node::Node;
use crate::oci_spec;
use crate::pod::{PodRecord, State as PodState};
use crate::storage::blocking;
use hull_plan::{Op, Plan, Process, elf};
use hull_proto::cri::{self, security_profile::ProfileType};
use hull_proto::monitor::LastOutput;
use rustix::fs::{StatVfs, fstat, fstatvfs};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// Most volumes that are looked at.
const VOLUMES_MAX: usize = 16;
/// Most paths of a clue that are looked at.
const PATHS_MAX: usize = 4;
/// A file system with less space than this is full, in bytes: a write fails that needs a page more.
const FULL_BYTES: u64 = 64 << 10;

/// An end that is to be explained.
pub(crate) struct Ended<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) pod: &'a PodRecord,
    pub(crate) record: &'a ContainerRecord,
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
        facts(&ended, &how, clue.as_ref()).await
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
    ended.node.config.runtime.exit_message_output || wanted.is_some_and(|value| value == "true")
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

/// The arguments of the first process, from config and image.
fn args(node: &Node, record: &ContainerRecord) -> Vec<Vec<u8>> {
    let image = node.images.find(&record.image_id);
    let args = image.and_then(|image| oci_spec::command_line(&record.config, &image.config).ok());
    args.unwrap_or_default().into_iter().map(String::into_bytes).collect()
}

async fn facts(ended: &Ended<'_>, how: &ExitReason, clue: Option<&Clue>) -> Option<Facts> {
    let volumes = volumes(ended, clue).await;
    let walked_in_volumes = walk_volumes(ended, clue, &volumes).await;
    let (node, record, pod, clue) =
        (Arc::clone(ended.node), ended.record.clone(), ended.pod.clone(), clue.cloned());
    let bus_error = matches!(how, ExitReason::Signal { signal: 7, .. });
    let executes = matches!(how, ExitReason::Code { code: 126, .. });
    let lived_ms =
        ended.started_ns.and_then(|started| Some(ended.at_ns.checked_sub(started)? / 1_000_000));
    let look = move || {
        let plan = node.plans.load(&record.id)?;
        let phrase = clue.as_ref().map(|clue| clue.phrase);
        let image = needs_files(phrase).then(|| node.images.find(&record.image_id)).flatten();
        let view = image.and_then(|image| view(&node, &record, &image));
        let mut walked = walked_in_volumes;
        let in_image =
            |path: &&str| !volumes.iter().any(|volume: &Volume| is_below(path, &volume.target));
        if let (Some(view), Some(clue)) = (&view, &clue) {
            let paths = clue.paths().filter(in_image).take(PATHS_MAX);
            walked.extend(paths.filter_map(|path| walk(view.as_fd(), "", path)));
        }
        let program =
            plan.process.args.first().map(|arg| String::from_utf8_lossy(arg).into_owned());
        let program =
            view.as_ref().zip(program).and_then(|(view, path)| owner_in(view.as_fd(), &path));
        let space = matches!(phrase, Some(Phrase::NoSpace | Phrase::QuotaExceeded));
        Some(Facts {
            root_read_only: plan.ops.iter().any(|op| matches!(op, Op::RootReadonly)),
            profile: profile(&record, &plan),
            mapped_ids: mapped_ids(&pod),
            host_network: is_on_host_network(&pod),
            first_free_port: first_free_port(&pod),
            dns: pod.config.dns_config.as_ref().map(|dns| dns.servers.clone()).unwrap_or_default(),
            listeners: clue
                .as_ref()
                .filter(|_| phrase == Some(Phrase::AddressInUse))
                .map_or(Vec::new(), |clue| listening(&pod, &plan, clue)),
            layer_full: space.then(|| layer_full(&node, &record)).flatten(),
            shm_full: (space || bus_error).then(|| shm_full(&pod)).flatten(),
            program_fault: view.as_ref().and_then(|view| fault(view, &plan, clue.as_ref()?)),
            executes,
            program_is_setuid: program.is_some_and(|owner| owner.mode & 0o6000 != 0),
            lived_ms,
            process: plan.process,
            volumes,
            walked,
        })
    };
    blocking(look).await
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
fn fault(view: &OwnedFd, plan: &Plan, clue: &Clue) -> Option<elf::Found> {
    let command = clue.command()?;
    let in_spec =
        plan.process.args.iter().any(|arg| String::from_utf8_lossy(arg).contains(command));
    let args = vec![command.as_bytes().to_vec()];
    let process = Process { args, ..plan.process.clone() };
    in_spec.then(|| elf::explain(&process, &Inside::new(view.as_fd()))).flatten()
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
    let options = namespace_options(pod)?.userns_options.as_ref()?;
    let ends = options.uids.iter().map(|map| map.container_id.saturating_add(map.length));
    ends.max().filter(|_| options.mode == cri::NamespaceMode::Pod as i32)
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

fn listening(pod: &PodRecord, plan: &Plan, clue: &Clue) -> Vec<Listener> {
    let process = if is_on_host_network(pod) {
        "self".to_owned()
    } else {
        let Some(pid) = pause_pid(pod) else { return Vec::new() };
        pid.to_string()
    };
    let args = plan.process.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned());
    let args: Vec<String> = args.collect();
    let numbers =
        args.iter().flat_map(|arg| clues::words(arg)).filter_map(|word| word.parse().ok());
    let ports: Vec<u16> = clue.ports().chain(numbers).collect();
    listeners::of(&process, &ports)
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

/// The container's volumes, looked at if the clue may be about one.
async fn volumes(ended: &Ended<'_>, clue: Option<&Clue>) -> Vec<Volume> {
    let mut needed = clue.is_some_and(|clue| {
        needs_files(Some(clue.phrase))
            || matches!(clue.phrase, Phrase::NoSpace | Phrase::QuotaExceeded)
    });
    let mut volumes = Vec::new();
    for mount in &ended.record.config.mounts {
        let mut volume = Volume {
            target: mount.container_path.clone(),
            source: mount.host_path.clone(),
            read_only: mount.readonly || mount.image.is_some(),
            ..Volume::default()
        };
        if needed && volumes.len() < VOLUMES_MAX && !volume.source.is_empty() {
            let path = PathBuf::from(&volume.source);
            let look = move || {
                let top = open_path(path)?;
                let space = fstatvfs(&top).ok().and_then(|space| full(&space));
                Some((owner(&fstat(&top).ok()?), space))
            };
            let looked = ended.node.storage.within("look at a volume", &volume.source, look).await;
            match looked {
                Ok(Some((owner, full))) => (volume.owner, volume.full) = (Some(owner), full),
                Ok(None) => {}
                // One that hangs is reason enough not to wait for others.
                Err(_) => needed = false,
            }
        }
        volumes.push(volume);
    }
    volumes
}

/// The clue's paths that are in volumes.
async fn walk_volumes(ended: &Ended<'_>, clue: Option<&Clue>, volumes: &[Volume]) -> Vec<Walked> {
    let mut walked = Vec::new();
    let paths =
        clue.filter(|clue| needs_files(Some(clue.phrase))).map(Clue::paths).into_iter().flatten();
    for path in paths.take(PATHS_MAX) {
        let within = volumes
            .iter()
            .filter(|volume| is_below(path, &volume.target) && !volume.source.is_empty());
        let Some(volume) = within.max_by_key(|volume| volume.target.len()) else { continue };
        let (source, target, path) =
            (PathBuf::from(&volume.source), volume.target.clone(), path.to_owned());
        let look = move || walk(open_path(source)?.as_fd(), &target, &path);
        let looked = ended.node.storage.within("look at a volume", &volume.source, look).await;
        walked.extend(looked.ok().flatten());
    }
    walked
}
