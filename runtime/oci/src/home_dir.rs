// SPDX-License-Identifier: Apache-2.0
//! Sets `HOME` for a process without one, from the container's /etc/passwd, as runc does. The file is from
//! the image, so it is resolved beneath the root and read up to a limit.

use hull_plan::accounts;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How much of /etc/passwd is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Adds `HOME` if it is missing.
pub(crate) fn add(env: &mut Vec<Vec<u8>>, uid: u32, root: &Path) {
    if env.iter().any(|entry| entry.starts_with(b"HOME=")) {
        return;
    }
    let home = passwd(root).and_then(|file| of(&file, uid)).unwrap_or_else(|| "/".into());
    env.push(format!("HOME={home}").into_bytes());
}

fn passwd(root: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, "etc/passwd", flags, Mode::empty(), resolve).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn of(passwd: &[u8], uid: u32) -> Option<String> {
    accounts::passwd(passwd).find(|of| of.uid == uid).map(|of| of.home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_the_users_and_only_an_absolute_one() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbad\napp:x:7:7::home:/bin/sh\n";
        assert_eq!(of(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(of(passwd, 7).as_deref(), Some("/"));
        assert_eq!(of(passwd, 8), None);
    }
}
