// SPDX-License-Identifier: Apache-2.0
//! The environment as runc makes it: of several variables of one name the last counts, and a `HOME` that is missing or
//! empty is that of the container's /etc/passwd. The file is from
//! the image, so it is resolved beneath the root and read up to a limit.

use hull_plan::accounts;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How much of /etc/passwd is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Takes away what is repeated, and adds `HOME` if it is missing.
pub(crate) fn complete(env: &mut Vec<Vec<u8>>, uid: u32, root: &Path) {
    only_last(env);
    if env.iter().any(|entry| entry.strip_prefix(b"HOME=").is_some_and(|home| !home.is_empty())) {
        return;
    }
    env.retain(|entry| !entry.starts_with(b"HOME="));
    let home = passwd(root).and_then(|file| of(&file, uid)).unwrap_or_else(|| "/".into());
    env.push(format!("HOME={home}").into_bytes());
}

fn only_last(env: &mut Vec<Vec<u8>>) {
    let name = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    let mut seen = BTreeSet::new();
    env.reverse();
    env.retain(|entry| seen.insert(name(entry)));
    env.reverse();
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
    fn of_several_variables_the_last_counts_and_an_empty_home_is_none() {
        let bytes =
            |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let mut env = bytes(&["A=1", "HOME=", "B=2", "A=3", "C=x=y"]);
        complete(&mut env, 7, Path::new("/nowhere"));
        assert_eq!(env, bytes(&["B=2", "A=3", "C=x=y", "HOME=/"]));
        let mut env = bytes(&["HOME=", "HOME=/srv"]);
        complete(&mut env, 7, Path::new("/nowhere"));
        assert_eq!(env, bytes(&["HOME=/srv"]));
    }

    #[test]
    fn the_home_is_the_users_and_only_an_absolute_one() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbad\napp:x:7:7::home:/bin/sh\n";
        assert_eq!(of(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(of(passwd, 7).as_deref(), Some("/"));
        assert_eq!(of(passwd, 8), None);
    }
}
