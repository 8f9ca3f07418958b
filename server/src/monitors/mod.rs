// SPDX-License-Identifier: Apache-2.0
//! The daemon's side of the monitors: starts them, connects to them, and sends them requests.
//!
//! A monitor is started for a pod and outlives us; the path of its socket follows from the pod's
//! id, so that a restarted daemon finds it again. All of a pod's requests go over one connection,
//! owned by one task here; the monitor's events go to the pod's task.
//!
//! Not here: what the answers mean. That is the pod's task's business.

mod connection;
mod end;
mod error;
mod memory;
mod pause;
mod reap;

pub(crate) use connection::{Client, MonitorEvent};
pub(crate) use end::{elsewhere, kill, running};
pub(crate) use error::Error;
pub(crate) use memory::memory;

use crate::embedded;
use crate::limits::waits;
use crate::storage::blocking;
use hull_proto::id::PodId;
use hull_proto::monitor::{
    HOOKS_OUTPUT_FD, HelloReply, LISTEN_FD, PAUSE_FD, RUN_POSTSTOP, TRY_USER_NAMESPACES,
    USER_NAMESPACES_WORK, VERSION_MIN,
};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::warn;

/// Most that is read of a trial's answer, in bytes.
const TRIED_BYTES_MAX: u64 = 4096;

/// The programs of pods: copies in memory that no container can change, not even in their mode. No file of ours
/// has to outlive an upgrade.
#[derive(Debug)]
struct Programs {
    monitor: OwnedFd,
    pause: OwnedFd,
}

/// The monitor and pause, each read-only; sealed files in memory where that is impossible.
fn programs() -> hull_sys::Result<Programs> {
    const NAMES: [&str; 2] = ["hull-monitor", "pause"];
    let keep = |keep: fn(&str, &[u8]) -> hull_sys::Result<OwnedFd>| {
        Ok(Programs {
            monitor: keep(NAMES[0], embedded::MONITOR)?,
            pause: keep(NAMES[1], embedded::PAUSE)?,
        })
    };
    keep(hull_sys::read_only_program).or_else(|err| {
        warn!(
            error = %err,
            "the programs of pods are kept in sealed files, whose owner a container can change \
             (hint: let hull mount, with CAP_SYS_ADMIN)"
        );
        keep(hull_sys::sealed_memfd)
    })
}

/// Starts and reaches monitors.
#[derive(Debug)]
pub(crate) struct Monitors {
    programs: Arc<Programs>,
    reaper: reap::Reaper,
}

impl Monitors {
    /// Copies the embedded programs to files that no container can change.
    pub(crate) fn prepare() -> Result<Self, Error> {
        let programs = programs().map_err(|source| Error::Programs { source })?;
        Ok(Self {
            programs: Arc::new(programs),
            reaper: reap::Reaper::start().map_err(|source| Error::Reap { source })?,
        })
    }

    /// Finds out whether pods can have user namespaces on this node, by having a monitor's program try
    /// it on the image store at `images`.
    pub(crate) fn try_user_namespaces(&self, images: &Path) -> Result<(), String> {
        let system = |err: hull_sys::Error| err.to_string();
        let (output, to_us) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| format!("pipe2(): {errno}"))?;
        // Two of its directories stand for layers.
        let layer = |name| images.join(name).display().to_string();
        let (top, bottom) = (layer("empty"), layer("layers"));
        let args = ["hull-monitor", TRY_USER_NAMESPACES, &top, &bottom];
        let fds = [(to_us.as_fd(), LISTEN_FD)];
        let pid =
            hull_sys::spawn_program(self.programs.monitor.as_fd(), &args, &fds).map_err(system)?;
        self.reaper.take(pid);
        drop(to_us);
        let mut why = String::new();
        // It says at most a line, and only ends: there is nothing in it to wait for.
        let read = fs::File::from(output).take(TRIED_BYTES_MAX).read_to_string(&mut why);
        read.map_err(|err| format!("read the output of the trial: {err}"))?;
        match why.as_str() {
            USER_NAMESPACES_WORK => Ok(()),
            "" => Err("the program that tried it ended without a word".into()),
            _ => Err(why),
        }
    }

    /// Has a monitor's program run the poststop hooks of the container with this directory, if they have not run. Blocks
    /// until they have, which their time limits bound. Returns what failed, in words.
    pub(crate) fn run_poststop(&self, dir: BorrowedFd<'_>) -> Result<String, Error> {
        let failed = |source| Error::HooksOutput { source };
        let (output, to_us) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| failed(errno.into()))?;
        let fds = [(dir, LISTEN_FD), (to_us.as_fd(), HOOKS_OUTPUT_FD)];
        let args = ["hull-monitor", RUN_POSTSTOP];
        let pid = hull_sys::spawn_program(self.programs.monitor.as_fd(), &args, &fds)
            .map_err(|source| Error::Spawn { source })?;
        self.reaper.take(pid);
        drop(to_us);
        let mut said = Vec::new();
        let read = fs::File::from(output).take(TRIED_BYTES_MAX).read_to_end(&mut said);
        read.map_err(failed)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Starts a monitor for `pod`, listening at `socket`, and connects to it. Gives its process id too.
    pub(crate) async fn start(
        &self,
        pod: &PodId,
        socket: &Path,
        monitor_events: mpsc::Sender<MonitorEvent>,
    ) -> Result<(Client, i32), Error> {
        let (programs, id, path) = (Arc::clone(&self.programs), pod.clone(), socket.to_owned());
        let pid = blocking(move || spawn(&programs, &id, &path)).await?;
        self.reaper.take(pid);
        // The backlog takes the connection even before the monitor gets to accept it.
        let (client, _) = self.connect(socket, monitor_events).await?;
        Ok((client, pid))
    }

    /// Connects to the monitor that listens at `socket` and asks for its state.
    pub(crate) async fn connect(
        &self,
        socket: &Path,
        monitor_events: mpsc::Sender<MonitorEvent>,
    ) -> Result<(Client, HelloReply), Error> {
        let failed = |source| Error::Connect { path: socket.to_owned(), source };
        let stream = match tokio::net::UnixStream::connect(socket).await {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => wait_for_room(socket).await?,
            other => other.map_err(failed)?,
        };
        let mut client = Client::open(stream, monitor_events);
        let hello = client.hello().await?;
        if hello.version < VERSION_MIN {
            return Err(Error::TooOld { version: hello.version });
        }
        client.version = hello.version;
        Ok((client, hello))
    }
}

/// Starts a monitor's process that listens on `socket`. Returns its process id.
fn spawn(programs: &Programs, pod: &PodId, socket: &Path) -> Result<i32, Error> {
    let listen = |source| Error::Listen { path: socket.to_owned(), source };
    match fs::remove_file(socket) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(listen(err)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(listen)?;
    // Nobody else may enter its directory before this.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(listen)?;
    let fds = [(listener.as_fd(), LISTEN_FD), (programs.pause.as_fd(), PAUSE_FD)];
    let args = ["hull-monitor", pod.as_str()];
    hull_sys::spawn_program(programs.monitor.as_fd(), &args, &fds)
        .map_err(|source| Error::Spawn { source })
}

/// Connects to a monitor whose queue of connections is full: it is alive, and others connect all the time. The
/// kernel lets those in that wait, for [`waits::ANSWER_MAX`] at most: `SO_SNDTIMEO` in `socket(7)`.
async fn wait_for_room(socket: &Path) -> Result<tokio::net::UnixStream, Error> {
    let path = socket.to_owned();
    let connected = blocking(move || {
        let flags = SocketFlags::CLOEXEC;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        set_socket_timeout(&stream, Timeout::Send, Some(waits::ANSWER_MAX))?;
        connect(&stream, &SocketAddrUnix::new(&path)?)?;
        rustix::io::ioctl_fionbio(&stream, true)?;
        Ok::<_, Errno>(std::os::unix::net::UnixStream::from(stream))
    });
    let failed = |source| Error::Connect { path: socket.to_owned(), source };
    match connected.await {
        Ok(stream) => tokio::net::UnixStream::from_std(stream).map_err(failed),
        Err(Errno::AGAIN) => Err(Error::Hangs { waited: waits::ANSWER_MAX }),
        Err(errno) => Err(failed(errno.into())),
    }
}
