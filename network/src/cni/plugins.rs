// SPDX-License-Identifier: Apache-2.0
//! Finds the plugins' programs, queries their supported versions, and calls them.

use super::conf::{Network, Plugin};
use super::config::Config;
use super::counters::{CallFigures, Counters};
use super::error::{Call, Error, NO_EXECUTE_BIT};
use super::in_flight::InFlightCall;
use super::invoke::{self, describe_exit, stderr_suffix};
use super::protocol::{self, PluginInput, Target, Verb};
use super::version::Version;
use crate::limits::SURVEY_S;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Seek as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tracing::debug;

/// The state of a program's file when its versions were queried: inode, mtime, size.
type State = (u64, i64, i64, u64);

/// The plugin directories, and the known versions of the programs in them.
#[derive(Debug)]
pub(super) struct Plugins {
    settings: RwLock<Arc<Settings>>,
    /// The versions that a program supports, valid while its file is unchanged.
    supported: Mutex<HashMap<PathBuf, (State, Vec<String>)>>,
    counters: Counters,
}

/// The settings that may change while pods are attached.
#[derive(Debug)]
struct Settings {
    dirs: Vec<PathBuf>,
    deadline: Duration,
    networks_max: usize,
}

impl Settings {
    fn of(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            dirs: config.bin_dirs.clone(),
            deadline: config.plugin_timeout,
            networks_max: config.networks_max.max(1),
        })
    }
}

impl Plugins {
    pub(super) fn new(config: &Config) -> Self {
        let settings = RwLock::new(Settings::of(config));
        let (supported, counters) = Default::default();
        Self { settings, supported, counters }
    }

    /// Takes over directories, time limit and number of networks, for calls that begin from now on.
    pub(super) fn configure(&self, config: &Config) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Settings::of(config);
    }

    /// The calls of plugins so far.
    pub(super) fn figures(&self) -> [CallFigures; 6] {
        self.counters.figures()
    }

    fn settings(&self) -> Arc<Settings> {
        // The lock holds one pointer, which a panic leaves whole.
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of networks that a pod is attached to, at most.
    pub(super) fn networks_max(&self) -> usize {
        self.settings().networks_max
    }

    /// The time limit for a call.
    pub(super) fn deadline(&self) -> Duration {
        self.settings().deadline
    }

    /// The time limit for a call that no pod waits for.
    pub(super) fn survey_deadline(&self) -> Duration {
        self.deadline().min(SURVEY_S.time())
    }

    /// The CNI version to use for a network: the highest that its configuration and all of its plugins
    /// support. Each program that must be asked has `deadline` to answer.
    pub(super) fn version(&self, network: &Network, deadline: Duration) -> Result<Version, Error> {
        let mut known = Vec::new();
        for plugin in &network.plugins {
            known.push(self.supported_versions(network, plugin, deadline)?);
        }
        Version::highest(&network.versions, &known).ok_or_else(|| {
            let texts: Vec<&str> = network.versions.iter().map(|version| version.text()).collect();
            let supported = network.plugins.iter().zip(&known);
            let supported = supported.map(|(plugin, versions)| {
                format!("`{}` supports {}", plugin.program, versions.join(", "))
            });
            Error::NoVersion {
                network: network.name.clone(),
                file: network.file.clone(),
                offered: texts.join(", "),
                supported: supported.collect::<Vec<_>>().join("; "),
            }
        })
    }

    fn supported_versions(
        &self,
        network: &Network,
        plugin: &Plugin,
        deadline: Duration,
    ) -> Result<Vec<String>, Error> {
        let program = self.find(&network.name, plugin)?;
        let state = state_of(&program);
        let cached = self.supported.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, versions)) = cached.get(&program)
            && Some(known) == state.as_ref()
        {
            return Ok(versions.clone());
        }
        drop(cached);
        let call = Call::new(Verb::Version, &network.name, plugin);
        let env = protocol::environment(Verb::Version, &self.path(), None);
        // Any version will do; take the newest that the network's configuration supports.
        let version = network.versions.last().copied().unwrap_or(Version::V1_0_0);
        let input = serde_json::json!({"cniVersion": version.text()}).to_string();
        let input = memfd_input(&call, input.as_bytes())?;
        let answer = self.run(&call, &program, &env, input, deadline)?;
        let versions = protocol::versions(&answer).map_err(|why| Error::BadAnswer { call, why })?;
        if let Some(state) = state {
            let mut supported = self.supported.lock().unwrap_or_else(PoisonError::into_inner);
            supported.insert(program, (state, versions.clone()));
        }
        Ok(versions)
    }

    /// Calls a plugin and returns its stdout.
    pub(super) fn call(
        &self,
        verb: Verb,
        (network, version): (&str, Version),
        plugin: &Plugin,
        target: Option<&Target<'_>>,
        extra: &PluginInput<'_>,
    ) -> Result<Vec<u8>, Error> {
        let program = self.find(network, plugin)?;
        let env = protocol::environment(verb, &self.path(), target);
        let input = protocol::request(network, version, plugin, extra);
        let call = Call::new(verb, network, plugin);
        let is_survey = matches!(verb, Verb::Status | Verb::Gc);
        let deadline = if is_survey { self.survey_deadline() } else { self.deadline() };
        let Some(target) = target else {
            return self.run(&call, &program, &env, memfd_input(&call, &input)?, deadline);
        };
        let (_in_flight, input) = InFlightCall::begin(target.call.to_owned(), &input)?;
        self.run(&call, &program, &env, input, deadline)
    }

    /// Runs a program, and counts the call.
    fn run(
        &self,
        call: &Call,
        program: &Path,
        env: &[(&'static str, String)],
        input: File,
        deadline: Duration,
    ) -> Result<Vec<u8>, Error> {
        let began = Instant::now();
        let done = run(call, program, env, input, deadline);
        self.counters.count(call.verb, done.is_ok(), began.elapsed());
        done
    }

    /// Calls ADD and parses its result.
    pub(super) fn add(
        &self,
        of: (&str, Version),
        plugin: &Plugin,
        target: &Target<'_>,
        extra: &PluginInput<'_>,
    ) -> Result<Value, Error> {
        let answer = self.call(Verb::Add, of, plugin, Some(target), extra)?;
        let bad = |why| Error::BadAnswer { call: Call::new(Verb::Add, of.0, plugin), why };
        serde_json::from_slice(&answer).map_err(|err| bad(format!("it is not JSON: {err}")))
    }

    /// Checks that the plugin's IPAM program exists, if it has one.
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

    /// Searches the directories for a program.
    fn find_named(&self, network: &str, name: &str) -> Result<PathBuf, Error> {
        let (mut unusable, settings) = (None, self.settings());
        for path in settings.dirs.iter().map(|dir| dir.join(name)) {
            let Ok(found) = fs::metadata(&path) else { continue };
            let what = match (found.is_file(), found.is_dir()) {
                (true, _) if found.permissions().mode() & 0o111 != 0 => return Ok(path),
                (true, _) => NO_EXECUTE_BIT,
                (false, true) => "a directory",
                (false, false) => "not a regular file",
            };
            unusable.get_or_insert((path, what));
        }
        let (program, network) = (name.to_owned(), network.to_owned());
        if let Some((path, what)) = unusable {
            return Err(Error::NotAProgram { program, network, path, what });
        }
        let dirs: Vec<String> = settings.dirs.iter().map(|dir| dir.display().to_string()).collect();
        Err(Error::NoProgram { program, network, dirs: dirs.join(", ") })
    }

    /// The value of `CNI_PATH`, in which plugins search for other plugins.
    fn path(&self) -> String {
        let joined =
            std::env::join_paths(&self.settings().dirs).unwrap_or_else(|_| OsString::new());
        joined.to_string_lossy().into_owned()
    }
}

/// Creates an input file in memory.
fn memfd_input(call: &Call, input: &[u8]) -> Result<File, Error> {
    let made = hull_sys::sealed_memfd("cni-input", input).map(File::from);
    let rewound = made.and_then(|mut file| {
        file.rewind().map_err(hull_sys::Error::of_io(|| "lseek(cni-input)"))?;
        Ok(file)
    });
    rewound.map_err(|source| Error::Memory { call: call.clone(), source })
}

fn state_of(program: &Path) -> Option<State> {
    let of = fs::metadata(program).ok()?;
    Some((of.ino(), of.mtime(), of.mtime_nsec(), of.size()))
}

fn run(
    call: &Call,
    program: &Path,
    env: &[(&'static str, String)],
    input: File,
    deadline: Duration,
) -> Result<Vec<u8>, Error> {
    let began = Instant::now();
    let done = invoke::run(program, env, input, deadline)
        .map_err(|source| Error::Run { call: call.clone(), source })?;
    debug!(%call, took_us = began.elapsed().as_micros(), "network plugin called");
    if done.status.success() {
        return Ok(done.answer);
    }
    Err(match protocol::error_result(&done.answer) {
        Some(error) => Error::Plugin { call: call.clone(), error },
        None => Error::Failed {
            call: call.clone(),
            how: describe_exit(done.status),
            stderr: stderr_suffix(&done.stderr_tail),
        },
    })
}
