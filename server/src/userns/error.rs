// SPDX-License-Identifier: Apache-2.0
//! Failures of an assignment. Texts read after "cannot".

use super::ids::IDS;

/// A user namespace that cannot be assigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("take `{value}` as {field}: {why}")]
    Mode { field: &'static str, value: String, why: &'static str },
    #[error("assign a user namespace, which {field} asks for: {why}")]
    Shared { field: &'static str, why: &'static str },
    #[error("use {file}: {why}")]
    File { file: String, why: String },
    #[error("find ids in {file}: it has no line of {users}")]
    NoLine { file: String, users: String },
    #[error("take ids from {file}: no line of user `{user}` has {IDS}, the longest has {longest}")]
    TooSmall { file: String, user: String, longest: u32 },
    #[error("find free ids in {file}: pods have all {count} ranges of user `{user}`")]
    Exhausted { file: String, user: String, count: u64 },
    #[error("give the pod ids {first} to {last} of the host: pod {holder} has ids of them")]
    Taken { first: u32, last: u64, holder: String },
}

impl Error {
    /// The change by which an operator or author fixes this.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Mode { .. } => format!(
                "use `auto`, or `auto:size=NUMBER` with at most {IDS}; `hostUsers: true` leaves a pod in the host's user namespace"
            ),
            Self::Shared { field, .. } => {
                format!("remove {field}, or what the pod shares with the host")
            }
            Self::File { file, .. } => format!(
                "{file} needs lines NAME:FIRST:COUNT of subuid(5), as hull:1879048192:67108864 for 1024 pods, that overlap with none of another user; `hull check` reads it again"
            ),
            Self::NoLine { file, .. } | Self::TooSmall { file, .. } => format!(
                "add ids that nobody else has: echo hull:1879048192:67108864 >> {file} (1024 pods)"
            ),
            Self::Exhausted { file, user, .. } => format!(
                "remove pods, also stopped ones, which keep their range; or add a line of user `{user}` to {file}"
            ),
            Self::Taken { .. } => {
                "give the kubelet and Hull different ids in /etc/subuid and /etc/subgid (users `kubelet` and `hull`), then recreate that pod".into()
            }
        }
    }
}
