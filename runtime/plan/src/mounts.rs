// SPDX-License-Identifier: Apache-2.0
//! OCI mounts to operations. Options as in `mount(8)` and the OCI runtime spec; one that is neither
//! known here nor a file system's own is refused by name.

use crate::Error;
use crate::id_maps::ranges;
use hull_init::plan::{Attrs, IdMaps, Op, Propagation, Source};
use oci_spec::runtime::Mount;

/// The parsed options of a mount.
#[derive(Debug, Default)]
struct Parsed {
    attrs: Attrs,
    recursive_attrs: Attrs,
    clear: Attrs,
    propagation: Option<Propagation>,
    bind: Option<bool>,
    copy_up: bool,
    data: Vec<(String, Option<String>)>,
}

/// The operation for one mount. `sources` are source texts that do not name a path of the host, and their
/// replacements; relative sources refer to `bundle`, if there is one.
pub(crate) fn op(
    mount: &Mount,
    sources: &[(String, Source)],
    bundle: Option<&str>,
) -> Result<Op, Error> {
    let target = inside(&mount.destination().to_string_lossy())?;
    let fstype = mount.typ().clone().unwrap_or_default();
    let source = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned());
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let id_maps = id_maps(mount)?;
    if fstype == "bind"
        || parsed.bind.is_some()
        || sources.iter().any(|(text, _)| Some(text) == source.as_ref())
    {
        let source = source.ok_or(Error::Missing { field: "mounts.source" })?;
        let known = sources.iter().find(|(text, _)| *text == source);
        let source = match known {
            Some((_, known)) => known.clone(),
            None if source.starts_with('/') => Source::Host(source),
            None if let Some(bundle) = bundle => Source::Host(format!("{bundle}/{source}")),
            None => {
                return Err(Error::Bad {
                    field: "mounts.source",
                    value: source,
                    why: "it is not an absolute path",
                });
            }
        };
        if let Some((key, _)) = parsed.data.first() {
            return Err(Error::Bad {
                field: "mounts.options",
                value: key.clone(),
                why: "a bind mount has no such option",
            });
        }
        return Ok(Op::Bind {
            source,
            target,
            recursive: parsed.bind.unwrap_or(true),
            attrs: parsed.attrs,
            recursive_attrs: parsed.recursive_attrs,
            clear: parsed.clear,
            propagation: parsed.propagation,
            id_maps,
        });
    }
    if id_maps.is_some() {
        return Err(Error::Unsupported {
            what: "mapped ids of a mount that is not a bind mount",
            value: target,
        });
    }
    match fstype.as_str() {
        "" => Err(Error::Missing { field: "mounts.type" }),
        "cgroup" | "cgroup2" => Ok(Op::Cgroups { target, attrs: parsed.attrs }),
        _ => Ok(Op::Mount {
            source: source.unwrap_or_else(|| fstype.clone()),
            fstype,
            target,
            attrs: parsed.attrs,
            options: parsed.data,
            copy_up: parsed.copy_up,
        }),
    }
}

fn id_maps(mount: &Mount) -> Result<Option<IdMaps>, Error> {
    let (uids, gids) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    match (uids.unwrap_or_default(), gids.unwrap_or_default()) {
        ([], []) => Ok(None),
        ([], _) => Err(Error::Missing { field: "mounts.uidMappings" }),
        (_, []) => Err(Error::Missing { field: "mounts.gidMappings" }),
        (uids, gids) => Ok(Some(IdMaps { uids: ranges(Some(uids)), gids: ranges(Some(gids)) })),
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

fn parse(options: &[String]) -> Result<Parsed, Error> {
    let mut parsed = Parsed::default();
    for option in options {
        if !flag(option, &mut parsed)? {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option.as_str(), None),
            };
            parsed.data.push((key.to_owned(), value));
        }
    }
    Ok(parsed)
}

/// Applies an option that is not the file system's own; false if it is not known.
fn flag(option: &str, parsed: &mut Parsed) -> Result<bool, Error> {
    let Parsed { attrs, recursive_attrs, clear, propagation, bind, copy_up, .. } = parsed;
    match option {
        "ro" => attrs.rdonly = true,
        "rw" => clear.rdonly = true,
        "nosuid" => attrs.nosuid = true,
        "suid" => clear.nosuid = true,
        "nodev" => attrs.nodev = true,
        "dev" => clear.nodev = true,
        "noexec" => attrs.noexec = true,
        "exec" => clear.noexec = true,
        "noatime" => attrs.noatime = true,
        "relatime" | "atime" => attrs.relatime = true,
        "strictatime" => attrs.strictatime = true,
        "nodiratime" => attrs.nodiratime = true,
        "diratime" => clear.nodiratime = true,
        "nosymfollow" => attrs.nosymfollow = true,
        "symfollow" => clear.nosymfollow = true,
        "rro" => recursive_attrs.rdonly = true,
        "rnosuid" => recursive_attrs.nosuid = true,
        "rnodev" => recursive_attrs.nodev = true,
        "rnoexec" => recursive_attrs.noexec = true,
        "rnoatime" => recursive_attrs.noatime = true,
        "bind" => *bind = Some(false),
        "rbind" => *bind = Some(true),
        "private" | "rprivate" => *propagation = Some(Propagation::Private),
        "slave" | "rslave" => *propagation = Some(Propagation::Slave),
        "shared" | "rshared" => *propagation = Some(Propagation::Shared),
        "unbindable" | "runbindable" => *propagation = Some(Propagation::Unbindable),
        "tmpcopyup" => *copy_up = true,
        "defaults" | "async" => {}
        "idmap" | "ridmap" | "sync" | "dirsync" | "mand" | "remount" => {
            return Err(Error::Unsupported { what: "this mount option", value: option.into() });
        }
        _ => return Ok(false),
    }
    Ok(true)
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
    use proptest::prelude::*;

    fn mount(text: &str) -> Mount {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn options_become_attributes_and_what_is_left_is_the_file_systems() {
        let text = r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]}"#;
        let Op::Mount { attrs, options, .. } = op(&mount(text), &[], None).unwrap() else {
            panic!("no mount")
        };
        assert!(attrs.nosuid && attrs.strictatime && !attrs.rdonly);
        assert_eq!(options[1], ("size".into(), Some("65536k".into())));
    }

    #[test]
    fn a_slot_is_known_by_its_source() {
        let text = r#"{"destination":"/dev/shm","type":"bind","source":"hull:shm","options":["rbind","ro"]}"#;
        let op = op(&mount(text), &[("hull:shm".into(), Source::Slot(3))], None).unwrap();
        assert!(matches!(
            op,
            Op::Bind { source: Source::Slot(3), attrs: Attrs { rdonly: true, .. }, .. }
        ));
    }

    #[test]
    fn what_a_bind_cannot_have_is_refused() {
        let text =
            r#"{"destination":"/x","type":"bind","source":"/y","options":["bind","size=5"]}"#;
        assert!(op(&mount(text), &[], None).unwrap_err().to_string().contains("size"));
        let text = r#"{"destination":"/x","type":"bind","source":"y"}"#;
        op(&mount(text), &[], None).unwrap_err();
    }

    #[test]
    fn a_relative_source_begins_at_the_bundle() {
        let text = r#"{"destination":"/x","type":"bind","source":"data","options":["bind"]}"#;
        let op = op(&mount(text), &[], Some("/bundle")).unwrap();
        assert!(
            matches!(op, Op::Bind { source: Source::Host(path), .. } if path == "/bundle/data")
        );
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
