// SPDX-License-Identifier: Apache-2.0
//! All unsafe code and raw system calls of Hull, one wrapper per call.
//!
//! The rule kept here: every wrapper takes and gives owned or borrowed descriptors, names its man
//! page and first kernel, and fails with an [`Error`] that reads like a line of strace. Safe calls
//! that rustix has are used from rustix directly; [`Error::of`] gives their errors the same form.

#![allow(unsafe_code, reason = "this crate is where the unsafe code is")]

pub mod arch;
#[cfg(feature = "audit")]
pub mod audit;
pub mod budget;
mod clone;
mod disk;
mod error;
mod exec;
pub mod files;
pub mod filtered_calls;
pub mod heap;
mod inherited;
mod memfd;
mod mount;
pub mod netns;
mod pass_fd;
mod peer;
mod program;
mod pty;
pub mod quota;
mod removal;
mod resolve;
mod roots_alone;
mod security;
mod signals;
mod socket_path;
mod spawn;
mod syscall;
pub mod text;
pub mod time;
mod wiping;

pub use clone::{BirthSlot, ForkResult, clone3, flags, fork, fork_sibling, unshare};
pub use disk::lacks_inodes;
pub use error::{Error, Result, name_of};
pub use exec::{
    CStringArray, close_all_but, close_now, execve, execveat, execveat_with_number, exit_now,
};
pub use inherited::{reset_affinity, reset_inherited, set_affinity};
pub use memfd::{random, sealed_memfd};
pub use mount::{Attr, cut_power, mount_setattr};
pub use pass_fd::{receive_fd, send_fd};
pub use peer::{Peer, peer, peer_pidfd};
pub use program::{drop_code_pages, read_only_program};
pub use pty::{Pty, open_pty, open_pty_in, receive_master};
pub use removal::{remove_tree, remove_tree_at};
pub use resolve::{chmod_by_descriptor, open_in_root};
pub use roots_alone::roots_alone;
pub use security::{
    SchedAttr, bpf_cgroup_device, install_seccomp, install_seccomp_listener, ioprio_set,
    join_session_keyring, personality, sched_setattr, set_mempolicy, setrlimit,
};
pub use signals::{
    Reaped, block_all_signals, block_signals, controlling_terminal, exit_on_signals,
    ignore_terminal_stops, next_ended, next_signal, pidfd_send_signal, reap, reap_any,
    reset_signals, signals_by_descriptor,
};
pub use socket_path::{SocketFile, SocketPathError, listen_at};
pub use spawn::{inherited, spawn_program};
pub use syscall::Syscall;
pub use wiping::{Wiping, give_back_pages, give_back_stack};

/// Whether a test of the few that need root may run; fails where every test must (`TESTS_MUST_RUN=1`).
#[cfg(test)]
fn root_is_here(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let must = std::env::var("TESTS_MUST_RUN").is_ok_and(|value| value == "1");
    assert!(root || !must, "{test} must run here but lacks root");
    if !root {
        println!("NOT RUN: {test}: this machine lacks root");
    }
    root
}
