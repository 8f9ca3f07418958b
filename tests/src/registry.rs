// SPDX-License-Identifier: Apache-2.0
//! Debian's `docker-registry` on a free port of loopback, and pushing to it.
//!
//! The registry chooses its port itself and says so in its log, so two test runs never fight for
//! one. It is the child of a shell that waits for our end of a pipe to close: whichever way this
//! process ends, the registry and its directory go with it.

use crate::expect::ExpectExt;
use crate::image::{Blob, Packed};
use crate::paths;
use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The one account of a private registry.
pub const USER: &str = "puller";
/// Password of the account.
pub const PASSWORD: &str = "pull-me";
/// `USER:PASSWORD` in base64.
const BASIC: &str = "cHVsbGVyOnB1bGwtbWU=";
/// A line of an htpasswd file with both, by bcrypt.
const HTPASSWD: &str = "puller:$2y$05$abcdefghijklmnopqrstuuBp.n58v886n7kD7.z9i0nzqxtQ8I2P.\n";

/// Runs the registry until standard input closes, then takes it and the directory `$2` away.
const SUPERVISE: &str = r#"
docker-registry serve "$1/config.yml" 2>&1 &
registry=$!
read -r _
kill "$registry"
wait "$registry" 2> /dev/null
[ -z "$2" ] || rm -rf "$2"
"#;

/// A registry that runs.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:port`.
    pub host: String,
    private: bool,
    dir: PathBuf,
    supervisor: Child,
    /// Open as long as the registry shall run.
    lifeline: Option<ChildStdin>,
}

impl Registry {
    /// Starts one that everybody may pull from.
    #[must_use]
    pub fn start() -> Self {
        Self::serve(own_dir(), "", false)
    }

    /// Starts a registry with its data in `dir`, which is removed with it.
    #[must_use]
    pub fn start_in(dir: &Path) -> Self {
        Self::serve(dir.to_owned(), "", false)
    }

    /// Starts a registry with its data in `dir/data`, which stays.
    #[must_use]
    pub fn start_kept(dir: &Path) -> Self {
        Self::serve(dir.to_owned(), "", true)
    }

    /// Starts one that wants [`USER`] and [`PASSWORD`].
    #[must_use]
    pub fn start_private() -> Self {
        let dir = own_dir();
        let accounts =
            format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}/htpasswd\n", dir.display());
        let mut registry = Self::serve(dir, &accounts, false);
        registry.private = true;
        registry
    }

    /// Starts a registry with its data in `dir/data`, which stays, that serves TLS with `dir/own.pem` and
    /// `dir/own.key`. Images are pushed before, by [`Self::start_kept`].
    #[must_use]
    pub fn start_tls(dir: &Path) -> Self {
        let path = dir.display();
        let tls = format!("  tls:\n    certificate: {path}/own.pem\n    key: {path}/own.key\n");
        Self::serve(dir.to_owned(), &tls, true)
    }

    /// `more` are further lines of its configuration, behind those of `http`.
    fn serve(dir: PathBuf, more: &str, kept: bool) -> Self {
        fs::create_dir_all(&dir).or_fail(format!("make {}", dir.display()));
        fs::write(dir.join("htpasswd"), HTPASSWD).or_fail("write the registry's accounts");
        fs::write(dir.join("config.yml"), config(&dir, more))
            .or_fail("write the registry's config");
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISE, "registry"])
            .arg(&dir)
            .arg(if kept { Path::new("") } else { dir.as_path() })
            // It asks for OpenTelemetry collectors otherwise.
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .or_fail("start a shell for docker-registry");
        let lifeline = supervisor.stdin.take();
        let mut log = BufReader::new(supervisor.stdout.take().or_fail("read the registry's log"));
        let host = listening(&mut log);
        // Its log must be read on, or it blocks once the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { host, private: false, dir, supervisor, lifeline }
    }

    /// Pushes an image under `name:tag` and gives its reference.
    pub fn push(&self, name: &str, tag: &str, packed: &Packed) -> String {
        self.push_blobs(name, packed);
        self.put_manifest(name, tag, &packed.manifest)
    }

    /// Pushes several platforms of an image with an index over them, and gives its reference.
    pub fn push_index(&self, name: &str, tag: &str, platforms: &[&Packed]) -> String {
        for packed in platforms {
            self.push_blobs(name, packed);
            let _by_digest = self.put_manifest(name, &packed.manifest.digest(), &packed.manifest);
        }
        self.put_manifest(name, tag, &crate::image::index(platforms))
    }

    /// Pushes blobs, then `manifests` by their digests, then `top` under the tag `1`. Gives its reference.
    pub fn push_all(&self, name: &str, blobs: &[Blob], manifests: &[Blob], top: &Blob) -> String {
        let packed = Packed { blobs: blobs.to_vec(), manifest: top.clone(), arch: String::new() };
        self.push_blobs(name, &packed);
        for manifest in manifests {
            let _by_digest = self.put_manifest(name, &manifest.digest(), manifest);
        }
        self.put_manifest(name, "1", top)
    }

    /// Where the registry keeps a blob, for tests that damage it.
    #[must_use]
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.dir.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// The process that serves, which its supervisor started.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let pid = self.supervisor.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.or_fail("find the registry's process");
        let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        first.or_fail("find the registry's process")
    }

    /// Ends it with SIGKILL, in the middle of whatever it does.
    pub fn kill(self) {
        // It is a child of the supervisor, which has not waited for it yet: the number is its own.
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).or_fail("kill the registry");
    }

    fn push_blobs(&self, name: &str, packed: &Packed) {
        for blob in &packed.blobs {
            let digest = blob.digest();
            if self.ask("HEAD", &format!("/v2/{name}/blobs/{digest}"), None).status == 200 {
                continue;
            }
            let began = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), Some(&empty()));
            let location = began.location.or_fail(format!("begin the upload of a blob of {name}"));
            let (_, path) = location.split_once("//").or_fail("read the upload's location");
            let (_, path) = path.split_once('/').or_fail("read the upload's location");
            let put = self.ask("PUT", &format!("/{path}&digest={digest}"), Some(blob));
            assert!(
                put.status == 201,
                "push of {digest} of {name}: HTTP {}: {}",
                put.status,
                put.body
            );
        }
    }

    fn put_manifest(&self, name: &str, reference: &str, manifest: &Blob) -> String {
        let put = self.ask("PUT", &format!("/v2/{name}/manifests/{reference}"), Some(manifest));
        assert!(put.status == 201, "push of {name}:{reference}: HTTP {}: {}", put.status, put.body);
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{name}{separator}{reference}", self.host)
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: Option<&Blob>) -> Answer {
        let mut stream =
            TcpStream::connect(&self.host).or_fail(format!("connect to {}", self.host));
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        if self.private {
            head.push_str(&format!("Authorization: Basic {BASIC}\r\n"));
        }
        if let Some(blob) = body {
            let (kind, length) = (&blob.media_type, blob.bytes.len());
            head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).or_fail("send to the registry");
        if let Some(blob) = body {
            stream.write_all(&blob.bytes).or_fail("send to the registry");
        }
        let mut said = Vec::new();
        stream.read_to_end(&mut said).or_fail("hear the registry");
        Answer::parse(&String::from_utf8_lossy(&said))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The shell ends once the registry has.
        drop(self.supervisor.wait());
    }
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
        Self {
            status: status.or_fail(format!("understand the registry: {text}")),
            location: location.map(str::to_owned),
            body: body.to_owned(),
        }
    }
}

/// A directory that no other registry has.
fn own_dir() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    paths::fixtures().join(format!("registry-{}-{number}", std::process::id()))
}

fn empty() -> Blob {
    Blob { media_type: "application/octet-stream".into(), bytes: Vec::new() }
}

fn config(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {dir}/data\n\
         http:\n  addr: 127.0.0.1:0\n{more}"
    )
}

/// The address that the registry says it listens on.
fn listening(log: &mut impl std::io::BufRead) -> String {
    let mut said = String::new();
    loop {
        let mut line = String::new();
        let read = log.read_line(&mut line).or_fail("read the registry's log");
        if let Some((_, rest)) = line.split_once("listening on ") {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
            return rest[..end.unwrap_or(rest.len())].to_owned();
        }
        said.push_str(&line);
        assert!(
            read > 0,
            "docker-registry did not start (apt-get install docker-registry): {said}"
        );
    }
}
