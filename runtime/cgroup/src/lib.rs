// SPDX-License-Identifier: Apache-2.0
//! cgroups: limits, devices, counters, killing. v2 first; v1 and hybrid hosts too.

mod limits;

pub use limits::{DeviceKind, DeviceRule, HugepageLimit, Limits};
