// SPDX-License-Identifier: Apache-2.0
//! The mount table (`/proc/<pid>/mountinfo`), and which mount a path is on. Pure: what is masked or
//! writable is derived from the table, without opening anything of the container.

use std::collections::HashMap;

/// One mount. Paths are those of the kernel, with its octal escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    pub(crate) parent: u64,
    /// `major:minor` of its filesystem.
    pub(crate) device: String,
    /// The directory or file of the filesystem that is mounted.
    pub(crate) root: String,
    /// The mount point, from the root of the mount namespace.
    pub(crate) point: String,
    pub(crate) fstype: String,
    /// Whether the mount or its filesystem is read-only.
    pub(crate) read_only: bool,
    pub(crate) idmapped: bool,
    /// Whether it is in a peer group: mounts below it propagate elsewhere.
    pub(crate) shared: bool,
    /// Of cgroup2: whether a cgroup namespace keeps the limits of its root from its processes.
    pub(crate) ns_delegate: bool,
}

/// The mounts of a mount namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MountTable {
    mounts: Vec<Mount>,
    children: HashMap<(u64, String), usize>,
    root: Option<usize>,
}

impl MountTable {
    /// Parses a mountinfo file; invalid lines are skipped. `proc_pid_mountinfo(5)`.
    pub(crate) fn parse(text: &str) -> Self {
        let mounts: Vec<Mount> = text.lines().filter_map(mount).collect();
        // Of several mounts with the same parent and mount point, the last line was mounted last.
        let at = mounts.iter().enumerate();
        let children = at.map(|(index, of)| ((of.parent, of.point.clone()), index)).collect();
        // The lowest mount at the root: its parent is not in the table, or is itself.
        let is_lowest = |of: &Mount| {
            of.point == "/"
                && !mounts.iter().any(|other| other.id == of.parent && other.id != of.id)
        };
        let root = mounts.iter().position(is_lowest);
        Self { mounts, children, root }
    }

    /// The mount with this id.
    pub(crate) fn by_id(&self, id: u64) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// The mount that a path is on; the path must not contain symlinks.
    pub(crate) fn at(&self, path: &str) -> Option<&Mount> {
        let mut current = self.topmost(self.root?, "/");
        let mut prefix = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            prefix.push('/');
            prefix.push_str(part);
            current = self.topmost(current, &prefix);
        }
        self.mounts.get(current)
    }

    /// The topmost of the mounts that are stacked on a mount at a mount point.
    fn topmost(&self, mut current: usize, place: &str) -> usize {
        // Each step goes to another mount; a table with a cycle is not from the kernel.
        for _ in 0..self.mounts.len() {
            let Some(below) = self.mounts.get(current) else { break };
            match self.children.get(&(below.id, place.to_owned())) {
                Some(&next) if next != current => current = next,
                _ => break,
            }
        }
        current
    }

    /// The mounts that are not covered by another.
    pub(crate) fn visible(&self) -> impl Iterator<Item = &Mount> {
        let is_there = |mount: &&Mount| self.at(&mount.point).is_some_and(|of| of.id == mount.id);
        self.mounts.iter().filter(is_there)
    }
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut words = mount.split(' ');
    let (id, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (device, root, point) = (words.next()?, words.next()?, words.next()?);
    let options = words.next()?;
    let shared = words.any(|tag| tag.starts_with("shared:"));
    let mut words = filesystem.split(' ');
    let (fstype, _source, of_filesystem) = (words.next()?, words.next()?, words.next()?);
    let has = |options: &str, word: &str| options.split(',').any(|option| option == word);
    Some(Mount {
        id,
        parent,
        device: device.to_owned(),
        root: unescaped(root),
        point: unescaped(point),
        fstype: fstype.to_owned(),
        read_only: has(options, "ro") || has(of_filesystem, "ro"),
        idmapped: has(options, "idmapped"),
        shared,
        ns_delegate: has(of_filesystem, "nsdelegate"),
    })
}

/// Decodes octal escapes such as `\040`.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether `path` is `of` or below it.
pub(crate) fn is_within(path: &str, of: &str) -> bool {
    of == "/" || path == of || path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'))
}

/// The path at which `path` is visible if `from` is mounted at `to`; `None` if it is not within `from`.
pub(crate) fn moved(path: &str, from: &str, to: &str) -> Option<String> {
    if !is_within(path, from) {
        return None;
    }
    let rest = if from == "/" { path } else { path.strip_prefix(from)? };
    let rest = rest.trim_matches('/');
    Some(match (to, rest) {
        ("/", rest) => format!("/{rest}"),
        (to, "") => to.to_owned(),
        (to, rest) => format!("{to}/{rest}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
10 9 0:50 / / ro,relatime - overlay overlay rw,lowerdir=/x
11 10 0:51 / /proc rw,nosuid - proc proc rw
12 11 0:51 /sys /proc/sys ro,nosuid - proc proc rw
13 11 0:52 /null /proc/kcore rw - tmpfs tmpfs rw
14 10 0:53 / /sys ro shared:3 - sysfs sysfs rw
15 10 254:0 /srv/a\\040b /data rw,idmapped master:1 - ext4 /dev/vda rw
16 15 0:54 / /data/in ro - tmpfs tmpfs ro
17 10 0:55 / /data rw - tmpfs tmpfs rw
nonsense
";

    #[test]
    fn a_path_is_on_the_topmost_mount() {
        let table = MountTable::parse(TABLE);
        let id = |path: &str| table.at(path).map(|mount| mount.id);
        assert_eq!(id("/"), Some(10));
        assert_eq!(id("/etc/passwd"), Some(10));
        assert_eq!(id("/proc/self"), Some(11));
        assert_eq!(id("/proc/sys/kernel/core_pattern"), Some(12));
        assert_eq!(id("/proc/kcore"), Some(13));
        assert_eq!(id("/procession"), Some(10));
        // Two at one place and with one parent: the later covers the earlier and what is in it.
        assert_eq!(id("/data/in/x"), Some(17));
        let visible: Vec<u64> = table.visible().map(|mount| mount.id).collect();
        assert_eq!(visible, [10, 11, 12, 13, 14, 17]);
    }

    #[test]
    fn options_and_escapes_are_read() {
        let table = MountTable::parse(TABLE);
        let of = |id| table.by_id(id).unwrap();
        assert_eq!(of(15).root, "/srv/a b");
        assert!(of(15).idmapped && !of(15).shared && !of(15).read_only);
        assert!(of(14).shared && of(14).read_only && of(16).read_only);
        assert_eq!(unescaped("a\\134\\012b\\9\\"), "a\\\nb\\9\\");
    }

    #[test]
    fn a_table_in_a_circle_or_of_nothing_ends() {
        assert_eq!(MountTable::parse("").at("/x"), None);
        let circle = "1 2 0:1 / / rw - a b rw\n2 1 0:1 / / rw - a b rw\n3 3 0:1 / / rw - a b rw\n";
        let table = MountTable::parse(circle);
        let _either = table.at("/x");
        let _counted = table.visible().count();
    }

    #[test]
    fn a_root_on_top_of_another_is_the_root() {
        let table =
            MountTable::parse("1 0 0:1 / / rw - rootfs r rw\n2 1 0:2 / / rw - overlay o rw\n");
        assert_eq!(table.at("/x").unwrap().id, 2);
    }

    #[test]
    fn paths_move_with_their_mount() {
        assert_eq!(moved("/srv/a/b", "/srv/a", "/mnt").unwrap(), "/mnt/b");
        assert_eq!(moved("/srv/a", "/srv/a", "/mnt").unwrap(), "/mnt");
        assert_eq!(moved("/srv/ab", "/srv/a", "/mnt"), None);
        assert_eq!(moved("/srv", "/", "/").unwrap(), "/srv");
        assert_eq!(moved("/", "/", "/mnt").unwrap(), "/mnt");
        assert_eq!(moved("/", "/", "/").unwrap(), "/");
    }
}
