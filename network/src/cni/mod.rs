// SPDX-License-Identifier: Apache-2.0
//! Pod networks by CNI plugins, as every cluster uses them: the runtime's side of CNI 0.3.1 to 1.1.
//!
//! ```text
//! attach   record ─▶ netns pinned ─▶ lo up ─▶ ADD of every plugin of every network ─▶ record
//! detach   DEL of every plugin, last first ─▶ netns unpinned ─▶ record gone
//! ```
//!
//! The rule: what ADD was told, DEL is told again, whatever became of the configuration since; and the
//! record goes only when every DEL succeeded, so that a plugin that fails is asked again until it does.
//! An attach that fails is undone by [`Cni::detach`]; there is no other teardown.
//!
//! Locks: `known` is held for memory only. `gc` is shared by those who run ADD and DEL, and held alone
//! while plugins collect garbage, as the specification has it.
//!
//! Not here: what a kubelet's annotations mean; when garbage is collected.

mod args;
mod conf;
pub(crate) mod error;
mod in_flight;
mod invoke;
mod pin;
mod plugins;
mod protocol;
mod records;
mod result;
mod template;
mod version;

pub use conf::Bad;
pub use error::{Call, Error};
pub use invoke::Error as InvokeError;
pub use protocol::{Refusal, Verb};

use crate::error::Error as NetworkError;
use crate::netns;
use crate::sync::alone;
use crate::types::Request;
use conf::{Fingerprint, Found, Network};
use ipnet::IpNet;
use plugins::Programs;
use protocol::{Target, Told, Valid};
use records::{Attachment, Record, Records};
use result::Outcome;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;
use tracing::{info, warn};

/// How network plugins are to be used.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where networks are configured.
    pub conf_dir: PathBuf,
    /// Where plugins' programs are, in this order.
    pub bin_dirs: Vec<PathBuf>,
    /// How many networks a pod is attached to, the first ones by name: eth0, eth1, …
    pub networks_max: usize,
    /// Written to `conf_dir` with the kubelet's subnets filled in.
    pub conf_template: Option<PathBuf>,
    /// How long one call of a plugin may take.
    pub plugin_timeout: Duration,
    /// Where pods' network namespaces are pinned.
    pub netns_dir: PathBuf,
    /// Where records are kept.
    pub state_dir: PathBuf,
}

/// Pod networks by plugins.
#[derive(Debug)]
pub struct Cni {
    config: Config,
    programs: Programs,
    records: Records,
    known: Mutex<BTreeMap<String, Arc<Record>>>,
    /// What was read, and of files in which state.
    found: Mutex<Option<(Fingerprint, Arc<Found>)>>,
    pod_cidr: Mutex<Vec<IpNet>>,
    gc: RwLock<()>,
}

/// What came of collecting garbage.
#[derive(Debug)]
pub enum Collected {
    /// All plugins that can were asked; these failed.
    Done(Vec<Error>),
    /// Pods are being attached or detached: not now.
    Busy,
}

/// What a set-up of plugins that works is like.
#[derive(Debug)]
pub struct Inspected {
    /// Those that pods are attached to, in words.
    pub networks: Vec<String>,
    /// Address plugins that are named and not there: who names them may do without.
    pub missing: Vec<Error>,
    /// Files that are not usable.
    pub bad: Vec<Bad>,
}

impl Cni {
    /// Reads what pods are attached to. Runs nothing.
    ///
    /// # Errors
    /// When the state directory cannot be read. A single record that cannot be read is set aside.
    pub fn open(config: Config) -> Result<Self, Error> {
        let records = Records::new(config.state_dir.clone());
        let known = records.load()?.into_iter().map(|(pod, of)| (pod, Arc::new(of))).collect();
        Ok(Self {
            programs: Programs::new(config.bin_dirs.clone(), config.plugin_timeout),
            records,
            known: Mutex::new(known),
            found: Mutex::new(None),
            pod_cidr: Mutex::new(Vec::new()),
            gc: RwLock::new(()),
            config,
        })
    }

    /// Attaches the pod to the networks; its addresses are those of eth0, in the plugins' order.
    ///
    /// A pod that is attached already is detached first.
    ///
    /// # Errors
    /// When a plugin fails, hangs or makes no sense; the pod is detached again then, as far as that
    /// goes: what is left is taken away by a later [`Cni::detach`].
    pub fn attach(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, NetworkError> {
        let _no_gc = self.gc.read().unwrap_or_else(PoisonError::into_inner);
        self.undo(request.pod.id)?;
        let made = self.make(request);
        if made.is_err()
            && let Err(left) = self.undo(request.pod.id)
        {
            warn!(pod = request.pod.id, error = %left, "pod not attached, and not all of it taken away again");
        }
        made
    }

    /// Runs DEL for all that the pod is attached to.
    ///
    /// Any number of times, in any state, also when its network namespace is gone.
    ///
    /// # Errors
    /// When a plugin fails; the record stays then, and a further call asks again.
    pub fn detach(&self, pod: &str) -> Result<(), Error> {
        let _no_gc = self.gc.read().unwrap_or_else(PoisonError::into_inner);
        self.undo(pod)
    }

    /// The pods that are attached or were not wholly detached. For sweeping after a restart.
    pub fn attachments(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }

    /// Whether pods can be attached: there is a network, its plugins are there, and, where they can tell
    /// (1.1), they say that they are ready.
    ///
    /// # Errors
    /// What is missing, with the mend in [`Error::hint`].
    pub fn check(&self) -> Result<(), Error> {
        for (network, version) in self.networks()? {
            if !version.has_gc() {
                continue;
            }
            for plugin in &network.plugins {
                let of = (network.name.as_str(), version);
                self.programs.call(Verb::Status, of, plugin, None, &Told::default())?;
            }
        }
        Ok(())
    }

    /// Judges the set-up as a whole: what the networks are, and what is wrong with the rest. Runs plugins
    /// as [`Cni::check`] does.
    ///
    /// # Errors
    /// When pods could not be attached, with the mend in [`Error::hint`].
    pub fn inspect(&self) -> Result<Inspected, Error> {
        self.check()?;
        let networks = self.networks()?;
        let shown = |(network, version): &(Network, version::Version)| {
            let plugins: Vec<&str> = network.plugins.iter().map(|of| of.program.as_str()).collect();
            let (name, file) = (&network.name, network.file.display());
            format!("`{name}` ({}; CNI {}) of {file}", plugins.join(", "), version.text())
        };
        let delegates = networks.iter().flat_map(|(network, _)| {
            let missing = |plugin| self.programs.find_delegate(&network.name, plugin).err();
            network.plugins.iter().filter_map(missing)
        });
        Ok(Inspected {
            networks: networks.iter().map(shown).collect(),
            missing: delegates.collect(),
            bad: self.found()?.bad.clone(),
        })
    }

    /// Asks the plugins whether the pod is attached as they left it. Where none can tell, it is.
    ///
    /// # Errors
    /// What a plugin found.
    pub fn check_pod(&self, pod: &str) -> Result<(), Error> {
        let Some(record) = self.known().get(pod).cloned() else { return Ok(()) };
        for attachment in record.attachments.iter().filter(|of| of.can_check()) {
            for plugin in attachment.plugins() {
                self.again(Verb::Check, &record, attachment, &plugin)?;
            }
        }
        Ok(())
    }

    /// Has plugins that can (1.1) take away what belongs to no pod.
    ///
    /// # Errors
    /// When there is no network.
    pub fn collect_garbage(&self) -> Result<Collected, Error> {
        let alone = match self.gc.try_write() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Collected::Busy),
        };
        let mut failed = Vec::new();
        for (network, version) in self.networks()? {
            if !version.has_gc() || network.disable_gc {
                continue;
            }
            let valid = self.valid(&network.name);
            let told = Told { valid: Some(&valid), ..Told::default() };
            for plugin in &network.plugins {
                let of = (network.name.as_str(), version);
                failed.extend(self.programs.call(Verb::Gc, of, plugin, None, &told).err());
            }
        }
        drop(alone);
        Ok(Collected::Done(failed))
    }

    /// Tells the subnets that the node's pods have, from the kubelet: plugins that declare `ipRanges`
    /// are told, and the template is filled in.
    ///
    /// # Errors
    /// When the template cannot be read or filled in, or the configuration not be written.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        if let Some(template) = &self.config.conf_template {
            let dir = &self.config.conf_dir;
            if template::fill(template, dir, pod_cidr)? {
                info!(file = %dir.join(template::FILE).display(), "network configuration written");
            }
        }
        pod_cidr.clone_into(&mut alone(&self.pod_cidr));
        Ok(())
    }

    fn make(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, NetworkError> {
        let networks = self.networks()?;
        let mut record = self.plan(request, &networks)?;
        self.reserve(&record)?;
        self.keep(&record)?;
        let path = pin::path(&self.config.netns_dir, request.pod.id);
        pin::pin(&path, request.netns)?;
        netns::loopback_up(request.netns)?;
        for at in 0..record.attachments.len() {
            let result = self.add(&record, &record.attachments[at])?;
            record.attachments[at].result = Some(result);
            self.keep(&record)?;
        }
        Ok(addresses(&record)?)
    }

    /// What is to be done, and recorded before it is.
    fn plan(
        &self,
        request: &Request<'_>,
        networks: &[(Network, version::Version)],
    ) -> Result<Record, NetworkError> {
        let mut record = Record::new(request.pod.id, request.namespace, request.name);
        record.args = args::cni_args(request)?;
        record.capabilities = args::capabilities(request, &alone(&self.pod_cidr));
        record.ports = request.ports.iter().copied().filter(|port| port.host_port != 0).collect();
        let of = |(number, (network, version)): (usize, &(Network, version::Version))| {
            Attachment::new(format!("eth{number}"), network, *version)
        };
        record.attachments = networks.iter().enumerate().map(of).collect();
        Ok(record)
    }

    /// Enters the pod, unless another has one of its host ports: plugins would lead the port to the
    /// later one, and cut the first off.
    fn reserve(&self, record: &Record) -> Result<(), NetworkError> {
        let mut known = self.known();
        for port in &record.ports {
            let held = |of: &Arc<Record>| {
                let held = of.ports.iter().find(|held| held.clashes(port))?;
                Some((*held, of.pod.clone()))
            };
            if let Some((held, holder)) = known.values().find_map(held) {
                return Err(NetworkError::PortTaken { port: *port, held, holder });
            }
        }
        known.insert(record.pod.clone(), Arc::new(record.clone()));
        Ok(())
    }

    /// Runs ADD of the chain; each plugin is told the result of the one before it.
    fn add(&self, record: &Record, attachment: &Attachment) -> Result<Value, Error> {
        let netns = self.netns(record);
        let call = self.records.call(&record.pod);
        let target = target(record, attachment, &netns, &call);
        let of = (attachment.network.as_str(), attachment.version());
        let mut prev_result = None;
        for plugin in attachment.plugins() {
            let told = Told { capabilities: Some(&record.capabilities), prev_result, valid: None };
            let result = self.programs.add(of, &plugin, &target, &told)?;
            let outcome = Outcome::read(&result).map_err(|why| Error::BadAnswer {
                call: Call {
                    verb: Verb::Add,
                    program: plugin.program.clone(),
                    network: of.0.into(),
                },
                why,
            })?;
            let stated = result.get("cniVersion").and_then(Value::as_str);
            // In another version than it was asked in: the next one would not understand it.
            let same = stated == Some(of.1.text());
            prev_result = Some(if same { result } else { outcome.write(of.1) });
        }
        Ok(prev_result.unwrap_or_default())
    }

    /// Runs DEL of all chains, last first, then lets go of the namespace and the record.
    fn undo(&self, pod: &str) -> Result<(), Error> {
        let Some(record) = self.known().get(pod).cloned() else { return Ok(()) };
        in_flight::end_left(&self.records.call(pod), in_flight::FINISH_MAX)?;
        for attachment in record.attachments.iter().rev() {
            for plugin in attachment.plugins().iter().rev() {
                self.again(Verb::Del, &record, attachment, plugin)?;
            }
        }
        pin::unpin(&pin::path(&self.config.netns_dir, pod))?;
        self.records.remove(pod)?;
        self.known().remove(pod);
        Ok(())
    }

    /// Calls a plugin about an attachment that was made.
    fn again(
        &self,
        verb: Verb,
        record: &Record,
        attachment: &Attachment,
        plugin: &conf::Plugin,
    ) -> Result<(), Error> {
        let netns = self.netns(record);
        let call = self.records.call(&record.pod);
        let target = target(record, attachment, &netns, &call);
        let version = attachment.version();
        let prev_result = attachment.result.clone().filter(|_| version.has_check());
        let told = Told { capabilities: Some(&record.capabilities), prev_result, valid: None };
        let of = (attachment.network.as_str(), version);
        self.programs.call(verb, of, plugin, Some(&target), &told).map(drop)
    }

    /// The networks that pods are attached to, each with the version to speak.
    fn networks(&self) -> Result<Vec<(Network, version::Version)>, Error> {
        let found = self.found()?;
        if found.networks.is_empty() {
            let (dir, bad) = (self.config.conf_dir.clone(), found.bad.clone());
            return Err(Error::NoNetwork { dir, bad });
        }
        let first = found.networks.iter().take(self.config.networks_max.max(1));
        first.map(|network| Ok((network.clone(), self.programs.version(network)?))).collect()
    }

    /// The configuration, read anew when a file of it changed.
    fn found(&self) -> Result<Arc<Found>, Error> {
        let dir = &self.config.conf_dir;
        let failed = |source| Error::ReadConf { dir: dir.clone(), source };
        let now = conf::fingerprint(dir).map_err(failed)?;
        let mut held = alone(&self.found);
        if let Some((then, found)) = &*held
            && *then == now
        {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(conf::read(dir).map_err(failed)?);
        for bad in &found.bad {
            warn!(file = %bad.file.display(), why = bad.why, "network configuration not usable");
        }
        let names: Vec<&str> = found.networks.iter().map(|network| network.name.as_str()).collect();
        info!(dir = %dir.display(), networks = names.join(", "), "network configurations read");
        *held = Some((now, Arc::clone(&found)));
        Ok(found)
    }

    fn valid(&self, network: &str) -> Vec<Valid> {
        let mut valid = Vec::new();
        for record in self.known().values() {
            let of = record.attachments.iter().filter(|of| of.network == network);
            valid.extend(
                of.map(|of| Valid { container: record.pod.clone(), if_name: of.if_name.clone() }),
            );
        }
        valid
    }

    fn keep(&self, record: &Record) -> Result<(), Error> {
        self.records.write(record)?;
        self.known().insert(record.pod.clone(), Arc::new(record.clone()));
        Ok(())
    }

    fn netns(&self, record: &Record) -> String {
        pin::shown(&pin::path(&self.config.netns_dir, &record.pod))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Record>>> {
        alone(&self.known)
    }
}

fn target<'t>(
    record: &'t Record,
    attachment: &'t Attachment,
    netns: &'t str,
    call: &'t Path,
) -> Target<'t> {
    let if_name = &attachment.if_name;
    Target { container: &record.pod, netns, if_name, args: &record.args, call }
}

/// The pod's addresses: those of its first link.
fn addresses(record: &Record) -> Result<Vec<IpAddr>, Error> {
    let Some(first) = record.attachments.first() else { return Ok(Vec::new()) };
    let outcome = first.result.as_ref().map(Outcome::read).and_then(Result::ok).unwrap_or_default();
    let ips = outcome.addresses(&first.if_name);
    if ips.is_empty() {
        let (network, if_name) = (first.network.clone(), first.if_name.clone());
        return Err(Error::NoAddress { network, if_name });
    }
    Ok(ips)
}
