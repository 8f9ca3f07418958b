// SPDX-License-Identifier: Apache-2.0
//! A network namespace in place of the host, for the tests of both kinds of networks.

use hull_sys::netns;
use std::os::fd::AsFd as _;

/// Runs a test inside a fresh namespace that stands for the host.
pub(crate) fn on_a_host(test: impl FnOnce() + Send) {
    let host = match netns::create() {
        Ok(host) => host,
        Err(err) => {
            assert!(
                std::env::var_os("TESTS_MUST_RUN").is_none(),
                "cannot make a network namespace: {err}"
            );
            eprintln!("NOT RUN: cannot make a network namespace: {err} (run as root)");
            return;
        }
    };
    hull_network::loopback_up(host.as_fd()).unwrap();
    netns::within(host.as_fd(), test).unwrap();
}
