// SPDX-License-Identifier: Apache-2.0
//! Versioned JSON records on disk, one file per pod. Leases and CNI attachments are kept this way.
//!
//! ```text
//! <dir>/<pod-id>.json   the record
//!           *.new       an interrupted write; removed at the next start
//!           *.bad       an unreadable file; set aside for the operator
//! ```
//!
//! The rule: a file is written completely and then renamed into place, and an unreadable file never keeps
//! the daemon from starting. The directory is created with the first record.

use hull_sys::files::{read_regular, remove_any};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tracing::warn;

/// Longest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// The content of one pod's record.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The version that this program writes. Records with a higher version are not read.
    const VERSION: u32;

    /// The version that the record was written with.
    fn version(&self) -> u32;

    /// The id of the pod that the record belongs to.
    fn pod(&self) -> &str;

    /// Validates the content; the error says why it is unusable.
    fn check(&self) -> Result<(), String>;
}

/// A directory of records.
#[derive(Debug)]
pub(crate) struct Records<R> {
    dir: PathBuf,
    of: PhantomData<fn() -> R>,
}

/// A failed file operation, with the path.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl<R: Record> Records<R> {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, of: PhantomData }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads all usable records with their paths, and sets the others aside.
    pub(crate) fn load(&self) -> io::Result<Vec<(PathBuf, R)>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("new") => remove_any(&path)?,
                Some("json") => match read(&path) {
                    Ok(record) => all.push((path, record)),
                    Err(why) => set_aside(&path, &why),
                },
                _ => {}
            }
        }
        Ok(all)
    }

    /// Writes or replaces a pod's record.
    pub(crate) fn write(&self, record: &R) -> Result<(), Failed> {
        let path = self.path(record.pod());
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|bytes| {
            match replace(&path, &bytes) {
                // The very first record, or somebody removed the directory.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                    replace(&path, &bytes)
                }
                other => other,
            }
        });
        written.map_err(|source| Failed { path, source })
    }

    /// Removes the pod's record, if there is one.
    pub(crate) fn remove(&self, pod: &str) -> Result<(), Failed> {
        let path = self.path(pod);
        remove_any(&path).map_err(|source| Failed { path, source })
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.dir.join(format!("{pod}.json"))
    }
}

fn read<R: Record>(path: &Path) -> Result<R, String> {
    let text = read_regular(path, RECORD_BYTES_MAX).map_err(|err| err.to_string())?;
    let record: R = serde_json::from_slice(&text).map_err(|err| err.to_string())?;
    if record.version() > R::VERSION {
        return Err(format!("its version {} is newer than this hull supports", record.version()));
    }
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(record.pod()) {
        return Err(format!("it belongs to pod {}", record.pod()));
    }
    record.check()?;
    Ok(record)
}

/// Writes a file next to `path` and renames it into place.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    remove_any(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

/// Renames an unusable record to `*.bad`, for the operator to look at.
pub(crate) fn set_aside(path: &Path, why: &str) {
    let bad = path.with_extension("bad");
    // A file set aside earlier is replaced; a rename replaces nothing with a directory.
    let moved =
        fs::rename(path, &bad).or_else(|_| remove_any(&bad).and_then(|()| fs::rename(path, &bad)));
    match moved {
        Ok(()) => {
            warn!(set_aside = %bad.display(), why, "unusable network record of a pod set aside")
        }
        Err(err) => {
            warn!(path = %path.display(), why, error = %err, "cannot set aside an unusable network record of a pod")
        }
    }
}
