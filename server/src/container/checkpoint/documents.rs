// SPDX-License-Identifier: Apache-2.0
//! The documents of a checkpoint's archive. Pure.

use super::archive::Document;
use crate::container::{ContainerRecord, State};
use crate::pod::PodRecord;
use hull_sys::time::rfc3339;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// Go's zero time: the container was not restored.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// All documents but those about files. The removed files have one only if there are some.
pub(super) fn all(
    pod: &PodRecord,
    record: &ContainerRecord,
    spec: &Spec,
    removed: &[String],
    at_ns: i64,
) -> Vec<Document> {
    let mut documents: Vec<Document> = vec![
        ("spec.dump", text(&dumped_spec(pod, record, spec))),
        ("config.dump", text(&config(record, at_ns))),
        ("status", text(&state(record))),
        ("status.dump", text(&status(record))),
    ];
    if !removed.is_empty() {
        documents.push(("deleted.files", text(&json!(removed))));
    }
    documents
}

fn text(document: &Value) -> Vec<u8> {
    format!("{document:#}\n").into_bytes()
}

fn time(at_ns: i64) -> String {
    String::from_utf8_lossy(&rfc3339(at_ns)).into_owned()
}

/// The spec, with the annotations by which checkpointctl finds the names of container and pod.
fn dumped_spec(pod: &PodRecord, record: &ContainerRecord, spec: &Spec) -> Value {
    let mut spec = json!(spec);
    let metadata = pod.config.metadata.clone().unwrap_or_default();
    let names = [
        ("io.kubernetes.cri.container-name", record.metadata().0),
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.image-name", record.image_name()),
        ("io.kubernetes.cri.sandbox-id", record.pod.as_str()),
        ("io.kubernetes.cri.sandbox-name", metadata.name.as_str()),
        ("io.kubernetes.cri.sandbox-namespace", metadata.namespace.as_str()),
        ("io.kubernetes.cri.sandbox-uid", metadata.uid.as_str()),
    ];
    if !spec["annotations"].is_object() {
        spec["annotations"] = json!({});
    }
    for (key, value) in names {
        spec["annotations"][key] = value.into();
    }
    spec
}

fn config(record: &ContainerRecord, at_ns: i64) -> Value {
    json!({
        "id": record.id,
        "name": record.metadata().0,
        "rootfsImage": record.image_id,
        "rootfsImageRef": record.image_ref,
        "rootfsImageName": record.image_name(),
        "runtime": "hull",
        "createdTime": time(record.created_ns),
        "checkpointedTime": time(at_ns),
        "restoredTime": NEVER,
        "restored": false,
    })
}

/// The process and the start of a container that runs.
fn running(record: &ContainerRecord) -> (i32, i64) {
    match record.state {
        State::Running { pid, since_ns } => (pid, since_ns),
        State::Creating | State::Created | State::Exited { .. } | State::Removing => (0, 0),
    }
}

fn state(record: &ContainerRecord) -> Value {
    let (pid, since_ns) = running(record);
    json!({
        "CreatedAt": record.created_ns,
        "StartedAt": since_ns,
        "FinishedAt": 0,
        "ExitCode": 0,
        "Pid": pid,
        "Reason": "",
        "Message": "",
    })
}

/// The status of CRI, with the names that Go gives its fields.
fn status(record: &ContainerRecord) -> Value {
    let (name, attempt) = record.metadata();
    json!({
        "id": record.id,
        "metadata": {"name": name, "attempt": attempt},
        // CONTAINER_RUNNING.
        "state": 1,
        "created_at": record.created_ns,
        "started_at": running(record).1,
        "image": {"image": record.image_name()},
        "image_ref": record.image_ref,
        "labels": record.config.labels,
        "annotations": record.config.annotations,
        "log_path": record.log_path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_name_container_image_and_pod() {
        let record = json!({
            "id": "c", "pod": "p", "image_id": "sha256:1", "image_ref": "r@sha256:2", "created_ns": 1,
            "config": {"metadata": {"name": "web", "attempt": 3}, "image": {"image": "busybox"}},
            "cgroup": "/c", "log_path": "", "user": null, "stop_signal": 15,
            "state": {"Running": {"pid": 7, "since_ns": 2}},
        });
        let record: ContainerRecord = serde_json::from_value(record).unwrap();
        let pod = json!({
            "id": "p", "handler": "", "created_ns": 0, "cgroup": "/p", "cgroup_is_ours": true,
            "config": {"metadata": {"name": "shop", "namespace": "prod", "uid": "u"}},
            "state": "Stopped",
        });
        let pod: PodRecord = serde_json::from_value(pod).unwrap();
        let spec: Spec = serde_json::from_value(json!({"ociVersion": "1.2.1"})).unwrap();
        let documents = all(&pod, &record, &spec, &["/gone".to_owned()], 1_700_000_000_000_000_000);
        let of = |name: &str| -> Value {
            let document = documents.iter().find(|document| document.0 == name).unwrap();
            serde_json::from_slice(&document.1).unwrap()
        };
        let annotations = &of("spec.dump")["annotations"];
        assert_eq!(annotations["io.kubernetes.cri.container-name"], "web");
        assert_eq!(annotations["io.kubernetes.cri.sandbox-namespace"], "prod");
        assert_eq!(of("config.dump")["checkpointedTime"], "2023-11-14T22:13:20.000000000Z");
        assert_eq!(of("status")["Pid"], 7);
        assert_eq!(of("status.dump")["metadata"]["attempt"], 3);
        assert_eq!(of("deleted.files"), json!(["/gone"]));
        assert_eq!(all(&pod, &record, &spec, &[], 0).len(), 4);
    }
}
