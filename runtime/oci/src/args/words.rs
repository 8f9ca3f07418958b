// SPDX-License-Identifier: Apache-2.0
//! Parts that several commands of the command line share.

use crate::error::{Error, Result};
use lexopt::prelude::*;
use std::path::PathBuf;

const DESCRIPTORS_MAX: u32 = 1024;

/// Where the streams of a process go, and what else it gets.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    /// Where the pidfd of the process goes.
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) preserve_fds: u32,
    pub(crate) detach: bool,
}

pub(super) type Words = lexopt::Parser;

pub(super) fn usage(what: impl Into<String>) -> Error {
    Error::Usage { what: what.into() }
}

impl From<lexopt::Error> for Error {
    fn from(err: lexopt::Error) -> Self {
        usage(err.to_string())
    }
}

/// A switch, which Go's programs pass as `--x=true` too.
pub(super) fn switch(words: &mut Words) -> Result<bool> {
    match words.optional_value() {
        None => Ok(true),
        Some(value) if value == "true" || value == "1" => Ok(true),
        Some(value) if value == "false" || value == "0" => Ok(false),
        Some(value) => Err(usage(format!("{value:?} is neither true nor false"))),
    }
}

pub(super) fn given(id: String) -> Result<String> {
    if id.is_empty() { Err(usage("the container's id is missing")) } else { Ok(id) }
}

impl Streams {
    /// Takes an option that `create`, `run` and `exec` share; its name otherwise.
    pub(super) fn take(&mut self, name: &str, words: &mut Words) -> Result<bool> {
        match name {
            "console-socket" => self.console_socket = Some(words.value()?.into()),
            "pid-file" => self.pid_file = Some(words.value()?.into()),
            "preserve-fds" => {
                self.preserve_fds = words.value()?.parse()?;
                if self.preserve_fds > DESCRIPTORS_MAX {
                    return Err(usage(format!("--preserve-fds is at most {DESCRIPTORS_MAX}")));
                }
            }
            "pidfd-socket" => self.pidfd_socket = Some(words.value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}
