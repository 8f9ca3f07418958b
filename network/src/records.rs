// SPDX-License-Identifier: Apache-2.0
//! Records of pods, one file per pod, in a [folder](hull_records::Folder). Leases and CNI attachments are kept this way.
//!
//! ```text
//! <dir>/<pod-id>.json   the record
//!           *.new       an interrupted write; removed at the next start
//!           *.bad       an unreadable file; set aside for the operator
//! ```
//!
//! The rule: a file is written completely and then renamed into place, and an unreadable file never keeps
//! the daemon from starting. The directory is created with the first record.

use hull_records::{Error, Folder, SetAside, Unusable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use tracing::warn;

/// Longest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// The content of one pod's record.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The version that this program writes. Records with a higher version are not read.
    const VERSION: u32;

    /// The id of the pod that the record belongs to.
    fn pod(&self) -> &str;

    /// Validates the content; the error says why it is unusable.
    fn check(&self) -> Result<(), String>;
}

/// A directory of records.
#[derive(Debug)]
pub(crate) struct Records<R> {
    folder: Folder,
    of: PhantomData<fn() -> R>,
}

impl<R: Record> Records<R> {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { folder: Folder::new(dir, RECORD_BYTES_MAX), of: PhantomData }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Reads all usable records with their paths, and sets the others aside.
    pub(crate) fn load(&self) -> Result<Vec<(PathBuf, R)>, Error> {
        self.folder.sweep()?;
        let loaded = self.folder.load(R::VERSION, |name, record: &R| {
            if name != record.pod() {
                return Err(format!("it belongs to pod {}", record.pod()));
            }
            record.check()
        })?;
        for bad in &loaded.set_aside {
            warn_set_aside(bad);
        }
        Ok(loaded.records)
    }

    /// Sets a record aside that cannot be used beside another one.
    pub(crate) fn set_aside(&self, path: &Path, why: String) {
        warn_set_aside(&self.folder.set_aside(path, &Unusable::Content { why }));
    }

    /// Writes or replaces a pod's record.
    pub(crate) fn write(&self, record: &R) -> Result<(), Error> {
        self.folder.write(record.pod(), record)
    }

    /// Removes the pod's record, if there is one.
    pub(crate) fn remove(&self, pod: &str) -> Result<(), Error> {
        self.folder.remove(pod)
    }

    /// Removes the directory, unless it contains files that were set aside.
    pub(crate) fn remove_dir(&self) -> Result<(), Error> {
        self.folder.remove_empty()
    }
}

fn warn_set_aside(bad: &SetAside) {
    warn!(path = %bad.path.display(), why = bad.why, "unusable network record of a pod was set aside");
}
