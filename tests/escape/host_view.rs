// SPDX-License-Identifier: Apache-2.0
//! A container's process as the host sees it in /proc.

use hull_tests::ExpectExt as _;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files of procfs that only reach the host: the container must not write them.
const SETTINGS: [&str; 4] =
    ["sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/vm/drop_caches", "sysrq-trigger"];
/// Files of procfs that tell of the host.
const SECRETS: [&str; 5] = ["keys", "kcore", "timer_list", "latency_stats", "sched_debug"];

/// The process, by its number on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostView(pub(crate) i32);

impl HostView {
    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    /// The link of a namespace.
    pub(crate) fn namespace(self, kind: &str) -> PathBuf {
        let path = self.path(&format!("ns/{kind}"));
        fs::read_link(&path).or_fail(format!("read {}", path.display()))
    }

    /// Whether it shares a namespace of this kind with the host.
    pub(crate) fn shares(self, kind: &str) -> bool {
        self.namespace(kind)
            == Self(std::process::id().try_into().or_fail("name this process")).namespace(kind)
    }

    /// A line of its status.
    pub(crate) fn status(self, name: &str) -> String {
        let text = fs::read_to_string(self.path("status")).or_fail("read a process's status");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.or_fail(format!("find {name} in a process's status")).trim().to_owned()
    }

    /// Lines of its mount table.
    pub(crate) fn mounts(self) -> Vec<String> {
        let text = fs::read_to_string(self.path("mountinfo")).or_fail("read a process's mounts");
        text.lines().map(str::to_owned).collect()
    }

    /// Fails unless its root, directory and program are in the container, and every descriptor beyond
    /// the standard streams is its own.
    #[track_caller]
    pub(crate) fn stands_inside(self) {
        let file =
            |path: &Path| fs::metadata(path).map(|is| (is.dev(), is.ino())).unwrap_or_default();
        let host = file(Path::new("/"));
        assert_ne!(file(&self.path("root/")), host, "the root of {} is the host's", self.0);
        let above = self.path("cwd/../../../../../../../../../../..");
        assert_ne!(file(&above), host, "the directory of {} leads to the host's root", self.0);
        for name in hull_tests::shell::names(&self.path("fd")) {
            let path = self.path(&format!("fd/{name}"));
            let target = fs::read_link(&path).unwrap_or_default();
            let climbed = path.join("../../../../../../../../../../..");
            assert_ne!(
                file(&climbed),
                host,
                "{name} of {} is of the host: {}",
                self.0,
                target.display()
            );
        }
    }

    /// Files of the host's procfs and sysfs that can be reached in the container through any of its mounts.
    pub(crate) fn holes(self) -> Vec<String> {
        let mut holes = Vec::new();
        for line in self.mounts() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let place = front.split(' ').nth(4).unwrap_or_default().trim_start_matches('/');
            let at = self.path("root").join(place);
            match back.split(' ').next() {
                Some("proc") => self.holes_of_proc(&at, &mut holes),
                Some("sysfs") if !is_read_only(front) => {
                    holes.push(format!("a sysfs can be written: {line}"));
                }
                Some("cgroup" | "cgroup2") if !is_read_only(front) => {
                    holes.push(format!("a cgroup tree can be written: {line}"));
                }
                _ => {}
            }
        }
        holes
    }

    fn holes_of_proc(self, at: &Path, holes: &mut Vec<String>) {
        // A mount below a procfs, of one of its own directories, has no files of these names.
        let can_write = |path: &Path| {
            let opened = fs::OpenOptions::new().write(true).open(path);
            opened
                .is_ok_and(|file| file.metadata().is_ok_and(|is| !is.file_type().is_char_device()))
        };
        for name in SETTINGS {
            let path = at.join(name);
            if can_write(&path) {
                holes.push(format!("can be written: {}", path.display()));
            }
        }
        for name in SECRETS {
            let path = at.join(name);
            let is_masked = fs::metadata(&path).is_ok_and(|is| is.file_type().is_char_device());
            if !is_masked && fs::File::open(&path).is_ok() {
                holes.push(format!("can be read: {}", path.display()));
            }
        }
    }
}

fn is_read_only(front: &str) -> bool {
    front.split(' ').nth(5).is_some_and(|options| options.split(',').any(|option| option == "ro"))
}
