// SPDX-License-Identifier: Apache-2.0
//! Facts of a pod, its containers and its node by the names that Kubernetes has for them: `fieldRef` and
//! `resourceFieldRef`. Pure, except for [`NodeFacts::read`].

use super::manifest::{Container, Pod, Quantity, ResourceField};
use super::quantity;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The node, as a kubelet would describe it.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeFacts {
    pub(super) name: String,
    /// The addresses from which it reaches others.
    pub(super) ips: Vec<String>,
    /// In thousandths, as all quantities here.
    pub(super) cpu: u128,
    pub(super) memory: u128,
}

impl NodeFacts {
    /// Reads the facts of this machine.
    pub(super) fn read() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let system = rustix::system::sysinfo();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Documentation addresses, to which nothing is sent: the kernel only looks up the route.
        let ips = ["192.0.2.1:9", "[2001:db8::1]:9"].map(own_address);
        let memory = u128::from(system.totalram);
        Self {
            name,
            ips: ips.into_iter().flatten().map(|ip| ip.to_string()).collect(),
            cpu: (cpus as u128).saturating_mul(1000),
            memory: memory.saturating_mul(u128::from(system.mem_unit)).saturating_mul(1000),
        }
    }
}

/// The address of the route to another one; none without a route.
fn own_address(to: &str) -> Option<IpAddr> {
    let to: SocketAddr = to.parse().ok()?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// A pod, and what is known of it when a container is created.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodFacts<'a> {
    pub(super) pod: &'a Pod,
    pub(super) uid: &'a str,
    pub(super) node: &'a NodeFacts,
    /// Addresses of the pod; those of the node on its network.
    pub(super) ips: &'a [String],
}

impl PodFacts<'_> {
    /// The value of a field in an environment variable.
    ///
    /// # Errors
    /// There is no such field, or it has no value here.
    pub(super) fn of_env(&self, path: &str) -> Result<String, String> {
        let ips = if self.pod.spec.host_network { &self.node.ips } else { self.ips };
        let first = |ips: &[String], what: &str| {
            ips.first().cloned().ok_or_else(|| format!("fieldPath `{path}`: {what} has no address"))
        };
        match path {
            "metadata.labels" | "metadata.annotations" => {
                let why = "a variable has one of them, as in metadata.labels['app']";
                Err(format!("fieldPath `{path}`: {why}"))
            }
            "spec.nodeName" => Ok(self.node.name.clone()),
            "status.podIP" => first(ips, "the pod"),
            "status.podIPs" => first(ips, "the pod").map(|_| ips.join(",")),
            "status.hostIP" => first(&self.node.ips, "the node"),
            "status.hostIPs" => first(&self.node.ips, "the node").map(|_| self.node.ips.join(",")),
            _ => self.of_metadata(path),
        }
    }

    /// The value of a field in a file: only what is known before the pod runs, as in a cluster.
    ///
    /// # Errors
    /// There is no such field.
    pub(super) fn of_file(&self, path: &str) -> Result<String, String> {
        let metadata = &self.pod.metadata;
        match path {
            "metadata.labels" => Ok(lines(&metadata.labels)),
            "metadata.annotations" => Ok(lines(&metadata.annotations)),
            _ => self.of_metadata(path),
        }
    }

    fn of_metadata(&self, path: &str) -> Result<String, String> {
        let metadata = &self.pod.metadata;
        let of =
            |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned().unwrap_or_default();
        match path {
            "metadata.name" => return Ok(metadata.name.clone()),
            "metadata.namespace" => return Ok(metadata.namespace().to_owned()),
            "metadata.uid" => return Ok(self.uid.to_owned()),
            _ => {}
        }
        // As in a cluster, a key that is not there has an empty value.
        if let Some(key) = subscript(path, "metadata.labels") {
            return Ok(of(&metadata.labels, key));
        }
        if let Some(key) = subscript(path, "metadata.annotations") {
            return Ok(of(&metadata.annotations, key));
        }
        Err(format!(
            "fieldPath `{path}` is none of metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], \
             metadata.annotations['KEY']; and in env spec.nodeName, status.podIP, status.podIPs, status.hostIP, \
             status.hostIPs"
        ))
    }

    /// A request or limit of a container, as a whole number of units of the divisor, rounded up.
    ///
    /// # Errors
    /// There is no such container or resource, or the divisor is not one.
    pub(super) fn resource(
        &self,
        of: &ResourceField,
        own: Option<&Container>,
    ) -> Result<String, String> {
        let spec = &self.pod.spec;
        let all = || spec.containers.iter().chain(&spec.init_containers);
        let container = match &of.container_name {
            Some(name) => all().find(|container| container.name == *name),
            None => own,
        };
        let container = container.ok_or_else(|| match &of.container_name {
            Some(name) => format!("resourceFieldRef: there is no container `{name}`"),
            None => "resourceFieldRef of a volume: it needs a containerName".to_owned(),
        })?;
        let (limits, requests) = (&container.resources.limits, &container.resources.requests);
        let capacity = |name: &str| if name == "cpu" { self.node.cpu } else { self.node.memory };
        let parsed = |from: &BTreeMap<String, Quantity>, name: &str| match from.get(name) {
            None => Ok(None),
            Some(text) => quantity::thousandths(&text.to_string()).map(Some),
        };
        let value = match of.resource.split_once('.') {
            // Without a limit, it is what the node has.
            Some(("limits", name @ ("cpu" | "memory"))) => {
                parsed(limits, name)?.unwrap_or_else(|| capacity(name))
            }
            // Without a request, it is the limit.
            Some(("requests", name @ ("cpu" | "memory"))) => match parsed(requests, name)? {
                Some(request) => request,
                None => parsed(limits, name)?.unwrap_or(0),
            },
            _ => {
                let resource = &of.resource;
                return Err(format!(
                    "resourceFieldRef `{resource}` is none of limits.cpu, limits.memory, requests.cpu, requests.memory"
                ));
            }
        };
        let divisor = match &of.divisor {
            None => 1000,
            Some(text) => match quantity::thousandths(&text.to_string())? {
                // `0`, which clusters write for none.
                0 => 1000,
                divisor => divisor,
            },
        };
        Ok(value.div_ceil(divisor).to_string())
    }
}

/// The key of `NAME['KEY']`.
fn subscript<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let key = path.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
    let quoted = |quote: char| key.strip_prefix(quote)?.strip_suffix(quote);
    quoted('\'').or_else(|| quoted('"')).filter(|key| !key.is_empty())
}

/// Labels or annotations as lines KEY="VALUE", as a kubelet writes them.
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::super::documents;
    use super::*;

    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, b: 'x\"y'}, annotations: {a.io/b: c}}
spec:
  containers:
  - {name: app, image: i, resources: {limits: {cpu: 1500m, memory: 64Mi}, requests: {cpu: 250m}}}
  - {name: free, image: i}
";

    fn check(test: impl FnOnce(&PodFacts<'_>, &Pod)) {
        let pod: Pod = documents::parse(POD).unwrap();
        let node = NodeFacts {
            name: "node-1".into(),
            ips: vec!["10.0.0.1".into()],
            cpu: 2000,
            memory: 1000 << 30,
        };
        let ips = ["10.1.0.2".to_owned(), "fd00::2".to_owned()];
        test(&PodFacts { pod: &pod, uid: "u1", node: &node, ips: &ips }, &pod);
    }

    #[test]
    fn fields_have_the_names_of_kubernetes() {
        check(|facts, _| {
            for (path, value) in [
                ("metadata.name", "web"),
                ("metadata.namespace", "shop"),
                ("metadata.uid", "u1"),
                ("metadata.labels['app']", "web"),
                ("metadata.labels['none']", ""),
                ("metadata.annotations['a.io/b']", "c"),
                ("spec.nodeName", "node-1"),
                ("status.podIP", "10.1.0.2"),
                ("status.podIPs", "10.1.0.2,fd00::2"),
                ("status.hostIP", "10.0.0.1"),
            ] {
                assert_eq!(facts.of_env(path).as_deref(), Ok(value), "{path}");
            }
            for path in ["metadata.labels", "metadata.labels[app]", "status.phase", ""] {
                facts.of_env(path).unwrap_err();
            }
            assert_eq!(facts.of_file("metadata.labels").unwrap(), "app=\"web\"\nb=\"x\\\"y\"");
            facts.of_file("status.podIP").unwrap_err();
        });
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        check(|facts, pod| {
            let of = |resource: &str, divisor: Option<&str>, at: usize| {
                let field = ResourceField {
                    container_name: None,
                    resource: resource.into(),
                    divisor: divisor.map(|text| Quantity::Text(text.into())),
                };
                facts.resource(&field, pod.spec.containers.get(at))
            };
            for (resource, divisor, at, value) in [
                ("limits.cpu", None, 0, "2"),
                ("limits.cpu", Some("1m"), 0, "1500"),
                ("limits.memory", Some("1Mi"), 0, "64"),
                ("requests.cpu", Some("1m"), 0, "250"),
                ("requests.memory", Some("0"), 0, "67108864"),
                ("limits.cpu", None, 1, "2"),
                ("limits.memory", Some("1Gi"), 1, "1"),
                ("requests.cpu", None, 1, "0"),
            ] {
                assert_eq!(of(resource, divisor, at).as_deref(), Ok(value), "{resource}");
            }
            of("limits.gpu", None, 0).unwrap_err();
            of("limits.cpu", Some("x"), 0).unwrap_err();
            assert!(of("limits.cpu", None, 9).unwrap_err().contains("containerName"));
        });
    }

    #[test]
    fn this_node_has_a_name_and_resources() {
        let node = NodeFacts::read();
        assert!(!node.name.is_empty() && node.cpu >= 1000 && node.memory > 1000 << 20, "{node:?}");
    }
}
