// SPDX-License-Identifier: Apache-2.0
//! A file system that stops answering when a test says so: a FUSE server of few words. Until then it is an empty
//! directory.
//!
//! The kernel treats those who wait for it in two ways. A request that the server has not read yet is given up when
//! its process is killed ([`Hang::Unread`]); one that it has read is waited for, whatever signal comes, until the
//! server answers or ends ([`Hang::Held`]).
//!
//! Only the code under test may look into it: a test that does hangs too. `fuse(4)`, linux/fuse.h.

use crate::expect::ExpectExt;
use crate::shell;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::pipe::pipe;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

/// How it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// Requests are not read.
    Unread,
    /// Requests are read and never answered.
    Held,
}

const ANSWERS: u8 = 0;
const UNREAD: u8 = 1;
const HELD: u8 = 2;

// Of linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INIT: u32 = 26;
const ACCESS: u32 = 34;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const HEADER: usize = 40;
/// Least buffer that the kernel accepts, and room for a page of what is written.
const BUFFER: usize = 64 << 10;
const ENOENT: i32 = -2;
const ENOSYS: i32 = -38;

/// A mounted one; gone when this is dropped.
#[derive(Debug)]
pub struct Storage {
    at: PathBuf,
    mode: Arc<AtomicU8>,
    /// Closed, it ends the server; a byte has it look at its mode.
    wake: Option<OwnedFd>,
    server: Option<JoinHandle<()>>,
}

impl Storage {
    /// Mounts one at `at`, a directory. `None` where the kernel has no FUSE, which is said.
    #[must_use]
    pub fn mount(test: &str, at: &Path) -> Option<Self> {
        fs::create_dir_all(at).or_fail("make a directory to mount at");
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(device) = open("/dev/fuse", flags, Mode::empty()) else {
            crate::paths::cannot_run(test, "/dev/fuse");
            return None;
        };
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = CString::new(options).or_fail("write options");
        mount("hull-test", at, "fuse.hull-test", MountFlags::empty(), options.as_c_str())
            .or_fail("mount a FUSE file system");
        let (woken, wake) = pipe().or_fail("make a pipe");
        let mode = Arc::new(AtomicU8::new(ANSWERS));
        let of = Arc::clone(&mode);
        let server = std::thread::spawn(move || serve(&device, &woken, &of));
        let storage = Self { at: at.to_owned(), mode, wake: Some(wake), server: Some(server) };
        // The kernel's first request is answered by now, or everything else would wait for it.
        let there = fs::read_dir(at).or_fail("look into the FUSE file system");
        drop(there);
        Some(storage)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Answers nothing from now on.
    pub fn hang(&self, how: Hang) {
        let mode = match how {
            Hang::Unread => UNREAD,
            Hang::Held => HELD,
        };
        self.mode.store(mode, Ordering::SeqCst);
        let wake = self.wake.as_ref().or_fail("find the server");
        rustix::io::write(wake, b"!").or_fail("wake the server");
    }

    /// Ends the server, as if it had died: callers that wait for it get an error. The mount stays.
    pub fn die(&mut self) {
        drop(self.wake.take());
        if let Some(server) = self.server.take() {
            assert!(server.join().is_ok(), "the FUSE server panicked");
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.die();
        // Lazily: what hung a moment ago may still be on its way out.
        if unmount(&self.at, UnmountFlags::DETACH).is_err() {
            shell::say(&format!("{} is still mounted", self.at.display()));
        }
    }
}

fn serve(device: &OwnedFd, woken: &OwnedFd, mode: &AtomicU8) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mode_now = mode.load(Ordering::SeqCst);
        let mut fds = vec![PollFd::new(woken, PollFlags::IN)];
        if mode_now != UNREAD {
            fds.push(PollFd::new(device, PollFlags::IN));
        }
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let (asleep, ready) = (fds[0].revents(), fds.get(1).map(PollFd::revents));
        drop(fds);
        if !asleep.is_empty() {
            // The end of the file is the end of the server.
            if !matches!(rustix::io::read(woken, &mut buffer[..1]), Ok(1)) {
                return;
            }
            continue;
        }
        if ready.is_none_or(|ready| ready.is_empty()) {
            continue;
        }
        let Ok(length) = rustix::io::read(device, &mut buffer[..]) else { continue };
        if mode_now == ANSWERS
            && let Some(answer) = answer(&buffer[..length])
        {
            // One that was interrupted meanwhile takes no answer.
            let _gone = rustix::io::write(device, &answer);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().or_fail("read a number"))
}

/// The answer to a request of the kernel; `None` where it expects none.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    if request.len() < HEADER {
        return None;
    }
    let (error, body) = match word(request, 4) {
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        INIT => (0, init(request)),
        GETATTR => (0, [vec![0; 16], directory()].concat()),
        OPENDIR => (0, vec![0; 16]),
        READDIR | RELEASEDIR | ACCESS => (0, Vec::new()),
        LOOKUP => (ENOENT, Vec::new()),
        _ => (ENOSYS, Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).or_fail("count an answer");
    let mut answer = length.to_le_bytes().to_vec();
    answer.extend(i32::to_le_bytes(error));
    answer.extend(&request[8..16]);
    answer.extend(body);
    Some(answer)
}

/// `struct fuse_init_out`: 64 bytes.
fn init(request: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[0..4].copy_from_slice(&7_u32.to_le_bytes());
    out[4..8].copy_from_slice(&31_u32.to_le_bytes());
    out[8..12].copy_from_slice(&request[HEADER + 8..HEADER + 12]);
    out[20..24].copy_from_slice(&4096_u32.to_le_bytes());
    out
}

/// `struct fuse_attr` of a directory: 88 bytes.
fn directory() -> Vec<u8> {
    let mut out = vec![0; 88];
    out[0] = 1;
    out[60..64].copy_from_slice(&0o040_755_u32.to_le_bytes());
    out[64] = 2;
    out[80..84].copy_from_slice(&4096_u32.to_le_bytes());
    out
}
