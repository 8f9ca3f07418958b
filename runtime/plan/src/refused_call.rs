// SPDX-License-Identifier: Apache-2.0
//! A step of a start that failed because the container's own seccomp filter refuses the call.

use crate::seccomp::{Verdict, verdict};
use hull_init::{Process, StepError};

/// The sentence and the hint, if the filter of the process gives this errno for the failed call. A step before the
/// filter's looks the same, but its calls succeed for the daemon's own processes.
pub(crate) fn found(
    process: &Process,
    has_init: bool,
    error: &StepError,
) -> Option<(String, String)> {
    let filter = process.seccomp.as_ref()?;
    let call = error.call.split(['(', ' ']).next().filter(|call| !call.is_empty())?;
    let errno = u32::try_from(error.errno).ok()?;
    if verdict(filter, call) != Some(Verdict::Fails(errno)) {
        return None;
    }
    // With an init the filter is installed before the program's process exists, whatever is set.
    let hint = if process.no_new_privs || has_init {
        format!("allow `{call}` in the profile")
    } else {
        format!(
            "allow `{call}` in the profile, or set `allowPrivilegeEscalation: false`: the profile is applied as the very \
             last step then"
        )
    };
    let what = format!(
        "its seccomp profile refuses system call `{call}`, which the start needs [{}]",
        error.call
    );
    Some((what, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{compiled, localhost};
    use hull_init::Step;

    #[test]
    fn a_call_that_the_profile_refuses_is_the_profiles_fault() {
        let json = br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["setresuid"], "action": "SCMP_ACT_ERRNO"}]}"#;
        let oci = serde_json::json!({"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}});
        let oci = serde_json::from_value(oci).unwrap();
        let spec = oci_spec::runtime::Spec::default();
        let mut process = crate::process(&oci, &spec, &crate::HostFacts::default()).unwrap();
        let error = |call: &str| StepError { step: Step::Identity, errno: 1, call: call.into() };
        let found = |process: &Process, error| found(process, false, &error);
        assert_eq!(found(&process, error("setresuid()")), None);
        process.seccomp = Some(compiled(&localhost(json).unwrap()).unwrap());
        let (what, hint) = found(&process, error("setresuid()")).unwrap();
        assert!(what.contains("refuses system call `setresuid`"), "{what}");
        assert!(hint.contains("allow `setresuid`"), "{hint}");
        assert!(hint.contains("allowPrivilegeEscalation: false"), "{hint}");
        assert_eq!(found(&process, error("setresgid()")), None);
        assert_eq!(found(&process, error("")), None);
        let of_init = super::found(&process, true, &error("setresuid()")).unwrap().1;
        assert_eq!(of_init, "allow `setresuid` in the profile");
    }
}
