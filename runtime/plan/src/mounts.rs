// SPDX-License-Identifier: Apache-2.0
//! OCI mounts to operations.

use crate::Error;
use crate::defaults::REPLACEABLE_IN_PROC;
use crate::id_maps::ranges;
use crate::mount_options::MountOptions;
use hull_init::plan::{IdMaps, MountIdMaps, Op, Propagation, Source};
use oci_spec::runtime::Mount;

/// A bundle, to whose files a spec refers.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The directory that has config.json.
    pub(crate) dir: String,
    /// The container's root, absolute.
    pub(crate) rootfs: String,
}

impl Bundle {
    /// The part of `path` beneath the root, by its text: with runc, destinations and sources may be named so. `/` is
    /// the root itself.
    fn inside(&self, path: &str) -> Option<String> {
        let path = clean(path);
        match path.strip_prefix(&self.rootfs)? {
            "" => Some("/".to_owned()),
            rest => rest.starts_with('/').then(|| rest.to_owned()),
        }
    }
}

/// The place of a mount in its container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Source texts that do not name a path of the host, and their replacements.
    pub(crate) sources: &'a [(String, Source)],
    /// The bundle, if there is one: relative sources begin there, and options mean what they mean to runc.
    pub(crate) bundle: Option<&'a Bundle>,
    /// The maps of a user namespace that is not ours; empty if one is joined without them.
    pub(crate) user_maps: Option<&'a IdMaps>,
}

/// The operation for one mount.
pub(crate) fn op(mount: &Mount, of: Surroundings<'_>) -> Result<Op, Error> {
    let destination = mount.destination().to_string_lossy();
    let target = match of.bundle.and_then(|bundle| bundle.inside(&destination)) {
        Some(inside_root) => inside(&inside_root)?,
        None => inside(&destination)?,
    };
    let fstype = mount.typ().clone().unwrap_or_default();
    let source = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned());
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default())?;
    let id_maps = id_maps(mount, &options, of.user_maps)?;
    let is_bind = fstype == "bind"
        || options.bind.is_some()
        || of.sources.iter().any(|(text, _)| Some(text) == source.as_ref());
    check_proc(&target, is_bind, &fstype)?;
    if is_bind {
        let source = source.ok_or(Error::Missing { field: "mounts.source" })?;
        let recursive = options.bind.unwrap_or(true);
        let source = bind_source(source, recursive, of)?;
        return bind(source, target, &options, id_maps, of);
    }
    if id_maps.is_some() {
        return Err(Error::Unsupported {
            what: "mapped ids of a mount that is not a bind mount",
            value: target,
        });
    }
    let attrs = options.of_new_mount();
    if fstype.is_empty() {
        return Err(Error::Missing { field: "mounts.type" });
    }
    if matches!(fstype.as_str(), "cgroup" | "cgroup2") {
        let is_shared = !options.of_new_propagation().is_empty();
        if let Some(value) =
            options.data.first().map(|(key, _)| key.clone()).or(is_shared.then(|| "shared".into()))
        {
            return Err(Error::Unsupported { what: "this option of a cgroup mount", value });
        }
        return Ok(Op::Cgroups { target, attrs });
    }
    let source = source.unwrap_or_else(|| fstype.clone());
    let (data, copy_up) = (options.of_file_system(), options.copy_up);
    let propagation = options.of_new_propagation();
    Ok(if propagation.is_empty() {
        Op::Mount { source, fstype, target, attrs, options: data, copy_up }
    } else {
        Op::MountWith { source, fstype, target, attrs, options: data, copy_up, propagation }
    })
}

/// Refuses mounts that hide or replace parts of procfs, and another file system in its place. Whether the tree of a
/// bind mount at `/proc` is a procfs is checked when it is made.
fn check_proc(target: &str, is_bind: bool, fstype: &str) -> Result<(), Error> {
    let Some(rest) = target.strip_prefix("/proc") else { return Ok(()) };
    let is_allowed = match rest {
        "" => is_bind || fstype == "proc",
        rest if rest.starts_with('/') => is_bind && REPLACEABLE_IN_PROC.contains(&target),
        _ => true,
    };
    if is_allowed {
        return Ok(());
    }
    Err(Error::InProc { target: target.chars().take(200).collect() })
}

fn bind_source(text: String, recursive: bool, of: Surroundings<'_>) -> Result<Source, Error> {
    if let Some((_, known)) = of.sources.iter().find(|(known, _)| *known == text) {
        return Ok(known.clone());
    }
    let path = match of.bundle {
        _ if text.starts_with('/') => text,
        Some(bundle) => format!("{}/{text}", bundle.dir),
        None => {
            return Err(Error::Bad {
                field: "mounts.source",
                value: text,
                why: "it is not an absolute path",
            });
        }
    };
    // Without the mounts in it, the root can be cloned on the host as well.
    let is_inside = |path: &String| recursive || path != "/";
    let inside = of.bundle.and_then(|bundle| bundle.inside(&path)).filter(is_inside);
    Ok(inside.map_or(Source::Host(path), Source::Inside))
}

fn bind(
    source: Source,
    target: String,
    options: &MountOptions,
    id_maps: Option<MountIdMaps>,
    of: Surroundings<'_>,
) -> Result<Op, Error> {
    let copies_up = ("tmpcopyup".to_owned(), None);
    let of_file_system = options.data.first().or(options.copy_up.then_some(&copies_up));
    if let Some((key, _)) = of_file_system {
        return Err(Error::Bad {
            field: "mounts.options",
            value: key.clone(),
            why: "a bind mount has no such option",
        });
    }
    let recursive = options.bind.unwrap_or(true);
    if of.bundle.is_some() {
        let attributes = options.of_bind_like_runc(of.user_maps.is_some());
        return Ok(Op::BindWith { source, target, recursive, attributes, id_maps });
    }
    let fits = id_maps.as_ref().is_none_or(|maps| maps.recursive || !recursive);
    Ok(match options.as_before(recursive).filter(|_| fits) {
        Some((attrs, recursive_attrs, clear, propagation)) => {
            let id_maps = id_maps.map(|of| of.maps);
            Op::Bind {
                source,
                target,
                recursive,
                attrs,
                recursive_attrs,
                clear,
                propagation,
                id_maps,
            }
        }
        None => {
            let attributes = options.of_bind();
            Op::BindWith { source, target, recursive, attributes, id_maps }
        }
    })
}

/// The maps of a mount; with the option alone those of the container.
fn id_maps(
    mount: &Mount,
    options: &MountOptions,
    user_maps: Option<&IdMaps>,
) -> Result<Option<MountIdMaps>, Error> {
    let recursive = options.id_map.unwrap_or(false);
    let (uids, gids) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    match (uids.unwrap_or_default(), gids.unwrap_or_default()) {
        ([], []) if options.id_map.is_none() => Ok(None),
        ([], []) => {
            let maps = user_maps.ok_or(Error::Missing { field: "mounts.uidMappings" })?.clone();
            Ok(Some(MountIdMaps { maps, recursive }))
        }
        ([], _) => Err(Error::Missing { field: "mounts.uidMappings" }),
        (_, []) => Err(Error::Missing { field: "mounts.gidMappings" }),
        (uids, gids) => {
            let maps = IdMaps { uids: ranges(Some(uids)), gids: ranges(Some(gids)) };
            Ok(Some(MountIdMaps { maps, recursive }))
        }
    }
}

/// The path without `.`, `..` and empty parts, absolute: `..` takes away the part before it, as `path.Clean` of Go
/// does, and at the root nothing. By its text alone: no link is looked at.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A path that stays inside, whatever it says: absolute and [`clean`].
pub(crate) fn inside(path: &str) -> Result<String, Error> {
    let bad = |why| Error::Bad {
        field: "mounts.destination",
        value: path.chars().take(200).collect(),
        why,
    };
    if path.contains('\0') {
        return Err(bad("it holds a NUL"));
    }
    match clean(path) {
        root if root == "/" => Err(bad("the root itself cannot be mounted over")),
        inside => Ok(inside),
    }
}

/// The root's propagation, as the spec names it.
pub(crate) fn propagation(text: &str) -> Result<Propagation, Error> {
    match text {
        "private" | "rprivate" => Ok(Propagation::Private),
        "slave" | "rslave" => Ok(Propagation::Slave),
        "shared" | "rshared" => Ok(Propagation::Shared),
        "unbindable" | "runbindable" => Ok(Propagation::Unbindable),
        other => Err(Error::Bad {
            field: "linux.rootfsPropagation",
            value: other.into(),
            why: "no such propagation",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_init::plan::Attrs;
    use proptest::prelude::*;

    const POD: Surroundings<'_> = Surroundings { sources: &[], bundle: None, user_maps: None };

    fn mount(text: &str) -> Mount {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn options_become_attributes_and_what_is_left_is_the_file_systems() {
        let text = r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]}"#;
        let Op::Mount { attrs, options, .. } = op(&mount(text), POD).unwrap() else {
            panic!("no mount")
        };
        assert!(attrs.nosuid && attrs.strictatime && !attrs.rdonly);
        assert_eq!(options[1], ("size".into(), Some("65536k".into())));
    }

    #[test]
    fn a_slot_is_known_by_its_source() {
        let text = r#"{"destination":"/dev/shm","type":"bind","source":"hull:shm","options":["rbind","ro"]}"#;
        let op = op(
            &mount(text),
            Surroundings { sources: &[("hull:shm".into(), Source::Slot(3))], ..POD },
        )
        .unwrap();
        assert!(matches!(
            op,
            Op::Bind { source: Source::Slot(3), attrs: Attrs { rdonly: true, .. }, .. }
        ));
    }

    #[test]
    fn nothing_is_mounted_in_proc_but_files_that_lxcfs_replaces() {
        let of = |destination: &str, kind: &str| {
            let text = format!(
                r#"{{"destination":"{destination}","type":"{kind}","source":"/y","options":[]}}"#
            );
            op(&mount(&text), POD)
        };
        for (path, kind) in [
            ("/proc/sys", "bind"),
            ("/proc/irq", "tmpfs"),
            ("//proc/./1", "bind"),
            ("/x/../proc/self/attr", "bind"),
            ("/proc/cpuinfo/x", "bind"),
            ("/proc/cpuinfo", "tmpfs"),
            ("/proc/x", "proc"),
            ("/proc", "tmpfs"),
        ] {
            let refused = of(path, kind).unwrap_err();
            assert!(refused.to_string().contains("procfs"), "{path}: {refused}");
            assert!(refused.hint().unwrap().contains("/proc/cpuinfo"), "{path}: {refused}");
        }
        for (path, kind) in [
            ("/proc", "proc"),
            ("/proc", "bind"),
            ("/proc/meminfo", "bind"),
            ("/proc/sys/kernel/ns_last_pid", "bind"),
            ("/procession", "tmpfs"),
            ("/host/proc/sys", "bind"),
        ] {
            of(path, kind).unwrap();
        }
        // With runc, a destination may name the root.
        let bundle = Bundle { dir: "/bundle".into(), rootfs: "/bundle/rootfs".into() };
        let surroundings = Surroundings { bundle: Some(&bundle), ..POD };
        let text = r#"{"destination":"/bundle/rootfs/proc/sys","type":"bind","source":"/y"}"#;
        op(&mount(text), surroundings).unwrap_err();
    }

    #[test]
    fn what_a_bind_cannot_have_is_refused() {
        let text =
            r#"{"destination":"/x","type":"bind","source":"/y","options":["bind","size=5"]}"#;
        assert!(op(&mount(text), POD).unwrap_err().to_string().contains("size"));
        let text = r#"{"destination":"/x","type":"bind","source":"y"}"#;
        op(&mount(text), POD).unwrap_err();
    }

    fn of_bundle(text: &str, user_maps: Option<&IdMaps>) -> Op {
        let bundle = Bundle { dir: "/bundle".into(), rootfs: "/bundle/rootfs".into() };
        op(&mount(text), Surroundings { sources: &[], bundle: Some(&bundle), user_maps }).unwrap()
    }

    #[test]
    fn a_relative_source_begins_at_the_bundle_and_one_in_its_root_is_the_containers() {
        let of = |source: &str, destination: &str| {
            let text = format!(
                r#"{{"destination":"{destination}","type":"bind","source":"{source}","options":["bind"]}}"#
            );
            let Op::BindWith { source, target, .. } = of_bundle(&text, None) else {
                panic!("{text}")
            };
            (source, target)
        };
        let host = |path: &str| Source::Host(path.into());
        assert_eq!(of("data", "/x"), (host("/bundle/data"), "/x".into()));
        assert_eq!(of("/bundle/rootfs-2/a", "/x"), (host("/bundle/rootfs-2/a"), "/x".into()));
        let inside = Source::Inside("/mnt/a".into());
        assert_eq!(of("rootfs/mnt/a", "/bundle/rootfs/y"), (inside, "/y".into()));
        assert_eq!(of("/bundle/rootfs/../data", "/x").0, host("/bundle/rootfs/../data"));
        assert_eq!(of("/bundle/rootfs", "/x").0, host("/bundle/rootfs"), "without its mounts");
    }

    /// Else the mounts of the container in it would be missing.
    #[test]
    fn a_recursive_bind_of_the_root_itself_is_of_the_containers_root() {
        for source in ["/bundle/rootfs", "rootfs", "/bundle/./rootfs/"] {
            let text = format!(
                r#"{{"destination":"/x","type":"bind","source":"{source}","options":["rbind"]}}"#
            );
            let Op::BindWith { source: of, .. } = of_bundle(&text, None) else { panic!("{text}") };
            assert_eq!(of, Source::Inside("/".into()), "{source}");
        }
        let bundle = Bundle { dir: "/bundle".into(), rootfs: "/bundle/rootfs".into() };
        let surroundings = Surroundings { bundle: Some(&bundle), ..POD };
        let text = r#"{"destination":"/bundle/rootfs","type":"tmpfs"}"#;
        op(&mount(text), surroundings).unwrap_err();
    }

    #[test]
    fn maps_are_the_mounts_own_or_the_containers() {
        let maps = |options: &str, own: bool, user: Option<&IdMaps>| {
            let own = if own {
                r#""uidMappings":[{"containerID":0,"hostID":7,"size":1}],"gidMappings":[{"containerID":0,"hostID":7,"size":1}],"#
            } else {
                ""
            };
            let text = format!(
                r#"{{"destination":"/x","type":"bind","source":"/y",{own}"options":[{options}]}}"#
            );
            let Op::BindWith { id_maps, .. } = of_bundle(&text, user) else { panic!("{text}") };
            id_maps.map(|of| (of.maps.uids.first().map(|map| map.host_id), of.recursive))
        };
        let user = IdMaps {
            uids: vec![hull_init::plan::IdMap { container_id: 0, host_id: 9, length: 1 }],
            gids: Vec::new(),
        };
        assert_eq!(maps(r#""rbind""#, true, None), Some((Some(7), false)));
        assert_eq!(maps(r#""rbind","ridmap""#, true, Some(&user)), Some((Some(7), true)));
        assert_eq!(maps(r#""rbind","idmap""#, false, Some(&user)), Some((Some(9), false)));
        assert_eq!(maps(r#""rbind""#, false, Some(&user)), None);
        let text = r#"{"destination":"/x","type":"bind","source":"/y","options":["idmap"]}"#;
        op(&mount(text), POD).unwrap_err();
    }

    #[test]
    fn a_new_file_system_is_shared_only_if_asked() {
        let of = |options: &str| {
            of_bundle(
                &format!(r#"{{"destination":"/x","type":"tmpfs","options":[{options}]}}"#),
                None,
            )
        };
        assert!(
            matches!(of(r#""rprivate","sync""#), Op::Mount { options, .. } if options.len() == 1)
        );
        let shared = of(r#""shared","private""#);
        assert!(matches!(shared, Op::MountWith { propagation, .. } if propagation.len() == 1));
    }

    #[test]
    fn dots_of_a_destination_are_taken_away_as_go_does() {
        for (path, want) in [
            ("/usr/../opt/x", Ok("/opt/x")),
            ("/../opt/x", Ok("/opt/x")),
            ("/opt/./x", Ok("/opt/x")),
            ("//opt//x/", Ok("/opt/x")),
            ("/a/b/../../c/..x/...", Ok("/c/..x/...")),
            ("data", Ok("/data")),
            ("/", Err(())),
            ("/a/..", Err(())),
            ("/../..", Err(())),
            ("/a\0", Err(())),
        ] {
            assert_eq!(inside(path).map_err(drop), want.map(str::to_owned), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_destination_never_climbs(path in "[a-z./]{0,30}") {
            if let Ok(inside) = inside(&path) {
                prop_assert!(inside.starts_with('/'));
                prop_assert!(inside[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
