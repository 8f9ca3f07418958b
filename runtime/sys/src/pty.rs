// SPDX-License-Identifier: Apache-2.0
//! Opens pseudoterminals: pty(7).

use crate::pass_fd::receive_fd;
use crate::resolve::open_in_root;
use crate::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, major, minor, openat2};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// `DEVPTS_SUPER_MAGIC`, include/uapi/linux/magic.h.
const DEVPTS_MAGIC: rustix::fs::FsWord = 0x1cd1;
/// Device number of `ptmx`: `ptmx(4)`.
const PTMX: (u32, u32) = (5, 2);

/// Both ends of a new pseudoterminal. Neither is anybody's controlling terminal, and both are closed on exec.
#[derive(Debug)]
pub struct Pty {
    /// The end that reads the output and writes the input.
    pub master: OwnedFd,
    /// The end for the process.
    pub slave: OwnedFd,
}

/// Opens a pseudoterminal of the host. `posix_openpt(3)`.
///
/// # Errors
/// The call that fails.
pub fn open_pty() -> Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).map_err(Error::of(|| "openpt()"))?;
    grantpt(&master).map_err(Error::of(|| "grantpt()"))?;
    peer_of(master)
}

/// Opens a pseudoterminal of the devpts at /dev/pts beneath `root`: where its processes see it by its own name.
/// It belongs to the calling user.
///
/// Nothing that the owner of `root` puts there leads elsewhere: no link is followed, the directory must be a devpts,
/// in which the kernel alone makes files, and nothing may be mounted over its `ptmx`.
///
/// # Errors
/// The call that fails; `ENODEV` where /dev/pts is not a devpts, `ELOOP` where it is behind a link, `EXDEV` where
/// `ptmx` is a mount point.
pub fn open_pty_in(root: BorrowedFd<'_>) -> Result<Pty> {
    let call = |what: &'static str| Error::of(move || format!("openat2({what} of the container)"));
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let devpts = open_in_root(root, "dev/pts", flags, ResolveFlags::NO_SYMLINKS)
        .map_err(call("/dev/pts"))?;
    if !is_on_devpts(devpts.as_fd())? {
        let call = "fstatfs(/dev/pts of the container): it is not a devpts";
        return Err(Error::new(Errno::NODEV, call));
    }
    let here = ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master =
        openat2(&devpts, "ptmx", flags, Mode::empty(), here).map_err(call("/dev/pts/ptmx"))?;
    if !is_ptmx(master.as_fd())? {
        let call = "fstat(/dev/pts/ptmx of the container): it is not the device 5:2";
        return Err(Error::new(Errno::NODEV, call));
    }
    rustix::io::ioctl_fionbio(&master, false).map_err(Error::of(|| "ioctl(FIONBIO)"))?;
    peer_of(master)
}

/// Receives the master of a terminal that another process opened with [`open_pty_in`]. Never blocks.
///
/// # Errors
/// Nothing has come, or it is not the master of a terminal.
pub fn receive_master(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let wrong = |call: &'static str| Error::new(Errno::NOTTY, call);
    let received = receive_fd(socket)?.ok_or_else(|| wrong("recvmsg(master): none came"))?;
    if is_ptmx(received.as_fd())? && is_on_devpts(received.as_fd())? {
        return Ok(received);
    }
    Err(wrong("recvmsg(master): it is not the master of a terminal"))
}

fn is_on_devpts(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = fstatfs(fd).map_err(Error::of(|| "fstatfs(/dev/pts)"))?;
    Ok(stat.f_type == DEVPTS_MAGIC)
}

fn is_ptmx(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = fstat(fd).map_err(Error::of(|| "fstat(ptmx)"))?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(is_character && (major(stat.st_rdev), minor(stat.st_rdev)) == PTMX)
}

/// The slave is opened by its master, so it is right whatever is mounted: `TIOCGPTPEER` of `ioctl_tty(2)`, Linux 4.13.
fn peer_of(master: OwnedFd) -> Result<Pty> {
    unlockpt(&master).map_err(Error::of(|| "unlockpt()"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave =
        ioctl_tiocgptpeer(master.as_fd(), flags).map_err(Error::of(|| "ioctl(TIOCGPTPEER)"))?;
    Ok(Pty { master, slave })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ends_are_one_terminal() {
        let pty = open_pty().unwrap();
        rustix::io::write(&pty.master, b"line\n").unwrap();
        let mut line = [0; 5];
        assert_eq!(rustix::io::read(&pty.slave, &mut line), Ok(5));
        assert_eq!(&line, b"line\n");
    }

    #[test]
    fn only_a_devpts_has_terminals() {
        let root = std::env::temp_dir().join(format!("hull-pty-{}", std::process::id()));
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(&root, flags, Mode::empty()).unwrap();
            open_pty_in(root.as_fd()).map(drop).map_err(|err| err.errno())
        };
        std::fs::create_dir_all(root.join("dev")).unwrap();
        let none = open();
        std::os::unix::fs::symlink("/dev/pts", root.join("dev/pts")).unwrap();
        let link = open();
        std::fs::remove_file(root.join("dev/pts")).unwrap();
        std::fs::create_dir(root.join("dev/pts")).unwrap();
        let directory = open();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            [none, link, directory],
            [Err(Errno::NOENT), Err(Errno::LOOP), Err(Errno::NODEV)]
        );
    }
}
