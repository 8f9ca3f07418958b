// SPDX-License-Identifier: Apache-2.0
//! `hull exec`, by ExecSync: the output is printed when the command has ended.

use super::args::Exec;
use super::client::Client;
use super::error::{Error, Result};
use super::names::Objects;
use super::output;
use hull_proto::cri as api;
use std::io::{self, Write as _};
use tonic::Code;

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
    warn_not_implemented(args.interactive, args.tty);
    let objects = Objects::fetch(&mut client).await.map_err(own)?;
    let id = objects.find_container(&args.container).map_err(own)?.id.clone();
    let request = api::ExecSyncRequest {
        container_id: id,
        cmd: args.command.clone(),
        timeout: i64::from(args.timeout),
    };
    let answer = client.runtime.exec_sync(request).await;
    let answer = answer.map_err(|status| {
        let code = failure_code(&status);
        (Error::from(status), code)
    })?;
    let answer = answer.into_inner();
    let written = write(&answer.stdout, &answer.stderr).map_err(Error::io("print the output"));
    written.map_err(own)?;
    Ok(exit_code(answer.exit_code))
}

fn write(stdout: &[u8], stderr: &[u8]) -> io::Result<()> {
    io::stderr().lock().write_all(stderr)?;
    let mut out = io::stdout().lock();
    out.write_all(stdout)?;
    out.flush()
}

/// Warns that -i and -t are ignored.
pub(crate) fn warn_not_implemented(interactive: bool, tty: bool) {
    for (requested, flag, effect) in
        [(interactive, "-i", "stdin is empty"), (tty, "-t", "there is no terminal")]
    {
        if requested {
            output::to_stderr(&format!(
                "warning: {flag} is not implemented and ignored: {effect}\n"
            ));
        }
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
