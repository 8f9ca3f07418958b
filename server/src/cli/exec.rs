// SPDX-License-Identifier: Apache-2.0
//! `hull exec`: a command in a running container, by the daemon's streaming.

use super::args::Exec;
use super::client::Client;
use super::error::{self, Error, Result};
use super::exit_codes::{OWN_FAILURE, TIMED_OUT, failure_code, not_started_code};
use super::names::Objects;
use super::output;
use super::session::{self, Ended, Options};
use super::signals::EndSignals;
use super::stdin::Stdin;
use hull_proto::cri as api;
use std::time::Duration;
use tonic::Status;

/// Runs the command and returns its exit code.
pub(crate) async fn exec(mut client: Client, args: &Exec) -> Result<u8, (Error, u8)> {
    let own = |err: Error| (err, OWN_FAILURE);
    let failed = |status: Status| {
        let code = failure_code(&status);
        (Error::from(status), code)
    };
    let objects = Objects::fetch(&mut client).await.map_err(own)?;
    let request = api::ExecRequest {
        container_id: objects.find_container(&args.container).map_err(own)?.id.clone(),
        cmd: args.command.clone(),
        tty: args.tty,
        stdin: args.interactive,
        stdout: true,
        stderr: !args.tty,
    };
    let url = client.runtime.exec(request).await.map_err(failed)?.into_inner().url;
    let options = Options {
        stdin: args.interactive,
        tty: args.tty,
        detach_keys: (args.interactive && args.tty).then(|| args.detach_keys.clone()),
        owns_process: true,
        timeout: (args.timeout > 0).then(|| Duration::from_secs(u64::from(args.timeout))),
    };
    let mut signals = EndSignals::new().map_err(own)?;
    let ended = session::run(&url, options, &mut Stdin::default(), &mut signals).await;
    match ended.map_err(own)? {
        Ended::Exited(code) | Ended::Signal(code) => Ok(code),
        Ended::Failed { message, .. } => Err((Error::daemon(&message), not_started_code(&message))),
        Ended::TimedOut => {
            let text = format!("the command did not end within {} s and was killed", args.timeout);
            output::to_stderr(&error::lines(&text, None));
            Ok(TIMED_OUT)
        }
        Ended::Detached => {
            output::to_stderr("\ndetached; the command runs on in the container\n");
            Ok(0)
        }
    }
}
