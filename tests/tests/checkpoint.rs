// SPDX-License-Identifier: Apache-2.0
//! Checkpoints of containers by CRIU: what is in the archive, and that the container runs on and nothing half made is
//! left when CRIU or the daemon is killed meanwhile.

use hull_proto::cri as api;
use hull_tests::cri::shell;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, paths};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

/// A program that never answers, whatever its arguments.
const HANGS: &str = "/usr/bin/yes";
/// Counts in a file, and has a word in its memory.
const COUNTS: &str = "word=$(echo kept-in-memory | tr a-z A-Z); i=0
while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.02; done";

/// A node with the CRIU of `make criu`; `None` where that was not built.
async fn node(test: &str) -> Option<Node> {
    let Some(criu) = paths::criu() else {
        paths::cannot_run(test, "CRIU (make criu)");
        return None;
    };
    Some(Node::start_with(&format!("[runtime]\ncriu = '{}'\n", criu.display())).await)
}

async fn checkpoint(cri: &Cri, id: &str, to: &Path, timeout: i64) -> Result<(), Status> {
    let request = api::CheckpointContainerRequest {
        container_id: id.into(),
        location: to.display().to_string(),
        timeout,
    };
    cri.runtime.clone().checkpoint_container(request).await.map(drop)
}

/// Waits until the container has counted on.
async fn counts_on(cri: &Cri, id: &str) {
    let count = || async {
        let read = cri.exec(id, &["cat", "/count"]).await.map_err(|err| err.to_string())?;
        read.stdout.trim().parse::<u64>().map_err(|err| err.to_string())
    };
    let before = eventually("the container counts", count).await;
    eventually("the container counts on", || async {
        let now = count().await?;
        if now > before { Ok(()) } else { Err(format!("{now} after {before}")) }
    })
    .await;
}

/// Waits until no directory of a checkpoint is left.
async fn nothing_half_made(node: &Node) {
    let all = node.data_dir().join("checkpoints");
    eventually("no checkpoint is being made", || async {
        let left = hull_tests::shell::names(&all);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// The files of an archive.
fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut files = BTreeMap::new();
    for entry in archive.entries().or_fail("read the archive") {
        let mut entry = entry.or_fail("read an entry");
        let name = entry.path().or_fail("read its name").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).or_fail("read a file");
        files.insert(name, content);
    }
    files
}

fn json(files: &BTreeMap<String, Vec<u8>>, name: &str) -> serde_json::Value {
    let text = files.get(name).or_fail(format!("find {name}"));
    serde_json::from_slice(text).or_fail(format!("read {name}"))
}

#[tokio::test]
async fn an_archive_has_memory_and_files_and_the_container_runs_on() {
    let Some(node) = node("an_archive_has_memory_and_files").await else { return };
    let (cri, pod, image) = node.pod("web").await;
    let script = format!("echo new > /made; rm /bin/vi; {COUNTS}");
    let id = cri.run(&pod, shell("main", &image, &script)).await;
    counts_on(&cri, &id).await;
    let to = node.host_dir().join("one.tar");
    checkpoint(&cri, &id, &to, 0).await.unwrap();
    counts_on(&cri, &id).await;

    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o600);
    let files = unpacked(&fs::read(&to).unwrap());
    for name in ["checkpoint/inventory.img", "checkpoint/descriptors.json", "dump.log", "status"] {
        assert!(files.contains_key(name), "{name} is not in {:?}", files.keys());
    }
    let has_word = |bytes: &[u8]| bytes.windows(14).any(|part| part == b"KEPT-IN-MEMORY");
    let pages = files.iter().filter(|(name, _)| name.starts_with("checkpoint/pages-"));
    assert!(pages.map(|(_, bytes)| bytes).any(|bytes| has_word(bytes)), "{:?}", files.keys());
    assert_eq!(json(&files, "config.dump")["id"], id.as_str());
    let spec = json(&files, "spec.dump");
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-name"], "web");
    assert_eq!(json(&files, "deleted.files"), serde_json::json!(["/bin/vi"]));
    let changed = unpacked(&files["rootfs-diff.tar"]);
    assert_eq!(changed["made"], b"new\n");

    // None is replaced, and the next one has another name.
    let refused = checkpoint(&cri, &id, &to, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    let other = node.host_dir().join("two.tar");
    let text = other.display().to_string();
    let _printed = node.hull(&["checkpoint", "--export", &text, "web/main"]).good();
    assert!(unpacked(&fs::read(&other).unwrap()).contains_key("config.dump"));
    counts_on(&cri, &id).await;
    nothing_half_made(&node).await;
}

/// A container with so large a file that the copy of its files takes a while; the processes are stopped meanwhile.
async fn stopped_for_a_while(node: &Node) -> (Cri, String, PathBuf) {
    let (cri, pod, image) = node.pod("large").await;
    let script = format!("dd if=/dev/zero of=/large bs=1M count=256; {COUNTS}");
    let id = cri.run(&pod, shell("main", &image, &script)).await;
    counts_on(&cri, &id).await;
    let to = node.host_dir().join("large.tar");
    (cri, id, to)
}

/// Waits until CRIU has stopped the container, and returns its process.
async fn copying(node: &Node, id: &str) -> Pid {
    let directory = node.data_dir().join("checkpoints").join(id);
    eventually("its files are copied", || async {
        let there = directory.join("rootfs-diff.tar").metadata();
        there.map(drop).map_err(|err| err.to_string())
    })
    .await;
    let pid = fs::read_to_string(directory.join("lock")).or_fail("read the lock file");
    Pid::from_raw(pid.trim().parse().or_fail("read CRIU's process id"))
}

#[tokio::test]
async fn a_killed_criu_leaves_the_container_running() {
    let Some(node) = node("a_killed_criu_leaves_the_container_running").await else { return };
    let (cri, id, to) = stopped_for_a_while(&node).await;
    let (calling, at) = (cri.clone(), to.clone());
    let of = id.clone();
    let call = tokio::spawn(async move { checkpoint(&calling, &of, &at, 0).await });
    let criu = copying(&node, &id).await;
    kill(criu, Signal::SIGKILL).or_fail("kill CRIU");
    let failed = call.await.unwrap().unwrap_err();
    assert!(failed.message().contains("CRIU"), "{failed}");
    counts_on(&cri, &id).await;
    nothing_half_made(&node).await;
    assert!(!to.try_exists().unwrap());
    checkpoint(&cri, &id, &to, 0).await.unwrap();
}

#[tokio::test]
async fn a_killed_daemon_leaves_the_container_running_and_the_next_one_clears_up() {
    let Some(mut node) = node("a_killed_daemon_leaves_the_container_running").await else {
        return;
    };
    let (cri, id, to) = stopped_for_a_while(&node).await;
    let pid = Pid::from_raw(cri.pid(&id).await);
    let (calling, at, of) = (cri.clone(), to.clone(), id.clone());
    let call = tokio::spawn(async move { checkpoint(&calling, &of, &at, 0).await });
    let _criu = copying(&node, &id).await;
    node.kill();
    assert!(call.await.unwrap().is_err());
    // With no daemon there, it runs on.
    eventually("nobody holds the container", || async {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).or_fail("read its status");
        let traced = status.lines().find(|line| line.starts_with("TracerPid:"));
        if traced == Some("TracerPid:\t0") { Ok(()) } else { Err(format!("{traced:?}")) }
    })
    .await;
    node.start_again().await;
    counts_on(&cri, &id).await;
    nothing_half_made(&node).await;
    assert!(!to.try_exists().unwrap());
    checkpoint(&cri, &id, &to, 0).await.unwrap();
}

#[tokio::test]
async fn a_program_that_never_answers_ends_with_the_time_limit_and_with_the_daemon() {
    let mut node = Node::start_with(&format!("[runtime]\ncriu = '{HANGS}'\n")).await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run(&pod, shell("main", &image, COUNTS)).await;
    let to = node.host_dir().join("late.tar");
    let late = checkpoint(&cri, &id, &to, 1).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    nothing_half_made(&node).await;

    let (calling, at, of) = (cri.clone(), to.clone(), id.clone());
    let call = tokio::spawn(async move { checkpoint(&calling, &of, &at, 0).await });
    let lock = node.data_dir().join("checkpoints").join(&id).join("lock");
    let hangs = eventually("it was started", || async {
        let pid = fs::read_to_string(&lock).map_err(|err| err.to_string())?;
        pid.trim().parse().map(Pid::from_raw).map_err(|err| format!("{err}: {pid:?}"))
    })
    .await;
    let second = checkpoint(&cri, &id, &node.host_dir().join("other.tar"), 0).await.unwrap_err();
    assert_eq!(second.code(), Code::Unavailable, "{second}");
    node.kill();
    assert!(call.await.unwrap().is_err());
    node.start_again().await;
    nothing_half_made(&node).await;
    // The new daemon has killed it; whose child it is now reaps it.
    let stat = fs::read_to_string(format!("/proc/{hangs}/stat")).unwrap_or_default();
    let runs = stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']));
    assert!(!runs, "it still runs: {stat}");
    assert!(!to.try_exists().unwrap());
    counts_on(&cri, &id).await;
}

#[tokio::test]
async fn what_cannot_be_checkpointed_is_said_before_anything_is_stopped() {
    let node = Node::start_with(&format!("[runtime]\ncriu = '{HANGS}'\n")).await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run(&pod, shell("main", &image, COUNTS)).await;
    let to = node.host_dir().join("never.tar");
    for (location, timeout, code) in [
        (Path::new("never.tar"), 0, Code::InvalidArgument),
        (Path::new(""), 0, Code::InvalidArgument),
        (Path::new("/tmp/../never.tar"), 0, Code::InvalidArgument),
        (Path::new("/nonexistent/never.tar"), 0, Code::FailedPrecondition),
        (Path::new("/etc/passwd"), 0, Code::AlreadyExists),
        (to.as_path(), -1, Code::InvalidArgument),
    ] {
        let refused = checkpoint(&cri, &id, location, timeout).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}: {refused}", location.display());
    }
    let _printed = node.hull(&["pause", "web/main"]).good();
    let refused = checkpoint(&cri, &id, &to, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("it is paused"), "{refused}");
    let _printed = node.hull(&["unpause", "web/main"]).good();
    cri.stop(&id, 0).await.unwrap();
    let refused = checkpoint(&cri, &id, &to, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}
