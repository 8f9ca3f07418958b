// SPDX-License-Identifier: Apache-2.0
//! Where a new file goes: to its path, or beside a file that is there already with another text.

use super::super::error::Result;
use super::findings::NewFile;
use super::root::Root;
use std::path::{Path, PathBuf};

/// Most files beside one.
const BESIDE_MAX: u32 = 100;

/// The place of a new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It is created at its own path.
    Create(PathBuf),
    /// It is created beside the file that is there.
    Beside(PathBuf),
    /// A file with this text is there, by an earlier call.
    There(PathBuf),
}

/// Finds the place of a file.
///
/// # Errors
/// A file that is there cannot be read.
pub(crate) fn of(root: &Root, file: &NewFile) -> Result<Placement> {
    for number in 0..BESIDE_MAX {
        let path = beside(&file.path, number);
        match root.text(&path)? {
            None if number == 0 => return Ok(Placement::Create(path)),
            None => return Ok(Placement::Beside(path)),
            Some(text) if text == file.text => return Ok(Placement::There(path)),
            Some(_) => {}
        }
    }
    let why = format!("there are {BESIDE_MAX} files like it already, each with another text");
    Err(root.unusable(&file.path, &why))
}

/// The path itself, `<path>.hull`, `<path>.hull.2` and so on. Hull reads no file with such a name.
fn beside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    match number {
        0 => {}
        1 => name.push(".hull"),
        more => name.push(format!(".hull.{more}")),
    }
    name.into()
}

impl Placement {
    /// The path with the text.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Create(path) | Self::Beside(path) | Self::There(path) => path,
        }
    }

    /// Creates the file, unless it is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn carry_out(&self, root: &Root, text: &str) -> Result<()> {
        match self {
            Self::Create(path) | Self::Beside(path) => root.create(path, text),
            Self::There(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let file = |text: &str| NewFile { path: "/etc/a".into(), text: text.into() };
        for (text, placement) in [
            ("first", Placement::Create("/etc/a".into())),
            ("first", Placement::There("/etc/a".into())),
            ("second", Placement::Beside("/etc/a.hull".into())),
            ("second", Placement::There("/etc/a.hull".into())),
            ("third", Placement::Beside("/etc/a.hull.2".into())),
        ] {
            let file = file(text);
            let found = of(&root, &file).unwrap();
            assert_eq!(found, placement, "{text}");
            found.carry_out(&root, text).unwrap();
            assert_eq!(root.text(found.path()).unwrap().as_deref(), Some(text));
        }
        assert_eq!(root.text(Path::new("/etc/a")).unwrap().as_deref(), Some("first"));
    }
}
