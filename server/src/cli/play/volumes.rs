// SPDX-License-Identifier: Apache-2.0
//! The volumes of a manifest on the host, as a kubelet checks and creates them.

use super::super::error::{Error, Result};
use super::super::run_setup;
use super::files::{self, Files};
use super::manifest::Volume;
use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The types of a hostPath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathType {
    /// Nothing is checked.
    Any,
    Directory,
    DirectoryOrCreate,
    File,
    FileOrCreate,
    Socket,
    CharDevice,
    BlockDevice,
}

impl PathType {
    /// Parses the `type` of a hostPath.
    pub(super) fn parse(text: Option<&str>) -> Option<Self> {
        Some(match text.unwrap_or_default() {
            "" => Self::Any,
            "Directory" => Self::Directory,
            "DirectoryOrCreate" => Self::DirectoryOrCreate,
            "File" => Self::File,
            "FileOrCreate" => Self::FileOrCreate,
            "Socket" => Self::Socket,
            "CharDevice" => Self::CharDevice,
            "BlockDevice" => Self::BlockDevice,
            _ => return None,
        })
    }

    fn fits(self, of: FileType) -> bool {
        match self {
            Self::Any => true,
            Self::Directory | Self::DirectoryOrCreate => of.is_dir(),
            Self::File | Self::FileOrCreate => of.is_file(),
            Self::Socket => of.is_socket(),
            Self::CharDevice => of.is_char_device(),
            Self::BlockDevice => of.is_block_device(),
        }
    }
}

/// The path of a volume that is a directory of its pod.
pub(super) fn own_directory(directory: &Path, volume: &str) -> PathBuf {
    directory.join("volumes").join(volume)
}

/// Creates the directory of a volume with the files that it begins with, or checks a hostPath.
pub(super) fn prepare(volume: &Volume, directory: &Path, content: Option<&Files>) -> Result<()> {
    let Some(of) = &volume.host_path else {
        let own = own_directory(directory, &volume.name);
        run_setup::create(std::slice::from_ref(&own))?;
        return content.map_or(Ok(()), |content| files::write(&own, content));
    };
    // Another type was refused with the manifest.
    let kind = PathType::parse(of.kind.as_deref()).unwrap_or(PathType::Any);
    host_path(kind, Path::new(&of.path))
}

/// Creates what is missing and may be created, and refuses a path of another type. Links are followed, as a kubelet
/// does.
fn host_path(kind: PathType, path: &Path) -> Result<()> {
    let failed = || Error::io(format!("use hostPath {}", path.display()));
    if kind == PathType::Any {
        return Ok(());
    }
    let found = match std::fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            create(kind, path).map_err(failed())?;
            std::fs::metadata(path)
        }
        found => found,
    };
    if kind.fits(found.map_err(failed())?.file_type()) {
        return Ok(());
    }
    Err(failed()(io::Error::other(format!("it is not of type {kind:?}"))))
}

fn create(kind: PathType, path: &Path) -> io::Result<()> {
    match kind {
        PathType::DirectoryOrCreate => {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        PathType::FileOrCreate => {
            File::options().write(true).create_new(true).mode(0o644).open(path).map(drop)
        }
        PathType::Any
        | PathType::Directory
        | PathType::File
        | PathType::Socket
        | PathType::CharDevice
        | PathType::BlockDevice => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_path_is_of_its_type_or_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        host_path(PathType::DirectoryOrCreate, &at("a/b")).unwrap();
        host_path(PathType::Directory, &at("a/b")).unwrap();
        host_path(PathType::File, &at("a/b")).unwrap_err();
        host_path(PathType::FileOrCreate, &at("a/f")).unwrap();
        host_path(PathType::File, &at("a/f")).unwrap();
        host_path(PathType::Directory, &at("none")).unwrap_err();
        host_path(PathType::CharDevice, Path::new("/dev/null")).unwrap();
        host_path(PathType::BlockDevice, Path::new("/dev/null")).unwrap_err();
        host_path(PathType::Any, &at("none")).unwrap();
        assert_eq!(PathType::parse(Some("Pipe")), None);
    }

    #[test]
    fn an_empty_directory_is_never_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let volume: Volume = serde_saphyr::from_str("{name: data, emptyDir: {}}").unwrap();
        prepare(&volume, dir.path(), None).unwrap();
        let path = own_directory(dir.path(), "data");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        prepare(&volume, dir.path(), None).unwrap_err();
    }
}
