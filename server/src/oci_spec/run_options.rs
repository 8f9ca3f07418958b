// SPDX-License-Identifier: Apache-2.0
//! Requests of `hull run` for which CRI has no field: annotations of the container's config, which only
//! clients of the daemon set. Those of a pod's author do not reach it.

use super::Error;
use crate::limits::ulimits::Ulimit;
use hull_plan::accounts::Account;
use hull_plan::clean;
use hull_proto::cri;
use serde_json::{Value, json};

/// Limits of getrlimit(2), `NAME=SOFT:HARD`, separated by spaces.
pub(crate) const ULIMITS: &str = "hull.run/ulimits";
/// Mounts of new tmpfs, `DESTINATION[:OPTION,…]`, a line each.
pub(crate) const TMPFS: &str = "hull.run/tmpfs";
/// Name of the primary group, in the group file of the image.
pub(crate) const GROUP: &str = "hull.run/group";
/// Names of supplemental groups, in the group file of the image, separated by commas.
pub(crate) const GROUPS: &str = "hull.run/groups";

/// Whether an init is the first process, `true` or `false`. A pod's author may set it too, for all containers of the pod.
pub(crate) const INIT: &str = "hull.run/init";

/// Most tmpfs of a container.
const TMPFS_MAX: usize = 64;
/// Options of a tmpfs without a value.
const FLAGS: [&str; 11] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "relatime",
    "noatime",
    "strictatime",
];
/// Options of a tmpfs with a value, `tmpfs(5)`.
const VALUES: [&str; 4] = ["size", "mode", "nr_inodes", "nr_blocks"];

fn annotation<'c>(config: &'c cri::ContainerConfig, key: &str) -> &'c str {
    config.annotations.get(key).map_or("", String::as_str)
}

/// The limits, each valid.
pub(super) fn ulimits(config: &cri::ContainerConfig) -> Result<Vec<String>, Error> {
    let all = annotation(config, ULIMITS).split_whitespace();
    all.map(|text| match Ulimit::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(Error::Ulimit { value: text.chars().take(80).collect(), why }),
    })
    .collect()
}

/// The mounts of tmpfs.
pub(super) fn tmpfs(config: &cri::ContainerConfig) -> Result<Vec<Value>, Error> {
    let lines: Vec<&str> = annotation(config, TMPFS).lines().collect();
    if lines.len() > TMPFS_MAX {
        return bad("tmpfs", &lines.len().to_string(), "a container may have 64");
    }
    lines.into_iter().map(one_tmpfs).collect()
}

fn one_tmpfs(text: &str) -> Result<Value, Error> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let at = clean(destination);
    if !destination.starts_with('/')
        || at == "/"
        || ["/proc", "/sys", "/dev"].contains(&at.as_str())
    {
        return bad("tmpfs", text, "its destination is not a path below the root for volumes");
    }
    let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let is_known = match option.split_once('=') {
            Some((key, value)) => VALUES.contains(&key) && is_value(value),
            None => FLAGS.contains(&option),
        };
        if !is_known {
            return bad("tmpfs", text, "an option is not one of a tmpfs");
        }
        // `exec` replaces the `noexec` of the defaults.
        all.retain(|has| has.trim_start_matches("no") != option.trim_start_matches("no"));
        all.push(option.to_owned());
    }
    Ok(json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": all}))
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%')
}

/// The primary group.
pub(crate) fn group(config: &cri::ContainerConfig) -> Result<Option<Account>, Error> {
    match annotation(config, GROUP) {
        "" => Ok(None),
        name => match Account::parse(name) {
            Ok(group) => Ok(Some(group)),
            Err(_) => bad("the group", name, "it is neither a name nor a number"),
        },
    }
}

/// The supplemental groups.
pub(crate) fn groups(config: &cri::ContainerConfig) -> Result<Vec<Account>, Error> {
    let names = annotation(config, GROUPS).split(',').filter(|name| !name.is_empty());
    names
        .map(|name| match Account::parse(name) {
            Ok(group) => Ok(group),
            Err(_) => bad("a supplemental group", name, "it is neither a name nor a number"),
        })
        .collect()
}

/// Whether an init is to be the first process of a container.
pub(crate) fn init(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
) -> Result<bool, Error> {
    match config.annotations.get(INIT).or(pod.annotations.get(INIT)).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => bad("annotation `hull.run/init`", other, "it is neither true nor false"),
    }
}

fn bad<T>(field: &'static str, value: &str, why: &'static str) -> Result<T, Error> {
    Err(Error::Bad { field, value: value.chars().take(80).collect(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(key: &str, value: &str) -> cri::ContainerConfig {
        cri::ContainerConfig {
            annotations: [(key.to_owned(), value.to_owned())].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_tmpfs_has_safe_options_unless_others_are_requested() {
        let mounts = tmpfs(&config(TMPFS, "/run\n/tmp/:size=64m,mode=1777,exec")).unwrap();
        assert_eq!(mounts[0]["options"], json!(["nosuid", "nodev", "noexec"]));
        assert_eq!(mounts[1]["destination"], "/tmp");
        assert_eq!(
            mounts[1]["options"],
            json!(["nosuid", "nodev", "size=64m", "mode=1777", "exec"])
        );
        for text in ["run", "/", "/dev", "/../proc", "/a:lowerdir=/x", "/a:size=1,/b", "/a:size="] {
            assert!(tmpfs(&config(TMPFS, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn an_init_is_requested_by_the_container_or_its_pod() {
        let pod = |value: &str| cri::PodSandboxConfig {
            annotations: [(INIT.to_owned(), value.to_owned())].into(),
            ..Default::default()
        };
        let plain = cri::ContainerConfig::default();
        assert!(!init(&plain, &cri::PodSandboxConfig::default()).unwrap());
        assert!(init(&plain, &pod("true")).unwrap());
        assert!(!init(&config(INIT, "false"), &pod("true")).unwrap());
        assert!(init(&config(INIT, "true"), &pod("false")).unwrap());
        let refused = init(&plain, &pod("yes")).unwrap_err();
        assert!(refused.to_string().contains("neither true nor false"), "{refused}");
        assert!(refused.hint().is_some());
    }

    #[test]
    fn limits_and_groups_are_checked() {
        let of = config(ULIMITS, "nofile=1:2 core=0:0");
        assert_eq!(ulimits(&of).unwrap(), ["nofile=1:2", "core=0:0"]);
        assert!(ulimits(&config(ULIMITS, "files=1")).is_err());
        let refused = ulimits(&config(ULIMITS, "nofile=100:50")).unwrap_err();
        let wanted =
            "take `nofile=100:50` as ulimits: the soft limit, 100, is above the hard one, 50";
        assert_eq!(refused.to_string(), wanted);
        assert!(refused.hint().is_some());
        assert_eq!(group(&config(GROUP, "www")).unwrap(), Some(Account::Name("www".into())));
        assert_eq!(group(&cri::ContainerConfig::default()).unwrap(), None);
        let both = groups(&config(GROUPS, "www,7")).unwrap();
        assert_eq!(both, [Account::Name("www".into()), Account::Id(7)]);
        assert!(groups(&config(GROUPS, "a b")).is_err());
    }
}
