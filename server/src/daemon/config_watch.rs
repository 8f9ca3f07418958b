// SPDX-License-Identifier: Apache-2.0
//! Notices that files of the configuration change, by inotify on their directories (`inotify(7)`).
//!
//! The rule: a file counts when it is complete: closed after writing, moved there, moved away, or removed. Programs
//! that write a file in place cause one reading, at its end; all events that are pending cause one together. The
//! directory of the drop-in files may come later. A directory of the configuration that is not there when the daemon
//! starts is not watched: SIGHUP and `hull reload` work without.

use crate::config::Source;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;

/// Size of the buffer of events, in bytes: some tens of them.
const EVENTS_BYTES: usize = 4096;

/// Watches the directories of the configuration.
#[derive(Debug)]
pub(super) struct ConfigWatch {
    events: AsyncFd<OwnedFd>,
    file: PathBuf,
    drop_ins: PathBuf,
}

impl ConfigWatch {
    /// Watches the files of `source` from now on.
    ///
    /// # Errors
    /// `inotify_init1(2)` fails.
    pub(super) fn start(source: &Source) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "what is deprecated is a descriptor that can change; an OwnedFd's cannot"
        )]
        let events = AsyncFd::with_interest(events, Interest::READABLE)?;
        let (file, drop_ins) = source.places();
        let watch = Self { events, file, drop_ins };
        watch.add_directories();
        Ok(watch)
    }

    /// Waits until a file has changed that may be one of the configuration. Cancel safe.
    ///
    /// # Errors
    /// Events cannot be read.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            // Before they are read: what comes meanwhile is another event.
            ready.clear_ready();
            if self.read_events()? {
                // The directory of the drop-in files, or what a link leads to, may be another one now.
                self.add_directories();
                return Ok(());
            }
        }
    }

    /// Adds the directories that exist. One that is watched already stays so.
    fn add_directories(&self) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let of_link = std::fs::canonicalize(&self.file).ok();
        let parents = [Some(&self.file), of_link.as_ref()].into_iter().flatten();
        let parents = parents.filter_map(|path| path.parent()).map(Path::to_owned);
        let directories: BTreeSet<PathBuf> = parents.chain([self.drop_ins.clone()]).collect();
        for directory in directories {
            // The parent of a name alone.
            let directory = if directory.as_os_str().is_empty() { ".".into() } else { directory };
            if let Err(err) = inotify::add_watch(self.events.get_ref(), directory.as_path(), flags)
            {
                debug!(directory = %directory.display(), error = %err, "directory of the configuration not watched");
            }
        }
    }

    /// Reads all events that are there. True if one may concern the configuration.
    fn read_events(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = Reader::new(self.events.get_ref(), &mut buffer);
        let mut concerns = false;
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    concerns |= self.is_relevant(name, event.events());
                }
                Err(Errno::AGAIN) => return Ok(concerns),
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn is_relevant(&self, name: Option<&OsStr>, events: ReadFlags) -> bool {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        let Some(name) = name else { return false };
        if events.contains(ReadFlags::ISDIR) {
            // Also the directories that a volume of Kubernetes exchanges.
            let is_drop_ins = self.drop_ins.file_name() == Some(name);
            return is_drop_ins || name.as_bytes().starts_with(b"..");
        }
        // Of a file that is created, the end of its writing counts.
        let is_complete = !events.contains(ReadFlags::CREATE);
        let of_link: Option<OsString> = std::fs::canonicalize(&self.file)
            .ok()
            .and_then(|path| path.file_name().map(OsStr::to_owned));
        let is_file = self.file.file_name() == Some(name) || of_link.as_deref() == Some(name);
        let is_drop_in = Path::new(name).extension().is_some_and(|of| of == "toml");
        is_complete && (is_file || is_drop_in || name.as_bytes().starts_with(b".."))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;
    use crate::config;
    use std::fs;
    use std::time::Duration;

    /// Whether a change is noticed. What is noticed is there at once.
    async fn notices(watch: &ConfigWatch) -> bool {
        tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn complete_files_of_the_configuration_are_noticed_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hull.toml");
        fs::write(&file, "").unwrap();
        let watch = ConfigWatch::start(&config::load(Some(&file), &[]).unwrap().source).unwrap();
        fs::write(dir.path().join(".hull.toml.swp"), "x").unwrap();
        fs::write(dir.path().join("registry-ca.pem"), "x").unwrap();
        assert!(!notices(&watch).await);
        fs::write(&file, "\n").unwrap();
        assert!(notices(&watch).await);
        let new = dir.path().join("new");
        fs::write(&new, "").unwrap();
        assert!(!notices(&watch).await);
        fs::rename(&new, &file).unwrap();
        assert!(notices(&watch).await);
        // A directory of drop-in files that was not there.
        let drop_ins = dir.path().join("hull.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        assert!(notices(&watch).await);
        fs::write(drop_ins.join("a.toml"), "").unwrap();
        assert!(notices(&watch).await);
        fs::write(drop_ins.join("a.conf"), "").unwrap();
        assert!(!notices(&watch).await);
        fs::remove_file(drop_ins.join("a.toml")).unwrap();
        assert!(notices(&watch).await);
    }

    #[tokio::test]
    async fn the_file_behind_a_link_is_noticed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, file) = (dir.path().join("hull.toml"), elsewhere.path().join("real"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let watch = ConfigWatch::start(&config::load(Some(&link), &[]).unwrap().source).unwrap();
        fs::write(&file, "\n").unwrap();
        assert!(notices(&watch).await);
    }
}
