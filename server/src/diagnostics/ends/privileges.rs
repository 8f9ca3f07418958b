// SPDX-License-Identifier: Apache-2.0
//! Causes in the confinement of the process (pure): capabilities, seccomp, no-new-privileges, user namespaces.

use super::clues::{Clue, words};
use super::facts::Facts;
use super::inference::{Inference, likely};
use super::network::without_capability;
use super::operations::{self, Operation};
use super::phrases::Phrase;
use super::startup;
use hull_plan::Layer;

/// The right that a refused operation lacks. The filter is asked first: what it refuses the kernel does not look at.
pub(super) fn missing(clue: &Clue, facts: &Facts) -> Option<Inference> {
    let operation = operation(clue, facts);
    if let Some(operation) = operation
        && let Some((call, errno)) = facts.refused_call(operation.calls)
    {
        let matches = (errno == 13) == (clue.phrase == Phrase::PermissionDenied);
        if matches {
            return Some(filter_refuses(call, facts));
        }
    }
    if let Some(operation) = operation
        && !operation.capability.is_empty()
        && !facts.has_capability(operation.capability)
    {
        return Some(capability(operation, clue, facts));
    }
    if clue.phrase == Phrase::NotPermitted && facts.program_is_setuid && facts.process.no_new_privs
    {
        return Some(no_new_privs(facts));
    }
    if clue.phrase != Phrase::NotPermitted {
        return None;
    }
    // A name of a call in the line that the filter refuses, although no operation of the table has it.
    refused_call(clue, facts).or_else(|| startup::of_clue(clue, facts)).or_else(|| general(facts))
}

/// The operation that the error names, or else the program of the spec. A script may do several things.
fn operation(clue: &Clue, facts: &Facts) -> Option<&'static Operation> {
    let table = &operations::OPERATIONS;
    let in_line = table.iter().flat_map(|of| of.words).filter(|word| clue.is_about(word)).copied();
    let program = facts.program_name();
    operations::named(in_line).or_else(|| operations::named(std::iter::once(program.as_str())))
}

fn filter_refuses(call: &str, facts: &Facts) -> Inference {
    let fix = if facts.profile.starts_with("Localhost") {
        format!("allow `{call}` in the profile")
    } else {
        format!(
            "allow `{call}` in a Localhost profile of the pod; RuntimeDefault allows calls of administration only with \
             their capability"
        )
    };
    likely(
        "seccomp-refuses",
        Layer::Security,
        format!("its seccomp profile ({}) refuses system call `{call}`", facts.profile),
        fix,
    )
}

/// A call that the error names and the filter refuses.
pub(super) fn refused_call(clue: &Clue, facts: &Facts) -> Option<Inference> {
    let filter = facts.process.seccomp.as_ref()?;
    let refused = |word: &&str| {
        matches!(
            hull_plan::seccomp::verdict(filter, word),
            Some(hull_plan::seccomp::Verdict::Fails(_))
        )
    };
    let call = words(clue.line()).find(refused)?;
    Some(filter_refuses(call, facts))
}

fn capability(operation: &Operation, clue: &Clue, facts: &Facts) -> Inference {
    let name = operation.capability;
    let who = without_capability(facts, name);
    let instead = if operation.instead.is_empty() {
        String::new()
    } else {
        format!("; or: {}", operation.instead)
    };
    let fix = if facts.process.uid == 0 {
        format!("add {name} to `securityContext.capabilities.add`{instead}")
    } else {
        format!(
            "have it done by a container whose user has {name} (`capabilities.add` has an effect for root only), or when \
             the image is built{instead}"
        )
    };
    // The word by which the operation was recognised: others of its words are other programs.
    let program = facts.program_name();
    let is_used = |word: &&str| clue.is_about(word) || program == **word;
    let word = operation.words.iter().copied().find(is_used).unwrap_or("the operation");
    likely("capability-missing", Layer::Security, format!("{who} may not do this ({word})"), fix)
}

/// Not permitted, and nothing says what: the confinement is named.
fn general(facts: &Facts) -> Option<Inference> {
    let filtered = facts.process.seccomp.is_some();
    let few = facts.process.capabilities.effective.count_ones() < 14;
    let cause = match (filtered, few) {
        (_, true) => format!(
            "uid {} has {} capabilities, and the operation needs another one",
            facts.process.uid,
            match facts.process.capabilities.effective.count_ones() {
                0 => "no".to_owned(),
                some => format!("only {some}"),
            }
        ),
        (true, false) => {
            format!(
                "its seccomp profile ({}) or a missing capability refuses the operation",
                facts.profile
            )
        }
        (false, false) => return None,
    };
    Some(likely(
        "not-permitted",
        Layer::Security,
        cause,
        "find the operation in the program's log, and add its capability to `capabilities.add`, or allow its system call \
         in a Localhost profile",
    ))
}

fn no_new_privs(facts: &Facts) -> Inference {
    likely(
        "no-new-privileges",
        Layer::Security,
        format!(
            "setuid programs have no effect under no_new_privs (`allowPrivilegeEscalation: false`), so `{}` runs as uid {}",
            facts.program(),
            facts.process.uid
        ),
        "set `allowPrivilegeEscalation: true`, or start as the wanted user with `runAsUser` and without the setuid tool",
    )
}

/// A setuid program without its owner's rights.
pub(super) fn setuid(clue: &Clue, facts: &Facts) -> Inference {
    if facts.process.no_new_privs {
        return no_new_privs(facts);
    }
    if let Some(volume) = clue.paths().find_map(|path| facts.volume_of(path)) {
        return likely(
            "nosuid",
            Layer::Filesystem,
            format!(
                "volume `{}` may be mounted nosuid",
                hull_sys::text::shown(&volume.target, 256)
            ),
            "put the setuid program into the image, or start as that user with `runAsUser`",
        );
    }
    if !facts.may_gain("SETUID") {
        return likely(
            "capability-missing",
            Layer::Security,
            "CAP_SETUID was dropped, so a setuid program cannot change its user",
            "add SETUID and SETGID to `capabilities.add`, or start as that user with `runAsUser`",
        );
    }
    likely(
        "not-setuid",
        Layer::Process,
        format!(
            "the program is not setuid root in the image, and uid {} starts it",
            facts.process.uid
        ),
        "set the setuid bit when the image is built (chmod u+s), or start as the wanted user with `runAsUser`",
    )
}

/// An id outside of the user namespace's range.
pub(super) fn unmapped_id(clue: &Clue, facts: &Facts) -> Option<Inference> {
    let mapped = facts.mapped_ids?;
    if !["chown", "chgrp", "setpriv", "gosu", "su-exec"].iter().any(|word| clue.is_about(word)) {
        return None;
    }
    let args: Vec<_> = facts.process.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
    let ids = ids(args.iter().flat_map(|arg| arg.split_ascii_whitespace()));
    let id = ids.into_iter().find(|id| *id >= mapped && facts.shows_id(*id))?;
    let last = mapped.saturating_sub(1);
    Some(likely(
        "id-unmapped",
        Layer::Security,
        format!("id {id} is not mapped in the pod's user namespace, which has ids 0-{last}"),
        format!("use ids 0-{last} (below {mapped})"),
    ))
}

/// The ids after the names of programs that change owners or users: `chown -R 1000:1000 /x`, `setpriv --reuid=5`.
fn ids<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u32> {
    const PROGRAMS: [&str; 4] = ["chown", "chgrp", "gosu", "su-exec"];
    let (mut found, mut program) = (Vec::new(), "");
    for word in words {
        let name = word.rsplit('/').next().unwrap_or_default();
        if PROGRAMS.contains(&name) || name == "setpriv" {
            program = name;
            continue;
        }
        let of_option =
            ["--reuid=", "--regid="].iter().find_map(|option| word.strip_prefix(option));
        let value = match of_option {
            Some(value) if program == "setpriv" => value,
            None if PROGRAMS.contains(&program) && !word.starts_with('-') => {
                program = "";
                word
            }
            Some(_) | None => continue,
        };
        found.extend(value.split([':', '.']).filter_map(|part| part.parse::<u32>().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_only_those_of_programs_that_change_owners() {
        for (args, wanted) in [
            (&["chown", "-R", "100000:7", "/x"][..], &[100_000, 7][..]),
            (&["sh", "-c", "chown 100000 /x 4711 && sleep 99999"], &[100_000]),
            (&["setpriv", "--reuid=5", "--regid=6", "id"], &[5, 6]),
            (&["gosu", "70000", "app", "99999"], &[70_000]),
            (&["sleep", "99999"], &[]),
            (&["app", "--reuid=5"], &[]),
        ] {
            let words = args.iter().flat_map(|arg| arg.split_ascii_whitespace());
            assert_eq!(ids(words), wanted, "{args:?}");
        }
    }
}
