// SPDX-License-Identifier: Apache-2.0
//! CDI devices that a container cannot get. Texts read after "cannot".

/// A CDI device that a container cannot get.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find CDI device `{name}`: it is not of the form vendor.com/class=name")]
    Name { name: String },
    #[error("find CDI device `{name}`: no file in {dirs} defines it{broken}")]
    Unknown { name: String, dirs: String, broken: String },
    #[error("find CDI device `{name}`: `runtime.cdi_spec_dirs` is empty")]
    Off { name: String },
    #[error("select CDI device `{name}`: {one} and {other} both define it")]
    Twice { name: String, one: String, other: String },
    #[error("add CDI device `{name}`: it needs {what}, which hull does not support")]
    Unsupported { name: String, what: &'static str },
    #[error("add CDI device `{name}`: inspect {path} on this node")]
    Node { name: String, path: String, source: std::io::Error },
    #[error("add CDI device `{name}`: {path} on this node is not a device of its type")]
    NoNode { name: String, path: String },
}

impl Error {
    /// The change by which a user fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } | Self::Unsupported { .. } => None,
            Self::Unknown { broken, .. } if !broken.is_empty() => {
                Some("correct the files that cannot be read, or have the device's driver write them again".into())
            }
            Self::Unknown { .. } => Some(
                "check that the device's driver runs on this node and has written its file".into(),
            ),
            Self::Off { .. } => Some(
                "set the directories of the drivers' files, such as [\"/etc/cdi\", \"/var/run/cdi\"]"
                    .into(),
            ),
            Self::Twice { .. } => {
                Some("remove one of the files, or the device from one of them".into())
            }
            Self::Node { .. } | Self::NoNode { .. } => {
                Some("restart the device's driver, which then rewrites its file".into())
            }
        }
    }
}
