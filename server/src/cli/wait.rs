// SPDX-License-Identifier: Apache-2.0
//! Waits until a container exits: for its process by a pidfd, then for the status from the daemon. It survives a
//! restart of the daemon.

use super::client::Client;
use super::error::{Error, Result};
use super::verbose;
use hull_proto::cri as api;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tonic::Code;

/// Interval of status requests after the process has ended, until the daemon reports it.
const POLL_AFTER_END: Duration = Duration::from_millis(3);
/// Interval of status requests if there is no process to wait for.
pub(crate) const POLL: Duration = Duration::from_millis(200);
/// Longest time without a daemon.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// The status of a container and, while it runs, its process.
async fn status(
    client: &mut Client,
    id: &str,
    verbose: bool,
) -> Result<(api::ContainerStatus, i32), tonic::Status> {
    let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose };
    let answer = client.runtime.container_status(request).await?.into_inner();
    const OPERATION: &str = "find the process of the container";
    let info = verbose::info(&answer.info, OPERATION);
    let pid = info.and_then(|info| verbose::pid(&info, OPERATION)).unwrap_or(0);
    Ok((answer.status.unwrap_or_default(), pid))
}

/// Requests the status of a container.
pub(crate) async fn status_of(client: &mut Client, id: &str) -> Result<api::ContainerStatus> {
    Ok(status(client, id, false).await?.0)
}

/// Calls the daemon again while there is none, as during its restart, for at most a minute. The call must have the
/// same result when it is made twice.
///
/// # Errors
/// The last one.
pub(crate) async fn through_restart<T>(
    mut call: impl AsyncFnMut() -> Result<T, tonic::Status>,
) -> Result<T, tonic::Status> {
    let began = Instant::now();
    loop {
        match call().await {
            Err(err) if is_away(&err) && began.elapsed() <= AWAY_MAX => {
                tokio::time::sleep(POLL).await;
            }
            answer => return answer,
        }
    }
}

/// Whether there is no daemon, or it has gone during the call: then the error has a cause on this side.
fn is_away(err: &tonic::Status) -> bool {
    err.code() == Code::Unavailable || std::error::Error::source(err).is_some()
}

/// Whether there is a daemon.
pub(crate) async fn answers(client: &mut Client) -> bool {
    let asked = client.runtime.version(api::VersionRequest::default()).await;
    !asked.is_err_and(|err| is_away(&err))
}

/// Whether the daemon has the container; `None` without a daemon.
pub(crate) async fn is_known(client: &mut Client, id: &str) -> Option<bool> {
    match status(client, id, false).await {
        Ok(_) => Some(true),
        Err(err) if is_away(&err) => None,
        Err(_) => Some(false),
    }
}

/// Resolves when the container has exited, with its last status.
pub(crate) async fn until_exited(mut client: Client, id: String) -> Result<api::ContainerStatus> {
    let mut waited = false;
    loop {
        let verbose = !waited;
        let (status, pid) =
            through_restart(async || status(&mut client, &id, verbose).await).await?;
        if status.state == api::ContainerState::ContainerExited as i32 {
            return Ok(status);
        }
        if waited {
            tokio::time::sleep(POLL_AFTER_END).await;
        } else if !process_ended(pid).await? {
            tokio::time::sleep(POLL).await;
        } else {
            waited = true;
        }
    }
}

/// Waits for the end of a process; false if there is none, or if it is not visible from here.
async fn process_ended(pid: i32) -> Result<bool> {
    // `from_raw` does not accept negative numbers.
    let Some(pid) = Pid::from_raw(pid.max(0)) else { return Ok(false) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // The process has ended already.
        Err(Errno::SRCH) => return Ok(true),
        // An old kernel or another pid namespace: the caller polls the daemon.
        Err(_) => return Ok(false),
    };
    // A plain thread, which ends with this program; the async runtime would wait for a task.
    let (sender, receiver) = oneshot::channel();
    let waiter = thread::Builder::new().name("wait".into()).spawn(move || {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        while poll(&mut fds, None) == Err(Errno::INTR) {}
        // The receiver may be gone.
        let _gone = sender.send(());
    });
    waiter.map_err(Error::io("start a thread"))?;
    Ok(receiver.await.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let waiting = tokio::spawn(process_ended(pid));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(waiting.await.unwrap().unwrap());
        child.wait().unwrap();
        assert!(!process_ended(0).await.unwrap() && !process_ended(-1).await.unwrap());
    }
}
