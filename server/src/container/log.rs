// SPDX-License-Identifier: Apache-2.0
//! Where a container's log is, and opening it. The monitor gets the descriptor and never opens a
//! path.
//!
//! A log path cannot leave the pod's log directory: it is checked as text, and opened beneath the
//! directory's descriptor without following links.
//!
//! A process that may write to the node's logs (a log collector, a pod with that directory as a volume) can
//! put anything there between two opens. So what is there is looked at without opening it, and only
//! a regular file with one name is opened, by its own descriptor: never a device or FIFO, whose
//! opening alone does something, and never another name of a file that lies elsewhere. Each open,
//! by StartContainer, ReopenContainerLog or a daemon that was started again, is this one.

use super::ContainerRecord;
use crate::error::Error;
use crate::pod::PodRecord;
use crate::storage::Storage;
use hull_proto::cri;
use hull_sys::text::shown;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Longest path and longest name in a path that the kernel takes (`PATH_MAX` without its NUL, `NAME_MAX`), in bytes.
const PATH_BYTES_MAX: usize = 4095;
const NAME_BYTES_MAX: usize = 255;
/// How much of a path is shown in a message, in bytes.
const SHOWN_BYTES_MAX: usize = 80;

/// Tries to open a log that another process creates and removes at the same time.
const TRIES_MAX: usize = 8;

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
    let invalid = |field| move |why| Error::Invalid { field, why };
    check_directory(directory).map_err(invalid("sandbox_config.log_directory"))?;
    let stays = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !stays {
        let shown = shown(path, SHOWN_BYTES_MAX);
        return Err(invalid("config.log_path")(format!(
            "`{shown}` leaves the pod's log directory"
        )));
    }
    can_be_opened(path, directory.len() + 1).map_err(invalid("config.log_path"))
}

/// Checks a pod's log directory. The error explains what is wrong with it.
pub(crate) fn check_directory(directory: &str) -> Result<(), String> {
    if !directory.starts_with('/') {
        return Err(format!("`{}` is not an absolute path", shown(directory, SHOWN_BYTES_MAX)));
    }
    can_be_opened(directory, 0)
}

/// Checks what the kernel requires of every path, here one behind `before` other bytes: `path_resolution(7)`.
fn can_be_opened(path: &str, before: usize) -> Result<(), String> {
    let text = shown(path, SHOWN_BYTES_MAX);
    if path.contains('\0') {
        return Err(format!("`{text}` contains a NUL byte"));
    }
    let bytes = before + path.len();
    if bytes > PATH_BYTES_MAX {
        return Err(format!(
            "`{text}` makes a path of {bytes} bytes; the most is {PATH_BYTES_MAX}"
        ));
    }
    match path.split('/').map(str::len).max() {
        Some(bytes) if bytes > NAME_BYTES_MAX => {
            Err(format!("`{text}` has a name of {bytes} bytes; the most is {NAME_BYTES_MAX}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// An open log, and the directory that it is in.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) file: OwnedFd,
    pub(crate) directory: OwnedFd,
}

/// Opens a container's log, on storage that may not answer.
pub(crate) async fn open_in_time(
    storage: &Storage,
    pod: &Arc<PodRecord>,
    record: &Arc<ContainerRecord>,
) -> Result<Option<OpenLog>, Error> {
    let (of, made) = (Arc::clone(pod), Arc::clone(record));
    let opened = storage
        .within("open the log", &pod.config.log_directory, move || open(&of.config, &made.config));
    opened.await?
}

/// Opens the log for appending, and makes it and the directories on the way when missing. `None`
/// when the pod or the container asks for no log.
pub(crate) fn open(
    pod: &cri::PodSandboxConfig,
    config: &cri::ContainerConfig,
) -> Result<Option<OpenLog>, Error> {
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
    // Its parents are the node's own, and may be links; the directory is the pod's.
    let mut at = openat(CWD, directory.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())
        .map_err(failed(format!("open({directory}, NOFOLLOW)")))?;
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
    match open_regular(&at, &name) {
        Ok(file) => Ok(Some(OpenLog { file, directory: at })),
        Err(Refused::Errno(errno)) => Err(failed(format!("openat2({})", name.display()))(errno)),
        Err(Refused::Not(what)) => Err(Error::LogFile { path: whole, what }),
    }
}

/// Why a log is not opened.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Errno(Errno),
    /// Something other than a regular file, named in words.
    Not(&'static str),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// Opens the regular file `name` for appending, or makes it.
fn open_regular(at: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Refused> {
    let how = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK;
    for _ in 0..TRIES_MAX {
        match beneath(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) => {
                check_regular(&found)?;
                // The very file that was looked at, whatever has its name by now. `proc(5)`.
                let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
                return Ok(openat(CWD, itself, how, Mode::empty())?);
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        match beneath(at, name, how | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o640)) {
            // Somebody else made it in between.
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
    Err(Refused::Errno(Errno::AGAIN))
}

fn check_regular(found: &OwnedFd) -> Result<(), Refused> {
    let stat = rustix::fs::fstat(found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_nlink > 1 => {
            Err(Refused::Not("a file with further names (hard links)"))
        }
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(Refused::Not("a symbolic link")),
        FileType::Directory => Err(Refused::Not("a directory")),
        FileType::CharacterDevice | FileType::BlockDevice => Err(Refused::Not("a device")),
        FileType::Fifo => Err(Refused::Not("a FIFO")),
        FileType::Socket => Err(Refused::Not("a socket")),
        FileType::Unknown => Err(Refused::Not("not a file")),
    }
}

fn beneath(at: &OwnedFd, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    openat2(at.as_fd(), name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Chain;
    use std::os::unix::net::UnixListener;

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
        for bad in ["var/log", "/var/log\0", &format!("/{}", "x".repeat(256)), &"/x".repeat(2047)] {
            let (pod, container) = configs(bad, "web.log");
            path(&pod, &container).unwrap_err();
        }
        for bad in ["x".repeat(256), "x/".repeat(2500)] {
            let (pod, container) = configs("/var/log/pods/p", &bad);
            let refused = path(&pod, &container).unwrap_err();
            assert!(refused.to_string().contains("bytes"), "{refused}");
        }
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
    fn only_a_regular_file_with_one_name_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let (pod, container) = configs(logs.to_str().unwrap(), "web/0.log");
        let first = open(&pod, &container).unwrap().unwrap().file;
        rustix::io::write(&first, b"1").unwrap();
        rustix::io::write(open(&pod, &container).unwrap().unwrap().file, b"2").unwrap();
        let log = logs.join("web/0.log");
        assert_eq!(fs::read(&log).unwrap(), b"12", "an old one is gone on with");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "host").unwrap();
        let put: [(&str, &dyn Fn()); 6] = [
            ("hard links", &|| fs::hard_link(&elsewhere, &log).unwrap()),
            ("symbolic link", &|| std::os::unix::fs::symlink(&elsewhere, &log).unwrap()),
            ("symbolic link", &|| std::os::unix::fs::symlink("/nowhere", &log).unwrap()),
            ("FIFO", &|| node(&log, FileType::Fifo, 0)),
            ("device", &|| node(&log, FileType::CharacterDevice, rustix::fs::makedev(1, 5))),
            ("socket", &|| drop(UnixListener::bind(&log).unwrap())),
        ];
        for (what, put) in put {
            // Nobody else may make a device.
            if what == "device" && !rustix::process::geteuid().is_root() {
                continue;
            }
            fs::remove_file(&log).unwrap();
            put();
            let refused = open(&pod, &container).unwrap_err();
            assert!(Chain(&refused).to_string().contains(what), "{what}: {refused}");
        }
        assert_eq!(fs::read(&elsewhere).unwrap(), b"host");
        fs::remove_file(&log).unwrap();
        fs::create_dir(&log).unwrap();
        assert!(open(&pod, &container).unwrap_err().to_string().contains("directory"));
    }

    /// Opening a FIFO would block, and its reader must not notice the check.
    fn node(path: &Path, kind: FileType, device: u64) {
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
    }

    #[test]
    fn the_pods_own_directory_is_no_link_though_those_above_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir_all(real.join("pod")).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let (pod, container) = configs(link.join("pod").to_str().unwrap(), "0.log");
        open(&pod, &container).unwrap().unwrap();
        let (pod, container) = configs(link.to_str().unwrap(), "0.log");
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
