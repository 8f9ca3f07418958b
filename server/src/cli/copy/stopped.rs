// SPDX-License-Identifier: Apache-2.0
//! The files of a container that does not run: its layers, mounted where nobody else sees them.
//!
//! The rule: the host gets no mount. A thread with a mount namespace of its own mounts the overlay, opens its root and
//! takes the mount off again; the descriptor alone keeps it. For reading, the writable layer is one more lower layer,
//! so nothing is written to it.

use super::super::client::Client;
use super::super::error::{Error, Result};
use super::super::verbose;
use super::owners::Owners;
use super::root::{Hold, Root};
use hull_proto::{admin, cri as api};
use hull_sys::flags::NEWNS;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use serde::Deserialize;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

/// The layers of a container.
#[derive(Debug, Deserialize)]
struct Layers {
    /// The topmost first.
    lower: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    /// An empty directory, for the moment of the mount.
    at: PathBuf,
}

/// The root of a container that does not run, and its hold. `path` is what is copied; it is changed if `writes` is set.
pub(super) async fn root(
    client: &mut Client,
    container: &api::Container,
    path: &Path,
    writes: bool,
) -> Result<(Root, Hold)> {
    const OPERATION: &str = "find the layers of the container";
    // Held until the copy is done: a start would mount the same writable layer, which overlayfs does not support.
    let request = admin::HoldRequest { container_id: container.id.clone() };
    let mut hold = client.admin.hold(request).await?.into_inner();
    hold.message().await?.ok_or(Error::Response { operation: OPERATION, missing: "hold" })?;
    let answer = verbose::container(client, &container.id).await?;
    let mut info = verbose::info(&answer.info, OPERATION)?;
    let config: api::ContainerConfig = verbose::config(&answer.info, OPERATION)?;
    check(&config, path)?;
    if info["runtimeSpec"]["linux"]["uidMappings"].is_array() {
        return Err(in_user_namespace(path));
    }
    let layers: Layers = serde_json::from_value(info["rootfs"].take())
        .map_err(|_| Error::Response { operation: OPERATION, missing: "root filesystem" })?;
    let root = mounted_apart(layers, writes).map_err(|source| not_mounted(path, source))?;
    let root = Root { container: Some(root), owners: Owners::host() };
    let mounts = config.mounts.iter().map(|mount| Path::new(&mount.container_path));
    if let Some(at) = volume(&root, path, mounts) {
        return Err(in_volume(&config, path, at));
    }
    Ok((root, Hold(hold)))
}

/// The error of layers that were not mounted.
fn not_mounted(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        let why = "the layers of its container are not there: it is being removed, or is not complete yet; look at `hull ps -a`, then copy again";
        return Error::Copy { what: path.display().to_string(), why: why.into() };
    }
    let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
    let needs = if is_denied { ", which needs root" } else { "" };
    Error::io(format!("mount the layers of the container{needs}"))(source)
}

/// The mount point that `path` leads into by links of the container, if it is one.
fn volume<'m>(
    root: &Root,
    path: &Path,
    mut mounts: impl Iterator<Item = &'m Path>,
) -> Option<&'m Path> {
    // What does not exist yet is in the directory above.
    let wanted = path.ancestors().find_map(|path| real(root, path))?;
    mounts.find(|at| real(root, at).is_some_and(|at| wanted.starts_with(at)))
}

/// The path without links, as the kernel names what it leads to in the root.
fn real(root: &Root, path: &Path) -> Option<PathBuf> {
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let opened = root.open(path, OFlags::PATH, true).ok()?;
    std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()
}

/// The error of a container that has a user namespace.
fn in_user_namespace(path: &Path) -> Error {
    let why = "the container has a user namespace, whose owners exist only while it runs".into();
    Error::Copy { what: path.display().to_string(), why }
}

/// Refuses paths and containers whose files are not in the layers.
fn check(config: &api::ContainerConfig, path: &Path) -> Result<()> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let userns = security.and_then(|of| of.namespace_options.as_ref()?.userns_options.as_ref());
    if userns.is_some_and(|of| of.mode() == api::NamespaceMode::Pod) {
        return Err(in_user_namespace(path));
    }
    let wanted = hull_plan::clean(&format!("/{}", path.display()));
    let volume = config.mounts.iter().find(|mount| {
        let at = hull_plan::clean(&mount.container_path);
        wanted
            .strip_prefix(at.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    match volume {
        Some(volume) => Err(in_volume(config, path, Path::new(&volume.container_path))),
        None => Ok(()),
    }
}

/// The error about a path in the volume that is mounted at `at`.
fn in_volume(config: &api::ContainerConfig, path: &Path, at: &Path) -> Error {
    let source = config.mounts.iter().find(|mount| Path::new(&mount.container_path) == at);
    let source = source.map_or("", |mount| mount.host_path.as_str());
    let why = format!(
        "it is in the volume at {}, which is there only while the container runs; its source is {}",
        at.display(),
        if source.is_empty() { "an image" } else { source }
    );
    Error::Copy { what: path.display().to_string(), why }
}

/// Mounts the layers in a mount namespace that ends with this call, and returns the root.
fn mounted_apart(layers: Layers, writes: bool) -> io::Result<OwnedFd> {
    let work = move || {
        // The thread has a mount namespace and a working directory of its own from here on.
        hull_sys::unshare(NEWNS).map_err(io::Error::other)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mounted(&layers, writes)
    };
    let thread = thread::Builder::new().name("mount".into()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread panicked"))?
}

/// Mounts the layers, opens the root, and takes the mount off.
fn mounted(layers: &Layers, writes: bool) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut held = Vec::with_capacity(layers.lower.len() + 2);
    let mut named = |path: &Path| -> io::Result<String> {
        let layer = openat(CWD, path, directory, Mode::empty())?;
        let name = layer.as_raw_fd().to_string();
        held.push(layer);
        Ok(name)
    };
    let mut lower = Vec::with_capacity(layers.lower.len() + 1);
    if !writes {
        lower.push(named(&layers.upper)?);
    }
    for layer in &layers.lower {
        lower.push(named(layer)?);
    }
    let mut data = format!("lowerdir={}", lower.join(":"));
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    if writes {
        data += &format!(",upperdir={},workdir={}", named(&layers.upper)?, named(&layers.work)?);
    } else {
        flags |= MountFlags::RDONLY;
    }
    let data = CString::new(data)?;
    // The options are one page: descriptors are short, and have no character that means something there.
    rustix::process::chdir("/proc/self/fd")?;
    mount("overlay", &layers.at, "overlay", flags, data.as_c_str())?;
    let root = openat(CWD, &layers.at, directory, Mode::empty())?;
    unmount(&layers.at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_failed_mount_says_that_root_is_needed_only_if_it_is() {
        let text = |kind: io::ErrorKind| not_mounted(Path::new("/x"), kind.into()).lines();
        let gone = text(io::ErrorKind::NotFound);
        assert!(gone.contains("being removed") && !gone.contains("root"), "{gone}");
        assert!(text(io::ErrorKind::PermissionDenied).contains("which needs root"));
        assert!(!text(io::ErrorKind::Other).contains("root"));
    }

    #[test]
    fn volumes_and_user_namespaces_are_refused() {
        let mount = |at: &str| api::Mount {
            container_path: at.into(),
            host_path: "/srv/data".into(),
            ..Default::default()
        };
        let mut config =
            api::ContainerConfig { mounts: vec![mount("/data/")], ..Default::default() };
        for path in ["/data", "data/x", "/etc/../data/y"] {
            let said = check(&config, Path::new(path)).unwrap_err().to_string();
            assert!(said.contains("/srv/data"), "{path}: {said}");
        }
        check(&config, Path::new("/database")).unwrap();
        let userns = api::UserNamespace { mode: 0, ..Default::default() };
        let options = api::NamespaceOption { userns_options: Some(userns), ..Default::default() };
        let security = api::LinuxContainerSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        };
        config.linux = Some(api::LinuxContainerConfig {
            security_context: Some(security),
            ..Default::default()
        });
        check(&config, Path::new("/etc")).unwrap_err();
    }

    #[test]
    fn layers_are_mounted_where_the_host_does_not_see_them() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Overlays do not lie on overlays.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["low", "top", "upper", "work", "at"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("low/a"), "low").unwrap();
        fs::write(at("low/b"), "low").unwrap();
        fs::write(at("top/a"), "top").unwrap();
        fs::write(at("upper/c"), "upper").unwrap();
        let layers = || Layers {
            lower: vec![at("top"), at("low")],
            upper: at("upper"),
            work: at("work"),
            at: at("at"),
        };
        let text = |root: &OwnedFd, name: &str| {
            let path = format!("/proc/self/fd/{}/{name}", root.as_raw_fd());
            fs::read_to_string(path).map_err(|err| err.kind())
        };
        let read = mounted_apart(layers(), false).unwrap();
        assert_eq!(text(&read, "a").unwrap(), "top");
        assert_eq!(text(&read, "b").unwrap(), "low");
        assert_eq!(text(&read, "c").unwrap(), "upper");
        let flags = OFlags::WRONLY | OFlags::CREATE;
        assert!(openat(read.as_fd(), "d", flags, Mode::RUSR).is_err(), "it is read-only");
        drop(read);
        let write = mounted_apart(layers(), true).unwrap();
        openat(write.as_fd(), "d", flags, Mode::RUSR).unwrap();
        assert!(fs::metadata(at("upper/d")).is_ok());
        assert_eq!(fs::read_dir(at("at")).unwrap().count(), 0);
        // A link of the image may lead into a volume.
        fs::create_dir_all(at("upper/run/sub")).unwrap();
        std::os::unix::fs::symlink("/run/sub", at("upper/way")).unwrap();
        drop(write);
        let read = mounted_apart(layers(), false).unwrap();
        let root = Root { container: Some(read), owners: Owners::host() };
        let found = |path: &str| volume(&root, Path::new(path), [Path::new("/run")].into_iter());
        assert_eq!(found("/way/new"), Some(Path::new("/run")));
        assert_eq!(found("run"), Some(Path::new("/run")));
        assert_eq!(found("/a"), None);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    }
}
