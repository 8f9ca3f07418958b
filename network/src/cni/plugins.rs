// SPDX-License-Identifier: Apache-2.0
//! The plugins' programs: finding them, asking them which versions they speak, calling them.

use super::conf::{Network, Plugin};
use super::error::{Call, Error};
use super::in_flight::UnderWay;
use super::invoke::{self, how, said};
use super::protocol::{self, Target, Told, Verb};
use super::version::Version;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Seek as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::debug;

/// A program's file as it was when it was asked: inode, modified, size.
type State = (u64, i64, i64, u64);

/// Where plugins are, and what is known of them.
#[derive(Debug)]
pub(super) struct Programs {
    dirs: Vec<PathBuf>,
    deadline: Duration,
    /// Versions that a program said it speaks, good for as long as its file is the same.
    spoken: Mutex<HashMap<PathBuf, (State, Vec<String>)>>,
}

impl Programs {
    pub(super) fn new(dirs: Vec<PathBuf>, deadline: Duration) -> Self {
        Self { dirs, deadline, spoken: Mutex::new(HashMap::new()) }
    }

    /// The version to speak with a network's plugins: the highest that it is written for and all of
    /// them know.
    pub(super) fn version(&self, network: &Network) -> Result<Version, Error> {
        let mut known = Vec::new();
        for plugin in &network.plugins {
            known.push(self.spoken_by(network, plugin)?);
        }
        Version::highest(&network.versions, &known).ok_or_else(|| {
            let texts: Vec<&str> = network.versions.iter().map(|version| version.text()).collect();
            let spoken = network.plugins.iter().zip(&known);
            let spoken = spoken.map(|(plugin, versions)| {
                format!("`{}` speaks {}", plugin.program, versions.join(", "))
            });
            Error::NoVersion {
                network: network.name.clone(),
                file: network.file.clone(),
                offered: texts.join(", "),
                spoken: spoken.collect::<Vec<_>>().join("; "),
            }
        })
    }

    fn spoken_by(&self, network: &Network, plugin: &Plugin) -> Result<Vec<String>, Error> {
        let program = self.find(&network.name, plugin)?;
        let state = state_of(&program);
        let cached = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, versions)) = cached.get(&program)
            && Some(known) == state.as_ref()
        {
            return Ok(versions.clone());
        }
        drop(cached);
        let call = call(Verb::Version, &network.name, plugin);
        let env = protocol::environment(Verb::Version, &self.path(), None);
        // The newest of what the network is written for: all that is asked is an answer.
        let version = network.versions.last().copied().unwrap_or(Version::V1_0_0);
        let input = serde_json::json!({"cniVersion": version.text()}).to_string();
        let answer = self.run(&call, &program, &env, memory(&call, input.as_bytes())?)?;
        let versions = protocol::versions(&answer).map_err(|why| Error::BadAnswer { call, why })?;
        if let Some(state) = state {
            let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
            spoken.insert(program, (state, versions.clone()));
        }
        Ok(versions)
    }

    /// Calls a plugin. What it answers, when it succeeded.
    pub(super) fn call(
        &self,
        verb: Verb,
        (network, version): (&str, Version),
        plugin: &Plugin,
        target: Option<&Target<'_>>,
        told: &Told<'_>,
    ) -> Result<Vec<u8>, Error> {
        let program = self.find(network, plugin)?;
        let env = protocol::environment(verb, &self.path(), target);
        let input = protocol::request(network, version, plugin, told);
        let call = call(verb, network, plugin);
        let Some(target) = target else {
            return self.run(&call, &program, &env, memory(&call, &input)?);
        };
        let (_under_way, input) = UnderWay::begin(target.call.to_owned(), &input)?;
        self.run(&call, &program, &env, input)
    }

    /// Calls ADD, and reads its result.
    pub(super) fn add(
        &self,
        of: (&str, Version),
        plugin: &Plugin,
        target: &Target<'_>,
        told: &Told<'_>,
    ) -> Result<Value, Error> {
        let answer = self.call(Verb::Add, of, plugin, Some(target), told)?;
        let bad = |why| Error::BadAnswer { call: call(Verb::Add, of.0, plugin), why };
        serde_json::from_slice(&answer).map_err(|err| bad(format!("its result is no JSON: {err}")))
    }

    fn run(
        &self,
        call: &Call,
        program: &Path,
        env: &[(&'static str, String)],
        input: File,
    ) -> Result<Vec<u8>, Error> {
        let began = Instant::now();
        let done = invoke::run(program, env, input, self.deadline)
            .map_err(|source| Error::Run { call: call.clone(), source })?;
        debug!(%call, took_us = began.elapsed().as_micros(), "network plugin called");
        if done.status.success() {
            return Ok(done.answer);
        }
        Err(match protocol::refusal(&done.answer) {
            Some(refusal) => Error::Refused { call: call.clone(), refusal },
            None => Error::Failed {
                call: call.clone(),
                how: how(done.status),
                said: said(&done.complaint),
            },
        })
    }

    /// Whether the program is there that the plugin has addresses from, if it names one.
    pub(super) fn find_delegate(&self, network: &str, plugin: &Plugin) -> Result<(), Error> {
        let named = plugin.object.get("ipam").and_then(|ipam| ipam.get("type"));
        match named.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => self.find_named(network, name).map(drop),
            None => Ok(()),
        }
    }

    /// The plugin's program.
    fn find(&self, network: &str, plugin: &Plugin) -> Result<PathBuf, Error> {
        self.find_named(network, &plugin.program)
    }

    /// A program, in the first directory that has it.
    fn find_named(&self, network: &str, name: &str) -> Result<PathBuf, Error> {
        let runs = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0)
        };
        let mut paths = self.dirs.iter().map(|dir| dir.join(name));
        paths.find(runs).ok_or_else(|| {
            let dirs: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
            Error::NoProgram {
                program: name.to_owned(),
                network: network.to_owned(),
                dirs: dirs.join(", "),
            }
        })
    }

    /// `CNI_PATH`: plugins look for others there.
    fn path(&self) -> String {
        let joined = std::env::join_paths(&self.dirs).unwrap_or_else(|_| OsString::new());
        joined.to_string_lossy().into_owned()
    }
}

/// An input that is nobody's but the plugin's.
fn memory(call: &Call, input: &[u8]) -> Result<File, Error> {
    let made = hull_sys::sealed_memfd("cni-input", input).map(File::from);
    let rewound = made.and_then(|mut file| {
        file.rewind().map_err(hull_sys::Error::of_io(|| "lseek(cni-input)"))?;
        Ok(file)
    });
    rewound.map_err(|source| Error::Memory { call: call.clone(), source })
}

fn call(verb: Verb, network: &str, plugin: &Plugin) -> Call {
    Call { verb, program: plugin.program.clone(), network: network.to_owned() }
}

fn state_of(program: &Path) -> Option<State> {
    let of = fs::metadata(program).ok()?;
    Some((of.ino(), of.mtime(), of.mtime_nsec(), of.size()))
}
