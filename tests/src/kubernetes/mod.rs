// SPDX-License-Identifier: Apache-2.0
//! Kubernetes around Hull: real programs, built from their Go modules, on machines in namespaces.
//!
//! ```text
//! programs        kubelet, apiserver and the rest, as scripts/kubernetes builds them
//! machine         network, mount, UTS, IPC and PID namespaces with a PID 1, cgroups of its own
//! service         a program that runs on a machine
//! hull, kubelet   each on a machine
//! standalone      the fixture of tests: one machine with Hull and a kubelet that runs static pods
//! layout          names, addresses and options of the cluster that a host may have
//! control_plane   its hub: registry, etcd, API server, controllers, scheduler
//! worker          its nodes: Hull, kubelet, kube-proxy
//! images          the images that it runs
//! cluster         `make cluster`: all of it, up and down
//! e2e, bench      Kubernetes' own tests on it, and its figures
//! ```
//!
//! The rule: the host keeps nothing of it. A machine's processes, mounts and links end with its PID 1; its cgroups
//! and files are removed by the one who made the machine, or by the next that gets its number.

pub mod bench;
pub mod cgroups;
pub mod cluster;
pub mod control_plane;
pub mod e2e;
pub mod forward;
pub mod hull;
pub mod images;
pub mod kubelet;
pub mod layout;
pub mod machine;
pub mod pki;
pub mod programs;
pub mod service;
pub mod standalone;
pub mod sysctls;
pub mod worker;
