// SPDX-License-Identifier: Apache-2.0
//! Unix sockets at paths that an operator has chosen. `unix(7)`.
//!
//! The rule: only a socket that no program listens on is replaced. A file, a directory, a device, a pipe or a link
//! there is somebody's data, or a mistake in the configuration.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Connections that wait to be accepted; the kernel allows `net.core.somaxconn`, 4,096 by default.
const BACKLOG: i32 = 4096;

/// Why a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketPathError {
    /// The path names something that is not a socket; nothing was changed.
    #[error("it is {what}, not a socket")]
    NotASocket {
        /// A noun with its article, such as `a file`.
        what: &'static str,
    },
    /// A program listens there; nothing was changed.
    #[error("another program listens there")]
    InUse,
    /// The error of the kernel.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for SocketPathError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The file of a bound socket.
#[derive(Debug)]
pub struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    /// Device and inode number.
    identity: (u64, u64),
}

impl SocketFile {
    /// Removes the file, unless it is gone or something else is in its place.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn remove(&self) -> io::Result<()> {
        let found = match statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        // A number that was freed may be that of another file by now.
        let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
        if !is_socket || identity(&found) != self.identity {
            return Ok(());
        }
        match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Listens at `path`, for its owner alone (mode 0600). A socket that no program listens on is replaced.
///
/// # Errors
/// See [`SocketPathError`].
pub fn listen_at(path: &Path) -> Result<(UnixListener, SocketFile), SocketPathError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(SocketPathError::NotASocket { what: "a directory" });
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, parent, flags, Mode::empty())?;
    match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
        Ok(found) => {
            if let Some(what) = other_kind(FileType::from_raw_mode(found.st_mode)) {
                return Err(SocketPathError::NotASocket { what });
            }
            if is_in_use(path)? {
                return Err(SocketPathError::InUse);
            }
            unlinkat(&directory, name, AtFlags::empty())?;
        }
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Before the bind, which gives the file the socket's mode: it never has another one.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let bound = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let file = SocketFile { directory, name: name.to_owned(), identity: identity(&bound) };
    if let Err(errno) = listen(&socket, BACKLOG) {
        let _left = file.remove();
        return Err(errno.into());
    }
    Ok((socket.into(), file))
}

/// The name of a kind of file that is not a socket.
fn other_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::Socket => None,
        FileType::RegularFile => Some("a file"),
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a named pipe"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Unknown => Some("a file of an unknown kind"),
    }
}

/// Whether a program holds the socket at `path`. Does not wait for a program that accepts no connections.
fn is_in_use(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&client, &SocketAddrUnix::new(path)?) {
        // Nobody listens, or it is gone by now.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // It is of another type, or its queue of connections is full.
        Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn identity(of: &Stat) -> (u64, u64) {
    (of.st_dev, of.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mknodat;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn only_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("directory")).unwrap();
        drop(UnixListener::bind(at("stale")).unwrap());
        symlink(at("file"), at("link")).unwrap();
        symlink(at("stale"), at("link to a socket")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for (name, what) in [
            ("file", "a file"),
            ("directory", "a directory"),
            ("link", "a symbolic link"),
            ("link to a socket", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("pipe", "a named pipe"),
        ] {
            let before = fs::symlink_metadata(at(name)).unwrap();
            let refused = listen_at(&at(name)).unwrap_err();
            assert_eq!(refused.to_string(), format!("it is {what}, not a socket"), "{name}");
            let after = fs::symlink_metadata(at(name)).unwrap();
            assert_eq!(before.file_type(), after.file_type(), "{name}");
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
        assert!(!at("nothing").try_exists().unwrap());
        listen_at(Path::new("/")).unwrap_err();
        listen_at(Path::new("/dev/null")).unwrap_err();
        assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = listen_at(&path).unwrap();
        drop(UnixStream::connect(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen_at(&path), Err(SocketPathError::InUse)));
        drop(listener);
        let datagrams = dir.path().join("datagrams");
        let _receiver = UnixDatagram::bind(&datagrams).unwrap();
        assert!(matches!(listen_at(&datagrams), Err(SocketPathError::InUse)));
        file.remove().unwrap();
        assert!(!path.try_exists().unwrap());
        file.remove().unwrap();
        fs::write(&path, "of somebody else").unwrap();
        file.remove().unwrap();
        assert!(path.try_exists().unwrap());
    }

    /// A connection that waits for its turn would block the start of a daemon.
    #[test]
    fn a_socket_whose_queue_is_full_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let (address, busy) = (SocketAddrUnix::new(&path).unwrap(), open());
        rustix::net::bind(&busy, &address).unwrap();
        rustix::net::listen(&busy, 1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = open();
            match connect(&client, &address) {
                Ok(()) => waiting.push(client),
                Err(Errno::AGAIN) => break,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(listen_at(&path), Err(SocketPathError::InUse)));
    }
}
