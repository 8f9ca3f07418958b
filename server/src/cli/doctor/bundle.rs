// SPDX-License-Identifier: Apache-2.0
//! The archive for a bug report: one tar of texts, without secrets and without what containers run or write.

use super::super::client::Client;
use super::super::error::{Error, Result};
use super::redact;
use crate::check;
use crate::config::Config;
use crate::history::{End, Stage};
use crate::observe::account::Account;
use hull_plan::Diagnosis;
use hull_proto::{admin, cri as api};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io;
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
        if let Ok(text) = fs::read_to_string(file) {
            let text: String = text.chars().take(FILE_BYTES_MAX).collect();
            bundle.text(&format!("host{file}"), &text);
        }
    }
    if let Some(client) = client {
        from_daemon(&mut bundle, client).await?;
    }
    to_new_file(&bundle.files, path)
}

/// Writes the archive to a file that it creates. One that is not complete is removed.
fn to_new_file(files: &[(String, String)], path: &Path) -> Result<()> {
    let shown = path.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|source| {
        let is_there = source.kind() == io::ErrorKind::AlreadyExists;
        let operation = if is_there {
            format!("write {shown}, which must not exist yet")
        } else {
            format!("create {shown}")
        };
        Error::Io { operation, source }
    })?;
    archive(files, file).map_err(|source| {
        // If that fails too, the first error is the one to show.
        let _left = fs::remove_file(path);
        Error::Io { operation: format!("write {shown}"), source }
    })
}

/// Adds answers of the daemon: its configuration, its state, and the accounts of its pods.
async fn from_daemon(bundle: &mut Bundle, mut client: Client) -> Result<()> {
    let config = client.admin.config(admin::ConfigRequest {}).await?.into_inner().toml;
    // One that cannot be parsed cannot be searched for secrets either.
    if let Ok(config) = toml::from_str::<Value>(&config) {
        bundle.json("config.json", config);
    }
    let status = client.runtime.status(api::StatusRequest { verbose: false }).await?.into_inner();
    bundle.serialized("status.json", &status)?;
    let request = api::ListPodSandboxRequest::default();
    let pods = client.runtime.list_pod_sandbox(request).await?.into_inner().items;
    for pod in pods.iter().take(PODS_MAX) {
        let request = admin::ExplainRequest { name: pod.id.clone() };
        // A pod that has gone meanwhile has no account here.
        if let Ok(answer) = client.admin.explain(request).await {
            let account: Account = serde_json::from_str(&answer.into_inner().account)
                .map_err(|source| Error::Json { source })?;
            bundle.json(&format!("pods/{}.json", pod.id), summary(&account));
        }
    }
    let request = api::ListImagesRequest::default();
    let images = client.images.list_images(request).await?.into_inner();
    bundle.serialized("images.json", &images)
}

/// The parts of an account that cannot hold anything of the container's: kinds, layers, stages and durations.
fn summary(account: &Account) -> Value {
    let diagnosis = |of: &Diagnosis| json!({"kind": of.kind, "layer": of.layer.name(), "certainty": format!("{:?}", of.certainty)});
    let findings = account.findings.iter().map(|of| {
        json!({
            "about": of.about,
            "weight": of.weight,
            "atNs": of.at_ns,
            "diagnosis": diagnosis(&of.diagnosis),
        })
    });
    let stage = |of: &Stage| {
        json!({
            "name": of.name,
            "partOf": of.part_of,
            "beganNs": of.began_ns,
            "tookUs": of.took_us,
            "failed": !of.error.is_empty(),
        })
    };
    let end = |of: &End| {
        json!({
            "atNs": of.at_ns,
            "reason": of.reason,
            "exitCode": of.exit_code,
            "signal": of.signal,
            "ordinary": of.ordinary,
            "diagnosis": of.diagnosis.as_ref().map(diagnosis),
        })
    };
    let timelines = account.timelines.iter().map(|of| {
        json!({
            "kind": of.kind,
            "id": of.id,
            "name": of.full_name(),
            "attempt": of.attempt,
            "image": of.image,
            "beganNs": of.began_ns,
            "goneNs": of.gone_ns,
            "execs": of.execs,
            "stages": of.stages.iter().map(stage).collect::<Vec<_>>(),
            "end": of.end.as_ref().map(end),
        })
    });
    json!({
        "name": account.name,
        "state": account.state,
        "isWell": account.is_well,
        "findings": findings.collect::<Vec<_>>(),
        "timelines": timelines.collect::<Vec<_>>(),
    })
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

fn archive(files: &[(String, String)], out: impl io::Write) -> io::Result<()> {
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
    use crate::history::{FailedExec, Timeline};
    use crate::observe::account::{Finding, Weight};
    use hull_plan::{Certainty, LastLines, Layer};
    use std::io::Read as _;

    #[test]
    fn a_summary_has_nothing_of_the_container() {
        let secret = || "hunter2".to_owned();
        let exec = FailedExec { command: secret(), outcome: secret(), output: secret(), at_ns: 1 };
        let diagnosis = Diagnosis {
            kind: "exec-failed".into(),
            layer: Layer::Process,
            what: secret(),
            cause: Some(secret()),
            certainty: Certainty::Likely,
            evidence: vec![secret()],
            fix: Some(secret()),
        };
        let output = LastLines { stdout: vec![secret()], stderr: vec![secret()] };
        let end =
            End { diagnosis: Some(diagnosis.clone()), output: output.clone(), ..End::default() };
        let stages = vec![Stage { name: "launch".into(), error: secret(), ..Stage::default() }];
        let failed_exec = Some(exec.clone());
        let timeline = Timeline {
            stages,
            end: Some(end),
            failed_exec,
            name: "app".into(),
            ..Timeline::default()
        };
        let finding = Finding {
            about: "ns/web/app".into(),
            weight: Weight::Warning,
            at_ns: 1,
            diagnosis,
            output,
            failed_exec: Some(exec),
        };
        let account =
            Account { findings: vec![finding], timelines: vec![timeline], ..Account::default() };
        let text = summary(&account).to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("exec-failed") && text.contains("launch"), "{text}");
    }

    #[test]
    fn a_failed_archive_is_removed_and_the_error_says_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let shown = path.display().to_string();
        let failed = |name: &str, path: &Path| {
            let files = [("a".to_owned(), "x".to_owned()), (name.to_owned(), "x".to_owned())];
            to_new_file(&files, path).unwrap_err().to_string()
        };
        // A name that no archive may have.
        assert_eq!(failed("../b", &path), format!("write {shown}"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "half an archive is left");
        let lost = path.join("b");
        assert_eq!(failed("b", &lost), format!("create {}", lost.display()));
        fs::write(&path, "mine").unwrap();
        assert_eq!(failed("b", &path), format!("write {shown}, which must not exist yet"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

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
