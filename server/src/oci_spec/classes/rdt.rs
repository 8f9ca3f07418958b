// SPDX-License-Identifier: Apache-2.0
//! RDT classes: groups of resctrl, which an administrator or an agent of the node makes.
//! `Documentation/filesystems/resctrl.rst`.
//!
//! The rule: a class is a directory right below the root of resctrl. It is opened beneath that root, without links, and
//! processes enter it by the descriptor of its file `tasks`.

use super::error::Error;
use hull_sys::text::shown;
use rustix::fs::{CWD, Dir, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Where resctrl is mounted.
const ROOT: &str = "/sys/fs/resctrl";
/// The type of the file system, `RDTGROUP_SUPER_MAGIC` of `linux/magic.h`.
const RESCTRL: u64 = 0x0765_5821;
/// The class of processes that are in none: the root of resctrl.
const DEFAULT_CLASS: &str = "system/default";
/// Directories of the root that are not groups.
const OTHERS: [&str; 3] = ["info", "mon_data", "mon_groups"];
/// Most names of classes in a message.
const SHOWN_MAX: usize = 16;
/// Longest name in a message, in bytes.
const NAME_BYTES: usize = 64;

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The file `tasks` of a class, open for writing.
///
/// # Errors
/// The kernel has no resctrl, it is not mounted, or there is no such class.
pub(super) fn tasks(class: &str) -> Result<OwnedFd, Error> {
    tasks_below(root(class)?, class)
}

fn root(class: &str) -> Result<OwnedFd, Error> {
    let unusable = |why, hint| Error::NoResctrl { class: shown(class, NAME_BYTES), why, hint };
    let none = || {
        unusable(
            "the kernel of this node has no resctrl",
            "remove the annotation, or use a node whose processor has Intel RDT or AMD QoS (flags cat_l3, mba of \
             /proc/cpuinfo) and whose kernel has CONFIG_X86_CPU_RESCTRL",
        )
    };
    let root = openat(CWD, ROOT, DIRECTORY, Mode::empty()).map_err(|_| none())?;
    let kind = fstatfs(&root).map_err(|_| none())?.f_type;
    if u64::try_from(kind) != Ok(RESCTRL) {
        return Err(unusable(
            "resctrl is not mounted on this node",
            "mount -t resctrl resctrl /sys/fs/resctrl",
        ));
    }
    Ok(root)
}

fn tasks_below(root: OwnedFd, class: &str) -> Result<OwnedFd, Error> {
    let unknown = |root: &OwnedFd| Error::UnknownRdt {
        class: shown(class, NAME_BYTES),
        known: known(root.as_fd()),
    };
    let group = if class == DEFAULT_CLASS {
        root
    } else if is_name(class) {
        match openat(&root, class, DIRECTORY, Mode::empty()) {
            Ok(group) => group,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(unknown(&root)),
            Err(errno) => return Err(failed(class, errno)),
        }
    } else {
        return Err(unknown(&root));
    };
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&group, "tasks", flags, Mode::empty()).map_err(|errno| failed(class, errno))
}

fn failed(class: &str, errno: Errno) -> Error {
    Error::Group { class: shown(class, NAME_BYTES), source: errno.into() }
}

/// Whether a class can have this name.
fn is_name(class: &str) -> bool {
    !class.is_empty()
        && !class.starts_with('.')
        && !class.contains(['/', '\0'])
        && !OTHERS.contains(&class)
}

/// The names of the classes, for people.
fn known(root: impl AsFd) -> String {
    let mut names = names(root);
    let others = names.len().saturating_sub(SHOWN_MAX);
    names.truncate(SHOWN_MAX);
    names.push(DEFAULT_CLASS.to_owned());
    let names: Vec<_> = names.iter().map(|name| format!("`{}`", shown(name, NAME_BYTES))).collect();
    match others {
        0 => names.join(", "),
        others => format!("{} and {others} more", names.join(", ")),
    }
}

fn names(root: impl AsFd) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(opened) = openat(&root, ".", flags, Mode::empty()) else { return Vec::new() };
    let Ok(entries) = Dir::new(opened) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_group = |name: &String| {
        is_name(name) && openat(&root, name.as_str(), DIRECTORY, Mode::empty()).is_ok()
    };
    let mut names: Vec<_> = names.filter(is_group).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_class_is_a_group_right_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        for group in ["", "gold", "silver", "info"] {
            fs::create_dir_all(dir.path().join(group)).unwrap();
            fs::write(dir.path().join(group).join("tasks"), "").unwrap();
        }
        fs::write(outside.path().join("tasks"), "").unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        let tasks_of = |class: &str| {
            let root = openat(CWD, dir.path(), DIRECTORY, Mode::empty()).unwrap();
            tasks_below(root, class)
        };
        for (class, file) in [("gold", "gold/tasks"), ("system/default", "tasks")] {
            fs::File::from(tasks_of(class).unwrap()).write_all(b"0").unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), "0", "{class}");
        }
        for odd in ["bronze", "link", "info", "..", ".", "", "gold/.", "tasks", "a\0b"] {
            let refused = tasks_of(odd).unwrap_err();
            let text = refused.to_string();
            assert!(text.contains("only `gold`, `silver`, `system/default`"), "{odd}: {text}");
            assert!(refused.hint().unwrap().contains("rdt.resources.beta.kubernetes.io/pod"));
        }
    }
}
