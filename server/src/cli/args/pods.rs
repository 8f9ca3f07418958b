// SPDX-License-Identifier: Apache-2.0
//! The commands for pods.

use super::super::format::{ListArgs, OutputArgs};
use super::inspect::Inspect;
use super::place::Place;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Examples of `hull play kube`, and its limits.
const PLAY_HELP: &str = "\
Examples:
  hull play kube pod.yaml
  hull play kube --down pod.yaml
  kubectl run web --image nginx --dry-run=client -o yaml | hull play kube -

Pods with containers, init containers, environment, ports, limits, security contexts; volumes hostPath, emptyDir,
configMap, secret, downwardAPI and projected. ConfigMaps and Secrets are documents of the same file, before or after the
pods. Their values are read once, when a pod is made; those of Secrets lie on the disk, in a directory for root alone,
until the pod is removed. A field that needs a cluster or a kubelet (probes, service accounts, claims) is an error that
names it. The daemon restarts containers as restartPolicy says, by default always, until `hull stop`; not after a
reboot.";

/// Commands for pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Pods {
    /// List the pods of this node
    #[command(
        name = "pods",
        after_help = "Examples:\n  hull pods\n  hull pods -n kube-system --filter state=ready"
    )]
    List(ListPods),
    /// Run the pods of a Kubernetes manifest without a cluster
    #[command(subcommand)]
    Play(Play),
    /// Run a pod from a file with the message of CRI, as `crictl runp` does
    #[command(after_help = "Example:\n  hull runp pod.yaml")]
    Runp(RunPod),
    /// Stop pods, and all of their containers
    Stopp(PodNames),
    /// Remove pods, and all of their containers
    Rmp(RemovePods),
    /// Show the full state of pods
    Inspectp(Inspect),
    /// Show CPU, memory and process counts of running pods
    Statsp(super::Stats),
    /// Print the metrics that the daemon has for the kubelet's /metrics/cadvisor
    Metricsp(Metrics),
    /// Forward ports of the host to a pod
    #[command(after_help = "\
Examples:
  hull port-forward web 8080:80
  hull port-forward web 80                     the same port on the host
  hull port-forward --address 0.0.0.0 web :80  any free port, which is printed

Connections are made from inside the pod's network to its loopback, until hull is interrupted. Run it as root on the
node.")]
    PortForward(PortForward),
}

/// Options of `hull pods`.
#[derive(Debug, Args)]
pub(crate) struct ListPods {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// List only pods of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// List pods of all namespaces, which is done in any case
    #[arg(short = 'A', long = "all-namespaces", hide = true, conflicts_with = "namespace")]
    _all_namespaces: bool,
    /// List pods in any state, which is done in any case
    #[arg(short = 'a', long = "all", hide = true)]
    _all: bool,
}

/// Names of pods.
#[derive(Debug, Args)]
pub(crate) struct PodNames {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Pods, by id, prefix of the id, name or NAMESPACE/NAME
    #[arg(required = true, value_name = "POD")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull rmp`.
#[derive(Debug, Args)]
pub(crate) struct RemovePods {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Kill running containers first, without a grace period
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove all pods of this node, including those of the kubelet
    #[arg(short, long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Pods, by id, prefix of the id, name or NAMESPACE/NAME
    #[arg(required_unless_present = "all", value_name = "POD")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull runp`.
#[derive(Debug, Args)]
pub(crate) struct RunPod {
    /// Runtime handler, as a RuntimeClass names it
    #[arg(short, long, value_name = "HANDLER", default_value = "", hide_default_value = true)]
    pub(crate) runtime: String,
    /// PodSandboxConfig of CRI, in YAML or JSON
    pub(crate) pod_config: PathBuf,
}

/// Options of `hull metricsp`.
#[derive(Debug, Args)]
pub(crate) struct Metrics {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// Options of `hull port-forward`.
#[derive(Debug, Args)]
pub(crate) struct PortForward {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Address of the host to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) address: std::net::IpAddr,
    /// Pod, by id, prefix of the id, name or NAMESPACE/NAME
    pub(crate) pod: String,
    /// Ports of host and pod
    #[arg(required = true, value_name = "[HOST:]POD")]
    pub(crate) ports: Vec<String>,
}

/// Commands of `hull play`.
#[derive(Debug, Subcommand)]
pub(crate) enum Play {
    /// Run the pods of a Kubernetes manifest, or remove them with --down
    #[command(after_help = PLAY_HELP)]
    Kube(Kube),
}

/// Options of `hull play kube`.
#[derive(Debug, Args)]
pub(crate) struct Kube {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Remove the pods of the manifest
    #[arg(long, conflicts_with = "replace")]
    pub(crate) down: bool,
    /// Remove pods with the same names first
    #[arg(long)]
    pub(crate) replace: bool,
    /// Pod manifests, YAML or JSON, one or several documents; `-` is stdin
    pub(crate) file: PathBuf,
}
