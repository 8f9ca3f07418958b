// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes, layouts, configs and signatures, as registries send them.

/// Runs one case.
pub fn run(data: &[u8]) {
    hull_image::fuzz::documents(data);
}
