// SPDX-License-Identifier: Apache-2.0
//! The files of the node: those of this machine, or those below `--root`.
//!
//! The rule: a path is resolved as if the root were `/`, links included, so nothing outside of it is read or
//! written; only regular files are read, up to a limit; nothing that is there is replaced.

use super::super::error::{Error, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Largest configuration file, in bytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Most entries of a directory.
const ENTRIES_MAX: usize = 100_000;

/// A directory that stands for `/` of the node.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the root.
    ///
    /// # Errors
    /// It is not a directory, or may not be opened.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let fd = fd.map_err(|errno| failed("open", &path.display().to_string(), errno))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The path as it is on this machine, for messages.
    pub(crate) fn shown(&self, path: &Path) -> String {
        self.path.join(inside(path)).display().to_string()
    }

    /// Opens a regular file, and returns its size with it; `None` if it is not there.
    ///
    /// # Errors
    /// It is something else than a file, or may not be opened.
    pub(crate) fn file(&self, path: &Path) -> Result<Option<(File, u64)>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.open_at(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed("open", &self.shown(path), errno)),
        };
        let stat = fstat(&fd).map_err(|errno| failed("look at", &self.shown(path), errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.unusable(path, "it is not a regular file"));
        }
        Ok(Some((File::from(fd), u64::try_from(stat.st_size).unwrap_or(0))))
    }

    /// The bytes of a file of at most `max` bytes; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is larger.
    pub(crate) fn bytes(&self, path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, _)) = self.file(path)? else { return Ok(None) };
        let bytes = hull_sys::files::read_opened(file.into(), max);
        bytes.map(Some).map_err(|err| {
            if err.kind() == ErrorKind::InvalidData {
                return self.unusable(path, &err.to_string());
            }
            Error::io(format!("read {}", self.shown(path)))(err)
        })
    }

    /// The text of a configuration file; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not UTF-8.
    pub(crate) fn text(&self, path: &Path) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(path, TEXT_BYTES_MAX)? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| self.unusable(path, "it is not UTF-8 text"))
    }

    /// The sorted names in a directory; none if it is not there. Names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// It cannot be listed, or has too many entries.
    pub(crate) fn names(&self, path: &Path) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let listing = |errno| failed("list", &self.shown(path), errno);
        let fd = match self.open_at(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(listing(errno)),
        };
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
            if names.len() > ENTRIES_MAX {
                return Err(self.unusable(path, &format!("it has more than {ENTRIES_MAX} entries")));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Creates a file, and the directories above it, and waits until its text is on the disk.
    ///
    /// # Errors
    /// It is there already, or cannot be written.
    pub(crate) fn create(&self, path: &Path, text: &str) -> Result<()> {
        let writing = |errno| failed("write", &self.shown(path), errno);
        let mut above = PathBuf::from("/");
        for part in inside(path).parent().into_iter().flat_map(Path::components) {
            let Component::Normal(name) = part else { continue };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = self.open_at(&above, flags, Mode::empty()).map_err(|errno| match errno {
                Errno::NOENT => self.leads_nowhere(&above),
                other => writing(other),
            })?;
            match mkdirat(&fd, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => above.push(name),
                Err(errno) => return Err(writing(errno)),
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(0o644);
        let fd = self.open_at(path, flags, mode).map_err(|errno| match errno {
            Errno::EXIST if matches!(self.file(path), Ok(None)) => self.leads_nowhere(path),
            Errno::NOENT => self.leads_nowhere(path.parent().unwrap_or(path)),
            other => writing(other),
        })?;
        let mut file = File::from(fd);
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(Error::io(format!("write {}", self.shown(path))))
    }

    /// The error for a file that cannot be used.
    pub(crate) fn unusable(&self, path: &Path, why: &str) -> Error {
        Error::Peer { what: self.shown(path), why: why.to_owned(), hint: None }
    }

    fn leads_nowhere(&self, path: &Path) -> Error {
        let why = "it is a link, and what it names is not there, or not below the root";
        Error::io(format!("write to {}", self.shown(path)))(std::io::Error::other(why))
    }

    fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, inside(path), flags | OFlags::CLOEXEC, mode, resolve)
    }
}

/// The path without its leading slash.
fn inside(path: &Path) -> &Path {
    let inside = path.strip_prefix("/").unwrap_or(path);
    if inside.as_os_str().is_empty() { Path::new(".") } else { inside }
}

fn failed(operation: &str, shown: &str, errno: Errno) -> Error {
    Error::io(format!("{operation} {shown}"))(errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_below_the_root_and_only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        std::fs::create_dir_all(dir.path().join("etc/d")).unwrap();
        std::fs::write(dir.path().join("etc/real"), "inside").unwrap();
        symlink("/etc/real", dir.path().join("etc/absolute")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("etc/out")).unwrap();
        symlink("../../../../../../etc/real", dir.path().join("etc/up")).unwrap();
        symlink("/etc/loop", dir.path().join("etc/loop")).unwrap();
        let fifo = dir.path().join("etc/fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, fifo, FileType::Fifo, mode, 0).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let text = |name: &str| root.text(Path::new(name));
        for name in ["/etc/real", "/etc/absolute", "/etc/up"] {
            assert_eq!(text(name).unwrap().as_deref(), Some("inside"), "{name}");
        }
        assert_eq!(text("/etc/out").unwrap(), None, "a link leads out of the root");
        assert_eq!(text("/etc/nothing").unwrap(), None);
        for name in ["/etc/d", "/etc/fifo", "/etc/loop"] {
            let error = text(name).unwrap_err().lines();
            assert!(error.contains(name), "{error}");
        }
        std::fs::write(dir.path().join("etc/huge"), vec![b'x'; 2 << 20]).unwrap();
        let error = text("/etc/huge").unwrap_err().lines();
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
        assert_eq!(root.names(Path::new("/none")).unwrap(), [""; 0]);
        assert!(root.names(Path::new("/etc")).unwrap().contains(&"real".to_owned()));
    }

    #[test]
    fn a_file_is_created_once_with_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = Path::new("/etc/hull/certs.d/a/hosts.toml");
        root.create(path, "x").unwrap();
        assert_eq!(root.text(path).unwrap().as_deref(), Some("x"));
        let error = root.create(path, "y").unwrap_err().lines();
        assert!(error.contains("hosts.toml"), "{error}");
        symlink("/nowhere", dir.path().join("etc/dangling")).unwrap();
        for path in ["/etc/dangling", "/etc/dangling/a/b"] {
            let error = root.create(Path::new(path), "z").unwrap_err().lines();
            assert!(error.contains("etc/dangling: it is a link"), "{error}");
        }
        assert_eq!(root.text(path).unwrap().as_deref(), Some("x"));
    }
}
