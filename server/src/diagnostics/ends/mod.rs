// SPDX-License-Identifier: Apache-2.0
//! Why a container ended, in one sentence with its fix.
//!
//! ```text
//! last lines ─▶ clue ──┐
//! spec, node ─▶ facts ─┴▶ inference ─▶ Diagnosis, in the container's record
//! exit, counters ────────▶ table of ends ┘
//! ```
//!
//! The rule: what the kernel or Hull observed is certain; what follows from a clue and the spec is shown after
//! "likely:". No line of output becomes part of a message: a clue is a phrase of Hull's own list, and a word of a line
//! is shown only if the container's spec, or the kernel, has it too.

mod clues;
mod exits;
mod facts;
mod files;
mod forks;
mod infer;
mod inference;
mod listeners;
mod look;
pub(crate) mod memory;
mod network;
mod operations;
mod phrases;
mod ports;
mod privileges;
pub(crate) mod resources;
mod startup;
mod statement;
mod transcript;

use crate::container::state::{ExitDetails, ExitReason};
use clues::Clue;
use facts::Facts;
use hull_plan::{Certainty, Diagnosis, LastLines, Layer};
use hull_sys::text::shown;
use inference::Inference;
pub(crate) use look::{Ended, explain};

/// Lines of a stream that are kept.
const LINES_MAX: usize = 40;
/// Longest line that is kept, in bytes.
const LINE_BYTES_MAX: usize = 400;
/// SIGKILL and SIGTERM.
const KILL: i32 = 9;

/// The last lines of an output as it was read: escaped, shortened, without empty ones.
pub(crate) fn lines(output: &hull_proto::monitor::LastOutput) -> LastLines {
    let of = |bytes: &[u8]| {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let lines: Vec<&[u8]> = lines.collect();
        let last = lines.len().saturating_sub(LINES_MAX);
        lines[last..].iter().map(|line| shown(line.trim_ascii_end(), LINE_BYTES_MAX)).collect()
    };
    LastLines { stdout: of(&output.stdout), stderr: of(&output.stderr) }
}

/// The circumstances of an end, beside its exit code.
pub(crate) struct Circumstances<'a> {
    pub(crate) details: &'a ExitDetails,
    /// The container's own memory limit in bytes; 0 is none.
    pub(crate) memory_limit: u64,
    /// Arguments of its first process.
    pub(crate) args: &'a [Vec<u8>],
    /// Whole seconds between the request to stop, with a grace period, and the end.
    pub(crate) waited_s: Option<u64>,
    /// The signal by which it was asked to stop.
    pub(crate) stop_signal: i32,
    /// The last signal that a client had sent to it, and how sure it is that an end by that signal is due to it.
    pub(crate) signal_requested: Option<(i32, Certainty)>,
}

/// The diagnosis of an end; `None` for an ordinary one, of which the exit code says everything.
fn diagnose(
    how: &ExitReason,
    of: &Circumstances<'_>,
    clue: Option<&Clue>,
    facts: Option<&Facts>,
) -> Option<Diagnosis> {
    let details = of.details;
    match how {
        ExitReason::Code { .. } | ExitReason::Signal { .. } if details.oom_kills > 0 => {
            Some(memory::diagnosis(details, of.memory_limit, true))
        }
        ExitReason::Code { code: 0, .. } => None,
        ExitReason::Code { code, .. }
            if details.stop_requested && *code == of.stop_signal.saturating_add(128) =>
        {
            Some(stopped(*code, of.stop_signal))
        }
        ExitReason::Code { code, .. } => by_code(*code, of, clue, facts),
        ExitReason::Signal { signal, .. } => by_signal(*signal, of, clue, facts),
        ExitReason::StartFailed { .. } | ExitReason::Lost => None,
    }
}

fn by_code(
    code: i32,
    of: &Circumstances<'_>,
    clue: Option<&Clue>,
    facts: Option<&Facts>,
) -> Option<Diagnosis> {
    let what = match clue {
        Some(clue) if clue.is_last => format!("exited with code {code}: {}", clue.phrase.shown()),
        Some(clue) => {
            format!("exited with code {code}; its output mentions: {}", clue.phrase.shown())
        }
        None => format!("exited with code {code}"),
    };
    if let Some(diagnosis) = observed(what.clone(), of.details) {
        return Some(diagnosis);
    }
    if let Some(full) = of.details.full_layer.as_deref().filter(|_| !of.details.stop_requested) {
        return Some(resources::full_layer(what, *full));
    }
    // A denial before is shown first: a program that gives up for it may end by a signal's code, too.
    let requested = of.signal_requested;
    if let Some((signal, certainty)) = requested.filter(|(of, _)| of.saturating_add(128) == code) {
        let what = format!("ended with code {code} (128 + {signal})");
        return Some(by_request(what, signal, certainty));
    }
    if of.details.stop_requested {
        return None;
    }
    let by_clue = clue.filter(|clue| clue.is_last).zip(facts);
    let inference = by_clue
        .and_then(|(clue, facts)| infer::cause(clue, facts))
        .or_else(|| exits::of_code(code, facts?));
    match (inference, clue) {
        (Some(inference), _) => Some(inferred(what, inference)),
        (None, Some(_)) => Some(Diagnosis {
            kind: "error-printed".into(),
            layer: Layer::Process,
            what,
            cause: None,
            certainty: Certainty::Certain,
            evidence: Vec::new(),
            fix: Some("see the container's log for what it was about".into()),
        }),
        (None, None) => None,
    }
}

fn by_signal(
    signal: i32,
    of: &Circumstances<'_>,
    clue: Option<&Clue>,
    facts: Option<&Facts>,
) -> Option<Diagnosis> {
    let details = of.details;
    let name = exits::signal_name(signal);
    if details.stop_requested {
        let what = format!("killed by signal {signal} ({name}), sent because it was asked to stop");
        if let Some(diagnosis) = observed(what, details) {
            return Some(diagnosis);
        }
        return match of.waited_s {
            Some(waited) if signal == KILL && waited > 0 => Some(grace_over(waited, of)),
            Some(_) | None => None,
        };
    }
    let what = format!("killed by signal {signal} ({name})");
    if let Some(diagnosis) = observed(what.clone(), details) {
        return Some(diagnosis);
    }
    if let Some(full) = details.full_layer.as_deref() {
        return Some(resources::full_layer(what, *full));
    }
    if let Some((_, certainty)) = of.signal_requested.filter(|(of, _)| *of == signal) {
        return Some(by_request(what, signal, certainty));
    }
    let by_table = exits::of_signal(signal, facts);
    // An abort is often explained by its last line.
    let by_clue = clue.filter(|clue| clue.is_last && matches!(signal, 6 | 7)).zip(facts);
    let by_clue = by_clue.and_then(|(clue, facts)| infer::cause(clue, facts));
    match by_clue.or(by_table) {
        Some(inference) => Some(inferred(what, with_program(inference, of.args))),
        None => Some(Diagnosis {
            kind: "signal".into(),
            layer: Layer::Process,
            what: format!("its first process was {what}"),
            cause: None,
            certainty: Certainty::Certain,
            evidence: Vec::new(),
            fix: Some("see what sends this signal: a process in the pod, or on the node".into()),
        }),
    }
}

/// Names the program in causes that are about it.
fn with_program(mut inference: Inference, args: &[Vec<u8>]) -> Inference {
    if inference.layer == Layer::Process
        && let Some(program) = args.first()
    {
        let program = shown(program, 128);
        inference.cause = format!("{} (process `{program}`)", inference.cause);
    }
    inference
}

/// Events that the kernel counted or reported before the end: denials, refused processes.
fn observed(what: String, details: &ExitDetails) -> Option<Diagnosis> {
    if details.denials.is_empty() && details.pids_refused == 0 {
        return None;
    }
    let mut evidence = Vec::new();
    let mut fix = None;
    let mut layer = Layer::Security;
    let mut kind = "denied";
    if details.pids_refused > 0 {
        (layer, kind) = (Layer::Cgroup, "pids-limit");
        evidence
            .push(format!("its pids limit refused {} new processes before", details.pids_refused));
        fix = Some(forks::RAISE_PODS_LIMIT.to_owned());
    }
    if let Some(denial) = details.denials.last() {
        (layer, kind) = (Layer::Security, "denied");
        fix = Some(if denial.starts_with("AppArmor") {
            "allow the access in the AppArmor profile, or use another profile for the pod"
                .to_owned()
        } else if denial.starts_with("SELinux") {
            "give the object a label that the domain may use (container_file_t for volumes), or the pod another type in \
             `seLinuxOptions`"
                .to_owned()
        } else {
            let call = denial.rsplit(' ').next().unwrap_or_default();
            format!("allow `{call}` in the pod's seccomp profile, if the program needs it")
        });
    }
    evidence.extend(details.denials.iter().cloned());
    Some(Diagnosis {
        kind: kind.into(),
        layer,
        what,
        cause: None,
        certainty: Certainty::Certain,
        evidence,
        fix,
    })
}

fn inferred(what: String, inference: Inference) -> Diagnosis {
    Diagnosis {
        kind: inference.kind.into(),
        layer: inference.layer,
        what,
        cause: Some(inference.cause),
        certainty: inference.certainty,
        evidence: Vec::new(),
        fix: Some(inference.fix),
    }
}

/// The diagnosis with the last lines of the output, for a status that may show them.
fn with_output(
    diagnosis: Option<Diagnosis>,
    how: &ExitReason,
    output: &LastLines,
) -> Option<Diagnosis> {
    const SHOWN: usize = 3;
    let stream = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    if stream.is_empty() {
        return diagnosis;
    }
    let last = &stream[stream.len().saturating_sub(SHOWN)..];
    let what = match how {
        ExitReason::Signal { signal, .. } => {
            format!("killed by signal {signal} ({})", exits::signal_name(*signal))
        }
        ExitReason::Code { .. } | ExitReason::StartFailed { .. } | ExitReason::Lost => {
            format!("exited with code {}", how.exit_code())
        }
    };
    let mut diagnosis = diagnosis.unwrap_or_else(|| Diagnosis {
        kind: "exit".into(),
        layer: Layer::Process,
        what,
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: None,
    });
    diagnosis.evidence.push(format!("last output: {}", last.join(" | ")));
    Some(diagnosis)
}

/// The kind of an end by a signal that a client had sent. Only one that is certain was wanted.
pub(crate) const BY_REQUEST: &str = "killed-by-request";

/// The end by a signal that a client of Hull had sent: who uses the socket did it. `certainty` is that the end is due to
/// that signal, and not to the same one by somebody else.
fn by_request(how: String, signal: i32, certainty: Certainty) -> Diagnosis {
    let name = exits::signal_name(signal);
    let cause = format!("a client of Hull sent {name} (`hull kill`)");
    let (what, cause, fix) = match certainty {
        Certainty::Certain => (
            format!("{how}: {cause}"),
            None,
            "this is normal and not a failure; if it was not expected, see who may use Hull's socket",
        ),
        Certainty::Likely => (
            how,
            Some(format!("{cause}, a while before the end")),
            "see whether its program ends late by that signal; else a process in the pod, or on the node, sent another",
        ),
    };
    Diagnosis {
        kind: BY_REQUEST.into(),
        layer: Layer::Process,
        what,
        cause,
        certainty,
        evidence: Vec::new(),
        fix: Some(fix.into()),
    }
}

/// A program that ends with 128 and the stop signal's number does so in its handler.
fn stopped(code: i32, signal: i32) -> Diagnosis {
    let name = exits::signal_name(signal);
    Diagnosis {
        kind: "stopped".into(),
        layer: Layer::Process,
        what: format!("the container was asked to stop, and its process ended with code {code} (128 + {name})"),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some("this is normal and not a failure; a program that exits with 0 in its handler is shown as completed".into()),
    }
}

fn grace_over(waited_s: u64, of: &Circumstances<'_>) -> Diagnosis {
    let name = exits::signal_name(of.stop_signal);
    Diagnosis {
        kind: "grace-period-over".into(),
        layer: Layer::Process,
        what: format!(
            "its process did not end within {waited_s} s of {name}, so it was killed (SIGKILL)"
        ),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(format!(
            "handle {name} in the program (a shell forwards no signals: start it with `exec`, or use an init such as \
             tini), or give a longer `terminationGracePeriodSeconds`"
        )),
    }
}

#[cfg(test)]
mod outputs;
#[cfg(test)]
pub(crate) mod symptoms;
#[cfg(test)]
mod tests;
