// SPDX-License-Identifier: Apache-2.0
//! Finds pods and containers by id, name, prefix of an id, POD/CONTAINER, NAMESPACE/POD or NAMESPACE/POD/CONTAINER.
//!
//! Ids take precedence over names, and names over prefixes of ids, so that the name of a container cannot
//! catch a command for the id of another one. Several matches are an error that lists them. Of the
//! attempts of a restarted container, the newest is selected.

use super::args::place::Place;
use super::client::Client;
use super::error::{Error, Namespaces, Result};
use super::output::short;
use hull_proto::cri as api;

/// Digits of a full id.
const ID_DIGITS: usize = 64;
/// The end of the daemon's message about a start in a pod that is stopped.
const STOPPED_POD: &str = "while it is stopped";

/// All pods and containers of the node.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pods: Vec<api::PodSandbox>,
    pub(crate) containers: Vec<api::Container>,
}

/// A pod or a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Object<'k> {
    Pod(&'k api::PodSandbox),
    Container(&'k api::Container),
}

/// The preferred object of a name that both a pod and its only container have, as after `hull run --name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    Pod,
    Container,
}

/// The name of a pod.
pub(crate) fn pod_name(pod: &api::PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

/// The namespace of a pod.
pub(crate) fn namespace(pod: &api::PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str())
}

/// The name of a container.
pub(crate) fn container_name(container: &api::Container) -> &str {
    container.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

/// The number of the attempt that a container is, from 0.
pub(crate) fn attempt(container: &api::Container) -> u32 {
    container.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

impl Object<'_> {
    /// The id of the pod or container.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.id,
            Self::Container(container) => &container.id,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Pod(pod) => pod_name(pod),
            Self::Container(container) => container_name(container),
        }
    }
}

impl Objects {
    /// Fetches all pods and containers from the daemon.
    pub(crate) async fn fetch(client: &mut Client) -> Result<Self> {
        let pods = client.runtime.list_pod_sandbox(api::ListPodSandboxRequest::default()).await?;
        let containers =
            client.runtime.list_containers(api::ListContainersRequest::default()).await?;
        Ok(Self { pods: pods.into_inner().items, containers: containers.into_inner().containers })
    }

    /// Fetches the pods and containers in which the names of a command are looked for.
    pub(crate) async fn fetch_in(client: &mut Client, place: &Place) -> Result<Self> {
        Ok(Self::fetch(client).await?.only_in(place.namespace.as_deref()))
    }

    /// The same without pods of other namespaces and their containers.
    pub(crate) fn only_in(mut self, of_namespace: Option<&str>) -> Self {
        if let Some(name) = of_namespace {
            self.pods.retain(|pod| namespace(pod) == name);
            let pods: Vec<&str> = self.pods.iter().map(|pod| pod.id.as_str()).collect();
            self.containers.retain(|of| pods.contains(&of.pod_sandbox_id.as_str()));
        }
        self
    }

    /// The error with names in place of the full ids of pods and containers, and with what to do about a pod that is
    /// stopped.
    pub(crate) fn named(&self, error: Error) -> Error {
        let Error::Daemon { mut message, mut hint } = error else { return error };
        let full = |pod: &api::PodSandbox| format!("{}/{}", namespace(pod), pod_name(pod));
        for container in self.containers.iter().filter(|of| of.id.len() == ID_DIGITS) {
            if let Some(pod) = self.pod_of(container) {
                let name = format!("{}/{}", full(pod), container_name(container));
                message = message.replace(&container.id, &name);
            }
        }
        for pod in self.pods.iter().filter(|pod| pod.id.len() == ID_DIGITS) {
            if hint.is_none() && message.contains(&pod.id) && message.ends_with(STOPPED_POD) {
                hint = Some(format!(
                    "a stopped pod is not started again: make another one with `hull play kube --replace FILE`, or \
                     with `hull rm {}` and `hull run`",
                    full(pod)
                ));
            }
            message = message.replace(&pod.id, &full(pod));
        }
        Error::Daemon { message, hint }
    }

    /// The pod with this id.
    pub(crate) fn pod_of(&self, container: &api::Container) -> Option<&api::PodSandbox> {
        self.pods.iter().find(|pod| pod.id == container.pod_sandbox_id)
    }

    /// The containers of a pod, without earlier attempts.
    pub(crate) fn newest_of(&self, pod: &str) -> Vec<&api::Container> {
        self.newest(|of| of.pod_sandbox_id == pod)
    }

    /// The attempt of a container before this one, if it is still there.
    pub(crate) fn previous(&self, of: &api::Container) -> Option<&api::Container> {
        let is_earlier = |old: &&api::Container| {
            old.pod_sandbox_id == of.pod_sandbox_id
                && container_name(old) == container_name(of)
                && attempt(old) < attempt(of)
        };
        self.containers.iter().filter(is_earlier).max_by_key(|old| attempt(old))
    }

    /// Finds the container with this name or id. A pod with one container stands for that container.
    pub(crate) fn find_container(&self, name: &str) -> Result<&api::Container> {
        let not_found = || Error::NotFound { kind: "container", name: name.to_owned() };
        match self.find(name, Prefer::Container) {
            Ok(Object::Container(container)) => Ok(container),
            Ok(Object::Pod(pod)) => {
                match self.newest(|of| of.pod_sandbox_id == pod.id).as_slice() {
                    [] => Err(not_found()),
                    [only] => Ok(only),
                    several => {
                        Err(self.ambiguous(name, several.iter().map(|of| Object::Container(of))))
                    }
                }
            }
            Err(Error::NotFound { .. }) => Err(not_found()),
            Err(other) => Err(other),
        }
    }

    /// Finds the container of `-c` in the pod with this name, or without one what
    /// [`find_container`](Self::find_container) finds.
    pub(crate) fn find_in(&self, name: &str, container: Option<&str>) -> Result<&api::Container> {
        let Some(container) = container else { return self.find_container(name) };
        let pod = match self.find(name, Prefer::Pod)? {
            Object::Pod(pod) => pod.id.as_str(),
            // The pod of `hull run` has the name of its container; an id may be the container's.
            Object::Container(of) => of.pod_sandbox_id.as_str(),
        };
        let found = self.newest(|of| of.pod_sandbox_id == pod && container_name(of) == container);
        found.first().copied().ok_or_else(|| Error::NotFound {
            kind: "container",
            name: format!("{name}/{container}"),
        })
    }

    /// The same for a command that needs a running container: of a pod, the only one that runs.
    pub(crate) fn find_running(
        &self,
        name: &str,
        container: Option<&str>,
    ) -> Result<&api::Container> {
        let found = self.find_in(name, container);
        if let (None, Err(Error::Ambiguous { .. })) = (container, &found)
            && let Ok(Object::Pod(pod)) = self.find(name, Prefer::Container)
        {
            let mut running = self.newest(|of| of.pod_sandbox_id == pod.id);
            running.retain(|of| of.state() == api::ContainerState::ContainerRunning);
            if let [only] = running.as_slice() {
                return Ok(only);
            }
        }
        found
    }

    /// Finds the pod with this name or id, `POD` or `NAMESPACE/POD`.
    pub(crate) fn find_pod(&self, name: &str) -> Result<&api::PodSandbox> {
        let not_found = || Error::NotFound { kind: "pod", name: name.to_owned() };
        let (of_namespace, own) = match name.split_once('/') {
            Some((of_namespace, own)) => (Some(of_namespace), own),
            None => (None, name),
        };
        let tiers: [&dyn Fn(&api::PodSandbox) -> bool; 3] =
            [&|pod| pod.id == own, &|pod| pod_name(pod) == own, &|pod| {
                is_hex(own) && pod.id.starts_with(own)
            }];
        for matches in tiers {
            let in_namespace =
                |pod: &api::PodSandbox| of_namespace.is_none_or(|name| namespace(pod) == name);
            let found: Vec<_> =
                self.pods.iter().filter(|pod| in_namespace(pod) && matches(pod)).collect();
            match found.as_slice() {
                [] => {}
                [only] => return Ok(only),
                several => {
                    return Err(self.ambiguous(name, several.iter().map(|pod| Object::Pod(pod))));
                }
            }
        }
        Err(not_found())
    }

    /// Finds the pod or container with this name or id.
    pub(crate) fn find(&self, name: &str, prefer: Prefer) -> Result<Object<'_>> {
        if let Some((pod, container)) = name.split_once('/') {
            return self.find_in_pod(name, pod, container);
        }
        let tiers: [&dyn Fn(&Object<'_>) -> bool; 3] =
            [&|object| object.id() == name, &|object| object.name() == name, &|object| {
                is_hex(name) && object.id().starts_with(name)
            }];
        for matches in tiers {
            let pods = self.pods.iter().map(Object::Pod).filter(|object| matches(object));
            let containers = self.newest(|of| matches(&Object::Container(of)));
            let found: Vec<_> = pods.chain(containers.into_iter().map(Object::Container)).collect();
            match found.as_slice() {
                [] => {}
                [only] => return Ok(*only),
                [Object::Pod(pod), Object::Container(container)]
                    if container.pod_sandbox_id == pod.id =>
                {
                    return Ok(match prefer {
                        Prefer::Pod => Object::Pod(pod),
                        Prefer::Container => Object::Container(container),
                    });
                }
                several => return Err(self.ambiguous(name, several.iter().copied())),
            }
        }
        Err(Error::NotFound { kind: "pod or container", name: name.to_owned() })
    }

    /// Finds the object of `POD/CONTAINER` or `NAMESPACE/POD/CONTAINER`, or else of `NAMESPACE/POD`.
    fn find_in_pod(&self, whole: &str, first: &str, rest: &str) -> Result<Object<'_>> {
        let (of_namespace, pod, container) = match rest.split_once('/') {
            Some((pod, container)) => (Some(first), pod, container),
            None => (None, first, rest),
        };
        let is_pod = |of: &api::PodSandbox| {
            of_namespace.is_none_or(|name| namespace(of) == name)
                && (pod_name(of) == pod || (is_hex(pod) && of.id.starts_with(pod)))
        };
        let in_pod = |of: &api::Container| self.pod_of(of).is_some_and(&is_pod);
        let found = self.newest(|of| container_name(of) == container && in_pod(of));
        match found.as_slice() {
            [] if of_namespace.is_none() => match self.find_pod(whole) {
                Err(Error::NotFound { .. }) => {
                    Err(Error::NotFound { kind: "container", name: whole.to_owned() })
                }
                found => found.map(Object::Pod),
            },
            [] => Err(Error::NotFound { kind: "container", name: whole.to_owned() }),
            [only] => Ok(Object::Container(only)),
            several => Err(self.ambiguous(whole, several.iter().map(|of| Object::Container(of)))),
        }
    }

    /// The matching containers, without earlier attempts of the same container.
    fn newest(&self, matches: impl Fn(&api::Container) -> bool) -> Vec<&api::Container> {
        let all: Vec<_> = self.containers.iter().filter(|of| matches(of)).collect();
        let superseded = |old: &api::Container| {
            all.iter().any(|new| {
                new.pod_sandbox_id == old.pod_sandbox_id
                    && container_name(new) == container_name(old)
                    && attempt(new) > attempt(old)
            })
        };
        all.iter().copied().filter(|of| !superseded(of)).collect()
    }

    fn ambiguous<'k>(&self, name: &str, found: impl Iterator<Item = Object<'k>>) -> Error {
        let found: Vec<_> = found.collect();
        let pod_of = |object: &Object<'k>| match object {
            Object::Pod(pod) => Some(self.pods.iter().find(|of| of.id == pod.id)?),
            Object::Container(container) => self.pod_of(container),
        };
        let pods: Vec<_> = found.iter().filter_map(pod_of).collect();
        let differ = pods.iter().any(|pod| pods.iter().any(|of| namespace(of) != namespace(pod)));
        let full = |pod: &api::PodSandbox| match namespace(pod) {
            name if differ && !name.is_empty() => format!("{name}/{}", pod_name(pod)),
            _ => pod_name(pod).to_owned(),
        };
        let shown = |object: &Object<'_>| match object {
            Object::Pod(pod) => format!("pod {} ({})", short(&pod.id), full(pod)),
            Object::Container(container) => {
                let pod = self.pod_of(container).map_or_else(String::new, full);
                format!("container {} ({pod}/{})", short(&container.id), container_name(container))
            }
        };
        let namespaces = if differ { Namespaces::Several } else { Namespaces::One };
        Error::Ambiguous {
            name: name.to_owned(),
            matches: found.iter().map(shown).collect(),
            namespaces,
        }
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, name: &str) -> api::PodSandbox {
        let metadata = api::PodSandboxMetadata { name: name.into(), ..Default::default() };
        api::PodSandbox { id: id.into(), metadata: Some(metadata), ..Default::default() }
    }

    fn container(id: &str, pod: &str, name: &str, attempt: u32) -> api::Container {
        api::Container {
            id: id.into(),
            pod_sandbox_id: pod.into(),
            metadata: Some(api::ContainerMetadata { name: name.into(), attempt }),
            ..Default::default()
        }
    }

    fn objects() -> Objects {
        Objects {
            pods: vec![
                pod("a1", "web"),
                pod("a2", "dns"),
                pod("a3", "dns2"),
                pod("a4", "two"),
                pod("a5", "c1"),
            ],
            containers: vec![
                container("c1", "a1", "web", 0),
                container("c2", "a2", "coredns", 0),
                container("c3", "a3", "coredns", 0),
                container("d1", "a4", "app", 0),
                container("d2", "a4", "app", 1),
                container("d3", "a4", "side", 0),
            ],
        }
    }

    #[test]
    fn ids_names_and_starts_of_ids_are_found() {
        let objects = objects();
        for (name, id) in [
            ("c1", "c1"),
            ("web", "c1"),
            ("dns", "c2"),
            ("dns2/coredns", "c3"),
            ("a3/coredns", "c3"),
            ("app", "d2"),
            ("d1", "d1"),
            ("side", "d3"),
        ] {
            assert_eq!(objects.find_container(name).unwrap().id, id, "{name}");
        }
    }

    #[test]
    fn a_name_that_fits_several_lists_them() {
        let objects = objects();
        let err = objects.find_container("coredns").unwrap_err().to_string();
        assert!(
            err.contains("container c2 (dns/coredns), or container c3 (dns2/coredns)"),
            "{err}"
        );
        let err = objects.find_container("two").unwrap_err().to_string();
        let error = objects.find_container("two").unwrap_err();
        assert!(error.hint().is_some_and(|hint| !hint.contains("NAMESPACE")), "{error:?}");
        assert!(err.contains("two/app") && err.contains("two/side"), "{err}");
        let err = objects.find("a", Prefer::Pod).unwrap_err().to_string();
        assert!(err.contains("pod a1 (web)"), "{err}");
    }

    #[test]
    fn a_namespace_tells_pods_of_one_name_apart() {
        let mut objects = objects();
        let mut twin = pod("b1", "web");
        twin.metadata.as_mut().unwrap().namespace = "other".into();
        objects.pods.push(twin);
        objects.containers.push(container("e1", "b1", "web", 0));
        let error = objects.find_pod("web").unwrap_err();
        assert!(error.to_string().contains("(other/web)"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("-n NAMESPACE")), "{error:?}");
        assert_eq!(objects.find_pod("other/web").unwrap().id, "b1");
        assert_eq!(objects.find_container("other/web/web").unwrap().id, "e1");
        assert_eq!(objects.find_container("other/web").unwrap().id, "e1");
        objects.find_container("none/web/web").unwrap_err();
    }

    #[test]
    fn errors_have_names_in_place_of_ids() {
        let mut objects = objects();
        let (of_pod, of_container) = ("ab".repeat(32), "cd".repeat(32));
        let mut shop = pod(&of_pod, "shop");
        shop.metadata.as_mut().unwrap().namespace = "prod".into();
        objects.pods.push(shop);
        objects.containers.push(container(&of_container, &of_pod, "app", 0));
        let named = |text: String| objects.named(Error::daemon(&text)).lines();
        let said = named(format!("cannot pause container `{of_container}` while it is exited"));
        assert_eq!(said, "error: cannot pause container `prod/shop/app` while it is exited\n");
        let said = named(format!("cannot start a container in pod `{of_pod}` while it is stopped"));
        assert!(said.contains("in pod `prod/shop` while it is stopped\nhint: "), "{said}");
        assert!(said.contains("--replace FILE") && said.contains("`hull rm prod/shop`"), "{said}");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let objects = objects();
        for name in ["", "nothing", "web/other", "zz", "/"] {
            assert!(matches!(objects.find_container(name), Err(Error::NotFound { .. })), "{name}");
        }
    }

    #[test]
    fn a_pod_and_its_container_of_one_name_are_told_apart_by_the_command() {
        let objects = objects();
        assert_eq!(objects.find("web", Prefer::Pod).unwrap().id(), "a1");
        assert_eq!(objects.find("web", Prefer::Container).unwrap().id(), "c1");
    }
}
