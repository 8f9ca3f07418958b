// SPDX-License-Identifier: Apache-2.0
//! The verbose information in a status of CRI: under the key `info`, a text with a JSON document.

use super::client::Client;
use super::error::{Error, Result};
use hull_proto::cri as api;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;

/// The document of a status.
///
/// # Errors
/// `operation` needs it, and it is not there or not JSON.
pub(crate) fn info(of: &HashMap<String, String>, operation: &'static str) -> Result<Value> {
    let missing = Error::Response { operation, missing: "verbose info" };
    serde_json::from_str(of.get("info").ok_or(missing)?).map_err(|source| Error::Json { source })
}

/// The configuration in the document of a status.
pub(crate) fn config<M: DeserializeOwned>(
    of: &HashMap<String, String>,
    operation: &'static str,
) -> Result<M> {
    let config = info(of, operation)?["config"].take();
    serde_json::from_value(config).map_err(|source| Error::Json { source })
}

/// The process of a document: of a container, its first; of a pod, pause. 0 if there is none.
pub(crate) fn pid(info: &Value, operation: &'static str) -> Result<i32> {
    let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.ok_or(Error::Response { operation, missing: "pid" })
}

/// The cgroup of a container, below the root of each hierarchy.
pub(crate) fn cgroup(info: &Value, operation: &'static str) -> Result<String> {
    let cgroup = info["cgroup"].as_str().map(str::to_owned);
    cgroup.ok_or(Error::Response { operation, missing: "cgroup" })
}

/// The status of a container with its document.
pub(crate) async fn container(
    client: &mut Client,
    id: &str,
) -> Result<api::ContainerStatusResponse, tonic::Status> {
    let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    Ok(client.runtime.container_status(request).await?.into_inner())
}

/// The status of a pod with its document.
pub(crate) async fn pod(
    client: &mut Client,
    id: &str,
) -> Result<api::PodSandboxStatusResponse, tonic::Status> {
    let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
    Ok(client.runtime.pod_sandbox_status(request).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_needs_and_the_daemon_did_not_send_is_named() {
        let none = HashMap::new();
        assert!(info(&none, "attach").unwrap_err().to_string().contains("attach"));
        let of = HashMap::from([("info".to_owned(), r#"{"pid": 7, "config": {}}"#.to_owned())]);
        let document = info(&of, "x").unwrap();
        assert_eq!(pid(&document, "x").unwrap(), 7);
        cgroup(&document, "x").unwrap_err();
        config::<api::ContainerConfig>(&of, "x").unwrap();
        let odd = HashMap::from([("info".to_owned(), "{".to_owned())]);
        info(&odd, "x").unwrap_err();
    }
}
