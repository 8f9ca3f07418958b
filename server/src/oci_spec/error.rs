// SPDX-License-Identifier: Apache-2.0
//! Configs from which no spec can be built. Texts read after "cannot".

use super::{fields, user};
use crate::apparmor;

/// A config from which no spec can be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "choose a command: no command is specified, neither the container's config nor the image has one"
    )]
    NoCommand,
    #[error("take `{value}` as {field}: {why}")]
    Bad { field: &'static str, value: String, why: &'static str },
    #[error("take `{value}` as ulimits: {why}")]
    Ulimit { value: String, why: String },
    #[error("take `{value}` as userns_options.{field}: {why}")]
    UserNamespace { field: &'static str, value: String, why: &'static str },
    #[error("join the processes of container `{target}` (target_id): {why}")]
    NoTarget { target: String, why: &'static str },
    #[error("give the pod a user namespace: this node cannot ({why})")]
    NoUserNamespaces { why: String },
    #[error("mount `{path}` read-only recursively: {why}")]
    RecursiveReadOnly { path: String, why: &'static str },
    #[error("mount at `{path}` with option `{option}`: it is not one of {known}")]
    MountOption { path: String, option: String, known: String },
    #[error("mount the volumes of the image: it defines {count} (VOLUME), and {max} are allowed")]
    ImageVolumes { count: usize, max: usize },
    #[error("mount an image at `{path}`: {why}")]
    ImageVolume { path: String, why: &'static str },
    #[error("add device `{path}`: it is not on this node")]
    NoDevice { path: String, source: std::io::Error },
    #[error("add capability `{name}`: it is unknown, there is no capability with this name")]
    NoCapability { name: String },
    #[error(
        "add capability `{name}`: it is not in the bounding set of this node, which itself has no right to it"
    )]
    CapabilityOfNode { name: String },
    #[error("take `{id}` as {field}: the pod's user namespace has no such id, it is not mapped")]
    UnmappedId { field: &'static str, id: u32, ids: u32 },
    #[error("read seccomp profile `{path}`")]
    ReadProfile { path: String, source: std::io::Error },
    #[error("read seccomp profile `{path}`: it leaves {root} by `..`")]
    ProfileOutside { path: String, root: String },
    #[error("use seccomp profile `{path}`")]
    Profile { path: String, source: hull_plan::Error },
    #[error("use AppArmor profile `{name}`: it is not loaded on this node")]
    NoAppArmorProfile { name: String },
    #[error("take `{value}` as seLinuxOptions.{field}: no SELinux label has such a {field}")]
    SeLinux { field: &'static str, value: String },
    #[error("make the cgroups of the container writable for it: {why}")]
    CgroupWritable { why: &'static str, hint: &'static str },
    #[error(transparent)]
    Class { source: crate::oci_spec::classes::Error },
    #[error(transparent)]
    Cdi { source: crate::oci_spec::cdi::Error },
    #[error("resolve the user")]
    User { source: user::Error },
    #[error("build the runtime spec")]
    Form { source: serde_json::Error },
    #[error("set the limits")]
    Limits { source: hull_plan::Error },
    #[error("set the pod's sysctls")]
    Sysctl { source: hull_plan::Error },
}

impl From<crate::oci_spec::cdi::Error> for Error {
    fn from(source: crate::oci_spec::cdi::Error) -> Self {
        Self::Cdi { source }
    }
}

impl From<crate::oci_spec::classes::Error> for Error {
    fn from(source: crate::oci_spec::classes::Error) -> Self {
        Self::Class { source }
    }
}

impl From<user::Error> for Error {
    fn from(source: user::Error) -> Self {
        Self::User { source }
    }
}

impl Error {
    /// The change by which a user fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Cdi { source } => source.hint(),
            Self::Class { source } => source.hint(),
            Self::CgroupWritable { hint, .. } => Some((*hint).into()),
            Self::NoCommand => Some("set `command` in the container's spec".into()),
            Self::RecursiveReadOnly { .. } => Some(
                "set `readOnly: true` and no mount propagation with `recursiveReadOnly`".into(),
            ),
            Self::MountOption { .. } => Some(
                "remove it from the mount's options; `readonly` and `propagation` are fields of their own".into(),
            ),
            Self::UserNamespace { .. } => Some(
                "the kubelet gives a pod with `hostUsers: false` one range of ids, from container id 0 on".into(),
            ),
            Self::NoTarget { .. } => Some(
                "name a running container of the same pod (`kubectl debug --target`)".into(),
            ),
            Self::NoUserNamespaces { .. } => Some(
                "remove `hostUsers: false` from the pod's spec; it needs Linux 6.15 and a data directory on a filesystem with mapped ids (ext4, xfs, btrfs)".into(),
            ),
            Self::NoDevice { .. } => {
                Some("check the path on the node, or the device plugin that named it".into())
            }
            Self::NoCapability { name } => {
                let upper = name.to_ascii_uppercase();
                let meant = hull_plan::capabilities::meant(upper.trim_start_matches("CAP_"));
                let meant = meant.map_or(String::new(), |meant| format!("did you mean {meant}? "));
                Some(format!("{meant}names are those of capabilities(7), with or without CAP_, or ALL"))
            }
            Self::UnmappedId { ids, .. } => Some(format!(
                "use ids below {ids} in `runAsUser`, `runAsGroup` and `supplementalGroups`, or set `hostUsers: true`"
            )),
            Self::CapabilityOfNode { name } => Some(format!(
                "remove {} from `capabilities.add`, or run the pod on a node that has it (a node that is itself a container \
                 gets it from its own runtime)",
                name.trim_start_matches("CAP_")
            )),
            Self::ReadProfile { .. } => {
                Some("put the profile on the node, below the kubelet's seccomp directory".into())
            }
            Self::ProfileOutside { root, .. } => Some(format!(
                "use a path below {root}, or set `runtime.seccomp_root` to the directory of the profiles"
            )),
            Self::NoAppArmorProfile { name } if name == apparmor::DEFAULT => Some(
                "see the reason in hull's log at its start; install apparmor_parser, then restart hull".into(),
            ),
            Self::NoAppArmorProfile { name } => Some(format!(
                "load it: apparmor_parser --replace /etc/apparmor.d/{}",
                name.trim_start_matches('/').replace('/', ".")
            )),
            Self::SeLinux { .. } => Some(
                "a level is like s0:c1,c2; user, role and type are names of the node's policy (seinfo -u, -r, -t)".into(),
            ),
            Self::Profile { source, .. } | Self::Limits { source } | Self::Sysctl { source } => {
                source.hint()
            }
            Self::User { source } => source.hint(),
            Self::ImageVolume { .. } => Some(
                "an `image` volume is mounted `readOnly`, with a `subPath` inside the image and no other source".into(),
            ),
            Self::ImageVolumes { .. } => Some("define fewer volumes in the image".into()),
            Self::Ulimit { .. } => Some(
                "a limit is NAME=SOFT:HARD, as in nofile=1024:4096, with a soft limit that is not above the hard one; -1 means unlimited".into(),
            ),
            Self::Bad { field, .. } => fields::hint(field),
            Self::Form { .. } => None,
        }
    }
}
