// SPDX-License-Identifier: Apache-2.0
//! The confinement of a container: capabilities, seccomp, AppArmor, masked and read-only paths.

use super::Error;
use super::inputs::Defaults;
use crate::apparmor::Profile;
use ::oci_spec::runtime::{Capabilities, LinuxSeccomp};
use hull_plan::{capabilities, defaults, seccomp};
use hull_proto::cri;
use hull_sys::files::read_opened;
use rustix::fs::{Mode, OFlags, open};
use serde_json::json;
use std::collections::BTreeSet;

use std::path::{Component, Path};
use std::sync::Arc;

/// Longest seccomp profile that is read, in bytes. Known profiles have up to 100 KiB.
const PROFILE_BYTES_MAX: u64 = 4 << 20;
/// Longest path in a message, in bytes.
const PATH_SHOWN_BYTES_MAX: usize = 256;
/// Nonblocking, because a FIFO may be in a profile's place.
const PROFILE_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The default capabilities of containers, as in containerd and CRI-O.
pub(crate) const DEFAULT_CAPABILITIES: [&str; 14] = [
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

/// The names of capabilities, from which the five sets of a process are made.
pub(super) struct CapabilitySets {
    pub(super) allowed: BTreeSet<String>,
    pub(super) ambient: BTreeSet<String>,
}

/// Default, plus what is added, minus what is dropped; `ALL` is all.
///
/// # Errors
/// A capability that is asked for by its name does not exist, or this node cannot give it. Of `ALL`, of the default and
/// of a privileged container those that the node has are given, so that these work on a node that is a container itself.
pub(super) fn capabilities(
    context: &cri::LinuxContainerSecurityContext,
    of_node: u64,
) -> Result<CapabilitySets, Error> {
    let all = || capabilities::prefixed_names().into_iter().collect::<BTreeSet<_>>();
    if context.privileged {
        return Ok(CapabilitySets { allowed: all(), ambient: BTreeSet::new() });
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
            allowed.insert(added(name, of_node)?);
        }
        for name in change.drop_capabilities.iter().filter(|name| !is_all(name)) {
            allowed.remove(&capability(name)?);
        }
        for name in &change.add_ambient_capabilities {
            let name = added(name, of_node)?;
            allowed.insert(name.clone());
            ambient.insert(name);
        }
    }
    Ok(CapabilitySets { allowed, ambient })
}

/// A capability that is requested by its name.
fn added(name: &str, of_node: u64) -> Result<String, Error> {
    let known = capability(name)?;
    let number = capabilities::number(known.trim_start_matches("CAP_"));
    // Unreadable counts as all.
    if of_node != 0 && number.is_some_and(|number| of_node >> number & 1 == 0) {
        return Err(Error::CapabilityOfNode { name: known });
    }
    Ok(known)
}

fn capability(name: &str) -> Result<String, Error> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if capabilities::number(plain).is_some() {
        return Ok(format!("CAP_{plain}"));
    }
    Err(Error::NoCapability { name: name.chars().take(60).collect() })
}

/// The seccomp profile; `None` is unconfined.
pub(super) fn seccomp(
    context: &cri::LinuxContainerSecurityContext,
    sets: &CapabilitySets,
    defaults: &Defaults,
) -> Result<Option<Arc<LinuxSeccomp>>, Error> {
    use cri::security_profile::ProfileType;
    // As in containerd and CRI-O, a privileged container is unconfined, with any profile.
    if context.privileged {
        return Ok(None);
    }
    let (kind, file) = requested_filter(context, defaults.seccomp)?;
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

/// The requested kind of seccomp profile, and its file where it has one.
fn requested_filter(
    context: &cri::LinuxContainerSecurityContext,
    filters_by_default: bool,
) -> Result<(cri::security_profile::ProfileType, String), Error> {
    use cri::security_profile::ProfileType;
    if let Some(profile) = &context.seccomp {
        let kind = ProfileType::try_from(profile.profile_type).map_err(|_| Error::Bad {
            field: "seccomp.profile_type",
            value: profile.profile_type.to_string(),
            why: "there is none of that number",
        })?;
        return Ok((kind, profile.localhost_ref.clone()));
    }
    let deprecated = context.seccomp_profile();
    Ok(match deprecated.as_str() {
        "unconfined" => (ProfileType::Unconfined, String::new()),
        "runtime/default" | "docker/default" => (ProfileType::RuntimeDefault, String::new()),
        "" if !filters_by_default => (ProfileType::Unconfined, String::new()),
        "" => (ProfileType::RuntimeDefault, String::new()),
        path => (ProfileType::Localhost, path.trim_start_matches("localhost/").to_owned()),
    })
}

/// Whether a container has a seccomp profile that somebody wrote for it. Hull's own needs no check.
pub(crate) fn has_localhost_filter(config: &cri::ContainerConfig) -> bool {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let kind = context.and_then(|context| requested_filter(context, true).ok());
    kind.is_some_and(|(kind, _)| kind == cri::security_profile::ProfileType::Localhost)
}

/// Reads a profile of type Localhost. Kubelets send its absolute path, which is below their own seccomp directory.
///
/// The caller may not climb out of that directory by `..`. Links in it are followed: only root can create them, and
/// the Security Profiles Operator keeps its profiles behind one.
fn localhost(file: &str, defaults: &Defaults) -> Result<LinuxSeccomp, Error> {
    let path = Path::new(file.trim_start_matches("localhost/"));
    let shown = hull_sys::text::shown(path.as_os_str().as_encoded_bytes(), PATH_SHOWN_BYTES_MAX);
    if path.components().any(|part| part == Component::ParentDir) {
        let root = defaults.seccomp_root.display().to_string();
        return Err(Error::ProfileOutside { path: shown, root });
    }
    let failed = |source| Error::ReadProfile { path: shown.clone(), source };
    // An absolute path replaces the root: of a kubelet with another root directory, or of another caller.
    let opened = open(defaults.seccomp_root.join(path), PROFILE_FLAGS, Mode::empty());
    let opened = opened.map_err(|errno| failed(errno.into()))?;
    let json = read_opened(opened, PROFILE_BYTES_MAX).map_err(failed)?;
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

/// The AppArmor profile that the container runs under; `None` is unconfined.
pub(super) fn apparmor(
    context: &cri::LinuxContainerSecurityContext,
    defaults: &Defaults,
) -> Result<Option<String>, Error> {
    let requested = requested_profile(context)?;
    defaults.apparmor.resolve(requested).map_err(|name| Error::NoAppArmorProfile { name })
}

/// The requested profile. By CRI, no profile means the default. A privileged container is confined only by a profile
/// with a name.
fn requested_profile(context: &cri::LinuxContainerSecurityContext) -> Result<Profile, Error> {
    use cri::security_profile::ProfileType;
    let bad = |field, value: &str, why| Error::Bad { field, value: value.to_owned(), why };
    let named = |name: &str| match name.trim_start_matches("localhost/") {
        "" => Err(bad("apparmor.localhost_ref", name, "it does not name a profile")),
        name => Ok(Profile::Named(name.to_owned())),
    };
    let profile = match &context.apparmor {
        Some(profile) => match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::Unconfined) => Profile::Unconfined,
            Ok(ProfileType::RuntimeDefault) => Profile::Default { explicit: true },
            Ok(ProfileType::Localhost) => named(&profile.localhost_ref)?,
            Err(_) => {
                let value = profile.profile_type.to_string();
                return Err(bad("apparmor.profile_type", &value, "there is none of that number"));
            }
        },
        None => match context.apparmor_profile_name().as_str() {
            "" => Profile::Default { explicit: false },
            "unconfined" => Profile::Unconfined,
            "runtime/default" => Profile::Default { explicit: true },
            text if text.starts_with("localhost/") => named(text)?,
            text => {
                let why = "it is not runtime/default, unconfined or localhost/NAME";
                return Err(bad("apparmor_profile", text, why));
            }
        },
    };
    if context.privileged && matches!(profile, Profile::Default { .. }) {
        return Ok(Profile::Unconfined);
    }
    Ok(profile)
}

/// Paths of /proc and /sys that are masked in a container, and those that are read-only.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HiddenPaths {
    pub(super) masked: Vec<String>,
    pub(super) read_only: Vec<String>,
}

/// The paths of the config, and always those of Hull's defaults: clients send older lists, or none.
///
/// A kubelet requests `procMount: Unmasked` by empty lists, which the API server admits only with
/// `hostUsers: false`. There they are respected: the kernel denies the root of a user namespace what the host's root
/// may do in /proc, and a nested container can mount its own procfs only if nothing is masked. Otherwise empty lists
/// come from a client that sends none, and mean the defaults.
pub(super) fn hidden(
    context: &cri::LinuxContainerSecurityContext,
    user_namespace: bool,
) -> HiddenPaths {
    let none = context.masked_paths.is_empty() && context.readonly_paths.is_empty();
    if context.privileged || (user_namespace && none) {
        return HiddenPaths::default();
    }
    let with = |mut all: Vec<String>, given: &[String]| {
        for path in given {
            if !all.contains(path) {
                all.push(path.clone());
            }
        }
        all
    };
    let read_only = defaults::READONLY_PATHS.iter().map(ToString::to_string).collect();
    HiddenPaths {
        masked: with(defaults::masked_paths(), &context.masked_paths),
        read_only: with(read_only, &context.readonly_paths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(add: &[&str], drop: &[&str]) -> Result<CapabilitySets, Error> {
        let list = |of: &[&str]| of.iter().map(ToString::to_string).collect();
        let change = cri::Capability {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            ..Default::default()
        };
        let context =
            cri::LinuxContainerSecurityContext { capabilities: Some(change), ..Default::default() };
        capabilities(&context, u64::MAX)
    }

    #[test]
    fn capabilities_are_added_and_dropped_by_name_or_all() {
        assert_eq!(changed(&[], &[]).unwrap().allowed.len(), 14);
        let only = changed(&["net_admin"], &["ALL"]).unwrap().allowed;
        assert_eq!(only.into_iter().collect::<Vec<_>>(), ["CAP_NET_ADMIN"]);
        assert_eq!(changed(&["all"], &["CAP_CHOWN"]).unwrap().allowed.len(), 40);
        let misspelt = changed(&["NET_ADMON"], &[]).err().unwrap();
        assert!(misspelt.to_string().contains("it is unknown"), "{misspelt}");
        assert!(misspelt.hint().unwrap().starts_with("did you mean NET_ADMIN?"));
        let unknown = changed(&["CAP_FLY"], &[]).err().unwrap();
        assert!(!unknown.hint().unwrap().contains("did you mean"));
        let context = cri::LinuxContainerSecurityContext {
            capabilities: Some(cri::Capability {
                add_capabilities: vec!["SYS_TIME".into()],
                ..Default::default()
            }),
            ..Default::default()
        };
        let lacking = capabilities(&context, !(1 << 25)).err().unwrap();
        assert!(matches!(lacking, Error::CapabilityOfNode { .. }) && lacking.hint().is_some());
        assert!(capabilities(&context, 0).is_ok(), "the node's set could not be read");
    }

    #[test]
    fn a_profile_is_read_below_its_root_and_no_caller_climbs_out_of_that() {
        use rustix::fs::{CWD, FileType, mknodat};
        use std::fs;
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("seccomp");
        fs::create_dir_all(root.join("inner")).unwrap();
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
        for path in [root.join("inner/good.json"), dir.path().join("elsewhere.json")] {
            fs::write(path, profile).unwrap();
        }
        symlink("inner/good.json", root.join("link")).unwrap();
        symlink("../elsewhere.json", root.join("out")).unwrap();
        symlink(dir.path(), root.join("dir-out")).unwrap();
        mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let defaults = Defaults {
            seccomp: false,
            seccomp_root: root.clone(),
            cdi_spec_dirs: Vec::new(),
            ulimits: Vec::new(),
            capabilities: u64::MAX,
            cgroup_access: crate::oci_spec::CgroupAccess {
                setting: crate::config::CgroupWritable::Never,
                has_namespaces: false,
                delegates: false,
            },
            apparmor: crate::apparmor::AppArmor::default(),
            selinux: None,
        };
        let read = |path: &str| localhost(path, &defaults);
        let below = |name: &str| root.join(name).display().to_string();
        for name in ["inner/good.json", "link", "out", "dir-out/elsewhere.json"] {
            for path in [name.to_owned(), format!("localhost/{name}"), below(name)] {
                read(&path).unwrap();
            }
        }
        // Of a kubelet whose root directory is another, and of CRI's own tests.
        read(&dir.path().join("elsewhere.json").display().to_string()).unwrap();
        for name in ["../elsewhere.json", "inner/../link"] {
            for path in [name.to_owned(), below(name)] {
                let refused = read(&path).unwrap_err();
                assert!(matches!(refused, Error::ProfileOutside { .. }), "{path}: {refused}");
                assert!(refused.hint().unwrap().contains("runtime.seccomp_root"));
            }
        }
        for odd in ["fifo", "inner", "none", ""] {
            let refused = read(odd).unwrap_err();
            assert!(matches!(refused, Error::ReadProfile { .. }), "{odd}: {refused}");
        }
        let refused = read("/dev/zero").unwrap_err();
        assert!(matches!(refused, Error::ReadProfile { .. }), "{refused}");
    }

    #[test]
    fn empty_lists_are_unmasked_only_in_a_user_namespace() {
        let context = |masked: &[&str], read_only: &[&str], privileged| {
            let list = |of: &[&str]| of.iter().map(ToString::to_string).collect();
            cri::LinuxContainerSecurityContext {
                masked_paths: list(masked),
                readonly_paths: list(read_only),
                privileged,
                ..Default::default()
            }
        };
        let default = hidden(&context(&[], &[], false), false);
        assert_eq!(default.masked, defaults::masked_paths());
        assert_eq!(default.read_only, defaults::READONLY_PATHS);
        assert_eq!(hidden(&context(&[], &[], false), true), HiddenPaths::default());
        // The list of a kubelet that is older than this one, in any pod.
        for user_namespace in [false, true] {
            let old = hidden(&context(&["/proc/kcore", "/etc/x"], &[], false), user_namespace);
            let all = [defaults::masked_paths(), vec!["/etc/x".into()]].concat();
            assert_eq!((old.masked, old.read_only), (all, default.read_only.clone()));
            let one = hidden(&context(&[], &["/proc/sys"], false), user_namespace);
            assert_eq!(one, default);
            let privileged = hidden(&context(&["/proc/kcore"], &[], true), user_namespace);
            assert_eq!(privileged, HiddenPaths::default());
        }
    }

    #[test]
    #[allow(deprecated, reason = "older kubelets still fill it")]
    fn a_profile_is_wanted_by_the_old_field_too() {
        let wanted = |old: &str, privileged| {
            requested_profile(&cri::LinuxContainerSecurityContext {
                apparmor_profile: old.into(),
                privileged,
                ..Default::default()
            })
        };
        assert_eq!(wanted("", false).unwrap(), Profile::Default { explicit: false });
        assert_eq!(wanted("runtime/default", false).unwrap(), Profile::Default { explicit: true });
        assert_eq!(wanted("unconfined", false).unwrap(), Profile::Unconfined);
        assert_eq!(wanted("localhost/mine", false).unwrap(), Profile::Named("mine".into()));
        assert_eq!(wanted("", true).unwrap(), Profile::Unconfined);
        assert_eq!(wanted("localhost/mine", true).unwrap(), Profile::Named("mine".into()));
        assert!(wanted("mine", false).is_err() && wanted("localhost/", false).is_err());
    }
}
