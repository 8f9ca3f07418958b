// SPDX-License-Identifier: Apache-2.0
//! The kubelet's side: where its flags and its configuration name the runtime, its cgroup driver, its root.
//!
//! ```text
//! units and drop-ins of systemd ─ ExecStart, Environment ─┐
//! /var/lib/kubelet/kubeadm-flags.env ─────────────────────┼─ flags
//! /etc/default/kubelet, /etc/sysconfig/kubelet ───────────┘
//! /var/lib/kubelet/config.yaml, instance-config.yaml, the file of --config
//! ```

use super::super::error::Result;
use super::findings::{Findings, NewFile};
use super::root::Root;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Directories of units, a later one over an earlier one.
const UNITS: [&str; 3] = ["/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system"];
/// Files with variables of the unit, and the one that kubeadm writes.
const ENVIRONMENTS: [&str; 3] =
    ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"];
const CONFIGS: [&str; 2] =
    ["/var/lib/kubelet/config.yaml", "/var/lib/kubelet/instance-config.yaml"];
/// The variable of kubeadm's unit that comes last on the command line, and so wins.
const EXTRA: &str = "KUBELET_EXTRA_ARGS";
/// The file that gives it the endpoint of Hull.
pub(crate) const ENVIRONMENT: &str = "/etc/hull/kubelet.env";
/// The file of crictl's settings.
const CRICTL: &str = "/etc/crictl.yaml";

/// The settings of the kubelet that concern its runtime.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Kubelet {
    /// Places that name the endpoint of the runtime or of its images, and what they name.
    pub(crate) endpoints: Vec<(String, String)>,
    pub(crate) cgroup_driver: Option<String>,
    pub(crate) cgroup_root: Option<String>,
    pub(crate) root_dir: Option<String>,
    /// A directory with parts of its configuration.
    pub(crate) config_dir: Option<PathBuf>,
    /// Whether its images come from another endpoint, which then has to change as well.
    pub(crate) has_image_endpoint: bool,
    /// Whether a unit passes the variable of further flags on.
    pub(crate) has_extra_args: bool,
    /// The value of that variable.
    pub(crate) extra_args: Option<String>,
    /// Whether kubeadm set the node up.
    pub(crate) is_of_kubeadm: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Yaml {
    container_runtime_endpoint: Option<String>,
    image_service_endpoint: Option<String>,
    cgroup_driver: Option<String>,
    cgroup_root: Option<String>,
}

/// Reads the settings of the kubelet.
///
/// # Errors
/// A file cannot be read, or is not in its form.
pub(crate) fn read(root: &Root) -> Result<Kubelet> {
    let mut kubelet = Kubelet::default();
    let mut configs: Vec<PathBuf> = CONFIGS.map(PathBuf::from).into();
    for path in units(root)? {
        let Some(text) = root.text(&path)? else { continue };
        kubelet.has_extra_args |= [format!("${EXTRA}"), format!("${{{EXTRA}}}")]
            .iter()
            .any(|use_of| text.contains(use_of));
        let lines = text.lines().map(str::trim);
        for line in
            lines.filter(|of| of.starts_with("ExecStart=") || of.starts_with("Environment="))
        {
            kubelet.flags(&path, line, &mut configs);
        }
    }
    for path in ENVIRONMENTS.map(Path::new) {
        let Some(text) = root.text(path)? else { continue };
        kubelet.is_of_kubeadm |= path.ends_with("kubeadm-flags.env");
        for (name, value) in text.lines().filter_map(variable) {
            if name == EXTRA {
                kubelet.extra_args = Some(value.to_owned());
            }
            kubelet.flags(path, value, &mut configs);
        }
    }
    if let Some(directory) = kubelet.config_dir.clone() {
        let names = root.names(&directory)?;
        configs
            .extend(names.iter().filter(|of| of.ends_with(".conf")).map(|of| directory.join(of)));
    }
    // The last one wins, so it is read first.
    for path in configs.into_iter().rev() {
        if let Some(text) = root.text(&path)? {
            kubelet.yaml(root, &path, &text)?;
        }
    }
    Ok(kubelet)
}

/// The units of the kubelet and their drop-ins.
fn units(root: &Root) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for directory in UNITS.map(Path::new) {
        all.push(directory.join("kubelet.service"));
        let drop_ins = directory.join("kubelet.service.d");
        let names = root.names(&drop_ins)?;
        all.extend(names.iter().filter(|of| of.ends_with(".conf")).map(|of| drop_ins.join(of)));
    }
    Ok(all)
}

/// The name and the value of a line `NAME="value"`.
fn variable(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let unquoted = value.strip_prefix(['"', '\'']).and_then(|of| of.strip_suffix(['"', '\'']));
    is_name.then_some((name, unquoted.unwrap_or(value)))
}

impl Kubelet {
    /// Takes the flags in a line: `--name=value` and `--name value`.
    fn flags(&mut self, path: &Path, line: &str, configs: &mut Vec<PathBuf>) {
        let mut words = line.split([' ', '\t', '"', '\'']).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            // The first word may stand behind the name of its variable.
            let Some(at) = word.find("--") else { continue };
            let flag = &word[at + 2..];
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if FLAGS.contains(&flag) => {
                    (flag, words.next().unwrap_or_default().to_owned())
                }
                None => continue,
            };
            match name {
                "container-runtime-endpoint" => {
                    self.endpoints.push((format!("{} --{name}", path.display()), value));
                }
                "image-service-endpoint" => {
                    self.has_image_endpoint = true;
                    self.endpoints.push((format!("{} --{name}", path.display()), value));
                }
                "cgroup-driver" => self.cgroup_driver = Some(value),
                "cgroup-root" => self.cgroup_root = Some(value),
                "root-dir" => self.root_dir = Some(value),
                "config-dir" => self.config_dir = Some(value.into()),
                "config" if !configs.iter().any(|of| *of == Path::new(&value)) => {
                    configs.push(value.into());
                }
                _ => {}
            }
        }
    }

    fn yaml(&mut self, root: &Root, path: &Path, text: &str) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let parsed: Yaml = serde_saphyr::from_str(text)
            .map_err(|err| root.unusable(path, &err.without_snippet().to_string()))?;
        let place = |key: &str| format!("{} {key}", path.display());
        if let Some(endpoint) = parsed.container_runtime_endpoint.filter(|of| !of.is_empty()) {
            self.endpoints.push((place("containerRuntimeEndpoint"), endpoint));
        }
        if let Some(endpoint) = parsed.image_service_endpoint.filter(|of| !of.is_empty()) {
            self.has_image_endpoint = true;
            self.endpoints.push((place("imageServiceEndpoint"), endpoint));
        }
        // Flags win over files, and files that were read before over this one.
        let set = |of: &mut Option<String>, value: Option<String>| {
            *of = of.take().or(value.filter(|value| !value.is_empty()));
        };
        set(&mut self.cgroup_driver, parsed.cgroup_driver);
        set(&mut self.cgroup_root, parsed.cgroup_root);
        Ok(())
    }

    /// Adds the settings of Hull that follow from the kubelet's, and the files that it and crictl need.
    ///
    /// # Errors
    /// crictl's file cannot be read.
    pub(crate) fn apply(&self, root: &Root, socket: &Path, found: &mut Findings) -> Result<()> {
        let own = found.settings.get("cgroup.driver").map(|of| of.value.clone());
        match (&self.cgroup_driver, own) {
            (Some(driver), Some(own)) if own != toml::Value::from(driver.as_str()).to_string() => {
                let why = format!(
                    "the runtime has {own}: make both the same, or leave the kubelet's unset; a kubelet adopts the \
                     driver of its runtime"
                );
                found.lost(&format!("cgroupDriver {driver} of the kubelet"), why);
            }
            (Some(driver), None) => {
                found.set("cgroupDriver of the kubelet", "cgroup.driver", &driver.as_str().into());
            }
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        if self.cgroup_root.is_some() {
            found.same(
                "cgroupRoot of the kubelet",
                "the kubelet names the parent cgroup of each pod",
            );
        }
        if let Some(directory) = &self.root_dir {
            let seccomp = Path::new(directory).join("seccomp").display().to_string();
            found.set("--root-dir of the kubelet", "runtime.seccomp_root", &seccomp.into());
        }
        let endpoint = format!("unix://{}", socket.display());
        if self.has_extra_args {
            let mut words: Vec<String> = self.extra_args.iter().cloned().collect();
            words.push(format!("--container-runtime-endpoint={endpoint}"));
            if self.has_image_endpoint {
                words.push(format!("--image-service-endpoint={endpoint}"));
            }
            let text = format!("{EXTRA}=\"{}\"\n", words.join(" ").replace('"', "\\\""));
            found.files.push(NewFile { path: ENVIRONMENT.into(), text });
        }
        let text = root.text(Path::new(CRICTL))?.unwrap_or_default();
        let text = crictl(&text, &endpoint);
        found.files.push(NewFile { path: CRICTL.into(), text });
        Ok(())
    }
}

/// The flags whose value may be the next word.
const FLAGS: [&str; 7] = [
    "config-dir",
    "container-runtime-endpoint",
    "image-service-endpoint",
    "cgroup-driver",
    "cgroup-root",
    "root-dir",
    "config",
];

/// crictl's settings with other endpoints. All else stays.
fn crictl(text: &str, endpoint: &str) -> String {
    let is_endpoint =
        |line: &&str| line.starts_with("runtime-endpoint:") || line.starts_with("image-endpoint:");
    let mut out = format!("runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\n");
    for line in text.lines().filter(|line| !is_endpoint(line)) {
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    const DROP_IN: &str = "[Service]\n\
        Environment=\"KUBELET_CONFIG_ARGS=--config=/srv/kubelet.yaml\"\n\
        EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
        ExecStart=\n\
        ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n";

    #[test]
    fn flags_and_files_of_a_kubeadm_node_are_read() {
        let (_dir, root) = node(&[
            ("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", DROP_IN),
            (
                "var/lib/kubelet/kubeadm-flags.env",
                "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///a --pod-infra-container-image=p\"\n",
            ),
            (
                "etc/default/kubelet",
                "KUBELET_EXTRA_ARGS=--root-dir /srv/kubelet --config-dir=/srv/d\n",
            ),
            (
                "srv/kubelet.yaml",
                "kind: KubeletConfiguration\ncgroupDriver: systemd\ncgroupRoot: /first\n",
            ),
            ("srv/d/90-root.conf", "cgroupRoot: /k\n"),
            ("var/lib/kubelet/instance-config.yaml", "containerRuntimeEndpoint: unix:///b\n"),
            ("etc/crictl.yaml", "runtime-endpoint: unix:///a\ntimeout: 7\n"),
        ]);
        let kubelet = read(&root).unwrap();
        let values: Vec<&str> = kubelet.endpoints.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["unix:///a", "unix:///b"]);
        assert_eq!(kubelet.cgroup_driver.as_deref(), Some("systemd"));
        assert_eq!(kubelet.cgroup_root.as_deref(), Some("/k"));
        assert_eq!(kubelet.root_dir.as_deref(), Some("/srv/kubelet"));
        assert!(kubelet.has_extra_args && kubelet.is_of_kubeadm && !kubelet.has_image_endpoint);
        let mut found = Findings::default();
        kubelet.apply(&root, Path::new("/run/hull/hull.sock"), &mut found).unwrap();
        assert_eq!(found.settings["cgroup.driver"].value, "\"systemd\"");
        assert_eq!(found.settings["runtime.seccomp_root"].value, "\"/srv/kubelet/seccomp\"");
        let text =
            |name: &str| &found.files.iter().find(|of| of.path.ends_with(name)).unwrap().text;
        assert_eq!(
            text("kubelet.env"),
            "KUBELET_EXTRA_ARGS=\"--root-dir /srv/kubelet --config-dir=/srv/d \
             --container-runtime-endpoint=unix:///run/hull/hull.sock\"\n"
        );
        assert_eq!(
            text("crictl.yaml"),
            "runtime-endpoint: unix:///run/hull/hull.sock\nimage-endpoint: unix:///run/hull/hull.sock\n\
             timeout: 7\n"
        );
    }

    #[test]
    fn two_drivers_are_named_and_odd_yaml_is_an_error() {
        let (_dir, root) = node(&[("var/lib/kubelet/config.yaml", "cgroupDriver: cgroupfs\n")]);
        let mut found = Findings::default();
        found.set("SystemdCgroup", "cgroup.driver", &"systemd".into());
        let kubelet = read(&root).unwrap();
        kubelet.apply(&root, Path::new("/s"), &mut found).unwrap();
        assert!(found.lost[0].name.contains("cgroupfs"), "{found:?}");
        assert_eq!(found.files.len(), 1, "no unit passes further flags on");
        let (_dir, root) = node(&[("var/lib/kubelet/config.yaml", "a: [\n")]);
        let error = read(&root).unwrap_err().lines();
        assert!(error.contains("config.yaml"), "{error}");
    }
}
