// SPDX-License-Identifier: Apache-2.0
//! A run of critest against a node of its own.

use super::images::{HOSTS, Pushed};
use super::report::Report;
use crate::eventually::with_long_timeout;
use crate::expect::ExpectExt;
use crate::node::Node;
use crate::registry::Registry;
use crate::{paths, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The digest that the suite pins in its program.
const PINNED: &str = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

/// Longest run of one mode; it takes one to three minutes.
const SUITE_MAX: Duration = Duration::from_secs(20 * 60);

/// How the suite is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One spec after another, streams over SPDY.
    Serial,
    /// Streams over WebSocket.
    WebSocket,
    /// Four at a time.
    Parallel,
    /// Every pod by a runtime handler of the configuration.
    Handler,
}

/// The handler of that mode. Its pods have what those without a handler have, and a limit.
const HANDLER: &str = "[runtime.handlers.conformance]\npids_max = 4096\n";

impl Mode {
    /// All of them, as they are named on the command line.
    pub const ALL: [(&'static str, Self); 4] = [
        ("serial", Self::Serial),
        ("websocket", Self::WebSocket),
        ("parallel", Self::Parallel),
        ("handler", Self::Handler),
    ];

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Serial => &[],
            Self::WebSocket => &["-websocket-exec", "-websocket-attach", "-websocket-portforward"],
            Self::Parallel => &["-parallel=4"],
            Self::Handler => &["-parallel=4", "-runtime-handler=conformance"],
        }
    }
}

/// The suite, ready to run.
#[derive(Debug)]
pub struct Suite {
    program: PathBuf,
    /// `ginkgo`, which the parallel mode calls, is here.
    tools: PathBuf,
    mirrors: String,
}

impl Suite {
    /// Takes the program from the folder `tools` and puts a copy with our digest in `dir`.
    #[must_use]
    pub fn prepare(tools: &Path, dir: &Path, registry: &Registry, pushed: &Pushed) -> Self {
        let built = tools.join("critest");
        let mut bytes =
            fs::read(&built).or_fail(format!("read {} (`make tools` builds it)", built.display()));
        let ours = pushed.digest.trim_start_matches("sha256:");
        let replaced = replace(&mut bytes, PINNED.as_bytes(), ours.as_bytes());
        assert!(
            replaced > 0,
            "{} does not hold the digest {PINNED}: another version?",
            built.display()
        );
        let program = dir.join("critest");
        fs::write(&program, bytes).or_fail(format!("write {}", program.display()));
        let _said = shell::run("chmod", ["0755".as_ref(), program.as_os_str()]).good();
        let mirror = |host: &str| {
            format!(
                "[[image.registry]]\nhost = {host:?}\nmirrors = [\"http://{}/v2\"]\n",
                registry.host
            )
        };
        let mirrors = HOSTS.map(mirror).concat();
        Self { program, tools: tools.to_owned(), mirrors }
    }

    /// Runs it on a fresh node and reads its report. What the suite says goes to `log`.
    pub async fn run(&self, mode: Mode, more: &[String], log: &Path) -> Report {
        let node = Node::start_with(&format!("{}{HANDLER}", self.mirrors)).await;
        let json = log.with_extension("json");
        drop(fs::remove_file(&json));
        drop(fs::remove_file(log));
        let out = fs::File::options()
            .append(true)
            .create_new(true)
            .open(log)
            .or_fail(format!("write {}", log.display()));
        let endpoint = format!("unix://{}", node.socket().display());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-runtime-endpoint={endpoint}"))
            .arg(format!("-image-endpoint={endpoint}"))
            .arg(format!("-nri-socket={}", node.nri_socket().display()))
            .arg("-ginkgo.no-color")
            .arg(format!("-ginkgo.timeout={}s", with_long_timeout(SUITE_MAX).as_secs()))
            .arg(format!("-ginkgo.json-report={}", json.display()))
            .args(mode.args())
            .args(more)
            .env("PATH", format!("{}:{path}", self.tools.display()))
            .current_dir(self.program.parent().or_fail("find the suite's folder"))
            .stdin(Stdio::null())
            .stdout(out.try_clone().or_fail("share the log"))
            .stderr(out);
        let status = command.status().or_fail(format!("start {}", self.program.display()));
        let text = fs::read_to_string(&json).or_fail(format!(
            "read the suite's report {} (it ended with {status}; see {})",
            json.display(),
            log.display()
        ));
        Report::read(&text)
            .map_err(std::io::Error::other)
            .or_fail(format!("understand {}", json.display()))
    }
}

/// Replaces every `from` by `to`, which is as long. How many there were.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len(), "a digest is replaced by one of its length");
    let mut count = 0;
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            count += 1;
            at += from.len();
        } else {
            at += 1;
        }
    }
    count
}

/// Where the built tools are.
#[must_use]
pub fn tools() -> PathBuf {
    paths::root().join(".cache/bin")
}
