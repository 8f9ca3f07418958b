// SPDX-License-Identifier: Apache-2.0
//! `hull exec`: a command in a running container, by the daemon's streaming.

use super::args::Exec;
use super::client::Client;
use super::error::{self, Error, Result};
use super::names::Objects;
use super::output;
use super::session::{self, Ended, Options};
use hull_proto::cri as api;
use std::time::Duration;
use tonic::{Code, Status};

/// Exit code if hull itself failed.
pub(crate) const OWN_FAILURE: u8 = 125;
/// Exit code if the command exists and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code if the command was not found.
const NOT_FOUND: u8 = 127;
/// Exit code after a timeout, as of timeout(1).
const TIMED_OUT: u8 = 124;

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
        detach_keys: None,
        timeout: (args.timeout > 0).then(|| Duration::from_secs(u64::from(args.timeout))),
    };
    match session::run(&url, options).await.map_err(own)? {
        Ended::Exited(code) | Ended::Signal(code) => Ok(code),
        Ended::Failed(message) => Err(failed(Status::unknown(message))),
        Ended::TimedOut => {
            let text = format!("the command did not end within {} s and was killed", args.timeout);
            output::to_stderr(&error::lines(&text, None));
            Ok(TIMED_OUT)
        }
        // There are no keys for it.
        Ended::Detached => Ok(0),
    }
}

/// The exit code of the container as our own; codes out of range must not look like success.
pub(crate) fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The exit code for a command that was not started, as of docker and shells.
/// CRI has no field for the kind of a failure, so it is read from the sentences of `hull-plan`.
pub(crate) fn failure_code(status: &tonic::Status) -> u8 {
    if status.code() == Code::DeadlineExceeded {
        return TIMED_OUT;
    }
    let says = |words: &[&str]| words.iter().any(|word| status.message().contains(word));
    if says(&["executable file not found in $PATH", "` not found: no such file or directory"]) {
        NOT_FOUND
    } else if says(&[
        "` may not be executed",
        "` cannot be executed",
        "` is an empty file",
        "` is a program for",
        "` is not in the image",
        "its interpreter is not found",
        "` is not a program",
    ]) {
        NOT_EXECUTABLE
    } else {
        OWN_FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::status;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(
            failure_code(&status::plain(
                Code::Unknown,
                "cannot start: `x`: executable file not found in $PATH"
            )),
            127
        );
        assert_eq!(
            failure_code(&status::plain(
                Code::Unknown,
                "cannot start: executable `/x` not found: no such file or directory"
            )),
            127
        );
        assert_eq!(
            failure_code(&status::plain(
                Code::Unknown,
                "cannot start: `/x` may not be executed: permission denied"
            )),
            126
        );
        assert_eq!(
            failure_code(&status::plain(Code::Unknown, "cannot mount `/x` at `/y`: not found")),
            125
        );
        assert_eq!(
            failure_code(&status::plain(Code::DeadlineExceeded, "cannot run the command")),
            124
        );
        assert_eq!(exit_code(137), 137);
        assert_eq!(exit_code(-1), 255);
        assert_eq!(exit_code(256), 255);
    }
}
