// SPDX-License-Identifier: Apache-2.0
//! Records of pods on disk, one file each: what every kind of record has in common.
//!
//! ```text
//! <dir>/<pod-id>.json   the record
//!           *.new       a write that was cut short; swept at the next start
//!           *.bad       a file that could not be read; set aside for the operator
//! ```
//!
//! The rule: a file is written whole and renamed into place, and one that cannot be read never keeps
//! the daemon from starting. Nothing is made on disk before the first record.

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

/// What is kept of a pod.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Of what is written now; higher ones are not read.
    const VERSION: u32;

    /// In which it was written.
    fn version(&self) -> u32;

    /// Whose it is.
    fn pod(&self) -> &str;

    /// Whether what it says can be used; why not.
    fn check(&self) -> Result<(), String>;
}

/// A directory of records.
#[derive(Debug)]
pub(crate) struct Records<R> {
    dir: PathBuf,
    of: PhantomData<fn() -> R>,
}

/// Something that the disk would not do, and with which file.
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

    /// All that can be used, with their files; the others are set aside.
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

    /// Writes the record of its pod.
    pub(crate) fn write(&self, record: &R) -> Result<(), Failed> {
        let path = self.path(record.pod());
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|bytes| {
            match replace(&path, &bytes) {
                // The first record of all, or somebody has cleared the directory away.
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
        return Err(format!("version {} is newer than this hull knows", record.version()));
    }
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(record.pod()) {
        return Err(format!("it is of pod {}", record.pod()));
    }
    record.check()?;
    Ok(record)
}

/// Writes a file whole and renames it into place.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    remove_any(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

/// Sets aside a record that is not usable, for the operator.
pub(crate) fn set_aside(path: &Path, why: &str) {
    let bad = path.with_extension("bad");
    // What was set aside before gives way: a directory takes the place of nothing else.
    let moved =
        fs::rename(path, &bad).or_else(|_| remove_any(&bad).and_then(|()| fs::rename(path, &bad)));
    match moved {
        Ok(()) => warn!(set_aside = %bad.display(), why, "record of a pod's network not usable"),
        Err(err) => {
            warn!(path = %path.display(), why, error = %err, "record of a pod's network not usable, and not to be set aside")
        }
    }
}
