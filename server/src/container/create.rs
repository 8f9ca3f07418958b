// SPDX-License-Identifier: Apache-2.0
//! Making a container: everything that can be refused is refused here, before anything runs.

use super::log_loss::LogLoss;
use super::{
    CachedPlan, ContainerRecord, State, User, host_paths, log, logging, propagation, quota,
    remarks, volumes,
};
use crate::error::Error;
use crate::history::timed;
use crate::node::{Node, now_ns};
use crate::nri::{self, Adjustment};
use crate::oci_spec::{self, classes::Classes};
use crate::pod::PodRecord;
use crate::storage::blocking;
use hull_image::Image;
use hull_nri::PluginSet;
use hull_plan::{IdMaps, Plan, to_host_id};
use hull_proto::cri;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::nri::Event;
use std::os::fd::AsFd as _;
use std::sync::Arc;

/// Longest passwd or group file of an image that is read, in bytes.
const ACCOUNTS_BYTES_MAX: usize = crate::limits::ACCOUNTS_BYTES.count();

/// The stage of a container's timeline that all of this is a part of.
const STAGE: &str = "create container";

/// The record of a container that is about to be made. Fails when its image is not here.
pub(crate) fn record(
    node: &Node,
    pod: &PodRecord,
    id: &ContainerId,
    config: cri::ContainerConfig,
) -> Result<ContainerRecord, Error> {
    let image = find_image(node, &config)?;
    let log_path = log::path(&pod.config, &config)?;
    let _refused_now = logging::rules(&node.config.current().logs, pod, &config)?;
    Ok(ContainerRecord {
        id: id.to_string(),
        pod: pod.id.clone(),
        image_id: image.id.clone(),
        image_volumes: volumes::find(node, &config)?,
        image_ref: image.repo_digests.first().unwrap_or(&image.id).clone(),
        created_ns: now_ns(),
        cgroup: format!("{}/{id}", pod.cgroup),
        log_path,
        adjust: None,
        user: None,
        stop_signal: oci_spec::stop_signal(&config, &image.config)
            .map_err(|source| Error::Spec { source })?,
        config,
        stop_requested: false,
        stop_signal_ns: None,
        signal_requested: None,
        signal_requested_ns: None,
        remarks: Vec::new(),
        previous: None,
        log_loss: LogLoss::default(),
        classes: Classes::default(),
        state: State::Creating,
    })
}

/// The image a container is asked to be made of.
fn find_image(node: &Node, config: &cri::ContainerConfig) -> Result<Arc<Image>, Error> {
    let name = config.image.as_ref().map_or("", |image| image.image.as_str());
    if name.is_empty() {
        return Err(Error::Invalid { field: "config.image.image", why: "it is empty".into() });
    }
    node.images.find(name).ok_or_else(|| Error::NoImage { image: name.to_owned() })
}

/// A container that is made.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) resolved: Resolved,
    pub(crate) planned: CachedPlan,
    pub(crate) adjusted: Adjustment,
    /// The plugins that know of it. Held until it can be seen.
    pub(crate) plugin_set: Arc<PluginSet>,
}

/// The parts of its record that are known once it is made.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) user: User,
    pub(crate) classes: Classes,
    /// Parts of its config that have no effect on this node.
    pub(crate) remarks: Vec<String>,
}

/// Has plugins adjust it, then makes it.
pub(crate) async fn make(
    node: Arc<Node>,
    pod: PodId,
    pod_record: Arc<PodRecord>,
    record: Arc<ContainerRecord>,
    target_pid: Option<i32>,
) -> Result<Created, Error> {
    let plugin_set = node.plugins.current();
    let adjusted = if plugin_set.is_subscribed(Event::CreateContainer) {
        let adjusted = adjusted(&node, &plugin_set, &pod, &pod_record, &record);
        timed(&node.history, &record.id, (STAGE, "plugins"), adjusted).await?
    } else {
        Adjustment::default()
    };
    let mut known = (*record).clone();
    known.adjust.clone_from(&adjusted.adjust);
    if let Some(cgroup) = &adjusted.cgroup {
        known.cgroup.clone_from(cgroup);
    }
    let made = make_parts(node, pod, pod_record, known, target_pid).await;
    let (resolved, planned) = made.map_err(|err| {
        // What makes no sense in the plan may be what plugins ask for.
        if matches!(err, Error::Spec { .. } | Error::Plan { .. } | Error::Adjust { .. }) {
            err.asked_by(&adjusted.plugins)
        } else {
            err
        }
    })?;
    Ok(Created { resolved, planned, adjusted, plugin_set })
}

/// Calls plugins, and returns their adjustments of the container.
async fn adjusted(
    node: &Arc<Node>,
    plugin_set: &PluginSet,
    pod: &PodId,
    pod_record: &Arc<PodRecord>,
    record: &Arc<ContainerRecord>,
) -> Result<Adjustment, Error> {
    let (shared, mut known) = (Arc::clone(node), (**record).clone());
    let (known, image) = blocking(move || {
        let image = image_of(&shared, &known)?;
        known.user = Some(user_of(&image, &known.config)?);
        Ok::<_, Error>((known, image))
    })
    .await?;
    nri::verbs::create_container(node, plugin_set, pod, pod_record, &known, &image).await
}

fn image_of(node: &Node, record: &ContainerRecord) -> Result<Arc<Image>, Error> {
    let found = node.images.find(&record.image_id);
    found.ok_or_else(|| Error::NoImage { image: record.image_id.clone() })
}

/// Plans the container, makes the missing sources of its volumes, and creates its writable layer.
async fn make_parts(
    node: Arc<Node>,
    pod: PodId,
    pod_record: Arc<PodRecord>,
    record: ContainerRecord,
    target_pid: Option<i32>,
) -> Result<(Resolved, CachedPlan), Error> {
    let (history, id) = (Arc::clone(&node.history), record.id.clone());
    let planned = {
        let (node, pod_record) = (Arc::clone(&node), Arc::clone(&pod_record));
        blocking(move || plan(&node, &pod, &pod_record, record, target_pid))
    };
    let planned = timed(&history, &id, (STAGE, "plan"), planned).await?;
    let sources = async {
        host_paths::make_missing(&node, &planned.record.config).await?;
        propagation::check(&node, &planned.record.config).await
    };
    timed(&history, &id, (STAGE, "sources of volumes"), sources).await?;
    let made = blocking(move || make_rootfs(&node, &pod_record, planned));
    timed(&history, &id, (STAGE, "writable layer"), made).await
}

/// A container whose start is planned.
struct Planned {
    record: ContainerRecord,
    image: Arc<Image>,
    resolved: Resolved,
    plan: Plan,
    /// The limit of its writable layer.
    layer_bytes_max: Option<u64>,
}

/// Resolves its user and its classes, and plans its start once: to refuse now what could not be started later, and to keep the result
/// for the start and for execs.
fn plan(
    node: &Node,
    pod: &PodId,
    pod_record: &PodRecord,
    mut record: ContainerRecord,
    target_pid: Option<i32>,
) -> Result<Planned, Error> {
    let image = image_of(node, &record)?;
    let of_image = |source| Error::Image { image: image.id.clone(), source };
    node.images.check_layers(&image).map_err(of_image)?;
    let user = user_of(&image, &record.config)?;
    record.user = Some(user.clone());
    let settings = node.config.current();
    let file = settings.runtime.blockio_config_file.as_deref();
    let chosen = nri::resources::classes(record.adjust.as_deref());
    let classes = Classes::resolve(&pod_record.config, &record.config, file, &chosen);
    let (classes, without_effect) =
        classes.map_err(|source| Error::Spec { source: source.into() })?;
    record.classes = classes.clone();
    let mut spec = super::start::spec(node, pod, pod_record, &record, &image, target_pid)?;
    let dirs = &settings.runtime.hooks_dir;
    let files = oci_spec::hooks_dir::inject(&mut spec, &record.config, &pod_record.config, dirs)
        .map_err(|source| Error::HooksDir { source })?;
    let plan = super::start::plan_of(node, &pod_record.config, &record, &image, &spec)?;
    let (layer_bytes_max, unlimited) = quota::of(node, pod_record, &record.config)?;
    let mut remarks = remarks::of(node, pod_record, &record, &spec, &plan);
    remarks.extend(unlimited.into_iter().chain(without_effect));
    node.plans.save(&record.id, &plan).map_err(|source| Error::Store { source })?;
    node.bundles.save(&record.id, &spec, &files, &node.rootfs_dir())?;
    volumes::check(node, &record)?;
    let resolved = Resolved { user, classes, remarks };
    Ok(Planned { record, image, resolved, plan, layer_bytes_max })
}

/// Creates its writable layer.
fn make_rootfs(
    node: &Node,
    pod_record: &PodRecord,
    planned: Planned,
) -> Result<(Resolved, CachedPlan), Error> {
    let Planned { record, image, resolved, plan, layer_bytes_max } = planned;
    let maps = pod_record.id_maps();
    let owner = |uid, gid| match &maps {
        // An id outside of the pod's ranges would be the overflow id; the pod's root gets it instead.
        Some(IdMaps { uids, gids }) => {
            let of = |ranges, id| to_host_id(ranges, id).or_else(|| to_host_id(ranges, 0));
            (of(uids, uid).unwrap_or(uid), of(gids, gid).unwrap_or(gid))
        }
        None => (uid, gid),
    };
    node.images
        .create_limited_rootfs(&record.id, &image, &owner, layer_bytes_max)
        .map_err(|source| Error::Rootfs { container: record.id.clone(), source })?;
    Ok((resolved, CachedPlan::of(plan)))
}

/// The user of the first process, from the config, the image's config and the image's account files.
fn user_of(image: &Image, config: &cri::ContainerConfig) -> Result<User, Error> {
    let mut wanted = oci_spec::user::requested(config, &image.config)
        .map_err(|source| Error::Spec { source: source.into() })?;
    let group = oci_spec::run_options::group(config).map_err(|source| Error::Spec { source })?;
    wanted.group = group.or(wanted.group);
    let named = oci_spec::run_options::groups(config).map_err(|source| Error::Spec { source })?;
    wanted.supplemental.extend(named);
    let of_image = |source| Error::Image { image: image.id.clone(), source };
    let view = hull_image::view(&image.layers).map_err(of_image)?;
    let read = |path| hull_image::read_inside(view.as_fd(), path, ACCOUNTS_BYTES_MAX);
    let passwd = read("/etc/passwd").map_err(of_image)?;
    let group = read("/etc/group").map_err(of_image)?;
    let user = oci_spec::user::resolve(&wanted, passwd.as_deref(), group.as_deref())
        .map_err(|source| Error::Spec { source: source.into() })?;
    Ok(User { uid: user.uid, gid: user.gid, groups: user.groups, home: user.home })
}
