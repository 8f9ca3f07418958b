// SPDX-License-Identifier: Apache-2.0
//! The timelines of what is gone: the newest [`ENDED_MAX`], on disk only. The oldest one goes first.

use super::timeline::{Kind, Timeline};
use crate::records::Store;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most timelines of what is gone.
const ENDED_MAX: usize = 1000;
/// Most bytes of them together: the directory is in memory.
const ENDED_BYTES_MAX: u64 = 8 << 20;
/// Most of them for the pods of one name, for the containers of these pods, and for one image.
const OF_POD_MAX: usize = 50;
const OF_IMAGE_MAX: usize = 8;

/// The directory of what is gone, with the order in which it went.
#[derive(Debug)]
pub(super) struct Ended {
    store: Store,
    dir: PathBuf,
    /// The oldest first.
    order: VecDeque<File>,
    bytes: u64,
}

/// The file of one timeline.
#[derive(Debug)]
struct File {
    name: String,
    bytes: u64,
    /// The pod or image whose timelines are counted together; empty for those of an earlier daemon.
    group: String,
}

impl Ended {
    /// Opens the directory; what an earlier daemon left there counts.
    pub(super) fn open(dir: PathBuf) -> Result<Self, crate::records::Error> {
        let store = Store::open(dir.clone())?;
        let order = listed(&dir);
        let bytes = order.iter().map(|of| of.bytes).sum();
        Ok(Self { store, dir, order, bytes })
    }

    /// Adds a timeline, in place of an older one of the same id; the oldest ones make room.
    pub(super) fn add(&mut self, timeline: &Timeline) -> Result<(), crate::records::Error> {
        self.store.save(&timeline.id, timeline)?;
        if let Some(at) = self.order.iter().position(|of| of.name == timeline.id)
            && let Some(old) = self.order.remove(at)
        {
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
        let bytes = size(&self.dir.join(format!("{}.json", timeline.id)));
        let (group, most) = group(timeline);
        self.order.push_back(File { name: timeline.id.clone(), bytes, group: group.clone() });
        self.bytes = self.bytes.saturating_add(bytes);
        if self.order.iter().filter(|of| of.group == group).count() > most {
            let oldest = self.order.iter().position(|of| of.group == group);
            self.remove(oldest.unwrap_or(0))?;
        }
        let is_full = |of: &Self| of.order.len() > ENDED_MAX || of.bytes > ENDED_BYTES_MAX;
        while !self.order.is_empty() && is_full(self) {
            self.remove(0)?;
        }
        Ok(())
    }

    fn remove(&mut self, at: usize) -> Result<(), crate::records::Error> {
        let Some(old) = self.order.remove(at) else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(old.bytes);
        self.store.remove(&old.name)
    }

    /// All timelines. One that cannot be read is set aside, and is not worth an error here.
    pub(super) fn read(&self) -> Result<Vec<Timeline>, crate::records::Error> {
        let (timelines, _) = self.store.load(|name, of: &Timeline| {
            if of.id == name { Ok(()) } else { Err(format!("`{name}` holds {}", of.id)) }
        })?;
        Ok(timelines)
    }
}

/// The name of those that share a quota with a timeline, and the quota: what is restarted all the time must not
/// displace all others.
fn group(of: &Timeline) -> (String, usize) {
    match of.kind {
        Kind::Pod => (format!("pod {}/{}", of.namespace, of.pod_name), OF_POD_MAX),
        Kind::Container => (format!("in {}/{}", of.namespace, of.pod_name), OF_POD_MAX),
        Kind::Image => (format!("image {}", of.image), OF_IMAGE_MAX),
    }
}

/// The names of the records with their sizes in bytes, the oldest first.
fn listed(dir: &Path) -> VecDeque<File> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(".json")?.to_owned();
            let meta = entry.metadata().ok()?;
            Some(((meta.mtime(), meta.mtime_nsec()), name, meta.len()))
        })
        .collect();
    found.sort();
    let file = |(_, name, bytes)| File { name, bytes, group: String::new() };
    found.into_iter().map(file).collect()
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: usize) -> Timeline {
        Timeline { id: format!("t{id}"), pod_name: format!("pod{id}"), ..Timeline::default() }
    }

    #[test]
    fn the_newest_thousand_are_kept_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ended");
        let mut ended = Ended::open(path.clone()).unwrap();
        for id in 0..600 {
            ended.add(&named(id)).unwrap();
        }
        let mut ended = Ended::open(path.clone()).unwrap();
        for id in 600..1100 {
            ended.add(&named(id)).unwrap();
        }
        ended.add(&named(500)).unwrap();
        let kept = ended.read().unwrap();
        assert_eq!(kept.len(), ENDED_MAX);
        let has = |id: usize| kept.iter().any(|of| of.id == format!("t{id}"));
        // The kernel's clock of files is coarse, so those of one moment have no order.
        assert!(has(1099) && has(500) && has(599) && !has(0), "the oldest ones went");
    }

    #[test]
    fn one_pod_does_not_displace_all_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = Ended::open(dir.path().join("ended")).unwrap();
        ended.add(&named(0)).unwrap();
        for id in 1..200 {
            ended.add(&Timeline { pod_name: "loops".into(), ..named(id) }).unwrap();
        }
        let kept = ended.read().unwrap();
        assert_eq!(kept.len(), OF_POD_MAX + 1);
        assert!(kept.iter().any(|of| of.id == "t0") && kept.iter().any(|of| of.id == "t199"));
    }

    #[test]
    fn large_ones_leave_room_for_fewer() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = Ended::open(dir.path().join("ended")).unwrap();
        let name = "x".repeat(1 << 20);
        for id in 0..20 {
            ended.add(&Timeline { name: name.clone(), ..named(id) }).unwrap();
        }
        let kept = ended.read().unwrap();
        assert!(kept.len() < 8 && kept.iter().any(|of| of.id == "t19"), "{}", kept.len());
    }

    #[test]
    fn one_that_cannot_be_read_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ended");
        let mut ended = Ended::open(path.clone()).unwrap();
        ended.add(&named(1)).unwrap();
        fs::write(path.join("torn.json"), b"{\"version\":1,\"rec").unwrap();
        fs::write(path.join("newer.json"), b"{\"version\":99,\"record\":{}}").unwrap();
        let ended = Ended::open(path).unwrap();
        assert_eq!(ended.read().unwrap(), [named(1)]);
    }
}
