// SPDX-License-Identifier: Apache-2.0
//! Becoming another program: `execve(2)`, `execveat(2)`.

use crate::Error;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

/// CStringArray as the kernel wants them: NUL-terminated, in a NULL-terminated array. Prepared once, so
/// that several paths can be tried.
#[derive(Debug)]
pub struct CStringArray {
    pointers: Vec<*const libc::c_char>,
    // What the pointers point to; never changed after they were taken.
    _kept: Vec<CString>,
}

impl CStringArray {
    /// Fails when a string holds a NUL byte.
    pub fn new(strings: &[Vec<u8>]) -> Result<Self, Errno> {
        let kept: Result<Vec<_>, _> =
            strings.iter().map(|text| CString::new(text.clone())).collect();
        let kept = kept.map_err(|_| Errno::INVAL)?;
        let pointers = kept.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { pointers, _kept: kept })
    }

    /// For C functions whose prototype lacks a const; they do not write.
    pub(crate) fn as_mut_pointers(&self) -> *const *mut libc::c_char {
        self.pointers.as_ptr().cast()
    }
}

/// Becomes the program at `path`. Returns only if that failed. `execve(2)`.
#[must_use]
pub fn execve(path: &CStr, args: &CStringArray, env: &CStringArray) -> Error {
    // SAFETY: the arrays are NULL-terminated and, like the strings they point to, live past the
    // call; the kernel only reads them.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    Error::last(format!("execve({})", path.to_string_lossy()))
}

/// Becomes the program behind `file`. Returns only if that failed. `execveat(2)`, Linux 3.19.
#[must_use]
pub fn execveat(file: BorrowedFd<'_>, args: &CStringArray, env: &CStringArray) -> Error {
    // SAFETY: as in `execve`; the empty path is static.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last(format!("execveat({})", file.as_raw_fd()))
}

/// Becomes the program behind `file`, with its name and a number as its arguments. Allocates nothing, for a process whose
/// filter may refuse the allocator its calls. Returns only if that failed. `execveat(2)`, Linux 3.19.
#[must_use]
pub fn execveat_with_number(
    file: BorrowedFd<'_>,
    name: &CStr,
    number: i32,
    env: &CStringArray,
) -> Error {
    let mut digits = [0_u8; 11];
    let (mut rest, mut at) = (number.unsigned_abs(), digits.len() - 1);
    loop {
        at -= 1;
        // Less than 10.
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let pointers = [name.as_ptr(), digits[at..].as_ptr().cast(), ptr::null()];
    // SAFETY: as in `execveat`; the digits end with the NUL that the array was made with.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last(format!("execveat({})", name.to_string_lossy()))
}

/// Ends this process at once, without running what others registered for its end. `_exit(2)`.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; there is no memory left to be wrong about.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    // A seccomp filter refused it. The C library would try again for ever; no filter refuses a trap.
    std::process::abort()
}

/// Closes every descriptor from `first` on but those of `kept`. For a new process just before its
/// exec: the kernel resolves the path of a program while close-on-exec descriptors are still open, so
/// a flag is not enough (CVE-2024-21626). `close_range(2)`, Linux 5.9.
///
/// Whatever the caller still owns of the closed ones must not be dropped afterwards: the process must
/// exec or end by [`exit_now`].
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> crate::Result<()> {
    let mut numbers: Vec<u32> =
        kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers {
        if number < next {
            continue;
        }
        if number > next {
            close_range(next, number - 1)?;
        }
        next = number + 1;
    }
    close_range(next, u32::MAX)
}

/// Closes this one descriptor. The contract is that of [`close_all_but`]. `close(2)`.
pub fn close_now(fd: BorrowedFd<'_>) {
    // SAFETY: a plain number. The contract is that nobody uses or drops its owner afterwards.
    unsafe { libc::close(fd.as_raw_fd()) };
}

fn close_range(first: u32, last: u32) -> crate::Result<()> {
    // SAFETY: plain numbers. The contract of `close_all_but` is that nobody uses or drops an owner of
    // one of these descriptors afterwards.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if ret == 0 { Ok(()) } else { Err(Error::last(format!("close_range({first}, {last})"))) }
}
