// SPDX-License-Identifier: Apache-2.0
//! The record of a pod: what the daemon keeps of it on disk.

use super::state::{Event, State};
use crate::config::Handler;
use hull_proto::cri;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The record of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) id: String,
    /// As the kubelet asked for it, with the user namespace that its handler gives to it.
    pub(crate) config: cri::PodSandboxConfig,
    /// The user namespace that Hull assigned, where the config names none. Absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) assigned_userns: Option<cri::UserNamespace>,
    /// RuntimeClass handler; empty is the native one.
    pub(crate) handler: String,
    /// The settings of the handler when the pod was made; `None` if they are those of the node. Absent in records of
    /// earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handler_settings: Option<Handler>,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Path of the pod's cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// We made that cgroup, so we take it away.
    pub(crate) cgroup_is_ours: bool,
    pub(crate) state: State,
    /// The sandbox of a pod that is stopping, for NRI plugins: set when it stops being ready. Absent in records of
    /// earlier releases.
    #[serde(default)]
    pub(crate) last_ready: Option<LastReady>,
    /// Names of the containers that do not start again by themselves, because a person has stopped them. Of the name and
    /// not of one attempt, so that a restart in progress cannot undo a stop. Absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) restarts_cancelled: BTreeSet<String>,
}

/// The sandbox of a stopping pod, as it was when the pod was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastReady {
    /// The pause process in the host's pid namespace; `None` once it has ended by itself.
    pub(crate) pause_pid: Option<i32>,
    /// The pod's addresses, the main one first.
    pub(crate) ips: Vec<IpAddr>,
}

impl PodRecord {
    /// Enters the next state. The sandbox of a pod that stops being ready is kept until its parts are gone.
    pub(crate) fn enter(&mut self, next: State, event: &Event) {
        let before = std::mem::replace(&mut self.state, next);
        match (before, &self.state) {
            (State::Ready { pause_pid, ips }, State::Stopping) => {
                let pause_pid = Some(pause_pid).filter(|_| *event != Event::SandboxLost);
                self.last_ready = Some(LastReady { pause_pid, ips });
            }
            (_, State::Stopping) => {
                if let (Event::SandboxLost, Some(last)) = (event, &mut self.last_ready) {
                    last.pause_pid = None;
                }
            }
            (_, State::Building | State::Ready { .. } | State::Stopped) => self.last_ready = None,
        }
    }

    /// The pause process and the pod's addresses, of a pod that is ready or stopping.
    pub(crate) fn sandbox(&self) -> (Option<i32>, &[IpAddr]) {
        match (&self.state, &self.last_ready) {
            (State::Ready { pause_pid, ips }, _) => (Some(*pause_pid), ips),
            (State::Stopping, Some(last)) => (last.pause_pid, &last.ips),
            (State::Building | State::Stopping | State::Stopped, _) => (None, &[]),
        }
    }

    /// Uses the host's network?
    pub(crate) fn host_network(&self) -> bool {
        let node = cri::NamespaceMode::Node as i32;
        self.namespaces().is_some_and(|options| options.network == node)
    }

    /// `namespace/name`, as people call it.
    pub(crate) fn full_name(&self) -> String {
        let metadata = self.config.metadata.as_ref();
        metadata.map_or_else(String::new, |of| format!("{}/{}", of.namespace, of.name))
    }

    /// Has a user namespace of its own? Checked when it was asked for.
    pub(crate) fn id_maps(&self) -> Option<hull_plan::IdMaps> {
        crate::oci_spec::userns::of_pod(&self.config, self.assigned_userns.as_ref()).ok().flatten()
    }

    pub(crate) fn namespaces(&self) -> Option<&cri::NamespaceOption> {
        self.config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
    }

    /// The namespaces as its status shows them: with the user namespace that Hull assigned.
    pub(crate) fn namespaces_in_effect(&self) -> Option<cri::NamespaceOption> {
        let assigned = self.assigned_userns.clone();
        let requested = self.namespaces().cloned();
        let options =
            if assigned.is_some() { Some(requested.unwrap_or_default()) } else { requested };
        options
            .map(|of| cri::NamespaceOption { userns_options: assigned.or(of.userns_options), ..of })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A pod that is ready.
    pub(in crate::pod) fn ready() -> PodRecord {
        let state = State::Ready { pause_pid: 7, ips: vec!["10.0.0.2".parse().unwrap()] };
        PodRecord {
            id: "a".into(),
            config: cri::PodSandboxConfig::default(),
            assigned_userns: None,
            handler: String::new(),
            handler_settings: None,
            created_ns: 0,
            cgroup: "/a".into(),
            cgroup_is_ours: true,
            state,
            last_ready: None,
            restarts_cancelled: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn a_stopping_pod_keeps_its_sandbox_until_it_is_torn_down() {
        let mut record = ready();
        let ips = ["10.0.0.2".parse().unwrap()];
        record.enter(State::Stopping, &Event::StopAsked);
        assert_eq!(record.sandbox(), (Some(7), &ips[..]));
        let kept: PodRecord =
            serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(kept.sandbox(), (Some(7), &ips[..]), "also for the next daemon");
        record.enter(State::Stopping, &Event::SandboxLost);
        assert_eq!(record.sandbox(), (None, &ips[..]), "its pause process has ended");
        record.enter(State::Stopped, &Event::TornDown);
        assert_eq!(record.sandbox(), (None, &[][..]));

        let mut lost = ready();
        lost.enter(State::Stopping, &Event::SandboxLost);
        assert_eq!(lost.sandbox(), (None, &ips[..]));
    }
}
