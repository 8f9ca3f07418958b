// SPDX-License-Identifier: Apache-2.0
//! Why a spec cannot be planned. Texts read after "cannot".

use crate::defaults::REPLACEABLE_IN_PROC;

/// Why a spec cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something a plan needs is not in the spec.
    #[error("find `{field}` in the runtime spec")]
    Missing {
        /// Path of the field.
        field: &'static str,
    },
    /// An invalid value.
    #[error("take `{value}` as {field}: {why}")]
    Bad {
        /// Path of the field.
        field: &'static str,
        /// The value in the spec.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A feature that this runtime does not support.
    #[error("do {what} (`{value}`)")]
    Unsupported {
        /// Name of the feature.
        what: &'static str,
        /// The field or value in the spec.
        value: String,
    },
    /// A mount that would hide or replace a part of procfs.
    #[error("mount at `{target}`: no mount may hide or replace a part of the container's procfs")]
    InProc {
        /// The destination of the mount.
        target: String,
    },
    /// A setting that would change the host.
    #[error("set sysctl `{name}` in a container: it is not namespaced{because}")]
    HostSysctl {
        /// Name of the setting in the spec.
        name: String,
        /// The reason, if the pod uses the host's namespace; else empty.
        because: &'static str,
    },
    /// A setting of a namespace that the container does not have.
    #[error("apply `{field}`: the container has no {kind} namespace of its own")]
    NoNamespace {
        /// Path of the field.
        field: &'static str,
        /// The namespace's type, as `linux.namespaces` names it.
        kind: &'static str,
    },
    /// A container whose mounts would be made in a mount namespace that others are in.
    #[error(
        "mount the container's file systems: it has no mount namespace of its own, {}",
        if *is_joined { "but that of others" } else { "but the caller's" }
    )]
    NoMountNamespace {
        /// Whether it names one to join.
        is_joined: bool,
    },
    /// A seccomp profile that cannot be compiled.
    #[error("compile the seccomp profile: {why}")]
    Seccomp {
        /// The message of the library.
        why: String,
    },
    /// A seccomp profile under which no program can start or end, or Hull's own last steps cannot be taken.
    #[error(
        "use the seccomp profile: it {answer} system call{} {}, without which {without}",
        if calls.len() == 1 { "" } else { "s" },
        quoted(calls)
    )]
    SeccompCalls {
        /// Its answer to the calls, as a verb.
        answer: &'static str,
        /// Names of the calls.
        calls: Vec<&'static str>,
        /// The consequence, after "without which".
        without: &'static str,
        /// Names of calls that it refuses as well, by which programs usually start.
        further: Vec<&'static str>,
        /// Whether the profile could be applied after most of these calls.
        can_be_last: bool,
    },
    /// A profile that does not parse.
    #[error("read the seccomp profile")]
    Profile {
        /// The parser's error, with its position.
        source: serde_json::Error,
    },
    /// A label of a security module that the host does not have.
    #[error("apply {module} label `{label}`: this host has no {module}")]
    NoModule {
        /// AppArmor or SELinux.
        module: &'static str,
        /// The label in the spec.
        label: String,
    },
}

/// Names of system calls, as in "`read`, `write`".
fn quoted(calls: &[&str]) -> String {
    let names: Vec<String> = calls.iter().map(|call| format!("`{call}`")).collect();
    names.join(", ")
}

impl Error {
    /// The change that fixes it, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::HostSysctl { name, because: "" } => Some(format!(
                "set it on the node itself: sysctl -w {name}=VALUE there, or from a privileged pod; and remove it from this one"
            )),
            Self::HostSysctl { .. } => Some(
                "set it on the node itself, or let the pod have this namespace of its own (no `hostNetwork` or `hostIPC`)".into(),
            ),
            Self::InProc { .. } => Some(format!(
                "mount it outside of /proc; only these files there may be replaced, by bind mounts, as lxcfs does: {}",
                REPLACEABLE_IN_PROC.join(", ")
            )),
            Self::NoNamespace { field, kind } => Some(format!(
                "add a namespace of type `{kind}` to `linux.namespaces`, or remove `{field}`"
            )),
            Self::NoMountNamespace { .. } => Some(
                "add `{\"type\": \"mount\"}` without a path to `linux.namespaces`: mounts made elsewhere would hide files of others, and stay when the container is gone".into(),
            ),
            Self::NoModule { module, .. } => Some(format!(
                "enable {module} on the node, or remove the label: a pod has it from its security context"
            )),
            Self::Unsupported { value, .. } if value.starts_with("SCMP_ACT_") => {
                Some(format!("use another action than `{value}` in the seccomp profile"))
            }
            Self::Unsupported { value, .. } => {
                Some(format!("take `{value}` out of the pod's spec"))
            }
            Self::Profile { .. } | Self::Seccomp { .. } => Some(
                "correct the profile; its form is the OCI runtime spec's `linux.seccomp`".into(),
            ),
            Self::SeccompCalls { calls, further, can_be_last, .. } => {
                let mut hint = format!("allow {} in the seccomp profile", quoted(calls));
                if *can_be_last {
                    hint.push_str(
                        ", or set `allowPrivilegeEscalation: false` (`noNewPrivileges` in a config.json): the profile is \
                         then applied as the very last step, and of these needs only `execve` and `exit_group`",
                    );
                }
                if !further.is_empty() {
                    hint.push_str(&format!(
                        "; programs usually need also {}, which it refuses",
                        quoted(further)
                    ));
                }
                Some(hint)
            }
            // Only who wrote a config.json knows the field.
            Self::Bad { .. } | Self::Missing { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_of_the_profile_and_not_of_the_pods_spec() {
        let of = |value: &str| {
            let error = Error::Unsupported { what: "seccomp notification", value: value.into() };
            error.hint().unwrap()
        };
        assert!(of("SCMP_ACT_NOTIFY").contains("in the seccomp profile"));
        assert!(of("linux.intelRdt").contains("the pod's spec"));
    }
}
