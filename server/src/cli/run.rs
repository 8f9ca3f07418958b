// SPDX-License-Identifier: Apache-2.0
//! `hull run`: runs a pod with one container, and follows it until it exits.
//!
//! The rule: whatever interrupts it (a signal, an error, a closed pipe), it leaves nothing incomplete. A
//! pod whose container never ran is always removed, one that ran only with --rm. The pod is found by a
//! label, because the call that creates it may not have returned yet.

use super::args::Run;
use super::args::run_parts::PullWhen;
use super::client::Client;
use super::error::{Error, Result};
use super::exit_codes::{OWN_FAILURE, exit_code, failure_code};
use super::run_config::{self, PodConfigs, Setting};
use super::run_flags::{self, Volumes};
use super::run_logs::Making;
use super::running::{Followed, Running};
use super::signals::EndSignals;
use super::{images, objects, output, pull, raw_mode, run_logs, run_setup};
use crate::oci_spec::CONSOLE_SIZE;
use crate::pod::auto_remove;
use crate::pod::run_pods::RestartPolicy;
use hull_proto::cri as api;
use hull_streaming::terminal::Size;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

/// Grace period in seconds after the first SIGINT or SIGTERM, without --stop-timeout.
const GRACE_S: u32 = 10;

/// An error before the container has exited, and the exit code for it.
type EarlyError = (Error, u8);

/// Runs the container and returns its exit code.
pub(crate) async fn run(mut client: Client, args: &Run) -> Result<u8, EarlyError> {
    let own = |err: Error| (err, OWN_FAILURE);
    check(args).map_err(own)?;
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

/// Refuses flags that contradict each other.
fn check(args: &Run) -> Result<()> {
    refuse_restart_and_removal(args)?;
    if restarts(args) && !args.detach {
        let text = "--restart needs -d: every restart is a container of its own, which this command \
                    would not follow; see `hull logs -f`";
        return Err(Error::Usage { text: text.into() });
    }
    Ok(())
}

fn refuse_restart_and_removal(args: &Run) -> Result<()> {
    if args.rm && restarts(args) {
        let text = "--rm and --restart contradict each other: a container that is removed when it \
                    exits cannot be restarted";
        return Err(Error::Usage { text: text.into() });
    }
    Ok(())
}

fn restarts(args: &Run) -> bool {
    args.life.restart.is_some_and(|policy| policy != RestartPolicy::No)
}

/// Creates pod and container as `run` does, without starting it, and prints the id of the container.
pub(crate) async fn create(mut client: Client, args: &Run) -> Result<()> {
    refuse_restart_and_removal(args)?;
    let uid = run_logs::new_uid()?;
    match make(&mut client, args, &uid, true).await {
        Ok(made) => output::line(&made.id),
        Err((error, _)) => {
            // The first error is the result; leftovers are in `hull ps -a`.
            if let Err(left) = objects::remove_by_uid(&mut client, &uid).await {
                output::report(&left, OWN_FAILURE);
            }
            Err(error)
        }
    }
}

/// Creates pod and container, and starts the container.
async fn start(client: &mut Client, args: &Run, uid: &str) -> Result<Running, EarlyError> {
    let made = make(client, args, uid, args.detach).await?;
    let request = api::StartContainerRequest { container_id: made.id.clone() };
    client.runtime.start_container(request).await.map_err(|status: tonic::Status| {
        let code = failure_code(&status);
        (Error::from(status), code)
    })?;
    Ok(made)
}

/// Creates pod and container. With --rm, the daemon removes those that nobody follows (`unattended`).
async fn make(
    client: &mut Client,
    args: &Run,
    uid: &str,
    unattended: bool,
) -> Result<Running, EarlyError> {
    let own = |err: Error| (err, OWN_FAILURE);
    if let Some(path) = &args.life.cidfile
        && path.try_exists().unwrap_or(true)
    {
        return Err(own(Error::FileTaken { path: path.clone() }));
    }
    let prepared = prepare(client, args, uid, unattended).await.map_err(own)?;
    let Prepared { configs, log, own_logs, directories } = prepared;
    // Until the container is created: `hull prune` removes no pod with a container that waits for its start.
    let _making = Making::begin(&own_logs).map_err(own)?;
    let request = api::RunPodSandboxRequest {
        config: Some(configs.pod.clone()),
        runtime_handler: args.life.runtime.clone().unwrap_or_default(),
    };
    let pod = client.runtime.run_pod_sandbox(request).await.map_err(|err| own(err.into()))?;
    let pod = pod.into_inner().pod_sandbox_id;
    // Not earlier: those without a name go with the pod.
    run_setup::create(&directories).map_err(own)?;
    let request = api::CreateContainerRequest {
        pod_sandbox_id: pod,
        config: Some(configs.container),
        sandbox_config: Some(configs.pod),
    };
    let failed = |status: tonic::Status| {
        let code = failure_code(&status);
        (Error::from(status), code)
    };
    let id =
        client.runtime.create_container(request).await.map_err(failed)?.into_inner().container_id;
    if let Some(path) = &args.life.cidfile {
        write_new(path, &id).map_err(own)?;
    }
    Ok(Running {
        client: client.clone(),
        id,
        log,
        grace_s: i64::from(args.life.stop_timeout.unwrap_or(GRACE_S)),
    })
}

/// Writes a file that does not exist yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let failed = || Error::io(format!("write {}", path.display()));
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    file.map_err(failed())?.write_all(text.as_bytes()).map_err(failed())
}

/// Everything that is known before the pod is created.
struct Prepared {
    configs: PodConfigs,
    log: PathBuf,
    /// The log directory of the pod, also with --log-dir.
    own_logs: PathBuf,
    /// The directories to create for volumes.
    directories: Vec<PathBuf>,
}

/// Checks the flags, and pulls the image. Nothing is created yet.
async fn prepare(client: &mut Client, args: &Run, uid: &str, unattended: bool) -> Result<Prepared> {
    let name = run_config::name(args, uid)?;
    if let Some(platform) = &args.life.platform {
        run_flags::platform(platform)?;
    }
    let data_dir = client.config().await?.data_dir;
    let missing = Error::Response { operation: "find the log directory", missing: "path" };
    let own = auto_remove::log_directory(&data_dir, uid).ok_or(missing)?;
    let logs = match &args.log_dir {
        Some(directory) => std::path::absolute(directory)
            .map_err(Error::io(format!("find log directory {}", directory.display())))?,
        None => own.clone(),
    };
    let here = std::env::current_dir().map_err(Error::io("find the working directory"))?;
    let (named, unnamed) = (data_dir.join("volumes"), own.join("volumes"));
    let mut setting = Setting {
        name: &name,
        uid,
        logs: &logs,
        volumes: Volumes { named: &named, unnamed: &unnamed, here: &here },
        ports: Vec::new(),
        env: run_setup::env_files(&args.life.env_file)?,
    };
    // All flags are checked before anything is pulled.
    run_config::configs(args, &setting)?;
    free_name(client, args, &name, false).await?;
    image(client, args).await?;
    // Only now: what runs under the name stays if the image cannot be had.
    free_name(client, args, &name, true).await?;
    setting.ports = run_setup::published(client, args).await?;
    let (mut configs, directories) = run_config::configs(args, &setting)?;
    if args.rm && unattended {
        configs.pod.annotations.insert(auto_remove::REMOVE.to_owned(), "true".to_owned());
    }
    if args.tty
        && !args.detach
        && let Some(Size { width, height }) = raw_mode::size()
    {
        let size = format!("{width}x{height}");
        configs.container.annotations.insert(CONSOLE_SIZE.to_owned(), size);
    }
    let log = logs.join(run_logs::FILE);
    Ok(Prepared { configs, log, own_logs: own, directories })
}

/// Fails if a pod has the name already; with --replace, `remove` removes it.
async fn free_name(client: &mut Client, args: &Run, name: &str, remove: bool) -> Result<()> {
    let listed = client.runtime.list_pod_sandbox(api::ListPodSandboxRequest::default()).await?;
    for pod in listed.into_inner().items {
        let metadata = pod.metadata.as_ref();
        if metadata.is_some_and(|of| of.namespace == run_config::NAMESPACE && of.name == name) {
            if args.life.replace && objects::is_of_run(&pod) {
                if remove {
                    objects::remove_pod(client, &pod).await?;
                }
                continue;
            }
            let holder = output::short(&pod.id);
            let instead = "replace it with --replace, or choose another --name";
            return Err(Error::NameTaken { name: name.to_owned(), holder, instead });
        }
    }
    Ok(())
}

/// Pulls the image when --pull says so; by default if it is missing.
async fn image(client: &mut Client, args: &Run) -> Result<()> {
    let when = args.life.pull.unwrap_or(PullWhen::Missing);
    let is_there = when != PullWhen::Always && images::find(client, &args.image).await?.is_some();
    if when == PullWhen::Never && !is_there {
        return Err(Error::NotFound { kind: "image", name: args.image.clone() });
    }
    if !is_there {
        pull::one(client, &args.image, &pull::saved(&args.image).await?, false).await?;
    }
    Ok(())
}

/// Removes the pod of this run, complete or not; a signal ends the wait for the daemon.
async fn clean_up(client: &mut Client, uid: &str, signals: &mut EndSignals) -> Result<()> {
    tokio::select! {
        removed = objects::remove_by_uid(client, uid) => removed,
        _ = signals.next() => Err(Error::Interrupted),
    }
}

/// Prints why a container ended, if its exit code does not say it.
fn explain(status: &api::ContainerStatus) {
    if matches!(status.reason.as_str(), "OOMKilled" | "StartError" | "Unknown") {
        let text = format!("{}: {}", status.reason, status.message);
        output::to_stderr(&format!("hull: {}\n", shown(text, 2 * MESSAGE_BYTES_MAX)));
    }
}
