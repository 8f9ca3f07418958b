// SPDX-License-Identifier: Apache-2.0
//! Starting a program from a big, multi-threaded process: `posix_spawn(3)`, which shares memory
//! until the exec instead of copying page tables.

use crate::{CStringArray, Error, Result};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

/// Copies are made at or above this number, clear of all numbers they are then put on.
const HIGH: i32 = 64;

/// Starts the program behind `exe` in a session of its own, with default signals, an empty
/// environment, stdin and stdout on /dev/null, our stderr, and each descriptor of `fds` under its
/// number. No other descriptor of ours gets there, as all are close-on-exec. Gives its process id.
pub fn spawn_program(
    exe: BorrowedFd<'_>,
    args: &[&str],
    fds: &[(BorrowedFd<'_>, i32)],
) -> Result<i32> {
    let shown = args.first().copied().unwrap_or_default();
    let failed =
        |errno: i32| Error::new(Errno::from_raw_os_error(errno), format!("posix_spawn({shown})"));
    let high: Result<Vec<(OwnedFd, i32)>> = fds
        .iter()
        .map(|(fd, number)| {
            Ok((
                fcntl_dupfd_cloexec(fd, HIGH).map_err(Error::of(|| "fcntl(F_DUPFD_CLOEXEC)"))?,
                *number,
            ))
        })
        .collect();
    let high = high?;
    // The copy keeps the number valid in the child, whose numbers are being moved about.
    let exe = fcntl_dupfd_cloexec(exe, HIGH).map_err(Error::of(|| "fcntl(F_DUPFD_CLOEXEC)"))?;
    let path = CString::new(format!("/proc/self/fd/{}", exe.as_raw_fd()))
        .map_err(|_| failed(libc::EINVAL))?;
    let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
    let args =
        CStringArray::new(&args).map_err(|errno| Error::new(errno, "posix_spawn(arguments)"))?;
    let mut actions = Actions::new().map_err(failed)?;
    for number in [0, 1] {
        actions.open(number, c"/dev/null").map_err(failed)?;
    }
    for (fd, number) in &high {
        actions.dup2(fd.as_raw_fd(), *number).map_err(failed)?;
    }
    let attributes = Attributes::new().map_err(failed)?;
    let no_env: [*mut libc::c_char; 1] = [ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: all pointers are to initialised objects that live past the call; the arrays are
    // NULL-terminated.
    let ret = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            args.as_mut_pointers(),
            no_env.as_ptr(),
        )
    };
    if ret == 0 { Ok(pid) } else { Err(failed(ret)) }
}

fn checked(ret: i32) -> std::result::Result<(), i32> {
    if ret == 0 { Ok(()) } else { Err(ret) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> std::result::Result<Self, i32> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: init writes the whole object.
        checked(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn open(&mut self, number: i32, path: &std::ffi::CStr) -> std::result::Result<(), i32> {
        // SAFETY: the object is initialised; the path is copied.
        checked(unsafe {
            libc::posix_spawn_file_actions_addopen(
                &raw mut self.0,
                number,
                path.as_ptr(),
                libc::O_RDWR,
                0,
            )
        })
    }

    fn dup2(&mut self, from: i32, to: i32) -> std::result::Result<(), i32> {
        // SAFETY: the object is initialised.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// A session of its own, nothing blocked, every signal at its default.
    fn new() -> std::result::Result<Self, i32> {
        const SETSID: libc::c_short = 0x80;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: init writes the whole object.
        checked(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above.
        let mut this = Self(unsafe { attributes.assume_init() });
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes the whole set.
        unsafe { libc::sigemptyset(none.as_mut_ptr()) };
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset writes the whole set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: object and set are initialised.
        checked(unsafe { libc::posix_spawnattr_setsigmask(&raw mut this.0, none.as_ptr()) })?;
        // SAFETY: object and set are initialised.
        checked(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut this.0, all.as_ptr()) })?;
        #[allow(clippy::cast_possible_truncation, reason = "the flags are small bits of a short")]
        let flags = SETSID
            | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short
            | libc::POSIX_SPAWN_SETSIGDEF as libc::c_short;
        // SAFETY: the object is initialised.
        checked(unsafe { libc::posix_spawnattr_setflags(&raw mut this.0, flags) })?;
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// Takes over a descriptor that our starter put under `number`: a copy that is close-on-exec, with
/// the original closed. `None` when there is none of that number.
#[must_use]
pub fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: only tells whether the number is in use.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the number is open, and by agreement with the parent nothing else owns it.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    fcntl_dupfd_cloexec(&fd, HIGH).ok()
}
