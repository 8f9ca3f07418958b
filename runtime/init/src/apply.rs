// SPDX-License-Identifier: Apache-2.0
//! The operations of a plan, in order, in the new mount namespace.
//!
//! Until [`Op::Pivot`] both the host's tree and the container's root can be named; what is mounted
//! inside the root is attached by descriptor, onto a descriptor.

use crate::copy_up;
use crate::ids::{group, user};
use crate::image;
use crate::mount::{
    Done, Failed, MS_SLAVE, attach, attach_in, attach_path, bits, clone_fd, clone_tree, new_mount,
    of, overlay, propagation_bits,
};
use crate::plan::{Attrs, Namespace, Op, Plan, Propagation, Source, Step, StepError};
use crate::rootfs::{Make, Root, kind};
use crate::sources::Sources;
use crate::sysctl;
use hull_cgroup::Host;
use hull_sys::Attr;
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::os::fd::{AsFd as _, OwnedFd};

struct Builder<'a> {
    root: Option<Root>,
    /// What covers the first masked directory, and the first masked file.
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
    slots: &'a [OwnedFd],
    /// Sources that the parent opened, or that were cloned while they were still the host's peers.
    sources: Sources,
    host: &'a Host,
    cgroup: &'a str,
}

/// What comes last before the root is changed.
pub(crate) struct Last<'a, F> {
    /// That terminal becomes /dev/console.
    pub(crate) console: Option<&'a str>,
    /// The container's mounts are there, the host's paths too.
    pub(crate) before_pivot: F,
}

/// Carries out all operations of `plan`.
pub(crate) fn all<F: FnOnce() -> Result<(), StepError>>(
    host: &Host,
    plan: &Plan,
    sources: Sources,
    slots: &[OwnedFd],
    last: Last<'_, F>,
) -> Result<(), StepError> {
    if plan.ops.is_empty() {
        return Ok(());
    }
    let (root, empty, null) = (None, None, None);
    let mut builder =
        Builder { root, empty, null, slots, sources, host, cgroup: &plan.cgroup.path };
    let number = |at: usize| Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
    if plan.namespaces.mount == Namespace::Inherit {
        // The host's own mounts would be changed, and its root taken away.
        return Err(of("mount without a mount namespace")(Errno::INVAL).at(number(0)));
    }
    for (at, op) in plan.ops.iter().enumerate() {
        builder.clone_peer(at, op).map_err(|failed| failed.at(number(at)))?;
    }
    // What the container mounts must not show on the host; what the host mounts later may come in.
    let slave = Attr { propagation: MS_SLAVE, ..Attr::default() };
    let host_root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| of("open(/)")(errno).at(number(0)))?;
    hull_sys::mount_setattr(host_root.as_fd(), true, &slave)
        .map_err(|err| Failed::from(err).at(number(0)))?;
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
        self.root.as_ref().ok_or(Failed { errno: Errno::INVAL, call: "no root yet".into() })
    }

    fn clone_peer(&mut self, at: usize, op: &Op) -> Done {
        if let Op::Bind {
            source: Source::Host(path),
            recursive,
            propagation: Some(Propagation::Shared),
            ..
        } = op
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
                self.root = Some(Root::new(mount));
                Ok(())
            }
            Op::RootBind { source } => {
                let tree = self.sources.remove(&at).map_or_else(|| clone_tree(source, true), Ok)?;
                attach_path(&tree, source)?;
                self.root = Some(Root::new(tree));
                Ok(())
            }
            Op::Mount { fstype, source, target, attrs, options, copy_up } => {
                let mount = if *copy_up {
                    self.filled(fstype, source, target, attrs, options)?
                } else {
                    new_mount(fstype, source, attrs, options)?
                };
                self.attach(&mount, target, Make::Directory)
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
            Op::Cgroups { target, attrs } => self.cgroups(target, attrs),
            Op::Device { path, .. } => match self.sources.remove(&at) {
                Some(node) => self.attach(&node, path, Make::File),
                None => self.device(op),
            },
            Op::Symlink { content, path } => self.symlink(content, path),
            Op::Mkdir { path, mode } => self.mkdir(path, *mode),
            Op::Mask { path } => self.mask(path),
            Op::Readonly { path } => self.readonly(path),
            Op::RootReadonly => {
                let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
                Ok(hull_sys::mount_setattr(self.root()?.fd(), false, &attr)?)
            }
            Op::RootPropagation(propagation) => {
                let attr = Attr { propagation: propagation_bits(*propagation), ..Attr::default() };
                Ok(hull_sys::mount_setattr(self.root()?.fd(), true, &attr)?)
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
        let root = self.root()?;
        let at = root.find_or_make(target, make, 0o755).map_err(of(format!("make({target})")))?;
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

    fn bind(&self, tree: &OwnedFd, op: &Op) -> Done {
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
        let root = self.root()?;
        let at = root.find_or_make(target, make, 0o755).map_err(of(format!("make({target})")))?;
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
    fn cgroups(&self, target: &str, attrs: &Attrs) -> Done {
        // What the parent found: in a cgroup namespace the roots of the mounts read otherwise.
        let host = self.host;
        if host.hierarchies().is_empty() {
            let mount = new_mount("cgroup2", "cgroup", attrs, &[])?;
            return self.attach(&mount, target, Make::Directory);
        }
        let options = [("mode".to_owned(), Some("755".to_owned()))];
        let plain = Attrs { rdonly: false, ..*attrs };
        let tmpfs = new_mount("tmpfs", "tmpfs", &plain, &options)?;
        self.attach(&tmpfs, target, Make::Directory)?;
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

    fn device(&self, op: &Op) -> Done {
        let Op::Device { path, block, fifo, major, minor, mode, uid, gid } = op else {
            return Ok(());
        };
        let root = self.root()?;
        let (parent, name) = root.parent_of(path).map_err(of(format!("make(parent of {path})")))?;
        let kind = match (fifo, block) {
            (true, _) => FileType::Fifo,
            (false, true) => FileType::BlockDevice,
            (false, false) => FileType::CharacterDevice,
        };
        let number = if *fifo { 0 } else { rustix::fs::makedev(*major, *minor) };
        match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(*mode), number) {
            Ok(()) => {}
            // The image may bring it: what counts is that it is the one that was asked for.
            Err(Errno::EXIST) if self.is_device(path, kind, *major, *minor) => {}
            Err(errno) => return Err(of(format!("mknodat({path})"))(errno)),
        }
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let owner = user(*uid).zip(group(*gid)).ok_or(Errno::INVAL);
        owner
            .and_then(|(uid, gid)| {
                rustix::fs::chownat(&parent, name, Some(uid), Some(gid), nofollow)
            })
            .map_err(of(format!("fchownat({path}, {uid}, {gid})")))?;
        // The mode of mknod went through the umask.
        rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(*mode), rustix::fs::AtFlags::empty())
            .map_err(of(format!("fchmodat({path})")))
    }

    fn is_device(&self, path: &str, of: FileType, major: u32, minor: u32) -> bool {
        let found = self.root().ok().and_then(|root| root.find(path).ok());
        let found = found.and_then(|found| kind(found.as_fd()).ok());
        found.is_some_and(|(kind, found_major, found_minor)| {
            kind == of && (of == FileType::Fifo || (found_major, found_minor) == (major, minor))
        })
    }

    fn symlink(&self, content: &str, path: &str) -> Done {
        let (parent, name) =
            self.root()?.parent_of(path).map_err(of(format!("make(parent of {path})")))?;
        match rustix::fs::symlinkat(content, &parent, name) {
            Err(Errno::EXIST) => {
                let have = rustix::fs::readlinkat(&parent, name, Vec::new());
                let same = have.is_ok_and(|have| have.as_bytes() == content.as_bytes());
                if same { Ok(()) } else { Err(of(format!("symlinkat({path})"))(Errno::EXIST)) }
            }
            other => other.map_err(of(format!("symlinkat({content}, {path})"))),
        }
    }

    fn mkdir(&self, path: &str, mode: u32) -> Done {
        let found = self.root()?.find_or_make(path, Make::Directory, mode);
        let found = found.map_err(of(format!("mkdir({path})")))?;
        match kind(found.as_fd()).map_err(of(format!("statx({path})")))? {
            (FileType::Directory, ..) => Ok(()),
            _ => Err(of(format!("mkdir({path})"))(Errno::NOTDIR)),
        }
    }

    fn mask(&mut self, path: &str) -> Done {
        let root = self.root()?;
        let found = match root.find(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(of(format!("openat2({path})")))?,
        };
        let (of_what, ..) = kind(found.as_fd()).map_err(of(format!("statx({path})")))?;
        let is_directory = of_what == FileType::Directory;
        let cover = match if is_directory { &self.empty } else { &self.null } {
            // A further view of the first one costs a tenth of a new file system.
            Some(first) => clone_fd(first.as_fd(), false)?,
            None if is_directory => empty_directory()?,
            None => self.null_device()?,
        };
        attach(&cover, found.as_fd()).map_err(of(format!("move_mount({path})")))?;
        let first = if is_directory { &mut self.empty } else { &mut self.null };
        first.get_or_insert(cover);
        Ok(())
    }

    /// A view of the container's own null device, which must be one.
    fn null_device(&self) -> Done<OwnedFd> {
        let null = self.root()?.find("/dev/null").map_err(of("openat2(/dev/null)"))?;
        let verified = kind(null.as_fd()).map_err(of("statx(/dev/null)"))?;
        if verified != (FileType::CharacterDevice, 1, 3) {
            return Err(of("statx(/dev/null) is not the null device")(Errno::NODEV));
        }
        clone_fd(null.as_fd(), false)
    }

    fn readonly(&self, path: &str) -> Done {
        let found = match self.root()?.find(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(of(format!("openat2({path})")))?,
        };
        let tree = clone_fd(found.as_fd(), true)?;
        let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
        hull_sys::mount_setattr(tree.as_fd(), true, &attr)?;
        attach(&tree, found.as_fd()).map_err(of(format!("move_mount({path})")))
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

/// An empty directory that stays empty.
fn empty_directory() -> Done<OwnedFd> {
    let attrs = Attrs { rdonly: true, ..Attrs::default() };
    let options = [("size", "0k"), ("nr_blocks", "1")];
    let options = options.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    new_mount("tmpfs", "tmpfs", &attrs, &options)
}
