// SPDX-License-Identifier: Apache-2.0
//! Bounded reads of files, where something else may lie in their place: a FIFO, a device, a directory.

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev, open};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Reads a regular file of at most `bytes_max` bytes, which a link may lead to. `/dev/null` is an empty one, by which
/// people say that there is none.
///
/// # Errors
/// The error of the kernel; or the file is larger, or is not a regular file.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    let stat = fstat(&file)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_device && stat.st_rdev == makedev(1, 3) {
        return Ok(Vec::new());
    }
    read_opened(file, bytes_max)
}

/// Reads an open regular file of at most `bytes_max` bytes. Open it with O_NONBLOCK, so that a FIFO that nobody
/// writes to does not block the open.
///
/// # Errors
/// The error of the kernel; or the file is larger, or is not a regular file.
pub fn read_opened(file: OwnedFd, bytes_max: u64) -> io::Result<Vec<u8>> {
    let stat = fstat(&file)?;
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(invalid("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > bytes_max {
        return Err(invalid(&format!("it is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remove_tree;
    use rustix::fs::{CWD, mknodat};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        read_opened(open(path, flags, Mode::empty())?, bytes_max)
    }

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
        assert_eq!(read(&at("link"), 5).unwrap(), b"12345");
        assert_eq!(read(Path::new("/dev/null"), 5).unwrap(), b"");
        symlink("/dev/zero", at("endless")).unwrap();
        for odd in ["directory", "fifo", "endless", "link to a directory"] {
            let why = read(&at(odd), 5).unwrap_err().to_string();
            assert_eq!(why, "it is not a regular file", "{odd}");
        }
        fs::File::create_new(at("sparse")).unwrap().set_len(3 << 30).unwrap();
        assert_eq!(read(&at("sparse"), 5).unwrap_err().to_string(), "it is larger than 5 bytes");
        for odd in ["sparse", "endless"] {
            fs::remove_file(at(odd)).unwrap();
        }
        for odd in ["link to a directory", "link", "fifo", "nothing"] {
            remove_tree(&at(odd)).unwrap();
        }
        assert!(at("directory/inner").is_dir() && at("file").is_file());
        remove_tree(&at("directory")).unwrap();
        remove_tree(&at("file")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
