// SPDX-License-Identifier: Apache-2.0
//! Hooks of a spec, as a flat list in the order in which they run.

use crate::Error;
use hull_init::{Hook, HookKind, Hooks};
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
    Ok(Hook { kind, path, args: bytes(hook.args()), env: bytes(hook.env()), timeout_s })
}

#[cfg(test)]
mod tests {
    use super::*;

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
