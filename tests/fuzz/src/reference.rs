// SPDX-License-Identifier: Apache-2.0
//! Names of images, and what registries say that they want.

/// Runs one case.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    hull_image::fuzz::reference(&text);
    hull_image::fuzz::challenge(&text);
    hull_image::fuzz::responses(&text);
}
