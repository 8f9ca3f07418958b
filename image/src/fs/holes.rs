// SPDX-License-Identifier: Apache-2.0
//! The data segments of sparse files, so that holes are neither read nor hashed nor written.
//!
//! `SEEK_DATA` and `SEEK_HOLE` of `lseek(2)`. A file system without holes reports one data segment.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// The first data segment at or after `from`: offset and length. None if only a hole follows.
pub(crate) fn next(file: &File, from: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= length {
        return Ok(None);
    }
    let begin = match seek(file, SeekFrom::Data(from)) {
        Ok(begin) if begin < length => begin,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, length - from))),
        Err(errno) => return Err(errno.into()),
    };
    let end = seek(file, SeekFrom::Hole(begin))?.min(length);
    Ok(Some((begin, end.saturating_sub(begin))))
}

/// All data segments. From the `max`th on, holes count as data.
pub(crate) fn map(file: &File, length: u64, max: usize) -> io::Result<Vec<(u64, u64)>> {
    let mut map: Vec<(u64, u64)> = Vec::new();
    let mut from = 0;
    while let Some((begin, bytes)) = next(file, from, length)? {
        if map.len() + 1 >= max {
            map.push((begin, length - begin));
            break;
        }
        map.push((begin, bytes));
        from = begin + bytes;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn pieces_are_found_and_the_rest_is_nowhere() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(map(&file, 1 << 40, 9).unwrap(), []);
        for at in [1 << 20, 1 << 30, 1 << 35] {
            file.write_all_at(&[1; 4096], at).unwrap();
        }
        let found = map(&file, 1 << 40, 9).unwrap();
        let begins: Vec<u64> = found.iter().map(|(begin, _)| *begin).collect();
        assert_eq!(begins, [1 << 20, 1 << 30, 1 << 35]);
        assert!(found.iter().all(|(_, bytes)| *bytes <= 1 << 20), "{found:?}");
        assert_eq!(map(&file, 1 << 40, 2).unwrap()[1], (1 << 30, (1 << 40) - (1 << 30)));
        assert_eq!(map(&file, 0, 9).unwrap(), []);
    }
}
