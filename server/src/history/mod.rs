// SPDX-License-Identifier: Apache-2.0
//! The timelines of pods, containers and pulls: what was done when, how long it took, and how it ended. `hull explain`,
//! `hull trace`, `hull top` and CRI's verbose info read them; nothing that Hull decides depends on them.
//!
//! ```text
//! verbs ──stages, ends──▶ memory ──a quarter of a second later──▶ <state_dir>/history/<id>.json        what is there
//!                                                                 <state_dir>/history/ended/<id>.json  what is gone
//! ```
//!
//! Stages that end are counted in [`crate::metrics`], too.
//!
//! The rule: a verb only adds to memory. Files are written by a task of their own, one write for all changes of a
//! moment, without fsync; a daemon that is killed loses the last moment, and the next one begins from the records what it
//! does not find. What is kept is bounded in number and bytes ([`ended`], [`timeline`]).

mod ended;
mod present;
mod recorder;
mod select;
mod timeline;

pub(crate) use recorder::{History, timed};
pub(crate) use select::{Selected, related, select};
pub(crate) use timeline::{End, FailedExec, INTERRUPTED, Kind, Stage, Timeline};
