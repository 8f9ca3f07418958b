// SPDX-License-Identifier: Apache-2.0
//! Where a container's log is, and opening it. The monitor gets the descriptor and never opens a
//! path.
//!
//! A log path cannot leave the pod's log directory: it is checked as text, and opened beneath the
//! directory's descriptor without following links.

use crate::error::Error;
use hull_proto::cri;
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Whole path of the log; empty when none is asked for.
pub(crate) fn path(
    pod: &cri::PodSandboxConfig,
    config: &cri::ContainerConfig,
) -> Result<String, Error> {
    if pod.log_directory.is_empty() || config.log_path.is_empty() {
        return Ok(String::new());
    }
    check(&pod.log_directory, &config.log_path)?;
    Ok(PathBuf::from(&pod.log_directory).join(&config.log_path).to_string_lossy().into_owned())
}

fn check(directory: &str, path: &str) -> Result<(), Error> {
    let invalid = |field, why: String| Err(Error::Invalid { field, why });
    if !directory.starts_with('/') {
        return invalid(
            "sandbox_config.log_directory",
            format!("`{directory}` is no absolute path"),
        );
    }
    let stays = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if stays && path.len() < 4096 && !path.contains('\0') {
        return Ok(());
    }
    let shown: String = path.chars().take(80).flat_map(char::escape_default).collect();
    invalid("config.log_path", format!("`{shown}` leaves the pod's log directory"))
}

/// Opens the log for appending, and makes it and the directories on the way when missing. `None`
/// when the pod or the container asks for no log.
pub(crate) fn open(
    pod: &cri::PodSandboxConfig,
    config: &cri::ContainerConfig,
) -> Result<Option<OwnedFd>, Error> {
    let whole = path(pod, config)?;
    if whole.is_empty() {
        return Ok(None);
    }
    let failed = |call: String| {
        let whole = whole.clone();
        move |errno: Errno| Error::Log { path: whole, source: hull_sys::Error::new(errno, call) }
    };
    let directory = &pod.log_directory;
    fs::create_dir_all(directory).map_err(|err| {
        let errno = Errno::from_io_error(&err).unwrap_or(Errno::IO);
        failed(format!("mkdir({directory})"))(errno)
    })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(rustix::fs::CWD, directory.as_str(), flags, Mode::empty())
        .map_err(failed(format!("open({directory})")))?;
    let mut parts: Vec<_> = Path::new(&config.log_path).components().collect();
    let name = parts.pop().map(|part| part.as_os_str().to_owned()).unwrap_or_default();
    for part in parts {
        let part = part.as_os_str();
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(format!("mkdirat({})", part.display()))(errno)),
        }
        at = beneath(&at, part, flags, Mode::empty())
            .map_err(failed(format!("openat2({})", part.display())))?;
    }
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = beneath(&at, &name, flags, Mode::from_raw_mode(0o640))
        .map_err(failed(format!("openat2({})", name.display())))?;
    Ok(Some(file))
}

fn beneath(
    at: &OwnedFd,
    name: &std::ffi::OsStr,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    openat2(at.as_fd(), name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(directory: &str, path: &str) -> (cri::PodSandboxConfig, cri::ContainerConfig) {
        (
            cri::PodSandboxConfig { log_directory: directory.into(), ..Default::default() },
            cri::ContainerConfig { log_path: path.into(), ..Default::default() },
        )
    }

    #[test]
    fn a_log_path_cannot_leave_the_log_directory() {
        for bad in ["../x", "/etc/passwd", "a/../../x", "a/./../..", "x\0y"] {
            let (pod, container) = configs("/var/log/pods/p", bad);
            path(&pod, &container).unwrap_err();
        }
        let (pod, container) = configs("var/log", "x.log");
        path(&pod, &container).unwrap_err();
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let (pod, container) = configs(logs.to_str().unwrap(), "web/0.log");
        open(&pod, &container).unwrap().unwrap();
        fs::remove_dir_all(logs.join("web")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), logs.join("web")).unwrap();
        open(&pod, &container).unwrap_err();
        fs::remove_file(logs.join("web")).unwrap();
        fs::create_dir(logs.join("web")).unwrap();
        std::os::unix::fs::symlink("/etc/motd", logs.join("web/0.log")).unwrap();
        open(&pod, &container).unwrap_err();
    }

    #[test]
    fn no_directory_or_no_path_means_no_log() {
        for (directory, name) in [("", "x.log"), ("/tmp", "")] {
            let (pod, container) = configs(directory, name);
            assert!(open(&pod, &container).unwrap().is_none());
        }
    }
}
