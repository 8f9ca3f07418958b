// SPDX-License-Identifier: Apache-2.0
//! A pod of the floor: a pause process that holds the pod's namespaces, and a container in its own root.
//!
//! ```text
//! <scratch>/lower/{wait,exit,proc,sys,dev}   the image
//! <scratch>/<n>/{upper,work}                 a container's writable layer
//! ```
//!
//! The caller is single-threaded, as children of a clone may then do anything.

use super::{link, program};
use hull_sys::{CStringArray, Error, ForkResult, Result, clone3, exit_now, flags};
use link::Links;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The directories and the bridge that all pods share.
pub(super) struct Floor {
    scratch: PathBuf,
    links: Links,
    bridge: u32,
    number: Cell<u32>,
}

impl Floor {
    pub(super) fn new() -> Result<Self> {
        let scratch = PathBuf::from(format!("/var/tmp/cri-bench-floor-{}", std::process::id()));
        let lower = scratch.join("lower");
        for dir in ["proc", "sys", "dev"] {
            make_dir(&lower.join(dir))?;
        }
        for (name, bytes) in [("wait", program::wait()), ("exit", program::exit())] {
            let path = lower.join(name);
            let failed = || Error::of_io(|| format!("write({})", path.display()));
            fs::write(&path, bytes).map_err(failed())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed())?;
        }
        let links = Links::open()?;
        let bridge = links.bridge()?;
        Ok(Self { scratch, links, bridge, number: Cell::new(0) })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Nothing can be done about what does not go; the next floor removes the bridge.
        drop(self.links.remove_bridge());
        drop(fs::remove_dir_all(&self.scratch));
    }
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::of_io(|| format!("mkdir({})", path.display())))
}

/// A child, and its descriptor.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Runs `work` in a new process. What it returns becomes the exit code.
    fn start(clone_flags: u64, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        match clone3(clone_flags, None)? {
            ForkResult::Parent { pid, pidfd } => {
                let pid = Pid::from_raw(pid)
                    .ok_or_else(|| Error::new(Errno::SRCH, "clone3 gave no process"))?;
                Ok(Self { pid, pidfd })
            }
            ForkResult::Child => {
                let done = work();
                if let Err(err) = &done {
                    crate::output::progress(&format!("a process of the floor: cannot {err}"));
                }
                exit_now(i32::from(done.is_err()))
            }
        }
    }

    fn ended(&self) -> Result<i32> {
        let ended = waitpid(Some(self.pid), WaitOptions::empty()).map_err(Error::of(|| "wait4"))?;
        Ok(ended.and_then(|(_, status)| status.exit_status()).unwrap_or(-1))
    }

    fn kill(&self) -> Result<()> {
        kill_process(self.pid, Signal::KILL).map_err(Error::of(|| "kill"))?;
        self.ended().map(drop)
    }

    /// One of its namespaces.
    fn namespace(&self, name: &str) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/{name}", self.pid.as_raw_nonzero());
        let file = fs::File::open(&path).map_err(Error::of_io(|| format!("open({path})")))?;
        Ok(file.into())
    }
}

/// A pod that runs.
pub(super) struct Pod {
    pause: Child,
    container: Child,
    layer: PathBuf,
}

impl Pod {
    /// Starts it, with a network of its own or on the host's.
    pub(super) fn start(floor: &Floor, own_network: bool) -> Result<Self> {
        let number = floor.number.get();
        floor.number.set(number + 1);
        let pause = start_pause(floor, own_network, number)?;
        let layer = floor.scratch.join(number.to_string());
        let container = start_container(floor, &pause, &layer, own_network)?;
        Ok(Self { pause, container, layer })
    }

    /// Runs the program `exit` in the container to its end.
    pub(super) fn exec(&self) -> Result<()> {
        let own = fs::File::open("/proc/self/ns/pid").map_err(Error::of_io(|| "open(ns/pid)"))?;
        let enter = |fd: &OwnedFd| {
            rustix::thread::move_into_link_name_space(
                fd.as_fd(),
                Some(LinkNameSpaceType::ProcessID),
            )
            .map_err(Error::of(|| "setns(pid)"))
        };
        // A process is born into the pid namespace that its parent's children are to have.
        enter(&self.container.namespace("pid")?)?;
        let spaces = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::CONTROL_GROUP;
        let child = Child::start(0, || {
            rustix::thread::move_into_thread_name_spaces(self.container.pidfd.as_fd(), spaces)
                .map_err(Error::of(|| "setns(pidfd)"))?;
            become_program(c"/exit")
        });
        enter(&own.into())?;
        match child?.ended()? {
            0 => Ok(()),
            code => Err(Error::new(Errno::CHILD, format!("run /exit: exit code {code}"))),
        }
    }

    /// Ends it and removes its layer.
    pub(super) fn end(self) -> Result<()> {
        self.container.kill()?;
        self.pause.kill()?;
        let failed = Error::of_io(|| format!("unlink({})", self.layer.display()));
        fs::remove_dir_all(&self.layer).map_err(failed)
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(Error::of(|| "pipe2"))
}

/// Waits until all writers of a pipe are gone; true when nothing was written.
fn closed(reader: &OwnedFd) -> Result<bool> {
    let mut byte = [0];
    rustix::io::read(reader, &mut byte).map(|read| read == 0).map_err(Error::of(|| "read(pipe)"))
}

/// Clones the process that holds the pod's namespaces; its network is ready on return.
fn start_pause(floor: &Floor, own_network: bool, number: u32) -> Result<Child> {
    let spaces = flags::NEWIPC | flags::NEWUTS | flags::NEWPID;
    if !own_network {
        return Child::start(spaces, wait_forever);
    }
    let (linked, linked_end) = pipe()?;
    let (ready, ready_end) = pipe()?;
    let mut in_child = Some(ready_end);
    let pause = Child::start(spaces | flags::NEWNET, || {
        // Ours is a copy, which would keep the pipe open.
        let mut buffer = [0];
        let _begin = rustix::io::read(&linked, &mut buffer).map_err(Error::of(|| "read(pipe)"))?;
        Links::open()?.configure()?;
        drop(in_child.take());
        wait_forever()
    })?;
    drop(in_child.take());
    let netns = pause.namespace("net")?;
    floor.links.pair(&format!("cbf{number}"), floor.bridge, netns.as_fd())?;
    let _sent = rustix::io::write(&linked_end, &[1]).map_err(Error::of(|| "write(pipe)"))?;
    let _closed = closed(&ready)?;
    Ok(pause)
}

fn wait_forever() -> Result<()> {
    loop {
        // Nothing is waited for: a signal ends it.
        let _interrupted = rustix::event::poll(&mut [], None);
    }
}

/// Clones the container's first process; it is past its exec on return.
fn start_container(floor: &Floor, pause: &Child, layer: &Path, own_network: bool) -> Result<Child> {
    for dir in ["upper", "work"] {
        make_dir(&layer.join(dir))?;
    }
    let (reader, writer) = pipe()?;
    let spaces = flags::NEWNS | flags::NEWPID | flags::NEWCGROUP;
    let container = Child::start(spaces, || {
        let mut of_pod = ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
        if own_network {
            of_pod |= ThreadNameSpaceType::NETWORK;
        }
        rustix::thread::move_into_thread_name_spaces(pause.pidfd.as_fd(), of_pod)
            .map_err(Error::of(|| "setns(pidfd)"))?;
        enter_root(&floor.scratch, layer)?;
        become_program(c"/wait")
    })?;
    drop(writer);
    // The exec closes the container's copy; so does its death.
    let _closed = closed(&reader)?;
    Ok(container)
}

fn become_program(path: &std::ffi::CStr) -> Result<()> {
    let none = CStringArray::new(&[]).map_err(|errno| Error::new(errno, "execve(environment)"))?;
    let name = CStringArray::new(&[path.to_bytes().to_vec()])
        .map_err(|errno| Error::new(errno, "execve(arguments)"))?;
    Err(hull_sys::execve(path, &name, &none))
}

/// Mounts the root with what every container has in it, and makes it the process's.
fn enter_root(scratch: &Path, layer: &Path) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(Error::of(|| "mount(/, PRIVATE)"))?;
    let text = |path: PathBuf| path.display().to_string();
    let root = new_mount(
        "overlay",
        &[
            ("lowerdir", &text(scratch.join("lower"))),
            ("upperdir", &text(layer.join("upper"))),
            ("workdir", &text(layer.join("work"))),
        ],
    )?;
    let at = scratch.join("lower");
    attach(&root, &at)?;
    std::env::set_current_dir(&at).map_err(Error::of_io(|| "chdir"))?;
    attach(&new_mount("proc", &[])?, Path::new("proc"))?;
    attach(&new_mount("sysfs", &[])?, Path::new("sys"))?;
    attach(&new_mount("tmpfs", &[("mode", "755")])?, Path::new("dev"))?;
    for (dir, kind) in [("dev/pts", "devpts"), ("dev/shm", "tmpfs"), ("dev/mqueue", "mqueue")] {
        fs::create_dir(dir).map_err(Error::of_io(|| format!("mkdir({dir})")))?;
        attach(&new_mount(kind, &[])?, Path::new(dir))?;
    }
    // With both names the same, the old root lies on top of the new one until it is unmounted.
    rustix::process::pivot_root(".", ".").map_err(Error::of(|| "pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Error::of(|| "umount2"))?;
    std::env::set_current_dir("/").map_err(Error::of_io(|| "chdir"))
}

fn new_mount(kind: &str, options: &[(&str, &str)]) -> Result<OwnedFd> {
    let failed = || Error::of(|| format!("fsopen({kind})"));
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed())?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value).map_err(failed())?;
    }
    fsconfig_create(context.as_fd()).map_err(failed())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(failed())
}

fn attach(mount: &OwnedFd, at: &Path) -> Result<()> {
    move_mount(mount.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Error::of(|| format!("move_mount({})", at.display())))
}
