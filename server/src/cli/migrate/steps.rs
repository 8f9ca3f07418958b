// SPDX-License-Identifier: Apache-2.0
//! The steps that change the node, and the way back, as commands for a person. Pure.

use super::super::args::migrate::Runtime;
use super::kubelet::{ENVIRONMENT, Kubelet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The drop-in that points the kubelet at Hull. The way back is to remove it.
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/90-hull.conf";
const CRICTL: &str = "/etc/crictl.yaml";
/// The annotation in which kubeadm keeps the endpoint.
const ANNOTATION: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

/// All that the steps depend on.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    pub(crate) runtime: Runtime,
    /// The socket of the other runtime, if its configuration names one.
    pub(crate) peer: Option<&'a str>,
    pub(crate) kubelet: &'a Kubelet,
    pub(crate) socket: &'a Path,
    /// Each file's own path, and the one that it got.
    pub(crate) placed: &'a [(PathBuf, PathBuf)],
    /// Whether all images are there.
    pub(crate) has_images: bool,
}

impl Steps<'_> {
    /// The commands, in their order.
    pub(crate) fn text(&self) -> String {
        let (name, endpoint) = (self.runtime.name(), self.endpoint());
        let mut out =
            String::from("\nThe steps, on this node but for kubectl (NODE is its name):\n\n");
        let mut add = |line: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {line}");
        };
        add("kubectl drain NODE --ignore-daemonsets --delete-emptydir-data");
        add("systemctl stop kubelet");
        // The settings of crictl may name Hull already.
        add(&format!("crictl --runtime-endpoint {} rmp --force --all", self.peer_endpoint()));
        add(&format!("systemctl disable --now {name}"));
        add("systemctl enable --now hull.socket hull.service");
        add("hull check");
        if !self.has_images {
            add(&format!("hull migrate --from {name} --only images"));
        }
        for line in self.point_kubelet(&endpoint) {
            add(&line);
        }
        if let Some(new) = self.crictl_beside() {
            add(&format!("mv {CRICTL} {CRICTL}.{name} && mv {new} {CRICTL}"));
        }
        add("systemctl daemon-reload && systemctl start kubelet");
        if self.kubelet.is_of_kubeadm {
            add(&format!("kubectl annotate node NODE --overwrite {ANNOTATION}={endpoint}"));
        }
        add("kubectl uncordon NODE");
        out.push_str("\nThe way back:\n\n");
        for line in self.back() {
            let _ = writeln!(out, "  {line}");
        }
        out
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The endpoint of the other runtime, as one word of a shell.
    fn peer_endpoint(&self) -> String {
        let usual = match self.runtime {
            Runtime::Containerd => "/run/containerd/containerd.sock",
            Runtime::Crio => "/var/run/crio/crio.sock",
        };
        let endpoint = format!("unix://{}", self.peer.unwrap_or(usual));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/._-".contains(c);
        if endpoint.chars().all(is_plain) {
            return endpoint;
        }
        let escaped: String = endpoint.chars().filter(|c| !c.is_control()).collect();
        format!("'{}'", escaped.replace('\'', "'\\''"))
    }

    /// Points the kubelet at Hull: by a drop-in if its unit passes further flags on.
    fn point_kubelet(&self, endpoint: &str) -> Vec<String> {
        if let Some(environment) = self.placed_at(ENVIRONMENT) {
            let directory = Path::new(DROP_IN).parent().unwrap_or(Path::new("/"));
            return vec![
                format!("mkdir -p {}", directory.display()),
                format!(
                    "printf '[Service]\\nEnvironmentFile={}\\n' > {DROP_IN}",
                    environment.display()
                ),
            ];
        }
        if self.kubelet.endpoints.is_empty() {
            return vec![format!(
                "# start the kubelet with --container-runtime-endpoint={endpoint}"
            )];
        }
        let change = |(place, _): &(String, String)| format!("# set to {endpoint}: {place}");
        self.kubelet.endpoints.iter().map(change).collect()
    }

    fn back(&self) -> Vec<String> {
        let name = self.runtime.name();
        let mut lines = vec![
            "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data".into(),
            "systemctl stop kubelet".into(),
            "hull rm --force --all".into(),
            "systemctl disable --now hull.socket hull.service".into(),
            format!("systemctl enable --now {name}"),
        ];
        if self.placed_at(ENVIRONMENT).is_some() {
            lines.push(format!("rm {DROP_IN}"));
        } else {
            let before = |(place, value): &(String, String)| format!("# set to {value}: {place}");
            lines.extend(self.kubelet.endpoints.iter().map(before));
        }
        if self.crictl_beside().is_some() {
            lines.push(format!("mv {CRICTL}.{name} {CRICTL}"));
        } else if self.placed_at(CRICTL).is_some() {
            lines.push(format!("rm {CRICTL}"));
        }
        lines.push("systemctl daemon-reload && systemctl start kubelet".into());
        if self.kubelet.is_of_kubeadm {
            let before = self.kubelet.endpoints.first().map_or("ENDPOINT", |(_, value)| value);
            lines.push(format!("kubectl annotate node NODE --overwrite {ANNOTATION}={before}"));
        }
        lines.push("kubectl uncordon NODE".into());
        lines
    }

    fn placed_at(&self, path: &str) -> Option<&Path> {
        let found = self.placed.iter().find(|(own, _)| own == Path::new(path));
        found.map(|(_, placed)| placed.as_path())
    }

    /// The new settings of crictl, if they are beside others.
    fn crictl_beside(&self) -> Option<String> {
        let placed = self.placed_at(CRICTL)?;
        (placed != Path::new(CRICTL)).then(|| placed.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kubelet: &Kubelet, placed: &[(PathBuf, PathBuf)], has_images: bool) -> String {
        let socket = Path::new("/run/hull/hull.sock");
        let peer = Some("/run/other crio.sock");
        Steps { runtime: Runtime::Crio, peer, kubelet, socket, placed, has_images }.text()
    }

    #[test]
    fn a_node_of_kubeadm_gets_a_drop_in_and_the_way_back_removes_it() {
        let kubelet = Kubelet {
            endpoints: vec![("flags".into(), "unix:///run/crio/crio.sock".into())],
            has_extra_args: true,
            is_of_kubeadm: true,
            ..Kubelet::default()
        };
        let placed = [
            (ENVIRONMENT.into(), PathBuf::from("/etc/hull/kubelet.env.hull")),
            (CRICTL.into(), PathBuf::from("/etc/crictl.yaml.hull")),
        ];
        let text = text(&kubelet, &placed, false);
        let (forward, back) = text.split_once("The way back").unwrap();
        for line in [
            "crictl --runtime-endpoint 'unix:///run/other crio.sock' rmp --force --all\n",
            "systemctl disable --now crio\n",
            "hull migrate --from crio --only images\n",
            "printf '[Service]\\nEnvironmentFile=/etc/hull/kubelet.env.hull\\n' > ",
            "mv /etc/crictl.yaml /etc/crictl.yaml.crio && mv /etc/crictl.yaml.hull /etc/crictl.yaml\n",
            "cri-socket=unix:///run/hull/hull.sock\n",
        ] {
            assert!(forward.contains(line), "{line}: {text}");
        }
        for line in [
            "rm /etc/systemd/system/kubelet.service.d/90-hull.conf\n",
            "mv /etc/crictl.yaml.crio /etc/crictl.yaml\n",
            "cri-socket=unix:///run/crio/crio.sock\n",
        ] {
            assert!(back.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn another_node_is_changed_where_its_endpoint_is() {
        let mut kubelet = Kubelet {
            endpoints: vec![("/k.yaml containerRuntimeEndpoint".into(), "unix:///old".into())],
            ..Kubelet::default()
        };
        let with_place = text(&kubelet, &[], true);
        assert!(
            with_place.contains("# set to unix:///run/hull/hull.sock: /k.yaml"),
            "{with_place}"
        );
        assert!(with_place.contains("# set to unix:///old: /k.yaml"), "{with_place}");
        assert!(!with_place.contains("--only images"), "{with_place}");
        let crictl = [(CRICTL.into(), PathBuf::from(CRICTL))];
        let created = text(&kubelet, &crictl, true);
        let (_, back) = created.split_once("The way back").unwrap();
        assert!(back.contains("rm /etc/crictl.yaml\n"), "{back}");
        kubelet.endpoints.clear();
        let without = text(&kubelet, &[], true);
        assert!(without.contains("# start the kubelet with --container-runtime-endpoint=unix:"));
    }
}
