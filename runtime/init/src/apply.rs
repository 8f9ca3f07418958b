// SPDX-License-Identifier: Apache-2.0
//! The operations of a plan, in order, in the new mount namespace.
//!
//! Until [`Op::Pivot`] both the host's tree and the container's root can be named; what is mounted
//! inside the root is attached by descriptor, onto a descriptor.

use crate::plan::{Attrs, IdMaps, Op, Plan, Propagation, Source, Step, StepError};
use crate::rootfs::{Make, Root, kind};
use hull_cgroup::Host;
use hull_sys::Attr;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
const PROC_MAGIC: u64 = 0x9fa0;
const MS_PRIVATE: u64 = 1 << 18;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// An error of one operation, before it is known which.
struct Failed {
    errno: Errno,
    call: String,
}

impl From<hull_sys::Error> for Failed {
    fn from(err: hull_sys::Error) -> Self {
        Self { errno: err.errno(), call: err.to_string() }
    }
}

fn of(call: impl Into<String>) -> impl FnOnce(Errno) -> Failed {
    move |errno| Failed { errno, call: call.into() }
}

type Done<T = ()> = Result<T, Failed>;

struct Builder<'a> {
    root: Option<Root>,
    slots: &'a [OwnedFd],
    /// Sources of shared binds, cloned while they were still the host's peers.
    peers: HashMap<usize, OwnedFd>,
    cgroup: &'a str,
}

/// Carries out all operations of `plan`. With `console`, that terminal becomes /dev/console.
pub(crate) fn all(plan: &Plan, slots: &[OwnedFd], console: Option<&str>) -> Result<(), StepError> {
    if plan.ops.is_empty() {
        return Ok(());
    }
    let mut builder =
        Builder { root: None, slots, peers: HashMap::new(), cgroup: &plan.cgroup.path };
    let number = |at: usize| Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
    for (at, op) in plan.ops.iter().enumerate() {
        builder.clone_peer(at, op).map_err(|failed| failed.at(number(at)))?;
    }
    // What the container mounts must not show on the host; what the host mounts later may come in.
    let slave = Attr { propagation: MS_SLAVE, ..Attr::default() };
    let host_root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| of("open(/)")(errno).at(number(0)))?;
    hull_sys::mount_setattr(host_root.as_fd(), true, &slave)
        .map_err(|err| Failed::from(err).at(number(0)))?;
    for (at, op) in plan.ops.iter().enumerate() {
        if matches!(op, Op::Pivot)
            && let Some(path) = console
        {
            builder.console(path).map_err(|failed| failed.at(Step::Stdio))?;
        }
        builder.apply(at, op).map_err(|failed| failed.at(number(at)))?;
    }
    Ok(())
}

impl Failed {
    fn at(self, step: Step) -> StepError {
        StepError::new(step, self.errno, self.call)
    }
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
        {
            self.peers.insert(at, clone_tree(path, *recursive)?);
        }
        Ok(())
    }

    fn apply(&mut self, at: usize, op: &Op) -> Done {
        match op {
            Op::RootOverlay { lower, upper, options, at } => {
                let mount = overlay(lower, upper.as_ref(), options, at)?;
                self.root = Some(Root::new(mount));
                Ok(())
            }
            Op::RootBind { source } => {
                let tree = clone_tree(source, true)?;
                attach_path(&tree, source)?;
                self.root = Some(Root::new(tree));
                Ok(())
            }
            Op::Mount { fstype, source, target, attrs, options, copy_up } => {
                if *copy_up {
                    return Err(Failed { errno: Errno::OPNOTSUPP, call: "tmpcopyup".into() });
                }
                let mount = new_mount(fstype, source, attrs, options)?;
                self.attach(&mount, target, Make::Directory)
            }
            Op::Bind {
                source,
                target,
                recursive,
                attrs,
                recursive_attrs,
                clear,
                propagation,
                id_maps,
            } => {
                let tree = match (self.peers.remove(&at), source) {
                    (Some(tree), _) => tree,
                    (None, Source::Host(path)) => clone_tree(path, *recursive)?,
                    (None, Source::Slot(slot)) => self.slot(*slot)?,
                };
                self.bind(
                    &tree,
                    target,
                    *recursive,
                    [attrs, recursive_attrs, clear],
                    *propagation,
                    id_maps.as_ref(),
                )
            }
            Op::Cgroups { target, attrs } => self.cgroups(target, attrs),
            Op::Device { .. } => self.device(op),
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
            Op::Sysctl { name, value } => sysctl(name, value),
            Op::Hostname(name) => rustix::system::sethostname(name.as_bytes())
                .map_err(of(format!("sethostname({name})"))),
            Op::Domainname(name) => rustix::system::setdomainname(name.as_bytes())
                .map_err(of(format!("setdomainname({name})"))),
            Op::Pivot => self.pivot(),
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

    fn bind(
        &self,
        tree: &OwnedFd,
        target: &str,
        recursive: bool,
        [attrs, recursive_attrs, clear]: [&Attrs; 3],
        propagation: Option<Propagation>,
        id_maps: Option<&IdMaps>,
    ) -> Done {
        if id_maps.is_some() {
            return Err(Failed { errno: Errno::OPNOTSUPP, call: "mount_setattr(IDMAP)".into() });
        }
        let (kind, ..) = kind(tree.as_fd()).map_err(of("statx(source)"))?;
        let make = if kind == FileType::Directory { Make::Directory } else { Make::File };
        let (set, mut clear) = (bits(attrs), bits(clear));
        if set & Attr::ATIME != 0 || attrs.relatime {
            clear |= Attr::ATIME;
        }
        if set != 0 || clear != 0 {
            let attr = Attr { set, clear, ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), false, &attr)?;
        }
        let set = bits(recursive_attrs);
        if set != 0 {
            let attr = Attr { set, ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), true, &attr)?;
        }
        if let Some(propagation) = propagation {
            let attr = Attr { propagation: propagation_bits(propagation), ..Attr::default() };
            hull_sys::mount_setattr(tree.as_fd(), recursive, &attr)?;
        }
        self.attach(tree, target, make)
    }

    /// The cgroup tree as the container sees it.
    fn cgroups(&self, target: &str, attrs: &Attrs) -> Done {
        let host = Host::detect().map_err(|err| of(err.to_string())(Errno::IO))?;
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
            self.attach(&tree, &format!("{target}/{name}"), Make::Directory)?;
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
            // Where nodes cannot be made (user namespace), the host's is bound.
            Err(Errno::PERM) => {
                let tree = clone_tree(path, false)?;
                return self.attach(&tree, path, Make::File);
            }
            Err(errno) => return Err(of(format!("mknodat({path})"))(errno)),
        }
        let owner = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&parent, name, Some(owner.0), Some(owner.1), nofollow)
            .map_err(of(format!("fchownat({path})")))?;
        // The mode of mknod went through the umask.
        rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(*mode), rustix::fs::AtFlags::empty())
            .map_err(of(format!("fchmodat({path})")))
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

    fn mask(&self, path: &str) -> Done {
        let root = self.root()?;
        let found = match root.find(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(of(format!("openat2({path})")))?,
        };
        let (of_what, ..) = kind(found.as_fd()).map_err(of(format!("statx({path})")))?;
        let cover = if of_what == FileType::Directory {
            let attrs = Attrs { rdonly: true, ..Attrs::default() };
            new_mount(
                "tmpfs",
                "tmpfs",
                &attrs,
                &[("size".into(), Some("0k".into())), ("nr_blocks".into(), Some("1".into()))],
            )?
        } else {
            let null = root.find("/dev/null").map_err(of("openat2(/dev/null)"))?;
            let verified = kind(null.as_fd()).map_err(of("statx(/dev/null)"))?;
            if verified != (FileType::CharacterDevice, 1, 3) {
                return Err(of("statx(/dev/null) is not the null device")(Errno::NODEV));
            }
            clone_fd(null.as_fd(), false)?
        };
        attach(&cover, found.as_fd()).map_err(of(format!("move_mount({path})")))
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

/// The bits of `mount_setattr(2)`.
fn bits(attrs: &Attrs) -> u64 {
    [
        (attrs.rdonly, Attr::RDONLY),
        (attrs.nosuid, Attr::NOSUID),
        (attrs.nodev, Attr::NODEV),
        (attrs.noexec, Attr::NOEXEC),
        (attrs.noatime, Attr::NOATIME),
        (attrs.strictatime, Attr::STRICTATIME),
        (attrs.nodiratime, Attr::NODIRATIME),
        (attrs.nosymfollow, Attr::NOSYMFOLLOW),
    ]
    .into_iter()
    .filter(|(on, _)| *on)
    .fold(0, |all, (_, bit)| all | bit)
}

fn propagation_bits(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => MS_PRIVATE,
        Propagation::Slave => MS_SLAVE,
        Propagation::Shared => MS_SHARED,
        Propagation::Unbindable => MS_UNBINDABLE,
    }
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// A detached copy of what is at a path of the host; links in it are followed.
fn clone_tree(path: &str, recursive: bool) -> Done<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive)).map_err(of(format!("open_tree({path}, CLONE)")))
}

/// A detached copy of what a descriptor names.
pub(crate) fn clone_fd_errno(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(fd, c"", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> Done<OwnedFd> {
    clone_fd_errno(fd, recursive).map_err(of("open_tree(descriptor, CLONE)"))
}

pub(crate) fn attach(mount: &OwnedFd, at: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", at, c"", flags)
}

fn attach_path(mount: &OwnedFd, at: &str) -> Done {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, c"", CWD, at, flags).map_err(of(format!("move_mount({at})")))
}

/// A new, detached instance of a file system.
fn new_mount(
    fstype: &str,
    source: &str,
    attrs: &Attrs,
    options: &[(String, Option<String>)],
) -> Done<OwnedFd> {
    let call = |what: &str| format!("{what}({fstype})");
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(of(call("fsopen")))?;
    fsconfig_set_string(&context, "source", source).map_err(of(call("fsconfig source")))?;
    for (key, value) in options {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        };
        set.map_err(of(format!("fsconfig({fstype}, {key})")))?;
    }
    fsconfig_create(&context).map_err(of(call("fsconfig create")))?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(bits(attrs)).unwrap_or(0));
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(of(call("fsmount")))
}

/// The overlay, attached at `at`; the descriptor of its root.
fn overlay(
    lower: &[String],
    upper: Option<&(String, String)>,
    options: &[(String, Option<String>)],
    at: &str,
) -> Done<OwnedFd> {
    let mut named = Vec::new();
    if let Some((upper, work)) = upper {
        named.push(("upperdir".to_owned(), Some(upper.clone())));
        named.push(("workdir".to_owned(), Some(work.clone())));
    }
    named.extend(options.iter().cloned());
    // One layer at a time, of any number and length: Linux 6.8. The older form is one text of at
    // most a page.
    let each = lower.iter().map(|dir| ("lowerdir+".to_owned(), Some(dir.clone())));
    let all: Vec<_> = each.chain(named.iter().cloned()).collect();
    match new_mount("overlay", "overlay", &Attrs::default(), &all) {
        Ok(mount) => {
            attach_path(&mount, at)?;
            Ok(mount)
        }
        Err(failed) if failed.errno == Errno::INVAL && failed.call.contains("lowerdir+") => {
            old_overlay(lower, &named, at)
        }
        Err(failed) => Err(failed),
    }
}

fn old_overlay(lower: &[String], named: &[(String, Option<String>)], at: &str) -> Done<OwnedFd> {
    let mut data = format!("lowerdir={}", lower.join(":"));
    for (key, value) in named {
        data.push(',');
        data.push_str(key);
        if let Some(value) = value {
            data.push('=');
            data.push_str(value);
        }
    }
    let data = std::ffi::CString::new(data).map_err(|_| of("mount(overlay)")(Errno::INVAL))?;
    rustix::mount::mount(
        "overlay",
        at,
        "overlay",
        rustix::mount::MountFlags::empty(),
        data.as_c_str(),
    )
    .map_err(of(format!("mount(overlay, {} layers)", lower.len())))?;
    rustix::fs::openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(of(format!("open({at})")))
}

/// Writes a kernel setting, after making sure that it is really procfs that is written to.
pub(crate) fn write_sysctl(name: &str, value: &str) -> Result<(), (Errno, String)> {
    // Dots separate; a name with slashes may have dots in its parts (a link's name).
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let whole = format!("/proc/sys/{path}");
    let failed = |errno| (errno, format!("write({whole})"));
    let proc = fs::File::open("/proc")
        .map_err(|err| failed(Errno::from_io_error(&err).unwrap_or(Errno::IO)))?;
    let magic = fstatfs(&proc).map_err(failed)?.f_type;
    if u64::try_from(magic).unwrap_or(0) != PROC_MAGIC {
        return Err(failed(Errno::NODEV));
    }
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(
        &proc,
        format!("sys/{path}"),
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
    .map_err(failed)?;
    rustix::io::write(&file, value.as_bytes()).map(drop).map_err(failed)
}

fn sysctl(name: &str, value: &str) -> Done {
    write_sysctl(name, value).map_err(|(errno, call)| Failed { errno, call })
}
