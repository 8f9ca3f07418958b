// SPDX-License-Identifier: Apache-2.0
//! Compiles a seccomp profile in the OCI form into BPF, by libseccomp, linked statically.
//!
//! A profile is compiled once and cached by its content. A system call that the library is too old to know by name
//! is added by number; one with an unknown number is skipped, as it cannot be called either.

use super::bpf_optimize::optimize;
use super::calls::{architecture, number};
use super::unknown_calls::prologue;
use crate::Error;
use hull_init::plan::Seccomp;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
    error::SeccompError,
};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator as Operator,
};
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Most profiles that are cached, with their programs. Each has some tens of KiB.
pub(super) const CACHED_MAX: usize = 64;
const EPERM: u32 = 1;
/// The call of [`hull_sys::send_fd`].
const SENDS_LISTENER: &str = "sendmsg";

/// The program of a profile.
pub fn compiled(profile: &LinuxSeccomp) -> Result<Seccomp, Error> {
    shared(profile).map(|program| (*program).clone())
}

/// The program of a profile, shared by all processes with that profile.
pub(crate) fn shared(profile: &LinuxSeccomp) -> Result<Arc<Seccomp>, Error> {
    // A list: comparing a few profiles is faster than computing a key of one.
    static CACHE: Mutex<Vec<(LinuxSeccomp, Arc<Seccomp>)>> = Mutex::new(Vec::new());
    // Single pushes: a panic leaves nothing half done.
    let kept = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, done)) = kept.iter().find(|(known, _)| known == profile) {
        return Ok(Arc::clone(done));
    }
    drop(kept);
    let done = Arc::new(compile(profile)?);
    let mut kept = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= CACHED_MAX {
        kept.clear();
    }
    kept.push((profile.clone(), Arc::clone(&done)));
    Ok(done)
}

fn failed(err: SeccompError) -> Error {
    Error::Seccomp { why: err.to_string() }
}

fn compile(profile: &LinuxSeccomp) -> Result<Seccomp, Error> {
    let whole = compile_whole(profile)?;
    Ok(Seccomp { bpf: optimize(&whole).unwrap_or(whole), flags: flags(profile) })
}

/// The library's own program, behind the one that answers calls which are newer than the profile.
pub(super) fn compile_whole(profile: &LinuxSeccomp) -> Result<Vec<u8>, Error> {
    check_notifications(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut filter = ScmpFilterContext::new(default).map_err(failed)?;
    // The process sets no-new-privs itself.
    filter.set_ctl_nnp(false).map_err(failed)?;
    add_rules(&mut filter, profile, default, number)?;
    // The library can only translate calls that it knows by name: those it does not know are let
    // or denied for this machine's own programs, and default for others'.
    let others: Vec<_> = profile
        .architectures()
        .iter()
        .flatten()
        .filter_map(|arch| architecture(*arch))
        .filter(|arch| *arch != ScmpArch::native())
        .collect();
    if !others.is_empty() {
        let mut foreign = ScmpFilterContext::new(default).map_err(failed)?;
        foreign.set_ctl_nnp(false).map_err(failed)?;
        for arch in others {
            foreign.add_arch(arch).map_err(failed)?;
        }
        foreign.remove_arch(ScmpArch::native()).map_err(failed)?;
        add_rules(&mut foreign, profile, default, |name| ScmpSyscall::from_name(name).ok())?;
        filter.merge(foreign).map_err(failed)?;
    }
    // A tree instead of a list: when the program is installed, the kernel runs it once for every system call, which
    // as a list is most of the cost of an exec.
    filter.set_ctl_optimize(2).map_err(failed)?;
    let mut whole = prologue(profile);
    whole.append(&mut program(&filter)?);
    Ok(whole)
}

/// Whether the kernel asks another process about some calls (`SCMP_ACT_NOTIFY`).
#[must_use]
pub fn notifies(profile: &LinuxSeccomp) -> bool {
    let rules = profile.syscalls().iter().flatten();
    profile.default_action() == Action::ScmpActNotify
        || rules.into_iter().any(|rule| rule.action() == Action::ScmpActNotify)
}

/// The call that hands the listener over must not wait for the listener's answer.
fn check_notifications(profile: &LinuxSeccomp) -> Result<(), Error> {
    let mut rules = profile.syscalls().iter().flatten();
    let of_sending = rules.any(|rule| {
        rule.action() == Action::ScmpActNotify
            && rule.names().iter().any(|name| name == SENDS_LISTENER)
    });
    let why = if profile.default_action() == Action::ScmpActNotify {
        "SCMP_ACT_NOTIFY cannot be the default action".to_owned()
    } else if of_sending {
        format!(
            "SCMP_ACT_NOTIFY cannot be used for {SENDS_LISTENER}, by which the listener itself is sent"
        )
    } else {
        return Ok(());
    };
    Err(Error::Seccomp { why })
}

fn add_rules(
    filter: &mut ScmpFilterContext,
    profile: &LinuxSeccomp,
    default: ScmpAction,
    number: impl Fn(&str) -> Option<ScmpSyscall>,
) -> Result<(), Error> {
    for rule in profile.syscalls().iter().flatten() {
        let then = action(rule.action(), rule.errno_ret())?;
        // libseccomp accepts no rule with the same action as the default.
        if then == default {
            continue;
        }
        let conditions: Vec<_> =
            rule.args().iter().flatten().map(condition).collect::<Result<_, _>>()?;
        let args: Vec<_> = rule.args().iter().flatten().map(LinuxSeccompArg::index).collect();
        let twice = args.iter().enumerate().any(|(at, index)| args[..at].contains(index));
        // All must hold; of several on one argument, which the library takes one of, any: so profiles
        // have been written for docker and runc.
        let each = if twice { 1 } else { conditions.len().max(1) };
        for name in rule.names() {
            let Some(call) = number(name) else { continue };
            let added = if conditions.is_empty() {
                filter.add_rule(then, call).map(drop)
            } else {
                conditions
                    .chunks(each)
                    .try_for_each(|some| filter.add_rule_conditional(then, call, some).map(drop))
            };
            added.map_err(|err| Error::Seccomp { why: format!("system call `{name}`: {err}") })?;
        }
    }
    Ok(())
}

fn program(filter: &ScmpFilterContext) -> Result<Vec<u8>, Error> {
    let pipe = |err: std::io::Error| Error::Seccomp { why: err.to_string() };
    // The largest program the kernel takes is half of what a pipe holds.
    let (mut from, to) = std::io::pipe().map_err(pipe)?;
    filter.export_bpf(&to).map_err(failed)?;
    drop(to);
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).map_err(pipe)?;
    Ok(bytes)
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    profile.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 32,
            }
    })
}

/// Largest errno that libseccomp accepts: less than the kernel's `MAX_ERRNO`. No error has a number near it.
const ERRNO_MAX: u32 = 4094;

fn action(action: Action, errno: Option<u32>) -> Result<ScmpAction, Error> {
    let errno = errno.unwrap_or(EPERM);
    let value = u16::try_from(errno).ok();
    let in_range = value.filter(|_| action == Action::ScmpActTrace || errno <= ERRNO_MAX);
    let Some(value) = in_range else {
        let why = "the number of an error is 0 to 4094, and the message to a tracer 0 to 65535";
        return Err(Error::Bad {
            field: "`errnoRet` of the seccomp profile",
            value: errno.to_string(),
            why,
        });
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(value.into()),
        Action::ScmpActTrace => ScmpAction::Trace(value),
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
        Action::ScmpActNotify => ScmpAction::Notify,
    })
}

fn condition(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare, Error> {
    let bad = |value: usize| Error::Bad {
        field: "seccomp.syscalls.args.index",
        value: value.to_string(),
        why: "arguments are 0 to 5",
    };
    let index = u32::try_from(arg.index())
        .ok()
        .filter(|index| *index < 6)
        .ok_or_else(|| bad(arg.index()))?;
    let (op, value) = match arg.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        Operator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    Ok(ScmpArgCompare::new(index, op, value))
}
