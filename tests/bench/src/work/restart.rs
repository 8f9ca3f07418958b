// SPDX-License-Identifier: Apache-2.0
//! The daemon restarted beneath running pods: from the end of the old process until the new one lists
//! all of them as running. How long the old one takes to end is not counted.

use crate::error::verb;
use crate::samples::Sink;
use crate::size::Size;
use crate::target::Target;
use crate::{Error, Result, memory};
use hull_proto::cri::{self as api, ContainerState, PodSandboxState};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Longest wait for the old daemon's end, and for the new one's lists.
const MAX: Duration = Duration::from_secs(60);
/// Between two looks: the resolution of the figure.
const TICK: Duration = Duration::from_millis(1);

pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let Some(command) = &target.endpoint.restart else {
        return Err(Error::Option { option: "--restart" });
    };
    let mut pods = Vec::new();
    for &count in &size.restart_at {
        target.fill(&mut pods, count).await?;
        let old = hold(memory::daemon_pid(&target.endpoint.socket).await?)?;
        let mut restart = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|err| failed(command, err.to_string()))?;
        if !ended(old).await {
            return Err(late("the old daemon has ended", "it runs"));
        }
        let began = Instant::now();
        all_are_listed(target, count, began).await?;
        sink.ms(&format!("restart until {count} pods are listed"), began.elapsed());
        let status = restart.wait().await.map_err(|err| failed(command, err.to_string()))?;
        if !status.success() {
            return Err(failed(command, status.to_string()));
        }
    }
    Ok(())
}

fn failed(command: &str, said: String) -> Error {
    Error::Restart { command: command.to_owned(), said }
}

fn late(what: &'static str, last: impl Into<String>) -> Error {
    Error::Late { what, seconds: MAX.as_secs(), last: last.into() }
}

/// Holds on to a process by descriptor: its number may come to mean another one.
fn hold(pid: i32) -> Result<OwnedFd> {
    let open = |pid| {
        rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
    };
    let (what, path) = ("the daemon's process".into(), format!("/proc/{pid}").into());
    open(pid).ok_or(Error::Content { what, path })
}

/// Waits until the process has ended; false when it does not within [`MAX`].
async fn ended(process: OwnedFd) -> bool {
    let wait = move || {
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        let most = Timespec { tv_sec: MAX.as_secs().cast_signed(), tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&most)).is_ok_and(|ready| ready > 0)
    };
    tokio::task::spawn_blocking(wait).await.unwrap_or(false)
}

async fn all_are_listed(target: &Target, count: usize, began: Instant) -> Result<()> {
    let mut tick = tokio::time::interval(TICK);
    loop {
        let last = match running(target).await {
            Ok(found) if found == (count, count) => return Ok(()),
            Ok(found) => format!("{found:?} pods and containers"),
            Err(err) => err.chain(),
        };
        if began.elapsed() > MAX {
            return Err(late("all pods are listed again", last));
        }
        let _now = tick.tick().await;
    }
}

/// How many pods are ready and how many containers run.
async fn running(target: &Target) -> Result<(usize, usize)> {
    let pods = target.pods().await?;
    let ready = pods.iter().filter(|pod| pod.state() == PodSandboxState::SandboxReady).count();
    let request = api::ListContainersRequest::default();
    let listed = target.cri.runtime.clone().list_containers(request).await;
    let containers = listed.map_err(verb("ListContainers"))?.into_inner().containers;
    let ids: std::collections::BTreeSet<&String> = pods.iter().map(|pod| &pod.id).collect();
    let running = containers.iter().filter(|container| {
        container.state() == ContainerState::ContainerRunning
            && ids.contains(&container.pod_sandbox_id)
    });
    Ok((ready, running.count()))
}
