// SPDX-License-Identifier: Apache-2.0
//! Runs CRIU for one dump, over its RPC: `criu swrk`, with requests and responses as protobuf messages on a socket.
//!
//! ```text
//! hull ── VERSION ──▶ criu
//!      ── DUMP ─────▶        stops the processes, writes its images
//!      ◀─ post-dump ─        all processes are stopped: the files are copied now
//!      ── go on ────▶        lets the processes run
//!      ◀─ DUMP ──────
//! ```
//!
//! The rule: nothing is frozen but by CRIU's hold on the processes, which the kernel ends with CRIU. So the processes run
//! on when CRIU is killed, and when the daemon is, whose socket is closed then, at which CRIU gives up. Hull kills CRIU
//! only at the time limit.

use super::error::Error;
use hull_sys::text::shown;
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Number of CRIU's end of the socket in its process.
const SOCKET: i32 = 3;
/// Number of the locked file in its process.
pub(super) const LOCK: i32 = 4;
/// Longest message of CRIU, in bytes: it has an error text of a line.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Longest text of CRIU that is shown, in bytes.
const SHOWN_BYTES: usize = 400;
/// Bytes of the log's end that are looked at after a crash.
const LOG_BYTES_MAX: u64 = 64 << 10;
/// Deleted files that are still open are stored up to this size, in bytes.
const GHOST_BYTES_MAX: u32 = 256 << 20;
/// The last error of every dump that fails; those before it say why.
const OUTCOME: &str = "Dumping FAILED";
/// The name of the log in the work directory.
pub(super) const LOG: &str = "dump.log";

/// Types of requests and responses (`criu_req_type`).
const DUMP: i32 = 1;
const CHECK: i32 = 3;
const NOTIFY: i32 = 6;
const VERSION: i32 = 10;
/// `criu_cg_mode`: cgroups are Hull's, and CRIU does not look at them.
const CGROUPS_IGNORED: i32 = 0;
/// `criu_network_lock_method`: connections are not stored, so packets need not be kept away.
const NETWORK_NOT_LOCKED: i32 = 3;

/// The options of a dump, of `criu_opts`.
#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(int32, required, tag = "1")]
    images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    log_file: Option<String>,
    #[prost(bool, optional, tag = "12")]
    notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    root: Option<String>,
    #[prost(int32, optional, tag = "17")]
    work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "29")]
    ext_sharing: Option<bool>,
    #[prost(bool, optional, tag = "30")]
    ext_masters: Option<bool>,
    #[prost(int32, optional, tag = "34")]
    manage_cgroups_mode: Option<i32>,
    #[prost(uint32, optional, tag = "35")]
    ghost_limit: Option<u32>,
    #[prost(string, repeated, tag = "37")]
    external: Vec<String>,
    #[prost(bool, optional, tag = "50")]
    orphan_pts_master: Option<bool>,
    #[prost(bool, optional, tag = "52")]
    tcp_close: Option<bool>,
    #[prost(int32, optional, tag = "64")]
    network_lock: Option<i32>,
}

/// A request, `criu_req`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    notify_success: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    keep_open: Option<bool>,
}

/// A response, or a notification: `criu_resp`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(bool, required, tag = "2")]
    success: bool,
    #[prost(message, optional, tag = "5")]
    notify: Option<Notify>,
    #[prost(message, optional, tag = "10")]
    version: Option<Version>,
}

/// The stage that CRIU has reached, `criu_notify`.
#[derive(Clone, PartialEq, Message)]
struct Notify {
    #[prost(string, optional, tag = "1")]
    script: Option<String>,
}

/// The version of CRIU, `criu_version`.
#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(int32, required, tag = "1")]
    major: i32,
    #[prost(int32, required, tag = "2")]
    minor: i32,
    #[prost(int32, optional, tag = "4")]
    sublevel: Option<i32>,
}

impl Version {
    fn text(&self) -> String {
        let sublevel = self.sublevel.map_or(String::new(), |number| format!(".{number}"));
        format!("{}.{}{sublevel}", self.major, self.minor)
    }
}

/// The program of CRIU, verified.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    file: OwnedFd,
}

impl Program {
    /// The program at `path`, or else the first `criu` of PATH. Only root may be able to replace it.
    pub(crate) fn find(path: Option<&Path>) -> Result<Self, Error> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => in_path(std::env::var_os("PATH").as_deref()).ok_or(Error::NoProgram)?,
        };
        let bad = |why: String| Error::Program { path: path.clone(), why };
        let resolved = hull_sys::roots_alone(&path).map_err(bad)?;
        let opened = open(&resolved, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let file = opened.map_err(|errno| bad(io::Error::from(errno).to_string()))?;
        Ok(Self { path, file })
    }

    /// Its version, if it finds everything that it needs in this kernel. Its log is written to a directory `scratch`,
    /// which is made and removed.
    pub(crate) fn check(&self, scratch: &Path, limit: Duration) -> Result<String, Error> {
        const MAKING: &str = "make a directory for CRIU's log";
        let worker = Worker::start(self, None, (Instant::now() + limit, limit))?;
        let version = worker.version()?;
        fs::DirBuilder::new().mode(0o700).create(scratch).map_err(Error::io(MAKING))?;
        let checked = worker.check(scratch, version);
        fs::remove_dir_all(scratch).map_err(Error::io("remove the directory of CRIU's log"))?;
        checked
    }
}

/// The first file `criu` of the absolute directories in `path`.
fn in_path(path: Option<&OsStr>) -> Option<PathBuf> {
    let dirs = std::env::split_paths(path?).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join("criu")).find(|path| path.is_file())
}

/// The processes to dump, and the place of the images.
#[derive(Debug)]
pub(super) struct Dump<'a> {
    /// The first process.
    pub(super) pid: i32,
    /// Mounts and namespaces that are not the container's own, as CRIU names them.
    pub(super) external: Vec<String>,
    pub(super) images: BorrowedFd<'a>,
    pub(super) work: BorrowedFd<'a>,
    /// The path of the work directory, for the log.
    pub(super) path: &'a Path,
    /// A file that is locked for as long as CRIU lives.
    pub(super) lock: &'a fs::File,
}

impl Dump<'_> {
    fn options(&self) -> Options {
        Options {
            // CRIU opens both in our process, by number.
            images_dir_fd: self.images.as_raw_fd(),
            work_dir_fd: Some(self.work.as_raw_fd()),
            pid: Some(self.pid),
            leave_running: Some(true),
            ext_unix_sk: Some(true),
            file_locks: Some(true),
            log_level: Some(2),
            log_file: Some(LOG.to_owned()),
            notify_scripts: Some(true),
            root: Some("/".to_owned()),
            ext_sharing: Some(true),
            ext_masters: Some(true),
            manage_cgroups_mode: Some(CGROUPS_IGNORED),
            ghost_limit: Some(GHOST_BYTES_MAX),
            external: self.external.clone(),
            orphan_pts_master: Some(true),
            tcp_close: Some(true),
            network_lock: Some(NETWORK_NOT_LOCKED),
        }
    }
}

/// Dumps the processes, and calls `stopped` while all of them are stopped. Returns CRIU's version.
///
/// # Errors
/// The processes run on with any of them.
pub(super) fn dump(
    program: &Program,
    what: &Dump<'_>,
    until: (Instant, Duration),
    stopped: impl FnOnce() -> Result<(), Error>,
) -> Result<String, Error> {
    let worker = Worker::start(program, Some(what.lock), until)?;
    let version = worker.version()?;
    let request = Request { kind: DUMP, options: Some(what.options()), ..Request::default() };
    worker.send(&request)?;
    let (mut stopped, mut copied) = (Some(stopped), Ok(()));
    loop {
        let Some(response) = worker.receive()? else {
            copied?;
            return Err(Error::Crashed { version, log: end_of_log(&what.path.join(LOG)) });
        };
        match (response.kind, response.notify) {
            (NOTIFY, notify) => {
                let is_stopped =
                    notify.and_then(|of| of.script).is_some_and(|name| name == "post-dump");
                if let Some(copy) = stopped.take_if(|_| is_stopped) {
                    copied = copy();
                }
                let success = Some(copied.is_ok());
                let go_on = Request { kind: NOTIFY, notify_success: success, ..Request::default() };
                worker.send(&go_on)?;
            }
            _ if response.success && stopped.is_none() => {
                copied?;
                worker.end();
                return Ok(version);
            }
            _ => {
                copied?;
                // Its response has the first error, which it may have got over.
                let message = end_of_log(&what.path.join(LOG));
                return Err(Error::Refused { version, message });
            }
        }
    }
}

/// The last errors in the log, else its last line.
fn end_of_log(path: &Path) -> String {
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        let skipped = length.saturating_sub(LOG_BYTES_MAX);
        let mut file = file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(skipped))?;
        file.take(LOG_BYTES_MAX).read_to_end(&mut text)
    });
    if read.is_err() {
        return "none".to_owned();
    }
    let text = String::from_utf8_lossy(&text);
    let is_error = |line: &&str| line.contains("Error (") && !line.contains(OUTCOME);
    let errors: Vec<&str> = text.lines().filter(is_error).collect();
    let lines = errors.len().saturating_sub(3);
    let end = match &errors[lines..] {
        [] => text.lines().next_back().unwrap_or("none").to_owned(),
        errors => errors.join("; "),
    };
    shown(&end, SHOWN_BYTES)
}

/// A running `criu swrk`; it is killed with this, unless it has ended.
struct Worker {
    pid: Pid,
    ended: OwnedFd,
    socket: OwnedFd,
    until: Instant,
    limit: Duration,
}

impl Worker {
    fn start(
        program: &Program,
        lock: Option<&fs::File>,
        (until, limit): (Instant, Duration),
    ) -> Result<Self, Error> {
        const STARTING: &str = "start CRIU";
        let pair =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, theirs) = pair.map_err(Error::errno(STARTING))?;
        let mut fds = vec![(theirs.as_fd(), SOCKET)];
        fds.extend(lock.map(|lock| (lock.as_fd(), LOCK)));
        let number = SOCKET.to_string();
        let pid = hull_sys::spawn_program(program.file.as_fd(), &["criu", "swrk", &number], &fds)
            .map_err(|err| Error::Program {
            path: program.path.clone(),
            why: err.to_string(),
        })?;
        let pid = Pid::from_raw(pid).ok_or(Errno::SRCH).map_err(Error::errno(STARTING))?;
        if let Some(lock) = lock {
            // For the next daemon, if this one is killed.
            rustix::io::pwrite(lock, pid.as_raw_nonzero().to_string().as_bytes(), 0)
                .map_err(Error::errno(STARTING))?;
        }
        let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::errno(STARTING))?;
        Ok(Self { pid, ended, socket, until, limit })
    }

    fn version(&self) -> Result<String, Error> {
        self.send(&Request { kind: VERSION, keep_open: Some(true), ..Request::default() })?;
        let response = self.receive()?;
        let version = response.and_then(|of| of.version);
        version.map(|of| of.text()).ok_or_else(|| Error::Refused {
            version: String::new(),
            message: "it does not tell its version".to_owned(),
        })
    }

    fn check(&self, scratch: &Path, version: String) -> Result<String, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = open(scratch, flags, Mode::empty());
        let dir = dir.map_err(Error::errno("open the directory of CRIU's log"))?;
        let options = Options {
            images_dir_fd: dir.as_raw_fd(),
            log_file: Some(LOG.to_owned()),
            ..Options::default()
        };
        self.send(&Request { kind: CHECK, options: Some(options), ..Request::default() })?;
        let log = || end_of_log(&scratch.join(LOG));
        match self.receive()? {
            Some(response) if response.success => Ok(version),
            Some(_) => Err(Error::Refused { version, message: log() }),
            None => Err(Error::Crashed { version, log: log() }),
        }
    }

    fn send(&self, request: &Request) -> Result<(), Error> {
        let sent = send(&self.socket, &request.encode_to_vec(), SendFlags::NOSIGNAL);
        match sent {
            // It has ended, which the next response tells.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Error::errno("send CRIU a request")(errno)),
        }
    }

    /// The next message; `None` if it has ended.
    fn receive(&self) -> Result<Option<Response>, Error> {
        const READING: &str = "read CRIU's response";
        if !self.wait(&self.socket)? {
            return Err(Error::TimedOut { limit: self.limit });
        }
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let length = match recv(&self.socket, buffer.as_mut_slice(), RecvFlags::TRUNC) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(None),
            Ok((_, length)) => length,
            Err(errno) => return Err(Error::errno(READING)(errno)),
        };
        let message = buffer.get(..length).ok_or_else(|| io::Error::other("it is too long"));
        let decoded = message.and_then(|bytes| Response::decode(bytes).map_err(io::Error::other));
        decoded.map(Some).map_err(Error::io(READING))
    }

    /// Waits until `on` can be read; not if the time is over before.
    fn wait(&self, on: &OwnedFd) -> Result<bool, Error> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other);
            let left = left.map_err(Error::io("wait for CRIU"))?;
            match poll(&mut [PollFd::new(on, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::errno("wait for CRIU")(errno)),
            }
        }
    }

    /// Waits for its end after its last response, which it has by then.
    fn end(self) {
        // If it does not end it is killed with this.
        let _ended = self.wait(&self.ended);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended; what was sent a signal and is our child keeps its number until it is reaped here.
        let _gone = pidfd_send_signal(&self.ended, Signal::KILL);
        let _reaped = waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_numbers_of_the_protocol() {
        let options = Options { images_dir_fd: 5, pid: Some(7), ..Options::default() };
        let request = Request {
            kind: DUMP,
            options: Some(options),
            keep_open: Some(true),
            ..Request::default()
        };
        assert_eq!(request.encode_to_vec(), [8, 1, 18, 4, 8, 5, 16, 7, 32, 1]);
        let response =
            [8, 6, 16, 1, 42, 11, 10, 9, b'p', b'o', b's', b't', b'-', b'd', b'u', b'm', b'p'];
        let response = Response::decode(&response[..]).unwrap();
        assert_eq!((response.kind, response.success), (NOTIFY, true));
        assert_eq!(response.notify.unwrap().script.unwrap(), "post-dump");
        let version = Version { major: 4, minor: 1, sublevel: Some(1) };
        assert_eq!(version.text(), "4.1.1");
    }

    #[test]
    fn a_program_that_others_can_replace_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("criu");
        fs::write(&path, "x").unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode(0o777)).unwrap();
        assert_eq!(in_path(Some(dir.path().as_os_str())), Some(path.clone()));
        let refused = Program::find(Some(&path)).unwrap_err();
        assert!(matches!(refused, Error::Program { .. }), "{refused}");
        fs::set_permissions(&path, mode(0o755)).unwrap();
        assert!(Program::find(Some(&path)).is_ok());
        assert_eq!(in_path(Some(OsStr::new("relative:/nonexistent"))), None);
    }

    #[test]
    fn the_end_of_a_log_is_its_last_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG);
        assert_eq!(end_of_log(&path), "none");
        fs::write(
            &path,
            "(00.1) a\n(00.2) Error (x): bad\u{7}\n(00.3) Error (y): Dumping FAILED.\n",
        )
        .unwrap();
        let shown = end_of_log(&path);
        assert!(shown.starts_with("(00.2) Error (x): bad"), "{shown}");
        assert!(!shown.contains('\u{7}') && !shown.contains(OUTCOME), "{shown}");
    }
}
