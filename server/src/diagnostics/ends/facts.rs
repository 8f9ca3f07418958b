// SPDX-License-Identifier: Apache-2.0
//! The facts that explain an end: the parts of a container's spec, and of the node, that the inference compares with
//! the clues. Plain data; [`look`](super::look) reads it.

use super::ports;
use crate::diagnostics::paths::Walked;
use crate::diagnostics::rights::Identity;
use hull_plan::elf::Found;
use hull_plan::seccomp::{self, Verdict};
use hull_plan::{Process, capabilities};

/// A volume of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Volume {
    /// Where it is mounted.
    pub(super) target: String,
    /// Its directory or file on the host; empty for an image volume.
    pub(super) source: String,
    pub(super) read_only: bool,
    /// Set if nothing more fits.
    pub(super) full: Option<Full>,
}

/// The resource of a file system that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Space,
    Inodes,
}

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) port: u16,
    /// Its name and pid, if it is a process of the pod.
    pub(super) holder: Option<String>,
}

/// A limit of processes, by the kernel's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PidsLimit {
    /// The most that there may be; `None` for no limit.
    pub(super) limit: Option<u64>,
    /// New processes that it has refused.
    pub(super) refused: u64,
}

/// Everything that the inference compares with a clue.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) process: Process,
    pub(super) root_read_only: bool,
    /// The kind of its seccomp profile, for messages: `RuntimeDefault`, ``Localhost profile `x.json` ``.
    pub(super) profile: String,
    /// Number of ids that its user namespace maps from 0; `None` without one of its own. With one, no owners of files
    /// are known: they are those of the host.
    pub(super) mapped_ids: Option<u32>,
    pub(super) host_network: bool,
    /// The first port that a process may bind without a capability.
    pub(super) first_free_port: u32,
    /// Its DNS servers.
    pub(super) dns: Vec<String>,
    pub(super) volumes: Vec<Volume>,
    /// The path of the clue, if it exists or has a parent.
    pub(super) walked: Option<Walked>,
    pub(super) listeners: Vec<Listener>,
    /// The writable layer is full.
    pub(super) layer_full: Option<Full>,
    /// /dev/shm of the pod is full; its size in bytes.
    pub(super) shm_full: Option<u64>,
    /// The program is setuid or setgid in the image.
    pub(super) program_is_setuid: bool,
    /// The reason why a command of the clue, which the spec names and the image has, cannot be executed.
    pub(super) program_fault: Option<Found>,
    /// The program ended with 126, the code of shells for a command that they may not execute.
    pub(super) executes: bool,
    /// How long it ran, in milliseconds.
    pub(super) lived_ms: Option<i64>,
    /// The pod's limit of processes, if a fork was refused.
    pub(super) pids: Option<PidsLimit>,
}

impl Facts {
    /// The program of its command, as the spec has it.
    pub(super) fn program(&self) -> String {
        let first =
            self.process.args.first().map(|first| String::from_utf8_lossy(first).into_owned());
        hull_sys::text::shown(first.unwrap_or_default(), 128)
    }

    /// The name of its program, without directories, in lower case.
    pub(super) fn program_name(&self) -> String {
        let first = self.process.args.first().map(|first| String::from_utf8_lossy(first));
        let first = first.unwrap_or_default().to_lowercase();
        first.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// Whether its command has the exit code in a script, as in `sh -c 'exit 137'`.
    pub(super) fn exits_with(&self, code: i32) -> bool {
        let wanted = code.to_string();
        self.process.args.iter().any(|arg| {
            let arg = String::from_utf8_lossy(arg);
            let is_break = |c: char| c.is_whitespace() || ";|&(){}".contains(c);
            let words: Vec<&str> = arg.split(is_break).filter(|word| !word.is_empty()).collect();
            words.windows(2).any(|pair| pair == ["exit", wanted.as_str()])
        })
    }

    /// Whether messages may show `text`: it is a word of its command, or its directory. The kubelet expands variables
    /// in commands, so no word that has to do with a value of the environment, except for the program itself.
    pub(super) fn shows(&self, text: &str) -> bool {
        if text.is_empty() || text.starts_with("//") {
            return false;
        }
        let args: Vec<_> =
            self.process.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        if args.first().is_some_and(|first| first == text) || self.process.cwd == text {
            return true;
        }
        let is_break = |c: char| c.is_whitespace() || ";|&()<>'\"`$={}".contains(c);
        let has = |arg: &str| arg == text || arg.split(is_break).any(|word| word == text);
        !self.is_from_environment(text) && args.iter().any(|arg| has(arg))
    }

    /// Whether a value of the environment equals or contains `text`, or is part of it.
    fn is_from_environment(&self, text: &str) -> bool {
        const PART_MIN: usize = 4;
        self.process.env.iter().any(|entry| {
            let entry = String::from_utf8_lossy(entry);
            let value = entry.split_once('=').map_or("", |(_, value)| value);
            let has_part =
                value.len() >= PART_MIN && (value.contains(text) || text.contains(value));
            !value.is_empty() && (value == text || has_part)
        })
    }

    /// Whether messages may show an id of its command.
    pub(super) fn shows_id(&self, id: u32) -> bool {
        !self.is_from_environment(&id.to_string())
    }

    /// The ports that its command names as its own.
    pub(super) fn ports(&self) -> Vec<u16> {
        let args: Vec<_> =
            self.process.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        let mut ports = ports::of_args(args.iter().map(|arg| &**arg));
        ports.retain(|port| !self.is_from_environment(&port.to_string()));
        ports
    }

    /// Whether it has the capability, named without `CAP_`.
    pub(super) fn has_capability(&self, name: &str) -> bool {
        capabilities::number(name)
            .is_none_or(|number| self.process.capabilities.effective >> number & 1 == 1)
    }

    /// Whether a program that root executes could have the capability.
    pub(super) fn may_gain(&self, name: &str) -> bool {
        capabilities::number(name)
            .is_none_or(|number| self.process.capabilities.bounding >> number & 1 == 1)
    }

    /// The first of `calls` that its seccomp profile refuses, whatever the arguments, with the errno.
    pub(super) fn refused_call(&self, calls: &[&'static str]) -> Option<(&'static str, u32)> {
        const ENOSYS: u32 = 38;
        let filter = self.process.seccomp.as_ref()?;
        calls.iter().find_map(|call| match seccomp::verdict(filter, call)? {
            Verdict::Fails(errno) if errno != ENOSYS => Some((*call, errno)),
            Verdict::Fails(_) | Verdict::Passes | Verdict::Kills | Verdict::Depends => None,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        let process = &self.process;
        Identity {
            uid: process.uid,
            gid: process.gid,
            groups: process.groups.clone(),
            capabilities: process.capabilities.effective,
        }
    }

    /// The volume in which `path` is: the one with the longest mount point.
    pub(super) fn volume_of(&self, path: &str) -> Option<&Volume> {
        let volumes = self.volumes.iter().filter(|volume| is_below(path, &volume.target));
        volumes.max_by_key(|volume| volume.target.len())
    }
}

/// Whether `path` is `directory` or in it.
pub(super) fn is_below(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
