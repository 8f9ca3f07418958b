// SPDX-License-Identifier: Apache-2.0
//! Starting a container: spec, plan, log, and the monitor's answer put into a sentence.

use super::{CachedPlan, ContainerRecord, hooks, log, logging, volumes};
use crate::diagnostics::{explain, program};
use crate::error::Error;
use crate::history::timed;
use crate::monitors::{self, Client};
use crate::node::Node;
use crate::nri;
use crate::oci_spec;
use crate::pod::{PodRecord, State as PodState};
use crate::storage::blocking;
use ::oci_spec::runtime::{Hooks as SpecHooks, Spec};
use hull_image::Image;
use hull_plan::{Hooks, Namespace, Op, Options, Phase, Plan, Process, Root, Source, StepError};
use hull_proto::cri::PodSandboxConfig;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{Command, Failure as MonitorFailure, Logging, SLOT_SHM, Started, Stdio};
use hull_proto::nri::LinuxResources;
use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// The plan of a container's start.
pub(crate) fn plan(
    node: &Node,
    pod: &PodId,
    pod_record: &PodRecord,
    record: &ContainerRecord,
    image: &Image,
    target_pid: Option<i32>,
) -> Result<Plan, Error> {
    let spec = spec(node, pod, pod_record, record, image, target_pid)?;
    plan_of(node, &pod_record.config, record, image, &spec)
}

/// The plan of a container with this spec, without its hooks and classes, which travel beside it.
pub(crate) fn plan_of(
    node: &Node,
    pod: &PodSandboxConfig,
    record: &ContainerRecord,
    image: &Image,
    spec: &Spec,
) -> Result<Plan, Error> {
    let rootfs = node.images.rootfs(&record.id, image);
    let mut sources = volumes::sources(node, record)?;
    sources.push((oci_spec::SHM_SOURCE.to_owned(), Source::Slot(SLOT_SHM)));
    sources.push((oci_spec::VOLUME_SOURCE.to_owned(), Source::Root));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let hooks = spec.hooks().as_ref().is_some_and(has_start_hooks).then_some(Phase::Hooks);
    let init = oci_spec::run_options::init(&record.config, pod)
        .map_err(|source| Error::Spec { source })?
        .then_some(Phase::Init);
    let further_phases = hooks.into_iter().chain(init).collect();
    let options = Options {
        root: Root::Overlay {
            lower: rootfs.lower.iter().map(|layer| text(layer)).collect(),
            upper: Some((text(&rootfs.upper), text(&rootfs.work))),
            options: Vec::new(),
            at: text(&node.rootfs_dir()),
        },
        sources,
        host: node.host.clone(),
        further_phases,
    };
    let mut plain = Cow::Borrowed(spec);
    if spec.hooks().is_some() {
        plain.to_mut().set_hooks(None);
    }
    if !record.classes.is_none() {
        oci_spec::classes::take_from(plain.to_mut());
    }
    hull_plan::plan(&plain, &options).map_err(|source| Error::Plan { source })
}

fn has_start_hooks(hooks: &SpecHooks) -> bool {
    hooks.start_container().as_ref().is_some_and(|of| !of.is_empty())
}

/// Updates what may have changed since the plan was built: limits, and the process whose pid namespace it joins.
fn bring_up_to_date(
    plan: &mut Plan,
    record: &ContainerRecord,
    target_pid: Option<i32>,
) -> Result<(), Error> {
    if let Some(pid) = target_pid {
        plan.namespaces.pid = Namespace::Join(format!("/proc/{pid}/ns/pid"));
    }
    if let Some(resources) = record.config.linux.as_ref().and_then(|linux| linux.resources.as_ref())
    {
        let limits = oci_spec::limits(resources).map_err(|source| Error::Spec { source })?;
        plan.cgroup.limits.overlay(limits);
    }
    let plugins = record.adjust.as_ref().and_then(|adjust| adjust.linux.as_ref());
    if let Some(resources) = plugins.and_then(|linux| linux.resources.clone()) {
        // Its rules for devices and its classes were for a container that was about to be made, and are in the plan and
        // the record.
        let resources = LinuxResources { devices: Vec::new(), ..resources };
        let resources = nri::resources::without_classes(&resources);
        let limits =
            nri::resources::limits(&resources).map_err(|source| Error::Adjust { source })?;
        plan.cgroup.limits.overlay(limits);
    }
    plan.process.oom_score_adj = oom_score(record).or(plan.process.oom_score_adj);
    Ok(())
}

/// The out-of-memory score of its processes: a plugin's wish at its making, else the kubelet's last.
pub(crate) fn oom_score(record: &ContainerRecord) -> Option<i32> {
    let plugins = record.adjust.as_ref().and_then(|adjust| adjust.linux.as_ref());
    let of_plugins = plugins.and_then(|linux| linux.oom_score_adj.as_ref());
    let requested = record.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    of_plugins
        .map(|score| i32::try_from(score.value).unwrap_or(i32::MAX))
        .or(requested.map(|resources| i32::try_from(resources.oom_score_adj).unwrap_or(i32::MAX)))
}

/// The OCI spec of a container, with what plugins ask for in it.
pub(crate) fn spec(
    node: &Node,
    pod: &PodId,
    pod_record: &PodRecord,
    record: &ContainerRecord,
    image: &Image,
    target_pid: Option<i32>,
) -> Result<Spec, Error> {
    let dir = node.pod_files(pod);
    // A pod of an earlier release has them beside its monitor's socket.
    let dir = if dir.is_dir() { dir } else { node.pod_dir(pod) };
    let (hosts, resolv_conf, hostname) =
        (dir.join("hosts"), dir.join("resolv.conf"), dir.join("hostname"));
    let pause_pid = match pod_record.state {
        PodState::Ready { pause_pid, .. } => pause_pid,
        PodState::Building | PodState::Stopping | PodState::Stopped => 0,
    };
    let view = oci_spec::PodInputs {
        id: pod,
        config: &pod_record.config,
        assigned_userns: pod_record.assigned_userns.as_ref(),
        pause_pid,
        hosts: &hosts,
        resolv_conf: &resolv_conf,
        hostname: &hostname,
    };
    let user = record.user.clone().unwrap_or_default();
    let user = oci_spec::user::ResolvedUser {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        home: user.home,
    };
    let handler = pod_record.handler_settings.as_ref();
    let defaults = oci_spec::defaults(&node.config.current(), handler, &node.host, &node.apparmor);
    let request = oci_spec::SpecRequest {
        pod: &view,
        config: &record.config,
        image: &image.config,
        user: &user,
        cgroup: &record.cgroup,
        defaults: &defaults,
        classes: &record.classes,
        target_pid,
    };
    let spec = oci_spec::container(&request).map_err(|source| Error::Spec { source })?;
    let mut spec = match &record.adjust {
        Some(adjust) => {
            nri::adjusted_spec(&spec, adjust).map_err(|source| Error::Adjust { source })?
        }
        None => spec,
    };
    oci_spec::keep_owners(&mut spec);
    Ok(spec)
}

/// Everything that the start of a container needs.
pub(crate) struct StartParams {
    pub(crate) node: Arc<Node>,
    pub(crate) client: Option<Client>,
    pub(crate) pod: PodId,
    pub(crate) pod_record: Arc<PodRecord>,
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) planned: CachedPlan,
    /// The process whose pid namespace it joins.
    pub(crate) target_pid: Option<i32>,
}

/// The stage of a container's timeline that all of this is a part of.
const STAGE: &str = "start container";

/// The verb in errors of a start.
const DOING: &str = "start the container";

/// Starts it, by the pod's monitor.
pub(crate) async fn start(params: StartParams) -> Result<Started, Error> {
    let StartParams { node, client, pod, pod_record, record, planned, target_pid } = params;
    let client = client.ok_or(Error::Monitor { doing: DOING, source: monitors::Error::Lost })?;
    let image = node
        .images
        .find(&record.image_id)
        .ok_or_else(|| Error::NoImage { image: record.image_id.clone() })?;
    let planned = {
        let (node, pod_record, record, image) =
            (Arc::clone(&node), Arc::clone(&pod_record), Arc::clone(&record), Arc::clone(&image));
        blocking(move || {
            let kept = planned.into_plan().or_else(|| node.plans.load(&record.id));
            let mut plan = match kept {
                Some(plan) => plan,
                // Made by a release that kept no plans.
                None => plan(&node, &pod, &pod_record, &record, &image, target_pid)?,
            };
            bring_up_to_date(&mut plan, &record, target_pid)?;
            Ok::<_, Error>(plan)
        })
    };
    let mut planned = timed(&node.history, &record.id, (STAGE, "plan"), planned).await?;
    adapt(&mut planned, &client)?;
    let log = open_log(&node, &client, &pod_record, &record).await?;
    let id =
        ContainerId::parse(&record.id).map_err(|err| Error::Internal { what: err.to_string() })?;
    let stdio = Stdio {
        log: log.file.is_some(),
        tty: record.config.tty,
        stdin: record.config.stdin,
        stdin_once: record.config.stdin_once,
    };
    let (hooks, dir) = begin_hooks(&node, &client, &record).await?;
    let classes = classes(&client, &record).await?;
    let plan = hull_plan::encode(&planned);
    let known = client.known_hooks(&hooks);
    let hooks_of = dir.is_some().then_some(&*known);
    let (classes, resctrl) = classes.unzip();
    let fds = log.file.into_iter().chain(dir).chain(log.fds).chain(resctrl.flatten()).collect();
    let command = command(id.clone(), plan, stdio, (hooks_of, log.logging, classes));
    let started = client.start(command, fds);
    let started = timed(&node.history, &record.id, (STAGE, "launch"), started);
    let waited = node.launch_max() + hooks::start_max(&hooks);
    let Ok(started) = tokio::time::timeout(waited, started).await else {
        // Killed on its way; and forgotten, so that it does not run after all when that could not be.
        let forgotten = client.command(Command::Delete { container: id }, Vec::new()).await;
        forgotten.map_err(|source| Error::Monitor { doing: DOING, source })?;
        return Err(Error::LaunchTimeout { doing: DOING, waited });
    };
    match started {
        Ok(started) => Ok(started),
        Err(monitors::Error::Refused { failure: MonitorFailure::Step(step) }) => {
            if let Some(error) = hull_plan::decode_step(&step)
                && let Some(failed) = of_hook_or_kill(&hooks, error, &planned.process)
            {
                return Err(failed);
            }
            let (of, known, process) =
                (Arc::clone(&node), Arc::clone(&record), planned.process.clone());
            let errno = exec_errno(&step);
            let failure =
                blocking(move || explain::step(&node, &record, &image, &planned, &step)).await;
            let failure = program::denied(&of, &known, &process, errno, failure).await;
            Err(Error::Failed { doing: DOING, failure: Box::new(failure) })
        }
        Err(source) => Err(Error::Monitor { doing: DOING, source }),
    }
}

/// The error of a start that a hook or a kill ended; `None` for any other step.
fn of_hook_or_kill(hooks: &Hooks, error: StepError, process: &Process) -> Option<Error> {
    // Whether a stop was requested meanwhile is the task's to say.
    let was_stopped = false;
    if let Some(said) = hull_plan::cut_short(&error) {
        let hook = Some((hooks.name(&error), said.to_owned()));
        return Some(Error::StartCutShort { hook, was_stopped });
    }
    if hull_plan::is_killed_before_exec(&error) {
        return Some(Error::StartCutShort { hook: None, was_stopped });
    }
    matches!(error.step, hull_plan::Step::Hook(_)).then(|| failed_hook(hooks, error, Some(process)))
}

fn failed_hook(hooks: &Hooks, error: StepError, process: Option<&Process>) -> Error {
    let filter = process.and_then(|process| process.seccomp.as_ref());
    let hint = hull_plan::hook_hint(hooks, &error, filter);
    Error::Hook { hook: hooks.name(&error), why: error.call, hint }
}

/// Adapts a plan to the pod's monitor, which may be that of an earlier release.
fn adapt(planned: &mut Plan, client: &Client) -> Result<(), Error> {
    if !client.has_root_binds() {
        // Such a release left the image's volumes out.
        planned.ops.retain(|op| !matches!(op, Op::Bind { source: Source::Root, .. }));
    }
    if planned.ops.contains(&Op::Init) {
        client.check_init().map_err(|source| Error::Monitor { doing: DOING, source })?;
    }
    Ok(())
}

/// The log of a container that is about to be started.
struct StartLog {
    /// Without it, output is dropped.
    file: Option<OwnedFd>,
    logging: Option<Logging>,
    /// Those that `logging` names.
    fds: Vec<OwnedFd>,
}

async fn open_log(
    node: &Node,
    client: &Client,
    pod: &Arc<PodRecord>,
    record: &Arc<ContainerRecord>,
) -> Result<StartLog, Error> {
    let opened = log::open_in_time(&node.storage, pod, record);
    let opened = timed(&node.history, &record.id, (STAGE, "log"), opened).await?;
    let (file, directory) = opened.map(|log| (log.file, log.directory)).unzip();
    let rules =
        logging::for_monitor(&node.config.current().logs, client, (&**pod, &**record), directory)?;
    let (logging, fds) = rules.unzip();
    Ok(StartLog { file, logging, fds: fds.unwrap_or_default() })
}

/// The command with no more than it needs, so that monitors of earlier releases know it.
fn command(
    container: ContainerId,
    plan: Vec<u8>,
    stdio: Stdio,
    (hooks, logging, classes): (Option<&Hooks>, Option<Logging>, Option<Classes>),
) -> Command {
    let hooks = hooks.map(hull_plan::encode);
    if let Some(Classes { limits, resctrl }) = classes {
        return Command::StartWithClasses {
            container,
            plan,
            stdio,
            hooks,
            logging,
            limits,
            resctrl,
        };
    }
    match (hooks, logging) {
        (hooks, Some(logging)) => {
            Command::StartWithLogging { container, plan, stdio, hooks, logging }
        }
        (Some(hooks), None) => Command::StartWithHooks { container, plan, stdio, hooks },
        (None, None) => Command::StartContainer { container, plan, stdio },
    }
}

/// The classes of a container as its monitor gets them.
struct Classes {
    /// `FurtherLimits` in borsh.
    limits: Vec<u8>,
    resctrl: bool,
}

/// The classes of a container that is about to be started, with the file of its group of resctrl; none without any.
async fn classes(
    client: &Client,
    record: &ContainerRecord,
) -> Result<Option<(Classes, Option<OwnedFd>)>, Error> {
    if record.classes.is_none() {
        return Ok(None);
    }
    client.check_classes().map_err(|source| Error::Monitor { doing: DOING, source })?;
    let of = record.classes.clone();
    let limits = of.further_limits().map_err(|source| Error::Plan { source })?;
    let group = blocking(move || of.open_resctrl()).await;
    let group = group.map_err(|source| Error::Spec { source: source.into() })?;
    let classes = Classes { limits: hull_plan::encode(&limits), resctrl: group.is_some() };
    Ok(Some((classes, group)))
}

/// The hooks of a container that is about to be started, with the directory for the monitor; none without hooks.
async fn begin_hooks(
    node: &Arc<Node>,
    client: &Client,
    record: &ContainerRecord,
) -> Result<(Hooks, Option<OwnedFd>), Error> {
    let (shared, id) = (Arc::clone(node), record.id.clone());
    let version = client.check_hooks();
    blocking(move || {
        let Some(hooks) = shared.bundles.load(&id)? else { return Ok((Hooks::default(), None)) };
        version.map_err(|source| Error::Monitor { doing: DOING, source })?;
        // The monitor does it again, right before each; one of an earlier release does not.
        hooks.check(&hooks::ALL).map_err(|error| failed_hook(&hooks, error, None))?;
        let dir = shared.bundles.begin(&id, &hooks)?;
        Ok((hooks, Some(dir)))
    })
    .await
}

/// The errno of a failed exec; 0 of any other step.
pub(crate) fn exec_errno(step: &[u8]) -> i32 {
    let error = hull_plan::decode_step(step).filter(hull_plan::is_exec);
    error.map_or(0, |error| error.errno)
}
