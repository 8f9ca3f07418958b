// SPDX-License-Identifier: Apache-2.0
//! Drives a case as a kubelet would, and keeps what the answers say.

use crate::case::{After, Set, Setup};
use hull_proto::cri as api;
use hull_tests::{Cri, ExpectExt as _, eventually};
use tonic::Status;

/// All that the calls said about the failure, as one line.
pub(crate) async fn answer(cri: &Cri, mut setup: Setup, set: Set) -> String {
    let mut said = Vec::new();
    match set {
        Set::Pull(reference) => {
            keep(&mut said, cri.pull(&reference).await);
            return said.join(" | ");
        }
        Set::Configs(set) => set(&mut setup),
    }
    let request = api::RunPodSandboxRequest {
        config: Some(setup.pod.clone()),
        runtime_handler: setup.handler.to_owned(),
    };
    let pod = cri.runtime.clone().run_pod_sandbox(request).await;
    let pod = keep(&mut said, pod.map(|answer| answer.into_inner().pod_sandbox_id));
    if let (Some(pod), Some(config)) = (&pod, setup.container.take()) {
        container(cri, pod, config, &setup.after, &mut said).await;
    }
    if let Some(pod) = pod {
        cri.remove_pod(&pod).await.or_fail("remove the pod of a case");
    }
    said.join(" | ")
}

async fn container(
    cri: &Cri,
    pod: &str,
    config: api::ContainerConfig,
    after: &After,
    said: &mut Vec<String>,
) {
    let image = config.image.as_ref().map_or("", |image| image.image.as_str());
    // Images that a case names and nobody has pushed stay away.
    if !image.starts_with("absent.") {
        let pulled = cri.pull(image).await;
        pulled.or_fail("pull the image of a case");
    }
    for volume in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
        cri.pull(&volume.image).await.or_fail("pull the image of a volume");
    }
    let Some(id) = keep(said, cri.create(pod, config).await) else { return };
    if keep(said, cri.start(&id).await).is_some() {
        match after {
            After::Ended => drop(cri.ended(&id).await),
            After::Exec(command) => {
                keep(said, cri.exec_for(&id, command, 10).await);
            }
            After::Update(limits) => {
                keep(said, update(cri, &id, limits).await);
            }
            After::UpdateOnce(file, limits) => {
                once(cri, &id, file).await;
                keep(said, update(cri, &id, limits).await);
            }
            After::Once(file) => {
                once(cri, &id, file).await;
                eventually("its status has a message", || async {
                    let status = cri.status(&id).await;
                    if status.message.is_empty() { Err(format!("{status:?}")) } else { Ok(()) }
                })
                .await;
            }
            After::StopOnce(file, grace_s) => {
                once(cri, &id, file).await;
                keep(said, cri.stop(&id, *grace_s).await);
            }
        }
    }
    let status = cri.status(&id).await;
    said.extend([status.reason, status.message].into_iter().filter(|text| !text.is_empty()));
}

/// Waits until the container has the file.
async fn once(cri: &Cri, id: &str, file: &str) {
    eventually("the container is as far", || async {
        let found = cri.exec_for(id, &["test", "-e", file], 10).await;
        let found = found.map_err(|status| status.to_string())?;
        if found.code == 0 { Ok(()) } else { Err(format!("no {file}")) }
    })
    .await;
}

async fn update(cri: &Cri, id: &str, limits: &api::LinuxContainerResources) -> Result<(), Status> {
    let request = api::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(limits.clone()),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.map(drop)
}

/// Keeps the message of a refusal.
fn keep<T>(said: &mut Vec<String>, answer: Result<T, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(status) => {
            said.push(status.message().to_owned());
            None
        }
    }
}
