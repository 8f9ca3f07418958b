// SPDX-License-Identifier: Apache-2.0
//! The table of commands: their groups in the help, their other names, and the habits of other tools that they serve;
//! and the commands of other tools that Hull does not have, with the reason.
//!
//! Help, aliases, errors of unknown commands and docs/cli.md are made from it. Their options are in
//! [`args`](super::args).

/// A group of commands in the help, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Daily,
    Containers,
    Pods,
    Images,
    Node,
    Other,
}

impl Group {
    /// All groups, in their order.
    pub(crate) const ALL: [Self; 6] =
        [Self::Daily, Self::Containers, Self::Pods, Self::Images, Self::Node, Self::Other];

    /// The heading of the group.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Daily => "Daily commands",
            Self::Containers => "Containers",
            Self::Pods => "Pods",
            Self::Images => "Images and registries",
            Self::Node => "Daemon and node",
            Self::Other => "Interfaces of other programs",
        }
    }
}

/// A command of hull.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    pub(crate) aliases: &'static [&'static str],
    /// The words of users of other tools for it; the first one is the tool.
    pub(crate) habits: &'static [&'static str],
}

const fn verb(
    group: Group,
    name: &'static str,
    aliases: &'static [&'static str],
    habits: &'static [&'static str],
) -> Verb {
    Verb { name, group, aliases, habits }
}

use Group::{Containers, Daily, Images, Node, Other, Pods};

/// All commands, in the order of the help.
pub(crate) const VERBS: &[Verb] = &[
    verb(Daily, "run", &[], &["docker run", "nerdctl run", "podman run", "crictl run"]),
    verb(Daily, "ps", &["list", "ls"], &["docker ps", "nerdctl ps", "podman ps", "crictl ps"]),
    verb(Daily, "logs", &[], &["docker logs", "crictl logs", "kubectl logs"]),
    verb(Daily, "exec", &[], &["docker exec", "nerdctl exec", "crictl exec", "kubectl exec"]),
    verb(Daily, "attach", &[], &["docker attach", "crictl attach", "kubectl attach"]),
    verb(Daily, "inspect", &[], &["docker inspect", "nerdctl inspect", "crictl inspect"]),
    verb(Daily, "stop", &[], &["docker stop", "nerdctl stop", "crictl stop"]),
    verb(Daily, "rm", &["remove"], &["docker rm", "nerdctl rm", "podman rm", "crictl rm"]),
    verb(Daily, "explain", &["why", "describe"], &["kubectl describe"]),
    verb(Daily, "stats", &[], &["docker stats", "nerdctl stats", "crictl stats", "kubectl top"]),
    verb(Containers, "create", &[], &["docker create", "nerdctl create", "podman create"]),
    verb(Containers, "start", &[], &["docker start", "nerdctl start", "crictl start"]),
    verb(Containers, "restart", &[], &["docker restart", "nerdctl restart"]),
    verb(Containers, "kill", &[], &["docker kill", "nerdctl kill", "podman kill"]),
    verb(Containers, "pause", &[], &["docker pause", "nerdctl pause"]),
    verb(Containers, "unpause", &[], &["docker unpause", "nerdctl unpause"]),
    verb(Containers, "wait", &[], &["docker wait", "nerdctl wait"]),
    verb(Containers, "cp", &[], &["docker cp", "nerdctl cp", "podman cp", "kubectl cp"]),
    verb(Containers, "top", &[], &["docker top", "nerdctl top"]),
    verb(Containers, "port", &[], &["docker port", "nerdctl port"]),
    verb(Containers, "events", &[], &["docker events", "nerdctl events", "crictl events"]),
    verb(Containers, "update", &[], &["docker update", "nerdctl update", "crictl update"]),
    verb(Containers, "create-container", &[], &["crictl create"]),
    verb(Containers, "checkpoint", &[], &["crictl checkpoint", "podman container checkpoint"]),
    verb(Pods, "pods", &["pod"], &["crictl pods", "podman pod ps", "kubectl get pods"]),
    verb(Pods, "play", &[], &["podman play kube", "podman kube play"]),
    verb(Pods, "runp", &[], &["crictl runp"]),
    verb(Pods, "stopp", &[], &["crictl stopp"]),
    verb(Pods, "rmp", &[], &["crictl rmp"]),
    verb(Pods, "inspectp", &[], &["crictl inspectp"]),
    verb(Pods, "statsp", &[], &["crictl statsp"]),
    verb(Pods, "metricsp", &[], &["crictl metricsp"]),
    verb(Pods, "trace", &[], &[]),
    verb(Pods, "port-forward", &[], &["crictl port-forward", "kubectl port-forward"]),
    verb(Images, "images", &["img"], &["docker images", "nerdctl images", "crictl images"]),
    verb(Images, "pull", &[], &["docker pull", "nerdctl pull", "podman pull", "crictl pull"]),
    verb(Images, "rmi", &[], &["docker rmi", "nerdctl rmi", "podman rmi", "crictl rmi"]),
    verb(Images, "tag", &[], &["docker tag", "nerdctl tag", "podman tag"]),
    verb(Images, "import", &["load"], &["docker load", "nerdctl load", "podman load"]),
    verb(Images, "export", &["save"], &["docker save", "nerdctl save", "podman save"]),
    verb(Images, "history", &[], &["docker history", "nerdctl history"]),
    verb(Images, "inspecti", &[], &["docker image inspect", "crictl inspecti"]),
    verb(Images, "imagefsinfo", &[], &["crictl imagefsinfo"]),
    verb(Images, "df", &[], &["docker system df", "nerdctl system df"]),
    verb(Images, "prune", &[], &["docker system prune", "docker image prune"]),
    verb(Images, "login", &[], &["docker login", "nerdctl login", "podman login"]),
    verb(Images, "logout", &[], &["docker logout", "nerdctl logout", "podman logout"]),
    verb(Node, "serve", &[], &["containerd", "dockerd", "crio"]),
    verb(Node, "check", &[], &[]),
    verb(Node, "doctor", &[], &[]),
    verb(Node, "metrics", &[], &[]),
    verb(Node, "info", &[], &["docker info", "nerdctl info", "podman info", "crictl info"]),
    verb(Node, "version", &[], &["docker version", "nerdctl version", "crictl version"]),
    verb(Node, "config", &[], &["containerd config"]),
    verb(Node, "reload", &[], &[]),
    verb(Node, "log-level", &[], &[]),
    verb(Node, "migrate", &[], &[]),
    verb(Node, "audit", &[], &[]),
    verb(Node, "completion", &[], &["crictl completion", "kubectl completion"]),
    verb(Node, "schema", &[], &[]),
    verb(Node, "man", &[], &[]),
    verb(Other, "oci", &[], &["runc", "crun"]),
    verb(Other, "ctr", &[], &["ctr images import"]),
    verb(Other, "containerd", &[], &["containerd config dump"]),
];

/// A command of other tools that Hull does not have.
#[derive(Debug)]
pub(crate) struct Absent {
    pub(crate) names: &'static [&'static str],
    /// The reason, a sentence.
    pub(crate) why: &'static str,
    /// The tool or command to use, a sentence.
    pub(crate) instead: &'static str,
}

const fn absent(
    names: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> Absent {
    Absent { names, why, instead }
}

/// The commands that Hull does not have.
pub(crate) const ABSENT: &[Absent] = &[
    absent(
        &["build", "buildx", "builder"],
        "hull runs images and does not build them",
        "use `buildctl` or `podman build`, then `hull import` the archive",
    ),
    absent(
        &["compose", "stack", "service", "swarm", "up", "down"],
        "hull runs the pods of one node and does not arrange applications",
        "describe them as Kubernetes pods and use `hull play kube FILE`, or a cluster",
    ),
    absent(
        &["search"],
        "registries that a node pulls from have no search",
        "use the website of the registry, or `skopeo list-tags docker://IMAGE`",
    ),
    absent(
        &["diff"],
        "the changes of a container are not compared with its image",
        "use `hull exec NAME find / -xdev -newer /etc/hostname`, or `hull cp NAME:PATH - | tar -t` for an exited one",
    ),
    absent(
        &["commit"],
        "an image that is made from a running container cannot be reproduced",
        "use `hull cp` to take files out, and build an image with `buildctl` or `podman build`",
    ),
    absent(
        &["push", "manifest", "trust"],
        "a node only reads from registries, so it needs no right to write there",
        "use `hull export`, then `skopeo copy oci-archive:FILE docker://IMAGE`",
    ),
    absent(
        &["volume", "volumes"],
        "volumes are directories: the kubelet's, or those of `hull run -v NAME:PATH` below `data_dir`",
        "use `ls` and `rm` in `<data_dir>/volumes`",
    ),
    absent(
        &["network"],
        "networks are set in the configuration or by CNI plugins, not by containers",
        "edit `network` in the configuration (`hull config default`), or the files of your CNI plugin",
    ),
    absent(
        &["rename"],
        "the name of a pod is part of its identity in CRI",
        "remove the pod, and run it with the other name",
    ),
    absent(
        &["context", "machine", "plugin", "secret", "swagger"],
        "hull manages the node that it runs on, and nothing else",
        "use `ssh` to reach another node, and --socket for another daemon",
    ),
    absent(
        &["apply", "replace"],
        "there is no cluster whose state would be changed",
        "use `hull play kube FILE`, with --replace to run its pods again",
    ),
    absent(
        &["get"],
        "each kind of objects has a list of its own",
        "use `hull pods`, `hull ps`, `hull images`, `hull events` or `hull info`",
    ),
    absent(
        &["delete", "del"],
        "each kind of objects has a command of its own",
        "use `hull rm NAME`, `hull rmp POD`, `hull rmi IMAGE`, or `hull play kube --down FILE`",
    ),
    absent(
        &[
            "scale",
            "rollout",
            "autoscale",
            "expose",
            "drain",
            "cordon",
            "uncordon",
            "taint",
            "label",
            "annotate",
            "set",
            "api-resources",
            "api-versions",
            "cluster-info",
            "auth",
            "certificate",
            "proxy",
            "kustomize",
            "token",
            "join",
            "init",
        ],
        "hull knows one node and no cluster",
        "use `kubectl` or `kubeadm` with the API server of the cluster",
    ),
    absent(
        &["edit", "patch"],
        "a container keeps the configuration that it was created with",
        "use `hull update` for its limits, or `hull run --replace --name NAME …`",
    ),
    absent(
        &["debug"],
        "containers for debugging are added to pods by a kubelet",
        "use `hull exec -it NAME sh`, or `nsenter` as root on the node",
    ),
    absent(
        &["mount", "umount", "unmount", "unshare"],
        "the root of a container is mounted in its own namespace",
        "use `hull cp`, or /proc/PID/root with the pid of `hull inspect --format '{{.info.pid}}' NAME`",
    ),
    absent(
        &["healthcheck"],
        "probes are the work of a kubelet",
        "use `hull explain NAME` for what is wrong, or `hull exec` from a timer",
    ),
    absent(
        &["generate", "quadlet", "auto-update"],
        "manifests and units of systemd are written by people",
        "see `hull inspect NAME` for what a container has; use a manifest with `hull play kube FILE`, or a unit with \
         `hull run --rm` and `Restart=`",
    ),
    absent(
        &["restore"],
        "hull writes checkpoints, and does not restore them",
        "restore the archive of `hull checkpoint` with CRI-O or containerd, or run the container again with `hull start`",
    ),
    absent(
        &["untag"],
        "a name of an image is removed as the image is",
        "use `hull rmi NAME:TAG`, which removes only that name",
    ),
    absent(
        &["container", "image", "system", "kube"],
        "it is a group of commands, and needs one",
        "use it as in `hull image ls` and `hull system prune`, or without it as in `hull images`",
    ),
    absent(
        &["namespace", "namespaces"],
        "a namespace is there as long as a pod is in it",
        "use `hull pods`, which has a column for it, and -n NAMESPACE",
    ),
    absent(
        &["content", "snapshot", "snapshots", "task", "tasks", "lease", "leases"],
        "these are objects of containerd",
        "see `hull ctr --help` for what hull has of ctr; `hull ps` lists containers",
    ),
    absent(
        &["update-runtime-config"],
        "the kubelet sends the network of the node, not an administrator",
        "set `network.pod_cidr` in the configuration",
    ),
];

/// Words of other tools that are a command of hull with other words: groups of commands, as in `docker image ls`.
const REWRITTEN: &[(&[&str], &[&str])] = &[
    (&["container", "ls"], &["ps"]),
    (&["container", "list"], &["ps"]),
    (&["container", "prune"], &["prune"]),
    (&["container"], &[]),
    (&["containers", "ls"], &["ps"]),
    (&["containers", "list"], &["ps"]),
    (&["images", "ls"], &["images"]),
    (&["images", "list"], &["images"]),
    (&["pods", "ls"], &["pods"]),
    (&["pods", "list"], &["pods"]),
    (&["get", "pods"], &["pods"]),
    (&["get", "pod"], &["pods"]),
    (&["get", "po"], &["pods"]),
    (&["get", "containers"], &["ps"]),
    (&["get", "images"], &["images"]),
    (&["get", "events"], &["events"]),
    (&["get", "nodes"], &["info"]),
    (&["get", "node"], &["info"]),
    (&["get", "all"], &["ps", "-a"]),
    (&["describe", "pods"], &["explain"]),
    (&["describe", "pod"], &["explain"]),
    (&["describe", "po"], &["explain"]),
    (&["delete", "pods"], &["rmp"]),
    (&["delete", "pod"], &["rmp"]),
    (&["delete", "po"], &["rmp"]),
    (&["top", "pods"], &["statsp"]),
    (&["top", "pod"], &["statsp"]),
    (&["image", "ls"], &["images"]),
    (&["image", "list"], &["images"]),
    (&["image", "rm"], &["rmi"]),
    (&["image", "inspect"], &["inspecti"]),
    (&["image", "prune"], &["prune", "--images"]),
    (&["image"], &[]),
    (&["pod", "ps"], &["pods"]),
    (&["pod", "ls"], &["pods"]),
    (&["pod", "list"], &["pods"]),
    (&["pod", "rm"], &["rmp"]),
    (&["pod", "stop"], &["stopp"]),
    (&["pod", "inspect"], &["inspectp"]),
    (&["pod", "stats"], &["statsp"]),
    (&["pod", "top"], &["top"]),
    (&["pod", "logs"], &["logs"]),
    (&["pod", "start"], &["start"]),
    (&["pod", "restart"], &["restart"]),
    (&["pod", "kill"], &["kill"]),
    (&["pod", "pause"], &["pause"]),
    (&["pod", "unpause"], &["unpause"]),
    (&["pod", "prune"], &["prune"]),
    (&["system", "prune"], &["prune"]),
    (&["system"], &[]),
    (&["kube", "play"], &["play", "kube"]),
    (&["kube", "down"], &["play", "kube", "--down"]),
    (&["runtime-config"], &["info"]),
];

/// The words of hull for those of another tool, which begin with a command; `None` if they are our own.
pub(crate) fn rewritten(words: &[&str]) -> Option<(usize, &'static [&'static str])> {
    if let ["get", "pod" | "pods" | "po", name, ..] = words
        && !name.starts_with('-')
    {
        // A list of pods has no names as arguments.
        return Some((2, &["inspectp"]));
    }
    let (from, to) = REWRITTEN.iter().find(|(from, _)| words.starts_with(from))?;
    // A group without a command is not one of ours.
    (!to.is_empty() || words.len() > from.len()).then_some((from.len(), *to))
}

/// The entry of a command that Hull does not have.
pub(crate) fn absent_named(name: &str) -> Option<&'static Absent> {
    ABSENT.iter().find(|of| of.names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_means_one_thing() {
        let mut seen = BTreeSet::new();
        let names = VERBS.iter().flat_map(|of| of.aliases.iter().chain([&of.name]));
        for name in names.chain(ABSENT.iter().flat_map(|of| of.names)) {
            assert!(seen.insert(name), "`{name}` is there twice");
        }
    }

    #[test]
    fn groups_of_commands_are_rewritten() {
        assert_eq!(rewritten(&["image", "ls", "-q"]), Some((2, &["images"][..])));
        assert_eq!(rewritten(&["container", "rm", "x"]), Some((1, &[][..])));
        assert_eq!(rewritten(&["get", "pod", "web"]), Some((2, &["inspectp"][..])));
        assert_eq!(rewritten(&["get", "pods", "-A"]), Some((2, &["pods"][..])));
        assert_eq!(rewritten(&["container"]), None);
        assert_eq!(rewritten(&["ps"]), None);
    }
}
