// SPDX-License-Identifier: Apache-2.0
//! The current run of the machine. Pages and containers of an earlier one are gone.

use hull_records::Location;
use std::path::Path;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Longest id that is read, in bytes: a UUID and the end of its line.
pub(super) const BOOT_ID_BYTES_MAX: u64 = 64;

/// The kernel's id of the current boot, random(4); `None` if it cannot be read.
pub(super) fn boot_id() -> Option<Vec<u8>> {
    Location::at(Path::new(BOOT_ID)).read(BOOT_ID_BYTES_MAX).ok()
}
