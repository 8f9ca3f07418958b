// SPDX-License-Identifier: Apache-2.0
//! Notices that files of the configuration change, by inotify on directories (`inotify(7)`).
//!
//! ```text
//! path ─▶ each link on it, and where it ends ─▶ their directories, each with the names that count there
//!                                   any of these changes ─▶ the path is followed again
//! ```
//!
//! The rule: a file counts when it is complete: closed after writing, linked, moved there, moved away, or removed. Of a
//! file that a program makes and then writes, the end of its writing counts; of a link its making. Programs that write a
//! file in place cause one reading, at its end; all events that are pending cause one together. Of what is not there,
//! the name in the nearest directory that is there counts, so files and directories may come later.

use crate::config::{Source, drop_ins, is_drop_in};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;

/// Size of the buffer of events, in bytes: some tens of them.
const EVENTS_BYTES: usize = 4096;
/// Most links on a path: those that the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How often paths are followed again that change while their directories are being added. The next event has it done
/// again.
const ROUNDS_MAX: usize = 8;

/// The entries of a directory that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counting {
    names: BTreeSet<OsString>,
    /// Whether names of drop-in files count.
    has_drop_ins: bool,
}

type Directories = BTreeMap<PathBuf, Counting>;

/// Watches the directories of the configuration.
#[derive(Debug)]
pub(super) struct ConfigWatch {
    events: AsyncFd<OwnedFd>,
    file: PathBuf,
    drop_ins: PathBuf,
    /// The watched directories, by watch descriptor.
    watched: BTreeMap<i32, (PathBuf, Counting)>,
}

impl ConfigWatch {
    /// Watches the files of `source` from now on.
    ///
    /// # Errors
    /// `inotify_init1(2)` fails, or there is no working directory for a relative name.
    pub(super) fn start(source: &Source) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "what is deprecated is a descriptor that can change; an OwnedFd's cannot"
        )]
        let events = AsyncFd::with_interest(events, Interest::READABLE)?;
        let (file, drop_ins) = source.places();
        let (file, drop_ins) = (std::path::absolute(file)?, std::path::absolute(drop_ins)?);
        let mut watch = Self { events, file, drop_ins, watched: BTreeMap::new() };
        watch.follow();
        Ok(watch)
    }

    /// Waits until a file has changed that may be one of the configuration. Cancel safe.
    ///
    /// # Errors
    /// Events cannot be read.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            // Before they are read: what comes meanwhile is another event.
            ready.clear_ready();
            drop(ready);
            if self.read_events()? {
                self.follow();
                return Ok(());
            }
        }
    }

    /// Watches the directories on the paths as they are now, and no others.
    fn follow(&mut self) {
        let mut wanted = self.wanted();
        for _ in 0..ROUNDS_MAX {
            self.watch(&wanted);
            // A link may have been replaced before its directory was watched.
            let now = self.wanted();
            if now == wanted {
                return;
            }
            wanted = now;
        }
    }

    fn watch(&mut self, wanted: &Directories) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let before = std::mem::take(&mut self.watched);
        for (directory, counting) in wanted {
            match inotify::add_watch(self.events.get_ref(), directory.as_path(), flags) {
                Ok(watch) => {
                    let entry = self.watched.entry(watch);
                    let (_, all) =
                        entry.or_insert_with(|| (directory.clone(), Counting::default()));
                    // A directory may have two paths.
                    all.names.extend(counting.names.iter().cloned());
                    all.has_drop_ins |= counting.has_drop_ins;
                }
                Err(err) => {
                    debug!(directory = %directory.display(), error = %err, "directory of the configuration not watched");
                }
            }
        }
        for watch in before.into_keys().filter(|watch| !self.watched.contains_key(watch)) {
            // It is gone if its directory is.
            let _gone = inotify::remove_watch(self.events.get_ref(), watch);
        }
    }

    /// The directories on the paths of all files as they are now.
    fn wanted(&self) -> Directories {
        let mut wanted = Directories::new();
        add_path(&mut wanted, &self.file);
        let directory = add_path(&mut wanted, &self.drop_ins);
        if directory.is_dir() {
            wanted.entry(directory).or_default().has_drop_ins = true;
        }
        // If they cannot be listed, the reading says so.
        for path in drop_ins(&self.file).unwrap_or_default() {
            if path.is_symlink() {
                add_path(&mut wanted, &path);
            }
        }
        wanted
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
                    concerns |= self.is_relevant(event.wd(), name, event.events());
                }
                Err(Errno::AGAIN) => return Ok(concerns),
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn is_relevant(&self, watch: i32, name: Option<&OsStr>, events: ReadFlags) -> bool {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        // Events of a watch that has been removed may still be in the queue.
        let Some((directory, counting)) = self.watched.get(&watch) else { return false };
        let Some(name) = name else {
            let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
            return events.intersects(gone);
        };
        let is_drop_in = counting.has_drop_ins && is_drop_in(name);
        if !is_drop_in && !counting.names.contains(name) {
            return false;
        }
        !events.contains(ReadFlags::CREATE)
            || events.contains(ReadFlags::ISDIR)
            || is_complete(&directory.join(name))
    }
}

/// Whether what was just created is complete with that: a link to another file, or a further name of one.
fn is_complete(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|of| !of.is_file() || of.nlink() > 1)
}

/// Adds the directory of each link on an absolute path, and of its end. Returns the end: where the links lead, or the
/// first that is not there.
fn add_path(to: &mut Directories, path: &Path) -> PathBuf {
    let mut add = |path: &Path| {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            to.entry(parent.to_owned()).or_default().names.insert(name.to_owned());
        }
    };
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<PathBuf> = parts(path).collect();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        match part.components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                at.pop();
            }
            Some(Component::Normal(name)) => {
                let next = at.join(name);
                match next.read_link() {
                    Ok(_) if links == LINKS_MAX => return next,
                    Ok(target) => {
                        links += 1;
                        add(&next);
                        for part in parts(&target).rev() {
                            rest.push_front(part);
                        }
                    }
                    Err(err) if err.kind() == io::ErrorKind::NotFound => {
                        add(&next);
                        return next;
                    }
                    Err(_) => at = next,
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    add(&at);
    at
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = PathBuf> {
    path.components().map(|part| PathBuf::from(part.as_os_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;
    use crate::config;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    /// Whether a change is noticed. What is noticed is there at once.
    async fn notices(watch: &mut ConfigWatch) -> bool {
        tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_ok()
    }

    fn watch(file: &Path) -> ConfigWatch {
        ConfigWatch::start(&config::load(Some(file), &[]).unwrap().source).unwrap()
    }

    #[tokio::test]
    async fn complete_files_of_the_configuration_are_noticed_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hull.toml");
        fs::write(&file, "").unwrap();
        let mut watch = watch(&file);
        fs::write(dir.path().join(".hull.toml.swp"), "x").unwrap();
        fs::write(dir.path().join("registry-ca.pem"), "x").unwrap();
        assert!(!notices(&mut watch).await);
        fs::write(&file, "\n").unwrap();
        assert!(notices(&mut watch).await);
        let new = dir.path().join("new");
        fs::write(&new, "").unwrap();
        assert!(!notices(&mut watch).await);
        fs::rename(&new, &file).unwrap();
        assert!(notices(&mut watch).await);
        // A directory of drop-in files that was not there.
        let drop_ins = dir.path().join("hull.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        assert!(notices(&mut watch).await);
        fs::write(drop_ins.join("a.toml"), "").unwrap();
        assert!(notices(&mut watch).await);
        for other in ["a.conf", ".hidden.toml"] {
            fs::write(drop_ins.join(other), "").unwrap();
            assert!(!notices(&mut watch).await, "{other}");
        }
        // What is made and still being written is not complete.
        let being_written = fs::File::create_new(drop_ins.join("b.toml")).unwrap();
        assert!(!notices(&mut watch).await);
        drop(being_written);
        assert!(notices(&mut watch).await);
        fs::remove_file(drop_ins.join("a.toml")).unwrap();
        assert!(notices(&mut watch).await);
    }

    #[tokio::test]
    async fn the_file_behind_a_link_is_noticed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, file) = (dir.path().join("hull.toml"), elsewhere.path().join("real"));
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        let mut watch = watch(&link);
        fs::write(&file, "\n").unwrap();
        assert!(notices(&mut watch).await);
    }

    #[tokio::test]
    async fn drop_in_files_that_are_links_are_noticed_and_so_is_what_they_lead_to() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, drop_ins) = (dir.path().join("hull.toml"), dir.path().join("hull.toml.d"));
        let real = elsewhere.path().join("real");
        fs::write(&file, "").unwrap();
        fs::write(&real, "").unwrap();
        fs::create_dir(&drop_ins).unwrap();
        let mut watch = watch(&file);
        symlink(&real, drop_ins.join("a.toml")).unwrap();
        assert!(notices(&mut watch).await);
        fs::hard_link(&real, drop_ins.join("b.toml")).unwrap();
        assert!(notices(&mut watch).await);
        fs::write(&real, "\n").unwrap();
        assert!(notices(&mut watch).await);
        fs::remove_file(drop_ins.join("a.toml")).unwrap();
        assert!(notices(&mut watch).await);
        // The link is gone, and with it the interest in its end.
        fs::write(&real, "").unwrap();
        assert!(!notices(&mut watch).await);
    }

    #[tokio::test]
    async fn a_link_within_the_path_that_is_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir_all(at("volume").join(version)).unwrap();
            fs::write(at("volume").join(version).join("c.toml"), "").unwrap();
        }
        symlink("..1", at("volume/..data")).unwrap();
        symlink("..data/c.toml", at("volume/c.toml")).unwrap();
        symlink("volume/c.toml", at("hull.toml")).unwrap();
        let mut watch = watch(&at("hull.toml"));
        symlink("..2", at("volume/..data_tmp")).unwrap();
        assert!(!notices(&mut watch).await);
        fs::rename(at("volume/..data_tmp"), at("volume/..data")).unwrap();
        assert!(notices(&mut watch).await);
        fs::write(at("volume/..2/c.toml"), "\n").unwrap();
        assert!(notices(&mut watch).await);
        fs::write(at("volume/..1/c.toml"), "\n").unwrap();
        assert!(!notices(&mut watch).await);
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_or_is_replaced_by_a_link_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("hull.toml"), "").unwrap();
        fs::create_dir(at("hull.toml.d")).unwrap();
        fs::create_dir(at("other")).unwrap();
        let mut watch = watch(&at("hull.toml"));
        fs::remove_dir(at("hull.toml.d")).unwrap();
        assert!(notices(&mut watch).await);
        symlink("other", at("hull.toml.d")).unwrap();
        assert!(notices(&mut watch).await);
        fs::write(at("other/a.toml"), "").unwrap();
        assert!(notices(&mut watch).await);
        fs::rename(at("other"), at("another")).unwrap();
        assert!(notices(&mut watch).await);
        fs::write(at("another/a.toml"), "\n").unwrap();
        assert!(!notices(&mut watch).await);
        fs::create_dir(at("other")).unwrap();
        assert!(notices(&mut watch).await);
        fs::write(at("other/b.toml"), "").unwrap();
        assert!(notices(&mut watch).await);
    }
}
