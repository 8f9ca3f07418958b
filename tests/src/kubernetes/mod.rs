// SPDX-License-Identifier: Apache-2.0
//! Kubernetes around Hull: real programs, built from their Go modules, on machines in namespaces.
//!
//! ```text
//! programs        kubelet, apiserver and the rest, as scripts/kubernetes builds them
//! machine         network, mount, UTS, IPC and PID namespaces with a PID 1, cgroups of its own
//! service         a program that runs on a machine
//! hull, kubelet   each on a machine; containerd, to compare
//! standalone      the fixture of tests: one machine with Hull and a kubelet that runs static pods
//! layout          names, addresses and options of the cluster that a host may have
//! control_plane   its hub: registry, etcd, API server, controllers, scheduler
//! worker          its nodes: Hull, kubelet, kube-proxy
//! images          the images that it runs
//! flannel         a network of pods that users install
//! cluster         `make cluster`: all of it, up and down
//! ginkgo, page    runs suites of Kubernetes; docs/conformance-kubernetes.md
//! e2e, gates      Kubernetes' own tests on the cluster; feature gates one by one
//! e2e_node        the suite for one node
//! runtime_class   pods of runtime handlers on the cluster
//! api             the API server, as its figures need it
//! bench, figures  its figures, and a table of several runtimes
//! ```
//!
//! The rule: the host keeps nothing of it. A machine's processes, mounts and links end with its PID 1; its cgroups
//! and files are removed by the one who made the machine, or by the next that gets its number.

pub mod api;
pub mod bench;
pub mod cgroups;
pub mod cluster;
pub mod containerd;
pub mod control_plane;
pub mod e2e;
pub mod e2e_node;
pub mod figures;
pub mod flannel;
pub mod forward;
pub mod gates;
pub mod ginkgo;
pub mod hull;
pub mod images;
pub mod kubelet;
pub mod layout;
pub mod machine;
pub mod page;
pub mod pki;
pub mod programs;
pub mod runtime_class;
pub mod service;
pub mod standalone;
pub mod sysctls;
pub mod worker;
