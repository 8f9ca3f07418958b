// SPDX-License-Identifier: Apache-2.0
//! Paths that nobody but root can make lead to something else.

use crate::text::shown;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// Bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The bit of a directory's mode that leaves its entries to their owners.
const STICKY: u32 = 0o1000;
/// Most links on one path; the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Longest path in a message, in bytes.
const PATH_BYTES: usize = 512;

/// Checks that only root can change what `path` leads to, and returns its path without links. Each directory and each
/// link on the way, and on the ways of the links, must be root's. A directory that others can write to must leave
/// entries to their owners (the sticky bit), and what lies at the end must not be writable by others at all.
///
/// Links are followed here and not by the kernel: what was checked cannot be replaced meanwhile but by root.
///
/// # Errors
/// In words: what others can change, or what is not there.
pub fn roots_alone(path: &Path) -> Result<PathBuf, String> {
    if !path.is_absolute() {
        return Err("it is not an absolute path".into());
    }
    let mut left = names(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    look(&at, left.is_empty())?;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            let _above = at.pop();
            continue;
        }
        at.push(&name);
        let metadata = look(&at, left.is_empty())?;
        if !metadata.is_symlink() {
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(format!("it has more than {LINKS_MAX} links"));
        }
        let target = std::fs::read_link(&at).map_err(|err| format!("{}: {err}", quoted(&at)))?;
        let _link = at.pop();
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            left.push_front(name);
        }
    }
    // After a `..` the end has only been looked at as a directory on the way.
    look(&at, true)?;
    Ok(at)
}

/// The names of a path, and its `..`.
fn names(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}

/// Checks one entry, which is the end of the path or on its way.
fn look(at: &Path, is_end: bool) -> Result<Metadata, String> {
    let metadata = match std::fs::symlink_metadata(at) {
        Ok(metadata) => metadata,
        Err(err) if is_end => return Err(err.to_string()),
        Err(err) => return Err(format!("{} on its path: {err}", quoted(at))),
    };
    // A link at the end is on the way to what it leads to.
    let is_end = is_end && !metadata.is_symlink();
    let subject = if is_end { "it".to_owned() } else { format!("{} on its path", quoted(at)) };
    let (owner, mode) = (metadata.uid(), metadata.permissions().mode() & 0o7777);
    if owner != 0 {
        return Err(format!("{subject} belongs to user {owner}, not to root"));
    }
    // The mode of a link says nothing.
    if metadata.is_symlink() || mode & WRITABLE_BY_OTHERS == 0 {
        return Ok(metadata);
    }
    match (is_end, mode & STICKY != 0) {
        (false, true) => Ok(metadata),
        (false, false) => {
            Err(format!("mode {mode:o} of {subject} lets others than root replace it"))
        }
        (true, _) => Err(format!("its mode {mode:o} lets others than root change it")),
    }
}

fn quoted(path: &Path) -> String {
    format!("`{}`", shown(path.as_os_str().as_encoded_bytes(), PATH_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{chown, lchown, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path, why: &str) {
        let said = roots_alone(path).unwrap_err();
        assert!(said.contains(why), "{why:?} in {said}");
    }

    #[test]
    fn each_directory_and_link_on_the_way_must_be_roots() {
        if !crate::root_is_here("each_directory_and_link_on_the_way_must_be_roots") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (open, inner) = (dir.path().join("open"), dir.path().join("open/inner"));
        fs::create_dir_all(&inner).unwrap();
        let program = inner.join("program");
        fs::write(&program, "").unwrap();
        mode(&program, 0o755);
        assert_eq!(roots_alone(&program).unwrap(), program.canonicalize().unwrap());

        // Of a directory that is not the file's own.
        mode(&open, 0o777);
        refused(&program, "open` on its path lets others than root replace it");
        mode(&open, 0o775);
        refused(&program, "mode 775 of `");
        mode(&open, 0o1777);
        roots_alone(&program).unwrap();
        chown(&inner, Some(1000), None).unwrap();
        refused(&program, "inner` on its path belongs to user 1000");
        chown(&inner, Some(0), None).unwrap();
        mode(&open, 0o755);
        chown(&open, Some(1000), None).unwrap();
        refused(&program, "open` on its path belongs to user 1000");
        chown(&open, Some(0), None).unwrap();

        // The end itself, of which the sticky bit says nothing.
        mode(&inner, 0o1777);
        refused(&inner, "its mode 1777");
        fs::create_dir(inner.join("below")).unwrap();
        refused(&inner.join("below/.."), "its mode 1777");
        mode(&inner, 0o755);
        mode(&program, 0o777);
        refused(&program, "its mode 777");
        mode(&program, 0o755);
    }

    #[test]
    fn links_and_their_own_paths_are_checked_and_their_end_is_found() {
        if !crate::root_is_here("links_and_their_own_paths_are_checked_and_their_end_is_found") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["good", "good/deep", "open"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("good/program"), "").unwrap();
        symlink("../program", at("good/deep/link")).unwrap();
        symlink(at("good/deep/link"), at("open/link")).unwrap();
        let end = at("good/program").canonicalize().unwrap();
        for path in ["good/deep/link", "open/link", "good/deep/../../open/link"] {
            assert_eq!(roots_alone(&at(path)).unwrap(), end, "{path}");
        }
        // Others could put another link there.
        mode(&at("open"), 0o777);
        refused(&at("open/link"), "open` on its path lets others");
        mode(&at("open"), 0o755);
        // One link's owner counts, and so does the way that it leads.
        lchown(at("good/deep/link"), Some(7), None).unwrap();
        refused(&at("open/link"), "link` on its path belongs to user 7");
        lchown(at("good/deep/link"), Some(0), None).unwrap();
        mode(&at("good/deep"), 0o777);
        refused(&at("open/link"), "deep` on its path lets others");
        mode(&at("good/deep"), 0o755);
        roots_alone(&at("open/link")).unwrap();

        symlink("loop", at("loop")).unwrap();
        refused(&at("loop"), "more than 40 links");
        refused(&at("nothing"), "No such file");
        refused(&at("nothing/below"), "nothing` on its path: No such file");
        refused(Path::new("bin/sh"), "not an absolute path");
    }
}
