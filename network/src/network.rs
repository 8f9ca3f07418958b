// SPDX-License-Identifier: Apache-2.0
//! The pods' network, built-in or by CNI: one interface for the daemon.
//!
//! The rule: the configuration decides which network attaches new pods; a pod is detached by the network that
//! attached it, according to its record. So both are always open, and a node may change from one to the other while pods run.

use crate::builtin::{BuiltinNetwork, Config, has_records};
use crate::cni::{self, Cni, Collected};
use crate::error::Error;
use crate::held_ports::{self, Families, Held};
use crate::netns;
use crate::ports_in_use::{PortsInUse, Reserved};
use crate::sync::lock_unpoisoned;
use crate::types::{Bandwidth, LinkState, Provider, Request, RequestedNetwork};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use tracing::{info, warn};

/// The configured network of new pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// CNI plugins where the node has a configuration for them, else the built-in network. Decided for each pod.
    Auto,
    /// Hull's own: bridge, macvlan or ipvlan links.
    Builtin,
    /// The plugins that CNI configurations name.
    Cni,
    /// Pods have only loopback.
    None,
}

impl Mode {
    /// Whether the built-in network may attach new pods.
    #[must_use]
    pub fn attaches_by_builtin(self) -> bool {
        match self {
            Self::Auto | Self::Builtin => true,
            Self::Cni | Self::None => false,
        }
    }
}

/// The network of new pods, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The network of new pods.
    pub provider: Provider,
    /// The reason, as in `/etc/cni/net.d has no network configuration`.
    pub why: String,
    /// The reason why pods of both networks may not reach each other while the node is not drained.
    pub warning: Option<String>,
}

/// Formats as in `the built-in network, because /etc/cni/net.d has no network configuration`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, because {}", self.provider, self.why)
    }
}

/// The pod network of the node.
#[derive(Debug)]
pub struct Network {
    mode: Mode,
    builtin: BuiltinNetwork,
    /// Whether links on the bridge can be of this daemon's pods.
    owns_bridge: bool,
    cni: Cni,
    /// The last choice that was logged.
    logged: Mutex<Option<Choice>>,
    ports: PortsInUse,
}

impl Network {
    /// Loads the records of both networks. Changes nothing on the host, and runs no plugin.
    ///
    /// # Errors
    /// When subnets are not usable, or a state directory cannot be read.
    pub fn open(mode: Mode, builtin: Config, cni: cni::Config) -> Result<Self, Error> {
        let owns_bridge = mode.attaches_by_builtin() || has_records(&builtin);
        Ok(Self {
            mode,
            owns_bridge,
            builtin: BuiltinNetwork::open(builtin)?,
            cni: Cni::open(cni)?,
            logged: Mutex::new(None),
            ports: PortsInUse::default(),
        })
    }

    /// Takes over the settings of CNI that may change, as [`Cni::configure`] does.
    pub fn configure(&self, cni: &cni::Config) {
        self.cni.configure(cni);
    }

    /// Decides on the network of new pods. A changed decision is logged, with the number of pods of the other network.
    ///
    /// # Errors
    /// When the directory of CNI configurations cannot be read.
    pub fn choose(&self) -> Result<Choice, Error> {
        let (provider, why) = match self.mode {
            Mode::Auto => {
                let (wanted, why) = self.cni.is_wanted()?;
                let provider = if wanted { Provider::Cni } else { Provider::Builtin };
                (provider, why)
            }
            Mode::Builtin => (Provider::Builtin, self.why_builtin()),
            Mode::Cni => (Provider::Cni, "`mode` is `cni`".into()),
            Mode::None => (Provider::None, "`mode` is `none`".into()),
        };
        let choice = Choice { provider, why, warning: None };
        let mut logged = lock_unpoisoned(&self.logged);
        let is_new = logged.as_ref().is_none_or(|before| *before != choice);
        if is_new {
            info!(network = %choice.provider, why = choice.why, "network of new pods");
            let others = self.attached_by_others(choice.provider);
            if others > 0 {
                warn!(pods = others, network = %choice.provider,
                    "pods of another network stay on it until they are removed: drain the node");
            }
            *logged = Some(choice.clone());
        }
        Ok(choice)
    }

    /// A cluster's CNI is not ignored silently where the configuration asks for the built-in network.
    fn why_builtin(&self) -> String {
        match self.cni.is_wanted() {
            Ok((true, why)) => format!("`mode` names it (CNI is not used, although {why})"),
            Ok((false, _)) | Err(_) => "`mode` names it".to_owned(),
        }
    }

    fn attached_by_others(&self, provider: Provider) -> usize {
        let builtin = if provider == Provider::Builtin { 0 } else { self.builtin.attached_count() };
        let cni = if provider == Provider::Cni { 0 } else { self.cni.attached_count() };
        builtin + cni
    }

    /// The network that has attached this pod; `None` if neither has.
    pub fn provider_of(&self, pod: &str) -> Provider {
        if self.cni.is_attached(pod) {
            Provider::Cni
        } else if self.builtin.is_attached(pod) {
            Provider::Builtin
        } else {
            Provider::None
        }
    }

    /// Attaches the pod and returns its addresses, the primary one first. Blocks.
    ///
    /// # Errors
    /// When a step fails. The attempt is rolled back; [`Network::detach`] removes whatever could not be
    /// rolled back.
    pub fn attach(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, Error> {
        let provider = match request.network {
            RequestedNetwork::Configured => self.choose()?.provider,
            RequestedNetwork::Loopback => Provider::None,
            RequestedNetwork::Cni(_) => Provider::Cni,
        };
        let _reserved = self.reserve_ports(provider, request)?;
        if provider != Provider::None {
            refuse_held_ports(request, self.families(provider))?;
        }
        match provider {
            Provider::Builtin => {
                let Request { pod, netns, ports, bandwidth, .. } = *request;
                let attached = self.builtin.attach(&pod, netns, ports, bandwidth)?;
                Ok(attached.ips.iter().map(IpNet::addr).collect())
            }
            Provider::Cni => self.cni.attach(request),
            Provider::None => loopback_alone(request),
        }
    }

    /// The address families that new pods get; with CNI plugins, IPv4 for certain at most.
    fn families(&self, provider: Provider) -> Families {
        match provider {
            Provider::Builtin => self.builtin.families(),
            Provider::Cni | Provider::None => Families { v4: true, v6: false },
        }
    }

    /// Refuses host ports that a pod of the other network has; each network checks those of its own pods.
    fn reserve_ports(
        &self,
        provider: Provider,
        request: &Request<'_>,
    ) -> Result<Reserved<'_>, Error> {
        let pod = request.pod.id;
        let ports: Vec<_> =
            request.ports.iter().copied().filter(|port| port.host_port != 0).collect();
        let held_by_others = || match provider {
            Provider::Builtin => self.cni.port_holder(pod, &ports),
            Provider::Cni => self.builtin.port_holder(pod, &ports),
            Provider::None => None,
        };
        self.ports.reserve(provider, pod, &ports, held_by_others)
    }

    /// Removes everything that the pod has on the network. Idempotent. Blocks.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn detach(&self, pod: &str) -> Result<(), Error> {
        self.cni.detach(pod)?;
        if self.builtin.has_anything_of(pod)? { self.builtin.detach(pod) } else { Ok(()) }
    }

    /// Frees the pod's host ports for other pods while its processes are still ending. With CNI it
    /// detaches the pod, because plugins need its network namespace for that. Blocks.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn unpublish_ports(&self, pod: &str) -> Result<(), Error> {
        self.cni.detach(pod)?;
        self.builtin.unpublish_ports(pod)
    }

    /// Releases a pod whose processes have ended. Its addresses may become free only after this call
    /// returns; no other pod gets them before that. Blocks.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn release(&self, pod: &str) -> Result<(), Error> {
        self.cni.detach(pod)?;
        if self.builtin.has_anything_of(pod)? { self.builtin.release(pod) } else { Ok(()) }
    }

    /// The ids of all pods that have resources on the network, to sweep after a restart.
    #[must_use]
    pub fn attachments(&self) -> Vec<String> {
        let mut pods = self.cni.attachments();
        // A bridge of the same name may be another daemon's.
        if self.owns_bridge {
            pods.extend(self.builtin.attachments());
        }
        pods
    }

    /// The ids of all pods that CNI plugins have attached, or not completely detached.
    #[must_use]
    pub fn attachments_by_plugins(&self) -> Vec<String> {
        self.cni.attachments()
    }

    /// Checks that pods can be attached, and repairs what pods of the built-in network need. Returns the network of
    /// new pods. Blocks.
    ///
    /// # Errors
    /// Whatever is missing on this node; [`Error::hint`] says how to fix it.
    pub fn check(&self) -> Result<Choice, Error> {
        let mut choice = self.choose()?;
        match choice.provider {
            Provider::Builtin => self.builtin.check()?,
            Provider::Cni => {
                self.maintain();
                self.cni.check()?;
                choice.warning = self.builtin.shared_subnet()?;
            }
            Provider::None => self.maintain(),
        }
        Ok(choice)
    }

    /// Removes what only pods of the built-in network needed that are gone, and repairs its table. Failures are
    /// logged: new pods do not need it.
    pub fn maintain(&self) {
        let builtin = self.choose().map_or(true, |choice| choice.provider == Provider::Builtin);
        let done = match (builtin, self.owns_bridge) {
            (true, _) => self.builtin.maintain(),
            (false, true) => self.builtin.withdraw(),
            // A bridge of that name is another daemon's, or a plugin's.
            (false, false) => Ok(()),
        };
        if let Err(err) = done {
            warn!(error = %err, hint = err.hint(), "the built-in network of earlier pods is not in order");
        }
    }

    /// Whether the rules of the built-in network are there as its pods need them. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn has_rules(&self) -> Result<bool, Error> {
        // A table of the same name may be another daemon's.
        if self.owns_bridge { Ok(self.builtin.has_rules()?) } else { Ok(true) }
    }

    /// Checks the pod's attachment, as far as the network supports that. Blocks.
    ///
    /// # Errors
    /// The fault that was found.
    pub fn check_pod(&self, pod: &str) -> Result<(), Error> {
        // The built-in network checks the shared parts with every attach; a pod's own link goes with its namespace.
        Ok(self.cni.check_pod(pod)?)
    }

    /// The state of the pod's link on the host, if the built-in network has made it. Blocks.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn link_state(&self, pod: &str) -> Result<LinkState, Error> {
        match self.provider_of(pod) {
            Provider::Builtin => Ok(self.builtin.link_state(pod)?),
            Provider::Cni | Provider::None => Ok(LinkState::Elsewhere),
        }
    }

    /// Requests of the pod to its network that may not be met, each as a sentence.
    #[must_use]
    pub fn remarks(&self, pod: &str) -> Vec<String> {
        self.cni.remarks(pod)
    }

    /// Sets the subnets that the node's pods get addresses from.
    ///
    /// # Errors
    /// When the subnets are not usable.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        match self.mode {
            Mode::Builtin => self.builtin.set_pod_cidr(pod_cidr),
            Mode::Cni => Ok(self.cni.set_pod_cidr(pod_cidr)?),
            Mode::Auto => {
                self.cni.set_pod_cidr(pod_cidr)?;
                match (self.builtin.set_pod_cidr(pod_cidr), self.choose()?.provider) {
                    (Err(err), Provider::Cni) => {
                        warn!(error = %err, hint = err.hint(),
                            "the built-in network, which no new pod uses now, cannot have these subnets");
                        Ok(())
                    }
                    (set, _) => set,
                }
            }
            Mode::None => Ok(()),
        }
    }

    /// The calls of CNI plugins so far, by command.
    #[must_use]
    pub fn plugin_calls(&self) -> [cni::CallFigures; 6] {
        self.cni.plugin_calls()
    }

    /// Runs the garbage collection of CNI plugins, also for pods that have named a CNI network where new pods get
    /// another; the built-in network needs none. Blocks.
    ///
    /// # Errors
    /// When no CNI network is configured.
    pub fn collect_garbage(&self) -> Result<Collected, Error> {
        let attaches = match self.choose()?.provider {
            Provider::Builtin | Provider::None => false,
            Provider::Cni => true,
        };
        if !attaches && self.cni.attached_count() == 0 {
            return Ok(Collected::Done(Vec::new()));
        }
        Ok(self.cni.collect_garbage(attaches)?)
    }
}

/// Refuses host ports at which a process of the node would lose all its clients; warns of those that lose some.
fn refuse_held_ports(request: &Request<'_>, families: Families) -> Result<(), Error> {
    for port in request.ports.iter().filter(|port| port.host_port != 0) {
        match held_ports::held(port, families) {
            Held::Free => {}
            Held::InPart { ip, holder } => warn!(
                pod_id = request.pod.id,
                "host port {port} is published for the pod, and {holder} of this node listens on it at {ip}: clients at that address reach the pod from now on"
            ),
            Held::Whole { ip, holder } => return Err(Error::PortHeld { port: *port, ip, holder }),
        }
    }
    Ok(())
}

/// Brings loopback up; refuses host ports and rate limits, which need a network.
fn loopback_alone(request: &Request<'_>) -> Result<Vec<IpAddr>, Error> {
    if request.ports.iter().any(|port| port.host_port != 0) {
        return Err(Error::NoNetwork { what: "a host port" });
    }
    if request.bandwidth != Bandwidth::default() {
        return Err(Error::NoNetwork { what: "a rate limit" });
    }
    netns::loopback_up(request.netns)?;
    Ok(Vec::new())
}
