// SPDX-License-Identifier: Apache-2.0
//! `hull oci`: hands over to the embedded program, before anything of this one is set up.
//!
//! That program is of its own because the daemon must not link what makes processes, and because it
//! runs for every step of a container's life: it must be there at once. It is started
//! from a sealed file in memory, which a container that gets hold of it cannot change.

use crate::embedded;
use hull_sys::{CStringArray, Error};
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// The name by which a link to this program is the OCI runtime alone.
const NAME: &str = "hull-oci";

/// The words for the OCI runtime, when that is what was asked for.
pub(crate) fn requested() -> Option<Vec<OsString>> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|name| Path::new(name).file_name());
    if name.is_some_and(|name| name == NAME) {
        return Some(words.into_iter().skip(1).collect());
    }
    if words.get(1).is_some_and(|word| word == "oci") {
        return Some(words.into_iter().skip(2).collect());
    }
    None
}

/// Becomes the OCI runtime. Returns only if that failed.
pub(crate) fn become_runtime(words: &[OsString]) -> Error {
    let program = match hull_sys::sealed_memfd(NAME, embedded::OCI) {
        Ok(program) => program,
        Err(err) => return err,
    };
    let name = std::iter::once(NAME.as_bytes().to_vec());
    let args: Vec<_> = name.chain(words.iter().map(|word| word.as_bytes().to_vec())).collect();
    let env: Vec<_> = std::env::vars_os()
        .map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            key.into_vec()
        })
        .collect();
    match (CStringArray::new(&args), CStringArray::new(&env)) {
        (Ok(args), Ok(env)) => hull_sys::execveat(program.as_fd(), &args, &env),
        (Err(errno), _) | (_, Err(errno)) => Error::new(errno, "execveat(hull-oci)"),
    }
}
