// SPDX-License-Identifier: Apache-2.0
//! OCI runtime spec to plan: a flat list of operations, decided here, carried out by `hull-init`.
//!
//! Pure: facts about the host come in as [`HostFacts`]. An unsupported field is refused by name; no requested field
//! is ignored. Also here, because it needs the same knowledge: the diagnosis of a failed step ([`diagnose`]), and
//! the file type of a program ([`elf`]).

pub mod accounts;
mod build;
pub mod capabilities;
pub mod defaults;
mod diagnose;
mod diagnosis;
pub mod elf;
mod error;
mod failure;
mod further;
mod hooks;
mod host;
mod id_maps;
mod limits;
mod mount_options;
mod mounts;
mod nearest;
mod own_limit;
mod process;
mod refused_call;
mod schedule;
pub mod seccomp;
pub mod signals;
mod sysctls;
mod unsupported;
mod values;

pub use build::{Options, Root, plan};
pub use diagnose::{
    diagnose, diagnose_pause, diagnose_process, is_exec, is_gone, is_killed_before_exec, is_memory,
};
pub use diagnosis::{Certainty, Diagnosis, LastLines};
pub use error::Error;
pub use failure::{Failure, Layer};
pub use further::take_further_limits;
pub use hooks::{cut_short, hook_hint, hooks, name_files, refused_by_filter};
pub use host::HostFacts;
pub use hull_cgroup::{FurtherLimits, Limits};
pub use hull_init::hook_process::{HOOKS as HOOKS_FILE, OWED as OWED_FILE};
pub use hull_init::plan::{Cgroup, IdMap, IdMaps, Namespace, Namespaces, Op, Source};
pub use hull_init::to_host_id;
pub use hull_init::{HookKind, Hooks};
pub use hull_init::{PausePlan, Phase, Plan, Process, Step, StepError};
pub use limits::limits;
pub use mounts::clean;
pub use process::{Template, process};
pub use schedule::{cpu_mask, scheduling};
pub use seccomp::check_start;
pub use sysctls::check_sysctl;
pub use values::{check_process, check_resources, check_values};

/// Encodes a plan, process or limits as a monitor gets them.
#[must_use]
pub fn encode<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    // Writing to memory fails only for collections longer than 4 GiB.
    borsh::to_vec(value).unwrap_or_default()
}

/// Decodes a plan of [`encode`]. `None` if it has another version, or is truncated.
#[must_use]
pub fn decode_plan(bytes: &[u8]) -> Option<Plan> {
    borsh::from_slice(bytes).ok()
}

/// Decodes hooks of [`encode`]. `None` if they have another version, or are truncated.
#[must_use]
pub fn decode_hooks(bytes: &[u8]) -> Option<Hooks> {
    borsh::from_slice(bytes).ok()
}

/// Decodes a step's error as a monitor sends it.
#[must_use]
pub fn decode_step(bytes: &[u8]) -> Option<StepError> {
    borsh::from_slice(bytes).ok()
}
