// SPDX-License-Identifier: Apache-2.0
//! A plan in, a process out.

pub mod plan;

pub use plan::{PausePlan, Plan, Process, Step, StepError};
