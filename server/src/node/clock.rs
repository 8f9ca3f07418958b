// SPDX-License-Identifier: Apache-2.0
//! The clock of records, events and statistics.

pub(crate) use hull_sys::time::now_ns;
