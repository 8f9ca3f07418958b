// SPDX-License-Identifier: Apache-2.0
//! What a container may do: capabilities, seccomp, masked and read-only paths, devices.

use super::Error;
use super::container::Defaults;
use crate::apparmor::Wanted;
use hull_plan::seccomp;
use hull_proto::cri;
use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the field gives a container that asks for nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The five sets, by name.
pub(super) struct Sets {
    pub(super) allowed: BTreeSet<String>,
    pub(super) ambient: BTreeSet<String>,
}

/// Default, plus what is added, minus what is dropped; `ALL` is all.
pub(super) fn capabilities(context: &cri::LinuxContainerSecurityContext) -> Result<Sets, Error> {
    let all = || ALL_CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>();
    if context.privileged {
        return Ok(Sets { allowed: all(), ambient: BTreeSet::new() });
    }
    let mut allowed: BTreeSet<_> =
        DEFAULT_CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    let mut ambient = BTreeSet::new();
    if let Some(change) = &context.capabilities {
        let is_all = |name: &&String| name.eq_ignore_ascii_case("all");
        if change.add_capabilities.iter().any(|name| is_all(&name)) {
            allowed = all();
        }
        if change.drop_capabilities.iter().any(|name| is_all(&name)) {
            allowed.clear();
        }
        for name in change.add_capabilities.iter().filter(|name| !is_all(name)) {
            allowed.insert(capability(name)?);
        }
        for name in change.drop_capabilities.iter().filter(|name| !is_all(name)) {
            allowed.remove(&capability(name)?);
        }
        for name in &change.add_ambient_capabilities {
            let name = capability(name)?;
            allowed.insert(name.clone());
            ambient.insert(name);
        }
    }
    Ok(Sets { allowed, ambient })
}

fn capability(name: &str) -> Result<String, Error> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if ALL_CAPABILITIES.contains(&plain) {
        return Ok(format!("CAP_{plain}"));
    }
    Err(Error::NoCapability { name: name.chars().take(60).collect() })
}

/// The seccomp profile; `None` is unconfined.
pub(super) fn seccomp(
    context: &cri::LinuxContainerSecurityContext,
    sets: &Sets,
    defaults: &Defaults,
) -> Result<Option<Arc<LinuxSeccomp>>, Error> {
    use cri::security_profile::ProfileType;
    // As with both peers: who is privileged is not confined, whatever profile stands beside it.
    if context.privileged {
        return Ok(None);
    }
    let deprecated = context.seccomp_profile();
    let (kind, file) = match &context.seccomp {
        Some(profile) => {
            let kind = ProfileType::try_from(profile.profile_type).map_err(|_| Error::Bad {
                field: "seccomp.profile_type",
                value: profile.profile_type.to_string(),
                why: "there is none of that number",
            })?;
            (kind, profile.localhost_ref.clone())
        }
        None => match deprecated.as_str() {
            "unconfined" => (ProfileType::Unconfined, String::new()),
            "runtime/default" | "docker/default" => (ProfileType::RuntimeDefault, String::new()),
            "" if !defaults.seccomp => (ProfileType::Unconfined, String::new()),
            "" => (ProfileType::RuntimeDefault, String::new()),
            path => (ProfileType::Localhost, path.trim_start_matches("localhost/").to_owned()),
        },
    };
    match kind {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => {
            let names: Vec<_> = sets.allowed.iter().collect();
            let set: Capabilities =
                serde_json::from_value(json!(names)).map_err(|source| Error::Form { source })?;
            let profile =
                seccomp::runtime_default(Some(&set)).map_err(|source| Error::Form { source })?;
            Ok(Some(profile))
        }
        ProfileType::Localhost => localhost(&file, defaults).map(Arc::new).map(Some),
    }
}

fn localhost(file: &str, defaults: &Defaults) -> Result<LinuxSeccomp, Error> {
    let path = PathBuf::from(file.trim_start_matches("localhost/"));
    let path = if path.is_absolute() { path } else { defaults.seccomp_root.join(path) };
    let shown = path.display().to_string();
    let json =
        fs::read(&path).map_err(|source| Error::ReadProfile { path: shown.clone(), source })?;
    seccomp::localhost(&json).map_err(|source| Error::Profile { path: shown, source })
}

/// Reads the deprecated fields in one place.
trait Deprecated {
    fn seccomp_profile(&self) -> String;
    fn apparmor_profile_name(&self) -> String;
}

impl Deprecated for cri::LinuxContainerSecurityContext {
    #[allow(deprecated, reason = "older kubelets still fill it")]
    fn seccomp_profile(&self) -> String {
        self.seccomp_profile_path.clone()
    }

    #[allow(deprecated, reason = "older kubelets still fill it")]
    fn apparmor_profile_name(&self) -> String {
        self.apparmor_profile.clone()
    }
}

/// The AppArmor profile to enter.
pub(super) fn apparmor(
    context: &cri::LinuxContainerSecurityContext,
    defaults: &Defaults,
) -> Result<Option<String>, Error> {
    let wanted = wanted_apparmor(context)?;
    defaults.apparmor.profile(wanted).map_err(|name| Error::NoAppArmorProfile { name })
}

/// What is asked for. CRI says that naming none means the default; who is privileged has that only
/// by the name of a profile of its own.
fn wanted_apparmor(context: &cri::LinuxContainerSecurityContext) -> Result<Wanted, Error> {
    use cri::security_profile::ProfileType;
    let bad = |field, value: &str, why| Error::Bad { field, value: value.to_owned(), why };
    let named = |name: &str| match name.trim_start_matches("localhost/") {
        "" => Err(bad("apparmor.localhost_ref", name, "it names no profile")),
        name => Ok(Wanted::Named(name.to_owned())),
    };
    let wanted = match &context.apparmor {
        Some(profile) => match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::Unconfined) => Wanted::Unconfined,
            Ok(ProfileType::RuntimeDefault) => Wanted::Default { asked: true },
            Ok(ProfileType::Localhost) => named(&profile.localhost_ref)?,
            Err(_) => {
                let value = profile.profile_type.to_string();
                return Err(bad("apparmor.profile_type", &value, "there is none of that number"));
            }
        },
        None => match context.apparmor_profile_name().as_str() {
            "" => Wanted::Default { asked: false },
            "unconfined" => Wanted::Unconfined,
            "runtime/default" => Wanted::Default { asked: true },
            text if text.starts_with("localhost/") => named(text)?,
            text => {
                let why = "it is none of runtime/default, unconfined and localhost/NAME";
                return Err(bad("apparmor_profile", text, why));
            }
        },
    };
    if context.privileged && matches!(wanted, Wanted::Default { .. }) {
        return Ok(Wanted::Unconfined);
    }
    Ok(wanted)
}

/// The SELinux label, if one is asked for.
pub(super) fn selinux(context: &cri::LinuxContainerSecurityContext) -> Option<String> {
    let of = context.selinux_options.as_ref()?;
    let parts = [&of.user, &of.role, &of.r#type, &of.level];
    if parts.iter().all(|part| part.is_empty()) {
        return None;
    }
    Some(parts.map(String::as_str).join(":"))
}

/// What is hidden: the config's, or the field's list. crictl and others send none.
pub(super) fn masked(context: &cri::LinuxContainerSecurityContext) -> Vec<String> {
    list(context, &context.masked_paths, &MASKED)
}

/// What is read-only likewise.
pub(super) fn read_only(context: &cri::LinuxContainerSecurityContext) -> Vec<String> {
    list(context, &context.readonly_paths, &READ_ONLY)
}

fn list(
    context: &cri::LinuxContainerSecurityContext,
    given: &[String],
    defaults: &[&str],
) -> Vec<String> {
    if context.privileged {
        Vec::new()
    } else if given.is_empty() {
        defaults.iter().map(ToString::to_string).collect()
    } else {
        given.to_vec()
    }
}

/// Devices to make and rules for them.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<Value>,
    pub(super) rules: Vec<Value>,
}

/// None but the usual; with what the config names; all of the host's when privileged.
pub(super) fn devices(config: &cri::ContainerConfig, privileged: bool) -> Result<Devices, Error> {
    if privileged {
        let mut devices =
            Devices { rules: vec![json!({"allow": true, "access": "rwm"})], ..Devices::default() };
        host_devices(Path::new("/dev"), "/dev", 0, &mut devices.nodes);
        return Ok(devices);
    }
    let mut devices =
        Devices { rules: vec![json!({"allow": false, "access": "rwm"})], ..Devices::default() };
    for kind in ["c", "b"] {
        devices.rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        devices.rules.push(
            json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
        );
    }
    // Terminals of the container's own devpts.
    devices.rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    for device in &config.devices {
        add_device(device, &mut devices)?;
    }
    Ok(devices)
}

fn add_device(device: &cri::Device, devices: &mut Devices) -> Result<(), Error> {
    let missing = |source| Error::NoDevice { path: device.host_path.clone(), source };
    let inside =
        if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
    let access = if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() };
    let path = fs::canonicalize(&device.host_path).map_err(missing)?;
    let found = fs::metadata(&path).map_err(missing)?;
    let mut nodes = Vec::new();
    if found.is_dir() {
        host_devices(&path, inside, 0, &mut nodes);
    } else if let Some(node) = node(&found, inside) {
        nodes.push(node);
    } else {
        return Err(Error::Bad {
            field: "devices.host_path",
            value: device.host_path.clone(),
            why: "it is no device",
        });
    }
    for node in &nodes {
        devices.rules.push(json!({
            "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access,
        }));
    }
    devices.nodes.extend(nodes);
    Ok(())
}

/// Deepest directory of devices that is looked into.
const DEPTH_MAX: usize = 4;
/// What a container has of its own below /dev.
const OWN: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "hugepages"];

fn host_devices(dir: &Path, inside: &str, depth: usize, nodes: &mut Vec<Value>) {
    // A directory that goes away meanwhile has no devices.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if depth == 0 && inside == "/dev" && OWN.contains(&name.as_str()) {
            continue;
        }
        let (path, inside) = (entry.path(), format!("{}/{name}", inside.trim_end_matches('/')));
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() && depth < DEPTH_MAX {
            host_devices(&path, &inside, depth + 1, nodes);
        } else if let Some(node) = node(&found, &inside) {
            nodes.push(node);
        }
    }
}

fn node(found: &fs::Metadata, inside: &str) -> Option<Value> {
    let kind = found.file_type();
    let kind = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return None;
    };
    let device = found.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Some(json!({
        "path": inside, "type": kind, "major": major, "minor": minor,
        "fileMode": found.mode() & 0o7777, "uid": found.uid(), "gid": found.gid(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(add: &[&str], drop: &[&str]) -> Result<Sets, Error> {
        let list = |of: &[&str]| of.iter().map(ToString::to_string).collect();
        let change = cri::Capability {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            ..Default::default()
        };
        let context =
            cri::LinuxContainerSecurityContext { capabilities: Some(change), ..Default::default() };
        capabilities(&context)
    }

    #[test]
    fn capabilities_are_added_and_dropped_by_name_or_all() {
        assert_eq!(changed(&[], &[]).unwrap().allowed.len(), 14);
        let only = changed(&["net_admin"], &["ALL"]).unwrap().allowed;
        assert_eq!(only.into_iter().collect::<Vec<_>>(), ["CAP_NET_ADMIN"]);
        assert_eq!(changed(&["all"], &["CAP_CHOWN"]).unwrap().allowed.len(), 40);
        assert!(matches!(changed(&["CAP_FLY"], &[]), Err(Error::NoCapability { .. })));
    }

    #[test]
    #[allow(deprecated, reason = "older kubelets still fill it")]
    fn a_profile_is_wanted_by_the_old_field_too() {
        let wanted = |old: &str, privileged| {
            wanted_apparmor(&cri::LinuxContainerSecurityContext {
                apparmor_profile: old.into(),
                privileged,
                ..Default::default()
            })
        };
        assert_eq!(wanted("", false).unwrap(), Wanted::Default { asked: false });
        assert_eq!(wanted("runtime/default", false).unwrap(), Wanted::Default { asked: true });
        assert_eq!(wanted("unconfined", false).unwrap(), Wanted::Unconfined);
        assert_eq!(wanted("localhost/mine", false).unwrap(), Wanted::Named("mine".into()));
        assert_eq!(wanted("", true).unwrap(), Wanted::Unconfined);
        assert_eq!(wanted("localhost/mine", true).unwrap(), Wanted::Named("mine".into()));
        assert!(wanted("mine", false).is_err() && wanted("localhost/", false).is_err());
    }
}
