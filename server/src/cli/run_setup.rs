// SPDX-License-Identifier: Apache-2.0
//! The needs of `hull run` before its pod: directories of volumes, free ports of the host, and files with variables.

use super::args::Run;
use super::client::Client;
use super::error::{Error, Result};
use super::{documents, images, ports, publish, run_flags, verbose};
use hull_proto::cri as api;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;

/// Most tries for a port that no pod has either.
const TRIES: usize = 1000;

/// Creates the directories of volumes; one that is there stays as it is. A link in its place is an error.
pub(crate) fn create(directories: &[PathBuf]) -> Result<()> {
    for path in directories {
        let failed = || Error::io(format!("create volume {}", path.display()));
        match path.parent() {
            // Its volumes are for every user of a container, and for nobody else of the host.
            Some(parent) => std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(failed())?,
            None => continue,
        }
        match std::fs::create_dir(path) {
            Ok(()) => {
                // For every user of the container, as a kubelet makes emptyDir.
                std::fs::set_permissions(path, Permissions::from_mode(0o777)).map_err(failed())?;
            }
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let there = std::fs::symlink_metadata(path).map_err(failed())?;
                if !there.is_dir() {
                    return Err(failed()(io::Error::other("it is not a directory")));
                }
            }
            Err(err) => return Err(failed()(err)),
        }
    }
    Ok(())
}

/// The variables of --env-file.
pub(crate) fn env_files(files: &[PathBuf]) -> Result<Vec<api::KeyValue>> {
    let mut all = Vec::new();
    for path in files {
        let text = documents::of_file(path)?;
        all.extend(run_flags::env_file(&text, |key| std::env::var(key).ok())?);
    }
    Ok(all)
}

/// The published ports of a run, each with its port on the host.
pub(crate) async fn published(client: &mut Client, args: &Run) -> Result<Vec<api::PortMapping>> {
    let mut mappings: Vec<api::PortMapping> = publish::publish_all(&args.publish)?;
    if args.networking.publish_all {
        let given = mappings.clone();
        let is_given = |of: &api::PortMapping| {
            given
                .iter()
                .any(|has| (has.container_port, has.protocol) == (of.container_port, of.protocol))
        };
        mappings.extend(exposed(client, &args.image).await?.into_iter().filter(|of| !is_given(of)));
    }
    if mappings.iter().all(|of| of.host_port > 0) {
        return Ok(mappings);
    }
    let mut taken = taken(client).await?;
    taken.extend(mappings.iter().map(|of| of.host_port));
    for mapping in mappings.iter_mut().filter(|of| of.host_port == 0) {
        mapping.host_port = free(mapping, &taken)?;
        taken.insert(mapping.host_port);
    }
    Ok(mappings)
}

/// The ports that an image exposes, without ports of the host.
async fn exposed(client: &mut Client, image: &str) -> Result<Vec<api::PortMapping>> {
    let missing = Error::NotFound { kind: "image", name: image.to_owned() };
    let found = images::find(client, image).await?.ok_or(missing)?;
    let info = verbose::info(&found.info, "find the ports of the image")?;
    let ports = &info["imageSpec"]["config"]["ExposedPorts"];
    let names: Vec<&str> = match ports {
        Value::Object(map) => map.keys().map(String::as_str).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    // A port or PORT/PROTOCOL: the image has no say about ports of the host.
    let exposed: Vec<String> =
        names.into_iter().filter(|name| !name.contains(':')).map(str::to_owned).collect();
    publish::publish_all(&exposed)
}

/// The host ports of all pods: they are rules of the kernel's filter, and no sockets.
async fn taken(client: &mut Client) -> Result<BTreeSet<i32>> {
    let request = api::ListPodSandboxRequest::default();
    let pods = client.runtime.list_pod_sandbox(request).await?.into_inner().items;
    let mut taken = BTreeSet::new();
    for pod in pods {
        // A pod that was removed meanwhile has no ports.
        if let Ok(mappings) = ports::mappings(client, &pod.id).await {
            taken.extend(mappings.into_iter().map(|of| of.host_port));
        }
    }
    Ok(taken)
}

/// A port that neither a socket of the host nor a pod has.
fn free(mapping: &api::PortMapping, taken: &BTreeSet<i32>) -> Result<i32> {
    let ip = mapping.host_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(ip, 0);
    // Held until the end, so that the kernel names another one each time.
    let mut sockets: (Vec<TcpListener>, Vec<UdpSocket>) = Default::default();
    for _ in 0..TRIES {
        let failed = || Error::io(format!("find a free port at {ip}"));
        let port = if mapping.protocol() == api::Protocol::Udp {
            let socket = UdpSocket::bind(address).map_err(failed())?;
            let port = socket.local_addr().map_err(failed())?.port();
            sockets.1.push(socket);
            port
        } else {
            let socket = TcpListener::bind(address).map_err(failed())?;
            let port = socket.local_addr().map_err(failed())?.port();
            sockets.0.push(socket);
            port
        };
        if !taken.contains(&i32::from(port)) {
            return Ok(i32::from(port));
        }
    }
    Err(Error::io(format!("find a free port at {ip}"))(io::Error::other("pods have all of them")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_none_of_those_of_pods() {
        let mapping = api::PortMapping { host_ip: "127.0.0.1".into(), ..Default::default() };
        let one = free(&mapping, &BTreeSet::new()).unwrap();
        assert!((1..=65_535).contains(&one));
        assert_ne!(free(&mapping, &BTreeSet::from([one])).unwrap(), one);
    }

    #[test]
    fn a_volume_is_a_directory_and_never_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volumes/data");
        create(std::slice::from_ref(&volume)).unwrap();
        create(std::slice::from_ref(&volume)).unwrap();
        assert_eq!(std::fs::metadata(&volume).unwrap().permissions().mode() & 0o777, 0o777);
        let link = dir.path().join("volumes/link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        assert!(create(&[link]).is_err());
    }
}
