// SPDX-License-Identifier: Apache-2.0
//! Host ports of pods that are being attached, for the time in which a node changes from one network to another.
//!
//! Each network refuses ports of its own pods. A port of the other network's pod would be forwarded by both, so it
//! is refused here: under one lock, the ports of pods that the other network is just attaching are compared, and
//! then those of the pods that it has attached. A pod is in the first list until it is in the second.

use crate::error::Error;
use crate::sync::lock_unpoisoned;
use crate::types::{PortMapping, Provider};
use std::sync::Mutex;

#[derive(Debug)]
struct Attaching {
    provider: Provider,
    pod: String,
    ports: Vec<PortMapping>,
}

/// The host ports of all pods that are being attached.
#[derive(Debug, Default)]
pub(crate) struct PortsInUse(Mutex<Vec<Attaching>>);

/// The ports of one pod, reserved until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved<'p> {
    of: Option<(&'p PortsInUse, Provider, String)>,
}

impl PortsInUse {
    /// Reserves the ports for the pod. `held_by_others` looks among the pods that the other network has attached.
    ///
    /// # Errors
    /// [`Error::PortTaken`].
    pub(crate) fn reserve(
        &self,
        provider: Provider,
        pod: &str,
        ports: &[PortMapping],
        held_by_others: impl FnOnce() -> Option<(PortMapping, PortMapping, String)>,
    ) -> Result<Reserved<'_>, Error> {
        if ports.is_empty() {
            return Ok(Reserved { of: None });
        }
        let mut all = lock_unpoisoned(&self.0);
        let clash = |other: &Attaching| {
            let both =
                ports.iter().flat_map(|port| other.ports.iter().map(move |held| (port, held)));
            let (port, held) = both.into_iter().find(|(port, held)| port.clashes(held))?;
            Some((*port, *held, other.pod.clone()))
        };
        let mut others = all.iter().filter(|other| other.provider != provider);
        if let Some((port, held, holder)) = others.find_map(clash).or_else(held_by_others) {
            return Err(Error::PortTaken { port, held, holder });
        }
        all.push(Attaching { provider, pod: pod.to_owned(), ports: ports.to_vec() });
        Ok(Reserved { of: Some((self, provider, pod.to_owned())) })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let Some((ports, provider, pod)) = &self.of else { return };
        lock_unpoisoned(&ports.0).retain(|of| of.pod != *pod || of.provider != *provider);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Protocol;

    fn port(host_port: u16) -> PortMapping {
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: None }
    }

    #[test]
    fn a_port_is_refused_while_the_other_network_attaches_its_holder_and_while_it_has_it() {
        let ports = PortsInUse::default();
        let nobody = || None;
        let first = ports.reserve(Provider::Builtin, "a", &[port(80)], nobody).unwrap();
        // Its own network looks itself.
        drop(ports.reserve(Provider::Builtin, "b", &[port(80)], nobody).unwrap());
        let refused = ports.reserve(Provider::Cni, "c", &[port(80)], nobody).unwrap_err();
        assert!(refused.to_string().contains("pod a has"), "{refused}");
        drop(ports.reserve(Provider::Cni, "c", &[port(81)], nobody).unwrap());
        drop(first);
        let attached = || Some((port(80), port(80), "a".to_owned()));
        let refused = ports.reserve(Provider::Cni, "c", &[port(80)], attached).unwrap_err();
        assert!(refused.to_string().contains("pod a has"), "{refused}");
        drop(ports.reserve(Provider::Cni, "c", &[port(80)], nobody).unwrap());
        assert!(lock_unpoisoned(&ports.0).is_empty());
    }
}
