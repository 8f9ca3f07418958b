// SPDX-License-Identifier: Apache-2.0
//! The auditor in images and containers, and its answers as values.

use hull_proto::cri::ContainerConfig;
use hull_tests::image::Image;
use hull_tests::layer::Layer;
use hull_tests::{Cri, ExpectExt as _, fixture};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where it lies in images.
pub(crate) const AUDITOR: &str = "/bin/auditor";

/// The auditor's program, one static file.
pub(crate) const PROGRAM: &[u8] = include_bytes!(env!("HULL_AUDITOR_PROGRAM"));

/// busybox and the auditor.
pub(crate) fn image() -> String {
    fixture::pushed("auditor", || {
        let layer = fixture::busybox_layer().file("bin/auditor", 0o755, PROGRAM);
        Image::new(vec![layer.tar()], json!({"Cmd": [AUDITOR, "audit"]}))
    })
}

/// An image with nothing in it but the auditor and what `more` adds: no /proc, /dev, /sys of its own.
pub(crate) fn image_with(name: &str, more: impl FnOnce(Layer) -> Layer) -> String {
    fixture::pushed(name, || {
        let layer = Layer::new().dirs(&["bin", "etc"]).file("bin/auditor", 0o755, PROGRAM);
        let layer = layer.file("etc/passwd", 0o644, fixture::PASSWD);
        Image::new(vec![more(layer).tar()], json!({"Cmd": [AUDITOR, "wait"]}))
    })
}

/// Paths that kubelets since 1.33 mask by name, where a pod does not ask for `procMount: Unmasked`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that they make read-only.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container that runs the auditor with these words, masked as kubelets ask for.
pub(crate) fn container(name: &str, image: &str, words: &[&str]) -> ContainerConfig {
    let mut config = hull_tests::cri::container(name, image, &[&[AUDITOR], words].concat());
    let context = hull_tests::cri::security(&mut config);
    context.masked_paths = MASKED.map(str::to_owned).into();
    context.readonly_paths = READ_ONLY.map(str::to_owned).into();
    config
}

/// The auditor as a program of the host, in `dir`.
pub(crate) fn on_host(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("outside");
    std::fs::write(&path, PROGRAM).or_fail("write the auditor");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).or_fail("make the auditor executable");
    path
}

/// Runs a container to its end and reads what its auditor saw.
pub(crate) async fn audit(cri: &Cri, pod: &str, config: ContainerConfig) -> Report {
    let said = cri.output(pod, config).await;
    Report::read(&said.stdout, &format!("{said:?}"))
}

/// The report of an auditor.
#[derive(Debug)]
pub(crate) struct Report(pub(crate) Value);

impl Report {
    #[track_caller]
    pub(crate) fn read(text: &str, context: &str) -> Self {
        let document = text.lines().find(|line| line.starts_with('{'));
        let document = document.and_then(|line| serde_json::from_str(line).ok());
        Self(document.or_fail(format!("read what the auditor saw; it said {context}")))
    }

    /// A value of `process`, as text.
    pub(crate) fn process(&self, name: &str) -> &str {
        self.0["process"][name].as_str().unwrap_or_default()
    }

    /// A set of capabilities.
    #[track_caller]
    pub(crate) fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(self.process(set), 16)
            .or_fail(format!("read {set} of {}", self.0["process"]))
    }

    /// How the system call `name` was answered.
    pub(crate) fn call(&self, name: &str) -> &str {
        self.0["syscalls"][name].as_str().unwrap_or_default()
    }

    /// The socket families that reach the kernel.
    pub(crate) fn families(&self) -> Vec<u64> {
        let list = self.0["families"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_u64).collect()
    }

    /// Texts of a list.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let list = self.0[name].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).collect()
    }

    /// Lines of the mount table whose filesystem is of this type.
    pub(crate) fn mounts_of(&self, kind: &str) -> Vec<&str> {
        let marker = format!(" - {kind} ");
        self.list("mounts").into_iter().filter(|line| line.contains(&marker)).collect()
    }

    /// The answers to reading and writing a guarded file of a procfs.
    pub(crate) fn proc_file(&self, mount: &str, name: &str) -> &Value {
        &self.0["proc"][mount]["guarded"][name]
    }

    /// Files that can be written although no default lets them: of procfs and of sysfs.
    pub(crate) fn writable(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.list("sys_writable").into_iter().map(str::to_owned).collect();
        for (_, of) in self.0["proc"].as_object().into_iter().flatten() {
            let files = of["writable"].as_array().map(Vec::as_slice).unwrap_or_default();
            found.extend(files.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        found
    }
}
