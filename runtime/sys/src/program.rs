// SPDX-License-Identifier: Apache-2.0
//! The memory that a program's own file takes.

use crate::error::{Error, Result};
use rustix::mm::{Advice, madvise};
use std::fs;

/// Lets go of what is mapped of the running program's code and constants. What is used again comes back by
/// a fault from the page cache, without a read of the disk unless the node was short of memory.
///
/// Most of a program is only touched at its start, and the kernel maps sixteen pages around each that is
/// touched (`fault_around_bytes`): for a daemon that waits that is most of its resident memory.
///
/// Gives how many bytes the parts have.
pub fn let_go_of_code() -> Result<usize> {
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
        assert!(let_go_of_code().unwrap() > 1 << 16);
        assert_eq!(format!("{:?}", [1, 2, 3].map(|of| of * 2)), "[2, 4, 6]");
    }
}
