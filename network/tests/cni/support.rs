// SPDX-License-Identifier: Apache-2.0
//! A host with network plugins: its directories, and a plugin that obeys.
//!
//! The plugin is a script, installed under as many names as a test wants. It writes down every call
//! and its input, and then does what the file `<name>.<VERB>` says, a piece of shell; without one it
//! succeeds.

use hull_network::cni::{Config, Error};
use hull_network::{Bandwidth, Cni, Dns, Pod, PortMapping, Protocol, Request, RequestedNetwork};
use hull_sys::netns;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where Debian keeps the reference plugins.
pub(crate) const REFERENCE: &str = "/usr/lib/cni";

const OBEDIENT: &str = r#"#!/bin/sh
name=$(basename "$0")
here=$(dirname "$0")
input=$(cat)
if [ "$CNI_COMMAND" = VERSION ]; then
    spoken='"0.3.1","0.4.0","1.0.0","1.1.0"'
    [ -e "$here/$name.versions" ] && spoken=$(cat "$here/$name.versions")
    echo "{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[$spoken]}"
    exit 0
fi
printf '%s\n' "{\"verb\":\"$CNI_COMMAND\",\"plugin\":\"$name\",\"id\":\"$CNI_CONTAINERID\",\"if\":\"$CNI_IFNAME\",\"netns\":\"$CNI_NETNS\",\"args\":\"$CNI_ARGS\",\"path\":\"$CNI_PATH\",\"input\":$input}" >> "$here/calls"
[ -e "$here/$name.$CNI_COMMAND" ] && . "$here/$name.$CNI_COMMAND"
if [ "$CNI_COMMAND" = ADD ]; then
    echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"address\":\"10.9.0.7/24\",\"interface\":0}],\"dns\":{\"domain\":\"by-$name\"}}"
fi
exit 0
"#;

/// Whether the reference plugins are here. Said loudly when not, and an error where every test must run.
pub(crate) fn reference_plugins(programs: &[&str]) -> bool {
    let lacks: Vec<_> = programs.iter().filter(|of| !Path::new(of).is_file()).collect();
    if lacks.is_empty() {
        return true;
    }
    assert!(std::env::var_os("TESTS_MUST_RUN").is_none(), "{lacks:?} are missing");
    eprintln!(
        "NOT RUN: {lacks:?} are missing (apt-get install containernetworking-plugins iptables)"
    );
    false
}

/// One call of the obedient plugin.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) verb: String,
    pub(crate) plugin: String,
    pub(crate) netns: String,
    pub(crate) all: Value,
}

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cni: Cni,
}

impl Host {
    /// With plugins of these names that obey.
    pub(crate) fn with(plugins: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for name in plugins {
            let path = dir.path().join("bin").join(name);
            fs::write(&path, OBEDIENT).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let cni = Cni::open(Self::config(&dir)).unwrap();
        Self { dir, cni }
    }

    pub(crate) fn config(dir: &tempfile::TempDir) -> Config {
        Config {
            conf_dir: dir.path().join("net.d"),
            bin_dirs: vec![dir.path().join("bin"), REFERENCE.into()],
            networks_max: 1,
            conf_template: None,
            plugin_timeout: Duration::from_secs(20),
            netns_dir: dir.path().join("netns"),
            state_dir: dir.path().join("cni"),
        }
    }

    /// As after a restart of the daemon, with other settings.
    pub(crate) fn again(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = Self::config(&self.dir);
        change(&mut config);
        self.cni = Cni::open(config).unwrap();
    }

    pub(crate) fn conf(&self, name: &str, text: &str) {
        let dir = self.dir.path().join("net.d");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), text).unwrap();
    }

    /// A chain of plugins that obey.
    pub(crate) fn chain(&self, version: &str, plugins: &[&str]) {
        let of = |name: &&str| format!(r#"{{"type": "{name}"}}"#);
        let list: Vec<String> = plugins.iter().map(of).collect();
        let text = format!(
            r#"{{"cniVersion": "{version}", "name": "pods", "plugins": [{}]}}"#,
            list.join(",")
        );
        self.conf("10-pods.conflist", &text);
    }

    /// Sets the script that a plugin runs for this verb from now on.
    pub(crate) fn tell(&self, plugin: &str, verb: &str, shell: &str) {
        fs::write(self.bin(&format!("{plugin}.{verb}")), shell).unwrap();
    }

    pub(crate) fn untell(&self, plugin: &str, verb: &str) {
        fs::remove_file(self.bin(&format!("{plugin}.{verb}"))).unwrap();
    }

    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.dir.path().join("bin").join(name)
    }

    /// The calls since the last time, as `VERB plugin`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.called().iter().map(|of| format!("{} {}", of.verb, of.plugin)).collect()
    }

    pub(crate) fn called(&self) -> Vec<Called> {
        let path = self.bin("calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(path));
        let of = |line: &str| {
            let all: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| all[key].as_str().unwrap().to_owned();
            Called { verb: text("verb"), plugin: text("plugin"), netns: text("netns"), all }
        };
        text.lines().map(of).collect()
    }

    /// The leftovers of pods on the host: pinned namespaces and records.
    pub(crate) fn left(&self) -> Vec<String> {
        let names = |dir: &str| {
            let entries = fs::read_dir(self.dir.path().join(dir)).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir.path().to_str().unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(here)).map(str::to_owned);
        names("netns").into_iter().chain(names("cni")).chain(mounts).collect()
    }

    pub(crate) fn attach(&self, pod: &TestPod) -> Result<Vec<IpAddr>, hull_network::Error> {
        self.cni.attach(&Request {
            pod: Pod { id: &pod.id, short: &pod.id[..11] },
            namespace: "default",
            name: &pod.name,
            uid: "uid-1",
            netns: pod.netns.as_fd(),
            ports: &pod.ports,
            bandwidth: pod.bandwidth,
            dns: &pod.dns,
            cgroup: "/kubepods/pod1",
            annotations: &pod.annotations,
            network: pod.network.map_or(RequestedNetwork::Configured, RequestedNetwork::Cni),
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Of a test that failed.
        let dir = self.dir.path().join("netns");
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let _gone = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

pub(crate) struct TestPod {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) netns: OwnedFd,
    pub(crate) ports: Vec<PortMapping>,
    pub(crate) bandwidth: Bandwidth,
    pub(crate) dns: Dns,
    pub(crate) annotations: HashMap<String, String>,
    /// The name of the network that it asks for.
    pub(crate) network: Option<&'static str>,
}

impl TestPod {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            id: format!("{number:011x}{}", "0".repeat(53)),
            name: format!("pod-{number}"),
            netns: netns::create().unwrap(),
            ports: Vec::new(),
            bandwidth: Bandwidth::default(),
            dns: Dns::default(),
            annotations: HashMap::new(),
            network: None,
        }
    }

    pub(crate) fn with_port(number: u32, host_port: u16, container_port: u16) -> Self {
        let protocol = Protocol::Tcp;
        let port = PortMapping { protocol, container_port, host_port, host_ip: None };
        Self { ports: vec![port], ..Self::new(number) }
    }

    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(self.netns.as_fd(), work).unwrap()
    }
}

pub(crate) fn cni_error(err: hull_network::Error) -> Error {
    let hull_network::Error::Cni(source) = err else { panic!("not of plugins: {err}") };
    source
}

/// An error as people read it: with its causes and its hint.
pub(crate) fn sentence(err: &hull_network::Error) -> String {
    let mut text = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(of) = cause {
        text = format!("{text}: {of}");
        cause = of.source();
    }
    format!("{text} ({})", err.hint().unwrap_or_default())
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).output().unwrap();
    assert!(ran.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}
