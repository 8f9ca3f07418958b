// SPDX-License-Identifier: Apache-2.0
//! A client of the CRI that sends anything: control characters, paths that climb, numbers without
//! sense, in every field. Each call is answered or refused with a clean message; nothing panics, nothing
//! is made outside, and whatever was accepted can be taken away again.

use crate::registry::{faults, lives_on};
use hull_proto::cri::{self as api, ContainerConfig, PodSandboxConfig};
use hull_tests::cri::{idle, mount, pod_namespaces, pod_security, resources, security};
use hull_tests::{Cri, ExpectExt as _, Node};
use std::path::Path;
use tonic::Status;

/// Texts that no field wants.
fn odd_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "\x1b[31mred\x1b[0m",
        "line\nlevel=error forged",
        "\r\x07bell",
        "nul\0inside",
        "../../../../etc/shadow",
        "/proc/self/fd/3/../../..",
        "/",
        ".",
        "..",
        " ",
        "\u{202e}txt.exe",
        "\u{feff}",
        "%s%n%x",
        "${HOME}",
        "$(reboot)",
        "a/b\\c",
        "-rf",
        "--help",
        "sha256:",
        "@",
        ":",
        "localhost/../../x",
        "\u{9b}31m",
        "\u{2028}",
    ]
    .map(str::to_owned)
    .into();
    texts.push("x".repeat(200_000));
    texts.push("/x".repeat(5_000));
    texts
}

const ODD_NUMBERS: [i64; 7] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];

type PodField = (&'static str, fn(&mut PodSandboxConfig, &str));

const POD_FIELDS: &[PodField] = &[
    ("name", |c, t| c.metadata.get_or_insert_default().name = t.into()),
    ("uid", |c, t| c.metadata.get_or_insert_default().uid = t.into()),
    ("namespace", |c, t| c.metadata.get_or_insert_default().namespace = t.into()),
    ("hostname", |c, t| c.hostname = t.into()),
    ("log_directory", |c, t| c.log_directory = t.into()),
    ("label", |c, t| drop(c.labels.insert(t.into(), t.into()))),
    ("annotation", |c, t| drop(c.annotations.insert(t.into(), t.into()))),
    ("cgroup_parent", |c, t| c.linux.get_or_insert_default().cgroup_parent = t.into()),
    ("sysctl", |c, t| drop(c.linux.get_or_insert_default().sysctls.insert(t.into(), t.into()))),
    ("dns", |c, t| {
        c.dns_config = Some(api::DnsConfig {
            servers: vec![t.into()],
            searches: vec![t.into()],
            options: vec![t.into()],
        });
    }),
    ("host_ip", |c, t| {
        let port =
            api::PortMapping { container_port: 1, host_port: 0, host_ip: t.into(), protocol: 0 };
        c.port_mappings = vec![port];
    }),
    ("seccomp", |c, t| {
        pod_security(c).seccomp =
            Some(api::SecurityProfile { profile_type: 2, localhost_ref: t.into() });
    }),
    ("target_id", |c, t| pod_namespaces(c).target_id = t.into()),
];

type ContainerField = (&'static str, fn(&mut ContainerConfig, &str));

const CONTAINER_FIELDS: &[ContainerField] = &[
    ("name", |c, t| c.metadata.get_or_insert_default().name = t.into()),
    ("image", |c, t| c.image.get_or_insert_default().image = t.into()),
    ("command", |c, t| c.command = vec![t.into()]),
    ("argument", |c, t| c.args = vec![t.into(); 3]),
    ("working_dir", |c, t| c.working_dir = t.into()),
    ("env", |c, t| c.envs = vec![api::KeyValue { key: t.into(), value: t.into() }]),
    ("label", |c, t| drop(c.labels.insert(t.into(), t.into()))),
    ("annotation", |c, t| drop(c.annotations.insert(t.into(), t.into()))),
    ("log_path", |c, t| c.log_path = t.into()),
    ("host_path", |c, t| c.mounts = vec![mount(Path::new(t), "/x")]),
    ("container_path", |c, t| c.mounts = vec![mount(Path::new("/proc/nowhere-of-hull"), t)]),
    ("device", |c, t| {
        c.devices = vec![api::Device {
            container_path: t.into(),
            host_path: t.into(),
            permissions: t.into(),
        }];
    }),
    ("cdi", |c, t| c.cdi_devices = vec![api::CdiDevice { name: t.into() }]),
    ("user", |c, t| security(c).run_as_username = t.into()),
    ("capability", |c, t| {
        security(c).capabilities.get_or_insert_default().add_capabilities = vec![t.into()];
    }),
    ("masked", |c, t| security(c).masked_paths = vec![t.into()]),
    ("read_only", |c, t| security(c).readonly_paths = vec![t.into()]),
    ("seccomp", |c, t| {
        security(c).seccomp =
            Some(api::SecurityProfile { profile_type: 2, localhost_ref: t.into() });
    }),
    ("apparmor", |c, t| {
        security(c).apparmor =
            Some(api::SecurityProfile { profile_type: 2, localhost_ref: t.into() });
    }),
    ("cpuset", |c, t| resources(c).cpuset_cpus = t.into()),
    ("unified", |c, t| drop(resources(c).unified.insert(t.into(), t.into()))),
];

type NumberField = (&'static str, fn(&mut ContainerConfig, i64));

const NUMBER_FIELDS: &[NumberField] = &[
    ("memory", |c, n| resources(c).memory_limit_in_bytes = n),
    ("swap", |c, n| resources(c).memory_swap_limit_in_bytes = n),
    ("cpu_quota", |c, n| resources(c).cpu_quota = n),
    ("cpu_period", |c, n| resources(c).cpu_period = n),
    ("cpu_shares", |c, n| resources(c).cpu_shares = n),
    ("oom_score_adj", |c, n| resources(c).oom_score_adj = n),
    ("user", |c, n| security(c).run_as_user = Some(api::Int64Value { value: n })),
    ("group", |c, n| {
        security(c).run_as_user = Some(api::Int64Value { value: 0 });
        security(c).run_as_group = Some(api::Int64Value { value: n });
    }),
    ("groups", |c, n| security(c).supplemental_groups = vec![n, n]),
    ("hugepages", |c, n| {
        let limit = n.unsigned_abs();
        resources(c).hugepage_limits = vec![api::HugepageLimit { page_size: n.to_string(), limit }];
    }),
];

/// Starts and takes away what was accepted; what is wrong with how it was refused.
async fn container(cri: &Cri, pod: &str, what: &str, config: ContainerConfig) -> Vec<String> {
    let made = match cri.create(pod, config).await {
        Ok(made) => made,
        Err(refused) => return faults(what, &refused),
    };
    let mut wrong = match cri.start(&made).await {
        Ok(()) => Vec::new(),
        Err(refused) => faults(&format!("{what}, at its start"), &refused),
    };
    let removed = cri.remove(&made).await;
    wrong.extend(removed.err().map(|refused| format!("{what}: cannot be removed: {refused}")));
    wrong
}

#[tokio::test]
async fn odd_texts_in_a_pods_config_are_taken_or_refused_and_never_believed() {
    let node = Node::start().await;
    let (cri, mut wrong) = (node.cri(), Vec::new());
    for (field, set) in POD_FIELDS {
        for text in odd_texts() {
            let mut config = cri.pod_config("odd");
            set(&mut config, &text);
            // The directory of logs is the kubelet's to choose; nothing is to be left of an odd one.
            match cri.run_pod_with(config).await {
                Err(refused) => {
                    wrong.extend(faults(&format!("{field}: {}", shown(&text)), &refused))
                }
                Ok(pod) => {
                    cri.stop_pod(&pod).await.or_fail("stop a pod");
                    cri.remove_pod(&pod).await.or_fail("remove a pod");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults: {wrong:#?}", wrong.len());
    node.nothing_is_left().await;
    lives_on(&node).await;
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(24).collect::<String>())
}

#[tokio::test]
async fn odd_texts_and_numbers_in_a_containers_config_are_taken_or_refused_and_never_believed() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut wrong = Vec::new();
    for (field, set) in CONTAINER_FIELDS {
        for text in odd_texts() {
            let mut config = idle("odd", &image);
            set(&mut config, &text);
            wrong
                .extend(container(&cri, &pod, &format!("{field}: {}", shown(&text)), config).await);
        }
    }
    for (field, set) in NUMBER_FIELDS {
        for number in ODD_NUMBERS {
            let mut config = idle("odd", &image);
            set(&mut config, number);
            wrong.extend(container(&cri, &pod, &format!("{field}: {number}"), config).await);
        }
    }
    assert!(wrong.is_empty(), "{} faults: {wrong:#?}", wrong.len());
    lives_on(&node).await;
}

#[tokio::test]
async fn odd_texts_and_numbers_in_requests_are_refused_cleanly() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let main = cri.run_idle(&pod, "main", &image).await;
    let mut wrong = Vec::new();
    for text in odd_texts() {
        let what = shown(&text);
        let mut check = |verb: &str, answer: Result<(), Status>| {
            if let Err(refused) = answer {
                wrong.extend(faults(&format!("{verb} {what}"), &refused));
            }
        };
        check("pod_status", cri.pod_status(&text).await.map(drop));
        check("inspect", cri.inspect(&text).await.map(drop));
        check("start", cri.start(&text).await);
        check("stop", cri.stop(&text, 0).await);
        check("remove", cri.remove(&text).await);
        check("stop_pod", cri.stop_pod(&text).await);
        check("remove_pod", cri.remove_pod(&text).await);
        check("create", cri.create(&text, idle("x", &image)).await.map(drop));
        check("pull", cri.pull(&text).await.map(drop));
        check("image_status", cri.image_status(&text).await.map(drop));
        check("exec of it", cri.exec(&main, &[&text]).await.map(drop));
        check("exec in it", cri.exec(&text, &["true"]).await.map(drop));
        let request =
            api::PortForwardRequest { pod_sandbox_id: text.clone(), port: vec![-1, 0, 70_000] };
        check("port_forward", cri.runtime.clone().port_forward(request).await.map(drop));
        let request = api::ReopenContainerLogRequest { container_id: text.clone() };
        check("reopen_log", cri.runtime.clone().reopen_container_log(request).await.map(drop));
        let request = api::RunPodSandboxRequest {
            config: Some(cri.pod_config("odd")),
            runtime_handler: text.clone(),
        };
        // The blank handler is the default one.
        let ran = cri.runtime.clone().run_pod_sandbox(request).await;
        check("handler", ran.map(drop));
    }
    for number in ODD_NUMBERS {
        let ran = cri.exec_for(&main, &["true"], number).await;
        wrong.extend(
            ran.err()
                .map(|refused| faults(&format!("timeout {number}"), &refused))
                .unwrap_or_default(),
        );
    }
    let stopped = cri.stop(&main, i64::MIN).await;
    wrong.extend(stopped.err().map(|refused| faults("grace", &refused)).unwrap_or_default());
    assert!(wrong.is_empty(), "{} faults: {wrong:#?}", wrong.len());
    lives_on(&node).await;
}
