// SPDX-License-Identifier: Apache-2.0
//! Applies the adjustments of plugins to a container's OCI spec, before its plan is built. Pure.
//!
//! No adjustment is dropped: an unsupported one is an error that names it. The plan refuses invalid values, as it
//! does for a kubelet's.

use super::{Error, resources};
use crate::oci_spec::edit;
use hull_plan::clean;
use hull_proto::nri;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// The spec with the adjustments applied.
pub(crate) fn spec(spec: &Spec, asked: &nri::ContainerAdjustment) -> Result<Spec, Error> {
    refuse_unsupported(asked)?;
    let form = |source| Error::Form { source };
    let mut all = serde_json::to_value(spec).map_err(form)?;
    for (key, value) in &asked.annotations {
        set_or_remove(&mut all, "annotations", key, value);
    }
    if !asked.args.is_empty() {
        all["process"]["args"] = json!(asked.args);
    }
    env(edit::list(&mut all["process"], "env"), &asked.env);
    for limit in &asked.rlimits {
        let limits = edit::list(&mut all["process"], "rlimits");
        limits.retain(|of| of["type"] != limit.r#type.as_str());
        limits.push(json!({"type": limit.r#type, "hard": limit.hard, "soft": limit.soft}));
    }
    mounts(&mut all, &asked.mounts);
    if let Some(of) = &asked.hooks {
        hooks(&mut all, of);
    }
    if let Some(of) = &asked.linux {
        linux(&mut all, of)?;
    }
    serde_json::from_value(all).map_err(form)
}

/// The path of the container's cgroup, if a plugin has chosen one. It must be below the pod's cgroup, and the
/// container's alone: all processes in it are killed when the container is.
pub(crate) fn cgroup(
    asked: &nri::ContainerAdjustment,
    pod: &str,
    id: &str,
) -> Result<Option<String>, Error> {
    let Some(path) = asked.linux.as_ref().map(|of| &of.cgroups_path).filter(|of| !of.is_empty())
    else {
        return Ok(None);
    };
    let within = path.strip_prefix(pod).and_then(|rest| rest.strip_prefix('/'));
    let good = within.is_some_and(|rest| {
        let mut parts = rest.split('/');
        parts.clone().all(|part| !part.is_empty() && part != "." && part != "..")
            && parts.next_back() == Some(id)
    });
    if good {
        return Ok(Some(path.clone()));
    }
    Err(Error::Cgroup {
        path: path.chars().take(200).flat_map(char::escape_default).collect(),
        pod: pod.to_owned(),
    })
}

/// Refuses adjustments that are not supported.
fn refuse_unsupported(asked: &nri::ContainerAdjustment) -> Result<(), Error> {
    let linux = asked.linux.clone().unwrap_or_default();
    let listener = linux.seccomp_policy.as_ref().is_some_and(|of| !of.listener_path.is_empty());
    let rdt = linux.rdt.as_ref().is_some_and(|of| *of != nri::LinuxRdt::default() && !of.remove);
    let devices = linux.net_devices.keys().any(|name| !name.starts_with('-'));
    let whats = [
        ("CDI devices", !asked.cdi_devices.is_empty()),
        ("network devices of the host", devices),
        ("RDT settings", rdt),
        ("a memory policy", linux.memory_policy.is_some()),
        ("a seccomp listener", listener),
    ];
    match whats.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(Error::Unsupported { what }),
        None => Ok(()),
    }
}

fn set_or_remove(all: &mut Value, map: &str, key: &str, value: &str) {
    match key.strip_prefix('-') {
        Some(gone) => {
            if let Some(map) = all[map].as_object_mut() {
                map.remove(gone);
            }
        }
        None => all[map][key] = value.into(),
    }
}

fn env(have: &mut Vec<Value>, asked: &[nri::KeyValue]) {
    for variable in asked {
        match variable.key.strip_prefix('-') {
            Some(gone) => have.retain(|of| !edit::is_variable(of, gone)),
            None => edit::set_variable(have, &format!("{}={}", variable.key, variable.value)),
        }
    }
}

fn mounts(all: &mut Value, asked: &[nri::Mount]) {
    if asked.is_empty() {
        return;
    }
    let have = edit::list(all, "mounts");
    for mount in asked {
        let gone = mount.destination.strip_prefix('-');
        let destination = clean(gone.unwrap_or(&mount.destination));
        have.retain(|of| of["destination"] != destination.as_str());
        if gone.is_none() {
            let kind = if mount.r#type.is_empty() { "bind" } else { &mount.r#type };
            have.push(json!({
                "destination": destination, "type": kind, "source": mount.source,
                "options": mount.options,
            }));
        }
    }
    edit::parents_first(have);
}

/// Hooks of plugins come after those that the container has.
fn hooks(all: &mut Value, asked: &nri::Hooks) {
    for (kind, asked) in [
        ("prestart", &asked.prestart),
        ("createRuntime", &asked.create_runtime),
        ("createContainer", &asked.create_container),
        ("startContainer", &asked.start_container),
        ("poststart", &asked.poststart),
        ("poststop", &asked.poststop),
    ] {
        for hook in asked {
            let mut made = json!({"path": hook.path, "args": hook.args, "env": hook.env});
            if let Some(timeout) = &hook.timeout {
                made["timeout"] = timeout.value.into();
            }
            edit::list(&mut all["hooks"], kind).push(made);
        }
    }
}

fn linux(all: &mut Value, asked: &nri::LinuxContainerAdjustment) -> Result<(), Error> {
    devices(&mut all["linux"], &asked.devices);
    if let Some(limits) = &asked.resources {
        let limits = resources::without_classes(limits);
        resources::into_oci(&mut all["linux"]["resources"], &limits)?;
    }
    if let Some(score) = asked.oom_score_adj {
        all["process"]["oomScoreAdj"] = score.value.into();
    }
    if let Some(priority) = &asked.io_priority {
        let class = nri::IoPrioClass::try_from(priority.class).unwrap_or_default();
        all["process"]["ioPriority"] = if class == nri::IoPrioClass::IoprioClassNone {
            Value::Null
        } else {
            json!({"class": class.as_str_name(), "priority": priority.priority})
        };
    }
    if let Some(scheduler) = &asked.scheduler {
        all["process"]["scheduler"] = schedule(scheduler);
    }
    if let Some(policy) = &asked.seccomp_policy {
        all["linux"]["seccomp"] = seccomp(policy);
    }
    for namespace in &asked.namespaces {
        let gone = namespace.r#type.strip_prefix('-');
        let kind = gone.unwrap_or(&namespace.r#type);
        let have = edit::list(&mut all["linux"], "namespaces");
        have.retain(|of| of["type"] != kind);
        if gone.is_none() {
            let mut new = json!({"type": kind});
            if !namespace.path.is_empty() {
                new["path"] = namespace.path.as_str().into();
            }
            have.push(new);
        }
    }
    for (key, value) in &asked.sysctl {
        set_or_remove(&mut all["linux"], "sysctl", key, value);
    }
    Ok(())
}

/// Adds or removes devices, and the cgroup rules that allow access to them.
fn devices(linux: &mut Value, asked: &[nri::LinuxDevice]) {
    for device in asked {
        let gone = device.path.strip_prefix('-');
        let path = gone.unwrap_or(&device.path);
        edit::list(linux, "devices").retain(|of| of["path"] != path);
        if gone.is_some() {
            continue;
        }
        let mut node = json!({
            "path": path, "type": device.r#type, "major": device.major, "minor": device.minor,
        });
        let values = [
            ("fileMode", device.file_mode.map(|of| of.value)),
            ("uid", device.uid.map(|of| of.value)),
            ("gid", device.gid.map(|of| of.value)),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                node[key] = value.into();
            }
        }
        edit::list(linux, "devices").push(node);
        edit::list(&mut linux["resources"], "devices").push(json!({
            "allow": true, "type": device.r#type, "major": device.major, "minor": device.minor,
            "access": "rwm",
        }));
    }
}

fn schedule(asked: &nri::LinuxScheduler) -> Value {
    let policy = nri::LinuxSchedulerPolicy::try_from(asked.policy).unwrap_or_default();
    if policy == nri::LinuxSchedulerPolicy::SchedNone {
        return Value::Null;
    }
    let flags = asked.flags.iter().map(|flag| {
        nri::LinuxSchedulerFlag::try_from(*flag).map_or("unknown", |flag| flag.as_str_name())
    });
    let flags: Vec<_> = flags.collect();
    let mut scheduler = json!({
        "policy": policy.as_str_name(), "nice": asked.nice, "priority": asked.priority,
        "runtime": asked.runtime, "deadline": asked.deadline, "period": asked.period,
    });
    if !flags.is_empty() {
        scheduler["flags"] = json!(flags);
    }
    scheduler
}

fn seccomp(policy: &nri::LinuxSeccomp) -> Value {
    let argument = |of: &nri::LinuxSeccompArg| json!({"index": of.index, "value": of.value, "valueTwo": of.value_two, "op": of.op});
    let rule = |of: &nri::LinuxSyscall| {
        let mut rule = json!({
            "names": of.names, "action": of.action,
            "args": of.args.iter().map(argument).collect::<Vec<_>>(),
        });
        if let Some(errno) = of.errno_ret {
            rule["errnoRet"] = errno.value.into();
        }
        rule
    };
    let mut profile = json!({
        "defaultAction": policy.default_action,
        "architectures": policy.architectures,
        "flags": policy.flags,
        "syscalls": policy.syscalls.iter().map(rule).collect::<Vec<_>>(),
    });
    if let Some(errno) = policy.default_errno {
        profile["defaultErrnoRet"] = errno.value.into();
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.2.1",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["sleep"], "env": ["PATH=/bin", "OLD=1"], "user": {"uid": 0, "gid": 0}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/a/b", "type": "bind", "source": "/x", "options": ["rbind"]},
            ],
            "annotations": {"kept": "1", "old": "1"},
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "network", "path": "/proc/9/ns/net"}],
                "resources": {"memory": {"limit": 5, "swap": 5}},
            },
        }))
        .unwrap()
    }

    fn adjusted(asked: &nri::ContainerAdjustment) -> Value {
        serde_json::to_value(spec(&base(), asked).unwrap()).unwrap()
    }

    fn linux(linux: nri::LinuxContainerAdjustment) -> nri::ContainerAdjustment {
        nri::ContainerAdjustment { linux: Some(linux), ..Default::default() }
    }

    #[test]
    fn an_empty_adjustment_changes_nothing() {
        assert_eq!(spec(&base(), &nri::ContainerAdjustment::default()).unwrap(), base());
    }

    #[test]
    fn process_and_annotations() {
        let variable =
            |key: &str, value: &str| nri::KeyValue { key: key.into(), value: value.into() };
        let all = adjusted(&nri::ContainerAdjustment {
            annotations: [("-old".into(), String::new()), ("new".into(), "2".into())].into(),
            env: vec![variable("-OLD", ""), variable("PATH", "/sbin"), variable("NEW", "1")],
            args: vec!["echo".into()],
            rlimits: vec![nri::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 9, soft: 8 }],
            ..Default::default()
        });
        assert_eq!(all["annotations"], json!({"kept": "1", "new": "2"}));
        assert_eq!(all["process"]["env"], json!(["PATH=/sbin", "NEW=1"]));
        assert_eq!(all["process"]["args"], json!(["echo"]));
        assert_eq!(
            all["process"]["rlimits"],
            json!([{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 8}])
        );
    }

    #[test]
    fn mounts_replace_by_destination_and_parents_stay_first() {
        let mount = |destination: &str, source: &str| nri::Mount {
            destination: destination.into(),
            source: source.into(),
            options: vec!["rbind".into()],
            ..Default::default()
        };
        let asked = vec![mount("/a/b", "/y"), mount("/a", "/z"), mount("-/proc", "")];
        let all = adjusted(&nri::ContainerAdjustment { mounts: asked, ..Default::default() });
        let shown: Vec<_> = all["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|of| (of["destination"].as_str().unwrap(), of["source"].as_str().unwrap()))
            .collect();
        assert_eq!(shown, [("/a", "/z"), ("/a/b", "/y")]);
    }

    #[test]
    fn devices_are_added_with_their_cgroup_rules() {
        let device = nri::LinuxDevice {
            path: "/dev/mine".into(),
            r#type: "c".into(),
            major: 1,
            minor: 3,
            ..Default::default()
        };
        let all = adjusted(&linux(nri::LinuxContainerAdjustment {
            devices: vec![device],
            ..Default::default()
        }));
        assert_eq!(all["linux"]["devices"][0]["path"], "/dev/mine");
        let rule = &all["linux"]["resources"]["devices"][0];
        assert_eq!(
            (&rule["allow"], &rule["major"], &rule["access"]),
            (&json!(true), &json!(1), &json!("rwm"))
        );
    }

    #[test]
    fn limits_namespaces_and_the_rest() {
        let limit = Some(nri::OptionalInt64 { value: 7 });
        let memory = nri::LinuxMemory { limit, ..Default::default() };
        let namespace =
            |kind: &str, path: &str| nri::LinuxNamespace { r#type: kind.into(), path: path.into() };
        let all = adjusted(&linux(nri::LinuxContainerAdjustment {
            resources: Some(nri::LinuxResources { memory: Some(memory), ..Default::default() }),
            namespaces: vec![namespace("-network", ""), namespace("ipc", "/proc/1/ns/ipc")],
            oom_score_adj: Some(nri::OptionalInt { value: 500 }),
            io_priority: Some(nri::LinuxIoPriority {
                class: nri::IoPrioClass::IoprioClassBe as i32,
                priority: 3,
            }),
            scheduler: Some(nri::LinuxScheduler {
                policy: nri::LinuxSchedulerPolicy::SchedBatch as i32,
                nice: 4,
                ..Default::default()
            }),
            sysctl: [("net.x".into(), "1".into())].into(),
            seccomp_policy: Some(nri::LinuxSeccomp {
                default_action: "SCMP_ACT_ALLOW".into(),
                ..Default::default()
            }),
            ..Default::default()
        }));
        assert_eq!(all["linux"]["resources"]["memory"], json!({"limit": 7, "swap": 7}));
        assert_eq!(
            all["linux"]["namespaces"],
            json!([{"type": "mount"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}])
        );
        assert_eq!(all["process"]["oomScoreAdj"], 500);
        assert_eq!(
            all["process"]["ioPriority"],
            json!({"class": "IOPRIO_CLASS_BE", "priority": 3})
        );
        assert_eq!(all["process"]["scheduler"]["policy"], "SCHED_BATCH");
        assert_eq!(all["linux"]["sysctl"], json!({"net.x": "1"}));
        assert_eq!(all["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
    }

    #[test]
    fn hooks_come_after_those_that_are_there() {
        let hook = |path: &str| nri::Hook {
            path: path.into(),
            args: vec!["a".into()],
            timeout: Some(nri::OptionalInt { value: 3 }),
            ..Default::default()
        };
        let asked = |path: &str| nri::ContainerAdjustment {
            hooks: Some(nri::Hooks { poststop: vec![hook(path)], ..Default::default() }),
            ..Default::default()
        };
        let first = spec(&base(), &asked("/first")).unwrap();
        let both = serde_json::to_value(spec(&first, &asked("/second")).unwrap()).unwrap();
        let poststop = &both["hooks"]["poststop"];
        assert_eq!(
            (&poststop[0]["path"], &poststop[1]["path"]),
            (&json!("/first"), &json!("/second"))
        );
        assert_eq!((&poststop[0]["args"], &poststop[0]["timeout"]), (&json!(["a"]), &json!(3)));
    }

    #[test]
    fn unsupported_adjustments_are_refused_by_name() {
        let policy = nri::LinuxSeccomp { listener_path: "/s".into(), ..Default::default() };
        let rdt = nri::LinuxRdt { clos_id: Some(Default::default()), ..Default::default() };
        for (expected, asked) in [
            (
                "CDI devices",
                nri::ContainerAdjustment {
                    cdi_devices: vec![nri::CdiDevice { name: "v/c=d".into() }],
                    ..Default::default()
                },
            ),
            (
                "network devices",
                linux(nri::LinuxContainerAdjustment {
                    net_devices: [("eth1".into(), Default::default())].into(),
                    ..Default::default()
                }),
            ),
            ("RDT", linux(nri::LinuxContainerAdjustment { rdt: Some(rdt), ..Default::default() })),
            (
                "memory policy",
                linux(nri::LinuxContainerAdjustment {
                    memory_policy: Some(Default::default()),
                    ..Default::default()
                }),
            ),
            (
                "seccomp listener",
                linux(nri::LinuxContainerAdjustment {
                    seccomp_policy: Some(policy),
                    ..Default::default()
                }),
            ),
        ] {
            let err = spec(&base(), &asked).unwrap_err().to_string();
            assert!(err.contains(expected), "{expected:?} in {err}");
        }
    }

    #[test]
    fn a_cgroup_must_be_below_the_pods_and_the_containers_own() {
        let at = |path: &str| {
            let asked = linux(nri::LinuxContainerAdjustment {
                cgroups_path: path.into(),
                ..Default::default()
            });
            cgroup(&asked, "/kubepods/pod1", "id1").ok()
        };
        assert_eq!(at(""), Some(None));
        assert_eq!(at("/kubepods/pod1/high/id1"), Some(Some("/kubepods/pod1/high/id1".into())));
        for path in [
            "/",
            "/kubepods/pod1",
            "/kubepods/pod1/",
            "/kubepods/pod1/other",
            "/kubepods/pod10/id1",
            "/kubepods/pod1/../id1",
            "/kubepods/pod1//id1",
            "system.slice:hull:id1",
            "kubepods/pod1/id1",
        ] {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
