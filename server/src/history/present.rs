// SPDX-License-Identifier: Apache-2.0
//! The timelines of what is there, in memory, and what the recovery of a daemon does with them. Pure.

use super::timeline::Timeline;
use std::collections::BTreeMap;

/// The timelines of what is there, by id.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) entries: BTreeMap<String, Entry>,
    is_recovering: bool,
}

/// A timeline of something that is there.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) timeline: Timeline,
    /// Has not been written since it changed.
    pub(super) is_changed: bool,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Begun by this daemon, or of something that its recovery has found.
    Known,
    /// Read from the disk: the recovery may not find the object.
    Read,
    /// Something happened to an object that the recovery has found, and whose timeline was never written. It has no
    /// names yet, and is in no answer.
    Unnamed,
}

impl Present {
    /// Those that the daemon before has left. The recovery begins.
    pub(super) fn of(entries: BTreeMap<String, Entry>) -> Self {
        Self { entries, is_recovering: true }
    }

    /// The recovery has ended, and has `found` these objects.
    pub(super) fn resume(&mut self, found: Vec<Timeline>, now_ns: i64) {
        self.is_recovering = false;
        for recorded in found {
            self.found(recorded.bounded());
        }
        self.entries.retain(|_, entry| entry.origin != Origin::Unnamed);
        for entry in self.entries.values_mut() {
            if entry.origin == Origin::Read && entry.timeline.gone_ns.is_none() {
                entry.timeline.gone_ns = Some(now_ns);
                entry.is_changed = true;
            }
            entry.origin = Origin::Known;
        }
    }

    /// The entry of something that has names.
    pub(super) fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id).filter(|entry| entry.origin != Origin::Unnamed)
    }

    /// All but those without names.
    pub(super) fn named(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut().filter(|entry| entry.origin != Origin::Unnamed)
    }

    /// The entry to note something in. None for what was never begun, but during the recovery.
    pub(super) fn entry_mut(&mut self, id: &str) -> Option<&mut Entry> {
        if self.is_recovering {
            let unnamed = || Entry {
                timeline: Timeline { id: id.to_owned(), ..Timeline::default() },
                is_changed: true,
                origin: Origin::Unnamed,
            };
            return Some(self.entries.entry(id.to_owned()).or_insert_with(unnamed));
        }
        self.entries.get_mut(id)
    }

    /// Names an object that the recovery has found, in a timeline of its own if it has none.
    fn found(&mut self, recorded: Timeline) {
        let Some(entry) = self.entries.get_mut(&recorded.id) else {
            let entry = Entry { timeline: recorded, is_changed: true, origin: Origin::Known };
            self.entries.insert(entry.timeline.id.clone(), entry);
            return;
        };
        if entry.origin == Origin::Unnamed {
            let known = std::mem::take(&mut entry.timeline);
            entry.timeline = Timeline {
                stages: known.stages,
                stages_dropped: known.stages_dropped,
                end: known.end.or(recorded.end),
                execs: known.execs,
                failed_exec: known.failed_exec,
                gone_ns: known.gone_ns,
                ..recorded
            };
        } else if entry.timeline.attempt < recorded.attempt {
            // The daemon was killed before it wrote that the container was started again.
            entry.timeline = recorded;
            entry.is_changed = true;
        } else if entry.timeline.end.is_none() {
            let has_end = recorded.end.is_some();
            entry.timeline.end = recorded.end;
            entry.is_changed |= has_end;
        }
        entry.origin = Origin::Known;
    }
}
