// SPDX-License-Identifier: Apache-2.0
//! Files of programs: one that nobody can change, and the memory that a program's own takes.

use crate::error::{Error, Result};
use crate::mount::{Attr, mount_setattr};
use rustix::fs::{Mode, OFlags, fchmod, openat};
use rustix::mm::{Advice, madvise};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

/// Puts `bytes` into a file that is alone in a filesystem in memory, mounted read-only and nowhere, to be
/// executed by descriptor. It lasts as long as somebody has it open or runs it.
///
/// A process that runs it shows it as `/proc/<pid>/exe`, also to containers while they start. The mode, owner and
/// attributes of a sealed file in memory ([`crate::sealed_memfd`]) could still be changed through that, so that
/// nobody could run it any more; here all of these changes fail with EROFS.
///
/// `fsopen(2)`, `fsmount(2)`, Linux 5.2; `mount_setattr(2)`, 5.12.
///
/// # Errors
/// Where mounting is refused.
pub fn read_only_program(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let filesystem =
        fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(Error::of(|| "fsopen(tmpfs)"))?;
    fsconfig_create(&filesystem).map_err(Error::of(|| "fsconfig(tmpfs, CREATE)"))?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
        .map_err(Error::of(|| "fsmount(tmpfs, NOSUID | NODEV)"))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&mount, name, flags, Mode::RUSR)
        .map_err(Error::of(|| format!("openat({name}, CREATE)")))?;
    let mut file = File::from(file);
    file.write_all(bytes)
        .map_err(Error::of_io(|| format!("write({name}, {} bytes)", bytes.len())))?;
    // Whatever the umask is.
    fchmod(&file, Mode::from_raw_mode(0o555))
        .map_err(Error::of(|| format!("fchmod({name}, 0555)")))?;
    // As long as it is open for writing it cannot be executed, nor its mount be read-only.
    drop(file);
    let set = Attr::RDONLY | Attr::NOSUID | Attr::NODEV;
    mount_setattr(mount.as_fd(), false, &Attr { set, ..Attr::default() })?;
    openat(&mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::of(|| format!("openat({name})")))
}

/// Lets go of what is mapped of the running program's code and constants. What is used again comes back by
/// a fault from the page cache, without a read of the disk unless the node was short of memory.
///
/// Most of a program is only touched at its start, and the kernel maps sixteen pages around each that is
/// touched (`fault_around_bytes`): for a daemon that waits that is most of its resident memory.
///
/// Gives how many bytes the parts have.
pub fn drop_code_pages() -> Result<usize> {
    let failed = || "read(/proc/self/maps)";
    let exe = fs::read_link("/proc/self/exe").map_err(Error::of_io(failed))?;
    let maps = fs::read_to_string("/proc/self/maps").map_err(Error::of_io(failed))?;
    let mut bytes = 0;
    for (start, length) in maps.lines().filter_map(|line| constant(line, &exe.to_string_lossy())) {
        let at = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a whole private mapping of a file that this process cannot write: code,
        // or the constants before it, of which it has no pages of its own. What is dropped is read again from
        // the same file, which cannot be written either while it runs (ETXTBSY), at the next access.
        unsafe { madvise(at, length, Advice::LinuxDontNeed) }
            .map_err(Error::of(|| format!("madvise({start:#x}, {length}, DONTNEED)")))?;
        bytes += length;
    }
    Ok(bytes)
}

/// Start and length of a mapping of the program that never had pages of its own: its code, and what lies
/// before that in the file. What is relocated lies behind, and may look read-only too.
fn constant(line: &str, exe: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let is_constant =
        rights == "r-xp" || rights == "r--p" && offset.bytes().all(|byte| byte == b'0');
    if !is_constant || words.nth(2)? != exe {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let start = number(start)?;
    Some((start, number(end)?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_change_a_read_only_program_by_any_way_in() {
        use rustix::fs::{Gid, Uid, XattrFlags, chown, setxattr};
        use rustix::io::Errno;
        use std::os::fd::AsRawFd as _;
        use std::os::unix::fs::PermissionsExt as _;
        if !crate::root_is_here("nobody_can_change_a_read_only_program_by_any_way_in") {
            return;
        }
        let program = read_only_program("test", &fs::read("/bin/true").unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let errno = |err: std::io::Error| Errno::from_io_error(&err).unwrap();
        let none = fs::Permissions::from_mode(0o0);
        assert_eq!(errno(fs::set_permissions(&path, none.clone()).unwrap_err()), Errno::ROFS);
        assert_eq!(
            errno(File::from(program.try_clone().unwrap()).set_permissions(none).unwrap_err()),
            Errno::ROFS
        );
        assert_eq!(chown(&path, Some(Uid::ROOT), Some(Gid::ROOT)), Err(Errno::ROFS));
        for name in ["trusted.test", "security.capability"] {
            assert_eq!(
                setxattr(&path, name, b"x", XattrFlags::empty()),
                Err(Errno::ROFS),
                "{name}"
            );
        }
        assert_eq!(errno(File::options().write(true).open(&path).unwrap_err()), Errno::ROFS);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode(), 0o100_555);
        assert!(std::process::Command::new(&path).status().unwrap().success());
    }

    #[test]
    fn code_and_the_constants_before_it_are_let_go_of_and_nothing_else() {
        let found = |line| constant(line, "/usr/bin/hull");
        assert_eq!(
            found("1000-3000 r--p 00000000 fe:00 9978953    /usr/bin/hull"),
            Some((0x1000, 0x2000))
        );
        assert_eq!(
            found("3000-5000 r-xp 00002000 fe:00 9978953    /usr/bin/hull"),
            Some((0x3000, 0x2000))
        );
        for other in [
            "5000-6000 r--p 00004000 fe:00 9978953    /usr/bin/hull",
            "6000-7000 rw-p 00005000 fe:00 9978953    /usr/bin/hull",
            "3000-5000 r-xs 00002000 fe:00 9978953    /usr/bin/hull",
            "3000-5000 r-xp 00002000 fe:00 9978953    /usr/lib/libc.so.6",
            "7000-8000 rw-p 00000000 00:00 0",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn it_goes_on_running_afterwards() {
        assert!(drop_code_pages().unwrap() > 1 << 16);
        assert_eq!(format!("{:?}", [1, 2, 3].map(|of| of * 2)), "[2, 4, 6]");
    }
}
