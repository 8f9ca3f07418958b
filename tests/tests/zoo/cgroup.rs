// SPDX-License-Identifier: Apache-2.0
//! Limits that the kernel refuses, and limits that are reached.

use crate::case::{After, Case, Set};
use hull_proto::cri as api;

/// A program for awk whose memory doubles until it is killed.
const GROWS: &str = "BEGIN{s=\"xxxxxxxx\"; while(1) s=s s}";

pub(crate) static CASES: [Case; 8] = [
    Case {
        name: "CPUs that the node does not have",
        set: Set::Configs(|setup| setup.resources().cpuset_cpus = "1000-1001".into()),
        place: &["cpuset.cpus"],
        cause: &["write `1000-1001`"],
        fix: &["choose CPUs that the node has, here 0"],
        never: &[],
    },
    Case {
        name: "NUMA nodes that the node does not have",
        set: Set::Configs(|setup| setup.resources().cpuset_mems = "60".into()),
        place: &["cpuset.mems"],
        cause: &["write `60`"],
        fix: &["choose NUMA nodes that the node has, here 0"],
        never: &[],
    },
    Case {
        name: "a CPU quota below what the kernel counts",
        set: Set::Configs(|setup| {
            let resources = setup.resources();
            (resources.cpu_quota, resources.cpu_period) = (10, 100_000);
        }),
        place: &["cpu.cfs_quota_us", "cpu.max"],
        cause: &["invalid argument"],
        fix: &["a CPU quota of at least 1000"],
        never: &[],
    },
    Case {
        name: "a CPU period above what the kernel counts, for a container that runs",
        set: Set::Configs(|setup| {
            setup.command(&["sleep", "100"]);
            setup.after = After::Update(api::LinuxContainerResources {
                cpu_period: 5_000_000,
                cpu_quota: 100_000,
                ..Default::default()
            });
        }),
        place: &["cpu.cfs_period_us", "cpu.max"],
        cause: &["invalid argument"],
        fix: &["a period from 1000 to 1000000"],
        never: &["carry it out in the pod's monitor"],
    },
    Case {
        name: "other CPUs that the node does not have, for a container that runs",
        set: Set::Configs(|setup| {
            setup.command(&["sleep", "100"]);
            setup.after = After::Update(api::LinuxContainerResources {
                cpuset_cpus: "1000".into(),
                ..Default::default()
            });
        }),
        place: &["cpuset.cpus"],
        cause: &["write `1000`"],
        fix: &["choose CPUs that the node has"],
        never: &["carry it out in the pod's monitor"],
    },
    Case {
        name: "a size of huge pages that the kernel does not have",
        set: Set::Configs(|setup| {
            let limit = api::HugepageLimit { page_size: "3MB".into(), limit: 3 << 20 };
            setup.resources().hugepage_limits.push(limit);
        }),
        place: &["hugetlb.3MB"],
        cause: &["controller is not available"],
        fix: &["choose a page size that the kernel has"],
        never: &[],
    },
    Case {
        name: "more memory than the limit",
        set: Set::Configs(|setup| {
            setup.resources().memory_limit_in_bytes = 32 << 20;
            setup.command(&["awk", GROWS]);
        }),
        place: &["container limit 32 MiB"],
        cause: &["out of memory"],
        fix: &["raise the container's memory limit"],
        never: &[],
    },
    Case {
        name: "more memory than the limit, in a child",
        set: Set::Configs(|setup| {
            setup.resources().memory_limit_in_bytes = 32 << 20;
            let script = format!("awk '{GROWS}'; touch /tmp/killed; sleep 100");
            setup.script(&script);
            setup.after = After::Once("/tmp/killed");
        }),
        place: &["container limit 32 MiB"],
        cause: &["out of memory"],
        fix: &["raise the container's memory limit"],
        never: &[],
    },
];

/// Of Hull's own driver alone: the other one takes slices.
pub(crate) static OF_CGROUPFS: Case = Case {
    name: "a parent for the other cgroup driver",
    set: Set::Configs(|setup| {
        setup.pod.linux.get_or_insert_default().cgroup_parent = "kubepods-pod1.slice".into();
    }),
    place: &["`kubepods-pod1.slice`"],
    cause: &["is a slice of systemd"],
    fix: &["set `cgroupDriver: cgroupfs` for the kubelet", "set cgroup.driver = \"systemd\""],
    never: &[],
};

/// Of version 1 alone: version 2 takes a limit below the use, and kills.
pub(crate) static BELOW_USE: Case = Case {
    name: "a memory limit below what is in use",
    set: Set::Configs(|setup| {
        setup.resources().memory_limit_in_bytes = 256 << 20;
        let program = "BEGIN{s=\"x\"; while(length(s)<50000000) s=s s; system(\"touch /tmp/full; sleep 100\")}";
        setup.command(&["awk", program]);
        setup.after = After::UpdateOnce(
            "/tmp/full",
            api::LinuxContainerResources { memory_limit_in_bytes: 8 << 20, ..Default::default() },
        );
    }),
    place: &["memory.limit_in_bytes"],
    cause: &["MiB in use now"],
    fix: &["choose a higher limit"],
    never: &["carry it out in the pod's monitor"],
};

/// Of version 1 alone: files of version 2.
pub(crate) static UNIFIED: Case = Case {
    name: "a file of cgroup v2 on a node without",
    set: Set::Configs(|setup| {
        let unified = ("memory.high".to_owned(), "100000000".to_owned());
        setup.resources().unified.extend([unified]);
    }),
    place: &["memory.high"],
    cause: &["this node has no cgroup v2"],
    fix: &["remove `unified`"],
    never: &["enable the"],
};
