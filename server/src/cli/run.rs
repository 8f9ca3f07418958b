// SPDX-License-Identifier: Apache-2.0
//! `hull run`: runs a pod with one container, and follows it until it exits.
//!
//! The rule: whatever interrupts it (a signal, an error, a closed pipe), it leaves nothing incomplete. A
//! pod whose container never ran is always removed, one that ran only with --rm. The pod is found by a
//! label, because the call that creates it may not have returned yet.

use super::args::Run;
use super::client::Client;
use super::error::{Error, Result};
use super::exit_codes::{OWN_FAILURE, exit_code, failure_code};
use super::run_config::{self, PodConfigs, UID_LABEL};
use super::running::{Followed, Running};
use super::signals::EndSignals;
use super::{images, names, objects, output, pull, raw_mode, run_logs};
use crate::oci_spec::CONSOLE_SIZE;
use crate::pod::auto_remove;
use hull_proto::cri as api;
use hull_streaming::terminal::Size;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// An error before the container has exited, and the exit code for it.
type EarlyError = (Error, u8);

/// Runs the container and returns its exit code.
pub(crate) async fn run(mut client: Client, args: &Run) -> Result<u8, EarlyError> {
    let own = |err: Error| (err, OWN_FAILURE);
    if args.interactive && args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(own(Error::NotATerminal));
    }
    let uid = run_logs::new_uid().map_err(own)?;
    let mut signals = EndSignals::new().map_err(own)?;
    let started = tokio::select! {
        started = start(&mut client, args, &uid) => started,
        code = signals.next() => {
            clean_up(&mut client, &uid, &mut signals).await.map_err(own)?;
            return Ok(code);
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            // The first error is the result; leftovers are in `hull ps -a`.
            if let Err(left) = clean_up(&mut client, &uid, &mut signals).await {
                output::report(&left, OWN_FAILURE);
            }
            return Err(error);
        }
    };
    if args.detach {
        output::line(&running.id).map_err(own)?;
        return Ok(0);
    }
    let followed = running.follow(args, &mut signals).await;
    match followed {
        // Its user comes back to it.
        Ok(Followed::Detached) => {
            if args.rm {
                let name = run_config::name(args, &uid).map_err(own)?;
                output::to_stderr(&format!("its pod stays until `hull rm -f {name}`\n"));
            }
            return Ok(0);
        }
        Ok(Followed::LeftAlone(code)) => {
            let id = output::short(&running.id);
            output::to_stderr(&format!(
                "hull: container {id} is left as it is; `hull ps -a` shows it\n"
            ));
            return Ok(code);
        }
        Ok(Followed::Exited(_) | Followed::InputCut) | Err(_) => {}
    }
    if args.rm {
        clean_up(&mut client, &uid, &mut signals).await.map_err(own)?;
    }
    match followed.map_err(own)? {
        Followed::Exited(status) => {
            explain(&status);
            Ok(exit_code(status.exit_code))
        }
        Followed::Detached | Followed::InputCut | Followed::LeftAlone(_) => Ok(OWN_FAILURE),
    }
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
    Ok(Running { client: client.clone(), id, log })
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

/// Removes the pod of this run, complete or not; a signal ends the wait for the daemon.
async fn clean_up(client: &mut Client, uid: &str, signals: &mut EndSignals) -> Result<()> {
    tokio::select! {
        removed = remove_leftovers(client, uid) => removed,
        _ = signals.next() => Err(Error::Interrupted),
    }
}

/// Removes the pod of this run.
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

/// Prints why a container ended, if its exit code does not say it.
fn explain(status: &api::ContainerStatus) {
    if matches!(status.reason.as_str(), "OOMKilled" | "StartError" | "Unknown") {
        let text = format!("{}: {}", status.reason, status.message);
        output::to_stderr(&format!("hull: {}\n", shown(text, 2 * MESSAGE_BYTES_MAX)));
    }
}
