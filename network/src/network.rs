// SPDX-License-Identifier: Apache-2.0
//! The pods' network, built-in or by CNI: one interface for the daemon.

use crate::builtin::BuiltinNetwork;
use crate::cni::{Cni, Collected};
use crate::error::Error;
use crate::netns;
use crate::types::{Bandwidth, Request};
use ipnet::IpNet;
use std::net::IpAddr;

/// The pod network that the node is configured with.
#[derive(Debug)]
pub enum Network {
    /// Hull's own: bridge, macvlan or ipvlan links.
    Builtin(Box<BuiltinNetwork>),
    /// The network that CNI plugins provide.
    Cni(Box<Cni>),
    /// No network: pods have only loopback.
    None,
}

impl Network {
    /// Attaches the pod and returns its addresses, the primary one first. Blocks.
    ///
    /// # Errors
    /// When a step fails. The attempt is rolled back; [`Network::detach`] removes whatever could not be
    /// rolled back.
    pub fn attach(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, Error> {
        match self {
            Self::Builtin(bridge) => {
                let Request { pod, netns, ports, bandwidth, .. } = *request;
                let attached = bridge.attach(&pod, netns, ports, bandwidth)?;
                Ok(attached.ips.iter().map(IpNet::addr).collect())
            }
            Self::Cni(cni) => cni.attach(request),
            Self::None => loopback_alone(request),
        }
    }

    /// Removes everything that the pod has on the network. Idempotent. Blocks.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn detach(&self, pod: &str) -> Result<(), Error> {
        match self {
            Self::Builtin(bridge) => bridge.detach(pod),
            Self::Cni(cni) => Ok(cni.detach(pod)?),
            Self::None => Ok(()),
        }
    }

    /// Frees the pod's host ports for other pods while its processes are still ending. With CNI it
    /// detaches the pod, because plugins need its network namespace for that. Blocks.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn unpublish_ports(&self, pod: &str) -> Result<(), Error> {
        match self {
            Self::Builtin(bridge) => bridge.unpublish_ports(pod),
            Self::Cni(cni) => Ok(cni.detach(pod)?),
            Self::None => Ok(()),
        }
    }

    /// Releases a pod whose processes have ended. Its addresses may become free only after this call
    /// returns; no other pod gets them before that. Blocks.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn release(&self, pod: &str) -> Result<(), Error> {
        match self {
            Self::Builtin(bridge) => bridge.release(pod),
            Self::Cni(cni) => Ok(cni.detach(pod)?),
            Self::None => Ok(()),
        }
    }

    /// The ids of all pods that have resources on the network, to sweep after a restart.
    #[must_use]
    pub fn attachments(&self) -> Vec<String> {
        match self {
            Self::Builtin(bridge) => bridge.attachments(),
            Self::Cni(cni) => cni.attachments(),
            Self::None => Vec::new(),
        }
    }

    /// Checks that pods can be attached. Blocks.
    ///
    /// # Errors
    /// Whatever is missing on this node; [`Error::hint`] says how to fix it.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Builtin(bridge) => bridge.check(),
            Self::Cni(cni) => Ok(cni.check()?),
            Self::None => Ok(()),
        }
    }

    /// Checks the pod's attachment, as far as the network supports that. Blocks.
    ///
    /// # Errors
    /// The fault that was found.
    pub fn check_pod(&self, pod: &str) -> Result<(), Error> {
        match self {
            // Every attach checks the shared parts; a pod's own link goes with its namespace.
            Self::Builtin(_) => Ok(()),
            Self::Cni(cni) => Ok(cni.check_pod(pod)?),
            Self::None => Ok(()),
        }
    }

    /// Sets the subnets that the node's pods get addresses from.
    ///
    /// # Errors
    /// When the subnets are not usable.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        match self {
            Self::Builtin(bridge) => bridge.set_pod_cidr(pod_cidr),
            Self::Cni(cni) => Ok(cni.set_pod_cidr(pod_cidr)?),
            Self::None => Ok(()),
        }
    }

    /// Runs the garbage collection of CNI plugins; the built-in network needs none. Blocks.
    ///
    /// # Errors
    /// When no CNI network is configured.
    pub fn collect_garbage(&self) -> Result<Collected, Error> {
        match self {
            Self::Builtin(_) | Self::None => Ok(Collected::Done(Vec::new())),
            Self::Cni(cni) => Ok(cni.collect_garbage()?),
        }
    }
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
