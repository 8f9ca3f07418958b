// SPDX-License-Identifier: Apache-2.0
//! The options of `exec`.

use super::words::{Streams, Words, given, switch, usage};
use crate::error::{Error, Result};
use hull_plan::accounts;
use lexopt::prelude::*;
use std::path::PathBuf;

/// The arguments of `exec`.
#[derive(Debug, Default)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) args: Vec<String>,
    pub(crate) streams: Streams,
    pub(crate) process: Option<PathBuf>,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<u32>,
    pub(crate) label: Option<String>,
    pub(crate) apparmor: Option<String>,
    pub(crate) no_new_privs: bool,
    pub(crate) capabilities: Vec<String>,
    /// Sub-cgroups: `PATH`, or `CONTROLLER,…:PATH` on cgroup v1.
    pub(crate) cgroups: Vec<String>,
    pub(crate) ignore_paused: bool,
}

pub(super) fn exec(words: &mut Words) -> Result<Exec> {
    let mut args = Exec::default();
    while let Some(word) = words.next()? {
        match word {
            Short('t') => args.tty = switch(words)?,
            Short('d') => args.streams.detach = switch(words)?,
            Short('p') => args.process = Some(words.value()?.into()),
            Short('e') => args.env.push(words.value()?.string()?),
            Short('u') => args.user = Some(words.value()?.string()?),
            Short('g') => args.groups.push(group(&words.value()?.string()?)?),
            Short('c') => args.capabilities.push(words.value()?.string()?),
            Long(name) => {
                let name = name.to_owned();
                exec_option(&mut args, &name, words)?;
            }
            Value(id) => {
                args.id = id.string()?;
                // What follows is the command's, options and all.
                let rest = words.raw_args()?.map(ValueExt::string);
                args.args = rest.collect::<std::result::Result<_, _>>()?;
                if args.args.first().is_some_and(|word| word == "--") {
                    args.args.remove(0);
                }
                break;
            }
            other @ Short(_) => return Err(other.unexpected().into()),
        }
    }
    args.id = given(args.id)?;
    if args.args.is_empty() && args.process.is_none() {
        return Err(usage("exec needs a command, or --process"));
    }
    Ok(args)
}

fn group(text: &str) -> Result<u32> {
    let what = "a group: write its number";
    accounts::id(text)
        .map_err(|_| Error::BadValue { value: text.chars().take(100).collect(), what })
}

fn exec_option(args: &mut Exec, name: &str, words: &mut Words) -> Result<()> {
    match name {
        "tty" => args.tty = switch(words)?,
        "detach" => args.streams.detach = switch(words)?,
        "process" => args.process = Some(words.value()?.into()),
        "cwd" => args.cwd = Some(words.value()?.string()?),
        "env" => args.env.push(words.value()?.string()?),
        "user" => args.user = Some(words.value()?.string()?),
        "additional-gids" => args.groups.push(group(&words.value()?.string()?)?),
        "process-label" => args.label = Some(words.value()?.string()?),
        "apparmor" => args.apparmor = Some(words.value()?.string()?),
        "no-new-privs" => args.no_new_privs = switch(words)?,
        "cap" => args.capabilities.push(words.value()?.string()?),
        "cgroup" => args.cgroups.push(words.value()?.string()?),
        "ignore-paused" => args.ignore_paused = switch(words)?,
        name if args.streams.take(name, words)? => {}
        name => return Err(usage(format!("there is no option `--{name}`"))),
    }
    Ok(())
}
