// SPDX-License-Identifier: Apache-2.0
//! Files of our own in a directory of our own, where something else may lie in their place: a FIFO, a link, a
//! directory. None of these holds a reader up, leads it elsewhere, or stays when it is removed.

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Reads a regular file of at most `bytes_max` bytes. A link is not followed, and a FIFO that nobody writes to
/// is not waited for. `open(2)`, O_NOFOLLOW and O_NONBLOCK.
///
/// # Errors
/// As the kernel says; or that it is not a regular file, or longer.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    read_opened(open(path, flags, Mode::empty())?, bytes_max)
}

/// The same for a file that is open already. To be opened with O_NONBLOCK.
///
/// # Errors
/// As the kernel says; or that it is not a regular file, or longer.
pub fn read_opened(file: OwnedFd, bytes_max: u64) -> io::Result<Vec<u8>> {
    let stat = fstat(&file)?;
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(invalid("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > bytes_max {
        return Err(invalid(&format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Removes what is at `path`: a file, a link itself, or a directory with all that is in it. Nothing there counts
/// as removed.
///
/// # Errors
/// As the kernel says.
pub fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_file(path) {
        // EISDIR on Linux, EPERM by POSIX: unlink(2).
        Err(err)
            if matches!(
                err.kind(),
                io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied
            ) && fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) =>
        {
            fs::remove_dir_all(path)
        }
        other => other,
    };
    match removed {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mknodat};
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_regular_file_is_read_and_whatever_it_is_it_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        fs::create_dir_all(at("directory/inner")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("directory"), at("link to a directory")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(read_regular(&at("file"), 5).unwrap(), b"12345");
        read_regular(&at("file"), 4).unwrap_err();
        for odd in ["directory", "link", "link to a directory", "fifo", "nothing"] {
            read_regular(&at(odd), 5).unwrap_err();
        }
        for odd in ["link to a directory", "link", "fifo", "nothing"] {
            remove_any(&at(odd)).unwrap();
        }
        assert!(at("directory/inner").is_dir() && at("file").is_file());
        remove_any(&at("directory")).unwrap();
        remove_any(&at("file")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
