// SPDX-License-Identifier: Apache-2.0
//! A seccomp profile under which programs do not start (pure): evaluated, as the kernel reports calls that a filter
//! refuses only if the profile has them logged.

use super::clues::Clue;
use super::facts::Facts;
use super::inference::{Inference, likely};
use hull_plan::Layer;
use hull_plan::seccomp::{RefusedAtStart, Verdict, refused_at_start, verdict};

/// How long a program lives at most that fails while its C library starts, in milliseconds.
const START_MS_MAX: i64 = 2000;

/// The calls at the start of programs that the profile refuses, if it ended soon after its start.
fn refused(facts: &Facts) -> Option<RefusedAtStart> {
    let filter = facts.process.seccomp.as_ref()?;
    facts.lived_ms.is_some_and(|lived| lived <= START_MS_MAX).then(|| refused_at_start(filter))
}

/// A profile under which the C library cannot start the program, which often ends without a word.
pub(super) fn without_c_library(facts: &Facts) -> Option<Inference> {
    let refused = refused(facts).filter(|refused| !refused.needed.is_empty())?;
    let needed = refused.needed.join(", ");
    let mut fix = format!("allow {needed} in the profile");
    if !refused.usual.is_empty() {
        let usual = refused.usual.join(", ");
        fix.push_str(&format!("; programs usually need also {usual}, which it refuses"));
    }
    let cause = format!(
        "its seccomp profile ({}) refuses {needed}, which the C library needs to start a program",
        facts.profile
    );
    Some(likely("seccomp-refuses", Layer::Security, cause, fix))
}

/// An error of a kind that refused calls have, printed by a program or its loader right at its start.
pub(super) fn of_clue(clue: &Clue, facts: &Facts) -> Option<Inference> {
    const ERRORS: [&str; 4] = ["not permitted", "permission denied", "not implemented", "errno=1)"];
    let line = clue.line();
    ERRORS.iter().any(|error| line.contains(error)).then(|| without_c_library(facts)).flatten()
}

/// The calls for which a profile kills a program when it starts.
pub(super) fn kills(facts: &Facts) -> Option<Inference> {
    let filter = facts.process.seccomp.as_ref()?;
    let refused = refused(facts)?;
    let is_killed = |call: &&str| verdict(filter, call) == Some(Verdict::Kills);
    let killed: Vec<&str> = refused.all().filter(is_killed).collect();
    if killed.is_empty() {
        return None;
    }
    let calls = killed.join(", ");
    let cause = format!(
        "its seccomp profile ({}) kills it for a system call of its start: one of {calls}",
        facts.profile
    );
    let fix =
        format!("allow {calls} in the profile; the node's audit log names the call (`type=1326`)");
    Some(likely("seccomp-kills", Layer::Security, cause, fix))
}
