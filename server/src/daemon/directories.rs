// SPDX-License-Identifier: Apache-2.0
//! The state directory and the data directory: each is a directory, and one daemon's alone.

use rustix::fs::OFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why a directory cannot be used. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use `{}` as `{key}`: {}, not a directory", path.display(), named(path, at, what))]
    NotADirectory { key: &'static str, path: PathBuf, at: PathBuf, what: &'static str },
    #[error("lock {}: another hull uses this state directory", path.display())]
    Locked { path: PathBuf },
    #[error("lock {}: another hull uses this data directory", path.display())]
    DataLocked { path: PathBuf },
    #[error("lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
}

/// The part of `path` that is not a directory, as in "it is a file" and "`/etc/passwd` is a file".
fn named(path: &Path, at: &Path, what: &str) -> String {
    if path == at { format!("it is {what}") } else { format!("`{}` is {what}", at.display()) }
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotADirectory { key, at, .. } => {
                let flag = key.replace('_', "-");
                Some(format!(
                    "set `{key}` (`--{flag}`) to a directory, which hull creates if it is missing; or move `{}` away if nothing needs it",
                    at.display()
                ))
            }
            Self::Locked { .. } => {
                Some("stop the other daemon, or give this one its own `state_dir`".into())
            }
            Self::DataLocked { .. } => {
                Some("stop the other daemon, or give this one its own `data_dir`".into())
            }
            Self::Lock { .. } => {
                Some("check that its directory is writable, and on no read-only file system".into())
            }
        }
    }
}

/// Refuses a path that is, or is below, something that is not a directory. A missing path is created later.
pub(super) fn check(key: &'static str, path: &Path) -> Result<(), Error> {
    for at in path.ancestors().filter(|at| !at.as_os_str().is_empty()) {
        let what = match fs::metadata(at) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(found) if found.is_file() => "a file",
            Ok(_) => "a device, a pipe or a socket",
            Err(_) if fs::symlink_metadata(at).is_ok_and(|of| of.is_symlink()) => {
                "a symbolic link that leads nowhere"
            }
            // The first part of the path that exists decides.
            Err(_) => continue,
        };
        let (path, at) = (path.to_owned(), at.to_owned());
        return Err(Error::NotADirectory { key, path, at, what });
    }
    Ok(())
}

/// Locks the state directory for one daemon. The lock goes with the process.
pub(super) fn lock(state_dir: &Path) -> Result<File, Error> {
    let path = state_dir.join("lock");
    let failed = |source| Error::Lock { path: path.clone(), source };
    // A link could lead to a file of somebody else, whose mode is changed below; a FIFO would wait for a reader.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(&path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    // One that an earlier release made, too.
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path }),
        Err(fs::TryLockError::Error(source)) => Err(Error::Lock { path, source }),
    }
}

/// Locks the data directory for one daemon: a second one takes the first one's pods and layers for leaks. The
/// directory itself is locked, since it may be read-only.
pub(super) fn lock_data(data_dir: &Path) -> Result<Option<File>, Error> {
    let failed = |source| Error::Lock { path: data_dir.to_owned(), source };
    let made = data_dir.parent().map_or(Ok(()), fs::create_dir_all);
    // For root alone: volumes in it are writable for every user of a container.
    let made = made.and_then(|()| match fs::DirBuilder::new().mode(0o700).create(data_dir) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && data_dir.is_dir() => Ok(()),
        made => made,
    });
    match made {
        // The image store says what that means.
        Err(err) if err.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
        other => other.map_err(failed)?,
    }
    let directory = File::open(data_dir).map_err(failed)?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(fs::TryLockError::WouldBlock) => Err(Error::DataLocked { path: data_dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_lock_that_is_a_link_or_a_fifo_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, others) = (dir.path().join("lock"), dir.path().join("of somebody else"));
        fs::write(&others, "").unwrap();
        fs::set_permissions(&others, fs::Permissions::from_mode(0o644)).unwrap();
        for target in [others.clone(), dir.path().join("dangling")] {
            symlink(&target, &path).unwrap();
            lock(dir.path()).unwrap_err();
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::metadata(&others).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(!dir.path().join("dangling").try_exists().unwrap());
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        lock(dir.path()).unwrap_err();
        fs::remove_file(&path).unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(Error::Locked { .. })));
        drop(first);
    }

    #[test]
    fn a_path_that_is_not_a_directory_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        symlink(at("nothing"), at("link")).unwrap();
        symlink(dir.path(), at("to a directory")).unwrap();
        for good in ["", "new", "new/deeper", "to a directory", "to a directory/new"] {
            check("data_dir", &at(good)).unwrap();
        }
        for (name, wanted) in [
            ("file", "it is a file, not a directory"),
            ("file/below/it", "file` is a file, not a directory"),
            ("link", "it is a symbolic link that leads nowhere"),
            ("link/below", "link` is a symbolic link that leads nowhere"),
        ] {
            let refused = check("data_dir", &at(name)).unwrap_err();
            let text = refused.to_string();
            assert!(text.starts_with("use `") && text.contains("as `data_dir`: "), "{text}");
            assert!(text.contains(wanted), "{text}");
            assert!(refused.hint().unwrap().contains("`--data-dir`"), "{:?}", refused.hint());
        }
    }
}
