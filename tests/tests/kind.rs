// SPDX-License-Identifier: Apache-2.0
//! The commands that kind runs in a node, in its order, against Hull under the names that kind uses: `ctr`,
//! `containerd` and the socket of containerd. kind runs them by `docker exec`; here, a mount namespace with
//! the files of the node image stands for the container. `make kind-vm` has kind itself.

use hull_tests::cri::container;
use hull_tests::crictl::lacks_crictl;
use hull_tests::image::{Image, docker_archive, this_arch};
use hull_tests::layer::Layer;
use hull_tests::shell::{self, Ran};
use hull_tests::{ExpectExt as _, Node, eventually, fixture, paths};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The configuration of containerd that the node image has, which kind patches.
const CONTAINERD_TOML: &str = include_str!("../../scripts/kind/containerd.toml");
/// The configuration of Hull in the node image.
const HULL_TOML: &str = include_str!("../../scripts/kind/hull.toml");
/// crictl's configuration in the node image.
const CRICTL_YAML: &str = include_str!("../../scripts/kind/crictl.yaml");

/// Lays `$1` over /etc, gives /run a file system of its own with the socket `$2` where containerd's would be,
/// and stays until its input ends.
const ENTER: &str = r#"
set -e
mkdir -p "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/containerd
[ -z "$2" ] || ln -s "$2" /run/containerd/containerd.sock
echo ready
read -r end || true
"#;

/// The inside of a node of kind. Ended when dropped.
struct Inside {
    holder: Child,
    bin: PathBuf,
}

impl Inside {
    /// `hull_toml` is Hull's own configuration there; without `socket`, nothing listens where containerd would.
    fn of(node: &Node, name: &str, hull_toml: &str, with_socket: bool) -> Self {
        let root = node.host_dir().join(name);
        let (bin, etc) = (root.join("bin"), root.join("etc"));
        for dir in [&bin, &etc.join("hull"), &etc.join("containerd")] {
            fs::create_dir_all(dir).or_fail("create a directory of the node");
        }
        for program in ["ctr", "containerd"] {
            symlink(paths::hull(), bin.join(program)).or_fail("link hull");
        }
        symlink(paths::crictl().or_fail("find crictl"), bin.join("crictl")).or_fail("link crictl");
        for (file, text) in [
            ("hull/config.toml", hull_toml),
            ("containerd/config.toml", CONTAINERD_TOML),
            ("crictl.yaml", CRICTL_YAML),
        ] {
            fs::write(etc.join(file), text).or_fail("write a file of the node");
        }
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "enter"])
            .arg(&root);
        command.arg(if with_socket { node.socket() } else { PathBuf::new() });
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().or_fail("start unshare");
        let mut line = String::new();
        let stdout = holder.stdout.take().or_fail("read the output of unshare");
        let _read = BufReader::new(stdout).read_line(&mut line).or_fail("wait for the node");
        assert_eq!(line, "ready\n", "the mounts of the node failed; see the output of this test");
        Self { holder, bin }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--").args(words);
        let path = format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display());
        command.env_clear().env("PATH", path);
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        shell::finish(self.command(words).stdin(Stdio::null()))
    }

    /// Runs a command with this on its standard input, as `docker exec -i` does.
    fn feed(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().or_fail(format!("start {words:?}"));
        let mut stdin = child.stdin.take().or_fail("open the input of a command");
        // A command that fails early does not read its input; its exit code says more than that.
        let _written = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().or_fail(format!("wait for {words:?}"));
        Ran {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `crictl inspecti`, as kind reads it: the id and the tags.
    fn inspect_image(&self, name: &str) -> Option<(String, Vec<String>)> {
        let ran = self.run(&["crictl", "inspecti", name]);
        if ran.code != 0 {
            return None;
        }
        let of: Value = serde_json::from_str(&ran.stdout).or_fail("parse the output of crictl");
        let tags = of["status"]["repoTags"].as_array().or_fail("find repoTags in it");
        let tags = tags.iter().map(|tag| tag.as_str().or_fail("read a tag").to_owned()).collect();
        Some((of["status"]["id"].as_str().or_fail("find the id in it").to_owned(), tags))
    }

    /// The snapshotter, as kind reads it from `containerd config dump` before it loads an image.
    fn snapshotter(&self) -> String {
        let dumped = self.run(&["containerd", "config", "dump"]).good();
        let parsed: toml::Table = dumped.parse().or_fail("parse the dump as TOML");
        // Of version 3, as of 4.
        assert_eq!(parsed["version"].as_integer(), Some(3), "{dumped}");
        let images = &parsed["plugins"]["io.containerd.cri.v1.images"];
        images["snapshotter"].as_str().or_fail("find the snapshotter in the dump").to_owned()
    }

    /// `kind load image-archive`.
    fn load(&self, archive: &[u8]) -> Ran {
        let snapshotter = format!("--snapshotter={}", self.snapshotter());
        let import = ["ctr", "--namespace=k8s.io", "images", "import", "--all-platforms"];
        let words: Vec<&str> = import.into_iter().chain(["--digests", &snapshotter, "-"]).collect();
        self.feed(&words, archive)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

/// An image of more bytes than all calls together may have in the daemon's memory.
fn image() -> Image {
    let zeros = vec![0; 70 << 20];
    fixture::busybox_image().with(Layer::new().file("zeros", 0o644, zeros).tar())
}

#[tokio::test]
async fn kind_load_works_as_with_containerd() {
    if lacks_crictl("kind_load_works_as_with_containerd") {
        return;
    }
    let node = Node::start().await;
    let inside = Inside::of(&node, "kind", HULL_TOML, true);
    let (id, name) = (image().pack().id(), "docker.io/library/loaded:1");
    // kind load docker-image: is it there by its id, under which names?
    assert_eq!(inside.inspect_image(&id), None);
    // The name as `docker save` writes it.
    let said = inside.load(&docker_archive(&image(), "loaded:1")).good();
    assert!(said.contains(name), "{said}");
    let (found, tags) = inside.inspect_image(&id).or_fail("find the image by its id");
    assert_eq!((&found, tags), (&id, vec![name.to_owned()]));
    assert_eq!(inside.inspect_image("loaded:1").or_fail("find it by its short name").0, id);
    // The same image under another name of docker's: no second load, only a name.
    let tag =
        ["ctr", "--namespace=k8s.io", "images", "tag", "--force", &id, "docker.io/library/b:2"];
    let _said = inside.run(&tag).good();
    let _said = inside.run(&tag).good();
    let tags = inside.inspect_image(&id).or_fail("find the image by its id").1;
    assert!(tags.contains(&"docker.io/library/b:2".to_owned()) && tags.len() == 2, "{tags:?}");
    let listed = inside.run(&["ctr", "--namespace=k8s.io", "images", "list", "-q"]).good();
    assert!(listed.lines().any(|line| line == name), "{listed}");
    // kind export logs.
    let listed = inside.run(&["crictl", "images"]).good();
    assert!(listed.contains("docker.io/library/loaded"), "{listed}");

    let broken = inside.load(b"not an archive");
    assert!(broken.code != 0 && broken.stderr.contains("error: "), "{broken:?}");
    let cri = node.cri();
    let pod = cri.run_pod("loaded").await.unwrap();
    let said = cri.output(&pod, container("main", "loaded:1", &["echo", this_arch()])).await;
    assert_eq!(said.stdout, format!("{}\n", this_arch()));
}

/// `kind create cluster` with `containerdConfigPatches`: the file is read, changed, written, and the daemon
/// started again.
#[tokio::test]
async fn the_daemon_runs_under_the_name_of_containerd_with_patches_of_its_configuration() {
    let test = "the_daemon_runs_under_the_name_of_containerd_with_patches_of_its_configuration";
    if lacks_crictl(test) {
        return;
    }
    let mut node = Node::start().await;
    let own = fs::read_to_string(node.host_dir().with_file_name("hull.toml")).unwrap();
    // Hull's own file names no socket, so that the one of containerd counts.
    let lines = own.lines().filter(|line| !line.ends_with("hull.sock\""));
    let own = lines.collect::<Vec<_>>().join("\n");
    let inside = Inside::of(&node, "kind", &own, false);
    let file = "/etc/containerd/config.toml";
    let mut patched: toml::Table = inside.run(&["cat", file]).good().parse().unwrap();
    assert!(matches!(patched["version"].as_integer(), Some(2..=4)), "{patched}");
    let patch = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/patched\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n";
    let patch: toml::Table = patch.parse().unwrap();
    patched["plugins"]["io.containerd.grpc.v1.cri"] =
        patch["plugins"]["io.containerd.grpc.v1.cri"].clone();
    let text = toml::to_string(&patched).unwrap();
    let _said = inside.feed(&["cp", "/dev/stdin", file], text.as_bytes()).good();
    let dumped = inside.run(&["containerd", "config", "dump"]);
    assert!(dumped.stderr.contains("containerd.snapshotter has no effect"), "{dumped:?}");
    assert!(dumped.stdout.contains("config_path = \"/patched\""), "{dumped:?}");
    assert_eq!(inside.snapshotter(), "overlayfs", "not the one that Hull does not have");

    node.terminate();
    let log = node.host_dir().join("containerd.log");
    let out = fs::File::options().create(true).append(true).open(&log).unwrap();
    let mut daemon = inside.command(&["containerd"]);
    let mut daemon = daemon.stdin(Stdio::null()).stderr(out).spawn().unwrap();
    eventually("the daemon answers on containerd's socket", || async {
        let ran = inside.run(&["crictl", "version"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    })
    .await;
    // `pgrep --exact containerd`, by which kind decides to restart the service.
    let comm = fs::read_to_string(format!("/proc/{}/comm", daemon.id())).unwrap();
    assert_eq!(comm, "containerd\n");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    let log = fs::read_to_string(&log).unwrap();
    assert!(
        log.contains("has no effect in Hull") && log.contains("containerd.snapshotter"),
        "{log}"
    );
    drop(inside);
    node.start_again().await;
}
