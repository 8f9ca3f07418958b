// SPDX-License-Identifier: Apache-2.0
//! Fetches every Debian package that the tests' images are made of, for machines that have no network,
//! by making each image once. What is there already is left as it is.

use hull_tests::suite::images;
use hull_tests::{debian, fixture};

fn main() {
    let images = [
        fixture::busybox_image(),
        fixture::coreutils_image(),
        fixture::nginx_image(),
        fixture::terminal_programs_image(),
    ];
    for image in images {
        let _made = image.pack();
    }
    let _unpacked = debian::unpacked("coreutils");
    let _pushed = images::push_all(fixture::registry());
}
