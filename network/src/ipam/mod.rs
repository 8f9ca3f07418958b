// SPDX-License-Identifier: Apache-2.0
//! Addresses and host ports of pods: the allocator in memory, and leases on disk.

mod allocator;
mod interval_set;
mod leases;
mod subnet;

pub(crate) use allocator::{Ipam, Lease};
pub(crate) use leases::Leases;
pub(crate) use subnet::{Subnet, gateway_nets};
