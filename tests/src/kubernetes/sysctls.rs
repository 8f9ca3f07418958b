// SPDX-License-Identifier: Apache-2.0
//! The kernel settings that a kubelet writes when it starts. They are the whole host's, so they are put back.
//!
//! The list is `setupKernelTunables` of k8s.io/kubernetes/pkg/kubelet/cm. A kubelet writes each once, so they can be
//! put back as soon as all have its values. Kubelets that tests start take turns until then, or one would take the
//! values of another for those of the host.

use super::service::Service;
use crate::eventually;
use crate::expect::ExpectExt;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

/// Files below /proc/sys, and the kubelet's values.
const WRITTEN: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Longest that a kubelet may take to write them; it first connects to the runtime.
const START_MAX: Duration = Duration::from_secs(60);

/// The host's values, put back when this is dropped.
#[derive(Debug)]
struct Saved(Vec<(&'static str, String)>);

/// Starts a kubelet by `start`, and returns when it has written the settings and they are put back.
pub fn kept(start: impl FnOnce() -> Service) -> Service {
    let _turn = turn();
    let saved = Saved(WRITTEN.map(|(name, _)| (name, read(name))).into());
    let mut kubelet = start();
    let written = eventually::blocking(eventually::with_long_timeout(START_MAX), || {
        kubelet.assert_running();
        let mut others = WRITTEN.iter().filter(|(name, value)| read(name) != *value);
        others.next().map_or(Ok(()), |(name, _)| Err(format!("{name} is {}", read(name))))
    });
    drop(saved);
    if let Err(last) = written {
        panic!("the kubelet did not start its container manager: {last}; {}", kubelet.last_lines());
    }
    kubelet
}

/// Waits until no other process starts a kubelet; held as long as the socket is open.
fn turn() -> UnixListener {
    let name = SocketAddr::from_abstract_name("hull-tests-kubelet-starts").or_fail("make a name");
    let most = eventually::with_long_timeout(START_MAX * 4);
    let bound = eventually::blocking(most, || {
        UnixListener::bind_addr(&name).map_err(|err| err.to_string())
    });
    bound.map_err(std::io::Error::other).or_fail("wait for the turn to start a kubelet")
}

fn read(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).or_fail(format!("read {name}"));
    text.trim().to_owned()
}

impl Drop for Saved {
    fn drop(&mut self) {
        for (name, value) in &self.0 {
            if read(name) != *value {
                let path = format!("/proc/sys/{name}");
                fs::write(&path, value).or_fail(format!("write {path}"));
            }
        }
    }
}
