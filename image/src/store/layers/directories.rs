// SPDX-License-Identifier: Apache-2.0
//! The owner and mode of directories that a layer implies but does not list.
//!
//! A layer is unpacked by itself, and shared by images with other layers below it. So a directory that it implies
//! has a default owner and mode there, which overlayfs would show. For such directories Hull puts one more layer
//! on top of the image, which has nothing but directories, each with the metadata from below. Its archive is made
//! here and unpacked like any other, so it is shared, verified, repaired and removed as other layers are.
//!
//! The rule: a path is looked up in the layers one component at a time, on descriptors, and what a layer hides
//! (whiteouts, opaque directories, files) is hidden here too.

use crate::error::Cause;
use crate::fs::files;
use crate::limits::{IMPLIED_NAME_BYTES, Shift};
use crate::unpack::{self, charge, cost, split, target};
use hull_sys as sys;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use tar::{Builder, EntryType, Header};

/// The largest number of symlinks on the way to one directory.
const LINKS_MAX: u32 = 40;
/// The largest value and the largest list of names of extended attributes. `xattr(7)`
const XATTR_BYTES_MAX: usize = 64 << 10;
/// The mode that a directory has which no layer lists.
const DEFAULT_MODE: u32 = 0o755;

/// A layer of an image.
pub(super) struct Below {
    pub(super) root: OwnedFd,
    /// The directories that it implies but does not list. The root's path is empty.
    pub(super) implied: HashSet<Vec<u8>>,
}

/// The metadata that a directory of an image shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Shown {
    fn is_default(&self) -> bool {
        (self.mode, self.uid, self.gid) == (DEFAULT_MODE, 0, 0) && self.xattrs.is_empty()
    }
}

/// How a path is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// The topmost directory of exactly this path.
    Topmost,
    /// The topmost directory that its layer lists, through symlinks.
    Listed,
}

/// A directory that was found: in which layer, and itself.
struct Found {
    layer: usize,
    dir: OwnedFd,
}

/// The step from a directory to one in it.
enum Step {
    Into(OwnedFd),
    Symlink(Vec<u8>),
    /// This layer does not have it.
    Absent,
    /// This layer hides it.
    Hidden,
}

/// The archive of the layer that an image with `layers` (lowest first) needs on top of them, if it needs one.
pub(super) fn archive(layers: &[Below], shift: &Shift) -> Result<Option<Vec<u8>>, unpack::Error> {
    let made = |source| unpack::Error::Make { entry: "directories".into(), source };
    let mut shown: BTreeMap<Vec<u8>, Shown> = BTreeMap::new();
    let mut reader = MetadataReader::default();
    for (number, layer) in layers.iter().enumerate() {
        for path in &layer.implied {
            shift.check().map_err(unpack::Error::of_read)?;
            let top = find(layers, path, Search::Topmost).map_err(made)?;
            if top.is_none_or(|top| top.layer != number) {
                continue;
            }
            let listed = find(&layers[..=number], path, Search::Listed).map_err(made)?;
            let Some(listed) = listed else { continue };
            let before = reader.bytes;
            let metadata = reader.read(path, &listed.dir)?;
            if metadata.is_default() {
                reader.bytes = before;
            } else {
                shown.insert(path.clone(), metadata);
            }
        }
    }
    if shown.is_empty() {
        return Ok(None);
    }
    for above in parents(&shown) {
        shift.check().map_err(unpack::Error::of_read)?;
        if let Some(top) = find(layers, &above, Search::Topmost).map_err(made)? {
            let metadata = reader.read(&above, &top.dir)?;
            shown.insert(above, metadata);
        }
    }
    write(&shown).map(Some).map_err(|err| made(sys::Error::of_io(|| "write(directories)")(err)))
}

/// The directories above those in `shown` that are not among them, the root first.
fn parents(shown: &BTreeMap<Vec<u8>, Shown>) -> Vec<Vec<u8>> {
    let mut parents = HashSet::new();
    for path in shown.keys() {
        let mut above = path.as_slice();
        while !above.is_empty() {
            above = split(above).0;
            if shown.contains_key(above) || !parents.insert(above.to_vec()) {
                break;
            }
        }
    }
    parents.into_iter().collect()
}

/// Finds the directory `path` in the merged `layers`.
fn find(layers: &[Below], path: &[u8], search: Search) -> sys::Result<Option<Found>> {
    let mut path = path.to_vec();
    'path: for _ in 0..LINKS_MAX {
        for (layer, below) in layers.iter().enumerate().rev() {
            let mut dir = open(&below.root, b".")?;
            let mut is_opaque = false;
            let mut done = 0;
            for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
                is_opaque |= files::hides_below(&dir);
                match step(&dir, part)? {
                    Step::Into(next) => dir = next,
                    Step::Symlink(to) if search == Search::Listed => {
                        let beside = &path[..done];
                        let rest = &path[(done + part.len() + 1).min(path.len())..];
                        let joined = [to.as_slice(), b"/", rest].concat();
                        let Ok(next) = target(beside, &joined) else { return Ok(None) };
                        path = next;
                        continue 'path;
                    }
                    Step::Symlink(_) | Step::Hidden => return Ok(None),
                    Step::Absent if is_opaque => return Ok(None),
                    Step::Absent => {
                        done = usize::MAX;
                        break;
                    }
                }
                done = (done + part.len() + 1).min(path.len());
            }
            if done == usize::MAX {
                continue;
            }
            if search == Search::Topmost || !below.implied.contains(&path) {
                return Ok(Some(Found { layer, dir }));
            }
            if is_opaque {
                return Ok(None);
            }
        }
        return Ok(None);
    }
    Ok(None)
}

fn open(at: impl AsFd, name: &[u8]) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
        .map_err(sys::Error::of(|| format!("openat({}, DIRECTORY)", name.escape_ascii())))
}

fn step(dir: &OwnedFd, part: &[u8]) -> sys::Result<Step> {
    let failed = |errno| sys::Error::new(errno, format!("fstatat({})", part.escape_ascii()));
    let stat = match statat(dir, part, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(Step::Absent),
        Err(errno) => return Err(failed(errno)),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => open(dir, part).map(Step::Into),
        FileType::Symlink => {
            let to = readlinkat(dir, part, Vec::new()).map_err(failed)?;
            Ok(Step::Symlink(to.into_bytes()))
        }
        FileType::RegularFile
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Ok(Step::Hidden),
    }
}

/// Reads the metadata of directories, and counts what it takes of the memory before it is kept.
struct MetadataReader {
    bytes: u64,
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Default for MetadataReader {
    fn default() -> Self {
        Self { bytes: 0, list: vec![0; XATTR_BYTES_MAX], value: vec![0; XATTR_BYTES_MAX] }
    }
}

impl MetadataReader {
    fn read(&mut self, path: &[u8], dir: &OwnedFd) -> Result<Shown, unpack::Error> {
        let made = |source| unpack::Error::Make { entry: "directories".into(), source };
        let failed =
            |errno| made(sys::Error::new(errno, format!("fstat({})", path.escape_ascii())));
        let max = IMPLIED_NAME_BYTES.default;
        charge(&IMPLIED_NAME_BYTES, &mut self.bytes, cost(path), max)?;
        let stat: Stat = fstat(dir).map_err(failed)?;
        let mut xattrs = Vec::new();
        let length = flistxattr(dir, self.list.as_mut_slice()).unwrap_or(0);
        let names = self.list[..length].split(|byte| *byte == 0);
        for name in names.filter(|name| name.starts_with(b"user.")) {
            // Text that is not UTF-8 cannot be the key of a record.
            let Ok(text) = std::str::from_utf8(name) else { continue };
            let length = fgetxattr(dir, text, self.value.as_mut_slice()).map_err(failed)?;
            let value = &self.value[..length];
            let more = cost(name).saturating_add(cost(value));
            charge(&IMPLIED_NAME_BYTES, &mut self.bytes, more, max)?;
            xattrs.push((text.to_owned(), value.to_vec()));
        }
        xattrs.sort_unstable();
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Ok(Shown {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, nanoseconds),
            xattrs,
        })
    }
}

/// The same directories make the same archive.
fn write(shown: &BTreeMap<Vec<u8>, Shown>) -> std::io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, of) in shown {
        // Nanoseconds count up from the second, which a decimal fraction before 1970 does not.
        let (seconds, nanoseconds) = of.mtime;
        let time =
            if seconds < 0 { seconds.to_string() } else { format!("{seconds}.{nanoseconds:09}") };
        let name = [b"./", path.as_slice(), b"/"].concat();
        let mut records: Vec<(String, &[u8])> =
            vec![("path".to_owned(), &name), ("mtime".to_owned(), time.as_bytes())];
        let keyed = |(key, value)| (format!("SCHILY.xattr.{key}"), value);
        records.extend(of.xattrs.iter().map(|(key, value)| keyed((key, value.as_slice()))));
        archive.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value)))?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(of.mode);
        header.set_uid(of.uid.into());
        header.set_gid(of.gid.into());
        header.set_size(0);
        header.set_cksum();
        archive.append(&header, std::io::empty())?;
    }
    archive.into_inner()
}

/// An error of this step, for the image's topmost layer.
pub(super) fn failed(layer: &str, source: unpack::Error) -> Cause {
    Cause::Layer { layer: layer.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{XattrFlags, setxattr};

    /// Attributes without a value take memory too.
    #[test]
    fn metadata_is_counted_before_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..100 {
            setxattr(dir.path(), format!("user.{number}"), b"", XattrFlags::empty()).unwrap();
        }
        let fd = open(rustix::fs::CWD, dir.path().as_os_str().as_encoded_bytes()).unwrap();
        let (mut reader, mut kept) = (MetadataReader::default(), Vec::new());
        let ended = loop {
            match reader.read(b"d", &fd) {
                Ok(shown) => kept.push(shown),
                Err(err) => break err,
            }
        };
        assert!(matches!(ended, unpack::Error::Limit { .. }), "{ended}");
        let bytes: usize = kept.iter().flat_map(|of| &of.xattrs).map(|of| of.1.capacity()).sum();
        assert!((100..2000).contains(&kept.len()) && bytes < 1 << 20, "{} {bytes}", kept.len());
    }
}
