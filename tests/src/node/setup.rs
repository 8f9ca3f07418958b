// SPDX-License-Identifier: Apache-2.0
//! The number of a node, and everything that is derived from it: names on the host, configuration, cgroups.

use crate::expect::ExpectExt;
use crate::host::{self, Names};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

/// Numbers to choose from: the third byte of the subnet.
const NUMBERS: std::ops::Range<u8> = 1..250;

/// The cgroup driver of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Hull itself makes the cgroups.
    Cgroupfs,
    /// systemd makes them, where it is the init.
    Systemd,
}

impl Driver {
    /// The driver that `HULL_TEST_DRIVER` names, for runs of a whole suite; cgroupfs without it.
    #[must_use]
    pub fn of_the_run() -> Self {
        match std::env::var("HULL_TEST_DRIVER").as_deref() {
            Ok("systemd") => Self::Systemd,
            Ok("cgroupfs") | Err(_) => Self::Cgroupfs,
            Ok(other) => panic!("HULL_TEST_DRIVER is cgroupfs or systemd, not {other}"),
        }
    }

    /// As it stands in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// A number that no other running test has.
pub(super) fn claim() -> (u8, UnixListener) {
    for number in NUMBERS {
        let name = SocketAddr::from_abstract_name(format!("hull-test-node-{number}"))
            .or_fail("make a name");
        // The kernel gives the name free when the process ends, however it ends.
        if let Ok(listener) = UnixListener::bind_addr(&name) {
            return (number, listener);
        }
    }
    panic!("all numbers for test nodes are taken: {NUMBERS:?}")
}

pub(super) fn names(number: u8, driver: Driver) -> Names {
    Names {
        root: PathBuf::from(format!("/var/tmp/hlt{number}")),
        cgroup: match driver {
            Driver::Cgroupfs => format!("/hull-test-{number}"),
            Driver::Systemd => format!("/hulltest{number}.slice"),
        },
        daemon_cgroup: format!("/hull-testd-{number}"),
        bridge: format!("hlt{number}"),
        table: format!("hulltest{number}"),
    }
}

/// The directory of the daemon's own cgroup: in the v2 hierarchy, else in the one for pids.
pub(super) fn daemon_cgroup_dir(names: &Names) -> PathBuf {
    let hierarchies = host::hierarchies();
    let v2 = hierarchies.iter().find(|dir| dir.join("cgroup.controllers").is_file());
    let pids = || hierarchies.iter().find(|dir| dir.ends_with("pids"));
    let dir = v2.or_else(pids).or_fail("find a cgroup hierarchy with pids");
    dir.join(names.daemon_cgroup.trim_start_matches('/'))
}

pub(super) fn config(number: u8, names: &Names, driver: Driver, network: &str) -> String {
    let at = |dir: &str| names.root.join(dir).display().to_string();
    // The default would use network plugins where the machine has some.
    let mode = if network.contains("mode =") { "" } else { "mode = \"bridge\"\n" };
    let subnet = if network.contains("pod_cidr") {
        String::new()
    } else {
        format!("pod_cidr = [\"10.213.{number}.0/24\"]\n")
    };
    format!(
        "state_dir = {state:?}\ndata_dir = {data:?}\nsocket = {socket:?}\n\
         [log]\nlevel = \"debug\"\n\
         [cgroup]\ndriver = {driver:?}\nparent = {cgroup:?}\n\
         [network]\n{mode}bridge = {bridge:?}\n{subnet}table = {table:?}\n{network}\n\
         [nri]\nsocket = {nri:?}\nplugin_path = {plugins:?}\nplugin_config_path = {plugins:?}\n\
         [runtime]\nseccomp_root = {seccomp:?}\ncdi_spec_dirs = [{cdi:?}]\n",
        state = at("state"),
        data = at("data"),
        socket = at("hull.sock"),
        seccomp = at("seccomp"),
        driver = driver.name(),
        cgroup = match driver {
            Driver::Cgroupfs => &names.cgroup,
            Driver::Systemd => names.cgroup.trim_start_matches('/'),
        },
        nri = at("nri.sock"),
        cdi = at("cdi"),
        plugins = at("plugins"),
        bridge = names.bridge,
        table = names.table,
    )
}
