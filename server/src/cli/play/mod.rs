// SPDX-License-Identifier: Apache-2.0
//! `hull play kube`: the pods of a manifest without a cluster, made as a kubelet makes them.
//!
//! The rule: a manifest is checked as a whole before anything is created, and a pod that cannot be started whole is
//! removed.

mod configs;
mod manifest;
mod volumes;

use super::args::pods::Kube;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Kind, Kinds, Row};
use super::names::{Objects, namespace, pod_name};
use super::ps::row;
use super::run_logs::Making;
use super::signals::EndSignals;
use super::{documents, images, objects, output, pull, run_logs, wait};
use hull_proto::cri as api;
use manifest::{Container, Pod};
use serde_json::json;
use std::path::Path;

/// The fields of the pods that were run.
pub(crate) const PLAYED: Kinds = Kinds {
    verb: "play kube",
    fields: &[
        Field::always("name", "NAME", Kind::Text, "Name of the pod."),
        Field::always("namespace", "NAMESPACE", Kind::Text, "Namespace of the pod."),
        Field::always("id", "POD ID", Kind::Id, "Id of the pod."),
        Field::always("state", "STATE", Kind::Text, "What happened: started or removed."),
        Field::never("containers", Kind::List, "Ids of its containers, without init containers."),
    ],
    id: "id",
    name: "name",
};

/// Runs or removes the pods of a manifest.
pub(crate) async fn kube(mut client: Client, args: &Kube) -> Result<()> {
    let pods = read(&args.file)?;
    if !args.down && !args.replace {
        // All of them before the first is created.
        for pod in &pods {
            if let Some(holder) = existing(&mut client, pod).await?.first() {
                let (name, holder) = (pod.metadata.name.clone(), output::short(&holder.id));
                return Err(Error::NameTaken { name, holder });
            }
        }
    }
    let mut rows = Vec::new();
    let all = play(&mut client, &pods, args, &mut rows).await;
    // Also those that were run before an error.
    format::print(&PLAYED, &rows, &args.output)?;
    all
}

async fn play(client: &mut Client, pods: &[Pod], args: &Kube, rows: &mut Vec<Row>) -> Result<()> {
    for pod in pods {
        let existing = existing(client, pod).await?;
        if args.down || args.replace {
            let objects = Objects::fetch(client).await?;
            for pod in &existing {
                objects::stop_pod(client, &objects, pod, None).await?;
                objects::remove_pod(client, pod).await?;
            }
        }
        if args.down {
            rows.extend(existing.iter().map(|pod| {
                row(json!({
                    "name": pod_name(pod), "namespace": namespace(pod), "id": pod.id,
                    "state": "removed", "containers": [],
                }))
            }));
            continue;
        }
        let (id, containers) = run(client, pod, &args.file).await?;
        rows.push(row(json!({
            "name": pod.metadata.name, "namespace": configs::namespace(pod), "id": id,
            "state": "started", "containers": containers,
        })));
    }
    Ok(())
}

/// Reads the pods of a manifest, all of them or an error.
fn read(path: &Path) -> Result<Vec<Pod>> {
    let documents = documents::split(&documents::text(path)?);
    let bad = |at: usize, why: String| Error::BadManifest {
        path: path.to_owned(),
        what: format!("document {}", at + 1),
        why,
    };
    let mut pods = Vec::new();
    for (at, document) in documents.into_iter().enumerate() {
        let pod: Pod = documents::parse(&document).map_err(|why| bad(at, why))?;
        if (pod.api_version.as_str(), pod.kind.as_str()) != ("v1", "Pod") {
            let why = format!("it is {}/{}, and not v1/Pod", pod.api_version, pod.kind);
            return Err(bad(at, why));
        }
        check(&pod).map_err(|why| bad(at, why))?;
        pods.push(pod);
    }
    if pods.is_empty() {
        return Err(bad(0, "it is empty".into()));
    }
    Ok(pods)
}

/// Everything that can be checked before a pod is created.
fn check(pod: &Pod) -> Result<(), String> {
    let directory = Path::new("/");
    configs::pod(pod, "", directory)?;
    if pod.spec.containers.is_empty() {
        return Err("it has no containers".into());
    }
    let init = pod.spec.init_containers.iter().map(|of| (true, of));
    for (is_init, container) in init.chain(pod.spec.containers.iter().map(|of| (false, of))) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if container.name.is_empty() || !container.name.chars().all(is_plain) {
            return Err(format!("`{}` is not a name of a container", container.name));
        }
        let policy = container.image_pull_policy.as_deref();
        one_of("imagePullPolicy", policy, &["Always", "IfNotPresent", "Never"])?;
        configs::container(pod, container, directory, is_init)?;
    }
    let keys = pod.metadata.annotations.keys().chain(pod.metadata.labels.keys());
    if let Some(key) = keys.into_iter().find(|key| key.starts_with("hull.run/")) {
        return Err(format!("`{key}` is reserved for hull"));
    }
    let spec = &pod.spec;
    one_of("restartPolicy", spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"])?;
    one_of("dnsPolicy", spec.dns_policy.as_deref(), &["ClusterFirst", "Default"])?;
    for volume in &pod.spec.volumes {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if volume.name.is_empty() || !volume.name.chars().all(is_plain) {
            return Err(format!("`{}` is not a name of a volume", volume.name));
        }
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

/// The pods of this name that `hull` made.
async fn existing(client: &mut Client, pod: &Pod) -> Result<Vec<api::PodSandbox>> {
    let listed = client.runtime.list_pod_sandbox(api::ListPodSandboxRequest::default()).await?;
    let is_same = |of: &api::PodSandbox| {
        pod_name(of) == pod.metadata.name && namespace(of) == configs::namespace(pod)
    };
    let found =
        listed.into_inner().items.into_iter().filter(|of| is_same(of) && objects::is_of_run(of));
    Ok(found.collect())
}

/// Runs a pod, and returns its id and those of its containers. Whatever interrupts it, nothing incomplete is left.
async fn run(client: &mut Client, pod: &Pod, file: &Path) -> Result<(String, Vec<String>)> {
    let mut signals = EndSignals::new()?;
    let uid = run_logs::new_uid()?;
    let mut own = client.clone();
    let made = tokio::select! {
        made = make(&mut own, pod, file, &uid) => made,
        _ = signals.next() => Err(Error::PlayInterrupted),
    };
    if made.is_err() {
        let left = tokio::select! {
            left = objects::remove_by_uid(client, &uid) => left,
            _ = signals.next() => Err(Error::Interrupted),
        };
        // The first error is the result.
        if let Err(left) = left {
            output::to_stderr(&left.lines());
        }
    }
    made
}

/// Makes everything of a pod with this uid.
async fn make(
    client: &mut Client,
    pod: &Pod,
    file: &Path,
    uid: &str,
) -> Result<(String, Vec<String>)> {
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        image(client, container).await?;
    }
    let missing = Error::Response { operation: "find the log directory", missing: "path" };
    let directory = run_logs::directory(client, uid).await?.ok_or(missing)?;
    let _making = Making::begin(&directory)?;
    let bad =
        |why| Error::BadManifest { path: file.to_owned(), what: pod.metadata.name.clone(), why };
    pod.spec.volumes.iter().try_for_each(|volume| volumes::prepare(volume, &directory))?;
    let config = configs::pod(pod, uid, &directory).map_err(bad)?;
    let request = api::RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: pod.spec.runtime_class_name.clone().unwrap_or_default(),
    };
    let id = client.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    let containers = start(client, pod, &id, &config, &directory, file).await?;
    Ok((id, containers))
}

/// Starts init containers one after the other, then all containers.
async fn start(
    client: &mut Client,
    pod: &Pod,
    id: &str,
    config: &api::PodSandboxConfig,
    directory: &Path,
    file: &Path,
) -> Result<Vec<String>> {
    let bad =
        |why| Error::BadManifest { path: file.to_owned(), what: pod.metadata.name.clone(), why };
    let mut ids = Vec::new();
    let all = pod.spec.init_containers.iter().map(|of| (true, of));
    for (is_init, container) in all.chain(pod.spec.containers.iter().map(|of| (false, of))) {
        let made = configs::container(pod, container, directory, is_init).map_err(bad)?;
        let request = api::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(made),
            sandbox_config: Some(config.clone()),
        };
        let container_id =
            client.runtime.create_container(request).await?.into_inner().container_id;
        let request = api::StartContainerRequest { container_id: container_id.clone() };
        client.runtime.start_container(request).await?;
        if !is_init {
            ids.push(container_id);
            continue;
        }
        let status = wait::until_exited(client.clone(), container_id).await?;
        if status.exit_code != 0 {
            let why =
                format!("init container `{}` exited with {}", container.name, status.exit_code);
            return Err(bad(why));
        }
    }
    Ok(ids)
}

/// Pulls the image of a container as its policy says; by default if it is missing.
async fn image(client: &mut Client, container: &Container) -> Result<()> {
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let is_there = policy != "Always" && images::find(client, &container.image).await?.is_some();
    if policy == "Never" && !is_there {
        return Err(Error::NotFound { kind: "image", name: container.image.clone() });
    }
    if !is_there {
        pull::one(client, &container.image, &pull::saved(&container.image).await?, false).await?;
    }
    Ok(())
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

    fn parsed(text: &str) -> Result<Vec<Pod>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn a_manifest_becomes_the_configuration_that_a_kubelet_makes() {
        let pods = parsed(&format!("---\n{POD}---\n# nothing\n")).unwrap();
        let [pod] = pods.as_slice() else { panic!("{pods:?}") };
        let aliases = "spec:\n  hostAliases: [{ip: 10.0.0.1, hostnames: [a, b]}]\n";
        let aliased = parsed(&POD.replace("spec:\n", aliases)).unwrap();
        let made = configs::pod(&aliased[0], "uid", Path::new("/d")).unwrap();
        assert_eq!(made.annotations[run_pods::HOSTS], "10.0.0.1 a\n10.0.0.1 b\n");
        let directory = Path::new("/d");
        let made = configs::pod(pod, "uid", directory).unwrap();
        assert_eq!(made.hostname, "web");
        assert_eq!(made.port_mappings[0].host_port, 8080);
        let container = configs::container(pod, &pod.spec.containers[0], directory, false).unwrap();
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
            (POD.replace("name: data, emptyDir: {}", "name: data, secret: {}"), "secret"),
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
