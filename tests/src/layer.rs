// SPDX-License-Identifier: Apache-2.0
//! Layers, written entry by entry, so that hostile ones can be written as easily as good ones.
//!
//! Times are fixed and owners are given: the same calls make the same bytes, hence the same digest.

use crate::expect::ExpectExt;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// How a layer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    Plain,
    /// `+gzip`.
    Gzip,
    /// `+zstd`.
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer so compressed.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Compresses the archive `tar`.
    #[must_use]
    pub fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(tar).or_fail("compress a layer");
                out.finish().or_fail("compress a layer")
            }
            Self::Zstd => zstd::encode_all(tar, 1).or_fail("compress a layer"),
        }
    }
}

/// A layer being written.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("bytes", &self.tar.get_ref().len()).finish()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self { tar: Builder::new(Vec::new()) }
    }

    /// Adds directories with mode 0755.
    #[must_use]
    pub fn dirs(self, paths: &[&str]) -> Self {
        paths.iter().fold(self, |layer, path| layer.dir(path, 0o755))
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        let mut header = header(EntryType::Directory, mode, 0);
        let path = format!("{path}/");
        self.tar.append_data(&mut header, &path, &[][..]).or_fail(format!("add {path} to a layer"));
        self
    }

    /// Adds a directory of the user `uid` and the group `gid`.
    #[must_use]
    pub fn dir_of(mut self, path: &str, mode: u32, uid: u64, gid: u64) -> Self {
        let mut header = header(EntryType::Directory, mode, 0);
        header.set_uid(uid);
        header.set_gid(gid);
        let path = format!("{path}/");
        self.tar.append_data(&mut header, &path, &[][..]).or_fail(format!("add {path} to a layer"));
        self
    }

    /// Adds a file of root's.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> Self {
        self.file_of(path, mode, 0, bytes)
    }

    /// Adds a file of the user `uid` and the group of the same number.
    #[must_use]
    pub fn file_of(mut self, path: &str, mode: u32, uid: u64, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
        header.set_uid(uid);
        header.set_gid(uid);
        self.tar.append_data(&mut header, path, bytes).or_fail(format!("add {path} to a layer"));
        self
    }

    /// Adds a file of the host with its mode.
    #[must_use]
    pub fn copy(self, path: &str, from: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let bytes = fs::read(from).or_fail(format!("read {}", from.display()));
        let mode =
            fs::metadata(from).or_fail(format!("stat {}", from.display())).permissions().mode();
        self.file(path, mode & 0o7777, bytes)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, path, target).or_fail(format!("add {path} to a layer"));
        self
    }

    /// Adds a hard link to `target`, a path in the image.
    #[must_use]
    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        let mut header = header(EntryType::Link, 0o644, 0);
        self.tar.append_link(&mut header, path, target).or_fail(format!("add {path} to a layer"));
        self
    }

    /// Adds a character device.
    #[must_use]
    pub fn char_device(self, path: &str, major: u32, minor: u32) -> Self {
        self.device(EntryType::Char, path, major, minor)
    }

    /// Adds a block device.
    #[must_use]
    pub fn block_device(self, path: &str, major: u32, minor: u32) -> Self {
        self.device(EntryType::Block, path, major, minor)
    }

    fn device(mut self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = header(kind, 0o666, 0);
        header.set_device_major(major).or_fail("set a device number");
        header.set_device_minor(minor).or_fail("set a device number");
        self.tar.append_data(&mut header, path, &[][..]).or_fail(format!("add {path} to a layer"));
        self
    }

    /// Removes `path` of the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let marker = format!("{dir}/.wh.{name}");
        self.file(marker.trim_start_matches('/'), 0o644, "")
    }

    /// Hides what the layers below have in the directory `path`.
    #[must_use]
    pub fn opaque(self, path: &str) -> Self {
        self.file(format!("{path}/.wh..wh..opq").trim_start_matches('/'), 0o644, "")
    }

    /// Adds an entry with names exactly as given: `..`, absolute, anything. For hostile layers.
    #[must_use]
    pub fn hostile(mut self, kind: EntryType, path: &str, link: &str, bytes: &[u8]) -> Self {
        let mut header = header(kind, 0o755, bytes.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.tar.append(&header, bytes).or_fail(format!("add {path} to a hostile layer"));
        self
    }

    /// The tar archive.
    #[must_use]
    pub fn tar(self) -> Vec<u8> {
        self.tar.into_inner().or_fail("finish a layer")
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    // Long ago, the same for all: digests must not change from run to run.
    header.set_mtime(1_000_000_000);
    header
}
