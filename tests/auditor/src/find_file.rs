// SPDX-License-Identifier: Apache-2.0
//! Looks for a file of the host through the links of every new process in /proc, and for a program of Hull that can
//! be written. Matches are printed at once.

use crate::new_processes;
use crate::output::print_line;
use rustix::fs::{CWD, Mode, OFlags};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

/// Looks for the host's file `path` until it is killed.
pub(crate) fn run(path: &str) -> ! {
    let (path, own_root) = (path.to_owned(), root_id());
    new_processes::visit_all(move |pid| look_through(pid, &path, own_root))
}

/// Device and inode of the auditor's own root directory.
fn root_id() -> (u64, u64) {
    rustix::fs::stat("/").map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
}

fn look_through(pid: u32, wanted: &str, own_root: (u64, u64)) {
    let root = format!("/proc/{pid}/root");
    let Ok(found) = rustix::fs::stat(&root) else { return };
    if (found.st_dev, found.st_ino) != own_root && has_file(&root, wanted) {
        print_line(&format!("ESCAPED by the root of {pid}: {wanted}"));
    }
    let cwd = format!("/proc/{pid}/cwd");
    if has_file(&format!("{cwd}/../../../../../../../../.."), wanted) {
        print_line(&format!("ESCAPED by the directory of {pid}: {wanted}"));
    }
    overwrite_program(pid);
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let path: PathBuf = descriptor.path();
        let is_directory = rustix::fs::stat(&path)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        let climbed = format!("{}/../../../../../../../../../..", path.display());
        if is_directory && has_file(&climbed, wanted) {
            print_line(&format!("ESCAPED by the descriptor {} of {pid}: {wanted}", path.display()));
        }
    }
}

/// Tries to write to the runtime's own program. It cannot be opened for writing while it runs, so a descriptor for
/// reading is opened again. The byte that would be written is the one already there.
fn overwrite_program(pid: u32) {
    let path = format!("/proc/{pid}/exe");
    let Ok(program) = fs::read_link(&path) else { return };
    if !program.to_string_lossy().contains("hull") {
        return;
    }
    let open = |path: &str, flags: OFlags| {
        rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    };
    let Ok(readable) = open(&path, OFlags::RDONLY) else { return };
    let reopened = format!("/proc/self/fd/{}", readable.as_raw_fd());
    let written =
        open(&reopened, OFlags::WRONLY).and_then(|file| rustix::io::pwrite(&file, &[0x7f], 0));
    if written.is_ok() {
        print_line(&format!("ESCAPED: the program of {pid} can be written: {}", program.display()));
    }
}

/// Whether the path `wanted` exists below `dir`.
fn has_file(dir: &str, wanted: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, format!("{dir}{wanted}"), flags, Mode::empty()).is_ok()
}
