// SPDX-License-Identifier: Apache-2.0
//! New ids of pods and containers, from the kernel's random numbers.

use hull_proto::id::{ContainerId, PodId};

/// A new pod id.
pub(crate) fn new_pod_id() -> PodId {
    PodId::from_random(random())
}

/// A new container id.
pub(crate) fn new_container_id() -> ContainerId {
    ContainerId::from_random(random())
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    hull_sys::random(&mut bytes);
    bytes
}
