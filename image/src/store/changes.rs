// SPDX-License-Identifier: Apache-2.0
//! The changes that a container has made to its root file system, as a plain archive: files that were added or
//! changed, with owners as the container sees them; and the paths that it has removed.
//!
//! The rule: every object is opened by `O_PATH` without following links, looked at, and read through that descriptor.
//! The caller bounds the bytes; this file bounds what is held in memory.

use crate::fs::files;
use crate::fs::walk::{TreeState, Visited, walk};
use crate::limits::Work;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, major, minor, open, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Most bytes of paths of removed files.
const REMOVED_BYTES_MAX: usize = 16 << 20;
/// Most files with further names that are remembered at a time; each further one is written by each of its names.
const LINKED_MAX: usize = 1 << 16;
/// Longest list of extended attributes (`XATTR_LIST_MAX`), and longest value of one (`XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Attributes of overlayfs itself.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// Those by which a file or directory of a layer has its content elsewhere.
const ELSEWHERE: [&[u8]; 2] = [b"trusted.overlay.metacopy", b"trusted.overlay.redirect"];

/// A file of a file system: its device and its number there.
type FileId = (u64, u64);
/// The user and group of a file as the container sees them, of those on the host.
pub(super) type Owner<'a> = &'a dyn Fn(u32, u32) -> (u32, u32);

/// Writes the archive of the layer `upper` above the tree `lower`, and returns the absolute paths that are not there
/// any more.
pub(super) fn write(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    owner: Owner<'_>,
    out: &mut dyn Write,
) -> io::Result<Vec<String>> {
    let mut changes = Changes {
        lower,
        owner,
        archive: Builder::new(out),
        removed: Removed::default(),
        linked: HashMap::new(),
    };
    walk(upper, TreeState::Frozen, &Work::default(), |seen| changes.object(seen))?;
    changes.archive.into_inner()?.flush()?;
    Ok(changes.removed.paths)
}

/// The paths of removed files, bounded.
#[derive(Default)]
struct Removed {
    paths: Vec<String>,
    bytes: usize,
}

impl Removed {
    fn add(&mut self, path: &[u8]) -> io::Result<()> {
        self.bytes += path.len();
        if self.bytes > REMOVED_BYTES_MAX {
            return Err(io::Error::other("the container has removed too many files to list them"));
        }
        // Another name in its place would be that of another file.
        let path = std::str::from_utf8(path).map_err(|_| {
            let shown = String::from_utf8_lossy(path);
            io::Error::other(format!("the name of the removed file /{shown} is not UTF-8"))
        })?;
        self.paths.push(format!("/{path}"));
        Ok(())
    }
}

struct Changes<'a> {
    lower: BorrowedFd<'a>,
    owner: Owner<'a>,
    archive: Builder<&'a mut dyn Write>,
    removed: Removed,
    /// Files with several names: the name in the archive, and how many are still to come.
    linked: HashMap<FileId, (PathBuf, u64)>,
}

impl Changes<'_> {
    /// Adds one object of the layer. Returns whether it is a directory.
    fn object(&mut self, seen: &Visited<'_>) -> io::Result<bool> {
        let stat = statat(seen.parent, seen.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let path = Path::new(OsStr::from_bytes(seen.path));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                self.removed.add(seen.path)?;
            }
            FileType::Directory => {
                self.directory(seen, &stat, path)?;
                return Ok(true);
            }
            FileType::RegularFile => self.file(seen, path)?,
            FileType::Symlink => self.link(seen, &stat, path)?,
            FileType::Fifo => self.node(&stat, path, EntryType::Fifo)?,
            FileType::CharacterDevice => self.node(&stat, path, EntryType::Char)?,
            FileType::BlockDevice => self.node(&stat, path, EntryType::Block)?,
            // A socket belongs to the process that has bound it.
            FileType::Socket | FileType::Unknown => {}
        }
        Ok(false)
    }

    fn directory(&mut self, seen: &Visited<'_>, stat: &Stat, path: &Path) -> io::Result<()> {
        let dir = openat(seen.parent, seen.name, files::DIRECTORY, Mode::empty())?;
        if files::hides_below(&dir) {
            self.hidden_below(&dir, seen.path)?;
        }
        self.attributes(dir.as_fd(), path)?;
        let mut header = self.header(stat, EntryType::Directory);
        self.archive.append_data(&mut header, path, io::empty())
    }

    /// A directory that replaces one of the image hides everything that the image has in its place.
    fn hidden_below(&mut self, dir: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let below =
            match openat(self.lower, OsStr::from_bytes(path), files::DIRECTORY, Mode::empty()) {
                Ok(below) => below,
                // The image has no directory there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                Err(err) => return Err(err.into()),
            };
        let here: HashSet<Vec<u8>> = names(dir)?.into_iter().collect();
        for name in names(&below)?.into_iter().filter(|name| !here.contains(name)) {
            self.removed.add(&[path, b"/", &name].concat())?;
        }
        Ok(())
    }

    fn file(&mut self, seen: &Visited<'_>, path: &Path) -> io::Result<()> {
        // Never blocks, whatever has taken its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let held = openat(
            seen.parent,
            seen.name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = rustix::fs::fstat(&held)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other(format!("{} changes meanwhile", path.display())));
        }
        if self.is_linked(&stat, path)? {
            return Ok(());
        }
        let by_descriptor = format!("/proc/self/fd/{}", held.as_raw_fd());
        let file =
            File::from(open(by_descriptor, flags.difference(OFlags::NOFOLLOW), Mode::empty())?);
        self.attributes(file.as_fd(), path)?;
        let more = file.metadata()?.nlink().saturating_sub(1);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = self.header(&stat, EntryType::Regular);
        header.set_size(size);
        // A file that a command in the container shrinks or extends meanwhile has the length that the header says.
        let padded = file.take(size).chain(io::repeat(0)).take(size);
        self.archive.append_data(&mut header, path, padded)?;
        if more > 0 && self.linked.len() < LINKED_MAX {
            self.linked.insert(id(&stat), (path.to_owned(), more));
        }
        Ok(())
    }

    /// Writes a further name of a file that the archive has, as a hard link. Returns whether it did.
    fn is_linked(&mut self, stat: &Stat, path: &Path) -> io::Result<bool> {
        let Some((first, more)) = self.linked.get_mut(&id(stat)) else { return Ok(false) };
        *more = more.saturating_sub(1);
        let (first, is_last) = (first.clone(), *more == 0);
        if is_last {
            self.linked.remove(&id(stat));
        }
        let mut header = self.header(stat, EntryType::Link);
        self.archive.append_link(&mut header, path, first)?;
        Ok(true)
    }

    fn link(&mut self, seen: &Visited<'_>, stat: &Stat, path: &Path) -> io::Result<()> {
        let target = readlinkat(seen.parent, seen.name, Vec::new())?;
        let mut header = self.header(stat, EntryType::Symlink);
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        self.archive.append_link(&mut header, path, target)
    }

    fn node(&mut self, stat: &Stat, path: &Path, kind: EntryType) -> io::Result<()> {
        let mut header = self.header(stat, kind);
        if kind != EntryType::Fifo {
            header.set_device_major(major(stat.st_rdev))?;
            header.set_device_minor(minor(stat.st_rdev))?;
        }
        self.archive.append_data(&mut header, path, io::empty())
    }

    /// Writes the extended attributes of the next entry.
    fn attributes(&mut self, object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        let mut list = vec![0; XATTR_BYTES_MAX];
        let length = match flistxattr(object, list.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(err) => return Err(err.into()),
        };
        list.truncate(length);
        let mut found = Vec::new();
        for name in list.split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
            if ELSEWHERE.contains(&name.to_bytes()) {
                let path = path.display();
                return Err(io::Error::other(format!("the content of {path} is in another layer")));
            }
            let Ok(key) = name.to_str() else { continue };
            if name.to_bytes().starts_with(OVERLAY) {
                continue;
            }
            let mut value = vec![0; XATTR_BYTES_MAX];
            let length = fgetxattr(object, name, value.as_mut_slice())?;
            value.truncate(length);
            found.push((format!("SCHILY.xattr.{key}"), value));
        }
        if found.is_empty() {
            return Ok(());
        }
        self.archive
            .append_pax_extensions(found.iter().map(|(key, value)| (key.as_str(), &value[..])))
    }

    /// A header without content, with mode, owner and time.
    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        let (uid, gid) = (self.owner)(stat.st_uid, stat.st_gid);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        header
    }
}

fn id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, XattrFlags, makedev, mknodat, setxattr};
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// The entries of an archive: type, mode, owner, and content or target.
    fn read(archive: &[u8]) -> BTreeMap<String, (EntryType, u32, u64, String)> {
        let mut archive = tar::Archive::new(archive);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header();
            let (kind, mode, uid) =
                (header.entry_type(), header.mode().unwrap(), header.uid().unwrap());
            let target = entry.link_name().unwrap().map(|name| name.display().to_string());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.insert(path, (kind, mode, uid, target.unwrap_or(text)));
        }
        found
    }

    fn written(upper: &Path, lower: &Path) -> io::Result<(Vec<u8>, Vec<String>)> {
        let (upper, lower) = (files::open_dir(upper).unwrap(), files::open_dir(lower).unwrap());
        let mut archive = Vec::new();
        let owner = |uid: u32, gid: u32| (uid + 7, gid + 7);
        let removed = write(upper.as_fd(), lower.as_fd(), &owner, &mut archive)?;
        Ok((archive, removed))
    }

    #[test]
    fn an_archive_has_what_is_new_and_the_list_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        for path in ["lower/etc", "lower/opt", "upper/etc", "upper/opt", "upper/new"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(lower.join("etc/passwd"), "image").unwrap();
        fs::write(lower.join("opt/hidden"), "image").unwrap();
        fs::write(lower.join("opt/replaced"), "image").unwrap();
        fs::write(upper.join("opt/replaced"), "container").unwrap();
        fs::write(upper.join("new/file"), "content").unwrap();
        fs::set_permissions(upper.join("new/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(upper.join("new/file"), upper.join("new/same")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", upper.join("new/link")).unwrap();
        let whiteout = upper.join("etc/passwd");
        mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
        mknodat(CWD, upper.join("new/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        setxattr(upper.join("opt"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();

        let (archive, mut removed) = written(&upper, &lower).unwrap();
        removed.sort();
        assert_eq!(removed, ["/etc/passwd", "/opt/hidden"]);
        let found = read(&archive);
        let file = |name: &str| found.get(name).cloned();
        assert_eq!(file("opt/replaced").unwrap().3, "container");
        assert_eq!(file("new/link").unwrap().3, "/etc/passwd");
        assert_eq!(file("new/fifo").unwrap().0, EntryType::Fifo);
        let (one, other) = (file("new/file").unwrap(), file("new/same").unwrap());
        let (whole, link) = if one.0 == EntryType::Regular { (one, other) } else { (other, one) };
        assert_eq!((whole.1, whole.2, whole.3.as_str()), (0o640, 7, "content"));
        assert_eq!(link.0, EntryType::Link);
        assert!(file("etc/passwd").is_none() && file("opt/hidden").is_none(), "{found:?}");
    }

    #[test]
    fn attributes_of_files_are_kept_and_those_of_overlayfs_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let lower = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tool"), "x").unwrap();
        // VFS_CAP_REVISION_2 with CAP_NET_RAW, as setcap(8) writes it.
        let mut capability = [0; 20];
        (capability[3], capability[5]) = (2, 0x20);
        let tool = dir.path().join("tool");
        setxattr(&tool, "security.capability", &capability, XattrFlags::empty()).unwrap();
        setxattr(&tool, "trusted.overlay.origin", b"x", XattrFlags::empty()).unwrap();
        let (archive, _) = written(dir.path(), lower.path()).unwrap();
        let mut archive = tar::Archive::new(&archive[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let extensions = entry.pax_extensions().unwrap().unwrap();
        let keys: Vec<_> = extensions.map(|of| of.unwrap().key().unwrap().to_owned()).collect();
        assert_eq!(keys, ["SCHILY.xattr.security.capability"]);

        setxattr(&tool, "trusted.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
        let refused = written(dir.path(), lower.path()).unwrap_err();
        assert!(refused.to_string().contains("in another layer"), "{refused}");
    }
}
