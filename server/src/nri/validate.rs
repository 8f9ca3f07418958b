// SPDX-License-Identifier: Apache-2.0
//! Validates adjustments of plugins by the same checks as requests of a kubelet. An invalid value is an error that
//! names the plugin and the field. Pure.
//!
//! Not here: the checks of a start's plan, which apply to all containers. [`crate::container::create`] adds the
//! plugins' names to their errors.

use super::Error;
use crate::oci_spec;
use hull_nri::owner;
use hull_proto::nri::{ContainerAdjustment, Field, LinuxDevice, Mount, OwningPlugins, PosixRlimit};

/// The largest mode of a file, `inode(7)`.
const MODE_MAX: u32 = 0o7777;

type Checked = Result<(), oci_spec::Error>;

/// Refuses the first invalid value.
pub(super) fn adjustment(
    asked: &ContainerAdjustment,
    container: &str,
    owners: &OwningPlugins,
) -> Result<(), Error> {
    let named = |checked: Checked, field: Field, key: &str| {
        checked.map_err(|source| Error::Value {
            plugin: owner(owners, container, field, key).unwrap_or_else(|| "?".into()),
            source,
        })
    };
    for variable in asked.env.iter().filter(|of| !of.key.starts_with('-')) {
        let checked = oci_spec::check_variable("env", &variable.key, &variable.value);
        named(checked, Field::Env, &variable.key)?;
    }
    for word in &asked.args {
        named(text("args", word), Field::Args, "")?;
    }
    for one in asked.mounts.iter().filter(|of| !of.destination.starts_with('-')) {
        named(mount(one), Field::Mounts, &one.destination)?;
    }
    for limit in &asked.rlimits {
        named(rlimit(limit), Field::Rlimits, &limit.r#type)?;
    }
    let Some(linux) = &asked.linux else { return Ok(()) };
    for one in linux.devices.iter().filter(|of| !of.path.starts_with('-')) {
        named(device(one), Field::Devices, &one.path)?;
    }
    if let Some(score) = &linux.oom_score_adj {
        let checked = oci_spec::check_oom_score(score.value).map(drop);
        named(checked, Field::OomScoreAdj, "")?;
    }
    Ok(())
}

fn bad(field: &'static str, value: impl ToString, why: &'static str) -> Checked {
    Err(oci_spec::Error::Bad { field, value: value.to_string(), why })
}

fn text(field: &'static str, value: &str) -> Checked {
    if value.contains('\0') { bad(field, value, "it contains a NUL") } else { Ok(()) }
}

fn mount(mount: &Mount) -> Checked {
    text("mounts", &mount.source)?;
    text("mounts", &mount.destination)?;
    if mount.r#type.is_empty() || mount.r#type == "bind" {
        return oci_spec::check_bind(&mount.source, &mount.destination);
    }
    if !mount.destination.starts_with('/') {
        return bad("mounts", &mount.destination, "it is not an absolute path");
    }
    Ok(())
}

fn rlimit(limit: &PosixRlimit) -> Checked {
    if limit.soft > limit.hard {
        let value = format!("{} of {}", limit.soft, limit.r#type);
        return bad("rlimits", value, "the soft limit is above the hard one");
    }
    Ok(())
}

fn device(device: &LinuxDevice) -> Checked {
    text("linux.devices", &device.path)?;
    if !device.path.starts_with('/') {
        return bad("linux.devices", &device.path, "it is not an absolute path");
    }
    for number in [device.major, device.minor] {
        if u32::try_from(number).is_err() {
            return bad("linux.devices", number, "it is not the number of a device");
        }
    }
    if let Some(mode) = device.file_mode.map(|of| of.value).filter(|mode| *mode > MODE_MAX) {
        return bad("linux.devices", format!("{mode:o}"), "it is not the mode of a file");
    }
    for id in [device.uid, device.gid].into_iter().flatten() {
        oci_spec::user::id("linux.devices", i64::from(id.value))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::nri::{
        FieldOwners, KeyValue, LinuxContainerAdjustment, OptionalInt, OptionalUInt32,
    };

    fn linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
        ContainerAdjustment { linux: Some(linux), ..Default::default() }
    }

    fn device(change: impl FnOnce(&mut LinuxDevice)) -> ContainerAdjustment {
        let mut device =
            LinuxDevice { path: "/dev/x".into(), r#type: "c".into(), ..Default::default() };
        change(&mut device);
        linux(LinuxContainerAdjustment { devices: vec![device], ..Default::default() })
    }

    #[test]
    fn a_wrong_value_names_the_plugin_and_the_field() {
        let score = |value| {
            let oom_score_adj = Some(OptionalInt { value });
            linux(LinuxContainerAdjustment { oom_score_adj, ..Default::default() })
        };
        let env = |key: &str, value: &str| ContainerAdjustment {
            env: vec![KeyValue { key: key.into(), value: value.into() }],
            ..Default::default()
        };
        let mount = |source: &str, destination: &str| ContainerAdjustment {
            mounts: vec![Mount {
                source: source.into(),
                destination: destination.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let limit = PosixRlimit { r#type: "RLIMIT_CORE".into(), hard: 1, soft: 2 };
        let mut owners = OwningPlugins::default();
        let fields: &mut FieldOwners = owners.owners.entry("c".into()).or_default();
        fields.simple.insert(Field::OomScoreAdj as i32, "10-score".into());
        let good = [score(-1000), score(1000), env("A", "b"), mount("/a", "/b"), device(|_| {})];
        for asked in good {
            adjustment(&asked, "c", &owners).unwrap();
        }
        let bad = [
            (score(1001), "oom_score_adj"),
            (score(i64::MIN), "oom_score_adj"),
            (env("A=B", "c"), "env"),
            (env("", "c"), "env"),
            (env("A", "c\0"), "env"),
            (mount("a", "/b"), "mount"),
            (mount("/a", "b"), "mount"),
            (mount("/a\0", "/b"), "mount"),
            (ContainerAdjustment { rlimits: vec![limit], ..Default::default() }, "rlimits"),
            (ContainerAdjustment { args: vec!["a\0".into()], ..Default::default() }, "args"),
            (device(|of| of.path = "x".into()), "linux.devices"),
            (device(|of| of.major = -1), "linux.devices"),
            (device(|of| of.minor = 1 << 40), "linux.devices"),
            (device(|of| of.uid = Some(OptionalUInt32 { value: u32::MAX })), "linux.devices"),
        ];
        for (asked, field) in bad {
            let err = adjustment(&asked, "c", &owners).unwrap_err();
            let said = crate::error::Chain(&err).to_string();
            assert!(said.contains(field), "{said}");
            assert_eq!(said.contains("`10-score`"), field == "oom_score_adj", "{said}");
        }
    }
}
