// SPDX-License-Identifier: Apache-2.0
//! The maps of a user namespace that a container joins: devices, cgroups and streams belong to its root on the host.

use crate::error::{Error, Result};
use hull_plan::{IdMap, IdMaps};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

/// Writes the maps of the joined user namespace, if there is one, into the spec. As with runc, a spec that has them
/// too (containerd and CRI-O write both) must have the same.
pub(crate) fn fill_in(spec: &mut Spec) -> Result<()> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let user = linux.namespaces().iter().flatten().find(|of| of.typ() == LinuxNamespaceType::User);
    let path = user.and_then(|of| of.path().as_ref()).filter(|path| !path.as_os_str().is_empty());
    let Some(path) = path.map(|path| path.to_string_lossy().into_owned()) else { return Ok(()) };
    let IdMaps { uids, gids } = hull_init::maps_of_namespace(&path).map_err(Error::call)?;
    let (uids, gids) = (mappings(&uids)?, mappings(&gids)?);
    for (field, given, real) in [
        ("linux.uidMappings", linux.uid_mappings(), &uids),
        ("linux.gidMappings", linux.gid_mappings(), &gids),
    ] {
        if given.as_ref().is_some_and(|given| !given.is_empty() && given != real) {
            let why = "the user namespace that the container joins has other maps";
            let source = hull_plan::Error::Bad { field, value: path, why };
            return Err(Error::PlanProcess { source });
        }
    }
    linux.set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    Ok(())
}

fn mappings(maps: &[IdMap]) -> Result<Vec<LinuxIdMapping>> {
    let one = |map: &IdMap| {
        LinuxIdMappingBuilder::default()
            .container_id(map.container_id)
            .host_id(map.host_id)
            .size(map.length)
            .build()
            .map_err(|err| Error::BadValue { value: err.to_string(), what: "a map of ids" })
    };
    maps.iter().map(one).collect()
}
