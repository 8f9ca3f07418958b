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
use super::root::Root;
use hull_proto::cri as api;
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

/// The root of a container that does not run. `path` is what is copied; it is changed if `writes` is set.
pub(super) async fn root(
    client: &mut Client,
    container: &api::Container,
    path: &Path,
    writes: bool,
) -> Result<Root> {
    const OPERATION: &str = "find the layers of the container";
    let answer = verbose::container(client, &container.id).await?;
    let mut info = verbose::info(&answer.info, OPERATION)?;
    let config: api::ContainerConfig = verbose::config(&answer.info, OPERATION)?;
    check(&config, path)?;
    let layers: Layers = serde_json::from_value(info["rootfs"].take())
        .map_err(|_| Error::Response { operation: OPERATION, missing: "root filesystem" })?;
    let root = mounted_apart(layers, writes)
        .map_err(Error::io("mount the layers of the container, which needs root"))?;
    // A start in between would mount the same writable layer, which overlayfs does not support.
    let state = verbose::container(client, &container.id).await?.status.unwrap_or_default().state();
    if state == api::ContainerState::ContainerRunning {
        let why = "it was started meanwhile; copy again".to_owned();
        return Err(Error::Copy { what: container.id.clone(), why });
    }
    Ok(Root { container: Some(root), owners: Owners::host() })
}

/// Refuses paths and containers whose files are not in the layers.
fn check(config: &api::ContainerConfig, path: &Path) -> Result<()> {
    let refused = |why: String| {
        let what = path.display().to_string();
        Err(Error::Copy { what, why })
    };
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let userns = security.and_then(|of| of.namespace_options.as_ref()?.userns_options.as_ref());
    if userns.is_some_and(|of| of.mode() == api::NamespaceMode::Pod) {
        return refused(
            "the container has a user namespace, whose owners exist only while it runs".into(),
        );
    }
    let wanted = hull_plan::clean(&format!("/{}", path.display()));
    let volume = config.mounts.iter().find(|mount| {
        let at = hull_plan::clean(&mount.container_path);
        wanted
            .strip_prefix(at.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    match volume {
        Some(volume) => refused(format!(
            "it is in the volume at {}, which is there only while the container runs; its source is {}",
            volume.container_path,
            if volume.host_path.is_empty() { "an image" } else { &volume.host_path }
        )),
        None => Ok(()),
    }
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
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    }
}
