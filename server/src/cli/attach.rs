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
use super::wait;
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
    let objects = Objects::fetch(&mut client).await.map_err(own)?;
    let id = objects.find_container(&args.container).map_err(own)?.id.clone();
    let created = stdio(&mut client, &id).await.map_err(own)?;
    let stdio = Stdio { stdin: created.stdin && !args.no_stdin, tty: created.tty };
    let ended = run(&mut client, &id, stdio, &args.detach_keys).await.map_err(own)?;
    match ended {
        Ended::Signal(code) => Ok(code),
        Ended::Detached => Ok(0),
        Ended::Failed(message) => Err(own(Error::daemon(&message))),
        Ended::Exited(_) | Ended::TimedOut => {
            let status = wait::until_exited(client, id).await.map_err(own)?;
            Ok(exit_code(status.exit_code))
        }
    }
}

/// Runs a session at the streams of a container, until it ends.
pub(crate) async fn run(
    client: &mut Client,
    id: &str,
    stdio: Stdio,
    keys: &DetachKeys,
) -> Result<Ended> {
    let request = api::AttachRequest {
        container_id: id.to_owned(),
        stdin: stdio.stdin,
        tty: stdio.tty,
        stdout: true,
        stderr: !stdio.tty,
    };
    let url = client.runtime.attach(request).await?.into_inner().url;
    let detach_keys = (stdio.stdin && stdio.tty).then(|| keys.clone());
    let Stdio { stdin, tty } = stdio;
    let ended = session::run(&url, Options { stdin, tty, detach_keys, timeout: None }).await?;
    if ended == Ended::Detached {
        output::to_stderr(&format!(
            "\ndetached; `hull attach {}` attaches again\n",
            output::short(id)
        ));
    }
    Ok(ended)
}

/// Passes our stdin on to a container, until either ends.
pub(crate) async fn input(client: &mut Client, id: &str) -> Result<Ended> {
    let request =
        api::AttachRequest { container_id: id.to_owned(), stdin: true, ..Default::default() };
    let url = client.runtime.attach(request).await?.into_inner().url;
    session::run(&url, Options { stdin: true, tty: false, detach_keys: None, timeout: None }).await
}

/// Asks the daemon how the container was created.
async fn stdio(client: &mut Client, id: &str) -> Result<Stdio> {
    let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = client.runtime.container_status(request).await?.into_inner();
    let missing = Error::Response { operation: "attach to the container", missing: "config" };
    let info = answer.info.get("info").ok_or(missing)?;
    let info: serde_json::Value =
        serde_json::from_str(info).map_err(|source| Error::Json { source })?;
    let flag = |name: &str| info["config"][name].as_bool().unwrap_or(false);
    Ok(Stdio { stdin: flag("stdin"), tty: flag("tty") })
}
