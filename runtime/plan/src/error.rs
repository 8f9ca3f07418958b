// SPDX-License-Identifier: Apache-2.0
//! Why a spec cannot be planned. Texts read after "cannot".

/// Why a spec cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something a plan needs is not in the spec.
    #[error("find `{field}` in the runtime spec")]
    Missing {
        /// Path of the field.
        field: &'static str,
    },
    /// A value that makes no sense.
    #[error("take `{value}` as {field}: {why}")]
    Bad {
        /// Path of the field.
        field: &'static str,
        /// As given.
        value: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Known, but not done by this runtime.
    #[error("do {what} (`{value}`)")]
    Unsupported {
        /// Which feature.
        what: &'static str,
        /// As given.
        value: String,
    },
    /// A setting that would change the host.
    #[error("set sysctl `{name}` in a container: it is not namespaced{because}")]
    HostSysctl {
        /// As given.
        name: String,
        /// When the namespace is the host's.
        because: &'static str,
    },
    /// The profile.
    #[error("compile the seccomp profile: {why}")]
    Seccomp {
        /// What the library says.
        why: String,
    },
    /// A profile that does not parse.
    #[error("read the seccomp profile")]
    Profile {
        /// What is wrong where.
        source: serde_json::Error,
    },
    /// A security module that is not there.
    #[error("apply {module} label `{label}`: this host has no {module}")]
    NoModule {
        /// AppArmor or SELinux.
        module: &'static str,
        /// As given.
        label: String,
    },
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::HostSysctl { .. } => Some(
                "set it on the node itself, or give the pod a namespace of its own for it".into(),
            ),
            Self::NoModule { module, .. } => Some(format!(
                "enable {module} on the node, or take the profile out of the security context"
            )),
            Self::Unsupported { value, .. } => {
                Some(format!("take `{value}` out of the pod's spec"))
            }
            Self::Profile { .. } | Self::Seccomp { .. } => Some(
                "correct the profile; its form is the OCI runtime spec's `linux.seccomp`".into(),
            ),
            Self::Missing { .. } | Self::Bad { .. } => None,
        }
    }
}
