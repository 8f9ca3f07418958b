// SPDX-License-Identifier: Apache-2.0
//! The cluster of `make cluster`: one per host, which runs on after the command that started it.

use super::layout::{self, Layout, Pods};
use super::machine::{self, Description, Lifetime, Machine};
use super::{control_plane, flannel, images, programs, worker};
use crate::expect::ExpectExt;
use crate::registry::Registry;
use crate::shell::{self, names, say};
use crate::{image, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

const COREDNS: &str = include_str!("../../kubernetes/manifests/coredns.yaml");

/// Starts the cluster, after it has removed one that runs. If a step fails, all of it is removed and the logs are
/// kept.
pub fn up(layout: &Layout) -> Machine {
    let guard = Guard;
    down();
    let wanted: &[&str] = match layout.options.network {
        Pods::BuiltIn | Pods::Bridge => &["cluster"],
        Pods::Flannel => &["cluster", "flannel"],
    };
    let programs = programs::built(wanted);
    let images = images(&programs);
    if layout.options.network == Pods::Flannel {
        flannel::push(&images, &programs);
    }
    fs::create_dir_all(layout::root()).or_fail("make the directory of the cluster");
    layout.record();
    let mut step = Steps::new();
    let hub = boot("hub", &programs);
    control_plane::prepare(&hub, layout, &images);
    step.done("a hub in namespaces, with a registry");
    let numbers: Vec<u8> = (1..=layout.options.nodes).collect();
    let nodes: Vec<Machine> = std::thread::scope(|scope| {
        let control = scope.spawn(|| control_plane::start(&hub, layout));
        let start = |number: &u8| {
            let (hub, programs, number) = (&hub, &programs, *number);
            scope.spawn(move || {
                let node = boot(&format!("n{number}"), programs);
                worker::prepare(&node, hub, layout, number);
                node
            })
        };
        let nodes: Vec<_> = numbers.iter().map(start).collect();
        let nodes = nodes.into_iter().map(joined).collect();
        step.done(&format!(
            "nodes in namespaces, each with its own {}",
            layout.options.runtime.name()
        ));
        joined(control);
        step.done("etcd, API server, controllers, scheduler");
        nodes
    });
    if layout.options.network == Pods::Flannel {
        // A node becomes Ready by its pod of this DaemonSet.
        flannel::install(&hub, layout);
    }
    std::thread::scope(|scope| {
        let join = |(node, number)| {
            let (hub, node, number): (_, &Machine, u8) = (&hub, node, number);
            scope.spawn(move || worker::join(node, hub, layout, number))
        };
        let joins: Vec<_> = nodes.iter().zip(numbers.iter().copied()).map(join).collect();
        joins.into_iter().for_each(joined);
    });
    step.done("kubelets and kube-proxies; every node is Ready");
    dns(&hub, layout);
    let rollout =
        ["rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=120s"];
    let _output = layout::kubectl(&hub, layout, &rollout).good();
    step.done("CoreDNS answers");
    std::mem::forget(guard);
    write_scripts(&hub, layout);
    hub
}

/// Starts the hub without a control plane, and one node with its container runtime alone.
#[must_use]
pub fn up_node(layout: &Layout) -> Machine {
    let guard = Guard;
    down();
    let programs = programs::built(&["cluster", "e2e"]);
    let images = images(&programs);
    fs::create_dir_all(layout::root()).or_fail("make the directory of the cluster");
    let hub = boot("hub", &programs);
    control_plane::prepare(&hub, layout, &images);
    let node = boot("n1", &programs);
    worker::prepare_alone(&node, &hub, layout, 1);
    std::mem::forget(guard);
    node
}

/// Ends every machine of the cluster and removes all of it.
pub fn down() {
    let root = layout::root();
    for name in names(&root) {
        let (dir, cgroup) = layout::machine(&name);
        if let Some(machine) = Machine::running(&dir, &cgroup) {
            machine.end();
        } else if dir.is_dir() {
            super::cgroups::Cgroups::of(&cgroup).remove();
        }
    }
    machine::remove(&root);
}

/// Removes a cluster that did not come up, and keeps its logs.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let kept = paths::logs().join("cluster");
        machine::remove(&kept);
        for machine in names(&layout::root()) {
            let from = layout::root().join(&machine);
            for log in names(&from).iter().filter(|name| name.ends_with(".log")) {
                drop(fs::create_dir_all(kept.join(&machine)));
                drop(fs::copy(from.join(log), kept.join(&machine).join(log)));
            }
        }
        say(&format!("the cluster is removed; its logs: {}", kept.display()));
        down();
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn boot(name: &str, programs: &Path) -> Machine {
    let (dir, cgroup) = layout::machine(name);
    let hull = paths::hull();
    let description =
        Description { host_name: name, dir: &dir, cgroup: &cgroup, programs, hull: &hull };
    Machine::boot(description, Lifetime::Kept)
}

/// The directory of a registry with all images. They are made once, and again when what they are made of changes.
fn images(programs: &Path) -> PathBuf {
    let dir = paths::fixtures().join("kubernetes-images");
    let recipe = format!("{}{}", include_str!("images.rs"), programs::version(programs));
    let mark = image::digest(recipe.as_bytes());
    let marker = dir.join("made");
    if fs::read_to_string(&marker).is_ok_and(|made| made == mark) {
        return dir;
    }
    say("making the images, once");
    machine::remove(&dir);
    let registry = Registry::start_kept(&dir);
    images::push_all(&registry, programs, &programs::module("k8s.io/kubernetes"));
    drop(registry);
    fs::write(&marker, mark).or_fail(format!("write {}", marker.display()));
    dir
}

fn dns(hub: &Machine, layout: &Layout) {
    let file = layout::root().join("coredns.yaml");
    fs::write(&file, COREDNS).or_fail("write the manifest of CoreDNS");
    let name = file.display().to_string();
    let _output = layout::kubectl(hub, layout, &["apply", "-f", &name]).good();
}

/// Two scripts for people: kubectl, and a command on a node.
fn write_scripts(hub: &Machine, layout: &Layout) {
    let root = layout::root();
    let programs = hub.path(&format!("{}/programs", hub.dir().display()));
    let kubectl = format!(
        "#!/bin/sh\nexec nsenter --net=/proc/{}/ns/net env KUBECONFIG={} {}/kubectl \"$@\"\n",
        hub.pid(),
        layout.kubeconfig().display(),
        programs.display()
    );
    let node = format!(
        "#!/bin/sh\nnode=$1\nshift\nexec nsenter --target \"$(cat {}/$node/pid)\" --mount --net --uts --ipc --pid -- \"$@\"\n",
        root.display()
    );
    for (name, text) in [("kubectl", kubectl), ("on", node)] {
        let path = root.join(name);
        fs::write(&path, text).or_fail(format!("write {}", path.display()));
        let _output = shell::run("chmod", ["0755".as_ref(), path.as_os_str()]).good();
    }
}

/// Prints what was done, and how long it took.
struct Steps {
    began: Instant,
    last: Instant,
}

impl Steps {
    fn new() -> Self {
        Self { began: Instant::now(), last: Instant::now() }
    }

    fn done(&mut self, text: &str) {
        let (step, all) = (self.last.elapsed(), self.began.elapsed());
        say(&format!("{:6.1} s  {text} ({:.1} s)", all.as_secs_f64(), step.as_secs_f64()));
        self.last = Instant::now();
    }
}
