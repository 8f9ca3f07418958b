// SPDX-License-Identifier: Apache-2.0
//! Sources of volumes on the host. One that is missing is made as a directory, as kubelets expect: they check or make
//! the path of a `hostPath` volume only if it has a `type`.
//!
//! Each directory is made in the one before it by descriptor, so a path that somebody changes meanwhile leads to an
//! error or to the directory that was found, never elsewhere. Links that exist are followed, because nodes have such
//! (`/var/run`). One that leads nowhere is not replaced, and its target is not made.

use crate::error::Error;
use crate::node::Node;
use hull_proto::cri;
use hull_sys::Error as CallError;
use rustix::fs::{CWD, Mode, OFlags, fstat, mkdirat, open, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// The mode of directories that are made.
const MODE: u32 = 0o755;

/// Makes the missing sources of a config's volumes.
///
/// # Errors
/// A file or a link that leads nowhere is in the way; the file system refuses it, or does not answer.
pub(crate) async fn make_missing(node: &Node, config: &cri::ContainerConfig) -> Result<(), Error> {
    let volumes = config.mounts.iter().filter(|mount| mount.image.is_none());
    for path in volumes.map(|mount| &mount.host_path) {
        let shared = path.clone();
        let made = node.storage.within("look for a volume", path, move || make_directory(&shared));
        made.await?.map_err(|source| Error::VolumeSource { path: path.clone(), source })?;
    }
    Ok(())
}

/// Makes the directory `path`, and those on the way to it, where nothing has that name.
fn make_directory(path: &str) -> Result<(), CallError> {
    match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_there) => return Ok(()),
        // The walk finds which part is missing, or is not a directory.
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(errno) => return Err(CallError::new(errno, "open(source)")),
    }
    let mut at = openat(CWD, "/", DIRECTORY, Mode::empty())
        .map_err(|errno| CallError::new(errno, "open(/)"))?;
    let mut walked = String::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        walked.push('/');
        walked.push_str(part);
        at = open_or_make(&at, part, &walked)?;
    }
    Ok(())
}

/// The directory `name` in `at`, made if nothing has that name. `walked` is its whole path, for errors.
fn open_or_make(at: &OwnedFd, name: &str, walked: &str) -> Result<OwnedFd, CallError> {
    let failed =
        |call: &'static str| move |errno| CallError::new(errno, format!("{call}({walked})"));
    match openat(at, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(failed("open")),
    }
    let made = match mkdirat(at, name, Mode::from_raw_mode(MODE)) {
        Ok(()) => true,
        // Another start was quicker; or it is a link that leads nowhere.
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(failed("mkdir")(errno)),
    };
    let directory = openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let directory = directory.map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP if !made => {
            CallError::new(Errno::NOENT, format!("follow the symbolic link {walked}"))
        }
        other => failed("open")(other),
    })?;
    let mode = fstat(&directory).map_err(failed("stat"))?.st_mode & 0o7777;
    // The umask of the daemon does not count, nor does a setgid bit of the parent.
    if made && mode != MODE {
        hull_sys::chmod_by_descriptor(directory.as_fd(), Mode::from_raw_mode(MODE))?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    fn make(path: &Path) -> Result<(), CallError> {
        make_directory(path.to_str().unwrap())
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/./b//c/");
        make(&deep).unwrap();
        for part in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(dir.path().join(part)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o755, "{part}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(dir.path().join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        for there in [&file, &deep] {
            let before = fs::metadata(there).unwrap().ino();
            make(there).unwrap();
            assert_eq!(fs::metadata(there).unwrap().ino(), before);
        }
        let mode = fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "a directory that was there keeps its mode");
    }

    #[test]
    fn links_that_lead_somewhere_are_followed_and_others_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        symlink("real", at("link")).unwrap();
        make(&at("link/new/deep")).unwrap();
        assert!(at("real/new/deep").is_dir());
        symlink(at("nowhere"), at("dangling")).unwrap();
        for path in ["dangling", "dangling/below"] {
            let refused = make(&at(path)).unwrap_err();
            assert!(refused.to_string().contains("dangling"), "{refused}");
            assert!(refused.to_string().contains("symbolic link"), "{refused}");
        }
        assert!(fs::symlink_metadata(at("nowhere")).is_err(), "its target was made");
        symlink("loop", at("loop")).unwrap();
        assert_eq!(make(&at("loop")).unwrap_err().errno(), Errno::LOOP);
    }

    #[test]
    fn a_file_on_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let refused = make(&dir.path().join("file/below/deep")).unwrap_err();
        assert_eq!(refused.errno(), Errno::NOTDIR);
        assert!(refused.to_string().contains("/file)"), "{refused}");
        let refused = make_directory("/proc/not-there/deep").unwrap_err();
        assert!(refused.to_string().contains("mkdir(/proc/not-there)"), "{refused}");
    }

    #[test]
    fn many_at_once_make_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c/d");
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(|| make(&path))).collect();
            for made in all {
                made.join().unwrap().unwrap();
            }
        });
        assert!(path.is_dir());
    }
}
