// SPDX-License-Identifier: Apache-2.0
//! `hull attach`: our standard streams at those of a running container.

use super::args::Attach;
use super::client::Client;
use super::detach::DetachKeys;
use super::error::{Error, Result};
use super::exit_codes::{OWN_FAILURE, exit_code};
use super::names::Objects;
use super::output;
use super::session::{self, Ended, Options};
use super::signals::EndSignals;
use super::stdin::Stdin;
use super::{ended, verbose, wait};
use hull_proto::cri as api;

/// How a container was created: whether it has input, and a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stdio {
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// Attaches to the container. Returns its exit code once it has exited, or that of a signal to hull.
pub(crate) async fn attach(mut client: Client, args: &Attach) -> Result<u8, (Error, u8)> {
    let own = |err: Error| (err, OWN_FAILURE);
    let objects = Objects::fetch_in(&mut client, &args.place).await.map_err(own)?;
    let container = objects.find_running(&args.name, args.in_pod.container.as_deref());
    let container = container.map_err(own)?;
    ended::refuse(&mut client, container, "attach to").await.map_err(own)?;
    let id = container.id.clone();
    let created = stdio(&mut client, &id).await.map_err(own)?;
    let stdio = Stdio { stdin: created.stdin && !args.no_stdin, tty: created.tty };
    let mut signals = EndSignals::new().map_err(own)?;
    let mut stdin = Stdin::default();
    let ended = run(&mut client, &id, stdio, &args.detach_keys, (&mut stdin, &mut signals)).await;
    match ended.map_err(own)? {
        Ended::Signal(code) => Ok(code),
        Ended::Detached => Ok(0),
        Ended::Failed { message, .. } => Err(own(Error::daemon(&message))),
        // It may have closed its output and run on.
        Ended::Exited(_) | Ended::TimedOut => tokio::select! {
            status = wait::until_exited(client, id) => Ok(exit_code(status.map_err(own)?.exit_code)),
            code = signals.next() => Ok(code),
        },
    }
}

/// Runs a session at the streams of a container, until it ends.
pub(crate) async fn run(
    client: &mut Client,
    id: &str,
    stdio: Stdio,
    keys: &DetachKeys,
    (stdin, signals): (&mut Stdin, &mut EndSignals),
) -> Result<Ended> {
    let request = api::AttachRequest {
        container_id: id.to_owned(),
        stdin: stdio.stdin,
        tty: stdio.tty,
        stdout: true,
        stderr: !stdio.tty,
    };
    let url = tokio::select! {
        answer = client.runtime.attach(request) => answer?.into_inner().url,
        code = signals.next() => return Ok(Ended::Signal(code)),
    };
    let detach_keys = (stdio.stdin && stdio.tty).then(|| keys.clone());
    let options = Options {
        stdin: stdio.stdin,
        tty: stdio.tty,
        detach_keys,
        owns_process: false,
        timeout: None,
    };
    let ended = session::run(&url, options, stdin, signals).await.map_err(|err| {
        let is_cut = matches!(err, Error::SessionCut);
        if is_cut { Error::AttachCut { container: output::short(id) } } else { err }
    })?;
    if ended == Ended::Detached {
        output::to_stderr(&format!(
            "\ndetached; `hull attach {}` attaches again\n",
            output::short(id)
        ));
    }
    Ok(ended)
}

/// Passes our stdin on to a container, until its end, or until the container has closed its input or exited.
///
/// # Errors
/// It is not known whether the container got all of our stdin.
pub(crate) async fn input(client: &mut Client, id: &str) -> Result<()> {
    let request =
        api::AttachRequest { container_id: id.to_owned(), stdin: true, ..Default::default() };
    let answer = wait::through_restart(async || client.runtime.attach(request.clone()).await);
    let url = answer.await?.into_inner().url;
    let options =
        Options { stdin: true, tty: false, detach_keys: None, owns_process: false, timeout: None };
    // A signal stops the container, which must not read an end of its input before that.
    let mut none = EndSignals::none();
    match session::run(&url, options, &mut Stdin::default(), &mut none).await? {
        Ended::Failed { message, .. } => Err(Error::daemon(&message)),
        Ended::Exited(_) | Ended::Detached | Ended::TimedOut | Ended::Signal(_) => Ok(()),
    }
}

/// Asks the daemon how the container was created.
async fn stdio(client: &mut Client, id: &str) -> Result<Stdio> {
    let answer = verbose::container(client, id).await?;
    let info = verbose::info(&answer.info, "attach to the container")?;
    let flag = |name: &str| info["config"][name].as_bool().unwrap_or(false);
    Ok(Stdio { stdin: flag("stdin"), tty: flag("tty") })
}
