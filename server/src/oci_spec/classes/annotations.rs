// SPDX-License-Identifier: Apache-2.0
//! The annotations by which pods choose classes, with the names of goresctrl, which containerd and CRI-O use. Pure.

use hull_proto::cri;

/// The annotations by which one kind of classes is chosen; the first that is there counts.
pub(super) struct Annotations {
    /// Of the container, which its client sets.
    pub(super) of_container: &'static str,
    /// Of the pod, before the name of a container.
    pub(super) of_named: &'static str,
    /// Of the pod, for all its containers.
    pub(super) of_pod: &'static str,
}

pub(super) const BLOCK_IO: Annotations = Annotations {
    of_container: "io.kubernetes.cri.blockio-class",
    of_named: "blockio.resources.beta.kubernetes.io/container.",
    of_pod: "blockio.resources.beta.kubernetes.io/pod",
};
pub(super) const RDT: Annotations = Annotations {
    of_container: "io.kubernetes.cri.rdt-class",
    of_named: "rdt.resources.beta.kubernetes.io/container.",
    of_pod: "rdt.resources.beta.kubernetes.io/pod",
};

impl Annotations {
    /// The class that is asked for; none if the annotation that counts is empty.
    pub(super) fn class<'c>(
        &self,
        pod: &'c cri::PodSandboxConfig,
        config: &'c cri::ContainerConfig,
    ) -> Option<&'c str> {
        let named = || {
            let name = config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
            pod.annotations.get(&format!("{}{name}", self.of_named))
        };
        let found = config.annotations.get(self.of_container).or_else(named);
        let found = found.or_else(|| pod.annotations.get(self.of_pod))?;
        Some(found.as_str()).filter(|class| !class.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)]) -> cri::PodSandboxConfig {
        let pairs = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        cri::PodSandboxConfig { annotations: pairs.collect(), ..Default::default() }
    }

    fn named(name: &str) -> cri::ContainerConfig {
        let metadata = cri::ContainerMetadata { name: name.into(), attempt: 0 };
        cri::ContainerConfig { metadata: Some(metadata), ..Default::default() }
    }

    #[test]
    fn the_annotation_nearest_to_the_container_counts() {
        let pod = pod(&[
            ("blockio.resources.beta.kubernetes.io/pod", "slow"),
            ("blockio.resources.beta.kubernetes.io/container.web", "fast"),
            ("blockio.resources.beta.kubernetes.io/container.free", ""),
            ("rdt.resources.beta.kubernetes.io/pod", "gold"),
        ]);
        assert_eq!(BLOCK_IO.class(&pod, &named("db")), Some("slow"));
        assert_eq!(BLOCK_IO.class(&pod, &named("web")), Some("fast"));
        assert_eq!(BLOCK_IO.class(&pod, &named("free")), None, "an empty one names none");
        let mut own = named("web");
        own.annotations.insert("io.kubernetes.cri.blockio-class".into(), "own".into());
        assert_eq!(BLOCK_IO.class(&pod, &own), Some("own"));
        assert_eq!(RDT.class(&pod, &own), Some("gold"));
    }
}
