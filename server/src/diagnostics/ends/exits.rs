// SPDX-License-Identifier: Apache-2.0
//! The table of ends (pure): what signals and exit codes usually mean, and what fixes it.

use super::facts::Facts;
use super::files;
use super::inference::{Inference, likely};
use super::{phrases, startup};
use hull_plan::{Layer, signals};

/// A signal: the cause that is most probable, and the fix.
type Meaning = (i32, &'static str, Layer, &'static str, &'static str);

const MEANINGS: [Meaning; 13] = [
    (
        4,
        "illegal-instruction",
        Layer::Process,
        "the program uses instructions that this node's processor does not have (x86-64-v2 or v3, AVX), or it is \
         damaged",
        "use an image built for this processor's level, or run the pod on another node",
    ),
    (
        5,
        "trap",
        Layer::Process,
        "the program stopped itself at a failed check (a breakpoint or trap)",
        REPORT,
    ),
    (
        6,
        "abort",
        Layer::Process,
        "the program ended itself (abort): a failed assertion, memory that libc found corrupted, or an uncaught \
         exception",
        "see its log for the assertion; it is a bug in the program, or a file or limit that it does not handle",
    ),
    (
        7,
        "bus-error",
        Layer::Filesystem,
        "a file that it had mapped was truncated, or the file system behind it is full or failed",
        "check that /dev/shm and the volumes that it maps have space (an emptyDir with `medium: Memory` at /dev/shm)",
    ),
    (8, "arithmetic", Layer::Process, "a division by zero or an overflow in the program", REPORT),
    (
        9,
        "killed",
        Layer::Process,
        "a process in the pod or on the node sent it: no out-of-memory kill was counted, and nothing was requested \
         of Hull",
        "see what kills processes: a supervisor or script in the container, or a tool on the node",
    ),
    (
        11,
        "invalid-memory",
        Layer::Process,
        "the program accessed invalid memory: a bug in it or in a library",
        REPORT,
    ),
    (
        13,
        "broken-pipe",
        Layer::Process,
        "it wrote to a pipe or socket whose other end was closed",
        "have the program handle a closed connection (ignore SIGPIPE), and see why its peer closed it",
    ),
    (
        15,
        "terminated",
        Layer::Process,
        "another process in the pod or on the node sent it: no stop was requested",
        "see what stops it: a supervisor or script in the container, or a tool on the node",
    ),
    (
        24,
        "cpu-time",
        Layer::Process,
        "its limit of CPU time (RLIMIT_CPU) is used up",
        "raise `cpu` in `ulimit -t` or `runtime.default_ulimits`",
    ),
    (
        25,
        "file-size",
        Layer::Process,
        "it wrote a file beyond its limit of file sizes (RLIMIT_FSIZE)",
        "raise `fsize` in `ulimit -f` or `runtime.default_ulimits`",
    ),
    (
        31,
        "seccomp-kills",
        Layer::Security,
        "its seccomp profile kills it for a system call",
        "allow the call in the profile; the node's audit log names it (`type=1326`)",
    ),
    (
        1,
        "hang-up",
        Layer::Process,
        "its terminal was closed, or another process sent it",
        "run it without a terminal, or have it handle SIGHUP",
    ),
];

const REPORT: &str =
    "run the program under a debugger or take a core dump, and report the bug to its maker";

/// `SIGSEGV`; the number for a signal without a name.
pub(super) fn signal_name(signal: i32) -> String {
    signals::name(signal).map_or(signal.to_string(), |name| format!("SIG{name}"))
}

/// The usual cause of an end by a signal.
pub(super) fn of_signal(signal: i32, facts: Option<&Facts>) -> Option<Inference> {
    const SIGBUS: i32 = 7;
    if signal == SIGBUS
        && let Some(facts) = facts.filter(|facts| facts.shm_full.is_some())
    {
        return Some(files::shared_memory(facts));
    }
    if let Some(facts) = facts
        && let Some(refused) = match signal {
            4..=6 | 11 => startup::without_c_library(facts),
            31 => startup::kills(facts),
            _ => None,
        }
    {
        return Some(refused);
    }
    let (_, kind, layer, cause, fix) = MEANINGS.iter().find(|(number, ..)| *number == signal)?;
    let mut inference = likely(kind, *layer, *cause, *fix);
    if signal == 31
        && let Some(facts) = facts
    {
        inference.cause =
            format!("its seccomp profile ({}) kills it for a system call", facts.profile);
    }
    Some(inference)
}

/// The usual cause of an end by an exit code, where nothing else is known.
pub(super) fn of_code(code: i32, facts: &Facts) -> Option<Inference> {
    if facts.exits_with(code) {
        return None;
    }
    if let Some(refused) = startup::without_c_library(facts) {
        return Some(refused);
    }
    match code {
        126 if runs_commands(facts) => Some(likely(
            "command-not-executable",
            Layer::Process,
            "a shell found a command that it could not execute: not executable, or for another architecture",
            "chmod +x the file in the image, or build it for this node's architecture; the log names it",
        )),
        127 => Some(likely(
            "command-missing",
            Layer::Process,
            "a shell did not find a command, or the dynamic loader a library",
            "install it in the image; the log names it",
        )),
        130..=191 if runs_commands(facts) => child(code - 128),
        _ => None,
    }
}

/// Whether its first process is a shell or an init, which end with the code of a command that they ran.
fn runs_commands(facts: &Facts) -> bool {
    const INITS: [&str; 5] = ["tini", "tini-static", "dumb-init", "catatonit", "docker-init"];
    let name = facts.program_name();
    phrases::is_shell(&name) || INITS.contains(&name.as_str())
}

/// A shell ends with 128 and the number of the signal that ended its last command.
fn child(signal: i32) -> Option<Inference> {
    // Of these programs end themselves: INT and TERM.
    if matches!(signal, 2 | 15) {
        return None;
    }
    let name = signals::name(signal)?;
    let (cause, fix) = match MEANINGS.iter().find(|(number, ..)| *number == signal) {
        Some((.., cause, fix)) => (*cause, *fix),
        None => ("see its log", REPORT),
    };
    let code = signal.saturating_add(128);
    Some(likely(
        "child-killed",
        Layer::Process,
        format!(
            "a command that it ran was killed by SIG{name} ({code} is 128 + {signal}), unless it chose this code \
             itself: {cause}"
        ),
        fix,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_table_has_its_name_and_a_fix() {
        for (signal, kind, _, cause, fix) in MEANINGS {
            assert!(signal_name(signal).starts_with("SIG"), "{signal}");
            let found = of_signal(signal, None).unwrap();
            assert_eq!((found.kind, found.cause.as_str(), found.fix.as_str()), (kind, cause, fix));
        }
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(of_signal(10, None), None);
        let killed = child(9).unwrap().cause;
        assert!(killed.contains("no out-of-memory kill was counted"), "{killed}");
        assert!(child(11).unwrap().cause.contains("SIGSEGV"));
        assert_eq!(child(15), None);
    }
}
