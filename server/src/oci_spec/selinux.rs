// SPDX-License-Identifier: Apache-2.0
//! The SELinux label of a container's processes: `user:role:type:level`, from `seLinuxOptions` and the node's policy.

use super::Error;
use hull_proto::cri;
use hull_sys::files::read_opened;
use rustix::fs::{Mode, OFlags, open};
use std::path::Path;

/// The label of container processes in the reference policy, where the node's policy names none.
const FALLBACK: &str = "system_u:system_r:container_t:s0";
/// Longest file of the policy's configuration that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Longest part of a label, in bytes. A level with many categories is the longest in use.
const PART_BYTES_MAX: usize = 1024;

/// The label for containers by the node's policy: `process` in the policy's `lxc_contexts`. `root` is `/` but in tests.
/// `selinux_config(5)`.
pub(super) fn default_label(root: &Path) -> String {
    let policy = value(&root.join("etc/selinux/config"), "SELINUXTYPE");
    let policy = policy.filter(|name| !name.contains('/') && name != "..");
    let policy = policy.unwrap_or_else(|| "targeted".into());
    let contexts = root.join("etc/selinux").join(policy).join("contexts/lxc_contexts");
    let found = value(&contexts, "process").filter(|label| is_label(label));
    found.unwrap_or_else(|| FALLBACK.into())
}

/// The value of `key` in a file of lines `key = "value"`.
fn value(path: &Path, key: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let bytes = read_opened(open(path, flags, Mode::empty()).ok()?, FILE_BYTES_MAX).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut values = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    });
    values.next_back().filter(|value| !value.is_empty())
}

fn is_label(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(4, ':').collect();
    parts.len() == 4 && parts[..3].iter().all(|part| is_name(part)) && is_level(parts[3])
}

fn is_name(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !part.is_empty() && part.len() <= PART_BYTES_MAX && part.chars().all(known)
}

fn is_level(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | ',' | '.' | '-' | '_');
    !part.is_empty() && part.len() <= PART_BYTES_MAX && part.chars().all(known)
}

/// The label that the container's options request, or else the pod's. Parts that they leave out are those of
/// `default`. `None` without options, and on a node without SELinux (`default` is `None`), where they have no effect.
pub(super) fn label(
    container: Option<&cri::SeLinuxOption>,
    pod: Option<&cri::SeLinuxOption>,
    default: Option<&str>,
) -> Result<Option<String>, Error> {
    let given = [container, pod].into_iter().flatten();
    let mut requested = given.map(|of| [&of.user, &of.role, &of.r#type, &of.level]);
    let requested = requested.find(|parts| parts.iter().any(|part| !part.is_empty()));
    let (Some(requested), Some(default)) = (requested, default) else { return Ok(None) };
    let fields = ["user", "role", "type", "level"].into_iter();
    let parts = fields.zip(requested).zip(default.splitn(4, ':'));
    let parts = parts.map(|((field, requested), default)| {
        if requested.is_empty() {
            return Ok(default);
        }
        let valid = if field == "level" { is_level(requested) } else { is_name(requested) };
        valid.then_some(requested.as_str()).ok_or_else(|| Error::SeLinux {
            field,
            value: requested.chars().take(PART_BYTES_MAX).collect(),
        })
    });
    Ok(Some(parts.collect::<Result<Vec<_>, _>>()?.join(":")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn options(user: &str, role: &str, kind: &str, level: &str) -> cri::SeLinuxOption {
        cri::SeLinuxOption {
            user: user.into(),
            role: role.into(),
            r#type: kind.into(),
            level: level.into(),
        }
    }

    #[test]
    fn parts_that_are_left_out_come_from_the_policy() {
        let default = Some("system_u:system_r:container_t:s0");
        let of = |options: &cri::SeLinuxOption| label(Some(options), None, default).unwrap();
        let full = |text: &str| Some(text.to_owned());
        assert_eq!(of(&options("", "", "", "")), None);
        assert_eq!(of(&options("", "", "spc_t", "")), full("system_u:system_r:spc_t:s0"));
        let level = of(&options("", "", "", "s0:c123,c456"));
        assert_eq!(level, full("system_u:system_r:container_t:s0:c123,c456"));
        assert_eq!(of(&options("u", "r", "t", "s0-s1:c0.c9")), full("u:r:t:s0-s1:c0.c9"));
        // A default with categories of its own keeps them.
        let own = label(Some(&options("", "", "spc_t", "")), None, Some("a:b:c:s0:c1,c2")).unwrap();
        assert_eq!(own, full("a:b:spc_t:s0:c1,c2"));
    }

    #[test]
    fn the_pod_has_them_where_the_container_has_none() {
        let default = Some(FALLBACK);
        let (none, pod) = (options("", "", "", ""), options("", "", "of_pod_t", ""));
        for container in [None, Some(&none)] {
            let found = label(container, Some(&pod), default).unwrap();
            assert_eq!(found.as_deref(), Some("system_u:system_r:of_pod_t:s0"));
        }
        let own = options("", "", "own_t", "");
        let found = label(Some(&own), Some(&pod), default).unwrap();
        assert_eq!(found.as_deref(), Some("system_u:system_r:own_t:s0"));
    }

    #[test]
    fn without_selinux_nothing_is_labelled_whatever_the_options_are() {
        for odd in [options("", "", "spc_t", ""), options("a:b", "\n", " ", "")] {
            assert_eq!(label(Some(&odd), Some(&odd), None).unwrap(), None);
        }
    }

    #[test]
    fn a_part_that_no_label_can_have_is_refused_by_its_field() {
        let long = "x".repeat(PART_BYTES_MAX + 1);
        for (field, odd) in [
            ("user", options("a:b", "", "", "")),
            ("role", options("", "r\n", "", "")),
            ("type", options("", "", &long, "")),
            ("level", options("", "", "", "s0 c1")),
        ] {
            let refused = label(Some(&odd), None, Some(FALLBACK)).unwrap_err();
            assert!(refused.to_string().contains(field), "{refused}");
        }
    }

    #[test]
    fn the_policys_own_default_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(default_label(dir.path()), FALLBACK);
        let contexts = dir.path().join("etc/selinux/mls/contexts");
        fs::create_dir_all(&contexts).unwrap();
        fs::write(
            dir.path().join("etc/selinux/config"),
            "# c\nSELINUX=enforcing\nSELINUXTYPE=mls\n",
        )
        .unwrap();
        let write = |text: &str| fs::write(contexts.join("lxc_contexts"), text).unwrap();
        write("process = \"system_u:system_r:own_t:s0\"\nfile = \"x:y:z:s0\"\n");
        assert_eq!(default_label(dir.path()), "system_u:system_r:own_t:s0");
        write("process = \"half:a_label\"\n");
        assert_eq!(default_label(dir.path()), FALLBACK);
    }
}
