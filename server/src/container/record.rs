// SPDX-License-Identifier: Apache-2.0
//! The record of a container: what the daemon keeps of it on disk.

use super::log_loss::LogLoss;
use super::state::{Event, State};
use crate::nri::resources::to_cri;
use crate::oci_spec::{self, classes::Classes};
use hull_proto::{cri, nri};
use serde::{Deserialize, Serialize};

/// The record of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) pod: String,
    /// As the kubelet asked for it; resources as last updated.
    pub(crate) config: cri::ContainerConfig,
    /// The image's id, `sha256:…`.
    pub(crate) image_id: String,
    /// The images that its mounts are of.
    #[serde(default)]
    pub(crate) image_volumes: Vec<ImageVolume>,
    /// `image_ref` in statuses: a digest reference if the image has one, else its id.
    pub(crate) image_ref: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Path of its cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// Whole path of its log; empty without one.
    pub(crate) log_path: String,
    /// Adjustments by plugins at creation, and limits that plugins have set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) adjust: Option<Box<nri::ContainerAdjustment>>,
    /// The user of its first process; known once it is created.
    pub(crate) user: Option<User>,
    /// Kernel number of the signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// The end was requested: by StopContainer, by a removal, or with the pod's.
    #[serde(default)]
    pub(crate) stop_requested: bool,
    /// When the stop signal was first sent with time to end by itself, in nanoseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal_ns: Option<i64>,
    /// The last signal that a client had sent to it, while it ran: `hull kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal_requested: Option<i32>,
    /// When that was, in nanoseconds since the epoch; not known of a container that an earlier release ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal_requested_ns: Option<i64>,
    /// Parts of its config that have no effect on this node, each in a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
    /// The run before this one, of a container that was started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Box<PreviousRun>>,
    /// Output of this run that is missing in its log.
    #[serde(default, skip_serializing_if = "LogLoss::is_none")]
    pub(crate) log_loss: LogLoss,
    /// Its classes of resources, as they were when it was created.
    #[serde(default, skip_serializing_if = "Classes::is_none")]
    pub(crate) classes: Classes,
    pub(crate) state: State,
}

/// The last signal that was requested for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalRecord {
    signal: Option<i32>,
    at_ns: Option<i64>,
}

/// A run of a container that has ended, and was followed by another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreviousRun {
    /// The times between which its output was written, in nanoseconds since the epoch: from 0 for the first run.
    pub(crate) from_ns: i64,
    pub(crate) until_ns: i64,
    /// Its state when it had exited.
    pub(crate) state: State,
}

/// The user and groups of a process, and its home directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A mount of a container whose source is an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageVolume {
    /// Index into the config's mounts.
    pub(crate) mount: usize,
    /// The image's id, `sha256:…`.
    pub(crate) image_id: String,
}

impl ContainerRecord {
    /// The ids of the images that it needs.
    pub(crate) fn images(&self) -> impl Iterator<Item = String> + '_ {
        let volumes = self.image_volumes.iter().map(|volume| volume.image_id.clone());
        std::iter::once(self.image_id.clone()).chain(volumes)
    }

    /// Its resources: the kubelet's request, with the changes by plugins.
    pub(crate) fn resources(&self) -> Option<cri::LinuxContainerResources> {
        let requested = self.config.linux.as_ref().and_then(|linux| linux.resources.clone());
        let adjusted = self.adjust.as_ref().and_then(|adjust| adjust.linux.as_ref());
        let Some(adjusted) = adjusted.and_then(|linux| linux.resources.as_ref()) else {
            return requested;
        };
        let mut resources = requested.unwrap_or_default();
        oci_spec::merge_resources(&mut resources, &to_cri(adjusted));
        Some(resources)
    }

    /// The image's name as a person wrote it, if the kubelet sends that; else the requested one, often an id.
    pub(crate) fn image_name(&self) -> &str {
        let image = self.config.image.as_ref();
        image.map_or("", |image| match image.user_specified_image.as_str() {
            "" => image.image.as_str(),
            written => written,
        })
    }

    /// Records a signal that a client requests, and returns what was recorded before.
    pub(crate) fn request_signal(&mut self, signal: i32, at_ns: i64) -> SignalRecord {
        let before =
            SignalRecord { signal: self.signal_requested, at_ns: self.signal_requested_ns };
        (self.signal_requested, self.signal_requested_ns) = (Some(signal), Some(at_ns));
        before
    }

    /// Takes back the signal that was requested at `at_ns`. False if another one was requested since.
    pub(crate) fn take_back_signal(&mut self, before: &SignalRecord, at_ns: i64) -> bool {
        if self.signal_requested_ns != Some(at_ns) {
            return false;
        }
        (self.signal_requested, self.signal_requested_ns) = (before.signal, before.at_ns);
        true
    }

    /// Makes this the record of the next run of an exited container. False if it has not exited, or if there is no
    /// higher number for the attempt; then nothing changes.
    pub(crate) fn begin_next_run(&mut self, now_ns: i64) -> bool {
        let next = self.metadata().1.checked_add(1);
        let (Some(attempt), Ok(created)) = (next, self.state.clone().next(Event::StartAgain))
        else {
            return false;
        };
        let from_ns = self.previous.as_ref().map_or(0, |previous| previous.until_ns);
        let state = std::mem::replace(&mut self.state, created);
        self.previous =
            Some(Box::new(PreviousRun { from_ns, until_ns: now_ns.max(from_ns), state }));
        self.config.metadata.get_or_insert_default().attempt = attempt;
        self.stop_requested = false;
        self.log_loss = LogLoss::default();
        (self.stop_signal_ns, self.signal_requested, self.signal_requested_ns) = (None, None, None);
        true
    }

    /// Its name and attempt.
    pub(crate) fn metadata(&self) -> (&str, u32) {
        self.config.metadata.as_ref().map_or(("", 0), |meta| (meta.name.as_str(), meta.attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{ExitDetails, ExitReason};
    use super::*;

    fn record(state: &State, attempt: u32) -> ContainerRecord {
        let state = serde_json::to_value(state).unwrap();
        serde_json::from_value(serde_json::json!({
            "id": "c", "pod": "p", "config": {"metadata": {"name": "web", "attempt": attempt}},
            "image_id": "i", "image_ref": "i", "created_ns": 0, "cgroup": "/c", "log_path": "",
            "user": null, "stop_signal": 15, "stop_requested": true, "state": state,
        }))
        .unwrap()
    }

    #[test]
    fn a_further_run_keeps_what_is_known_of_the_last_one() {
        let how = ExitReason::Code { code: 3, details: ExitDetails::default() };
        let exited = State::Exited { how, since_ns: Some(2), at_ns: 9 };
        let mut of = record(&exited, 0);
        assert!(of.begin_next_run(10));
        assert_eq!(
            (&of.state, of.metadata(), of.stop_requested),
            (&State::Created, ("web", 1), false)
        );
        let first = PreviousRun { from_ns: 0, until_ns: 10, state: exited.clone() };
        assert_eq!(of.previous.as_deref(), Some(&first));
        assert!(!of.begin_next_run(11), "it has not exited");
        // The clock was set back.
        of.state = exited.clone();
        assert!(of.begin_next_run(4));
        let second = PreviousRun { from_ns: 10, until_ns: 10, state: exited.clone() };
        assert_eq!(of.previous.as_deref(), Some(&second));
        assert!(!record(&exited, u32::MAX).begin_next_run(1), "there is no number for it");
    }

    #[test]
    fn a_signal_that_was_not_sent_is_taken_back_unless_another_one_followed() {
        let mut of = record(&State::Running { pid: 1, since_ns: 1 }, 0);
        let none = of.request_signal(15, 10);
        assert_eq!((of.signal_requested, of.signal_requested_ns), (Some(15), Some(10)));
        let first = of.request_signal(9, 20);
        assert!(!of.take_back_signal(&none, 10));
        assert_eq!(of.signal_requested, Some(9));
        assert!(of.take_back_signal(&first, 20));
        assert_eq!((of.signal_requested, of.signal_requested_ns), (Some(15), Some(10)));
        assert!(of.take_back_signal(&none, 10));
        assert_eq!((of.signal_requested, of.signal_requested_ns), (None, None));
    }
}
