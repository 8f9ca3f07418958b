// SPDX-License-Identifier: Apache-2.0
//! The archive for a bug report: one tar of texts, without secrets and without what containers run or write.

use super::super::client::Client;
use super::super::error::{Error, Result};
use super::redact;
use crate::check;
use crate::config::Config;
use hull_proto::{admin, cri as api};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Most pods whose accounts are added.
const PODS_MAX: usize = 200;
/// Longest file of the kernel's that is added, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Files of the host that say what it is.
const HOST_FILES: [&str; 8] = [
    "/etc/os-release",
    "/proc/version",
    "/proc/meminfo",
    "/proc/cgroups",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/pressure/memory",
    "/proc/sys/kernel/pid_max",
];

const README: &str = "\
Made by `hull doctor --bundle`. Secrets, environments, commands, annotations, and output of containers were removed, and
so was the name of the node. Names of pods and images are there: look through it before you publish it.

The daemon's log is not in it. With systemd, add it by `journalctl -u hull -n 2000 > hull.log`.
";

/// The files of the archive.
struct Bundle {
    files: Vec<(String, String)>,
    hostname: String,
}

/// Writes the archive to a new file. `client` is the daemon, if it can be reached, and `found` what doctor found.
pub(super) async fn write(
    path: &Path,
    client: Option<Client>,
    config: &Config,
    found: &Value,
) -> Result<()> {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut bundle = Bundle { files: Vec::new(), hostname };
    bundle.text("README", README);
    let version = json!({"version": env!("CARGO_PKG_VERSION"), "commit": env!("HULL_COMMIT")});
    bundle.json("version.json", version);
    bundle.json("doctor.json", found.clone());
    let findings = check::findings(config);
    let parts = findings.iter().map(check::Finding::parts);
    let checked: Vec<Value> = parts
        .map(|(subject, verdict, found, hint)| {
            json!({"subject": subject, "verdict": verdict, "found": found, "hint": hint})
        })
        .collect();
    bundle.json("check.json", Value::Array(checked));
    for file in HOST_FILES {
        // One that this kernel does not have says enough by that.
        if let Ok(text) = std::fs::read_to_string(file) {
            let text: String = text.chars().take(FILE_BYTES_MAX).collect();
            bundle.text(&format!("host{file}"), &text);
        }
    }
    if let Some(client) = client {
        from_daemon(&mut bundle, client).await?;
    }
    let failed = || Error::io(format!("write {}, which must not exist yet", path.display()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(failed())?;
    archive(&bundle.files, file).map_err(failed())
}

/// Adds answers of the daemon: its configuration, its state, and the accounts of its pods.
async fn from_daemon(bundle: &mut Bundle, mut client: Client) -> Result<()> {
    let config = client.admin.config(admin::ConfigRequest {}).await?.into_inner().toml;
    let config = redact::toml(&config, &bundle.hostname);
    bundle.files.push(("config.toml".into(), config));
    let status = client.runtime.status(api::StatusRequest { verbose: false }).await?.into_inner();
    bundle.serialized("status.json", &status)?;
    let request = api::ListPodSandboxRequest::default();
    let pods = client.runtime.list_pod_sandbox(request).await?.into_inner().items;
    for pod in pods.iter().take(PODS_MAX) {
        let request = admin::ExplainRequest { name: pod.id.clone() };
        // A pod that has gone meanwhile has no account here.
        if let Ok(answer) = client.admin.explain(request).await {
            let account: Value = serde_json::from_str(&answer.into_inner().account)
                .map_err(|source| Error::Json { source })?;
            bundle.json(&format!("pods/{}.json", pod.id), account);
        }
    }
    let request = api::ListImagesRequest::default();
    let images = client.images.list_images(request).await?.into_inner();
    bundle.serialized("images.json", &images)
}

impl Bundle {
    fn text(&mut self, name: &str, text: &str) {
        self.files.push((name.to_owned(), redact::text(text, &self.hostname)));
    }

    fn json(&mut self, name: &str, mut value: Value) {
        redact::document(&mut value, &self.hostname);
        self.files.push((name.to_owned(), format!("{value:#}\n")));
    }

    fn serialized(&mut self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let value = serde_json::to_value(value).map_err(|source| Error::Json { source })?;
        self.json(name, value);
        Ok(())
    }
}

fn archive(files: &[(String, String)], out: impl std::io::Write) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(out);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("hull-bundle/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn an_archive_has_the_files_as_they_were() {
        let files =
            vec![("a.json".to_owned(), "{}\n".to_owned()), ("host/etc/x".into(), "y".into())];
        let mut bytes = Vec::new();
        archive(&files, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let wanted = [("hull-bundle/a.json", "{}\n"), ("hull-bundle/host/etc/x", "y")];
        assert_eq!(found, wanted.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
