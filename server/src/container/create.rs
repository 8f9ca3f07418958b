// SPDX-License-Identifier: Apache-2.0
//! Making a container: everything that can be refused is refused here, before anything runs.

use super::{ContainerRecord, State, User, log};
use crate::error::Error;
use crate::node::{Node, blocking, now_ns};
use crate::pod::PodRecord;
use crate::spec;
use crate::spec::userns::outside;
use hull_image::Image;
use hull_plan::IdMaps;
use hull_proto::cri;
use hull_proto::id::{ContainerId, PodId};
use std::os::fd::AsFd as _;
use std::sync::Arc;

/// Longest passwd or group file of an image that is read, in bytes.
const ACCOUNTS_BYTES_MAX: usize = 1 << 20;

/// The record of a container that is about to be made. Fails when its image is not here.
pub(crate) fn record(
    node: &Node,
    pod: &PodRecord,
    id: &ContainerId,
    config: cri::ContainerConfig,
) -> Result<ContainerRecord, Error> {
    let image = find_image(node, &config)?;
    let log_path = log::path(&pod.config, &config)?;
    Ok(ContainerRecord {
        id: id.to_string(),
        pod: pod.id.clone(),
        image_id: image.id.clone(),
        image_ref: image.repo_digests.first().unwrap_or(&image.id).clone(),
        created_ns: now_ns(),
        cgroup: format!("{}/{id}", pod.cgroup),
        log_path,
        user: None,
        stop_signal: spec::stop_signal(&config, &image.config)
            .map_err(|source| Error::Spec { source })?,
        config,
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

/// Makes its writable layer, finds out whom it runs as, and plans its start once, to refuse now what
/// could not be started later.
pub(crate) async fn make(
    node: Arc<Node>,
    pod: PodId,
    pod_record: Arc<PodRecord>,
    record: Arc<ContainerRecord>,
) -> Result<User, Error> {
    blocking(move || {
        let image = node
            .images
            .find(&record.image_id)
            .ok_or_else(|| Error::NoImage { image: record.image_id.clone() })?;
        let of_image = |source| Error::Image { image: image.id.clone(), source };
        node.images.ready(&image).map_err(of_image)?;
        let user = user_of(&image, &record.config)?;
        let mut known = (*record).clone();
        known.user = Some(user.clone());
        super::start::plan(&node, &pod, &pod_record, &known, &image, None)?;
        let maps = pod_record.id_maps();
        let owner = |uid, gid| match &maps {
            // An id that the pod has not shows as nobody's wherever it is; here it is its root's.
            Some(IdMaps { uids, gids }) => {
                let of = |ranges, id| outside(ranges, id).or_else(|| outside(ranges, 0));
                (of(uids, uid).unwrap_or(uid), of(gids, gid).unwrap_or(gid))
            }
            None => (uid, gid),
        };
        node.images
            .create_rootfs(&record.id, &image, &owner)
            .map_err(|source| Error::Rootfs { container: record.id.clone(), source })?;
        Ok(user)
    })
    .await
}

/// Whom the first process runs as, by the config, the image and the image's own accounts.
fn user_of(image: &Image, config: &cri::ContainerConfig) -> Result<User, Error> {
    let wanted = spec::user::wanted(config, &image.config)
        .map_err(|source| Error::Spec { source: source.into() })?;
    let of_image = |source| Error::Image { image: image.id.clone(), source };
    let view = hull_image::view(&image.layers).map_err(of_image)?;
    let read = |path| hull_image::read_inside(view.as_fd(), path, ACCOUNTS_BYTES_MAX);
    let passwd = read("/etc/passwd").map_err(of_image)?;
    let group = read("/etc/group").map_err(of_image)?;
    let user = spec::user::resolve(&wanted, passwd.as_deref(), group.as_deref())
        .map_err(|source| Error::Spec { source: source.into() })?;
    Ok(User { uid: user.uid, gid: user.gid, groups: user.groups, home: user.home })
}
