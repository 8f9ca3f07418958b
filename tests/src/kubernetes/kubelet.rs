// SPDX-License-Identifier: Apache-2.0
//! A kubelet on a machine: its configuration and its start.

use super::cgroups::SYSTEM;
use super::machine::Machine;
use super::service::Service;
use super::{hull, sysctls};
use crate::expect::ExpectExt;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Port of its plain HTTP server: /pods, /stats/summary, /metrics.
pub const READ_ONLY_PORT: u16 = 10255;

/// The configuration that every kubelet here has. A kubelet refuses cgroup v1 and swap by default; the machine's own
/// group is its cgroup root, since it shares the hierarchy with the host.
#[must_use]
pub fn configuration(machine: &Machine) -> Value {
    let root = machine.cgroups().root();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupRoot": root,
        "kubeletCgroups": format!("{root}/{SYSTEM}"),
        "containerRuntimeEndpoint": format!("unix://{}", hull::SOCKET),
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "readOnlyPort": READ_ONLY_PORT,
        "staticPodPath": machine.dir().join("manifests"),
        // The default is below /usr/libexec, which is the host's.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "resolvConf": resolv_conf(machine),
        // A disk of this host may be fuller than the defaults allow.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            "nodefs.inodesFree": "1%", "imagefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "maxPods": 250,
    })
}

/// Sets what `more` names, and leaves all else of an object.
pub fn merge(into: &mut Value, more: &Value) {
    match (into.as_object_mut(), more.as_object()) {
        (Some(object), Some(more)) => {
            for (key, value) in more {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        _ => *into = more.clone(),
    }
}

/// Makes the files that [`configuration`] names.
pub fn prepare(machine: &Machine) {
    let manifests = machine.dir().join("manifests");
    fs::create_dir_all(&manifests).or_fail("make the directory of static pods");
    fs::write(resolv_conf(machine), "nameserver 127.0.0.53\n").or_fail("write a resolv.conf");
}

/// Writes the configuration, starts the kubelet with further `arguments`, and waits until its container manager runs.
#[must_use]
pub fn start(machine: &Machine, configuration: &Value, arguments: &[String]) -> Service {
    prepare(machine);
    let file = machine.dir().join("kubelet.json");
    fs::write(&file, configuration.to_string()).or_fail("write the kubelet's config");
    let mut command = machine.command(SYSTEM, machine.dir().join("programs/kubelet"));
    command.arg("--config").arg(file).args(arguments);
    sysctls::kept(|| Service::start(machine, "kubelet", command))
}

/// The resolv.conf of pods that use the node's: one of the machine, since the host's may name a server on loopback.
#[must_use]
pub fn resolv_conf(machine: &Machine) -> PathBuf {
    machine.dir().join("resolv.conf")
}
