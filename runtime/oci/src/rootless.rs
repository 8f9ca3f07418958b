// SPDX-License-Identifier: Apache-2.0
//! Users without rights over the host: in a user namespace of their own, or as root of one in which this program runs.
//!
//! Their containers have no cgroup where they may not create one, unless the spec asks for limits; and no device but
//! those of the host. Ids beyond their own are mapped by newuidmap(1) and newgidmap(1), as /etc/subuid and /etc/subgid
//! allow.

use crate::args::Global;
use crate::error::{Error, Result};
use crate::setup::Setup;
use crate::status::{failed, host_of};
use hull_cgroup::{Cgroup, CgroupFs, Limits};
use hull_init::plan::{IdMap, Op, Step};
use hull_init::{Plan, StepError, WriteMaps};
use hull_plan::{IdMaps, Namespace};
use rustix::io::Errno;
use std::fs;
use std::process::Command;

/// Whether the caller is not the root of the host, or is declared not to be by `--rootless`.
pub(crate) fn is_rootless(global: &Global) -> bool {
    global
        .rootless
        .unwrap_or_else(|| !rustix::process::geteuid().is_root() || is_in_user_namespace())
}

/// Not the host's own user namespace, which maps every id to itself.
fn is_in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// The way to write maps: this program's own for root, else this one's.
pub(crate) fn map_writer() -> Option<WriteMaps> {
    (!rustix::process::geteuid().is_root()).then_some(write_maps as WriteMaps)
}

/// Whether groups cannot be set in the namespace of a container: there if this program's own map is written, or here
/// already.
pub(crate) fn groups_are_denied() -> bool {
    let here = fs::read_to_string("/proc/self/setgroups");
    map_writer().is_some() || here.is_ok_and(|text| text.trim() == "deny")
}

/// The host's cgroups, or none where a rootless container goes without.
pub(crate) fn cgroups(global: &Global, setup: &mut Setup, is_named: bool) -> Result<CgroupFs> {
    let id = setup.record.id.clone();
    let host = host_of(&setup.record)?;
    if !is_rootless(global) {
        return Ok(host);
    }
    if setup.scope.is_some() {
        let hint = "leave it out: --cgroup-manager=cgroupfs for podman, native.cgroupdriver=cgroupfs for docker";
        return Err(Error::NotSupported {
            what: "--systemd-cgroup without root's rights".into(),
            hint,
        });
    }
    let limits = &mut setup.plan.cgroup.limits;
    if !rustix::process::geteuid().is_root() || is_in_user_namespace() {
        // Rules for devices need rights over the host, and a user may open no device that others may not.
        limits.devices.clear();
    }
    let cgroup = Cgroup::at(&host, &setup.record.cgroup).map_err(failed(&id))?;
    let was_there = cgroup.exists().map_err(failed(&id))?;
    let refused = match cgroup.create(&Limits::default()) {
        Ok(()) => return Ok(host),
        Err(refused) => refused,
    };
    if !was_there {
        // In some hierarchies it may have been created.
        let _may_not = cgroup.remove();
    }
    if is_named || *limits != Limits::default() || !setup.beyond.further_limits.is_empty() {
        return Err(Error::Cgroup { id, source: refused });
    }
    setup.plan.ops.retain(|op| !matches!(op, Op::Cgroups { .. }));
    setup.record.without_cgroup = true;
    Ok(CgroupFs::none())
}

/// Refuses what a user without rights over the host cannot have, as runc does.
pub(crate) fn check(plan: &Plan) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if plan.namespaces.user == Namespace::Inherit {
        return Err(Error::NotSupported {
            what: "a container without a user namespace, without root's rights".into(),
            hint: "add one to `linux.namespaces` with its maps: `hull oci spec --rootless` writes them",
        });
    }
    let is_mapped = |op: &Op| {
        matches!(op, Op::Bind { id_maps: Some(_), .. } | Op::BindWith { id_maps: Some(_), .. })
    };
    if plan.ops.iter().any(is_mapped) {
        return Err(Error::NotSupported {
            what: "mounts with mapped ids, without root's rights".into(),
            hint: "remove `idmap`, `ridmap`, `uidMappings` and `gidMappings` from that mount",
        });
    }
    Ok(())
}

fn write_maps(pid: i32, maps: &IdMaps) -> std::result::Result<(), StepError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let failed = |errno, call: String| StepError { step: Step::IdMaps, errno, call };
    for (file, ranges, own, program) in
        [("uid_map", &maps.uids, uid, "newuidmap"), ("gid_map", &maps.gids, gid, "newgidmap")]
    {
        let is_own =
            matches!(ranges.as_slice(), [IdMap { host_id, length: 1, .. }] if *host_id == own);
        if is_own {
            let write = |file: &str, text: &str| {
                let path = format!("/proc/{pid}/{file}");
                fs::write(&path, text).map_err(|err| {
                    failed(err.raw_os_error().unwrap_or(0), format!("write({path})"))
                })
            };
            if file == "gid_map" {
                // Else the kernel takes no map of groups from a user, `user_namespaces(7)`.
                write("setgroups", "deny")?;
            }
            write(file, &format!("{} {own} 1\n", ranges[0].container_id))?;
            continue;
        }
        let numbers = ranges.iter().flat_map(|of| [of.container_id, of.host_id, of.length]);
        let mut words = vec![pid.to_string()];
        words.extend(numbers.map(|number| number.to_string()));
        let ran = Command::new(program).args(&words).output();
        let ran = ran.map_err(|err| {
            failed(err.raw_os_error().unwrap_or(0), format!("execve({program}): install uidmap"))
        })?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            let call = format!("{program} {}: {}", words.join(" "), said.trim());
            return Err(failed(Errno::PERM.raw_os_error(), call));
        }
    }
    Ok(())
}
