// SPDX-License-Identifier: Apache-2.0
//! AppArmor: the profile that containers run under when none is named, and which profiles the kernel
//! has. `apparmor(7)`.
//!
//! ```text
//! <state_dir>/apparmor/hull-default     the text that is loaded now
//! ```
//!
//! The profile is loaded at the daemon's start when the kernel does not have it, or has another text:
//! so an upgrade brings its own, for containers that run already too.
//!
//! The rule: a container that asks for a profile runs under it or not at all. Only one that asks for
//! none, on a node where the default cannot be loaded, runs without, and the daemon says so at start.

use crate::records;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The default profile's name.
pub(crate) const DEFAULT: &str = "hull-default";
/// Its text.
const TEXT: &str = include_str!("hull-default");
/// All profiles that are loaded, one a line: `name (mode)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// Where the program that compiles and loads profiles lies, on the distributions that have it.
const PARSERS: [&str; 3] =
    ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// Why the default profile is not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find apparmor_parser, which loads profiles")]
    NoParser,
    #[error("run {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("load AppArmor profile {DEFAULT}: apparmor_parser says {said:?}")]
    Load { said: String },
    #[error("note which AppArmor profile is loaded")]
    Directory { source: records::Error },
    #[error("write {}", path.display())]
    Note { path: PathBuf, source: io::Error },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoParser => {
                Some("apt-get install apparmor, then restart hull; until then containers run without a profile".into())
            }
            Self::Load { .. } => {
                Some("see `dmesg | grep apparmor`; containers run without a profile until then".into())
            }
            Self::Directory { source } => source.hint(),
            Self::Run { .. } | Self::Note { .. } => None,
        }
    }
}

/// What this node can do.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppArmor {
    /// The kernel has it, and it is on.
    on: bool,
    /// The default profile is loaded.
    default: bool,
}

/// What a container shall run under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Unconfined,
    /// The node's default. Whether somebody asked for it.
    Default { asked: bool },
    /// A profile that the node's operator has loaded.
    Named(String),
}

impl AppArmor {
    /// Looks at this host and loads the default profile. Where that fails, the reason too.
    pub(crate) fn prepare(state_dir: &Path) -> (Self, Option<Error>) {
        if !is_on() {
            return (Self::default(), None);
        }
        let failed = load_default(&state_dir.join("apparmor")).err();
        (Self { on: true, default: is_loaded(DEFAULT) != Some(false) && failed.is_none() }, failed)
    }

    /// The profile to enter; or the name of the one that is wanted and not loaded.
    pub(crate) fn profile(&self, wanted: Wanted) -> Result<Option<String>, String> {
        match wanted {
            Wanted::Unconfined => Ok(None),
            // A kernel without it: as everywhere in the field, the default means none then.
            Wanted::Default { .. } if !self.on => Ok(None),
            Wanted::Default { .. } if self.default => Ok(Some(DEFAULT.to_owned())),
            Wanted::Default { asked: false } => Ok(None),
            Wanted::Default { asked: true } => Err(DEFAULT.to_owned()),
            Wanted::Named(name) if self.on && is_loaded(&name) == Some(false) => Err(name),
            // Without AppArmor the plan refuses it by name.
            Wanted::Named(name) => Ok(Some(name)),
        }
    }
}

/// Whether AppArmor is on.
pub(crate) fn is_on() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y")
}

/// The program that loads profiles.
pub(crate) fn parser() -> Option<&'static Path> {
    PARSERS.iter().map(Path::new).find(|path| path.is_file())
}

/// Whether a profile is loaded; `None` where the kernel's list cannot be read.
fn is_loaded(name: &str) -> Option<bool> {
    fs::read_to_string(LOADED).ok().map(|list| lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name))
}

fn load_default(dir: &Path) -> Result<(), Error> {
    let path = dir.join(DEFAULT);
    let noted = fs::read(&path).is_ok_and(|text| text == TEXT.as_bytes());
    if noted && is_loaded(DEFAULT) == Some(true) {
        return Ok(());
    }
    let program = parser().ok_or(Error::NoParser)?;
    let failed = |source| Error::Run { program: program.to_owned(), source };
    let mut parsing = Command::new(program)
        // No cache on disk, and replace what is there.
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
        let said = String::from_utf8_lossy(&done.stderr).trim().chars().take(400).collect();
        return Err(Error::Load { said });
    }
    records::create_dir(dir).map_err(|source| Error::Directory { source })?;
    let note = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    note.and_then(|mut note| note.write_all(TEXT.as_bytes()))
        .map_err(|source| Error::Note { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_whole_name() {
        let list = "hull-default (enforce)\n/usr/sbin/cups (complain)\nwith space (enforce)\n";
        for name in ["hull-default", "/usr/sbin/cups", "with space"] {
            assert!(lists(list, name), "{name}");
        }
        assert!(!lists(list, "hull") && !lists(list, "hull-default (enforce)"));
    }

    #[test]
    fn only_who_asks_for_nothing_runs_without() {
        let broken = AppArmor { on: true, default: false };
        assert_eq!(broken.profile(Wanted::Default { asked: false }), Ok(None));
        assert_eq!(broken.profile(Wanted::Default { asked: true }), Err(DEFAULT.to_owned()));
        let on = AppArmor { on: true, default: true };
        let default = Some(DEFAULT.to_owned());
        assert_eq!(on.profile(Wanted::Default { asked: false }), Ok(default));
        assert_eq!(on.profile(Wanted::Unconfined), Ok(None));
        let off = AppArmor::default();
        assert_eq!(off.profile(Wanted::Default { asked: true }), Ok(None));
    }
}
