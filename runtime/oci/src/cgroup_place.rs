// SPDX-License-Identifier: Apache-2.0
//! The place of a container's cgroup: that of its `linux.cgroupsPath`, as with runc.
//!
//! ```text
//! /a/b        from the root of each hierarchy
//! a/b         version 2: beside the caller's own cgroup, which has processes and so can have no controllers for others;
//!             version 1: below the caller's own cgroup in each hierarchy
//! (none)      as the relative path ID
//! SLICE:…     a scope, with --systemd-cgroup
//! ```

use crate::args::Global;
use crate::error::{Error, Result};
use crate::status::failed;
use crate::systemd::Scope;
use hull_cgroup::{CgroupFs, Version};
use oci_spec::runtime::Spec;

/// Where the cgroup of a container is, or will be.
#[derive(Debug, Default)]
pub(crate) struct CgroupPlace {
    pub(crate) path: String,
    /// The cgroups in which the path begins, for each hierarchy; none for their roots.
    pub(crate) roots: Vec<(String, String)>,
    /// Its scope, if systemd manages it.
    pub(crate) scope: Option<Scope>,
}

/// Whether the spec names a cgroup.
pub(crate) fn is_named(spec: &Spec) -> bool {
    let named = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    named.is_some_and(|path| !path.as_os_str().is_empty())
}

/// Finds the place, and writes its path into the spec.
pub(crate) fn fill_in(global: &Global, spec: &mut Spec, id: &str) -> Result<CgroupPlace> {
    let Some(linux) = spec.linux_mut() else { return Ok(CgroupPlace::default()) };
    let named = linux.cgroups_path().as_ref().map(|path| path.to_string_lossy().into_owned());
    let place = if global.systemd_cgroup {
        let scope = Scope::named(named.as_deref(), id)?;
        CgroupPlace { path: scope.cgroup.clone(), roots: Vec::new(), scope: Some(scope) }
    } else {
        place(named.as_deref().unwrap_or_default(), id)?
    };
    linux.set_cgroups_path(Some(place.path.clone().into()));
    Ok(place)
}

fn place(named: &str, id: &str) -> Result<CgroupPlace> {
    let at_root = |path: &str| CgroupPlace { path: path.to_owned(), ..CgroupPlace::default() };
    if !named.is_empty() && named.trim_matches('/').is_empty() {
        let source = hull_plan::Error::Bad {
            field: "linux.cgroupsPath",
            value: named.to_owned(),
            why: "the root cgroup is not allowed: its limits would be the host's",
        };
        return Err(Error::Plan { id: id.to_owned(), source });
    }
    if named.starts_with('/') {
        return Ok(at_root(named));
    }
    let relative = if named.is_empty() { id } else { named };
    let host = CgroupFs::detect().map_err(failed(id))?;
    if host.version() == Version::V2 {
        let own = own_unified(&host).map_err(failed(id))?;
        return Ok(at_root(&beside(&own, relative)));
    }
    let mut roots = host.own_paths().map_err(failed(id))?;
    roots.retain(|(_, path)| path != "/");
    Ok(CgroupPlace { path: format!("/{relative}"), roots, scope: None })
}

/// The calling process's own cgroup on version 2.
fn own_unified(host: &CgroupFs) -> std::result::Result<String, hull_cgroup::Error> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    Ok(host.unified_of(pid)?.unwrap_or_default())
}

/// The path of a cgroup with the same parent as `own`.
fn beside(own: &str, name: &str) -> String {
    let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
    format!("{parent}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_version_2_a_relative_path_begins_at_the_parent_of_the_callers_cgroup() {
        assert_eq!(beside("/user.slice/session-1.scope", "one"), "/user.slice/one");
        assert_eq!(beside("/init.scope", "a/b"), "/a/b");
        assert_eq!(beside("/", "one"), "/one");
        assert_eq!(beside("", "one"), "/one");
    }

    #[test]
    fn an_absolute_path_is_taken_as_it_is_and_the_root_refused() {
        let absolute = place("/a/b", "id").unwrap();
        assert_eq!((absolute.path.as_str(), absolute.roots.is_empty()), ("/a/b", true));
        for root in ["/", "//"] {
            assert!(place(root, "id").unwrap_err().to_string().contains("id"));
        }
    }
}
