// SPDX-License-Identifier: Apache-2.0
//! The hooks of a container, and the errors of hooks that fail.

use crate::error::{Error, Result};
use crate::record::Record;
use crate::store::Dir;
use hull_init::{HookKind, Hooks, StepError};
use oci_spec::runtime::{Spec, SpecBuilder};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// The container's hooks, as they were when it was created.
pub(crate) fn hooks(record: &Record) -> Result<Hooks> {
    let planned = |source| Error::Plan { id: record.id.clone(), source };
    let mut hooks =
        hull_plan::hooks(&only_hooks(record)?, record.state_for_hooks()).map_err(planned)?;
    inherit_env(&mut hooks);
    Ok(hooks)
}

/// Gives hooks outside of the container that have no environment of their own the caller's, as runc does.
pub(crate) fn inherit_env(hooks: &mut Hooks) {
    use HookKind::{CreateRuntime, Poststart, Poststop, Prestart};
    let outside = [Prestart, CreateRuntime, Poststart, Poststop];
    for hook in &mut hooks.list {
        if outside.contains(&hook.kind) && hook.env.is_empty() {
            let entry = |(name, value): (OsString, OsString)| {
                [name.as_bytes(), b"=", value.as_bytes()].concat()
            };
            hook.env = std::env::vars_os().map(entry).collect();
        }
    }
}

pub(crate) fn only_hooks(record: &Record) -> Result<Spec> {
    let mut spec = SpecBuilder::default()
        .build()
        .map_err(|err| Error::BadValue { value: err.to_string(), what: "a record's hooks" })?;
    spec.set_hooks(record.hooks.clone());
    Ok(spec)
}

pub(crate) fn failed_hook(record: &Record, hooks: &Hooks, error: &StepError) -> Error {
    hook_failed(hooks, record.id.clone(), error)
}

/// A hook that failed in the container, under its seccomp filter.
pub(crate) fn failed_inside(dir: &Dir, record: &Record, error: &StepError) -> Result<Error> {
    let hooks = hooks(record)?;
    let filter = dir.filter()?.and_then(|bytes| borsh::from_slice(&bytes).ok());
    let hint = hull_plan::refused_by_filter(&hooks, error, filter.as_ref());
    Ok(Error::Hook {
        id: record.id.clone(),
        hook: hooks.name(error),
        why: error.call.clone(),
        hint,
    })
}

/// Names the hook.
pub(crate) fn hook_failed(hooks: &Hooks, id: String, error: &StepError) -> Error {
    Error::Hook { id, hook: hooks.name(error), why: error.call.clone(), hint: None }
}
