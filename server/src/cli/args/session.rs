// SPDX-License-Identifier: Apache-2.0
//! The options of the commands that connect to a container: `hull exec` and `hull attach`.

use super::super::detach::{DEFAULT_DETACH_KEYS, DetachKeys, detach_keys};
use super::super::parse::number;
use super::place::{InPod, Place};
use clap::Args;

/// Examples of `hull exec`, and its exit codes.
pub(super) const EXEC_HELP: &str = "\
Examples:
  hull exec -it web sh
  hull exec web cat /etc/hostname
  hull exec -i db psql < dump.sql
  hull exec -n shop -c app web sh -c env
  hull exec web -n shop -c app -- env            as kubectl has it
  hull exec --timeout 5 web sh -c 'wget -qO- localhost'

The command is killed when hull ends, unless the detach keys left it running: then its output is dropped, and it gets
SIGHUP when the daemon ends. The exit code is that of the command; 124 means that it was killed
after --timeout, 125 that hull itself failed, 126 that the command cannot be executed, 127 that it was not
found.";

/// Examples of `hull attach`, and how it ends.
pub(super) const ATTACH_HELP: &str = "\
Examples:
  hull attach web
  hull attach --no-stdin web           only watch its output

The output begins with what is printed from now on; `hull logs` has what was printed before. The detach keys,
and a signal, end hull and leave the container running. When the container exits, the exit code is that of
the container.";

/// Options of `hull exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) in_pod: InPod,
    /// Pass on stdin; without it, the command's stdin is empty
    #[arg(short, long, alias = "stdin")]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Keys that leave the command running and end hull, with -it; '' turns them off
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = detach_keys)]
    pub(crate) detach_keys: DetachKeys,
    /// Kill the command after this many seconds; 0 is never [default: 0]
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true, value_parser = number("seconds", 0..=u32::MAX))]
    pub(crate) timeout: u32,
    /// Container, by id, prefix of the id, name, or POD/NAME; or a pod, with -c or if one container of it runs
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// Command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}

/// Options of `hull attach`.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) in_pod: InPod,
    /// Do not pass on stdin
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// As crictl has it: stdin and the terminal are those that the container was created with
    #[arg(short = 'i', long = "interactive", hide = true, conflicts_with = "no_stdin")]
    _interactive: bool,
    /// The same for the terminal
    #[arg(short = 't', long = "tty", hide = true)]
    _tty: bool,
    /// Keys that leave the container running and end hull, for a container with a terminal
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = detach_keys)]
    pub(crate) detach_keys: DetachKeys,
    /// Container, by id, prefix of the id, name, or POD/NAME; or a pod, with -c or if one container of it runs
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}
