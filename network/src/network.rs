// SPDX-License-Identifier: Apache-2.0
//! The pods' network, whoever makes it: what a pod asks of it and what it gives.

use crate::builtin::Bridge;
use crate::cni::{Cni, Collected};
use crate::error::Error;
use crate::netns;
use crate::types::{Bandwidth, Request};
use ipnet::IpNet;
use std::net::IpAddr;

/// Who makes the pods' network.
#[derive(Debug)]
pub enum Network {
    /// We do.
    Bridge(Box<Bridge>),
    /// Plugins do.
    Cni(Box<Cni>),
    /// Nobody: pods have loopback alone.
    None,
}

impl Network {
    /// Attaches the pod; its addresses, the first one first. Blocks.
    ///
    /// # Errors
    /// When something cannot be made; nothing is left of the attempt then, but for what a later
    /// [`Network::detach`] takes away.
    pub fn attach(&self, request: &Request<'_>) -> Result<Vec<IpAddr>, Error> {
        match self {
            Self::Bridge(bridge) => {
                let Request { pod, netns, ports, bandwidth, .. } = *request;
                let attached = bridge.attach(&pod, netns, ports, bandwidth)?;
                Ok(attached.ips.iter().map(IpNet::addr).collect())
            }
            Self::Cni(cni) => cni.attach(request),
            Self::None => loopback_alone(request),
        }
    }

    /// Takes away all that the pod has, any number of times. Blocks.
    ///
    /// # Errors
    /// When something will not go; a further call goes on.
    pub fn detach(&self, pod: &str) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.detach(pod),
            Self::Cni(cni) => Ok(cni.detach(pod)?),
            Self::None => Ok(()),
        }
    }

    /// Takes away what can go while the pod's processes are ending: its host ports, which others can
    /// have from then on; all of it, where plugins made it and want its namespace for that. Blocks.
    ///
    /// # Errors
    /// When something will not go; a further call goes on.
    pub fn withdraw(&self, pod: &str) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.close_ports(pod),
            Self::Cni(cni) => Ok(cni.detach(pod)?),
            Self::None => Ok(()),
        }
    }

    /// Lets go of a pod whose processes are gone: what is not taken away when this returns goes soon,
    /// and is not given to another before. Blocks.
    ///
    /// # Errors
    /// When something will not go; a further call goes on.
    pub fn release(&self, pod: &str) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.release(pod),
            Self::Cni(cni) => Ok(cni.detach(pod)?),
            Self::None => Ok(()),
        }
    }

    /// The pods that have anything of it. For sweeping after a restart.
    #[must_use]
    pub fn attachments(&self) -> Vec<String> {
        match self {
            Self::Bridge(bridge) => bridge.attachments(),
            Self::Cni(cni) => cni.attachments(),
            Self::None => Vec::new(),
        }
    }

    /// Whether pods can be attached. Blocks.
    ///
    /// # Errors
    /// What is missing, with the mend in [`Error::hint`].
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.check(),
            Self::Cni(cni) => Ok(cni.check()?),
            Self::None => Ok(()),
        }
    }

    /// Whether the pod is attached as it should be, as far as that can be found out. Blocks.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_pod(&self, pod: &str) -> Result<(), Error> {
        match self {
            // What it made is looked at by every attach; a pod's own link goes with its namespace.
            Self::Bridge(_) => Ok(()),
            Self::Cni(cni) => Ok(cni.check_pod(pod)?),
            Self::None => Ok(()),
        }
    }

    /// Tells the subnets that the node's pods have.
    ///
    /// # Errors
    /// When they are not usable.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.set_pod_cidr(pod_cidr),
            Self::Cni(cni) => Ok(cni.set_pod_cidr(pod_cidr)?),
            Self::None => Ok(()),
        }
    }

    /// Takes away what belongs to no pod, where that does not happen by itself. Blocks.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub fn collect_garbage(&self) -> Result<Collected, Error> {
        match self {
            Self::Bridge(_) | Self::None => Ok(Collected::Done(Vec::new())),
            Self::Cni(cni) => Ok(cni.collect_garbage()?),
        }
    }
}

/// Switches the pod's loopback on. What it cannot have is refused.
fn loopback_alone(request: &Request<'_>) -> Result<Vec<IpAddr>, Error> {
    if request.ports.iter().any(|port| port.host_port != 0) {
        return Err(Error::NoNetwork { what: "a host port" });
    }
    if request.bandwidth != Bandwidth::default() {
        return Err(Error::NoNetwork { what: "a rate" });
    }
    netns::loopback_up(request.netns)?;
    Ok(Vec::new())
}
