// SPDX-License-Identifier: Apache-2.0
//! Tests: adjustments of several plugins, merged.

use super::*;
use hull_proto::nri::{
    CdiDevice, Hook, Hooks, HugepageLimit, KeyValue, LinuxContainerAdjustment, LinuxDevice,
    LinuxMemory, LinuxNamespace, LinuxPids, LinuxRdt, Mount, OptionalInt, OptionalInt64,
    OptionalString, OptionalUInt64, PosixRlimit,
};
use std::collections::BTreeMap;

fn container() -> Container {
    Container {
        id: "new".into(),
        env: vec!["PATH=/bin".into(), "OLD=1".into()],
        args: vec!["sleep".into()],
        mounts: vec![mount("/data", "/host")],
        annotations: map(&[("kept", "1"), ("old", "1")]),
        ..Default::default()
    }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn mount(destination: &str, source: &str) -> Mount {
    Mount { destination: destination.into(), source: source.into(), ..Default::default() }
}

fn variable(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: value.into() }
}

fn env(variables: &[(&str, &str)]) -> ContainerAdjustment {
    let env = variables.iter().map(|(key, value)| variable(key, value)).collect();
    ContainerAdjustment { env, ..Default::default() }
}

fn linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux), ..Default::default() }
}

fn memory(limit: i64) -> LinuxResources {
    let limit = Some(OptionalInt64 { value: limit });
    LinuxResources {
        memory: Some(LinuxMemory { limit, ..Default::default() }),
        ..Default::default()
    }
}

fn resources(resources: LinuxResources) -> ContainerAdjustment {
    linux(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() })
}

fn update(id: &str, resources: LinuxResources) -> ContainerUpdate {
    ContainerUpdate {
        container_id: id.into(),
        linux: Some(LinuxContainerUpdate { resources: Some(resources) }),
        ignore_failure: false,
    }
}

type Case = (&'static str, ContainerAdjustment);

/// Every field that has one owner, set once.
fn each() -> Vec<Case> {
    [of_process(), of_linux(), of_limits()].concat()
}

fn of_process() -> Vec<Case> {
    let of = |set: fn(&mut ContainerAdjustment)| {
        let mut adjustment = ContainerAdjustment::default();
        set(&mut adjustment);
        adjustment
    };
    let cpu_time = || PosixRlimit { r#type: "RLIMIT_CPU".into(), ..Default::default() };
    let mut rlimit = of(|_| ());
    rlimit.rlimits = vec![cpu_time()];
    vec![
        ("Annotations `a`", of(|all| all.annotations = map(&[("a", "1")]))),
        ("Mounts `/m`", of(|all| all.mounts = vec![mount("/m", "/x")])),
        ("Env `E`", env(&[("E", "1")])),
        ("Args", of(|all| all.args = vec!["x".into()])),
        ("Rlimits `RLIMIT_CPU`", rlimit),
        (
            "CdiDevices `v/c=d`",
            of(|all| all.cdi_devices = vec![CdiDevice { name: "v/c=d".into() }]),
        ),
    ]
}

fn of_linux() -> Vec<Case> {
    let of = |set: fn(&mut LinuxContainerAdjustment)| {
        let mut adjustment = LinuxContainerAdjustment::default();
        set(&mut adjustment);
        linux(adjustment)
    };
    vec![
        ("Devices `/dev/d`", of(|all| all.devices = vec![device("/dev/d")])),
        ("CgroupsPath", of(|all| all.cgroups_path = "/x".into())),
        ("OomScoreAdj", of(|all| all.oom_score_adj = Some(OptionalInt { value: 1 }))),
        ("IoPriority", of(|all| all.io_priority = Some(Default::default()))),
        ("SeccompPolicy", of(|all| all.seccomp_policy = Some(Default::default()))),
        ("Namespace `network`", of(|all| all.namespaces = vec![namespace("network")])),
        ("Sysctl `net.x`", of(|all| all.sysctl = map(&[("net.x", "1")]))),
        (
            "LinuxNetDevices `eth1`",
            of(|all| all.net_devices = [("eth1".to_owned(), Default::default())].into()),
        ),
        ("LinuxSched", of(|all| all.scheduler = Some(Default::default()))),
        ("MemoryPolicy", of(|all| all.memory_policy = Some(Default::default()))),
        ("RdtClosID", of(|all| all.rdt = Some(class_of_service("c")))),
    ]
}

fn of_limits() -> Vec<Case> {
    let of = |set: fn(&mut LinuxResources)| {
        let mut limits = LinuxResources::default();
        set(&mut limits);
        resources(limits)
    };
    let text = |value: &str| Some(OptionalString { value: value.into() });
    let mut classes = [LinuxResources::default(), LinuxResources::default()];
    classes[0].blockio_class = text("b");
    classes[1].rdt_class = text("r");
    let [blockio, rdt] = classes;
    vec![
        ("MemLimit", resources(memory(1))),
        (
            "CPUShares",
            of(|all| all.cpu.get_or_insert_default().shares = Some(OptionalUInt64 { value: 2 })),
        ),
        ("CPUSetCPUs", of(|all| all.cpu.get_or_insert_default().cpus = "0".into())),
        ("PidsLimit", of(|all| all.pids = Some(LinuxPids { limit: 5 }))),
        ("HugepageLimits `2MB`", of(|all| all.hugepage_limits = vec![two_megabytes()])),
        ("BlockioClass", resources(blockio)),
        ("RdtClass", resources(rdt)),
        ("CgroupsUnified `memory.high`", of(|all| all.unified = map(&[("memory.high", "1")]))),
    ]
}

fn device(path: &str) -> LinuxDevice {
    LinuxDevice { path: path.into(), ..Default::default() }
}

fn namespace(kind: &str) -> LinuxNamespace {
    LinuxNamespace { r#type: kind.into(), path: String::new() }
}

fn class_of_service(name: &str) -> LinuxRdt {
    LinuxRdt { clos_id: Some(OptionalString { value: name.into() }), ..Default::default() }
}

fn two_megabytes() -> HugepageLimit {
    HugepageLimit { page_size: "2MB".into(), limit: 1 }
}

#[test]
fn the_adjustments_of_a_single_plugin_are_not_changed() {
    for (what, asked) in each() {
        let mut creation = Creation::of(container());
        creation.adjust(asked.clone(), "00-a").unwrap();
        assert_eq!(creation.finish().adjust, asked, "{what}");
    }
}

#[test]
fn two_plugins_that_set_the_same_field_are_both_named() {
    for (what, asked) in each() {
        let mut creation = Creation::of(container());
        creation.adjust(asked.clone(), "00-a").unwrap();
        let err = creation.adjust(asked, "10-b").unwrap_err().to_string();
        let expected =
            format!("merge the adjustments of NRI plugins `00-a` and `10-b`: both set {what}");
        assert_eq!(err, expected);
    }
}

#[test]
fn a_plugin_sees_the_adjustments_of_earlier_plugins() {
    let mut creation = Creation::of(container());
    let mut asked = env(&[("NEW", "1"), ("-OLD", "")]);
    asked.mounts = vec![mount("/data", "/elsewhere"), mount("/more", "/x")];
    asked.annotations = map(&[("-old", ""), ("new", "2")]);
    asked.args = vec!["echo".into()];
    asked.linux = resources(memory(7)).linux;
    creation.adjust(asked, "00-a").unwrap();
    let current = creation.current();
    assert_eq!(current.env, ["PATH=/bin", "NEW=1"]);
    assert_eq!(current.mounts, [mount("/data", "/elsewhere"), mount("/more", "/x")]);
    assert_eq!(current.annotations, map(&[("kept", "1"), ("new", "2")]));
    assert_eq!(current.args, ["echo"]);
    let limits = current.linux.as_ref().unwrap().resources.clone().unwrap();
    assert_eq!(limits.memory, memory(7).memory);
}

#[test]
fn a_plugin_that_removes_a_value_may_set_another_one() {
    let mut creation = Creation::of(container());
    let mut first = env(&[("E", "1"), ("F", "1")]);
    first.annotations = map(&[("a", "1")]);
    first.mounts = vec![mount("/m", "/1")];
    first.args = vec!["one".into()];
    creation.adjust(first, "00-a").unwrap();
    let mut second = env(&[("-E", ""), ("E", "2"), ("-F", "")]);
    second.annotations = map(&[("-a", ""), ("a", "2")]);
    second.mounts = vec![mount("-/m", ""), mount("/m", "/2")];
    second.args = vec![String::new(), "two".into()];
    creation.adjust(second, "10-b").unwrap();
    let third = creation.adjust(env(&[("E", "3")]), "20-c").unwrap_err().to_string();
    assert!(third.contains("`10-b` and `20-c`"), "{third}");
    let adjust = creation.finish().adjust;
    assert_eq!(adjust.env, [variable("E", "2"), variable("-F", "")]);
    assert_eq!(adjust.annotations, map(&[("a", "2")]));
    assert_eq!(adjust.mounts, [mount("/m", "/2")]);
    assert_eq!(adjust.args, ["two"]);
}

#[test]
fn removals_from_the_original_container_are_in_the_result() {
    let mut creation = Creation::of(container());
    creation.adjust(env(&[("-OLD", "")]), "00-a").unwrap();
    // No plugin had set it, so another plugin may.
    creation.adjust(env(&[("OLD", "2")]), "10-b").unwrap();
    assert_eq!(creation.current().env, ["PATH=/bin", "OLD=2"]);
    assert_eq!(creation.finish().adjust.env, [variable("-OLD", ""), variable("OLD", "2")]);
}

#[test]
fn hooks_of_several_plugins_are_concatenated() {
    let hook = |path: &str| Hook { path: path.into(), ..Default::default() };
    let adds_hook = |path: &str| ContainerAdjustment {
        hooks: Some(Hooks { create_runtime: vec![hook(path)], ..Default::default() }),
        ..Default::default()
    };
    let mut creation = Creation::of(container());
    creation.adjust(adds_hook("/a"), "00-a").unwrap();
    creation.adjust(adds_hook("/b"), "10-b").unwrap();
    let created = creation.finish();
    let owners = created.owners.clone();
    assert_eq!(created.adjust.hooks.unwrap().create_runtime, [hook("/a"), hook("/b")]);
    let hooks = hull_proto::nri::Field::OciHooks as i32;
    assert_eq!(owners.owners["new"].simple[&hooks], "00-a,10-b");
}

#[test]
fn a_namespace_that_one_plugin_removed_cannot_be_added_by_another() {
    let namespace = |kind: &str| {
        linux(LinuxContainerAdjustment {
            namespaces: vec![LinuxNamespace { r#type: kind.into(), path: String::new() }],
            ..Default::default()
        })
    };
    let mut creation = Creation::of(container());
    creation.adjust(namespace("-network"), "00-a").unwrap();
    creation.adjust(namespace("network"), "10-b").unwrap_err();
}

#[test]
fn an_update_of_the_new_container_is_refused() {
    let mut creation = Creation::of(container());
    let err = creation.update(vec![update("new", memory(1))], "00-a").unwrap_err();
    assert!(matches!(err, Error::UpdatesNew { .. }));
}

#[test]
fn updates_of_other_containers_are_merged_and_conflict_like_adjustments() {
    let mut creation = Creation::of(container());
    let mut cpus = LinuxResources::default();
    cpus.cpu.get_or_insert_default().cpus = "0-1".into();
    creation.update(vec![update("x", memory(1)), update("y", memory(2))], "00-a").unwrap();
    creation.update(vec![update("x", cpus.clone())], "10-b").unwrap();
    let err = creation.update(vec![update("y", memory(3))], "10-b").unwrap_err();
    assert!(matches!(err, Error::Conflict { .. }), "{err}");
    let mut may_fail = update("y", memory(3));
    may_fail.ignore_failure = true;
    creation.update(vec![may_fail], "10-b").unwrap();
    creation.evict(vec![ContainerEviction { container_id: "z".into(), reason: "r".into() }; 2]);
    let created = creation.finish();
    let mut both = memory(1);
    both.cpu = cpus.cpu;
    assert_eq!(created.updates, [update("x", both), update("y", memory(2))]);
    assert_eq!(created.evictions.len(), 1);
}

#[test]
fn plugins_can_change_the_update_of_the_verb() {
    let mut updates = Updates::of(Some(("x".into(), memory(5))));
    updates.add(vec![update("x", memory(6)), update("y", memory(1))], "00-a").unwrap();
    assert_eq!(updates.subject_resources(), Some(memory(6)));
    updates.add(vec![update("x", memory(7))], "10-b").unwrap_err();
    let done = updates.finish();
    assert_eq!((done.resources, done.updates), (memory(6), vec![update("y", memory(1))]));
}
