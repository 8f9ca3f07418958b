// SPDX-License-Identifier: Apache-2.0
//! `hull exec`: a command in a running container, by the daemon's streaming.

use super::args::Exec;
use super::client::Client;
use super::error::{self, Error, Result};
use super::exit_codes::{OWN_FAILURE, TIMED_OUT, failure_code, not_started_code};
use super::names::Objects;
use super::session::{self, Ended, Options};
use super::signals::EndSignals;
use super::stdin::Stdin;
use super::{ended, output};
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
    let objects = Objects::fetch_in(&mut client, &args.place).await.map_err(own)?;
    let found = objects.find_running(&args.name, args.in_pod.container.as_deref());
    let container = found.map_err(own)?;
    ended::refuse(&mut client, container, "run a command in").await.map_err(own)?;
    let request = api::ExecRequest {
        container_id: container.id.clone(),
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

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn parsed(words: &str) -> Result<Exec, clap::Error> {
        let cli = Cli::try_parse_from(["hull", "exec"].into_iter().chain(words.split(' ')))?;
        let Command::Exec(args) = cli.command else { panic!("another command") };
        Ok(args)
    }

    #[test]
    fn options_of_kubectl_stand_before_and_after_the_name() {
        for words in [
            "-it -n shop -c app web ls -l",
            "web -it -n shop -c app -- ls -l",
            "web --tty --stdin --namespace=shop --container=app ls -l",
        ] {
            let args = parsed(words).unwrap();
            assert_eq!(args.command, ["ls", "-l"], "{words}");
            let (of_namespace, container) = (args.place.namespace, args.in_pod.container);
            assert_eq!(
                (of_namespace.as_deref(), container.as_deref()),
                (Some("shop"), Some("app"))
            );
            assert!(args.interactive && args.tty, "{words}");
        }
        let plain = parsed("web -- sh -c --").unwrap();
        assert_eq!(
            (plain.command.as_slice(), plain.in_pod.container),
            (&["sh", "-c", "--"].map(String::from)[..], None)
        );
        parsed("web -c app").unwrap_err();
        parsed("web -c app --").unwrap_err();
    }
}
