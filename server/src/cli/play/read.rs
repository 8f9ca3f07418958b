// SPDX-License-Identifier: Apache-2.0
//! Reads a manifest: its pods, and the ConfigMaps and Secrets that they use, from one file.
//!
//! The rule: everything that can be wrong with the file is found here, before anything is created.

use super::super::documents;
use super::super::error::{Error, Result};
use super::configs::{self, Setting};
use super::data::{Data, DataKind};
use super::fields::{NodeFacts, PodFacts};
use super::files;
use super::manifest::Pod;
use super::{unsupported, validate};
use crate::container::{logging, quota};
use crate::oci_spec::{CGROUP_WRITABLE, run_options};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// An address of the pods for the checks: they have none yet.
const SOME_ADDRESS: &str = "192.0.2.1";

/// The pods of a file, and what they refer to.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    pub(super) pods: Vec<Pod>,
    pub(super) data: Data,
    pub(super) node: NodeFacts,
}

impl Manifest {
    /// The error about one of the pods.
    pub(super) fn bad(&self, pod: &Pod, why: String) -> Error {
        let what = format!("pod {}", pod.metadata.name);
        let hint = unsupported::hint(&why);
        Error::BadManifest { path: self.path.clone(), what, why, hint }
    }
}

/// The beginning of every document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

/// Reads a manifest, all of it or an error.
pub(super) fn read(path: &Path) -> Result<Manifest> {
    let documents = documents::split(&documents::text(path)?);
    let bad = |at: usize, why: String| {
        let why = unsupported::field(why);
        let (what, hint) = (format!("document {}", at + 1), unsupported::hint(&why));
        Error::BadManifest { path: path.to_owned(), what, why, hint }
    };
    let mut pods = Vec::new();
    let mut data = Data::default();
    for (at, document) in documents.iter().enumerate() {
        let head: Head = documents::parse(document).map_err(|why| bad(at, why))?;
        let (version, kind) = (head.api_version.as_str(), head.kind.as_str());
        if let Some(kind) = DataKind::of(version, kind) {
            data.add(kind, document).map_err(|why| bad(at, why))?;
        } else if (version, kind) == ("v1", "Pod") {
            let pod: Pod = documents::parse(document).map_err(|why| bad(at, why))?;
            pods.push((at, pod));
        } else {
            return Err(bad(at, unsupported::kind(version, kind)));
        }
    }
    if pods.is_empty() {
        let why = if documents.is_empty() { "the file is empty" } else { "the file has no pod" };
        return Err(bad(0, why.into()));
    }
    let mut names = BTreeSet::new();
    for (at, Pod { metadata, .. }) in &pods {
        let (namespace, name) = (metadata.namespace(), metadata.name.as_str());
        if !names.insert((namespace, name)) {
            return Err(bad(*at, format!("pod `{namespace}/{name}` is there twice")));
        }
    }
    let node = NodeFacts::read();
    // The documents may be in any order.
    for (at, pod) in &pods {
        check(pod, &data, &node).map_err(|why| bad(*at, why))?;
    }
    let pods = pods.into_iter().map(|(_, pod)| pod).collect();
    Ok(Manifest { path: path.to_owned(), pods, data, node })
}

/// Everything that can be checked before a pod is created.
fn check(pod: &Pod, data: &Data, node: &NodeFacts) -> Result<(), String> {
    let directory = Path::new("/");
    let ips = [SOME_ADDRESS.to_owned()];
    let facts = PodFacts { pod, uid: "", node, ips: &ips };
    let at = Setting { facts, data, directory };
    validate::pod(pod)?;
    configs::pod(pod, "", directory)?;
    if pod.spec.containers.is_empty() {
        return Err("it has no containers".into());
    }
    let init = pod.spec.init_containers.iter().map(|of| (true, of));
    for (is_init, container) in init.chain(pod.spec.containers.iter().map(|of| (false, of))) {
        let policy = container.image_pull_policy.as_deref();
        one_of("imagePullPolicy", policy, &["Always", "IfNotPresent", "Never"])?;
        configs::container(container, is_init, &at)
            .map_err(|why| format!("container `{}`: {why}", container.name))?;
    }
    let keys = pod.metadata.annotations.keys().chain(pod.metadata.labels.keys());
    let is_open = |key: &str| {
        key == run_options::INIT
            || key == CGROUP_WRITABLE
            || logging::is_annotation(key)
            || quota::is_annotation(key)
    };
    let is_reserved = |key: &&String| key.starts_with("hull.run/") && !is_open(key);
    if let Some(key) = keys.into_iter().find(is_reserved) {
        return Err(format!("`{key}` is reserved for hull"));
    }
    let spec = &pod.spec;
    one_of("restartPolicy", spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"])?;
    one_of("dnsPolicy", spec.dns_policy.as_deref(), &["ClusterFirst", "Default"])?;
    for volume in &pod.spec.volumes {
        configs::host_path(volume, directory)?;
        files::of(volume, &facts, data)?;
    }
    Ok(())
}

/// Refuses a word that Kubernetes does not have there, or that needs more than this node.
fn one_of(field: &str, word: Option<&str>, words: &[&str]) -> Result<(), String> {
    match word.filter(|word| !words.contains(word)) {
        Some(word) => Err(format!("{field} `{word}` is none of {}", words.join(", "))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::run_pods;

    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: app
    image: nginx
    env: [{name: A, value: b}]
    ports: [{containerPort: 80, hostPort: 8080}]
    resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 0.25}}
    volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
  volumes: [{name: data, emptyDir: {}}]
";

    #[test]
    fn two_pods_of_one_name_are_refused() {
        let said = parsed(&format!("{POD}---\n{POD}")).unwrap_err();
        assert!(said.to_string().contains("document 2 of "), "{said}");
        assert!(said.to_string().contains("pod `default/web` is there twice"), "{said}");
        assert_eq!(said.hint(), None);
        let other = POD.replace("name: web", "name: web, namespace: other");
        assert_eq!(parsed(&format!("{POD}---\n{other}")).unwrap().pods.len(), 2);
    }

    #[test]
    fn a_config_map_of_another_namespace_says_where_it_is() {
        let of = |namespace: &str| {
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c, namespace: {namespace}}}\n"
            )
        };
        let pod = POD.replace("emptyDir: {}", "configMap: {name: c}");
        let error = parsed(&format!("{pod}{}", of("foo"))).unwrap_err();
        assert!(error.to_string().contains("but one in namespace `foo`"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("`namespace: foo`")), "{error:?}");
        parsed(&format!("{pod}{}", of("default"))).unwrap();
    }

    #[test]
    fn a_limit_of_a_part_of_a_byte_is_refused() {
        let error = parsed(&POD.replace("memory: 64Mi", "memory: 100m")).unwrap_err();
        assert!(error.to_string().contains("`100Mi` is 100 MiB"), "{error}");
        assert_eq!(error.hint(), None);
        for text in ["0.4", "1m", "'0.4'"] {
            parsed(&POD.replace("memory: 64Mi", &format!("memory: {text}"))).unwrap_err();
        }
    }

    fn parsed(text: &str) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn a_manifest_becomes_the_configuration_that_a_kubelet_makes() {
        let manifest = parsed(&format!("---\n{POD}---\n# nothing\n")).unwrap();
        let [pod] = manifest.pods.as_slice() else { panic!("{manifest:?}") };
        let aliases = "spec:\n  hostAliases: [{ip: 10.0.0.1, hostnames: [a, b]}]\n";
        let aliased = parsed(&POD.replace("spec:\n", aliases)).unwrap();
        let made = configs::pod(&aliased.pods[0], "uid", Path::new("/d")).unwrap();
        assert_eq!(made.annotations[run_pods::HOSTS], "10.0.0.1 a\n10.0.0.1 b\n");
        let init = "annotations: {hull.run/init: 'true'}";
        let annotated = parsed(&POD.replace("labels: {app: web}", init)).unwrap();
        let made = configs::pod(&annotated.pods[0], "uid", Path::new("/d")).unwrap();
        assert_eq!(made.annotations[run_options::INIT], "true");
        let directory = Path::new("/d");
        let made = configs::pod(pod, "uid", directory).unwrap();
        assert_eq!(made.hostname, "web");
        assert_eq!(made.port_mappings[0].host_port, 8080);
        let facts = PodFacts { pod, uid: "uid", node: &manifest.node, ips: &[] };
        let at = Setting { facts, data: &manifest.data, directory };
        let container = configs::container(&pod.spec.containers[0], false, &at).unwrap();
        assert_eq!(container.annotations[run_pods::RESTART], "always", "as a kubelet by default");
        let mount = &container.mounts[0];
        assert_eq!((mount.host_path.as_str(), mount.readonly), ("/d/volumes/data", true));
        let resources = container.linux.unwrap().resources.unwrap();
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 256));
    }

    #[test]
    fn a_field_that_is_not_implemented_is_named() {
        for (text, name) in [
            (
                POD.replace("    image: nginx", "    image: nginx\n    livenessProbe: {}"),
                "livenessProbe",
            ),
            (POD.replace("kind: Pod", "kind: Deployment"), "Deployment"),
            (POD.replace("name: data, emptyDir: {}", "name: data, secret: {}"), "secretName"),
            (
                POD.replace("emptyDir: {}", "persistentVolumeClaim: {}"),
                "`persistentVolumeClaim` at line",
            ),
            (POD.replace("emptyDir: {}", "emptyDir: {medium: Memory}"), "emptyDir.medium `Memory`"),
            (POD.replace("emptyDir: {}", "emptyDir: {sizeLimit: 1Gi}"), "emptyDir.sizeLimit"),
            (
                POD.replace("emptyDir: {}", "emptyDir: {}, hostPath: {path: /x}"),
                "is not one of hostPath",
            ),
            (POD.replace("readOnly: true", "subPath: a"), "subPath of volume `data`"),
            (POD.replace("emptyDir: {}", "configMap: {name: none}"), "no ConfigMap `none`"),
            (
                format!(
                    "{POD}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: web, colour: red}}\n"
                ),
                "colour",
            ),
            (POD.replace("name: data, mountPath", "name: none, mountPath"), "none"),
            (POD.replace("cpu: 500m", "gpu: 1"), "gpu"),
            (
                POD.replace("labels: {app: web}", "annotations: {hull.run/remove: x}"),
                "hull.run/remove",
            ),
            (
                POD.replace("emptyDir: {}", "hostPath: {path: /x, type: Pipe}"),
                "hostPath type `Pipe`",
            ),
        ] {
            let said = parsed(&text).unwrap_err().to_string();
            assert!(said.contains(name), "{name}: {said}");
        }
    }
}
