// SPDX-License-Identifier: Apache-2.0
//! Checkpoints: the processes of a running container by CRIU, and its files, in one archive. The container runs on.
//!
//! ```text
//! location opened ─▶ directory ─▶ CRIU stops the processes ─▶ changed files copied ─▶ they run on ─▶ archive ─▶ its name
//! ```
//!
//! The rule: if CRIU or the daemon is killed meanwhile, the container runs on, and there is no half archive; see [`criu`]
//! and [`archive`]. Commands of ExecSync and Exec in the container are not in it: they are not children of its first
//! process.

mod archive;
mod criu;
pub(crate) mod directory;
mod documents;
mod error;
mod mounts;

pub(crate) use criu::Program;
pub(crate) use error::Error;

use super::exec::running_thawed;
use super::start;
use super::{ContainerRecord, ContainerSnapshot, State};
use crate::error::Error as VerbError;
use crate::node::{Node, now_ns};
use crate::pod::{Pod, PodSnapshot};
use crate::storage::blocking;
use archive::{Bounded, Target};
use criu::Dump;
use directory::Directory;
use hull_image::Image;
use hull_plan::{IdMap, IdMaps};
use hull_proto::id::ContainerId;
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{stat, statvfs};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::info;

/// Longest mountinfo that is read, in bytes.
const MOUNTINFO_BYTES_MAX: u64 = 16 << 20;
/// The names that runc gives to namespaces that are joined again at a restore.
const NETWORK: &str = "extRootNetNS";
const PIDS: &str = "extRootPidNS";
/// The owner that the kernel shows for one that a user namespace does not have.
const NOBODY: u32 = 65_534;

/// Writes a checkpoint of a running container to `location`, within `limit`.
pub(crate) async fn write(
    node: &Arc<Node>,
    pod: &Pod,
    id: &ContainerId,
    location: PathBuf,
    limit: Duration,
) -> Result<(), Arc<VerbError>> {
    let view = pod.view();
    let shown = running_thawed(node, &view, id, "checkpoint")?;
    let node = Arc::clone(node);
    blocking(move || written(&node, &view, &shown, &location, limit)).await.map_err(Arc::new)
}

fn written(
    node: &Node,
    pod: &PodSnapshot,
    shown: &ContainerSnapshot,
    location: &Path,
    limit: Duration,
) -> Result<(), VerbError> {
    let record = &shown.record;
    let image = node.images.find(&record.image_id);
    let image = image.ok_or_else(|| VerbError::NoImage { image: record.image_id.clone() })?;
    let spec = start::spec(node, &pod.id, &pod.record, record, &image, None)?;
    let id = record.id.clone();
    let source = Source { node, pod, record, image: &image, spec: &spec };
    let version = source
        .checkpoint(location, limit)
        .map_err(|source| VerbError::Checkpoint { container: id, source })?;
    info!(criu = version, location = %location.display(), "checkpoint written");
    Ok(())
}

/// A container that is checkpointed.
struct Source<'a> {
    node: &'a Node,
    pod: &'a PodSnapshot,
    record: &'a ContainerRecord,
    image: &'a Image,
    spec: &'a Spec,
}

impl Source<'_> {
    /// Returns the version of CRIU.
    fn checkpoint(&self, location: &Path, limit: Duration) -> Result<String, Error> {
        let until = Instant::now() + limit;
        let config = self.node.config.current();
        let program = Program::find(config.runtime.criu.as_deref())?;
        let target = Target::open(location)?;
        let directory = Directory::make(&self.node.checkpoints_dir(), &self.record.id)?;
        let process = Process::open(self.record)?;
        let dump = Dump {
            pid: process.pid,
            external: self.external(process.pid)?,
            images: std::os::fd::AsFd::as_fd(&directory.images),
            work: std::os::fd::AsFd::as_fd(&directory.work),
            path: &directory.path,
            lock: &directory.lock,
        };
        let descriptors = descriptors(process.pid);
        let (mut removed, mut at_ns) = (Vec::new(), 0);
        let version = criu::dump(&program, &dump, (until, limit), || {
            // What CRIU has stopped is the process that was looked at: its number was not given to another one.
            process.check()?;
            at_ns = now_ns();
            removed = self.copy_changes(&directory, (until, limit))?;
            Ok(())
        })?;
        let documents = documents::all(&self.pod.record, self.record, self.spec, &removed, at_ns);
        let mut out = Bounded::new(target.file(), u64::MAX, until);
        let packed =
            archive::write(&mut out, &documents, &descriptors, &directory.work, &directory.images);
        if let Some(late) = out.exceeded(0, limit) {
            return Err(late);
        }
        packed.map_err(Error::io("write its archive"))?;
        target.finish()?;
        Ok(version)
    }

    /// The objects that CRIU leaves out: volumes, and namespaces of the pod that it does not store.
    fn external(&self, pid: i32) -> Result<Vec<String>, Error> {
        const READING: &str = "read its mounts and namespaces";
        let path = format!("/proc/{pid}/mountinfo");
        let read = hull_sys::files::read(Path::new(&path), MOUNTINFO_BYTES_MAX);
        let mountinfo = read.map_err(Error::io(READING))?;
        let mut external = mounts::external(&String::from_utf8_lossy(&mountinfo), self.spec);
        let namespace = |of: &str, kind: &str| {
            stat(format!("/proc/{of}/ns/{kind}")).map(|of| of.st_ino).map_err(Error::errno(READING))
        };
        let pid = pid.to_string();
        let is_of_pod = |kind: &str| -> Result<Option<u64>, Error> {
            let inode = namespace(&pid, kind)?;
            Ok(Some(inode).filter(|inode| namespace("self", kind).ok() != Some(*inode)))
        };
        if let Some(inode) = is_of_pod("net")? {
            external.push(format!("net[{inode}]:{NETWORK}"));
        }
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).map_err(Error::io(READING))?;
        if let Some(inode) = is_of_pod("pid")?.filter(|_| !is_first_process(&status)) {
            external.push(format!("pid[{inode}]:{PIDS}"));
        }
        Ok(external)
    }

    /// Copies the changed files, and returns the paths of the removed ones.
    fn copy_changes(
        &self,
        directory: &Directory,
        (until, limit): (Instant, Duration),
    ) -> Result<Vec<String>, Error> {
        const COPYING: &str = "copy its changed files";
        let free = statvfs(&directory.path).map_err(Error::errno(COPYING))?;
        let bytes_max = free.f_bavail.saturating_mul(free.f_frsize) / 2;
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600);
        let file = file.open(directory.path.join(archive::ROOTFS_DIFF));
        let file = BufWriter::with_capacity(128 << 10, file.map_err(Error::io(COPYING))?);
        let mut out = Bounded::new(file, bytes_max, until);
        let maps = self.pod.record.id_maps();
        let owner = |uid, gid| inside(maps.as_ref(), uid, gid);
        let removed =
            self.node.images.rootfs_changes(&self.record.id, self.image, &owner, &mut out);
        match (removed, out.exceeded(bytes_max, limit)) {
            (_, Some(exceeded)) => Err(exceeded),
            (removed, None) => removed.map_err(|source| Error::Changes { source }),
        }
    }
}

/// The first process of the container, held so that its number stays its own.
struct Process {
    pid: i32,
    held: OwnedFd,
}

impl Process {
    fn open(record: &ContainerRecord) -> Result<Self, Error> {
        let State::Running { pid, .. } = record.state else { return Err(Error::Ended) };
        let number = Pid::from_raw(pid).ok_or(Error::Ended)?;
        let held = pidfd_open(number, PidfdFlags::empty()).map_err(|_| Error::Ended)?;
        let this = Self { pid, held };
        // Another process may have got the number before it was held.
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if !cgroups.contains(&record.id) {
            return Err(Error::Ended);
        }
        this.check()?;
        Ok(this)
    }

    /// Fails if it has ended.
    fn check(&self) -> Result<(), Error> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.held, PollFlags::IN)], Some(&at_once)) {
            Ok(0) => Ok(()),
            Ok(_) | Err(_) => Err(Error::Ended),
        }
    }
}

/// Whether the status of a process says that it is the first one of its pid namespace.
fn is_first_process(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.and_then(|pids| pids.split_whitespace().next_back()) == Some("1")
}

/// Where the standard streams of a process lead, as a JSON list.
fn descriptors(pid: i32) -> Vec<u8> {
    let target = |number| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
        link.to_string_lossy().into_owned()
    };
    serde_json::json!([target(0), target(1), target(2)]).to_string().into_bytes()
}

/// The owner of a file as the container sees it.
fn inside(maps: Option<&IdMaps>, uid: u32, gid: u32) -> (u32, u32) {
    let Some(maps) = maps else { return (uid, gid) };
    let map = |ranges: &[IdMap], id: u32| {
        let found = ranges.iter().find_map(|range| {
            let offset = id.checked_sub(range.host_id).filter(|offset| *offset < range.length)?;
            range.container_id.checked_add(offset)
        });
        found.unwrap_or(NOBODY)
    };
    (map(&maps.uids, uid), map(&maps.gids, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_pid_namespace_is_number_one_in_it() {
        assert!(is_first_process("Name:\tx\nNSpid:\t4711\t1\n"));
        assert!(!is_first_process("NSpid:\t4711\t1\t7\n"));
        assert!(!is_first_process("NSpid:\t4711\n") && !is_first_process(""));
    }

    #[test]
    fn owners_are_those_that_the_container_sees() {
        let map = |host_id| vec![IdMap { container_id: 0, host_id, length: 10 }];
        let maps = IdMaps { uids: map(1000), gids: map(2000) };
        assert_eq!(inside(Some(&maps), 1003, 2009), (3, 9));
        assert_eq!(inside(Some(&maps), 0, 2010), (NOBODY, NOBODY));
        assert_eq!(inside(None, 5, 6), (5, 6));
    }
}
