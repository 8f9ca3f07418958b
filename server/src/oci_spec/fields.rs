// SPDX-License-Identifier: Apache-2.0
//! Where a field of a CRI config comes from in a pod's manifest or an image, for hints. Pure.

/// Fields by their beginning, and the change in the manifest or image.
const ORIGINS: [(&str, &str); 12] = [
    ("the stop signal", "correct `STOPSIGNAL` of the image, or `lifecycle.stopSignal` of the pod"),
    ("the image's VOLUMEs", "build the image with fewer `VOLUME`s"),
    ("port_mappings", "correct `ports` of the pod: port, protocol, `hostIP`"),
    ("a mount", "correct the paths in `volumeMounts` and `volumes` of the pod"),
    ("mounts", "correct `volumeMounts` and `volumes` of the pod"),
    ("oom_score_adj", "choose a score from -1000 to 1000"),
    (
        "namespace_options",
        "correct `hostPID`, `hostIPC`, `hostNetwork` or `shareProcessNamespace` of the pod",
    ),
    ("devices", "correct the device's path, or the device plugin that named it"),
    ("annotation `hull.run/init`", "set the pod's annotation to \"true\" or \"false\""),
    ("annotation `hull.run/cgroup-writable`", "set the pod's annotation to \"true\" or \"false\""),
    ("config.envs", "correct `env` of the pod, or `ENV` of the image"),
    ("seccomp", "choose RuntimeDefault, Unconfined or Localhost as `seccompProfile.type`"),
];

/// The hint for an invalid value of a field, if it is known where the field comes from.
pub(super) fn hint(field: &str) -> Option<String> {
    let of = ORIGINS.iter().find(|(start, _)| field.starts_with(start));
    of.map(|(_, hint)| (*hint).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_leads_to_its_place_in_the_manifest() {
        for (field, wanted) in [
            ("port_mappings.host_ip", "`ports`"),
            ("mounts.propagation", "`volumeMounts`"),
            ("a mount", "paths"),
            ("namespace_options.pid", "`hostPID`"),
            ("config.envs", "`env`"),
        ] {
            assert!(hint(field).unwrap_or_default().contains(wanted), "{field}");
        }
        assert_eq!(hint("something else"), None);
    }
}
