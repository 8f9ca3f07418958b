// SPDX-License-Identifier: Apache-2.0
//! AppArmor: the default profile of containers, and the profiles that the kernel has loaded. `apparmor(7)`.
//!
//! ```text
//! <state_dir>/apparmor/hull-default     the text of the loaded profile
//! ```
//!
//! The daemon loads the profile at its start if the kernel does not have it, or has another text. So an upgrade
//! replaces it, also for running containers.
//!
//! The rule: a container that requests a profile runs under it or does not run. Only a container that requests none,
//! on a node where the default cannot be loaded, runs without a profile, and the daemon logs that at its start.

use crate::records;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the default profile.
pub(crate) const DEFAULT: &str = "hull-default";
/// Text of the default profile.
const TEXT: &str = include_str!("hull-default");
/// The kernel's list of loaded profiles, one per line: `name (mode)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// Paths of the program that compiles and loads profiles, in distributions that have it.
const PARSERS: [&str; 3] =
    ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// The default profile could not be loaded. Texts read after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find apparmor_parser, which loads profiles")]
    NoParser,
    #[error("run {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("load AppArmor profile {DEFAULT}: apparmor_parser reports {message:?}")]
    Load { message: String },
    #[error("record which AppArmor profile is loaded")]
    Directory { source: records::Error },
    #[error("write {}", path.display())]
    Record { path: PathBuf, source: io::Error },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoParser => {
                Some("apt-get install apparmor, then restart hull; until then containers run without a profile".into())
            }
            Self::Load { .. } => {
                Some("see `dmesg | grep apparmor`; containers run without a profile until then".into())
            }
            Self::Directory { source } => source.hint(),
            Self::Run { .. } | Self::Record { .. } => None,
        }
    }
}

/// The AppArmor support of this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppArmor {
    /// Whether the kernel has AppArmor enabled.
    enabled: bool,
    /// Whether the default profile is loaded.
    default_loaded: bool,
}

/// The profile that a container requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The container runs without a profile.
    Unconfined,
    /// The node's default; explicit if the config requests it.
    Default { explicit: bool },
    /// A profile that the operator of the node has loaded.
    Named(String),
}

impl AppArmor {
    /// Checks this host and loads the default profile. Also returns the error if that fails.
    pub(crate) fn prepare(state_dir: &Path) -> (Self, Option<Error>) {
        if !is_enabled() {
            return (Self::default(), None);
        }
        let failed = load_default(&state_dir.join("apparmor")).err();
        (
            Self {
                enabled: true,
                default_loaded: is_loaded(DEFAULT) != Some(false) && failed.is_none(),
            },
            failed,
        )
    }

    /// The profile to run under; `None` is unconfined. The error is the name of a profile that is not loaded.
    pub(crate) fn resolve(&self, requested: Profile) -> Result<Option<String>, String> {
        match requested {
            Profile::Unconfined => Ok(None),
            // Without AppArmor in the kernel, the default means none, as in containerd and CRI-O.
            Profile::Default { .. } if !self.enabled => Ok(None),
            Profile::Default { .. } if self.default_loaded => Ok(Some(DEFAULT.to_owned())),
            Profile::Default { explicit: false } => Ok(None),
            Profile::Default { explicit: true } => Err(DEFAULT.to_owned()),
            Profile::Named(name) if self.enabled && is_loaded(&name) == Some(false) => Err(name),
            // Without AppArmor, the plan refuses the profile by name.
            Profile::Named(name) => Ok(Some(name)),
        }
    }
}

/// Whether AppArmor is enabled.
pub(crate) fn is_enabled() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y")
}

/// Path of the program that loads profiles, if it is installed.
pub(crate) fn parser() -> Option<&'static Path> {
    PARSERS.iter().map(Path::new).find(|path| path.is_file())
}

/// Whether a profile is loaded; `None` if the kernel's list cannot be read.
fn is_loaded(name: &str) -> Option<bool> {
    fs::read_to_string(LOADED).ok().map(|list| lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name))
}

fn load_default(dir: &Path) -> Result<(), Error> {
    let path = dir.join(DEFAULT);
    let recorded = fs::read(&path).is_ok_and(|text| text == TEXT.as_bytes());
    if recorded && is_loaded(DEFAULT) == Some(true) {
        return Ok(());
    }
    let program = parser().ok_or(Error::NoParser)?;
    let failed = |source| Error::Run { program: program.to_owned(), source };
    let mut parsing = Command::new(program)
        // Without a cache on disk; replaces a loaded profile of the same name.
        .args(["--skip-cache", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = parsing.stdin.take() {
        stdin.write_all(TEXT.as_bytes()).map_err(failed)?;
    }
    let done = parsing.wait_with_output().map_err(failed)?;
    if !done.status.success() {
        let message = String::from_utf8_lossy(&done.stderr).trim().chars().take(400).collect();
        return Err(Error::Load { message });
    }
    records::create_dir(dir).map_err(|source| Error::Directory { source })?;
    let record = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    record
        .and_then(|mut record| record.write_all(TEXT.as_bytes()))
        .map_err(|source| Error::Record { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_full_name() {
        let list = "hull-default (enforce)\n/usr/sbin/cups (complain)\nwith space (enforce)\n";
        for name in ["hull-default", "/usr/sbin/cups", "with space"] {
            assert!(lists(list, name), "{name}");
        }
        assert!(!lists(list, "hull") && !lists(list, "hull-default (enforce)"));
    }

    #[test]
    fn only_containers_that_request_no_profile_run_without_one() {
        let broken = AppArmor { enabled: true, default_loaded: false };
        assert_eq!(broken.resolve(Profile::Default { explicit: false }), Ok(None));
        assert_eq!(broken.resolve(Profile::Default { explicit: true }), Err(DEFAULT.to_owned()));
        let on = AppArmor { enabled: true, default_loaded: true };
        let default = Some(DEFAULT.to_owned());
        assert_eq!(on.resolve(Profile::Default { explicit: false }), Ok(default));
        assert_eq!(on.resolve(Profile::Unconfined), Ok(None));
        let off = AppArmor::default();
        assert_eq!(off.resolve(Profile::Default { explicit: true }), Ok(None));
    }
}
