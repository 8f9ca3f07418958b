// SPDX-License-Identifier: Apache-2.0
//! Names in a profile that no system call has. Other runtimes ignore them as Hull does, since a profile may be newer
//! than the kernel; but a name that was misspelt neither allows nor denies anything, so it is reported.

use super::calls::number;
use crate::nearest::nearest;
use oci_spec::runtime::LinuxSeccomp;

/// Most names that are reported.
const NAMES_MAX: usize = 8;
/// Longest name that is looked at, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A name that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCall {
    /// The name in the profile, escaped.
    pub name: String,
    /// A system call with nearly the same name.
    pub meant: Option<&'static str>,
}

/// The names in a profile that are not those of a system call, on any architecture.
#[must_use]
pub fn unknown_calls(profile: &LinuxSeccomp) -> Vec<UnknownCall> {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let mut unknown: Vec<UnknownCall> = Vec::new();
    for name in names.filter(|name| number(name).is_none()) {
        let shown = hull_sys::text::shown(name, NAME_BYTES_MAX);
        if unknown.len() < NAMES_MAX && unknown.iter().all(|known| known.name != shown) {
            unknown.push(UnknownCall { name: shown, meant: meant(name) });
        }
    }
    unknown
}

/// The system call of this architecture with the nearest name.
fn meant(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    nearest(name, syscalls::Sysno::iter().map(|call| call.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{localhost, runtime_default};

    #[test]
    fn a_misspelt_call_is_found_with_the_one_that_was_meant() {
        let json = br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdri", "read", "arm_fadvise64_64", "zzzzzzzz\n"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["mkdri"], "action": "SCMP_ACT_ERRNO"}]}"#;
        let unknown = unknown_calls(&localhost(json).unwrap());
        let found: Vec<_> = unknown.iter().map(|call| (call.name.as_str(), call.meant)).collect();
        assert_eq!(found, [("mkdri", Some("mkdir")), ("zzzzzzzz\\n", None)]);
        assert!(unknown_calls(&runtime_default(None).unwrap()).is_empty());
    }
}
