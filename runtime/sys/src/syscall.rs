// SPDX-License-Identifier: Apache-2.0
//! Which system calls this kernel has, and lets us make.
//!
//! Each is made once with arguments that cannot do anything (a descriptor of -1, a size of 0): the
//! kernel answers anything but ENOSYS when it has the call. A version number would not tell what a
//! seccomp profile around us hides.

use rustix::io::Errno;

/// A call that pods need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syscall {
    /// `clone3(2)`, Linux 5.3.
    Clone3,
    /// `openat2(2)`, Linux 5.6.
    Openat2,
    /// `pidfd_open(2)`, Linux 5.3.
    PidfdOpen,
    /// `close_range(2)`, Linux 5.9.
    CloseRange,
    /// `fsopen(2)`, Linux 5.2.
    Fsopen,
    /// `open_tree(2)`, Linux 5.2.
    OpenTree,
    /// `move_mount(2)`, Linux 5.2.
    MoveMount,
    /// `mount_setattr(2)`, Linux 5.12.
    MountSetattr,
}

impl Syscall {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Clone3,
        Self::Openat2,
        Self::PidfdOpen,
        Self::CloseRange,
        Self::Fsopen,
        Self::OpenTree,
        Self::MoveMount,
        Self::MountSetattr,
    ];

    /// The name of the system call, as in its man page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clone3 => "clone3",
            Self::Openat2 => "openat2",
            Self::PidfdOpen => "pidfd_open",
            Self::CloseRange => "close_range",
            Self::Fsopen => "fsopen",
            Self::OpenTree => "open_tree",
            Self::MoveMount => "move_mount",
            Self::MountSetattr => "mount_setattr",
        }
    }

    /// The first kernel that has it.
    #[must_use]
    pub fn since(self) -> &'static str {
        match self {
            Self::Fsopen | Self::OpenTree | Self::MoveMount => "5.2",
            Self::Clone3 | Self::PidfdOpen => "5.3",
            Self::Openat2 => "5.6",
            Self::CloseRange => "5.9",
            Self::MountSetattr => "5.12",
        }
    }

    /// Whether it is there for us.
    #[must_use]
    pub fn is_available(self) -> bool {
        let number = match self {
            Self::Clone3 => libc::SYS_clone3,
            Self::Openat2 => libc::SYS_openat2,
            Self::PidfdOpen => libc::SYS_pidfd_open,
            Self::CloseRange => libc::SYS_close_range,
            Self::Fsopen => libc::SYS_fsopen,
            Self::OpenTree => libc::SYS_open_tree,
            Self::MoveMount => libc::SYS_move_mount,
            Self::MountSetattr => libc::SYS_mount_setattr,
        };
        // The words of each call: none can be valid, whichever is looked at first.
        let words: [libc::c_long; 5] = match self {
            // No structure, of no size.
            Self::Clone3 => [0, 0, 0, 0, 0],
            // No path, no structure of no size.
            Self::Openat2 => [-1, 0, 0, 0, 0],
            Self::PidfdOpen => [-1, -1, 0, 0, 0],
            // The last descriptor lies before the first.
            Self::CloseRange => [2, 1, 0, 0, 0],
            // No name, unknown flags.
            Self::Fsopen => [0, -1, 0, 0, 0],
            Self::OpenTree => [-1, 0, -1, 0, 0],
            Self::MoveMount => [-1, 0, -1, 0, -1],
            Self::MountSetattr => [-1, 0, -1, 0, 0],
        };
        // SAFETY: the words name no memory (every pointer is null, every size 0) and no descriptor,
        // so the kernel refuses each call before it reads or changes anything of this process.
        let ret =
            unsafe { libc::syscall(number, words[0], words[1], words[2], words[3], words[4]) };
        ret >= 0 || Errno::from_io_error(&std::io::Error::last_os_error()) != Some(Errno::NOSYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_runs_our_tests_has_them_all() {
        for call in Syscall::ALL {
            assert!(call.is_available(), "{} is missing", call.name());
        }
    }
}
