// SPDX-License-Identifier: Apache-2.0
//! The facts that explain an end: the parts of a container's spec, and of the node, that the inference compares with
//! the clues. Plain data; [`look`](super::look) reads it.

use crate::diagnostics::paths::Walked;
use crate::diagnostics::rights::{Identity, Owner};
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
    /// Owner and mode of its top, if it answered.
    pub(super) owner: Option<Owner>,
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
    /// Its name and pid, if it was found.
    pub(super) holder: Option<String>,
}

/// Everything that the inference compares with a clue.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) process: Process,
    pub(super) root_read_only: bool,
    /// The kind of its seccomp profile, for messages: `RuntimeDefault`, ``Localhost profile `x.json` ``.
    pub(super) profile: String,
    /// Number of ids that its user namespace maps from 0; `None` without one of its own.
    pub(super) mapped_ids: Option<u32>,
    pub(super) host_network: bool,
    /// The first port that a process may bind without a capability.
    pub(super) first_free_port: u32,
    /// Its DNS servers.
    pub(super) dns: Vec<String>,
    pub(super) volumes: Vec<Volume>,
    /// The path of the clue, if it exists or has a parent.
    pub(super) walked: Vec<Walked>,
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
}

impl Facts {
    /// The program of its command, as the spec has it.
    pub(super) fn program(&self) -> String {
        let first =
            self.process.args.first().map(|first| String::from_utf8_lossy(first).into_owned());
        hull_sys::text::shown(first.unwrap_or_default(), 128)
    }

    /// The words of its command in lower case; of paths also the last part.
    pub(super) fn command_words(&self) -> Vec<String> {
        let text: Vec<_> = self
            .process
            .args
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).to_lowercase())
            .collect();
        let mut words: Vec<String> = Vec::new();
        for word in text
            .iter()
            .flat_map(|arg| arg.split(|c: char| c.is_whitespace() || ";|&()<>'\"`$={}".contains(c)))
        {
            words
                .extend(word.rsplit('/').next().filter(|part| !part.is_empty()).map(str::to_owned));
            words.push(word.to_owned());
        }
        words.retain(|word| !word.is_empty());
        words
    }

    /// Whether the command of the spec contains `text`. Not its environment: that may come from secrets.
    pub(super) fn spec_contains(&self, text: &str) -> bool {
        let has = |arg: &Vec<u8>| String::from_utf8_lossy(arg).contains(text);
        !text.is_empty() && (self.process.args.iter().any(has) || self.process.cwd.contains(text))
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
