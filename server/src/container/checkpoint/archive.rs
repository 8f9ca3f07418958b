// SPDX-License-Identifier: Apache-2.0
//! The archive of a checkpoint, as CRI-O and containerd write it and checkpointctl reads it.
//!
//! ```text
//! checkpoint/         CRIU's images, and descriptors.json: where the standard streams led, for runc
//! spec.dump           the OCI spec, with the names of container and pod
//! config.dump         container and image by name
//! status, status.dump the state: times and process id, and the status of CRI
//! rootfs-diff.tar     files that the container has added or changed
//! deleted.files       those that it has removed
//! dump.log, stats-dump
//! ```
//!
//! The rule: the file has no name until it is complete and on disk, and replaces none. Only root can read it: it holds
//! the memory of the container.

use super::error::Error;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open, openat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path};
use std::time::{Duration, Instant};
use tar::{Builder, EntryType, Header};

/// The file that a checkpoint goes to: without a name yet.
#[derive(Debug)]
pub(super) struct Target {
    directory: OwnedFd,
    name: std::ffi::OsString,
    shown: String,
    file: File,
}

impl Target {
    /// Opens the directory of `location`, and an unnamed file in it.
    pub(super) fn open(location: &Path) -> Result<Self, Error> {
        let shown = location.display().to_string();
        let bad = |why| Error::Location { path: shown.clone(), why };
        if !location.is_absolute() {
            return Err(bad("it is not an absolute path"));
        }
        if location.components().any(|part| part == Component::ParentDir) {
            return Err(bad("it contains `..`"));
        }
        // `a/.` and `a/` name a directory.
        let ends_as_directory = shown.ends_with('/') || shown.ends_with("/.");
        let (Some(parent), Some(name), false) =
            (location.parent(), location.file_name(), ends_as_directory)
        else {
            return Err(bad("it names no file"));
        };
        let failed = |errno: Errno| Error::Directory { path: shown.clone(), source: errno.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(parent, flags, Mode::empty()).map_err(failed)?;
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(Error::Exists { path: shown }),
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = openat(&directory, ".", flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        Ok(Self { directory, name: name.to_owned(), file: file.into(), shown })
    }

    /// Gives the complete file its name.
    pub(super) fn finish(self) -> Result<(), Error> {
        const STORING: &str = "store its archive";
        self.file.sync_all().map_err(Error::io(STORING))?;
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match linkat(CWD, &file, &self.directory, &self.name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(Error::Exists { path: self.shown }),
            Err(errno) => Err(Error::errno(STORING)(errno)),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// A limit on what is written, in bytes and in time.
#[derive(Debug)]
pub(super) struct Bounded<W> {
    to: W,
    left: u64,
    until: Instant,
    exceeded: Option<Exceeded>,
}

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exceeded {
    Bytes,
    Time,
}

impl<W: Write> Bounded<W> {
    pub(super) fn new(to: W, bytes_max: u64, until: Instant) -> Self {
        Self { to, left: bytes_max, until, exceeded: None }
    }

    /// The error of this limit, if it is why something failed.
    pub(super) fn exceeded(&self, bytes: u64, limit: Duration) -> Option<Error> {
        self.exceeded.map(|exceeded| match exceeded {
            Exceeded::Bytes => Error::TooLarge { bytes },
            Exceeded::Time => Error::TimedOut { limit },
        })
    }
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let exceeded = if Instant::now() >= self.until {
            Some(Exceeded::Time)
        } else if length > self.left {
            Some(Exceeded::Bytes)
        } else {
            None
        };
        if let Some(exceeded) = exceeded {
            self.exceeded = Some(exceeded);
            return Err(io::Error::other("it exceeds a limit"));
        }
        let written = self.to.write(bytes)?;
        self.left = self.left.saturating_sub(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A document of the archive: its name and its text.
pub(super) type Document = (&'static str, Vec<u8>);

/// The files of the archive that lie in the work directory.
const FILES: [&str; 3] = ["dump.log", "stats-dump", ROOTFS_DIFF];
/// The name of the archive of changed files.
pub(super) const ROOTFS_DIFF: &str = "rootfs-diff.tar";
/// CRIU's images in the archive.
const IMAGES: &str = "checkpoint";
/// The targets of the standard streams, which runc's restore looks up.
const DESCRIPTORS: &str = "checkpoint/descriptors.json";

/// Writes everything into `to`.
pub(super) fn write(
    to: &mut dyn Write,
    documents: &[Document],
    descriptors: &[u8],
    work: &OwnedFd,
    images: &OwnedFd,
) -> io::Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(128 << 10, to));
    for (name, text) in documents {
        add(&mut archive, Path::new(name), text.len() as u64, &text[..])?;
    }
    for name in FILES {
        let (file, length) = open_file(work, name.as_ref())?;
        add(&mut archive, Path::new(name), length, file)?;
    }
    let mut header = header(EntryType::Directory, 0o700);
    archive.append_data(&mut header, IMAGES, io::empty())?;
    add(&mut archive, Path::new(DESCRIPTORS), descriptors.len() as u64, descriptors)?;
    for entry in rustix::fs::Dir::read_from(images)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
        let (file, length) = open_file(images, name)?;
        add(&mut archive, &Path::new(IMAGES).join(name), length, file)?;
    }
    archive.into_inner()?.into_inner().map_err(|err| err.into_error())?.flush()
}

fn open_file(directory: &OwnedFd, name: &OsStr) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(format!("{} is not a file", name.display())));
    }
    Ok((file, metadata.len()))
}

fn add<W: Write>(
    archive: &mut Builder<W>,
    name: &Path,
    length: u64,
    content: impl io::Read,
) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o600);
    header.set_size(length);
    archive.append_data(&mut header, name, content.take(length))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_target_has_no_name_until_it_is_complete_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.tar");
        let target = Target::open(&path).unwrap();
        target.file().write_all(b"half").unwrap();
        drop(target);
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());

        let (target, late) = (Target::open(&path).unwrap(), Target::open(&path).unwrap());
        target.file().write_all(b"whole").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(late.finish(), Err(Error::Exists { .. })));
        assert!(matches!(Target::open(&path), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_location_names_a_new_file_by_its_whole_path() {
        for bad in ["", "c.tar", "/tmp/../c.tar", "/", "/tmp/", "/tmp/."] {
            let refused = Target::open(Path::new(bad)).unwrap_err();
            assert!(matches!(refused, Error::Location { .. }), "{bad}: {refused}");
        }
        let refused = Target::open(Path::new("/nonexistent/c.tar")).unwrap_err();
        assert!(matches!(refused, Error::Directory { .. }), "{refused}");
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
        assert!(matches!(Target::open(&link), Err(Error::Exists { .. })));
    }

    #[test]
    fn an_archive_has_images_below_checkpoint_and_the_rest_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        for name in FILES.into_iter().chain(["images/pages-1.img", "lock"]) {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let open = |path: &Path| open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let (work, images) = (open(dir.path()).unwrap(), open(&dir.path().join("images")).unwrap());
        let mut bytes = Vec::new();
        let documents = [("config.dump", b"{}".to_vec())];
        write(&mut bytes, &documents, b"[]", &work, &images).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.insert(entry.path().unwrap().display().to_string(), text);
        }
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "checkpoint",
                "checkpoint/descriptors.json",
                "checkpoint/pages-1.img",
                "config.dump",
                "dump.log",
                "rootfs-diff.tar",
                "stats-dump",
            ]
        );
        assert_eq!(found["checkpoint/pages-1.img"], "images/pages-1.img");
    }

    #[test]
    fn writing_ends_at_either_limit() {
        let later = Instant::now() + Duration::from_secs(60);
        let mut bytes = Bounded::new(Vec::new(), 3, later);
        bytes.write_all(b"abc").unwrap();
        assert!(bytes.exceeded(3, Duration::ZERO).is_none());
        assert!(bytes.write_all(b"d").is_err());
        assert!(matches!(bytes.exceeded(3, Duration::ZERO), Some(Error::TooLarge { bytes: 3 })));
        let mut late = Bounded::new(Vec::new(), 3, Instant::now());
        assert!(late.write_all(b"a").is_err());
        assert!(matches!(late.exceeded(3, Duration::ZERO), Some(Error::TimedOut { .. })));
    }
}
