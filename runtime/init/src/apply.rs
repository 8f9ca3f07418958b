// SPDX-License-Identifier: Apache-2.0
//! The operations of a plan, in order, in the new mount namespace.
//!
//! Until [`Op::Pivot`] both the host's tree and the container's root can be named; what is mounted
//! inside the root is attached by descriptor, onto a descriptor.

use crate::bind::{self, Bind};
use crate::cover::Covers;
use crate::inside_maps::Mapper;
use crate::mount::{
    CallError, MS_SLAVE, Result, attach, attach_path, clone_fd, clone_tree, duplicate,
    errno_context, new_mount, overlay, propagation_bits,
};
use crate::mount_sources::Sources;
use crate::places::{Places, check_outside_procfs, is_strict};
use crate::plan::{Attrs, Namespace, Op, Plan, Process, Source, Step, StepError};
use crate::procfs::{self, Procfs};
use crate::rootfs::{Make, Root, kind};
use crate::terminal::NewTerminal;
use crate::{change_root, defined_volume, device, hierarchies, image_volume, sysctl, tmpfs};
use hull_cgroup::CgroupFs;
use hull_sys::Attr;
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};

struct Builder<'a> {
    root: Option<Root>,
    places: Places,
    covers: Covers,
    /// The procfs to use, if it must be that of a pid namespace that we are not in.
    procfs: Option<Procfs>,
    host_devices: bool,
    slots: &'a [OwnedFd],
    /// Sources that the parent opened, or that were cloned while they were still the host's peers.
    sources: Sources,
    /// Maps the ids of the container's own files, where only the parent can.
    mapper: Option<Mapper>,
    /// File systems that become read-only when all mount points in them are made.
    read_only_later: Vec<OwnedFd>,
    host: &'a CgroupFs,
    cgroup: &'a str,
}

/// The steps just before the root is changed.
pub(crate) struct PrePivot<'a, F> {
    /// The procfs of the pid namespace that the program will be in, if that is not ours.
    pub(crate) procfs: Option<Procfs>,
    /// Whether device nodes that may not be made are the host's.
    pub(crate) host_devices: bool,
    /// Maps the ids of the container's own files, where only the parent can.
    pub(crate) mapper: Option<Mapper>,
    /// The terminal to open, which becomes /dev/console too.
    pub(crate) terminal: Option<&'a NewTerminal>,
    /// Runs when all mounts of the container exist and paths of the host can still be named.
    pub(crate) before_pivot: F,
}

/// Carries out all operations of `plan`. Returns the slave of the new terminal.
pub(crate) fn all<F: FnOnce() -> Result<(), StepError>>(
    host: &CgroupFs,
    plan: &Plan,
    sources: Sources,
    slots: &[OwnedFd],
    pre_pivot: PrePivot<'_, F>,
) -> Result<Option<OwnedFd>, StepError> {
    if plan.ops.is_empty() {
        return Ok(None);
    }
    let mut builder = Builder {
        root: None,
        places: Places::default(),
        covers: Covers::default(),
        procfs: pre_pivot.procfs,
        host_devices: pre_pivot.host_devices,
        mapper: pre_pivot.mapper,
        slots,
        sources,
        read_only_later: Vec::new(),
        host,
        cgroup: &plan.cgroup.path,
    };
    let number = |at: usize| Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
    if plan.namespaces.mount == Namespace::Inherit {
        // The host's own mounts would be changed, and its root taken away.
        return Err(errno_context("mount without a mount namespace")(Errno::INVAL).at(number(0)));
    }
    for (at, op) in plan.ops.iter().enumerate() {
        builder.clone_source(at, op, true).map_err(|failed| failed.at(number(at)))?;
    }
    // The container's mounts must not propagate to the host; later mounts of the host may propagate in.
    let slave = Attr { propagation: MS_SLAVE, ..Attr::default() };
    let host_root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| errno_context("open(/)")(errno).at(number(0)))?;
    hull_sys::mount_setattr(host_root.as_fd(), true, &slave)
        .map_err(|err| CallError::from(err).at(number(0)))?;
    for (at, op) in plan.ops.iter().enumerate() {
        builder.clone_source(at, op, false).map_err(|failed| failed.at(number(at)))?;
    }
    let (mut before_pivot, mut slave) = (Some(pre_pivot.before_pivot), None);
    for (at, op) in plan.ops.iter().enumerate() {
        if matches!(op, Op::Pivot | Op::MoveRoot)
            && let Some(before_pivot) = before_pivot.take()
        {
            // The parent waits for its end.
            builder.mapper = None;
            let new = pre_pivot.terminal.map(|new| builder.terminal(new, &plan.process));
            slave = new.transpose()?;
            builder.make_read_only().map_err(|failed| failed.at(number(at)))?;
            let entered = builder.root().and_then(change_root::enter);
            entered.map_err(|failed| failed.at(number(at)))?;
            before_pivot()?;
        }
        builder.apply(at, op).map_err(|failed| failed.at(number(at)))?;
        if plan.namespaces.user != Namespace::Inherit && builder.root.is_some() {
            become_container_root()?;
        }
        if let (Op::RootOverlay { .. } | Op::RootBind { .. }, Some(root)) = (op, &builder.root) {
            defined_volume::make_all(root, &plan.ops)
                .map_err(|(at, failed)| failed.at(number(at)))?;
        }
    }
    if before_pivot.is_none() {
        builder.covers.verify().map_err(|(at, failed)| failed.at(number(at)))?;
    }
    Ok(slave)
}

/// In a user namespace: what is made from now on belongs to the container's root. Not before its
/// root is attached: only the host's root may pass through the directories on the way there.
pub(crate) fn become_container_root() -> Result<(), StepError> {
    let failed = |call: &'static str| move |errno| StepError::new(Step::Identity, errno, call);
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups()"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid(0)"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid(0)"))
}

impl Builder<'_> {
    fn root(&self) -> Result<&Root> {
        self.root.as_ref().ok_or_else(no_root)
    }

    fn change_root(&mut self, change: impl Fn(&Root) -> Result<Root>) -> Result {
        self.root = Some(change(self.root()?)?);
        Ok(())
    }

    fn mask(&mut self, at: usize, path: &str) -> Result {
        let root = self.root.as_ref().ok_or_else(no_root)?;
        self.covers.mask(root, &self.places, path, at)
    }

    fn readonly(&mut self, at: usize, path: &str) -> Result {
        let root = self.root.as_ref().ok_or_else(no_root)?;
        self.covers.readonly(root, &self.places, path, at)
    }

    /// Changes flags of the root mount.
    fn set_root(&self, recursive: bool, attr: &Attr) -> Result {
        Ok(hull_sys::mount_setattr(self.root()?.fd(), recursive, attr)?)
    }

    /// Sets the container's root: what follows is created in it.
    fn begin(&mut self, mount: OwnedFd) -> Result {
        self.places.add(mount.as_fd())?;
        self.root = Some(Root::new(mount));
        Ok(())
    }

    fn make_read_only(&mut self) -> Result {
        for mount in self.read_only_later.drain(..) {
            let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
            hull_sys::mount_setattr(mount.as_fd(), false, &attr)?;
        }
        Ok(())
    }

    /// Attaches a new file system, which only this container has.
    fn file_system(&mut self, at: usize, mount: OwnedFd, fstype: &str, target: &str) -> Result {
        let is_kernels = matches!(fstype, "proc" | "sysfs" | "cgroup" | "cgroup2");
        let root = self.root.as_ref().ok_or_else(no_root)?;
        if is_kernels || is_strict(target) {
            let place = self.places.directory(root, target, fstype)?;
            attach(&mount, place.as_fd())
                .map_err(errno_context(format!("move_mount({target})")))?;
        } else {
            self.attach(&mount, target, Make::Directory)?;
        }
        self.places.add(mount.as_fd())?;
        self.covers.covered(target);
        if is_kernels {
            self.covers.expect(target, &mount, at)?;
        }
        if matches!(fstype, "proc" | "sysfs") {
            self.places.add_kernel(target, mount);
        }
        Ok(())
    }

    /// A mount point at `target`. The kubelet's own bind at /dev/termination-log may create one in a volume;
    /// nothing else is created in a volume at /dev.
    fn place(&self, target: &str, make: Make, of_bind: bool) -> Result<OwnedFd> {
        let root = self.root()?;
        if is_strict(target) {
            return self.places.place(root, target, make, of_bind && make == Make::File);
        }
        let found = root.find_or_make(target, make, 0o755).map_err(|errno| {
            let led = root.led_astray(target).map(|led| format!(": {}", led.text()));
            errno_context(format!("make({target}){}", led.unwrap_or_default()))(errno)
        })?;
        check_outside_procfs(root, found.as_fd(), target)?;
        Ok(found)
    }

    /// Clones the source of a bind before anything of the container is mounted: a source that has the
    /// root's place below it would bring the root along, not masked yet. `shared` ones are cloned while they are
    /// still peers of the host's mounts.
    fn clone_source(&mut self, at: usize, op: &Op, shared: bool) -> Result {
        if let Some(bind) = Bind::of(op)
            && let Source::Host(path) = bind.source
            && bind.is_shared() == shared
            && !self.sources.contains_key(&at)
        {
            self.sources.insert(at, clone_tree(path, bind.recursive)?);
        }
        Ok(())
    }

    fn apply(&mut self, at: usize, op: &Op) -> Result {
        match op {
            Op::RootOverlay { lower, upper, options, at: place } => {
                let mount = match self.sources.remove(&at) {
                    Some(mount) => attach_path(&mount, place).map(|()| mount)?,
                    None => overlay(lower, upper.as_ref(), options, place)?,
                };
                self.begin(mount)
            }
            Op::RootBind { source } => {
                let tree = self.sources.remove(&at).map_or_else(|| clone_tree(source, true), Ok)?;
                attach_path(&tree, source)?;
                self.begin(tree)
            }
            Op::Mount { .. } | Op::MountWith { .. } => self.mount(at, op),
            Op::Bind { .. } | Op::BindWith { .. } => {
                let Some(bind) = Bind::of(op) else { return Ok(()) };
                match self.bind_source(at, &bind)? {
                    Some(tree) => self.bind(&tree, &bind),
                    None => Ok(()),
                }
            }
            Op::Cgroups { target, attrs } => self.cgroups(at, target, attrs),
            Op::Device { path, .. } => match self.sources.remove(&at) {
                Some(node) => {
                    self.attach(&node, path, Make::File)?;
                    self.places.add(node.as_fd())
                }
                None => self.device(op, path),
            },
            Op::Symlink { content, path } => {
                device::symlink(self.root()?, &self.places, content, path)
            }
            Op::Mkdir { path, mode } => device::directory(self.root()?, path, *mode),
            Op::Mask { path } => self.mask(at, path),
            Op::Readonly { path } => self.readonly(at, path),
            Op::RootReadonly => {
                self.set_root(false, &Attr { set: Attr::RDONLY, ..Attr::default() })
            }
            Op::RootPropagation(propagation) => {
                let propagation = propagation_bits(*propagation);
                self.set_root(true, &Attr { propagation, ..Attr::default() })
            }
            Op::Sysctl { name, value } => {
                sysctl::write(name, value).map_err(|(errno, call)| CallError { errno, call })
            }
            Op::Hostname(name) => rustix::system::sethostname(name.as_bytes())
                .map_err(errno_context(format!("sethostname({name})"))),
            Op::Domainname(name) => rustix::system::setdomainname(name.as_bytes())
                .map_err(errno_context(format!("setdomainname({name})"))),
            Op::LoopbackUp => Ok(hull_sys::netns::loopback_up()?),
            Op::Pivot => self.change_root(change_root::pivot),
            Op::MoveRoot => self.change_root(change_root::move_over),
            Op::Init => Ok(()),
        }
    }

    /// Mounts a new file system.
    fn mount(&mut self, at: usize, op: &Op) -> Result {
        let (Op::Mount { fstype, source, target, attrs, options, copy_up }
        | Op::MountWith { fstype, source, target, attrs, options, copy_up, .. }) = op
        else {
            return Ok(());
        };
        let options = &tmpfs::with_mode(self.root()?, fstype, target, options)?;
        let is_later = attrs.rdonly && (fstype == "tmpfs" || *copy_up);
        let attrs = &Attrs { rdonly: attrs.rdonly && !is_later, ..*attrs };
        let mount = match &self.procfs {
            Some(procfs) if fstype == "proc" => {
                procfs.mount(self.places.first_of(fstype), attrs, options)?
            }
            _ => new_mount(fstype, source, attrs, options)?,
        };
        if *copy_up {
            tmpfs::fill(self.root()?, target, &mount)?;
        }
        if is_later {
            self.read_only_later.push(duplicate(&mount)?);
        }
        let later = duplicate(&mount)?;
        self.file_system(at, mount, fstype, target)?;
        if let Op::MountWith { propagation, .. } = op {
            for of in propagation {
                let attr = Attr { propagation: propagation_bits(*of), ..Attr::default() };
                hull_sys::mount_setattr(later.as_fd(), false, &attr)?;
            }
        }
        Ok(())
    }

    /// The tree that the operation `at` binds, if any. All of the host's were cloned before the first mount.
    fn bind_source(&mut self, at: usize, bind: &Bind<'_>) -> Result<Option<OwnedFd>> {
        match (self.sources.remove(&at), bind.source) {
            (user, Source::Inside(path)) => {
                let tree = bind::inside(self.root()?, path, bind.recursive)?;
                match (bind.id_maps, user, &self.mapper) {
                    (None, ..) => {}
                    // The parent has opened the user namespace with the maps.
                    (Some((_, recursive)), Some(user), _) => {
                        bind::map_ids(&tree, recursive, user.as_fd())?;
                    }
                    (Some(_), None, Some(mapper)) => mapper.map(&tree, path)?,
                    (Some(_), None, None) => {
                        let call = format!("mount_setattr({path}): it has no maps");
                        return Err(errno_context(call)(Errno::INVAL));
                    }
                }
                Ok(Some(tree))
            }
            (Some(tree), _) => Ok(Some(tree)),
            (None, Source::Slot(slot)) => self.slot(*slot).map(Some),
            (None, Source::Image { lower, path, at }) => {
                image_volume::open(lower, path, at).map(Some)
            }
            (None, Source::Root) => defined_volume::tree(self.root()?, bind.target),
            (None, Source::Host(path)) => {
                let call = format!("open_tree({path}, CLONE): not cloned before the mounts");
                Err(errno_context(call)(Errno::INVAL))
            }
        }
    }

    fn device(&self, op: &Op, path: &str) -> Result {
        match device::make(self.root()?, &self.places, op) {
            // In a user namespace that is not the host's, where nobody may make nodes.
            Err(failed) if failed.errno == Errno::PERM && self.host_devices => {
                self.attach(&device::of_host(op)?, path, Make::File)
            }
            other => other,
        }
    }

    fn slot(&self, slot: u32) -> Result<OwnedFd> {
        let fd = usize::try_from(slot).ok().and_then(|slot| self.slots.get(slot));
        duplicate(fd.ok_or_else(|| errno_context(format!("mount slot {slot}"))(Errno::BADF))?)
    }

    /// Attaches a detached mount inside the root.
    fn attach(&self, mount: &OwnedFd, target: &str, make: Make) -> Result {
        let at = self.place(target, make, false)?;
        attach(mount, at.as_fd()).map_err(errno_context(format!("move_mount({target})")))
    }

    fn bind(&mut self, tree: &OwnedFd, bind: &Bind<'_>) -> Result {
        let target = bind.target;
        let (source, ..) = kind(tree.as_fd()).map_err(errno_context("statx(source)"))?;
        let is_directory = source == FileType::Directory;
        let make = if is_directory { Make::Directory } else { Make::File };
        bind.set_attributes(tree)?;
        let at = self.place(target, make, true)?;
        if target == "/proc" {
            procfs::check(tree.as_fd())?;
        }
        self.covers.covered(target);
        self.places.cover(target, bind.is_shared());
        let (found, ..) = kind(at.as_fd()).map_err(errno_context(format!("statx({target})")))?;
        // The kernel's EINVAL does not distinguish these from other errors.
        match (is_directory, found == FileType::Directory) {
            (true, false) => Err(errno_context(format!(
                "move_mount(a directory, the file {target})"
            ))(Errno::NOTDIR)),
            (false, true) => Err(errno_context(format!(
                "move_mount(a file, the directory {target})"
            ))(Errno::ISDIR)),
            _ => attach(tree, at.as_fd()).map_err(errno_context(format!("move_mount({target})"))),
        }
    }

    /// The cgroup tree as the container sees it: the one of version 2, or the hierarchies of version 1. A hybrid host
    /// has both, and a version 2 tree without controllers: a container there sees version 1 only, because programs
    /// take any mount of cgroup2 for a host with version 2.
    fn cgroups(&mut self, at: usize, target: &str, attrs: &Attrs) -> Result {
        // From the parent: in a cgroup namespace the roots of the mounts are different.
        let host = self.host;
        if host.hierarchies().is_empty() {
            let mount = new_mount("cgroup2", "cgroup", attrs, &[])?;
            return self.file_system(at, mount, "cgroup2", target);
        }
        let options = [("mode".to_owned(), Some("755".to_owned()))];
        let plain = Attrs { rdonly: false, ..*attrs };
        let tmpfs = new_mount("tmpfs", "tmpfs", &plain, &options)?;
        let root = self.root.as_ref().ok_or_else(no_root)?;
        let place = self.places.directory(root, target, "cgroup")?;
        attach(&tmpfs, place.as_fd()).map_err(errno_context(format!("move_mount({target})")))?;
        self.covers.covered(target);
        self.covers.expect(target, &tmpfs, at)?;
        hierarchies::bind_all(host, self.cgroup, attrs, (&tmpfs, target))?;
        if attrs.rdonly {
            let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
            hull_sys::mount_setattr(tmpfs.as_fd(), false, &attr)?;
        }
        Ok(())
    }

    /// Opens the terminal, and binds it to /dev/console. Returns its slave.
    fn terminal(&self, new: &NewTerminal, process: &Process) -> Result<OwnedFd, StepError> {
        let failed = |failed: CallError| failed.at(Step::Stdio);
        let slave = new.open(self.root().map_err(failed)?.fd(), process)?;
        // The host's own console stays visible where /dev is shared with it.
        if !self.places.is_shared("/dev/console") {
            let tree = clone_fd(slave.as_fd(), false).map_err(failed)?;
            self.attach(&tree, "/dev/console", Make::File).map_err(failed)?;
        }
        Ok(slave)
    }
}

fn no_root() -> CallError {
    CallError { errno: Errno::INVAL, call: "no root yet".into() }
}
