// SPDX-License-Identifier: Apache-2.0
//! OCI runtime spec to plan: a flat list of operations, decided here, carried out by `hull-init`.
//!
//! Pure: what is known of the host comes in as [`HostFacts`]. What cannot be done is refused here,
//! by name; nothing that was asked for is dropped. Also here, because it is the other side of the
//! same knowledge: what a failed step means ([`describe`]), and what kind of file a program is
//! ([`elf`]).

pub mod accounts;
mod build;
mod capabilities;
pub mod defaults;
mod describe;
pub mod elf;
mod error;
mod hooks;
mod host;
mod limits;
mod mounts;
mod process;
mod refuse;
mod schedule;
pub mod seccomp;

pub use build::{Options, Root, check_sysctl, plan};
pub use capabilities::capability_names;
pub use describe::{Failure, Layer, describe, describe_pause, describe_process, is_exec, is_gone};
pub use error::Error;
pub use hooks::hooks;
pub use host::HostFacts;
pub use hull_cgroup::Limits;
pub use hull_init::plan::{Cgroup, IdMap, IdMaps, Namespace, Namespaces, Source};
pub use hull_init::{PausePlan, Plan, Process, Step, StepError};
pub use limits::limits;
pub use process::{Template, process};

/// A plan, process or limits as they travel to a monitor.
#[must_use]
pub fn encode<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    // Writing to memory fails only for collections longer than 4 GiB.
    borsh::to_vec(value).unwrap_or_default()
}

/// A plan as [`encode`] gives it. `None` when it is another version's, or cut short.
#[must_use]
pub fn decode_plan(bytes: &[u8]) -> Option<Plan> {
    borsh::from_slice(bytes).ok()
}

/// A step's error as a monitor sends it.
#[must_use]
pub fn decode_step(bytes: &[u8]) -> Option<StepError> {
    borsh::from_slice(bytes).ok()
}
