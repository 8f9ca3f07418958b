// SPDX-License-Identifier: Apache-2.0
//! The CRI edge: requests in, checked; commands to pods' tasks; snapshots out as CRI messages.
//!
//! Verbs are grouped by subject. Nothing here holds state or touches the host; nothing
//! below this room knows gRPC.

pub(crate) mod admin;
mod cadvisor;
mod container;
mod convert;
mod diagnose;
mod events;
mod filter;
mod image;
mod names;
mod network_status;
mod pagination;
mod pulls;
mod runtime;
mod sandbox;
mod service;
mod settings;
pub(crate) mod status;
mod stream;
mod termination;

pub(crate) use service::Cri;
