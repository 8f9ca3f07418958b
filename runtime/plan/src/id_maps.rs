// SPDX-License-Identifier: Apache-2.0
//! Id mappings of a spec to ranges of a plan.

use hull_init::plan::IdMap;
use oci_spec::runtime::LinuxIdMapping;

/// The ranges of `maps`; empty without any.
pub(crate) fn ranges(maps: Option<&[LinuxIdMapping]>) -> Vec<IdMap> {
    let maps = maps.unwrap_or_default().iter();
    maps.map(|map| IdMap {
        container_id: map.container_id(),
        host_id: map.host_id(),
        length: map.size(),
    })
    .collect()
}
