// SPDX-License-Identifier: Apache-2.0
//! Why a tree differs on purpose: the rows of docs/differences.md about images.

use super::images::Subject;
use super::tree::{Difference, Tree};
use std::path::{Path, PathBuf};

const ROOT: &str = "a layer lists its root: Hull applies that entry, containerd ignores it";
const LINK: &str =
    "a hard link has metadata of its own: containerd applies it to the file, Hull does not";
const REMOVED: &str = "a layer has what it also removes from below: in Hull that is its own alone";
const BEFORE_1970: &str = "a time before 1970 is 1970 in containerd";
const WAS_DIRECTORY: &str = "a layer lists a directory and then something else of its name: containerd gives that the directory's time";
const BECAME_DIRECTORY: &str = "a layer lists something else and then a directory of its name: in containerd that shows what is below";
const OPAQUE_ROOT: &str =
    "an opaque mark of a layer's root: in Hull it hides all layers below, in containerd nothing";
const OPAQUE: &str =
    "a directory that a layer implies in one that it makes opaque has nothing from below in Hull";
const IMPLIED: &str =
    "a directory that layers imply has the time from below in Hull, that of the pull in containerd";

const SET_GROUP: &str =
    "a directory that a layer implies in a set-group-ID one has the default group in Hull";

/// The reason of a difference of a path, if there is one.
pub(super) fn of_path(
    subject: &Subject,
    path: &Path,
    difference: &Difference,
    (hull, containerd): (&Tree, &Tree),
) -> Option<&'static str> {
    let Difference { property, hull: ours, containerd: theirs } = difference;
    let is_metadata = ["mode", "owner", "mtime", "xattrs"].contains(property);
    if subject.traits.hides_all {
        return Some(OPAQUE_ROOT);
    }
    if path.as_os_str().is_empty() {
        return (is_metadata && subject.traits.lists_root || *property == "mtime").then_some(ROOT);
    }
    if subject.traits.removed_and_there.iter().any(|of| path.starts_with(of)) {
        return Some(REMOVED);
    }
    if subject.traits.became_directories.iter().any(|of| path.starts_with(of)) {
        return Some(BECAME_DIRECTORY);
    }
    if *property == "mtime" && ours.starts_with('-') && theirs == "0.000000000" {
        return Some(BEFORE_1970);
    }
    let is_in = |of: &PathBuf| path.starts_with(of) && path != of;
    if is_metadata && subject.traits.opaque.iter().any(is_in) {
        return Some(OPAQUE);
    }
    let is_link = |tree: &Tree| {
        let Some(node) = tree.nodes.get(path) else { return false };
        let has_others = tree.nodes.values().filter(|of| of.first == node.first).count() > 1;
        has_others || subject.traits.links.contains(path)
    };
    if is_metadata && (is_link(hull) || is_link(containerd)) {
        return Some(LINK);
    }
    // A symlink in the place of the directory leads that time elsewhere.
    if *property == "mtime" && !subject.traits.were_directories.is_empty() {
        return Some(WAS_DIRECTORY);
    }
    let is_directory = hull.nodes.get(path).is_some_and(|node| node.kind == "directory");
    if *property == "mtime" && is_directory && theirs == "now" {
        return Some(IMPLIED);
    }
    let above = path.parent().and_then(|above| hull.nodes.get(above));
    let sets_group = above.is_some_and(|above| above.mode & 0o2000 != 0);
    (*property == "owner" && is_directory && sets_group).then_some(SET_GROUP)
}

const BOTH: &str = "both refuse the image";
const MARK_AND_FILE: &str = "a layer has what it also removes from below, which containerd refuses";
const FILE_BELOW: &str =
    "a layer implies a directory where one below has a file, which containerd refuses";
const LINK_BELOW: &str = "a hard link into a layer below, which containerd refuses";

/// The reason why one of them refuses an image, by their messages. The message of one that takes it is empty.
pub(super) fn of_failure(hull: &str, containerd: &str) -> Option<&'static str> {
    let is_by = |words: &str| hull.is_empty() && containerd.contains(words);
    match () {
        () if !hull.is_empty() && !containerd.is_empty() => Some(BOTH),
        () if is_by("failed to convert whiteout file") => Some(MARK_AND_FILE),
        () if is_by("mkparent") || is_by("file exists") => Some(MARK_AND_FILE),
        () if is_by("lstat") && is_by("not a directory") => Some(FILE_BELOW),
        () if is_by("UtimesNanoAt") || is_by("too many links") => Some(WAS_DIRECTORY),
        () if is_by("link")
            && ["no such file", "not permitted", "not a directory"].into_iter().any(is_by) =>
        {
            Some(LINK_BELOW)
        }
        () => None,
    }
}
