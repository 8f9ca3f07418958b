// SPDX-License-Identifier: Apache-2.0
//! The race for processes on their way into the container: through the links of every process that
//! appears in /proc, as soon as it does, a file of the host is looked for.
//!
//! Numbers that come next are tried before they show in a listing, by several threads, each of which
//! only makes system calls. What is found is printed at once.

use rustix::fs::{CWD, Mode, OFlags};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

/// How many numbers ahead of the newest process are tried.
const AHEAD: u32 = 6;
const THREADS: u32 = 3;

/// Hunts until it is killed.
pub(crate) fn run(marker: &str) -> ! {
    crate::say("ready");
    let own = own_links();
    for _ in 1..THREADS {
        let (marker, own) = (marker.to_owned(), own);
        std::thread::spawn(move || hunt(&marker, &own));
    }
    hunt(marker, &own)
}

/// Device and number of our own root directory.
fn own_links() -> (u64, u64) {
    rustix::fs::stat("/").map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
}

fn hunt(marker: &str, root: &(u64, u64)) -> ! {
    let mut newest = 0;
    loop {
        newest =
            listed().into_iter().inspect(|pid| look(*pid, marker, *root)).max().unwrap_or(newest);
        // The listing takes longer than a birth: the next ones by their numbers.
        for _ in 0..200 {
            for pid in newest + 1..=newest + AHEAD {
                look(pid, marker, *root);
            }
        }
    }
}

fn listed() -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

fn look(pid: u32, marker: &str, own_root: (u64, u64)) {
    let root = format!("/proc/{pid}/root");
    let Ok(found) = rustix::fs::stat(&root) else { return };
    if (found.st_dev, found.st_ino) != own_root && has_marker(&root, marker) {
        crate::say(&format!("ESCAPED by the root of {pid}: {marker}"));
    }
    let cwd = format!("/proc/{pid}/cwd");
    if has_marker(&format!("{cwd}/../../../../../../../../.."), marker) {
        crate::say(&format!("ESCAPED by the directory of {pid}: {marker}"));
    }
    overwrite_program(pid);
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let path: PathBuf = descriptor.path();
        let is_directory = rustix::fs::stat(&path)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        let climbed = format!("{}/../../../../../../../../../..", path.display());
        if is_directory && has_marker(&climbed, marker) {
            crate::say(&format!("ESCAPED by the descriptor {} of {pid}: {marker}", path.display()));
        }
    }
}

/// Tries to write to the runtime's own program: as long as it runs it cannot be opened for that, so a
/// descriptor for reading is opened again. What would be written is what stands there.
fn overwrite_program(pid: u32) {
    let path = format!("/proc/{pid}/exe");
    let Ok(program) = fs::read_link(&path) else { return };
    if !program.to_string_lossy().contains("hull") {
        return;
    }
    let open = |path: &str, flags: OFlags| {
        rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    };
    let Ok(held) = open(&path, OFlags::RDONLY) else { return };
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    let written =
        open(&again, OFlags::WRONLY).and_then(|file| rustix::io::pwrite(&file, &[0x7f], 0));
    if written.is_ok() {
        crate::say(&format!("ESCAPED: the program of {pid} can be written: {}", program.display()));
    }
}

fn has_marker(dir: &str, marker: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, format!("{dir}{marker}"), flags, Mode::empty()).is_ok()
}
