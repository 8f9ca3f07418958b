// SPDX-License-Identifier: Apache-2.0
//! A start that failed at a resource limit of the container itself.

use crate::failure::{EAGAIN, EMFILE};
use hull_init::{Process, Step, StepError};

/// Numbers of limits, as [`hull_init::plan::Rlimit`] has them: getrlimit(2).
const RLIMIT_NPROC: u32 = 6;
const RLIMIT_NOFILE: u32 = 7;

/// The hint for an init that one of the container's own limits kept from starting.
pub(crate) fn hint(process: &Process, error: &StepError) -> Option<String> {
    if error.step != Step::Clone || !error.call.contains("(init)") {
        return None;
    }
    let soft = |resource: u32| {
        let of = process.rlimits.iter().find(|limit| limit.resource == resource);
        of.map(|limit| limit.soft)
    };
    match error.errno {
        EAGAIN => soft(RLIMIT_NPROC).map(|soft| {
            format!(
                "raise the container's own ulimit `nproc` (RLIMIT_NPROC is {soft}): it counts all processes of that user \
                 on the node, and an init needs one more; if they are fewer, the pod's `podPidsLimit` is reached"
            )
        }),
        EMFILE => soft(RLIMIT_NOFILE).map(|soft| {
            format!(
                "raise the container's own ulimit `nofile` (RLIMIT_NOFILE is {soft}): the start of an init needs a few descriptors"
            )
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_init::plan::Rlimit;

    #[test]
    fn the_containers_own_limit_is_named_where_it_has_one() {
        let oci = serde_json::json!({"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}});
        let oci = serde_json::from_value(oci).unwrap();
        let spec = oci_spec::runtime::Spec::default();
        let mut process = crate::process(&oci, &spec, &crate::HostFacts::default()).unwrap();
        let error = |errno, call: &str| StepError { step: Step::Clone, errno, call: call.into() };
        let (process_error, file_error) =
            (error(EAGAIN, "clone(init)"), error(EMFILE, "pipe2(init)"));
        assert_eq!(hint(&process, &process_error), None);
        assert_eq!(hint(&process, &file_error), None);
        let limit = |resource, soft| Rlimit { resource, soft, hard: soft };
        process.rlimits = vec![limit(RLIMIT_NPROC, 1), limit(RLIMIT_NOFILE, 3)];
        assert!(hint(&process, &process_error).unwrap().contains("`nproc` (RLIMIT_NPROC is 1)"));
        assert!(hint(&process, &file_error).unwrap().contains("`nofile` (RLIMIT_NOFILE is 3)"));
        // The container's first process has no limits of its own yet when it is created.
        assert_eq!(hint(&process, &error(EAGAIN, "clone3(0x0)")), None);
    }
}
