// SPDX-License-Identifier: Apache-2.0
//! A new process or thread that was refused (pure): by the seccomp profile, or by a limit, if the kernel counted a
//! refusal by it.

use super::clues::Clue;
use super::facts::{Facts, PidsLimit};
use super::inference::{Inference, likely};
use hull_plan::Layer;
use hull_plan::seccomp::{Verdict, verdict};

const FORK_CALLS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const RLIMIT_NPROC: u32 = 6;
/// `RLIM_INFINITY`, getrlimit(2).
const UNLIMITED: u64 = u64::MAX;

/// The fix for the pod's own limit: a kubelet or `hull run` has set it.
pub(super) const RAISE_PODS_LIMIT: &str = "raise `podPidsLimit` of the kubelet (of a pod of `hull run`: `--pids-limit`), \
                                           or find which processes or threads leak";

/// Words of errors by EPERM, which no limit gives.
const NOT_PERMITTED: [&str; 3] = ["not permitted", "eperm", "errno=1)"];
/// Words of errors by EAGAIN, which limits give.
const LIMIT_REACHED: [&str; 3] = ["temporarily unavailable", "eagain", "errno=11)"];

/// The cause of a refused fork or thread.
pub(super) fn cause(clue: &Clue, facts: &Facts) -> Option<Inference> {
    let line = clue.line();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    let is_eperm = has(&NOT_PERMITTED);
    let refused = refused_calls(facts, |errno| match (is_eperm, has(&LIMIT_REACHED)) {
        (true, _) => errno == EPERM,
        (false, true) => errno != EPERM,
        (false, false) => true,
    });
    if !refused.is_empty() {
        let calls = refused.join(", ");
        let cause = format!(
            "its seccomp profile ({}) refuses {calls}, by which processes and threads are made",
            facts.profile
        );
        let fix = format!("allow {calls} in the profile");
        return Some(likely("seccomp-refuses", Layer::Security, cause, fix));
    }
    // A limit gives EAGAIN.
    if is_eperm { None } else { Some(limit(facts)) }
}

/// The calls for new processes that the profile refuses with such an errno. One that the kernel seems not to have is
/// replaced by an older one.
fn refused_calls(facts: &Facts, is_meant: impl Fn(u32) -> bool) -> Vec<&'static str> {
    let Some(filter) = facts.process.seccomp.as_ref() else { return Vec::new() };
    let is_refused = |call: &&str| match verdict(filter, call) {
        Some(Verdict::Fails(errno)) => errno != ENOSYS && is_meant(errno),
        Some(Verdict::Passes | Verdict::Kills | Verdict::Depends) | None => false,
    };
    FORK_CALLS.into_iter().filter(is_refused).collect()
}

fn limit(facts: &Facts) -> Inference {
    let own = own_limit(facts);
    let (cause, fix) = match facts.pids {
        Some(PidsLimit { limit, refused }) if refused > 0 => {
            let limit = limit.map_or(String::new(), |limit| format!(" ({limit})"));
            let cause = format!(
                "the pod's pids limit{limit} is reached: it refused {refused} new processes"
            );
            (cause, RAISE_PODS_LIMIT)
        }
        Some(_) => {
            let above = "a limit of the node or of a cgroup above the pod";
            let (limits, fix) = match own {
                Some(own) => (
                    format!("{own} of its user is reached, or {above}"),
                    "raise `nproc` in `runtime.default_ulimits` or kernel.threads-max and kernel.pid_max of the node, or \
                     find which processes or threads leak",
                ),
                None => (
                    format!("{above} is reached"),
                    "raise kernel.threads-max and kernel.pid_max of the node, or find which processes or threads leak",
                ),
            };
            (format!("{limits}: the pod's own pids limit refused nothing"), fix)
        }
        None => {
            let other = own.unwrap_or_else(|| "a limit of the node".to_owned());
            let cause = format!(
                "a limit of processes and threads is reached: the pod's pids limit or {other}"
            );
            (cause, RAISE_PODS_LIMIT)
        }
    };
    likely("fork-refused", Layer::Cgroup, cause, fix)
}

/// The container's own limit, in words; `None` if it is unlimited, and so never reached.
fn own_limit(facts: &Facts) -> Option<String> {
    let limit = facts.process.rlimits.iter().find(|limit| limit.resource == RLIMIT_NPROC);
    match limit.map(|limit| limit.soft) {
        Some(UNLIMITED) => None,
        Some(soft) => Some(format!("RLIMIT_NPROC ({soft})")),
        None => Some("RLIMIT_NPROC".to_owned()),
    }
}
