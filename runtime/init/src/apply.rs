// SPDX-License-Identifier: Apache-2.0
//! The operations of a plan, in order, in the new mount namespace.
//!
//! Until [`Op::Pivot`] both the host's tree and the container's root can be named; what is mounted
//! inside the root is attached by descriptor, onto a descriptor.

use crate::copy_up;
use crate::cover::Covers;
use crate::device;
use crate::image;
use crate::mount::{
    Done, Failed, MS_SLAVE, attach, attach_in, attach_path, bits, clone_tree, new_mount, of,
    overlay, propagation_bits,
};
use crate::places::{Places, is_strict};
use crate::plan::{Attrs, Namespace, Op, Plan, Propagation, Source, Step, StepError};
use crate::procfs::Procfs;
use crate::rootfs::{Make, Root, kind};
use crate::sources::Sources;
use crate::sysctl;
use hull_cgroup::CgroupFs;
use hull_sys::Attr;
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::os::fd::{AsFd as _, OwnedFd};

struct Builder<'a> {
    root: Option<Root>,
    places: Places,
    covers: Covers,
    /// Where a procfs comes from, when it must be the one of a pid namespace that we are not in.
    procfs: Option<Procfs>,
    slots: &'a [OwnedFd],
    /// Sources that the parent opened, or that were cloned while they were still the host's peers.
    sources: Sources,
    host: &'a CgroupFs,
    cgroup: &'a str,
}

/// What comes last before the root is changed.
pub(crate) struct Last<'a, F> {
    /// The procfs of the pid namespace that the program will be in, when that is not ours.
    pub(crate) procfs: Option<Procfs>,
    /// That terminal becomes /dev/console.
    pub(crate) console: Option<&'a str>,
    /// The container's mounts are there, the host's paths too.
    pub(crate) before_pivot: F,
}

/// Carries out all operations of `plan`.
pub(crate) fn all<F: FnOnce() -> Result<(), StepError>>(
    host: &CgroupFs,
    plan: &Plan,
    sources: Sources,
    slots: &[OwnedFd],
    last: Last<'_, F>,
) -> Result<(), StepError> {
    if plan.ops.is_empty() {
        return Ok(());
    }
    let mut builder = Builder {
        root: None,
        places: Places::default(),
        covers: Covers::default(),
        procfs: last.procfs,
        slots,
        sources,
        host,
        cgroup: &plan.cgroup.path,
    };
    let number = |at: usize| Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
    if plan.namespaces.mount == Namespace::Inherit {
        // The host's own mounts would be changed, and its root taken away.
        return Err(of("mount without a mount namespace")(Errno::INVAL).at(number(0)));
    }
    for (at, op) in plan.ops.iter().enumerate() {
        builder.clone_source(at, op, true).map_err(|failed| failed.at(number(at)))?;
    }
    // What the container mounts must not show on the host; what the host mounts later may come in.
    let slave = Attr { propagation: MS_SLAVE, ..Attr::default() };
    let host_root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| of("open(/)")(errno).at(number(0)))?;
    hull_sys::mount_setattr(host_root.as_fd(), true, &slave)
        .map_err(|err| Failed::from(err).at(number(0)))?;
    for (at, op) in plan.ops.iter().enumerate() {
        builder.clone_source(at, op, false).map_err(|failed| failed.at(number(at)))?;
    }
    let mut before_pivot = Some(last.before_pivot);
    for (at, op) in plan.ops.iter().enumerate() {
        if matches!(op, Op::Pivot | Op::MoveRoot)
            && let Some(before_pivot) = before_pivot.take()
        {
            if let Some(path) = last.console {
                builder.console(path).map_err(|failed| failed.at(Step::Stdio))?;
            }
            before_pivot()?;
        }
        builder.apply(at, op).map_err(|failed| failed.at(number(at)))?;
        if plan.namespaces.user != Namespace::Inherit && builder.root.is_some() {
            become_root_inside()?;
        }
    }
    if before_pivot.is_none() {
        builder.covers.verify().map_err(|(at, failed)| failed.at(number(at)))?;
    }
    Ok(())
}

/// In a user namespace: what is made from now on belongs to the container's root. Not before its
/// root is attached: only the host's root may pass through the directories on the way there.
pub(crate) fn become_root_inside() -> Result<(), StepError> {
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
    fn root(&self) -> Done<&Root> {
        self.root.as_ref().ok_or_else(no_root)
    }

    fn mask(&mut self, at: usize, path: &str) -> Done {
        let root = self.root.as_ref().ok_or_else(no_root)?;
        self.covers.mask(root, &self.places, path, at)
    }

    fn readonly(&mut self, at: usize, path: &str) -> Done {
        let root = self.root.as_ref().ok_or_else(no_root)?;
        self.covers.readonly(root, &self.places, path, at)
    }

    /// Changes flags of the root mount.
    fn set_root(&self, recursive: bool, attr: &Attr) -> Done {
        Ok(hull_sys::mount_setattr(self.root()?.fd(), recursive, attr)?)
    }

    /// The container's root is there: what follows is made in it.
    fn begin(&mut self, mount: OwnedFd) -> Done {
        self.places.add(mount.as_fd())?;
        self.root = Some(Root::new(mount));
        Ok(())
    }

    /// Attaches a new file system, which is this container's alone.
    fn file_system(&mut self, at: usize, mount: OwnedFd, fstype: &str, target: &str) -> Done {
        let is_kernels = matches!(fstype, "proc" | "sysfs" | "cgroup" | "cgroup2");
        let root = self.root.as_ref().ok_or_else(no_root)?;
        if is_kernels || is_strict(target) {
            let place = self.places.directory(root, target, fstype)?;
            attach(&mount, place.as_fd()).map_err(of(format!("move_mount({target})")))?;
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

    /// A mount point at `target`. The kubelet's own bind at /dev/termination-log needs a place in a volume
    /// too; nothing else is made in one at /dev.
    fn place(&self, target: &str, make: Make, of_bind: bool) -> Done<OwnedFd> {
        let root = self.root()?;
        if is_strict(target) {
            return self.places.place(root, target, make, of_bind && make == Make::File);
        }
        root.find_or_make(target, make, 0o755).map_err(of(format!("make({target})")))
    }

    /// Clones the source of a bind before anything of the container is mounted: one that has the place of the
    /// root below it would bring the root along, not masked yet. `shared` ones while they are the host's peers.
    fn clone_source(&mut self, at: usize, op: &Op, shared: bool) -> Done {
        if let Op::Bind { source: Source::Host(path), recursive, propagation, .. } = op
            && (*propagation == Some(Propagation::Shared)) == shared
            && !self.sources.contains_key(&at)
        {
            self.sources.insert(at, clone_tree(path, *recursive)?);
        }
        Ok(())
    }

    fn apply(&mut self, at: usize, op: &Op) -> Done {
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
            Op::Mount { fstype, source, target, attrs, options, copy_up } => {
                let mount = match &self.procfs {
                    Some(procfs) if fstype == "proc" => {
                        procfs.mount(self.places.first_of(fstype), attrs, options)?
                    }
                    _ if *copy_up => self.filled(fstype, source, target, attrs, options)?,
                    _ => new_mount(fstype, source, attrs, options)?,
                };
                self.file_system(at, mount, fstype, target)
            }
            Op::Bind { source, recursive, .. } => {
                let tree = match (self.sources.remove(&at), source) {
                    (Some(tree), _) => tree,
                    (None, Source::Host(path)) => clone_tree(path, *recursive)?,
                    (None, Source::Slot(slot)) => self.slot(*slot)?,
                    (None, Source::Image { lower, path, at }) => image::open(lower, path, at)?,
                };
                self.bind(&tree, op)
            }
            Op::Cgroups { target, attrs } => self.cgroups(at, target, attrs),
            Op::Device { path, .. } => match self.sources.remove(&at) {
                Some(node) => {
                    self.attach(&node, path, Make::File)?;
                    self.places.add(node.as_fd())
                }
                None => device::make(self.root()?, &self.places, op),
            },
            Op::Symlink { content, path } => {
                device::symlink(self.root()?, &self.places, content, path)
            }
            Op::Mkdir { path, mode } => self.mkdir(path, *mode),
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
                sysctl::write(name, value).map_err(|(errno, call)| Failed { errno, call })
            }
            Op::Hostname(name) => rustix::system::sethostname(name.as_bytes())
                .map_err(of(format!("sethostname({name})"))),
            Op::Domainname(name) => rustix::system::setdomainname(name.as_bytes())
                .map_err(of(format!("setdomainname({name})"))),
            Op::Pivot => self.pivot(),
            Op::MoveRoot => self.move_root(),
        }
    }

    fn slot(&self, slot: u32) -> Done<OwnedFd> {
        let fd = usize::try_from(slot).ok().and_then(|slot| self.slots.get(slot));
        let fd = fd.ok_or_else(|| of(format!("mount slot {slot}"))(Errno::BADF))?;
        fd.try_clone().map_err(|err| {
            of(format!("dup(slot {slot})"))(Errno::from_io_error(&err).unwrap_or(Errno::IO))
        })
    }

    /// Attaches a detached mount inside the root.
    fn attach(&self, mount: &OwnedFd, target: &str, make: Make) -> Done {
        let at = self.place(target, make, false)?;
        attach(mount, at.as_fd()).map_err(of(format!("move_mount({target})")))
    }

    /// A new file system with what the image has at its place.
    fn filled(
        &self,
        fstype: &str,
        source: &str,
        target: &str,
        attrs: &Attrs,
        options: &[(String, Option<String>)],
    ) -> Done<OwnedFd> {
        // Filled while it can be written to.
        let mount = new_mount(fstype, source, &Attrs { rdonly: false, ..*attrs }, options)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.root()?.open(target, flags) {
            Err(Errno::NOENT) => {}
            found => {
                let found = found.map_err(of(format!("openat2({target})")))?;
                let top = rustix::fs::openat(&mount, ".", flags | OFlags::CLOEXEC, Mode::empty());
                let top = top.map_err(of(format!("open({fstype})")))?;
                copy_up::copy(&found, &top).map_err(of(format!("tmpcopyup({target})")))?;
            }
        }
        if attrs.rdonly {
            let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
            hull_sys::mount_setattr(mount.as_fd(), false, &attr)?;
        }
        Ok(mount)
    }

    fn bind(&mut self, tree: &OwnedFd, op: &Op) -> Done {
        let Op::Bind { target, recursive, attrs, recursive_attrs, clear, propagation, .. } = op
        else {
            return Ok(());
        };
        let (source, ..) = kind(tree.as_fd()).map_err(of("statx(source)"))?;
        let is_directory = source == FileType::Directory;
        let make = if is_directory { Make::Directory } else { Make::File };
        let (set, mut clear) = (bits(attrs), bits(clear));
        if set & Attr::ATIME != 0 || attrs.relatime {
            clear |= Attr::ATIME;
        }
        if set != 0 || clear != 0 {
            let attr = Attr { set, clear, ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), false, &attr)?;
        }
        let set = bits(recursive_attrs);
        if set != 0 || recursive_attrs.relatime {
            let times = set & Attr::ATIME != 0 || recursive_attrs.relatime;
            let clear = if times { Attr::ATIME } else { 0 };
            let attr = Attr { set, clear, ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), true, &attr)?;
        }
        if let Some(propagation) = propagation {
            let attr = Attr { propagation: propagation_bits(*propagation), ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), *recursive, &attr)?;
        }
        let at = self.place(target, make, true)?;
        self.covers.covered(target);
        let (found, ..) = kind(at.as_fd()).map_err(of(format!("statx({target})")))?;
        // The kernel says EINVAL to both, as it does to much else.
        match (is_directory, found == FileType::Directory) {
            (true, false) => {
                Err(of(format!("move_mount(a directory, the file {target})"))(Errno::NOTDIR))
            }
            (false, true) => {
                Err(of(format!("move_mount(a file, the directory {target})"))(Errno::ISDIR))
            }
            _ => attach(tree, at.as_fd()).map_err(of(format!("move_mount({target})"))),
        }
    }

    /// The cgroup tree as the container sees it.
    fn cgroups(&mut self, at: usize, target: &str, attrs: &Attrs) -> Done {
        // What the parent found: in a cgroup namespace the roots of the mounts read otherwise.
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
        attach(&tmpfs, place.as_fd()).map_err(of(format!("move_mount({target})")))?;
        self.covers.covered(target);
        self.covers.expect(target, &tmpfs, at)?;
        let unified = host.unified().map(|path| ("unified".to_owned(), path));
        let named = host.hierarchies().iter().map(|of| {
            let name = of.controllers.join(",");
            (name.trim_start_matches("name=").to_owned(), of.mountpoint.as_path())
        });
        for (name, mountpoint) in named.chain(unified) {
            let own = format!("{}{}", mountpoint.display(), self.cgroup);
            let tree = clone_tree(&own, false)?;
            let attr = Attr { set: bits(attrs), propagation: MS_SLAVE, ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), false, &attr)?;
            // Names in a file system that is new and ours: nothing in it could lead elsewhere.
            rustix::fs::mkdirat(&tmpfs, name.as_str(), Mode::from_raw_mode(0o755))
                .map_err(of(format!("mkdirat({target}/{name})")))?;
            attach_in(&tree, &tmpfs, &name).map_err(of(format!("move_mount({target}/{name})")))?;
            // Programs look for each controller by its own name.
            for alone in name.split(',').filter(|_| name.contains(',')) {
                rustix::fs::symlinkat(name.as_str(), &tmpfs, alone)
                    .map_err(of(format!("symlinkat({name}, {target}/{alone})")))?;
            }
        }
        if attrs.rdonly {
            let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
            hull_sys::mount_setattr(tmpfs.as_fd(), false, &attr)?;
        }
        Ok(())
    }

    fn mkdir(&self, path: &str, mode: u32) -> Done {
        let found = self.root()?.find_or_make(path, Make::Directory, mode);
        let found = found.map_err(of(format!("mkdir({path})")))?;
        match kind(found.as_fd()).map_err(of(format!("statx({path})")))? {
            (FileType::Directory, ..) => Ok(()),
            _ => Err(of(format!("mkdir({path})"))(Errno::NOTDIR)),
        }
    }

    fn console(&self, path: &str) -> Done {
        let tree = clone_tree(path, false)?;
        self.attach(&tree, "/dev/console", Make::File)
    }

    /// `pivot_root(2)`: the old root ends up on top of the new one and is taken off there, so no
    /// directory inside is needed for it.
    fn pivot(&mut self) -> Done {
        rustix::process::fchdir(self.root()?.fd()).map_err(of("fchdir(root)"))?;
        rustix::process::pivot_root(".", ".").map_err(of("pivot_root(., .)"))?;
        unmount(".", UnmountFlags::DETACH).map_err(of("umount2(., DETACH)"))?;
        self.at_new_root()
    }

    /// Where the host's root cannot be pivoted away from, an initramfs: the root is moved over it. The
    /// host's mounts stay below, out of reach of who cannot unmount.
    fn move_root(&mut self) -> Done {
        let root = self.root()?.fd();
        rustix::process::fchdir(root).map_err(of("fchdir(root)"))?;
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(root, c"", CWD, c"/", flags).map_err(of("move_mount(/)"))?;
        rustix::process::chroot(".").map_err(of("chroot(.)"))?;
        self.at_new_root()
    }

    fn at_new_root(&mut self) -> Done {
        rustix::process::chdir("/").map_err(of("chdir(/)"))?;
        let root = rustix::fs::openat(
            CWD,
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        self.root = Some(Root::new(root.map_err(of("open(/)"))?));
        Ok(())
    }
}

fn no_root() -> Failed {
    Failed { errno: Errno::INVAL, call: "no root yet".into() }
}
