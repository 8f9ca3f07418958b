// SPDX-License-Identifier: Apache-2.0
//! `hull run`: runs a pod with one container, and follows it until it exits.
//!
//! The rule: whatever interrupts it (a signal, an error, a closed pipe), it leaves nothing incomplete. A
//! pod whose container never ran is always removed, one that ran only with --rm. The pod is found by a
//! label, because the call that creates it may not have returned yet.

use super::args::Run;
use super::attach::{self, Stdio};
use super::client::Client;
use super::error::{Error, Result};
use super::exit_codes::{OWN_FAILURE, exit_code, failure_code};
use super::follow::{Tail, Watch};
use super::logs::{Streams, streams};
use super::run_config::{self, PodConfigs, UID_LABEL};
use super::session::Ended;
use super::{images, names, objects, output, pull, raw_mode, run_logs, wait};
use crate::oci_spec::CONSOLE_SIZE;
use crate::pod::auto_remove;
use hull_proto::cri as api;
use hull_streaming::terminal::Size;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

/// Grace period in seconds after the first SIGINT or SIGTERM.
const GRACE_S: i64 = 10;
/// Exit codes after SIGINT and SIGTERM, as of shells.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// An error before the container has exited, and the exit code for it.
type EarlyError = (Error, u8);

/// The started container.
struct Running {
    id: String,
    log: PathBuf,
}

/// The signals that stop the container.
struct Signals {
    int: Signal,
    term: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).map_err(Error::io("listen for signals"));
        Ok(Self { int: on(SignalKind::interrupt())?, term: on(SignalKind::terminate())? })
    }

    /// Waits for the next signal, and returns its exit code.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.int.recv() => INTERRUPTED,
            _ = self.term.recv() => TERMINATED,
        }
    }
}

/// Runs the container and returns its exit code.
pub(crate) async fn run(mut client: Client, args: &Run) -> Result<u8, EarlyError> {
    let own = |err: Error| (err, OWN_FAILURE);
    if args.interactive && args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(own(Error::NotATerminal));
    }
    let uid = run_logs::new_uid().map_err(own)?;
    let mut signals = Signals::new().map_err(own)?;
    let started = tokio::select! {
        started = start(&mut client, args, &uid) => started,
        code = signals.next() => {
            remove_leftovers(&mut client, &uid).await.map_err(own)?;
            return Ok(code);
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            // The first error is the result; leftovers are in `hull ps -a`.
            if let Err(left) = remove_leftovers(&mut client, &uid).await {
                output::report(&left, OWN_FAILURE);
            }
            return Err(error);
        }
    };
    if args.detach {
        output::line(&running.id).map_err(own)?;
        return Ok(0);
    }
    let ended = match connect(&mut client, &running, args, &mut signals).await {
        Ok(Some(status)) => Ok(status),
        // Its user comes back to it.
        Ok(None) => {
            if args.rm {
                let name = run_config::name(args, &uid).map_err(own)?;
                output::to_stderr(&format!("its pod stays until `hull rm -f {name}`\n"));
            }
            return Ok(0);
        }
        Err(error) => Err(error),
    };
    if args.rm {
        remove_leftovers(&mut client, &uid).await.map_err(own)?;
    }
    let status = ended.map_err(own)?;
    explain(&status);
    Ok(exit_code(status.exit_code))
}

/// Creates pod and container, and starts the container.
async fn start(client: &mut Client, args: &Run, uid: &str) -> Result<Running, EarlyError> {
    let own = |err: Error| (err, OWN_FAILURE);
    let (configs, log) = prepare(client, args, uid).await.map_err(own)?;
    let request = api::RunPodSandboxRequest {
        config: Some(configs.pod.clone()),
        runtime_handler: String::new(),
    };
    let pod = client.runtime.run_pod_sandbox(request).await.map_err(|err| own(err.into()))?;
    let request = api::CreateContainerRequest {
        pod_sandbox_id: pod.into_inner().pod_sandbox_id,
        config: Some(configs.container),
        sandbox_config: Some(configs.pod),
    };
    let failed = |status: tonic::Status| {
        let code = failure_code(&status);
        (Error::from(status), code)
    };
    let id =
        client.runtime.create_container(request).await.map_err(failed)?.into_inner().container_id;
    let request = api::StartContainerRequest { container_id: id.clone() };
    client.runtime.start_container(request).await.map_err(failed)?;
    Ok(Running { id, log })
}

/// Checks the flags, and pulls the image if it is missing. Nothing is created yet.
async fn prepare(client: &mut Client, args: &Run, uid: &str) -> Result<(PodConfigs, PathBuf)> {
    let name = run_config::name(args, uid)?;
    let logs = match &args.log_dir {
        Some(directory) => std::path::absolute(directory)
            .map_err(Error::io(format!("find log directory {}", directory.display())))?,
        None => {
            let missing = Error::Response { operation: "find the log directory", missing: "path" };
            run_logs::directory(client, uid).await?.ok_or(missing)?
        }
    };
    let mut configs = run_config::configs(args, &name, uid, &logs)?;
    if args.rm && args.detach {
        configs.pod.annotations.insert(auto_remove::REMOVE.to_owned(), "true".to_owned());
    }
    if args.tty
        && !args.detach
        && let Some(Size { width, height }) = raw_mode::size()
    {
        let size = format!("{width}x{height}");
        configs.container.annotations.insert(CONSOLE_SIZE.to_owned(), size);
    }
    for pod in list(client, HashMap::new()).await? {
        let metadata = pod.metadata.as_ref();
        if metadata.is_some_and(|of| of.namespace == run_config::NAMESPACE && of.name == name) {
            return Err(Error::NameTaken { name, holder: output::short(&pod.id) });
        }
    }
    if images::find(client, &args.image).await?.is_none() {
        pull::one(client, &args.image, &pull::Account::default(), false).await?;
    }
    Ok((configs, logs.join(run_logs::FILE)))
}

/// The pods with these labels.
async fn list(
    client: &mut Client,
    label_selector: HashMap<String, String>,
) -> Result<Vec<api::PodSandbox>> {
    let filter = api::PodSandboxFilter { label_selector, ..Default::default() };
    let request = api::ListPodSandboxRequest { filter: Some(filter) };
    Ok(client.runtime.list_pod_sandbox(request).await?.into_inner().items)
}

/// Removes the pod of this run, complete or not.
async fn remove_leftovers(client: &mut Client, uid: &str) -> Result<()> {
    for pod in list(client, HashMap::from([(UID_LABEL.to_owned(), uid.to_owned())])).await? {
        objects::remove_pod(client, &pod).await.inspect_err(|_| {
            output::to_stderr(&format!(
                "warning: pod {} was not removed; `hull rm -f {}` tries again\n",
                shown(names::pod_name(&pod), MESSAGE_BYTES_MAX),
                output::short(&pod.id)
            ));
        })?;
    }
    Ok(())
}

/// Connects our streams to the container's until it has exited; `None` if the user detached from it.
async fn connect(
    client: &mut Client,
    running: &Running,
    args: &Run,
    signals: &mut Signals,
) -> Result<Option<api::ContainerStatus>> {
    let stdio = Stdio { stdin: args.interactive, tty: args.tty };
    if args.tty {
        match attach::run(client, &running.id, stdio, &args.detach_keys).await {
            Ok(Ended::Detached) => return Ok(None),
            Ok(Ended::Exited(_) | Ended::TimedOut) => {
                return wait::until_exited(client.clone(), running.id.clone()).await.map(Some);
            }
            Ok(Ended::Signal(_)) => {
                stop(client.clone(), running.id.clone(), GRACE_S).await;
                return wait::until_exited(client.clone(), running.id.clone()).await.map(Some);
            }
            // It may have exited already; then its output is in the log.
            Ok(Ended::Failed(_)) | Err(Error::Daemon { .. }) => {}
            Err(error) => return Err(error),
        }
    } else if args.interactive {
        // The output comes from the log, which waits for no reader.
        let (mut client, id) = (client.clone(), running.id.clone());
        drop(tokio::spawn(async move {
            // Fails if the container has exited already.
            let _ended = attach::input(&mut client, &id).await;
        }));
    }
    follow(client, running, signals).await.map(Some)
}

/// Prints the output until the container has exited; signals stop it.
async fn follow(
    client: &Client,
    running: &Running,
    signals: &mut Signals,
) -> Result<api::ContainerStatus> {
    let mut to = streams(false);
    let mut watch = Watch::beside(&running.log)?;
    let mut tail = Tail::open(&running.log, None)?;
    tail.pump(&mut to)?;
    let status = until_ended(client, running, signals, &mut watch, &mut tail, &mut to).await?;
    // The daemon reports the exit only when all output is in the log.
    tail.finish(&mut to)?;
    Ok(status)
}

async fn until_ended(
    client: &Client,
    running: &Running,
    signals: &mut Signals,
    watch: &mut Watch,
    tail: &mut Tail,
    to: &mut Streams,
) -> Result<api::ContainerStatus> {
    let ended = wait::until_exited(client.clone(), running.id.clone());
    tokio::pin!(ended);
    let mut stops: Vec<JoinHandle<()>> = Vec::new();
    loop {
        tokio::select! {
            status = &mut ended => return status,
            () = watch.changed() => tail.pump(to)?,
            _ = signals.next() => {
                // The second signal kills it.
                let grace = if stops.is_empty() { GRACE_S } else { 0 };
                stops.push(tokio::spawn(stop(client.clone(), running.id.clone(), grace)));
            }
        }
    }
}

async fn stop(mut client: Client, id: String, grace_s: i64) {
    if let Err(err) = objects::stop_container(&mut client, &id, grace_s).await {
        output::report(&err, OWN_FAILURE);
    }
}

/// Prints why a container ended, if its exit code does not say it.
fn explain(status: &api::ContainerStatus) {
    if matches!(status.reason.as_str(), "OOMKilled" | "StartError" | "Unknown") {
        let text = format!("{}: {}", status.reason, status.message);
        output::to_stderr(&format!("hull: {}\n", shown(text, 2 * MESSAGE_BYTES_MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_two_signals_have_their_own_exit_codes() {
        let mut signals = Signals::new().unwrap();
        let own = rustix::process::getpid();
        for (sent, code) in [
            (rustix::process::Signal::INT, INTERRUPTED),
            (rustix::process::Signal::TERM, TERMINATED),
        ] {
            rustix::process::kill_process(own, sent).unwrap();
            assert_eq!(signals.next().await, code);
        }
    }
}
