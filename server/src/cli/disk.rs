// SPDX-License-Identifier: Apache-2.0
//! `hull df` and `hull prune`: disk space of images and writable layers, and what nobody uses.

use super::args::images::{Listed, Prune};
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Kind, Kinds};
use super::names::{Objects, container_name, pod_name};
use super::ps::{self, row};
use super::{images, objects, output, run_logs};
use crate::pod::auto_remove;
use hull_proto::{admin, cri as api};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::Path;

/// The fields of kinds of data.
pub(crate) const USAGE: Kinds = Kinds {
    verb: "df",
    fields: &[
        Field::always("type", "TYPE", Kind::Word, "Kind of data: images or containers."),
        Field::always("total", "TOTAL", Kind::Number, "Number of objects."),
        Field::always(
            "active",
            "ACTIVE",
            Kind::Number,
            "Number of those in use: images of containers, and running containers.",
        ),
        Field::always("size", "SIZE", Kind::Bytes, "Bytes on the disk."),
        Field::always(
            "reclaimable",
            "RECLAIMABLE",
            Kind::Bytes,
            "Bytes of what `hull prune` would remove, at most: layers may be shared.",
        ),
        Field::wide("path", "PATH", Kind::Text, "File system."),
    ],
    id: "type",
    name: "type",
};

/// Prints the use of disk space.
pub(crate) async fn df(mut client: Client, args: &Listed) -> Result<()> {
    let objects = Objects::fetch(&mut client).await?;
    let images = images::all(&mut client).await?;
    let usage = client.images.image_fs_info(api::ImageFsInfoRequest {}).await?.into_inner();
    let stats = client
        .runtime
        .list_container_stats(api::ListContainerStatsRequest::default())
        .await?
        .into_inner()
        .stats;
    let used = images::used(&objects);
    let free = images.iter().filter(|image| images::is_unused(image, &used));
    let reclaimable: u64 = free.map(|image| image.size).fold(0, u64::saturating_add);
    let running = |of: &&api::Container| of.state() == api::ContainerState::ContainerRunning;
    let bytes = |of: &[api::FilesystemUsage]| {
        let each = of.iter().filter_map(|of| of.used_bytes).map(|of| of.value);
        each.fold(0_u64, u64::saturating_add)
    };
    let path = |of: &[api::FilesystemUsage]| {
        of.first()
            .and_then(|of| of.fs_id.as_ref())
            .map_or_else(String::new, |of| of.mountpoint.clone())
    };
    let layers = stats.iter().filter_map(|of| of.writable_layer.as_ref()?.used_bytes);
    let layers = layers.map(|of| of.value).fold(0_u64, u64::saturating_add);
    let containers = bytes(&usage.container_filesystems).max(layers);
    let rows = vec![
        row(json!({
            "type": "images",
            "total": images.len(),
            "active": images.iter().filter(|image| !images::is_unused(image, &used)).count(),
            "size": bytes(&usage.image_filesystems),
            "reclaimable": reclaimable.min(bytes(&usage.image_filesystems)),
            "path": path(&usage.image_filesystems),
        })),
        row(json!({
            "type": "containers",
            "total": objects.containers.len(),
            "active": objects.containers.iter().filter(running).count(),
            "size": containers,
            "reclaimable": containers.saturating_sub(layers),
            "path": path(&usage.container_filesystems),
        })),
    ];
    format::list(&USAGE, rows, &args.list)
}

/// Asks, then removes what is not used, and prints it.
pub(crate) async fn prune(mut client: Client, args: &Prune) -> Result<()> {
    // Before and after the list: what exits or runs again in between is in one of them.
    let mut restarting = ps::marks(&mut client).await?.restarting_ids;
    // Twice: a pod that is complete now has its containers in the next list.
    let pods = Objects::fetch(&mut client).await?.pods;
    let complete = if args.images {
        BTreeSet::new()
    } else {
        complete(&pods, &client.config().await?.data_dir)?
    };
    let mut objects = Objects::fetch(&mut client).await?;
    objects.pods.retain(|pod| complete.contains(pod.id.as_str()));
    restarting.extend(ps::marks(&mut client).await?.restarting_ids);
    let (containers, pods) =
        if args.images { (Vec::new(), Vec::new()) } else { unused(&objects, &restarting) };
    let mut free: Vec<api::Image> = Vec::new();
    if args.images || args.all {
        // Images of containers that go are free as well.
        let mut left = Objects { pods: Vec::new(), containers: objects.containers.clone() };
        left.containers.retain(|of| {
            let goes = |pod: &&api::PodSandbox| pod.id == of.pod_sandbox_id;
            !containers.iter().any(|gone| gone.id == of.id) && !pods.iter().any(goes)
        });
        let used = images::used(&left);
        free = images::all(&mut client).await?;
        let selected = |image: &api::Image| args.all || images::is_dangling(image);
        free.retain(|image| images::is_unused(image, &used) && selected(image));
    }
    if containers.is_empty() && pods.is_empty() && free.is_empty() {
        output::to_stderr("nothing to remove\n");
        return Ok(());
    }
    if !args.yes && !is_confirmed(containers.len(), pods.len(), &free)? {
        return Ok(());
    }
    for container in containers {
        objects::remove_container(&mut client, container).await?;
        output::line(&format!(
            "container {} {}",
            output::short(&container.id),
            container_name(container)
        ))?;
    }
    for pod in pods {
        objects::remove_pod(&mut client, pod).await?;
        output::line(&format!("pod {} {}", output::short(&pod.id), pod_name(pod)))?;
    }
    for image in free {
        client.admin.untag(admin::UntagRequest { image: image.id.clone() }).await?;
        let name = image.repo_tags.first().or(image.repo_digests.first()).cloned();
        output::line(&format!("image {} {}", output::short(&image.id), name.unwrap_or_default()))?;
    }
    Ok(())
}

/// The ids of those of the pods that no command is making now; the others are printed to stderr.
fn complete<'p>(pods: &'p [api::PodSandbox], data_dir: &Path) -> Result<BTreeSet<&'p str>> {
    let mut complete = BTreeSet::new();
    for pod in pods {
        let uid = pod.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
        let directory = auto_remove::log_directory(data_dir, uid);
        let being_made = directory.map(|of| run_logs::is_being_made(&of)).transpose()?;
        if being_made == Some(true) {
            output::to_stderr(&format!(
                "skipped pod {}: it is being made\n",
                shown(pod_name(pod), MESSAGE_BYTES_MAX)
            ));
        } else {
            complete.insert(pod.id.as_str());
        }
    }
    Ok(complete)
}

/// Exited containers in pods of `hull run` that have others, and pods of `hull run` in which nothing runs or waits to
/// be started. No container that the daemon will restart.
fn unused<'o>(
    objects: &'o Objects,
    restarting: &[String],
) -> (Vec<&'o api::Container>, Vec<&'o api::PodSandbox>) {
    let has_ended = |of: &api::Container| {
        of.state() == api::ContainerState::ContainerExited && !restarting.contains(&of.id)
    };
    let (mut containers, mut pods) = (Vec::new(), Vec::new());
    for pod in objects.pods.iter().filter(|pod| objects::is_of_run(pod)) {
        let inside: Vec<_> =
            objects.containers.iter().filter(|of| of.pod_sandbox_id == pod.id).collect();
        if inside.iter().all(|of| has_ended(of)) {
            pods.push(pod);
        } else {
            containers.extend(inside.into_iter().filter(|of| has_ended(of)));
        }
    }
    (containers, pods)
}

/// Asks the user. Without a terminal nobody can answer.
fn is_confirmed(containers: usize, pods: usize, images: &[api::Image]) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage { text: "stdin is not a terminal to ask; use -y".into() });
    }
    let bytes = images.iter().map(|image| image.size).fold(0, u64::saturating_add);
    output::to_stderr(&format!(
        "remove {containers} containers, {pods} pods and {} images (at most {})? [y/N] ",
        images.len(),
        output::bytes(bytes)
    ));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Error::io("read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::run_pods::UID_LABEL;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn pods_that_are_being_made_and_containers_that_restart_stay() {
        let uid = run_logs::new_uid().unwrap();
        let pod = api::PodSandbox {
            id: "p".into(),
            metadata: Some(api::PodSandboxMetadata { uid: uid.clone(), ..Default::default() }),
            labels: [(UID_LABEL.to_owned(), uid.clone())].into(),
            ..Default::default()
        };
        let mut objects = Objects { pods: vec![pod], containers: Vec::new() };
        let dir = tempfile::tempdir().unwrap();
        let logs = auto_remove::log_directory(dir.path(), &uid).unwrap();
        let making = run_logs::Making::begin(&logs).unwrap();
        assert!(complete(&objects.pods, dir.path()).unwrap().is_empty());
        drop(making);
        assert_eq!(complete(&objects.pods, dir.path()).unwrap(), BTreeSet::from(["p"]));
        // Two of `hull prune` do not take each other for a command that makes the pod.
        let other = std::fs::File::open(&logs).unwrap();
        other.lock_shared().unwrap();
        assert!(!run_logs::is_being_made(&logs).unwrap());
        assert_eq!(std::fs::metadata(&logs).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(unused(&objects, &[]).1.len(), 1);
        let mut ended =
            api::Container { id: "c".into(), pod_sandbox_id: "p".into(), ..Default::default() };
        ended.set_state(api::ContainerState::ContainerExited);
        objects.containers.push(ended);
        assert_eq!(unused(&objects, &[]).1.len(), 1);
        let (containers, pods) = unused(&objects, &["c".to_owned()]);
        assert!(containers.is_empty() && pods.is_empty());
    }
}
