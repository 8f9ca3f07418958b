// SPDX-License-Identifier: Apache-2.0
//! The records of an earlier daemon, read and corrected.

use crate::container::ContainerRecord;
use crate::error::Error;
use crate::node::Node;
use crate::pod::{PodRecord, State};
use hull_proto::id::{BadId, ContainerId, PodId};
use std::collections::BTreeSet;
use tracing::{error, warn};

pub(super) type Containers = Vec<(ContainerId, ContainerRecord)>;

/// The ids of everything that has a record.
pub(super) struct Recorded {
    pub(super) pods: BTreeSet<String>,
    pub(super) containers: BTreeSet<String>,
}

pub(super) fn load<T: serde::de::DeserializeOwned>(
    store: &crate::records::Store,
    name_fits: impl Fn(&str, &T) -> Result<(), String>,
) -> Result<Vec<T>, Error> {
    let (records, aside) = store.load::<T>(name_fits).map_err(|source| Error::Store { source })?;
    for bad in aside {
        error!(path = %bad.path.display(), why = %bad.why,
            "record cannot be used and was set aside; what it stood for is swept as a leak");
    }
    Ok(records)
}

/// Whether a record is the one of its file: it is removed by its id.
pub(super) fn is_named(name: &str, id: &str, bad: Option<BadId>) -> Result<(), String> {
    match bad {
        Some(bad) => Err(bad.to_string()),
        None if name != id => Err(format!("it is the record of {id}")),
        None => Ok(()),
    }
}

/// Corrects what a record cannot mean: a cgroup of another pod as its own, and a stopped pod that still has its
/// directories.
pub(super) fn correct(
    node: &Node,
    id: &PodId,
    record: &mut PodRecord,
    containers: &mut Containers,
) {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    if record.cgroup_is_ours && !name(&record.cgroup).contains(id.as_str()) {
        warn!(pod = %id, cgroup = record.cgroup, "recorded cgroup is not this pod's own; left alone");
        record.cgroup_is_ours = false;
    }
    for (container, of) in containers {
        if name(&of.cgroup) != container.as_str() {
            warn!(container = %container, cgroup = of.cgroup, "recorded cgroup is not this container's own; left alone");
            of.cgroup = format!("{}/{container}", record.cgroup);
        }
    }
    let dirs = [node.pod_dir(id), node.pod_files(id)];
    let is_left = || dirs.iter().any(|dir| dir.symlink_metadata().is_ok());
    if matches!(record.state, State::Stopped) && is_left() {
        warn!(pod = %id, "pod is recorded as stopped, but has its directories; stopped again");
        record.state = State::Stopping;
    }
}
