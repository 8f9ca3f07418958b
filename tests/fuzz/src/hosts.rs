// SPDX-License-Identifier: Apache-2.0
//! Settings of registries: `hosts.toml`.

/// Runs one case.
pub fn run(data: &[u8]) {
    hull_image::fuzz::hosts(&String::from_utf8_lossy(data));
}
