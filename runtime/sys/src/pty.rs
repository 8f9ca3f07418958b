// SPDX-License-Identifier: Apache-2.0
//! Opens pseudoterminals: pty(7).

use crate::{Error, Result};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use std::os::fd::OwnedFd;

/// Both ends of a new pseudoterminal. Neither is anybody's controlling terminal, and both are closed on exec.
#[derive(Debug)]
pub struct Pty {
    /// The end that reads the output and writes the input.
    pub master: OwnedFd,
    /// The end for the process.
    pub slave: OwnedFd,
    /// Path of the slave in the devpts of the caller's mount namespace, such as `/dev/pts/3`.
    pub path: String,
}

/// Opens a pseudoterminal. `posix_openpt(3)`; the slave is opened by its master, `TIOCGPTPEER` of `ioctl_tty(2)`, Linux
/// 4.13, so it is right in any mount namespace.
///
/// # Errors
/// The call that fails.
pub fn open_pty() -> Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).map_err(Error::of(|| "openpt()"))?;
    grantpt(&master).map_err(Error::of(|| "grantpt()"))?;
    unlockpt(&master).map_err(Error::of(|| "unlockpt()"))?;
    let path = ptsname(&master, Vec::new()).map_err(Error::of(|| "ptsname()"))?;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(Error::of(|| "ioctl(TIOCGPTPEER)"))?;
    Ok(Pty { master, slave, path: path.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_slave() {
        let pty = open_pty().unwrap();
        let of = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_rdev;
        let path = rustix::fs::stat(pty.path.as_str()).unwrap();
        assert_eq!(path.st_rdev, of(&pty.slave));
        assert_ne!(of(&pty.master), of(&pty.slave));
    }
}
