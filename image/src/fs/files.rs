// SPDX-License-Identifier: Apache-2.0
//! Files and directories of the store, with errors that name the path.

use data_encoding::HEXLOWER;
use hull_sys::{Error, Result};
use rustix::fs::{
    Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fgetxattr, fstat, open, syncfs,
};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Flags to open a directory with.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Opens a directory of the store.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    open(path, DIRECTORY, Mode::empty())
        .map_err(Error::of(|| format!("open({}, DIRECTORY)", path.display())))
}

/// Whether a directory of a layer hides what the layers below have in it: the opaque mark of overlayfs.
pub(crate) fn hides_below(dir: impl AsFd) -> bool {
    let mut value = [0; 1];
    fgetxattr(dir, "trusted.overlay.opaque", value.as_mut_slice()).is_ok_and(|_| value == *b"y")
}

/// Makes a directory if it is not there. Its mode is `mode` whatever the umask.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => rustix::fs::chmod(path, Mode::from_raw_mode(mode))
            .map_err(Error::of(|| format!("chmod({}, {mode:o})", path.display()))),
        Err(Errno::EXIST) => open_dir(path).map(drop),
        Err(errno) => Err(Error::new(errno, format!("mkdir({})", path.display()))),
    }
}

/// Makes an empty file, unless there is one.
pub(crate) fn make_empty(path: &Path, mode: u32) -> Result<()> {
    let failed = || format!("open({}, CREATE)", path.display());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::from_raw_mode(mode)).map_err(Error::of(failed))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::of(failed))
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let failed = || format!("getdents64({})", path.display());
    let mut names = Vec::new();
    for entry in Dir::new(open_dir(path)?).map_err(Error::of(failed))? {
        let entry = entry.map_err(Error::of(failed))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a file of the store for reading.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let failed = || format!("open({})", path.display());
    // The open of a FIFO would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = open(path, flags, Mode::empty()).map_err(Error::of(failed))?;
    let stat = fstat(&file).map_err(Error::of(|| format!("fstat({})", path.display())))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::new(Errno::INVAL, format!("{}: not a regular file", failed())));
    }
    Ok(file.into())
}

/// Makes a file that is not there yet.
pub(crate) fn create(path: &Path) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    open(path, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(Error::of(|| format!("open({}, CREATE)", path.display())))
}

/// Syncs the whole file system of `on`.
pub(crate) fn sync_all(on: impl AsFd, path: &Path) -> Result<()> {
    syncfs(on).map_err(Error::of(|| format!("syncfs({})", path.display())))
}

/// Renames within the store.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::rename(from, to)
        .map_err(Error::of(|| format!("rename({}, {})", from.display(), to.display())))
}

/// Removes a file. A missing file is a success.
pub(crate) fn unlink(path: &Path) -> Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new(errno, format!("unlink({})", path.display()))),
    }
}

/// The modification time of a file, to restore it.
pub(crate) fn modified(stat: &Stat) -> Timestamps {
    let nothing = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let tv_nsec = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec };
    Timestamps { last_access: nothing, last_modification }
}

/// A unique name.
pub(crate) fn unique(kind: &str) -> String {
    let mut bytes = [0; 8];
    hull_sys::random(&mut bytes);
    format!("{kind}-{}", HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_opened_and_a_fifo_does_not_make_anybody_wait() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        open_file(&at("file")).unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert_eq!(open_file(&at("link")).unwrap_err().errno(), Errno::LOOP);
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        for name in ["fifo", "."] {
            let err = open_file(&at(name)).unwrap_err();
            assert!(err.to_string().contains("not a regular file"), "{err}");
        }
    }
}
