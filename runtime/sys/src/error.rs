// SPDX-License-Identifier: Apache-2.0
//! An error that reads like a line of strace: the call with its operands, then the errno's name.

use rustix::io::Errno;

/// A system call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", name_of(*errno))]
pub struct Error {
    call: String,
    errno: Errno,
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `call`, worded as in `openat2([5]</run/x>, etc/passwd, IN_ROOT)`.
    pub fn new(errno: Errno, call: impl Into<String>) -> Self {
        Self { call: call.into(), errno }
    }

    /// An error of `call` with what libc left in errno.
    pub fn last(call: impl Into<String>) -> Self {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        Self::new(errno, call)
    }

    /// For `map_err` behind a rustix call: `.map_err(Error::of(|| format!("openat({path})")))`.
    pub fn of<S: Into<String>>(call: impl FnOnce() -> S) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::new(errno, call())
    }

    /// The same behind a call of std.
    pub fn of_io<S: Into<String>>(call: impl FnOnce() -> S) -> impl FnOnce(std::io::Error) -> Self {
        move |err| Self::new(Errno::from_io_error(&err).unwrap_or(Errno::IO), call())
    }

    /// The errno, to decide by.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// Whether the thing was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::NOENT
    }
}

/// The errno's symbolic name (`errno(3)`), or its number where we have no name for it.
#[must_use]
pub fn name_of(errno: Errno) -> String {
    let raw = errno.raw_os_error();
    // nix's table is complete; its Debug form is the symbolic name.
    let known = nix::errno::Errno::from_raw(raw);
    if known == nix::errno::Errno::UnknownErrno {
        format!("errno {raw}")
    } else {
        format!("{known:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_like_strace() {
        let err = Error::new(Errno::PERM, "unshare(NEWNET)");
        assert_eq!(err.to_string(), "unshare(NEWNET): EPERM");
    }
}
