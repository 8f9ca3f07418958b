// SPDX-License-Identifier: Apache-2.0
//! The daemon as a process: its start, its sockets, its service manager, and its end. The topmost room: nothing
//! else in the crate uses it.

mod call_log;
mod call_memory;
mod config_watch;
mod connection;
mod directories;
mod dump;
mod free_memory;
mod gc;
mod in_flight;
mod measured;
mod metrics_server;
mod network_claim;
mod reload;
mod run;
mod service;
mod signals;
mod socket;
mod stop_requests;
mod timelines;
mod timeout;

pub(crate) use run::{serve, shown};
