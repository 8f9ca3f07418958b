// SPDX-License-Identifier: Apache-2.0
//! Converts limits between the messages of NRI, those of CRI, and the OCI spec. A limit that Hull cannot set is
//! an error that names it.

use super::Error;
use crate::oci_spec::{classes::Chosen, edit};
use hull_plan::Limits;
use hull_proto::{cri, nri};
use serde_json::{Map, Value, json};

/// From a kubelet's limits, in which 0 and an empty text mean "not set".
pub(crate) fn of_cri(from: &cri::LinuxContainerResources) -> nri::LinuxResources {
    let signed = |value: i64| (value != 0).then_some(nri::OptionalInt64 { value });
    let unsigned = |value: i64| {
        let value = u64::try_from(value).ok().filter(|value| *value != 0);
        value.map(|value| nri::OptionalUInt64 { value })
    };
    let page = |of: &cri::HugepageLimit| nri::HugepageLimit {
        page_size: of.page_size.clone(),
        limit: of.limit,
    };
    nri::LinuxResources {
        memory: Some(nri::LinuxMemory {
            limit: signed(from.memory_limit_in_bytes),
            swap: signed(from.memory_swap_limit_in_bytes),
            ..Default::default()
        }),
        cpu: Some(nri::LinuxCpu {
            shares: unsigned(from.cpu_shares),
            quota: signed(from.cpu_quota),
            period: unsigned(from.cpu_period),
            cpus: from.cpuset_cpus.clone(),
            mems: from.cpuset_mems.clone(),
            ..Default::default()
        }),
        hugepage_limits: from.hugepage_limits.iter().map(page).collect(),
        unified: from.unified.clone().into_iter().collect(),
        ..Default::default()
    }
}

/// To a kubelet's message, without the limits that it has no field for.
pub(crate) fn to_cri(from: &nri::LinuxResources) -> cri::LinuxContainerResources {
    let (memory, cpu) = (from.memory.unwrap_or_default(), from.cpu.clone().unwrap_or_default());
    let signed = |of: Option<nri::OptionalInt64>| of.map_or(0, |of| of.value);
    let unsigned = |of: Option<nri::OptionalUInt64>| {
        of.map_or(0, |of| i64::try_from(of.value).unwrap_or(i64::MAX))
    };
    let page = |of: &nri::HugepageLimit| cri::HugepageLimit {
        page_size: of.page_size.clone(),
        limit: of.limit,
    };
    cri::LinuxContainerResources {
        cpu_period: unsigned(cpu.period),
        cpu_quota: signed(cpu.quota),
        cpu_shares: unsigned(cpu.shares),
        memory_limit_in_bytes: signed(memory.limit),
        memory_swap_limit_in_bytes: signed(memory.swap),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        hugepage_limits: from.hugepage_limits.iter().map(page).collect(),
        unified: from.unified.clone().into_iter().collect(),
        ..Default::default()
    }
}

/// From `linux.resources` of an OCI spec.
pub(super) fn of_oci(from: &Value) -> nri::LinuxResources {
    let (memory, cpu) = (&from["memory"], &from["cpu"]);
    let signed = |of: &Value| of.as_i64().map(|value| nri::OptionalInt64 { value });
    let unsigned = |of: &Value| of.as_u64().map(|value| nri::OptionalUInt64 { value });
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let unified = from["unified"].as_object().cloned().unwrap_or_default();
    let page = |of: &Value| nri::HugepageLimit {
        page_size: text(&of["pageSize"]),
        limit: of["limit"].as_u64().unwrap_or(0),
    };
    let rule = |of: &Value| nri::LinuxDeviceCgroup {
        allow: of["allow"].as_bool().unwrap_or(false),
        r#type: text(&of["type"]),
        major: signed(&of["major"]),
        minor: signed(&of["minor"]),
        access: text(&of["access"]),
    };
    nri::LinuxResources {
        memory: Some(nri::LinuxMemory {
            limit: signed(&memory["limit"]),
            reservation: signed(&memory["reservation"]),
            swap: signed(&memory["swap"]),
            disable_oom_killer: memory["disableOOMKiller"]
                .as_bool()
                .map(|value| nri::OptionalBool { value }),
            ..Default::default()
        }),
        cpu: Some(nri::LinuxCpu {
            shares: unsigned(&cpu["shares"]),
            quota: signed(&cpu["quota"]),
            period: unsigned(&cpu["period"]),
            cpus: text(&cpu["cpus"]),
            mems: text(&cpu["mems"]),
            ..Default::default()
        }),
        hugepage_limits: list(&from["hugepageLimits"]).iter().map(page).collect(),
        unified: unified.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        devices: list(&from["devices"]).iter().map(rule).collect(),
        pids: from["pids"]["limit"].as_i64().map(|limit| nri::LinuxPids { limit }),
        ..Default::default()
    }
}

/// The classes of block I/O and RDT that plugins choose for a container that is being created.
pub(crate) fn classes(asked: Option<&nri::ContainerAdjustment>) -> Chosen {
    let resources = asked.and_then(|of| of.linux.as_ref()).and_then(|of| of.resources.as_ref());
    let name = |class: Option<&nri::OptionalString>| -> Option<String> {
        class.map(|of| of.value.clone()).filter(|name| !name.is_empty())
    };
    Chosen {
        block_io: name(resources.and_then(|of| of.blockio_class.as_ref())),
        rdt: name(resources.and_then(|of| of.rdt_class.as_ref())),
    }
}

/// The limits alone, as classes are resolved only when a container is created.
pub(crate) fn without_classes(resources: &nri::LinuxResources) -> nri::LinuxResources {
    nri::LinuxResources { blockio_class: None, rdt_class: None, ..resources.clone() }
}

/// Refuses limits that no cgroup of Hull's can have.
fn refuse_unsupported(from: &nri::LinuxResources) -> Result<(), Error> {
    let (memory, cpu) = (from.memory.unwrap_or_default(), from.cpu.clone().unwrap_or_default());
    let names_class =
        |class: &Option<nri::OptionalString>| class.as_ref().is_some_and(|of| !of.value.is_empty());
    let asked = [
        ("a limit of kernel memory", memory.kernel.is_some()),
        ("a limit of kernel TCP memory", memory.kernel_tcp.is_some()),
        ("memory swappiness", memory.swappiness.is_some()),
        ("memory without hierarchy", memory.use_hierarchy.is_some_and(|of| !of.value)),
        ("a real-time CPU limit", cpu.realtime_runtime.is_some() || cpu.realtime_period.is_some()),
        ("a block I/O class of a container that exists", names_class(&from.blockio_class)),
        ("an RDT class of a container that exists", names_class(&from.rdt_class)),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(Error::Unsupported { what }),
        None => Ok(()),
    }
}

/// Copies the limits that are set to `linux.resources` of an OCI spec.
pub(super) fn into_oci(into: &mut Value, from: &nri::LinuxResources) -> Result<(), Error> {
    refuse_unsupported(from)?;
    let (memory, cpu) = (from.memory.unwrap_or_default(), from.cpu.clone().unwrap_or_default());
    let mut set = |group: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            into[group][key] = value;
        }
    };
    let limit = memory.limit.map(|of| of.value).filter(|limit| *limit != 0);
    // A memory limit without a swap limit replaces both: the earlier swap limit would be too small or too large.
    let swap = memory.swap.map(|of| of.value).or(limit);
    set("memory", "limit", limit.map(Value::from));
    set("memory", "swap", swap.map(Value::from));
    set("memory", "reservation", memory.reservation.map(|of| of.value.into()));
    set("memory", "disableOOMKiller", memory.disable_oom_killer.map(|of| of.value.into()));
    set("cpu", "shares", cpu.shares.map(|of| of.value.into()));
    set("cpu", "quota", cpu.quota.map(|of| of.value.into()));
    set("cpu", "period", cpu.period.map(|of| of.value.into()));
    let text = |text: String| (!text.is_empty()).then(|| Value::from(text));
    set("cpu", "cpus", text(cpu.cpus));
    set("cpu", "mems", text(cpu.mems));
    set("pids", "limit", from.pids.map(|of| of.limit.into()));
    for page in &from.hugepage_limits {
        let pages = edit::list(into, "hugepageLimits");
        pages.retain(|of| of["pageSize"] != page.page_size.as_str());
        let bytes = i64::try_from(page.limit).unwrap_or(i64::MAX);
        pages.push(json!({"pageSize": page.page_size, "limit": bytes}));
    }
    for (key, value) in &from.unified {
        into["unified"][key] = value.as_str().into();
    }
    for rule in &from.devices {
        let mut of = Map::new();
        of.insert("allow".into(), rule.allow.into());
        of.insert("access".into(), rule.access.as_str().into());
        if !rule.r#type.is_empty() {
            of.insert("type".into(), rule.r#type.as_str().into());
        }
        for (key, number) in [("major", &rule.major), ("minor", &rule.minor)] {
            if let Some(number) = number {
                of.insert(key.into(), number.value.into());
            }
        }
        edit::list(into, "devices").push(of.into());
    }
    Ok(())
}

/// The limits for the cgroup of a running container.
pub(crate) fn limits(from: &nri::LinuxResources) -> Result<Limits, Error> {
    if !from.devices.is_empty() {
        return Err(Error::Unsupported { what: "device rules of a running container" });
    }
    let mut oci = json!({});
    into_oci(&mut oci, from)?;
    let oci = serde_json::from_value(oci).map_err(|source| Error::Form { source })?;
    hull_plan::limits(&oci).map_err(|source| Error::Limits { source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory(memory: nri::LinuxMemory) -> nri::LinuxResources {
        nri::LinuxResources { memory: Some(memory), ..Default::default() }
    }

    #[test]
    fn a_memory_limit_without_swap_limits_both() {
        let limit = Some(nri::OptionalInt64 { value: 1 << 20 });
        let limits = limits(&memory(nri::LinuxMemory { limit, ..Default::default() })).unwrap();
        assert_eq!((limits.memory_bytes, limits.memory_swap_bytes), (Some(1 << 20), Some(1 << 20)));
    }

    #[test]
    fn classes_are_for_the_creation_of_a_container_and_no_limits() {
        let class = |name: &str| Some(nri::OptionalString { value: name.into() });
        let resources = nri::LinuxResources {
            blockio_class: class("slow"),
            rdt_class: class(""),
            unified: [("memory.high".to_owned(), "5".to_owned())].into(),
            ..Default::default()
        };
        let linux = nri::LinuxContainerAdjustment {
            resources: Some(resources.clone()),
            ..Default::default()
        };
        let asked = nri::ContainerAdjustment { linux: Some(linux), ..Default::default() };
        let chosen = classes(Some(&asked));
        assert_eq!((chosen.block_io.as_deref(), chosen.rdt), (Some("slow"), None));
        assert_eq!(classes(None).block_io, None);
        let limits = limits(&without_classes(&resources)).unwrap();
        assert_eq!(limits.unified, [("memory.high".to_owned(), "5".to_owned())]);
    }

    #[test]
    fn unsupported_limits_are_refused_by_name() {
        let one = Some(nri::OptionalInt64 { value: 1 });
        let class = Some(nri::OptionalString { value: "gold".into() });
        let swappiness = Some(nri::OptionalUInt64 { value: 1 });
        let cpu = nri::LinuxCpu { realtime_runtime: one, ..Default::default() };
        for (expected, asked) in [
            ("kernel memory", memory(nri::LinuxMemory { kernel: one, ..Default::default() })),
            ("TCP", memory(nri::LinuxMemory { kernel_tcp: one, ..Default::default() })),
            ("swappiness", memory(nri::LinuxMemory { swappiness, ..Default::default() })),
            ("real-time", nri::LinuxResources { cpu: Some(cpu), ..Default::default() }),
            (
                "block I/O",
                nri::LinuxResources { blockio_class: class.clone(), ..Default::default() },
            ),
            ("RDT", nri::LinuxResources { rdt_class: class, ..Default::default() }),
            (
                "device rules",
                nri::LinuxResources { devices: vec![Default::default()], ..Default::default() },
            ),
        ] {
            let err = limits(&asked).unwrap_err().to_string();
            assert!(err.contains(expected), "{expected:?} in {err}");
        }
    }

    proptest! {
        /// A kubelet's limits are the same after conversion to a plugin's message and to the spec.
        #[test]
        fn a_kubelets_limits_survive_conversion(
            shares in 0..1000i64, quota in -1..1000i64, period in 0..1000i64, limit in 0..1000i64,
            cpus in "[0-3]?", pages in any::<bool>(),
        ) {
            let page = cri::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
            let asked = cri::LinuxContainerResources {
                cpu_shares: shares, cpu_quota: quota, cpu_period: period, memory_limit_in_bytes: limit,
                memory_swap_limit_in_bytes: limit, cpuset_cpus: cpus,
                hugepage_limits: if pages { vec![page] } else { Vec::new() },
                unified: [("memory.high".to_owned(), "1".to_owned())].into(),
                ..Default::default()
            };
            let plugins = of_cri(&asked);
            prop_assert_eq!(&to_cri(&plugins), &asked);
            let mut oci = json!({});
            into_oci(&mut oci, &plugins).unwrap();
            prop_assert_eq!(of_oci(&oci), plugins);
        }
    }
}
