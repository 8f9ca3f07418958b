// SPDX-License-Identifier: Apache-2.0
//! A program that the kernel refuses to execute (`EACCES`): the part of its path that is the reason. `execve(2)`.

use super::paths::{Walked, open_path, view, walk};
use super::rights::{Identity, Owner, Right};
use crate::container::ContainerRecord;
use crate::node::Node;
use crate::storage::blocking;
use hull_plan::{Failure, Namespace, Process};
use hull_sys::text::shown;
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest path in a message, in bytes.
const PATH_BYTES_MAX: usize = 256;

/// Most directories of PATH in which a program is looked for: the image and the pod choose how many there are.
const PATH_DIRS_MAX: usize = 64;

/// Where a program is.
struct Place {
    walked: Walked,
    /// Mount point of the volume that it is in; `None` for the image.
    volume: Option<String>,
    /// The volume is mounted noexec on the node.
    noexec: bool,
}

/// Says why a program may not be executed. Any other failure stays as it is.
pub(crate) async fn denied(
    node: &Arc<Node>,
    record: &ContainerRecord,
    process: &Process,
    errno: i32,
    mut failure: Failure,
) -> Failure {
    const EACCES: i32 = 13;
    if errno != EACCES {
        return failure;
    }
    let identity = Identity {
        uid: process.uid,
        gid: process.gid,
        groups: process.groups.clone(),
        capabilities: process.capabilities.effective,
    };
    let identity = if has_own_ids(node, record).await { None } else { Some(identity) };
    for path in candidates(process) {
        let Some(place) = find(node, record, &path).await else { continue };
        if let Some((what, hint)) = reason(&place, identity.as_ref()) {
            (failure.what, failure.hint) = (what, Some(hint));
            return failure;
        }
    }
    failure.hint = Some(
        "the interpreter of a script, or a security module (AppArmor, SELinux) denies it: check the first line of the \
         script, and the node's kernel log (dmesg)"
            .into(),
    );
    failure
}

/// Whether it has a user namespace of its own: owners of files on the host are not those that it sees then.
async fn has_own_ids(node: &Arc<Node>, record: &ContainerRecord) -> bool {
    let (node, id) = (Arc::clone(node), record.id.clone());
    let plan = blocking(move || node.plans.load(&id)).await;
    plan.is_none_or(|plan| plan.namespaces.user != Namespace::Inherit)
}

/// The paths at which the kernel may have found it.
pub(super) fn candidates(process: &Process) -> Vec<String> {
    let Some(program) =
        process.args.first().map(|program| String::from_utf8_lossy(program).into_owned())
    else {
        return Vec::new();
    };
    if program.starts_with('/') {
        return vec![program];
    }
    if program.contains('/') {
        return vec![format!("{}/{program}", process.cwd.trim_end_matches('/'))];
    }
    let path = process.env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.map_or(DEFAULT_PATH.into(), String::from_utf8_lossy);
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .take(PATH_DIRS_MAX)
        .map(|dir| format!("{dir}/{program}"))
        .collect()
}

/// Looks for the program in the volume that covers its path, else in the image.
async fn find(node: &Arc<Node>, record: &ContainerRecord, path: &str) -> Option<Place> {
    let covers = |mount: &&hull_proto::cri::Mount| {
        let rest = path.strip_prefix(mount.container_path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounts = record.config.mounts.iter().filter(covers);
    let path = path.to_owned();
    match mounts.max_by_key(|mount| mount.container_path.len()) {
        Some(mount) if mount.host_path.is_empty() => None,
        Some(mount) => {
            let (source, target) = (PathBuf::from(&mount.host_path), mount.container_path.clone());
            let look = move || {
                let top = open_path(source)?;
                let walked = walk(top.as_fd(), &target, &path).filter(|walked| walked.complete)?;
                let flags = fstatvfs(&top).ok().map(|space| space.f_flag);
                let noexec = flags.is_some_and(|flags| flags.contains(StatVfsMountFlags::NOEXEC));
                Some(Place { walked, volume: Some(target), noexec })
            };
            node.storage.within("look at a volume", &mount.host_path, look).await.ok().flatten()
        }
        None => {
            let (node, record) = (Arc::clone(node), record.clone());
            let look = move || {
                let image = node.images.find(&record.image_id)?;
                let view = view(&node, &record, &image)?;
                let walked = walk(view.as_fd(), "", &path).filter(|walked| walked.complete)?;
                Some(Place { walked, volume: None, noexec: false })
            };
            blocking(look).await
        }
    }
}

/// The sentence and the hint; `None` if owners, modes and mounts allow the execution. Without an identity no owner is
/// looked at.
fn reason(place: &Place, identity: Option<&Identity>) -> Option<(String, String)> {
    let (last, before) = place.walked.parts.split_last()?;
    let path = shown(&place.walked.path, PATH_BYTES_MAX);
    let uid = identity.map_or(0, |identity| identity.uid);
    let may_not = |owner: &Owner| identity.is_some_and(|of| !of.may(Right::Enter, owner));
    let change = |owner: &Owner, what: &str| {
        let user = match owner.uid {
            0 => String::new(),
            uid => format!(", or set `runAsUser: {uid}`"),
        };
        match &place.volume {
            None => format!("{what} in the image{user}"),
            Some(volume) => {
                format!("{what} in volume `{}` on the node{user}", shown(volume, PATH_BYTES_MAX))
            }
        }
    };
    if let Some((directory, owner)) = before.iter().find(|(_, owner)| may_not(owner)) {
        let directory = shown(directory, PATH_BYTES_MAX);
        let what = format!(
            "`{path}` may not be executed: uid {uid} may not enter `{directory}` ({owner})"
        );
        return Some((what, change(owner, &format!("chmod o+x `{directory}`"))));
    }
    let owner = &last.1;
    if owner.is_directory {
        let what = format!("`{path}` may not be executed: it is a directory");
        return Some((what, "set `command` to the path of the program inside it".into()));
    }
    if let Some(volume) = place.volume.as_ref().filter(|_| place.noexec) {
        let volume = shown(volume, PATH_BYTES_MAX);
        let what = format!(
            "`{path}` may not be executed: volume `{volume}` is mounted noexec on the node"
        );
        let hint = "copy the program into the image, start it from another volume, or remount this one without noexec";
        return Some((what, hint.into()));
    }
    if owner.mode & 0o111 == 0 {
        let what = format!(
            "`{path}` may not be executed: permission denied, it is not executable (mode {:04o})",
            owner.mode
        );
        return Some((what, match &place.volume {
            None => "chmod +x it in the image".into(),
            Some(_) => "chmod +x it in the volume (`defaultMode: 0755` of a ConfigMap), or start it by its interpreter".into(),
        }));
    }
    if may_not(owner) {
        let what = format!("`{path}` may not be executed: uid {uid} has no right to ({owner})");
        return Some((what, change(owner, "chmod o+rx it")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(volume: Option<&str>, noexec: bool, parts: &[(&str, u32, bool)]) -> Place {
        let owner = |mode, is_directory| Owner { uid: 0, gid: 0, mode, is_directory };
        let parts: Vec<_> = parts
            .iter()
            .map(|(path, mode, is_directory)| ((*path).to_owned(), owner(*mode, *is_directory)))
            .collect();
        let path = parts.last().unwrap().0.clone();
        Place {
            walked: Walked { path, parts, complete: true },
            volume: volume.map(str::to_owned),
            noexec,
        }
    }

    fn text(place: &Place, uid: u32) -> String {
        let capabilities = if uid == 0 { 1 << 1 } else { 0 };
        let identity = Identity { uid, gid: uid, groups: Vec::new(), capabilities };
        reason(place, Some(&identity))
            .map_or(String::new(), |(what, hint)| format!("{what} (hint: {hint})"))
    }

    #[test]
    fn the_reason_is_the_first_part_that_denies_it() {
        let root = ("/", 0o755, true);
        let directory = text(&place(None, false, &[root, ("/opt/x", 0o755, true)]), 0);
        assert!(
            directory.contains("is a directory") && !directory.contains("chmod"),
            "{directory}"
        );
        let plain = text(&place(None, false, &[root, ("/opt/x", 0o644, false)]), 0);
        assert!(plain.contains("not executable (mode 0644) (hint: chmod +x"), "{plain}");
        let private = text(&place(None, false, &[root, ("/opt/x", 0o700, false)]), 1000);
        assert!(
            private.contains("uid 1000 has no right to") && !private.contains("runAsUser"),
            "{private}"
        );
        let closed = text(
            &place(None, false, &[root, ("/srv", 0o700, true), ("/srv/x", 0o755, false)]),
            1000,
        );
        assert!(closed.contains("may not enter `/srv` (owner 0:0, mode 0700)"), "{closed}");
        let shifted = place(None, false, &[("/", 0o700, true), ("/opt/x", 0o700, false)]);
        assert_eq!(reason(&shifted, None), None, "owners of the host say nothing");
        let noexec = text(
            &place(Some("/data"), true, &[("/data", 0o755, true), ("/data/x", 0o755, false)]),
            0,
        );
        assert!(
            noexec.contains("volume `/data` is mounted noexec") && !noexec.contains("chmod"),
            "{noexec}"
        );
        assert_eq!(text(&place(None, false, &[root, ("/opt/x", 0o755, false)]), 1000), "");
    }

    #[test]
    fn a_path_of_many_directories_is_searched_to_a_limit() {
        let path = (0..1_000).map(|number| format!("/{number}:")).collect::<String>();
        let process = serde_json::json!({
            "cwd": "/", "args": ["app"], "env": [format!("PATH=relative:{path}")], "user": {"uid": 0, "gid": 0},
        });
        let spec = ::oci_spec::runtime::Spec::default();
        let process = serde_json::from_value(process).unwrap();
        let process = hull_plan::process(&process, &spec, &hull_plan::HostFacts::default());
        let found = candidates(&process.unwrap());
        assert_eq!((found.len(), found[0].as_str()), (PATH_DIRS_MAX, "/0/app"));
    }
}
