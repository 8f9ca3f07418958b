// SPDX-License-Identifier: Apache-2.0
//! Pre-installed plugins: found in a directory, started with a connected socket as descriptor 3.
//!
//! They end with the daemon, however it ends: before the exec, [`exec_plugin`] sets a parent death signal, so
//! the kernel kills them when the daemon's main thread exits.

use crate::types::{is_index, is_name};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Descriptor of a plugin's socket.
const SOCKET_FD: i32 = 3;
/// Longest configuration of a plugin, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The hidden command of `hull` that starts a plugin.
pub const START_PLUGIN: &str = "start-nri-plugin";

/// Identity and configuration of a pre-installed plugin, which it does not choose itself.
#[derive(Debug, Clone)]
pub(crate) struct PreinstalledPlugin {
    pub(crate) index: String,
    pub(crate) name: String,
    pub(crate) config: String,
}

/// The program of a pre-installed plugin.
#[derive(Debug, Clone)]
pub(crate) struct PluginProgram {
    pub(crate) path: PathBuf,
    pub(crate) plugin: PreinstalledPlugin,
}

/// The plugins in `dir`, sorted by name, and the reasons why other files there are skipped.
pub(crate) fn find(dir: &Path, configs: &Path) -> (Vec<PluginProgram>, Vec<String>) {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return (found, wrong),
        Err(err) => return (found, vec![format!("cannot read {}: {err}", dir.display())]),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_program = fs::metadata(&path)
            .is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
        if !is_program {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let named = name.split_once('-').filter(|(index, name)| is_index(index) && is_name(name));
        let Some((index, name)) = named else {
            wrong.push(format!("{} is not named NN-name", path.display()));
            continue;
        };
        match config(configs, index, name) {
            Ok(config) => {
                let plugin =
                    PreinstalledPlugin { index: index.to_owned(), name: name.to_owned(), config };
                found.push(PluginProgram { path, plugin });
            }
            Err(why) => wrong.push(why),
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (found, wrong)
}

/// A plugin's configuration: `<index>-<name>.conf`, else `<name>.conf`, else an empty one.
fn config(dir: &Path, index: &str, name: &str) -> Result<String, String> {
    for file in [format!("{index}-{name}.conf"), format!("{name}.conf")] {
        let path = dir.join(file);
        let cannot = |why: String| format!("cannot read {}: {why}", path.display());
        match fs::metadata(&path) {
            Ok(of) if of.len() > CONFIG_BYTES_MAX => {
                return Err(cannot(format!("it has more than {CONFIG_BYTES_MAX} bytes")));
            }
            Ok(_) => return fs::read_to_string(&path).map_err(|err| cannot(err.to_string())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(cannot(err.to_string())),
        }
    }
    Ok(String::new())
}

/// A plugin's process. It is killed on drop.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has ended by itself.
        let _ended = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// Starts a plugin. Must be called on the daemon's main thread: the plugin is killed when that thread ends.
pub(crate) fn start(program: &PluginProgram) -> Result<(UnixStream, Process), String> {
    let system = |what: &'static str| move |err: rustix::io::Errno| format!("{what}: {err}");
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(system("socketpair()"))?;
    let this =
        fs::File::open("/proc/self/exe").map_err(|err| format!("open /proc/self/exe: {err}"))?;
    let path = program.path.to_str().ok_or("its path is not UTF-8")?;
    let args = ["hull", START_PLUGIN, path, &program.plugin.index, &program.plugin.name];
    let pid = hull_sys::spawn_program(this.as_fd(), &args, &[(theirs.as_fd(), SOCKET_FD)])
        .map_err(|err| err.to_string())?;
    let pid = Pid::from_raw(pid).ok_or("it has no process id")?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(system("it ended at once: pidfd_open()"))?;
    let stream = UnixStream::from(ours);
    stream.set_nonblocking(true).map_err(|err| err.to_string())?;
    Ok((stream, Process(process)))
}

/// Implements the command [`START_PLUGIN`]: replaces this process by the plugin, which the kernel kills when
/// the daemon ends. Returns only on an error.
#[must_use]
pub fn exec_plugin(path: &str, index: &str, name: &str) -> io::Error {
    if let Err(err) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return err.into();
    }
    // If the daemon ended before the line above, the plugin finds its socket closed.
    let mut plugin = Command::new(path);
    plugin
        .env_clear()
        .env("NRI_PLUGIN_NAME", name)
        .env("NRI_PLUGIN_IDX", index)
        .env("NRI_PLUGIN_SOCKET", SOCKET_FD.to_string());
    plugin.exec()
}
