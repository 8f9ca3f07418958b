// SPDX-License-Identifier: Apache-2.0
//! The mounts of a container: system mounts, the pod's files, and the volumes of its config.

use super::edit::parents_first;
use super::inputs::PodInputs;
use super::{Error, run_options, userns};
use ::oci_spec::image::ImageConfiguration;
use hull_image::limits::IMAGE_VOLUMES;
use hull_plan::{IdMaps, clean};
use hull_proto::cri;
use serde_json::{Value, json};
use std::path::Path;

/// Source of a mount that the pod's monitor replaces by the pod's /dev/shm.
pub(crate) const SHM_SOURCE: &str = "hull:shm";

/// Source of the mount of a volume that the image defines: the container's own root at the same path.
pub(crate) const VOLUME_SOURCE: &str = "hull:volume";

/// The usual gid of the group tty.
const TERMINALS: u32 = 5;

/// The properties that system mounts depend on.
pub(super) struct SystemMounts<'a> {
    pub(super) privileged: bool,
    pub(super) host_ipc: bool,
    pub(super) host_network: bool,
    /// Whether its own cgroup is writable for it, because only files that are delegated to it can be written.
    pub(super) delegated_cgroup: bool,
    /// The maps of the pod's user namespace.
    pub(super) maps: Option<&'a IdMaps>,
    /// The maps of volumes that come without: a client that does not map the pod does not map its volumes.
    pub(super) volume_maps: Option<&'a IdMaps>,
}

/// All mounts, each after those that contain its destination.
pub(super) fn all(
    pod: &PodInputs<'_>,
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
    system: &SystemMounts<'_>,
) -> Result<Vec<Value>, Error> {
    let writable = if system.privileged { "rw" } else { "ro" };
    let cgroups = if system.delegated_cgroup { "rw" } else { writable };
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // Only if the user namespace has that gid.
    if system.maps.is_none_or(|maps| userns::is_inside(&maps.gids, TERMINALS)) {
        terminals.push("gid=5");
    }
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": terminals}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        sys(system, writable),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", cgroups]}),
    ];
    let taken = |path: &str| config.mounts.iter().any(|mount| clean(&mount.container_path) == path);
    // A volume at /dev or below replaces system mounts there: no mount point is created in it or below it.
    let given = |path: &str| {
        let at = |mount: &cri::Mount| Path::new(path).starts_with(clean(&mount.container_path));
        path.starts_with("/dev") && config.mounts.iter().any(at)
    };
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(given));
    if !given("/dev/shm") {
        let source = if system.host_ipc { "/dev/shm" } else { SHM_SOURCE };
        mounts.push(json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind", "nosuid", "nodev", "noexec"]}));
    }
    let files = [
        ("/etc/hosts", pod.hosts),
        ("/etc/resolv.conf", pod.resolv_conf),
        ("/etc/hostname", pod.hostname),
    ];
    let read_only = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .is_some_and(|context| context.readonly_rootfs);
    // Before the files, which an image's `/etc` would cover.
    mounts.append(&mut defined_volumes(config, image)?);
    for (path, file) in files {
        if !taken(path) {
            mounts.push(file_mount(path, file, read_only, system.maps));
        }
    }
    let mut volumes = run_options::tmpfs(config)?;
    for (number, mount) in config.mounts.iter().enumerate() {
        volumes.push(match &mount.image {
            Some(_) => image_volume(number, mount, system.maps)?,
            None => volume(mount, system.volume_maps)?,
        });
    }
    // A volume inside another one is mounted after it, in any order of the config.
    parents_first(&mut volumes);
    mounts.append(&mut volumes);
    Ok(mounts)
}

/// The mounts of the volumes that the image defines (`VOLUME`): directories of the container's own layer with the
/// image's content, which stay writable when the root is read-only. None where the config mounts something, or below
/// that, nor among the kernel's file systems.
fn defined_volumes(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
) -> Result<Vec<Value>, Error> {
    let defined = image.config().as_ref().and_then(|of| of.volumes().as_ref());
    let mut paths: Vec<_> = defined.into_iter().flatten().map(|path| clean(path)).collect();
    // Each after those that contain it.
    paths.sort();
    paths.dedup();
    // Of an image of an earlier Hull, which did not look at them when it pulled.
    let max = IMAGE_VOLUMES.count();
    if paths.len() > max {
        return Err(Error::ImageVolumes { count: paths.len(), max });
    }
    let is_of_kernel =
        |path: &str| ["/dev", "/proc", "/sys"].iter().any(|top| Path::new(path).starts_with(top));
    let is_given = |path: &str| {
        let mut given = config.mounts.iter().map(|mount| clean(&mount.container_path));
        given.any(|given| Path::new(path).starts_with(given))
    };
    paths.retain(|path| {
        path != "/" && !path.contains('\0') && !is_of_kernel(path) && !is_given(path)
    });
    let mount = |path| json!({"destination": path, "type": "bind", "source": VOLUME_SOURCE, "options": ["bind", "rprivate", "rw"]});
    Ok(paths.into_iter().map(mount).collect())
}

/// The mount of /sys, which shows the pod's network. Only the host's root can mount a sysfs of the host's network, so
/// in a user namespace the host's own mount is bound, read-only.
fn sys(system: &SystemMounts<'_>, writable: &str) -> Value {
    if system.host_network && system.maps.is_some() {
        return json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["bind", "nosuid", "noexec", "nodev", "rprivate", "ro"]});
    }
    json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", writable]})
}

/// The mount of one of the pod's files. In a user namespace, its owner is the root of that namespace.
fn file_mount(path: &str, file: &Path, read_only: bool, maps: Option<&IdMaps>) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    let mount = json!({"destination": path, "type": "bind", "source": file, "options": ["bind", "rprivate", access]});
    mapped(mount, maps)
}

fn mapped(mut mount: Value, maps: Option<&IdMaps>) -> Value {
    if let Some(maps) = maps {
        mount["uidMappings"] = userns::oci(&maps.uids);
        mount["gidMappings"] = userns::oci(&maps.gids);
        // Those of the mounts below too, as the kubelet expects it.
        if let Some(options) = mount["options"].as_array_mut() {
            options.push("ridmap".into());
        }
    }
    mount
}

/// Refuses a bind mount of paths that are not absolute.
pub(crate) fn check_bind(source: &str, path: &str) -> Result<(), Error> {
    if source.starts_with('/') && path.starts_with('/') {
        return Ok(());
    }
    let value = format!("{source} at {path}");
    Err(Error::Bad { field: "a mount", value, why: "both paths must be absolute" })
}

/// The mount of a path of the host. `image_sub_path` is ignored: kubelets that know image volumes send it with every
/// `subPath` of a pod that has one, also for volumes whose sub-path the kubelet itself has resolved.
fn volume(mount: &cri::Mount, assigned: Option<&IdMaps>) -> Result<Value, Error> {
    let path = &mount.container_path;
    if mount.host_path.is_empty() {
        return Err(Error::Bad {
            field: "mounts.host_path",
            value: path.clone(),
            why: "the mount has no source",
        });
    }
    check_bind(&mount.host_path, path)?;
    let propagation = match cri::MountPropagation::try_from(mount.propagation) {
        Ok(cri::MountPropagation::PropagationPrivate) => "rprivate",
        Ok(cri::MountPropagation::PropagationHostToContainer) => "rslave",
        Ok(cri::MountPropagation::PropagationBidirectional) => "rshared",
        Err(_) => {
            let value = mount.propagation.to_string();
            return Err(Error::Bad {
                field: "mounts.propagation",
                value,
                why: "there is none of that number",
            });
        }
    };
    let mut options = vec!["rbind", propagation];
    if mount.recursive_read_only {
        let why = match (mount.readonly, propagation) {
            (false, _) => Some("the mount is not read-only"),
            (true, "rprivate") => None,
            (true, _) => Some("with its propagation, later mounts below it would not be read-only"),
        };
        if let Some(why) = why {
            return Err(Error::RecursiveReadOnly { path: path.clone(), why });
        }
        options.push("rro");
    }
    options.push(if mount.readonly { "ro" } else { "rw" });
    options.extend(restricting_options(mount)?);
    let maps = userns::of_mount(mount)?.or_else(|| assigned.cloned());
    let bind = json!({"destination": clean(path), "type": "bind", "source": mount.host_path, "options": options});
    Ok(mapped(bind, maps.as_ref()))
}

/// The additional options of a mount. Only restricting options are accepted. An option that could give a right, or
/// change what other fields of the config set, is refused.
fn restricting_options(mount: &cri::Mount) -> Result<Vec<&str>, Error> {
    const KNOWN: [&str; 7] =
        ["noexec", "nodev", "nosuid", "nosymfollow", "noatime", "nodiratime", "relatime"];
    let options = mount.mount_options.iter().map(String::as_str);
    options
        .map(|option| {
            KNOWN.contains(&option).then_some(option).ok_or_else(|| Error::MountOption {
                path: mount.container_path.clone(),
                option: option.to_owned(),
                known: KNOWN.join(", "),
            })
        })
        .collect()
}

/// Source of the mount of an image volume, by its index in the config's mounts.
pub(crate) fn image_source(number: usize) -> String {
    format!("hull:image:{number}")
}

/// The mount of an image volume, always read-only. Propagation from the host is accepted and has no effect, because
/// nothing is ever mounted in an image.
fn image_volume(number: usize, mount: &cri::Mount, maps: Option<&IdMaps>) -> Result<Value, Error> {
    let path = &mount.container_path;
    let shared = cri::MountPropagation::PropagationBidirectional as i32;
    let climbs = mount.image_sub_path.split('/').any(|part| part == "..");
    let why = match mount {
        _ if !path.starts_with('/') => Some("its path is not absolute"),
        of if !of.readonly => Some("it must be read-only"),
        of if !of.host_path.is_empty() => Some("it has a host path too"),
        of if of.propagation == shared => Some("the host cannot see what is mounted in it"),
        of if of.image_sub_path.starts_with('/') => Some("its sub-path is absolute"),
        of if of.image_sub_path.contains('\0') => Some("its sub-path contains a NUL"),
        _ if climbs => Some("its sub-path leads outside of the image: it contains `..`"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(Error::ImageVolume { path: path.clone(), why });
    }
    let maps = userns::of_mount(mount)?.or_else(|| maps.cloned());
    let mut options = vec!["bind", "ro", "nosuid", "nodev"];
    options.extend(restricting_options(mount)?);
    let bind = json!({"destination": clean(path), "type": "bind", "source": image_source(number), "options": options});
    Ok(mapped(bind, maps.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    #[test]
    fn volumes_of_the_image_are_mounted_where_the_config_mounts_nothing() {
        let of = |volumes: &[&str], mounts: &[&str]| {
            let volumes: Map<String, Value> =
                volumes.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
            let image = serde_json::from_value(json!({
                "architecture": "amd64", "os": "linux", "config": {"Volumes": volumes},
                "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
            }));
            let mounts = mounts.iter().map(|path| cri::Mount {
                container_path: (*path).into(),
                ..mount(false, false, 0)
            });
            let config = cri::ContainerConfig { mounts: mounts.collect(), ..Default::default() };
            let made = defined_volumes(&config, &image.unwrap())?;
            let path = |of: &Value| of["destination"].as_str().unwrap().to_owned();
            Ok::<_, Error>(made.iter().map(path).collect::<Vec<_>>())
        };
        let volumes = ["/data/", "data", "/a/../b", "/", "/proc/x", "/sys", "/dev/shm", "/deep/in"];
        assert_eq!(of(&volumes, &[]).unwrap(), ["/b", "/data", "/deep/in"]);
        assert_eq!(of(&volumes, &["/deep/.", "/b/c"]).unwrap(), ["/b", "/data"]);
        assert_eq!(of(&volumes, &["/data", "/da"]).unwrap(), ["/b", "/deep/in"]);
        let many: Vec<_> = (0..300).map(|number| format!("/v{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(of(&many, &[]).unwrap_err().to_string().contains("300"));
    }

    #[test]
    fn a_volume_has_its_own_maps_or_those_that_hull_assigned() {
        let range = |host_id| vec![hull_plan::IdMap { container_id: 0, host_id, length: 9 }];
        let assigned = IdMaps { uids: range(1000), gids: range(2000) };
        let plain = mount(false, false, 0);
        assert_eq!(volume(&plain, None).unwrap()["uidMappings"], Value::Null);
        let made = volume(&plain, Some(&assigned)).unwrap();
        assert_eq!(made["uidMappings"][0]["hostID"], 1000);
        assert_eq!(made["gidMappings"][0]["hostID"], 2000);
        let map = vec![cri::IdMapping { host_id: 7, container_id: 0, length: 1 }];
        let own = cri::Mount { uid_mappings: map.clone(), gid_mappings: map, ..plain };
        assert_eq!(volume(&own, Some(&assigned)).unwrap()["uidMappings"][0]["hostID"], 7);
    }

    #[test]
    fn an_image_volume_is_read_only_and_stays_in_its_image() {
        let good = cri::Mount {
            image: Some(cri::ImageSpec::default()),
            host_path: String::new(),
            image_sub_path: "etc/./ssl".into(),
            ..mount(true, true, 1)
        };
        let made = image_volume(7, &good, None).unwrap();
        assert_eq!(made["source"], "hull:image:7");
        assert!(made["options"].as_array().unwrap().contains(&json!("ro")), "{made}");
        let bad = [
            cri::Mount { readonly: false, ..good.clone() },
            cri::Mount { host_path: "/srv".into(), ..good.clone() },
            cri::Mount { propagation: 2, ..good.clone() },
            cri::Mount { image_sub_path: "/etc".into(), ..good.clone() },
            cri::Mount { image_sub_path: "a/../../b".into(), ..good.clone() },
            cri::Mount { image_sub_path: "a\0b".into(), ..good.clone() },
            cri::Mount { container_path: "data".into(), ..good.clone() },
        ];
        for mount in bad {
            image_volume(0, &mount, None).unwrap_err();
        }
    }

    #[test]
    fn the_sub_path_of_a_volume_without_an_image_is_ignored() {
        let plain = mount(true, false, 0);
        let made = volume(&plain, None).unwrap();
        for image_sub_path in ["a", "/a", "../a", "a\0b"] {
            let with = cri::Mount { image_sub_path: image_sub_path.into(), ..plain.clone() };
            assert_eq!(volume(&with, None).unwrap(), made, "{image_sub_path:?}");
        }
    }

    #[test]
    fn only_restricting_options_are_accepted() {
        let with = |options: &[&str]| cri::Mount {
            mount_options: options.iter().map(|&of| of.into()).collect(),
            ..mount(false, false, 0)
        };
        let made = volume(&with(&["noexec", "nodev", "nosuid"]), None).unwrap();
        assert_eq!(
            made["options"],
            json!(["rbind", "rprivate", "rw", "noexec", "nodev", "nosuid"])
        );
        let image = cri::Mount {
            image: Some(cri::ImageSpec::default()),
            host_path: String::new(),
            readonly: true,
            ..with(&["noexec"])
        };
        let made = image_volume(0, &image, None).unwrap();
        assert!(made["options"].as_array().unwrap().contains(&json!("noexec")), "{made}");
        for other in ["", "rw", "suid", "rshared", "remount", "size=1g", "noexec,suid"] {
            let refused = volume(&with(&["noexec", other]), None).unwrap_err();
            assert!(refused.to_string().contains(&format!("`{other}`")), "{refused}");
        }
        image_volume(0, &cri::Mount { mount_options: vec!["rw".into()], ..image }, None)
            .unwrap_err();
    }

    fn mount(readonly: bool, recursive_read_only: bool, propagation: i32) -> cri::Mount {
        cri::Mount {
            container_path: "/data".into(),
            host_path: "/srv".into(),
            readonly,
            recursive_read_only,
            propagation,
            ..Default::default()
        }
    }

    #[test]
    fn recursive_read_only_needs_read_only_and_no_propagation() {
        volume(&mount(true, true, 0), None).unwrap();
        volume(&mount(false, true, 0), None).unwrap_err();
        volume(&mount(true, true, 1), None).unwrap_err();
        volume(&mount(true, true, 2), None).unwrap_err();
    }
}
