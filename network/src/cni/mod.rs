// SPDX-License-Identifier: Apache-2.0
//! Pod networks by CNI plugins: the runtime's side of CNI 0.3.1 to 1.1.
//!
//! ```text
//! attach   record ─▶ netns pinned ─▶ lo up ─▶ ADD of every plugin of every network ─▶ record
//! detach   DEL of every plugin, last first ─▶ netns unpinned ─▶ record gone
//! ```
//!
//! The rule: DEL gets the same configuration and arguments as ADD, even if the configuration has changed
//! since. The record is removed only when every DEL has succeeded, so a failing plugin is called again
//! until it succeeds. [`attached`] has the two exceptions: a configuration that cannot work, and plugins that
//! never succeed. A failed attach is rolled back by [`Cni::detach`]; there is no other teardown.
//!
//! Locks: `known` is held for memory operations only. `gc` is held shared during ADD and DEL, and
//! exclusively while plugins collect garbage, as the specification requires.
//!
//! Not here: the meaning of the kubelet's annotations; the schedule of garbage collection.

mod advice;
mod args;
mod attached;
mod capabilities;
mod conf;
mod config;
mod counters;
pub(crate) mod error;
mod gc;
mod in_flight;
mod invoke;
mod pin;
mod plugins;
mod protocol;
mod records;
mod reference_plugins;
mod result;
mod template;
mod version;

pub use conf::InvalidFile;
pub use config::Config;
pub use counters::CallFigures;
pub use error::{Call, Error};
pub use invoke::Error as InvokeError;
pub use pin::{pins, unpin};
pub use protocol::{PluginError, Verb};

use crate::error::Error as NetworkError;
use crate::netns;
use crate::sync::lock_unpoisoned;
use crate::types::{PortMapping, Request, RequestedNetwork};
use attached::{Attached, boottime_s};
use conf::{Configurations, Fingerprint, Network};
use ipnet::IpNet;
use plugins::Plugins;
use protocol::PluginInput;
use records::{Attachment, Record, Records};
use result::AddResult;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;
use tracing::{info, warn};
use version::Version;

/// The pod networks that are configured through CNI.
#[derive(Debug)]
pub struct Cni {
    config: Config,
    plugins: Plugins,
    records: Records,
    known: Mutex<BTreeMap<String, Arc<Record>>>,
    /// The configurations, and the fingerprint of the files that they were read from.
    cached: Mutex<Option<(Fingerprint, Arc<Configurations>)>>,
    pod_cidr: Mutex<Vec<IpNet>>,
    gc: RwLock<()>,
    /// The number of the plugin that the next garbage collection begins with.
    gc_next: AtomicUsize,
}

/// The outcome of a garbage collection.
#[derive(Debug)]
pub enum Collected {
    /// All plugins that support GC were called; these calls failed.
    Done(Vec<Error>),
    /// Not run, because pods are being attached or detached.
    Busy,
}

/// A report on a working CNI setup.
#[derive(Debug)]
pub struct Inspected {
    /// Descriptions of the networks that pods are attached to.
    pub networks: Vec<String>,
    /// Configured IPAM plugins that are not installed. The plugin that refers to one may not need it.
    pub missing: Vec<Error>,
    /// Invalid configuration files.
    pub bad: Vec<InvalidFile>,
}

impl Cni {
    /// Loads the attachment records. Runs no plugin.
    ///
    /// # Errors
    /// When the state directory cannot be read. A single unreadable record is set aside.
    pub fn open(config: Config) -> Result<Self, Error> {
        let records = Records::new(config.state_dir.clone());
        let known = records.load()?.into_iter().map(|(pod, of)| (pod, Arc::new(of))).collect();
        Ok(Self {
            plugins: Plugins::new(&config),
            records,
            known: Mutex::new(known),
            cached: Mutex::new(None),
            pod_cidr: Mutex::new(Vec::new()),
            gc: RwLock::new(()),
            gc_next: AtomicUsize::new(0),
            config,
        })
    }

    /// The calls of plugins so far, by command.
    pub fn plugin_calls(&self) -> [CallFigures; 6] {
        self.plugins.figures()
    }

    /// Attaches the pod to the networks and returns the addresses of eth0, in the plugins' order.
    ///
    /// A pod that is already attached is detached first.
    ///
    /// # Errors
    /// When a plugin fails, times out or answers nonsense. The pod is then detached as far as possible; a
    /// later [`Cni::detach`] removes the rest.
    pub fn attach(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, NetworkError> {
        let _no_gc = self.gc.read().unwrap_or_else(PoisonError::into_inner);
        self.delete(request.pod.id, boottime_s())?;
        let made = self.try_attach(request);
        if made.is_err()
            && let Err(left) = self.delete(request.pod.id, boottime_s())
        {
            warn!(pod_id = request.pod.id, error = %left, "a failed attach was not completely rolled back");
        }
        made
    }

    /// Runs DEL for all attachments of the pod.
    ///
    /// Idempotent, in any state, even after the pod's network namespace is gone.
    ///
    /// # Errors
    /// When a plugin fails; the record is kept, and calling it again retries.
    pub fn detach(&self, pod: &str) -> Result<(), Error> {
        self.detach_at(pod, boottime_s())
    }

    /// Runs DEL as [`Cni::detach`] does, at `now_s` seconds since the boot: failures count with their time.
    ///
    /// # Errors
    /// As of [`Cni::detach`].
    pub fn detach_at(&self, pod: &str, now_s: u64) -> Result<(), Error> {
        let _no_gc = self.gc.read().unwrap_or_else(PoisonError::into_inner);
        self.delete(pod, now_s)
    }

    /// Takes over `bin_dirs`, `plugin_timeout` and `networks_max`, for what begins from now on.
    pub fn configure(&self, config: &Config) {
        self.plugins.configure(config);
    }

    /// The ids of all pods that are attached or only partially detached, to sweep after a restart.
    pub fn attachments(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }

    /// Whether the pod is attached or only partially detached.
    pub fn is_attached(&self, pod: &str) -> bool {
        self.known().contains_key(pod)
    }

    /// The number of pods that are attached or only partially detached.
    pub fn attached_count(&self) -> usize {
        self.known().len()
    }

    /// Another pod than `pod` that has one of these host ports: the port, the holder's mapping, and the holder.
    pub fn port_holder(
        &self,
        pod: &str,
        ports: &[PortMapping],
    ) -> Option<(PortMapping, PortMapping, String)> {
        let known = self.known();
        let others = known.values().filter(|record| record.pod != pod);
        others.into_iter().find_map(|record| {
            let (port, held) = record.clash(ports)?;
            Some((port, held, record.pod.clone()))
        })
    }

    /// Whether the configuration directory, or a template, says that CNI plugins attach this node's pods, and
    /// the reason. A file that cannot be used says so too: the cluster has a network plugin.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn is_wanted(&self) -> Result<(bool, String), Error> {
        let found = self.configurations()?;
        let dir = self.config.conf_dir.display();
        if let Some(network) = found.networks.iter().find(|of| !of.is_loopback()) {
            return Ok((
                true,
                format!("{} has network `{}`", network.file.display(), network.name),
            ));
        }
        if let Some(bad) = found.bad.first() {
            return Ok((
                true,
                format!("{} is there, but not usable: {}", bad.file.display(), bad.why),
            ));
        }
        Ok(match &self.config.conf_template {
            Some(_) => (true, "`conf_template` under `[network.cni]` is set".to_owned()),
            None => (false, format!("{dir} has no network configuration")),
        })
    }

    /// Checks that pods can be attached: a network is configured, its plugins are installed and, with CNI
    /// 1.1, they report that they are ready.
    ///
    /// # Errors
    /// Whatever is missing; [`Error::hint`] says how to fix it.
    pub fn check(&self) -> Result<(), Error> {
        for (network, version) in self.networks(self.plugins.survey_deadline())? {
            if !version.has_gc() {
                continue;
            }
            for plugin in &network.plugins {
                let of = (network.name.as_str(), version);
                self.plugins.call(Verb::Status, of, plugin, None, &PluginInput::default())?;
            }
        }
        Ok(())
    }

    /// Reports on the whole setup: the networks, missing IPAM plugins and invalid files. Runs plugins as
    /// [`Cni::check`] does.
    ///
    /// # Errors
    /// When pods cannot be attached; [`Error::hint`] says how to fix it.
    pub fn inspect(&self) -> Result<Inspected, Error> {
        self.check()?;
        let networks = self.networks(self.plugins.survey_deadline())?;
        let shown = |(network, version): &(Network, Version)| {
            let plugins: Vec<&str> = network.plugins.iter().map(|of| of.program.as_str()).collect();
            let (name, file) = (&network.name, network.file.display());
            format!("`{name}` ({}; CNI {}) of {file}", plugins.join(", "), version.text())
        };
        let delegates = networks.iter().flat_map(|(network, _)| {
            let missing = |plugin| self.plugins.find_delegate(&network.name, plugin).err();
            network.plugins.iter().filter_map(missing)
        });
        Ok(Inspected {
            networks: networks.iter().map(shown).collect(),
            missing: delegates.collect(),
            bad: self.configurations()?.bad.clone(),
        })
    }

    /// The pod's requests that no plugin declares, each as a sentence.
    pub fn remarks(&self, pod: &str) -> Vec<String> {
        let Some(record) = self.known().get(pod).cloned() else { return Vec::new() };
        let plugins = record.attachments.iter().flat_map(Attachment::plugins);
        capabilities::remarks(&record.capabilities, &plugins.collect::<Vec<_>>())
    }

    /// Runs CHECK for all attachments of the pod that support it.
    ///
    /// # Errors
    /// The fault that a plugin reports.
    pub fn check_pod(&self, pod: &str) -> Result<(), Error> {
        let Some(record) = self.known().get(pod).cloned() else { return Ok(()) };
        let call = self.records.call(pod);
        self.attached(&record, &call).check()
    }

    /// Runs GC with all plugins that support it (CNI 1.1): those of the networks of all pods, unless CNI does not
    /// attach them (`attaches` is false), and those of networks that attached pods have named.
    ///
    /// # Errors
    /// When CNI attaches pods, and no network is configured; when the configurations cannot be read.
    pub fn collect_garbage(&self, attaches: bool) -> Result<Collected, Error> {
        let _exclusive = match self.gc.try_write() {
            Ok(exclusive) => exclusive,
            Err(TryLockError::Poisoned(exclusive)) => exclusive.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Collected::Busy),
        };
        let mut networks = if attaches { self.configured()? } else { Vec::new() };
        let found = self.configurations()?;
        let known: Vec<Arc<Record>> = self.known().values().cloned().collect();
        let of_pods = known.iter().flat_map(|record| record.attachments.iter());
        let mut names: BTreeSet<&str> = of_pods.map(|of| of.network.as_str()).collect();
        names.retain(|name| !networks.iter().any(|of| of.name == *name));
        // What another runtime of the node attached to a network that no pod here has is not garbage.
        networks.extend(names.iter().filter_map(|name| found.named(name)).cloned());
        let valid = |network: &str| gc::valid(network, known.iter().map(|of| &**of));
        Ok(Collected::Done(gc::collect(&self.plugins, &networks, &self.gc_next, valid)))
    }

    /// Sets the kubelet's pod subnets, for the template and for plugins that declare `ipRanges`.
    ///
    /// # Errors
    /// When the template cannot be read or filled in, or the configuration cannot be written.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        if let Some(template) = &self.config.conf_template {
            let dir = &self.config.conf_dir;
            if template::fill(template, dir, pod_cidr)? {
                info!(file = %dir.join(template::FILE).display(), "network configuration written");
            }
        }
        pod_cidr.clone_into(&mut lock_unpoisoned(&self.pod_cidr));
        Ok(())
    }

    fn try_attach(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, NetworkError> {
        let networks = self.requested(request.network)?;
        let mut record = self.plan(request, &networks)?;
        self.reserve(&record)?;
        self.save(&record)?;
        let path = pin::path(&self.config.netns_dir, request.pod.id);
        pin::pin(&path, request.netns)?;
        netns::loopback_up(request.netns)?;
        for at in 0..record.attachments.len() {
            let result = self.add(&record, &record.attachments[at])?;
            record.attachments[at].result = Some(result);
            self.save(&record)?;
        }
        Ok(record.addresses()?)
    }

    /// Plans the attachments, as a record to be written before any plugin runs.
    fn plan(
        &self,
        request: &Request<'_>,
        networks: &[(Network, Version)],
    ) -> Result<Record, NetworkError> {
        let mut record = Record::new(request.pod.id, request.namespace, request.name);
        record.args = args::cni_args(request)?;
        record.capabilities = args::capabilities(request, &lock_unpoisoned(&self.pod_cidr));
        record.ports = request.ports.iter().copied().filter(|port| port.host_port != 0).collect();
        let of = |(number, (network, version)): (usize, &(Network, Version))| {
            Attachment::new(format!("eth{number}"), network, *version)
        };
        record.attachments = networks.iter().enumerate().map(of).collect();
        capabilities::refuse(&record.pod, &record.capabilities, networks.iter().map(|of| &of.0))?;
        Ok(record)
    }

    /// Registers the pod, unless another pod has one of its host ports: plugins would forward the port to
    /// the newer pod and cut off the older one.
    fn reserve(&self, record: &Record) -> Result<(), NetworkError> {
        let mut known = self.known();
        let others = known.values().filter(|of| of.pod != record.pod);
        for other in others {
            if let Some((port, held)) = other.clash(&record.ports) {
                let holder = other.pod.clone();
                return Err(NetworkError::PortTaken { port, held, holder });
            }
        }
        known.insert(record.pod.clone(), Arc::new(record.clone()));
        Ok(())
    }

    /// Runs ADD for the chain; each plugin gets the result of its predecessor.
    fn add(&self, record: &Record, attachment: &Attachment) -> Result<Value, Error> {
        let netns = self.netns(record);
        let call = self.records.call(&record.pod);
        let target = record.target(attachment, &netns, &call);
        let of = (attachment.network.as_str(), attachment.version());
        let mut prev_result = None;
        for plugin in attachment.plugins() {
            let input =
                PluginInput { capabilities: Some(&record.capabilities), prev_result, valid: None };
            let result = self.plugins.add(of, &plugin, &target, &input)?;
            let outcome = AddResult::read(&result).map_err(|why| Error::BadAnswer {
                call: Call::new(Verb::Add, of.0, &plugin),
                why,
            })?;
            let stated = result.get("cniVersion").and_then(Value::as_str);
            // Convert a result of another version, which the next plugin would not understand.
            let same = stated == Some(of.1.text());
            prev_result = Some(if same { result } else { outcome.write(of.1) });
        }
        Ok(prev_result.unwrap_or_default())
    }

    /// Runs DEL for all chains in reverse order, then unpins the namespace and removes the record.
    fn delete(&self, pod: &str, now_s: u64) -> Result<(), Error> {
        let Some(record) = self.known().get(pod).cloned() else { return Ok(()) };
        let call = self.records.call(pod);
        let attached = self.attached(&record, &call);
        let (counted, done) = attached.delete(now_s, |name| self.present(name));
        if counted != *record
            && let Err(err) = self.save(&counted)
        {
            warn!(pod_id = pod, error = %err, "a failed DEL is counted only until the daemon ends");
            self.known().insert(pod.to_owned(), Arc::new(counted.clone()));
        }
        done?;
        pin::unpin(&pin::path(&self.config.netns_dir, pod))?;
        self.records.remove(pod)?;
        self.known().remove(pod);
        attached::report_given_up(&counted, &call);
        Ok(())
    }

    fn attached<'c>(&'c self, record: &'c Record, call: &'c Path) -> Attached<'c> {
        Attached { plugins: &self.plugins, record, netns: self.netns(record), call }
    }

    /// The present configuration of a network; `None` if there is none, or it cannot be read.
    fn present(&self, name: &str) -> Option<Network> {
        self.configurations().ok()?.named(name).cloned()
    }

    /// The network that a pod names, or those of all pods.
    fn requested(&self, of: RequestedNetwork<'_>) -> Result<Vec<(Network, Version)>, Error> {
        let deadline = self.plugins.deadline();
        let RequestedNetwork::Cni(name) = of else { return self.networks(deadline) };
        let (dir, found) = (&self.config.conf_dir, self.configurations()?);
        let network = found.named(name).ok_or_else(|| Error::not_configured(name, dir, &found))?;
        Ok(vec![(network.clone(), self.plugins.version(network, deadline)?)])
    }

    /// The networks that pods are attached to, each with the CNI version to use. Each plugin has `deadline` to say its
    /// versions.
    fn networks(&self, deadline: Duration) -> Result<Vec<(Network, Version)>, Error> {
        let with_version = |network: Network| {
            let version = self.plugins.version(&network, deadline)?;
            Ok((network, version))
        };
        self.configured()?.into_iter().map(with_version).collect()
    }

    /// The networks that pods are attached to. Runs no plugin.
    fn configured(&self) -> Result<Vec<Network>, Error> {
        let found = self.configurations()?;
        let mut networks = found.networks.iter().filter(|of| !of.is_loopback()).peekable();
        if networks.peek().is_none() {
            let (dir, bad) = (self.config.conf_dir.clone(), found.bad.clone());
            return Err(Error::NoNetwork { dir, bad });
        }
        Ok(networks.take(self.plugins.networks_max()).cloned().collect())
    }

    /// The configurations; read again after a file has changed.
    fn configurations(&self) -> Result<Arc<Configurations>, Error> {
        let dir = &self.config.conf_dir;
        let failed = |source| Error::ReadConf { dir: dir.clone(), source };
        let now = conf::fingerprint(dir).map_err(failed)?;
        let mut held = lock_unpoisoned(&self.cached);
        if let Some((then, found)) = &*held
            && *then == now
        {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(conf::read(dir).map_err(failed)?);
        for bad in &found.bad {
            warn!(file = %bad.file.display(), why = bad.why, "invalid network configuration");
        }
        let names: Vec<&str> = found.networks.iter().map(|network| network.name.as_str()).collect();
        info!(dir = %dir.display(), networks = names.join(", "), "network configurations read");
        *held = Some((now, Arc::clone(&found)));
        Ok(found)
    }

    fn save(&self, record: &Record) -> Result<(), Error> {
        self.records.write(record)?;
        self.known().insert(record.pod.clone(), Arc::new(record.clone()));
        Ok(())
    }

    fn netns(&self, record: &Record) -> String {
        pin::shown(&pin::path(&self.config.netns_dir, &record.pod))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Record>>> {
        lock_unpoisoned(&self.known)
    }
}
