// SPDX-License-Identifier: Apache-2.0
//! A real file system (ext4 in a file, by a loop device) that a test can freeze: while it is frozen, reads are
//! answered and every call that changes something waits in the kernel, uninterruptibly. See `fsfreeze(8)`.
//!
//! A [`Frozen`] guard thaws the file system when it is dropped. The freeze is held by a shell that reads a pipe of
//! the test process, so the file system is thawed even when that process is killed.

use crate::expect::ExpectExt;
use crate::{paths, shell};
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Size of the file system in bytes: the image of busybox, and writable layers. The file is sparse.
const DISK_BYTES: u64 = 256 << 20;
/// The programs that are needed: util-linux and e2fsprogs.
const PROGRAMS: [&str; 4] = ["mkfs.ext4", "mount", "fsfreeze", "losetup"];

/// Freezes the file system at `$1`, reports that, and thaws it once nobody has the other end of stdin any more.
const HOLD: &str = r#"
trap 'fsfreeze --unfreeze "$1"' EXIT
fsfreeze --freeze "$1" || exit 1
echo frozen
cat > /dev/null
"#;

/// A mounted file system. Dropping it unmounts it and removes its file.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    file: PathBuf,
}

impl Disk {
    /// Mounts an empty file system at the directory `at`. `None` where this machine cannot, which is printed.
    #[must_use]
    pub fn mount(test: &str, at: &Path) -> Option<Self> {
        for program in PROGRAMS {
            if shell::run("sh", ["-c", "command -v \"$1\"", "sh", program]).code != 0 {
                paths::cannot_run(test, program);
                return None;
            }
        }
        if shell::run("losetup", ["--find"]).code != 0 {
            paths::cannot_run(test, "a free loop device");
            return None;
        }
        let file = at.with_extension("ext4");
        let created = OpenOptions::new().write(true).create_new(true).open(&file);
        let disk = Self { at: at.to_owned(), file };
        created
            .and_then(|file| file.set_len(DISK_BYTES))
            .or_fail(format!("create {}", disk.file.display()));
        let path = disk.file.as_os_str();
        let _made = shell::run("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), path]).good();
        let arguments = ["-o".as_ref(), "loop".as_ref(), path, disk.at.as_os_str()];
        let _mounted = shell::run("mount", arguments).good();
        Some(disk)
    }

    /// Freezes the file system until the guard is dropped.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let mut holder = Command::new("sh")
            .args(["-c", HOLD, "sh"])
            .arg(&self.at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .or_fail("start sh to freeze a file system");
        let mut line = String::new();
        let output = holder.stdout.take().or_fail("read the output of sh");
        BufReader::new(output).read_line(&mut line).or_fail("read the output of sh");
        let frozen = Frozen { holder };
        assert!(line == "frozen\n", "fsfreeze of {} printed {line:?}", self.at.display());
        frozen
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily where processes still have files open: the loop device is released with the last of them.
        let unmounted = [None, Some("--lazy")].into_iter().any(|how| {
            let arguments = how.map(AsRef::as_ref).into_iter().chain([self.at.as_os_str()]);
            shell::run("umount", arguments).code == 0
        });
        if !unmounted {
            shell::say(&format!("{} is still mounted", self.at.display()));
        }
        drop(fs::remove_file(&self.file));
    }
}

/// Keeps a file system frozen. Dropping it thaws the file system and waits for that.
#[derive(Debug)]
pub struct Frozen {
    holder: Child,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        if !self.holder.wait().is_ok_and(|status| status.success()) {
            shell::say("a file system may still be frozen: fsfreeze --unfreeze failed");
        }
    }
}
