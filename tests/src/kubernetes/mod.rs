// SPDX-License-Identifier: Apache-2.0
//! Kubernetes around Hull: real programs, built from their Go modules, on machines in namespaces.
//!
//! ```text
//! programs    kubelet, apiserver and the rest, as scripts/kubernetes builds them
//! machine     network, mount, UTS, IPC and PID namespaces with a PID 1, cgroups of its own
//! service     a program that runs on a machine
//! hull        `hull serve` on a machine
//! kubelet     a kubelet on a machine
//! standalone  the fixture of tests: one machine with Hull and a kubelet that runs static pods
//! ```
//!
//! The rule: the host keeps nothing of it. A machine's processes, mounts and links end with its PID 1; its cgroups
//! and files are removed by the one who made the machine, or by the next that gets its number.

pub mod cgroups;
pub mod forward;
pub mod hull;
pub mod kubelet;
pub mod machine;
pub mod programs;
pub mod service;
pub mod standalone;
pub mod sysctls;
