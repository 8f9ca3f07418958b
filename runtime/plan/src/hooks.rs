// SPDX-License-Identifier: Apache-2.0
//! Hooks of a spec, as a flat list in the order in which they run.

use crate::Error;
use crate::seccomp::refused_at_start;
use hull_init::hooks::{KILLED_BY_FILTER, KILLED_WITH_CONTAINER};
use hull_init::plan::Seccomp;
use hull_init::{Hook, HookKind, Hooks, Step, StepError};
use oci_spec::runtime::{Hook as Oci, Spec};

/// The hooks of `spec`. `state` is the state that they get, as JSON without its end; see
/// [`Hooks::state`].
pub fn hooks(spec: &Spec, state: String) -> Result<Hooks, Error> {
    let Some(hooks) = spec.hooks() else { return Ok(Hooks { state, list: Vec::new() }) };
    let prestart = hooks.prestart();
    let kinds = [
        (HookKind::Prestart, prestart),
        (HookKind::CreateRuntime, hooks.create_runtime()),
        (HookKind::CreateContainer, hooks.create_container()),
        (HookKind::StartContainer, hooks.start_container()),
        (HookKind::Poststart, hooks.poststart()),
        (HookKind::Poststop, hooks.poststop()),
    ];
    let mut list = Vec::new();
    for (kind, of_kind) in kinds {
        for hook in of_kind.iter().flatten() {
            list.push(one(kind, hook)?);
        }
    }
    Ok(Hooks { state, list })
}

/// Names the files that have hooks, each with its kind, in the order in which they run: their hooks are the last of their
/// kinds.
pub fn name_files(hooks: &mut Hooks, files: &[(HookKind, String)]) {
    for (kind, file) in files.iter().rev() {
        let of_kind = |of: &&mut Hook| of.kind == *kind && of.file.is_none();
        if let Some(hook) = hooks.list.iter_mut().rev().find(of_kind) {
            hook.file = Some(file.clone());
        }
    }
}

/// The hint for a failed hook where one is better than that for all hooks: about its time, its file, or the filter.
#[must_use]
pub fn hook_hint(hooks: &Hooks, error: &StepError, filter: Option<&Seccomp>) -> Option<String> {
    let Step::Hook(at) = error.step else { return None };
    let hook = hooks.list.get(usize::try_from(at).ok()?)?;
    if error.errno == TIMED_OUT {
        let place = hook.file.as_ref().map_or_else(
            || "in the file of its CDI device, or by its NRI plugin".to_owned(),
            |file| format!("in {file}, and create the container again"),
        );
        return Some(format!(
            "find what the hook waits for, or give it a longer `timeout` (seconds) {place}"
        ));
    }
    let by_filter = refused_by_filter(hooks, error, filter);
    by_filter.or_else(|| {
        hook.file.as_ref().map(|file| {
            format!("correct on this node what its output names, or correct or remove {file} (of `runtime.hooks_dir`), and create the container again")
        })
    })
}

/// The output of a hook, quoted, that was killed because its container's process had ended; empty if it had none. `None`
/// for any other error.
#[must_use]
pub fn cut_short(error: &StepError) -> Option<&str> {
    let Step::Hook(_) = error.step else { return None };
    let said = error.call.strip_prefix(KILLED_WITH_CONTAINER)?.strip_prefix("; it said ")?;
    Some(if said == "\"\"" { "" } else { said })
}

/// The error number ETIMEDOUT, `errno(3)`.
const TIMED_OUT: i32 = 110;

/// The code of a shell whose command a seccomp filter killed: 128 + SIGSYS.
const SHELL_OF_KILLED: &str = "exit code 159;";

/// The hint for a failed hook, if the seccomp filter of the container is the likely reason: only startContainer hooks run
/// under it. The hook ended by the filter's signal, or the filter refuses calls by which programs start.
#[must_use]
pub fn refused_by_filter(
    hooks: &Hooks,
    error: &StepError,
    filter: Option<&Seccomp>,
) -> Option<String> {
    let Step::Hook(at) = error.step else { return None };
    let hook = hooks.list.get(usize::try_from(at).ok()?)?;
    let filter = filter.filter(|_| hook.kind == HookKind::StartContainer)?;
    let is_killed =
        error.call.starts_with(KILLED_BY_FILTER) || error.call.starts_with(SHELL_OF_KILLED);
    let refused = refused_at_start(filter);
    let calls: Vec<String> = refused.all().map(|call| format!("`{call}`")).collect();
    let likely = "the container's seccomp profile, under which startContainer hooks run, is the likely reason";
    match (is_killed, refused.needed.is_empty()) {
        (true, true) if calls.is_empty() => Some(format!(
            "{likely}: allow the hook's system calls in it; the node's audit log names the call (`type=1326`)"
        )),
        (true, _) | (false, false) => Some(format!(
            "{likely}: it refuses {}, by which programs start; allow the hook's system calls in it",
            calls.join(", ")
        )),
        (false, true) => None,
    }
}

fn one(kind: HookKind, hook: &Oci) -> Result<Hook, Error> {
    let path = hook.path().to_string_lossy().into_owned();
    if !path.starts_with('/') {
        return Err(Error::Bad {
            field: "hooks.path",
            value: path,
            why: "it is not an absolute path",
        });
    }
    let timeout_s = match hook.timeout() {
        None => None,
        Some(seconds) => match u32::try_from(seconds).ok().filter(|seconds| *seconds > 0) {
            Some(seconds) => Some(seconds),
            None => {
                return Err(Error::Bad {
                    field: "hooks.timeout",
                    value: seconds.to_string(),
                    why: "it must be greater than 0",
                });
            }
        },
    };
    let bytes = |texts: &Option<Vec<String>>| -> Vec<Vec<u8>> {
        texts.iter().flatten().map(|text| text.clone().into_bytes()).collect()
    };
    Ok(Hook { kind, path, args: bytes(hook.args()), env: bytes(hook.env()), timeout_s, file: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{compiled, localhost};

    fn spec(hook: &str) -> Spec {
        let text = format!(
            r#"{{"ociVersion":"1.0.0","hooks":{{"poststop":[{hook}],"createRuntime":[{hook}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn hooks_come_in_the_order_in_which_they_run() {
        let spec = spec(r#"{"path":"/bin/true","args":["true","x"],"timeout":5}"#);
        let hooks = hooks(&spec, "{".into()).unwrap();
        let kinds: Vec<_> = hooks.list.iter().map(|hook| hook.kind).collect();
        assert_eq!(kinds, [HookKind::CreateRuntime, HookKind::Poststop]);
        assert_eq!(hooks.list[0].timeout_s, Some(5));
        assert_eq!(hooks.list[0].args[1], b"x");
    }

    #[test]
    fn a_hook_in_the_container_that_the_profile_refuses_is_the_profiles_fault() {
        let text = r#"{"ociVersion":"1.0.0","hooks":{"createRuntime":[{"path":"/h"}],"startContainer":[{"path":"/h"}]}}"#;
        let hooks = hooks(&serde_json::from_str(text).unwrap(), "{".into()).unwrap();
        let filter = |calls: &[&str]| {
            let rule = serde_json::json!({"names": calls, "action": "SCMP_ACT_KILL_PROCESS"});
            let profile =
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            compiled(&localhost(profile.to_string().as_bytes()).unwrap()).unwrap()
        };
        let (mkdir, mmap) = (filter(&["mkdir"]), filter(&["mmap", "rseq"]));
        let killed = format!("{KILLED_BY_FILTER}; it said \"\"");
        let of = |at, call: &str, filter| {
            let error = StepError { step: Step::Hook(at), errno: 125, call: call.into() };
            refused_by_filter(&hooks, &error, filter)
        };
        for call in [killed.as_str(), "exit code 159; it said \"\""] {
            let hint = of(1, call, Some(&mkdir)).unwrap();
            assert!(hint.contains("likely") && hint.contains("audit log"), "{hint}");
        }
        for call in [killed.as_str(), "exit code 127; it said \"\""] {
            let hint = of(1, call, Some(&mmap)).unwrap();
            assert!(hint.contains("refuses `mmap`, `rseq`"), "{hint}");
        }
        assert_eq!(of(1, "exit code 1; it said \"exit code 159;\"", Some(&mkdir)), None);
        assert_eq!(of(1, &killed, None), None);
        assert_eq!(of(0, &killed, Some(&mmap)), None, "that one runs outside");
    }

    #[test]
    fn a_hook_that_ended_with_its_container_is_told_from_one_that_failed() {
        let error = |call: String| StepError { step: Step::Hook(0), errno: 125, call };
        let killed = |said: &str| error(format!("{KILLED_WITH_CONTAINER}; it said {said:?}"));
        assert_eq!(cut_short(&killed("")), Some(""));
        assert_eq!(cut_short(&killed("begun")), Some("\"begun\""));
        assert_eq!(cut_short(&error("exit code 3; it said \"\"".into())), None);
        let other = StepError { step: Step::Exec, ..killed("") };
        assert_eq!(cut_short(&other), None);
    }

    #[test]
    fn a_hook_that_could_not_run_is_refused_by_name() {
        for (hook, named) in [
            (r#"{"path":"true"}"#, "`true` as hooks.path"),
            (r#"{"path":"/bin/true","timeout":0}"#, "`0` as hooks.timeout"),
        ] {
            let said = hooks(&spec(hook), "{".into()).unwrap_err().to_string();
            assert!(said.contains(named), "{said}");
        }
    }
}
