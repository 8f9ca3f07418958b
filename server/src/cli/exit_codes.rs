// SPDX-License-Identifier: Apache-2.0
//! Exit codes of the commands that run something in a container. Pure.

use tonic::Code;

/// Exit code if hull itself failed.
pub(crate) const OWN_FAILURE: u8 = 125;
/// Exit code if the command exists and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code if the command was not found.
const NOT_FOUND: u8 = 127;
/// Exit code after a timeout, as of timeout(1).
pub(crate) const TIMED_OUT: u8 = 124;

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
    not_started_code(status.message())
}

/// As [`failure_code`], from the daemon's sentence.
pub(crate) fn not_started_code(sentence: &str) -> u8 {
    let says = |words: &[&str]| words.iter().any(|word| sentence.contains(word));
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
