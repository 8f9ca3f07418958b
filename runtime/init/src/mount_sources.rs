// SPDX-License-Identifier: Apache-2.0
//! Mounts that the parent creates for the child: those that need rights over the host's file systems, which
//! a child in a user namespace of its own has given up.
//!
//! Idmapped mounts (`MOUNT_ATTR_IDMAP`, Linux 5.12), and with a user namespace that is not ours every
//! source of the host and every device node. Without either there is nothing to do here, and the child
//! clones its sources itself.

use crate::bind::{Bind, map_ids};
use crate::id_maps::{to_host_id, user_namespace};
use crate::ids;
use crate::image_volume;
use crate::mount::{
    MS_SLAVE, Result, clone_at, clone_tree, errno_context, finish, new_mount, open_context,
    set_option,
};
use crate::plan::{Attrs, IdMap, IdMaps, Namespace, Op, Plan, Source, Step, StepError};
use hull_sys::Attr;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::fsconfig_set_fd;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Detached mounts, by the index of the operation that attaches them.
pub(crate) type Sources = HashMap<usize, OwnedFd>;

/// Opens the sources that the child cannot open. `joined` is the user namespace that it will be created in.
/// With `only_child` it opens all that it has rights over itself.
pub(crate) fn open(
    plan: &Plan,
    joined: Option<BorrowedFd<'_>>,
    only_child: bool,
) -> Result<Sources, StepError> {
    let mut builder = SourceBuilder {
        user: plan.namespaces.user != Namespace::Inherit && !only_child,
        maps: &plan.id_maps,
        joined,
        made: Vec::new(),
        nodes: None,
    };
    let mut sources = Sources::new();
    for (at, op) in plan.ops.iter().enumerate() {
        let step = Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
        let source = builder.source(at, op).map_err(|failed| failed.at(step))?;
        if let Some(source) = source {
            sources.insert(at, source);
        }
    }
    Ok(sources)
}

/// Tries the features of the kernel, and of the file systems of `lower`, that a container in a user namespace
/// needs: mapped layers, given by descriptor, and device nodes on a detached mount. Leaves nothing behind.
pub fn try_user_namespaces(lower: &[String]) -> Result<(), StepError> {
    let range = vec![IdMap { container_id: 0, host_id: 65_536, length: 65_536 }];
    let maps = IdMaps { uids: range.clone(), gids: range };
    let mut builder =
        SourceBuilder { user: true, maps: &maps, joined: None, made: Vec::new(), nodes: None };
    let overlay = Op::RootOverlay {
        lower: lower.to_vec(),
        upper: None,
        options: Vec::new(),
        at: String::new(),
    };
    let null = Op::Device {
        path: "/dev/null".into(),
        block: false,
        fifo: false,
        major: 1,
        minor: 3,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    for (at, op) in [overlay, null].iter().enumerate() {
        let step = Step::Op(u32::try_from(at).unwrap_or(u32::MAX));
        drop(builder.source(at, op).map_err(|failed| failed.at(step))?);
    }
    Ok(())
}

struct SourceBuilder<'a> {
    /// The child is in a user namespace that is not ours.
    user: bool,
    /// Id maps of the child's user namespace.
    maps: &'a IdMaps,
    joined: Option<BorrowedFd<'a>>,
    /// User namespaces that were created for mapping, by their maps.
    made: Vec<(IdMaps, OwnedFd)>,
    /// The detached tmpfs in which device nodes are created.
    nodes: Option<OwnedFd>,
}

impl SourceBuilder<'_> {
    fn source(&mut self, at: usize, op: &Op) -> Result<Option<OwnedFd>> {
        match op {
            Op::Bind { .. } | Op::BindWith { .. } => match Bind::of(op) {
                Some(bind) if self.user || bind.id_maps.is_some() => self.bind(&bind),
                _ => Ok(None),
            },
            Op::RootOverlay { lower, upper, options, .. } if self.user => {
                let maps = self.maps;
                let user = self.namespace(maps)?;
                mapped_overlay(lower, upper.as_ref(), options, maps, user).map(Some)
            }
            Op::RootBind { source } if self.user => {
                slave(clone_tree(source, true)?, true).map(Some)
            }
            Op::Device { fifo: false, .. } if self.user => self.node(at, op).map(Some),
            Op::RootOverlay { .. }
            | Op::RootBind { .. }
            | Op::Device { .. }
            | Op::Mount { .. }
            | Op::MountWith { .. }
            | Op::Cgroups { .. }
            | Op::Symlink { .. }
            | Op::Mkdir { .. }
            | Op::Mask { .. }
            | Op::Readonly { .. }
            | Op::RootReadonly
            | Op::RootPropagation(_)
            | Op::Sysctl { .. }
            | Op::Hostname(_)
            | Op::Domainname(_)
            | Op::LoopbackUp
            | Op::Pivot
            | Op::MoveRoot
            | Op::Init => Ok(None),
        }
    }

    /// The source of a bind mount. For one of the container's own files it is the user namespace with the maps.
    fn bind(&mut self, bind: &Bind<'_>) -> Result<Option<OwnedFd>> {
        match bind.source {
            Source::Host(path) => {
                let mut tree = clone_tree(path, bind.recursive)?;
                if !bind.is_shared() {
                    tree = slave(tree, bind.recursive)?;
                }
                if let Some((maps, recursive)) = bind.id_maps {
                    map_ids(&tree, recursive, self.namespace(maps)?)?;
                }
                Ok(Some(tree))
            }
            Source::Image { lower, path, .. } => {
                let maps = bind.id_maps.map_or(self.maps, |(maps, _)| maps);
                let user = self.namespace(maps)?;
                let whole = mapped_overlay(lower, None, &[], maps, user)?;
                image_volume::part(whole, path).map(Some)
            }
            Source::Inside(path) => match bind.id_maps {
                Some((maps, _)) => {
                    self.namespace(maps)?.try_clone_to_owned().map(Some).map_err(|_| {
                        errno_context(format!("dup(user namespace for {path})"))(Errno::MFILE)
                    })
                }
                None => Ok(None),
            },
            Source::Slot(_) | Source::Root => Ok(None),
        }
    }

    /// A user namespace with these maps: the child's own if it has them, else one that is created for it.
    fn namespace(&mut self, maps: &IdMaps) -> Result<BorrowedFd<'_>> {
        if let Some(joined) = self.joined
            && maps == self.maps
        {
            return Ok(joined);
        }
        let at = match self.made.iter().position(|(of, _)| of == maps) {
            Some(at) => at,
            None => {
                self.made.push((maps.clone(), user_namespace(maps)?));
                self.made.len() - 1
            }
        };
        Ok(self.made[at].1.as_fd())
    }

    /// A device node, which nobody in a user namespace may make: on a file system of its own that
    /// belongs to the host, with the owner that the container sees as the requested one. So it is
    /// that very device whatever the host has at its path, and changing its owner or mode inside
    /// changes nothing of the host's.
    fn node(&mut self, at: usize, op: &Op) -> Result<OwnedFd> {
        let Op::Device { path, block, major, minor, mode, uid, gid, .. } = op else {
            return Err(errno_context("mknodat(no device)")(Errno::INVAL));
        };
        let nodes = match &self.nodes {
            Some(nodes) => nodes,
            None => {
                let attrs = Attrs { nosuid: true, noexec: true, ..Attrs::default() };
                let mode = [("mode".to_owned(), Some("755".to_owned()))];
                self.nodes.insert(new_mount("tmpfs", "tmpfs", &attrs, &mode)?)
            }
        };
        let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let (name, mode) = (at.to_string(), Mode::from_raw_mode(*mode));
        rustix::fs::mknodat(nodes, &name, kind, mode, rustix::fs::makedev(*major, *minor))
            .map_err(errno_context(format!("mknodat({path})")))?;
        let uid = to_host_id(&self.maps.uids, *uid).and_then(ids::user);
        let gid = to_host_id(&self.maps.gids, *gid).and_then(ids::group);
        rustix::fs::chownat(nodes, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(errno_context(format!("fchownat({path})")))?;
        rustix::fs::chmodat(nodes, &name, mode, AtFlags::empty())
            .map_err(errno_context(format!("fchmodat({path})")))?;
        clone_at(nodes, &name)
    }
}

fn slave(tree: OwnedFd, recursive: bool) -> Result<OwnedFd> {
    let attr = Attr { propagation: MS_SLAVE, ..Attr::default() };
    hull_sys::mount_setattr(tree.as_fd(), recursive, &attr)?;
    Ok(tree)
}

/// An overlay of the host over layers whose ids are mapped: what belongs to root in a layer belongs
/// to the container's root in it. Layers given by descriptor: Linux 6.13.
fn mapped_overlay(
    lower: &[String],
    upper: Option<&(String, String)>,
    options: &[(String, Option<String>)],
    maps: &IdMaps,
    user: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let context = open_context("overlay", "overlay")?;
    // A detached mount is taken down when its first descriptor closes, whatever else is open in it.
    let mut trees = Vec::with_capacity(lower.len());
    for dir in lower {
        let tree = clone_tree(dir, false)?;
        map_ids(&tree, false, user)?;
        set_layer(&context, "lowerdir+", dir, (&tree, "."))?;
        trees.push(tree);
    }
    if let Some((upper, work)) = upper {
        chown_root(upper, maps)?;
        set_layer(&context, "upperdir", upper, (CWD, upper))?;
        set_layer(&context, "workdir", work, (CWD, work))?;
    }
    for (key, value) in options {
        set_option(&context, "overlay", key, value.as_deref())?;
    }
    // A device that an image brings belongs to the host, whatever the owner of the node in the image.
    let mount = finish(&context, "overlay", &Attrs { nodev: true, ..Attrs::default() });
    drop(trees);
    mount
}

/// Sets a layer of the overlay: the directory `shown`, resolved from the first of `at`. By descriptor, since a
/// path may have 255 bytes at most.
fn set_layer(context: &OwnedFd, option: &str, shown: &str, at: (impl AsFd, &str)) -> Result {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let layer = rustix::fs::openat(at.0, at.1, flags, Mode::empty())
        .map_err(errno_context(format!("open({shown})")))?;
    fsconfig_set_fd(context, option, &layer)
        .map_err(errno_context(format!("fsconfig(overlay, {option}, descriptor of {shown})")))
}

/// The top of the upper layer is the container's `/`: it must belong to its root.
fn chown_root(upper: &str, maps: &IdMaps) -> Result {
    let failed = |what: &str| errno_context(format!("{what}({upper})"));
    let stat = rustix::fs::statx(CWD, upper, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .map_err(failed("statx"))?;
    if (stat.stx_uid, stat.stx_gid) != (0, 0) {
        return Ok(());
    }
    let uid = to_host_id(&maps.uids, 0).and_then(ids::user);
    let gid = to_host_id(&maps.gids, 0).and_then(ids::group);
    rustix::fs::chown(upper, uid, gid).map_err(failed("chown"))
}
