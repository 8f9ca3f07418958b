// SPDX-License-Identifier: Apache-2.0
//! Container logs as the kubelet and log collectors read them.

use hull_proto::cri as api;
use hull_tests::cri::{container, read_log, shell, text};
use hull_tests::shell::run;
use hull_tests::{ExpectExt as _, Node, eventually};
use std::fs;
use std::path::{Path, PathBuf};

/// Numbers at the ends of lines `n1`, `n2`, … of several log files.
fn numbers(files: &[&Path]) -> Vec<u64> {
    let lines = files.iter().flat_map(|file| read_log(file));
    lines
        .map(|line| line.text.trim_start_matches('n').parse().or_fail("read a line's number"))
        .collect()
}

#[tokio::test]
async fn streams_times_and_lines_are_kept() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made =
        cri.run(&pod, shell("main", &image, "echo one; echo two >&2; printf 'no end'")).await;
    let _status = cri.ended(&made).await;
    let logs = cri.logs(&made).await;
    assert_eq!(text(&logs, "stdout"), "one\nno end", "{logs:?}");
    assert_eq!(text(&logs, "stderr"), "two\n", "{logs:?}");
    for line in &logs {
        assert_eq!(line.time.len(), "2026-11-23T10:00:00.000000000Z".len(), "{line:?}");
        assert!(line.time.ends_with('Z') || line.time.contains('+'), "{line:?}");
    }
    let mut times: Vec<&String> =
        logs.iter().filter(|line| line.stream == "stdout").map(|line| &line.time).collect();
    times.sort();
    assert_eq!(times.len(), 2);
}

#[tokio::test]
async fn a_long_line_is_cut_into_pieces_and_none_is_lost() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo short";
    let made = cri.run(&pod, shell("main", &image, script)).await;
    let _status = cri.ended(&made).await;
    let logs = cri.logs(&made).await;
    let whole = text(&logs, "stdout");
    assert_eq!(whole.lines().map(str::len).collect::<Vec<_>>(), [100_000, 5]);
    assert!(logs.iter().any(|line| !line.full), "no piece is tagged P");
    assert!(logs.iter().all(|line| line.text.len() <= 16 << 10), "a piece is longer than 16 KiB");
}

#[tokio::test]
async fn a_reopened_log_goes_on_in_the_new_file_without_a_loss() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); echo n$i; done";
    let made = cri.run(&pod, shell("main", &image, script)).await;
    let path = cri.status(&made).await.log_path;
    let path = Path::new(&path);
    let mut rotated = Vec::new();
    for number in 0..5 {
        eventually("the log grows", || async {
            let length = fs::metadata(path).map(|found| found.len()).unwrap_or_default();
            if length > 100_000 { Ok(()) } else { Err(format!("{length} bytes")) }
        })
        .await;
        let old = path.with_extension(format!("{number}"));
        fs::rename(path, &old).unwrap();
        let request = api::ReopenContainerLogRequest { container_id: made.clone() };
        cri.runtime.clone().reopen_container_log(request).await.unwrap();
        rotated.push(old);
    }
    let _status = cri.ended(&made).await;
    let mut files: Vec<&Path> = rotated.iter().map(std::path::PathBuf::as_path).collect();
    files.push(path);
    let expected: Vec<u64> = (1..=200_000).collect();
    assert!(numbers(&files) == expected, "lines are missing, doubled or out of order");
}

#[tokio::test]
async fn everything_written_before_the_exit_is_in_the_log() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run(&pod, shell("main", &image, "seq 1 50000; exit 3")).await;
    let status = cri.ended(&made).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    let logs = cri.logs(&made).await;
    assert_eq!(logs.len(), 50_000);
    assert_eq!(logs.last().unwrap().text, "50000");
}

#[tokio::test]
async fn a_container_without_a_log_path_runs_all_the_same() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = container("main", &image, &["seq", "1", "100000"]);
    config.log_path = String::new();
    let made = cri.run(&pod, config).await;
    let status = cri.ended(&made).await;
    assert_eq!(
        (status.exit_code, status.log_path.as_str()),
        (0, ""),
        "nobody reads, nobody blocks"
    );
}

#[tokio::test]
async fn a_terminal_is_one_stream_with_carriage_returns() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = shell("main", &image, "tty; echo err >&2; test -t 0 && echo in");
    config.tty = true;
    config.stdin = true;
    let made = cri.run(&pod, config).await;
    let _status = cri.ended(&made).await;
    let logs = cri.logs(&made).await;
    assert!(logs.iter().all(|line| line.stream == "stdout"), "{logs:?}");
    let said = text(&logs, "stdout");
    assert!(said.starts_with("/dev/pts/0\n"), "{said:?}");
    let file = cri.status(&made).await.log_path;
    let file = std::fs::read_to_string(file).or_fail("read the log");
    assert!(file.contains(" /dev/pts/0\r\n"), "{file:?}");
    assert!(said.contains("err") && said.contains("in"), "{said:?}");
}

#[tokio::test]
async fn hull_logs_follows_until_the_end() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri
        .run(
            &pod,
            shell("main", &image, "for i in 1 2 3; do echo line $i; sleep 0.1; done; echo bad >&2"),
        )
        .await;
    let ran = node.hull(&["logs", "-f", &made]);
    assert_eq!(ran.stdout, "line 1\nline 2\nline 3\n", "{ran:?}");
    assert_eq!(ran.stderr, "bad\n", "{ran:?}");
}

/// A file system of 64 KiB; taken away again when dropped.
struct Small(PathBuf);

impl Small {
    fn at(dir: PathBuf) -> Self {
        fs::create_dir(&dir).or_fail("make a mount point");
        let _nothing =
            run("mount", ["-t", "tmpfs", "-o", "size=64k", "small", &dir.display().to_string()])
                .good();
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ran = run("umount", ["-l", &self.0.display().to_string()]);
    }
}

#[tokio::test]
async fn output_that_did_not_fit_on_the_disk_is_told_with_what_helps() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let _id = cri.pull(&image).await.unwrap();
    let small = Small::at(node.host_dir().join("small"));
    let mut config = cri.pod_config("web");
    config.log_directory = small.0.display().to_string();
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; exit 3";
    let made = cri.run(&pod, shell("main", &image, script)).await;
    assert_eq!(cri.ended(&made).await.exit_code, 3);
    let log = node.daemon_log();
    let told = log.lines().find(|line| line.contains("missing in its log"));
    let told = told.or_fail("find it in the daemon's log");
    for part in ["lost_bytes=", "No space left on device", "containerLogMaxSize", "WARN"] {
        assert!(told.contains(part), "{told}");
    }
    cri.remove_all_pods().await.unwrap();
}

/// Files that may be put in a log's place, as a message names them.
const IMPOSTORS: [&str; 4] = ["hard links", "symbolic link", "device", "FIFO"];

/// Puts it there. `host` is a file that is not a log.
fn put(what: &str, host: &Path, log: &Path) {
    let text = log.display().to_string();
    match what {
        "hard links" => fs::hard_link(host, log).or_fail("link the host's file"),
        "symbolic link" => {
            std::os::unix::fs::symlink(host, log).or_fail("point to the host's file")
        }
        "device" => drop(run("mknod", [text.as_str(), "c", "1", "5"]).good()),
        _ => drop(run("mkfifo", [text.as_str()]).good()),
    }
}

#[tokio::test]
async fn a_log_is_opened_only_onto_a_file_of_its_own() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // Beside the logs, on the same filesystem.
    let host = hull_tests::node::write(&node.host_dir(), "host-file", "the host's\n");
    let runs = cri.run(&pod, shell("runs", &image, "echo up; sleep 100000")).await;
    let log = PathBuf::from(cri.status(&runs).await.log_path);
    let aside = log.with_extension("aside");
    for (round, what) in IMPOSTORS.into_iter().enumerate() {
        let made = cri.make(&pod, shell(&format!("new-{round}"), &image, "echo out")).await;
        let path = PathBuf::from(cri.status(&made).await.log_path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        put(what, &host, &path);
        let refused = cri.start(&made).await.unwrap_err();
        assert!(refused.message().contains(what), "start, {what}: {refused}");
        fs::rename(&log, &aside).unwrap();
        put(what, &host, &log);
        for restarted in [false, true] {
            if restarted {
                node.kill();
                node.start_again().await;
            }
            let container_id = runs.clone();
            let request = api::ReopenContainerLogRequest { container_id };
            let refused = cri.runtime.clone().reopen_container_log(request).await.unwrap_err();
            assert!(refused.message().contains(what), "{restarted}, {what}: {refused}");
        }
        let shown = node.hull(&["logs", &runs]);
        assert!(shown.code != 0 || what == "hard links", "{what}: {shown:?}");
        fs::remove_file(&log).unwrap();
        fs::rename(&aside, &log).unwrap();
    }
    // A directory on the way, or the pod's own, that is a link.
    let own = log.parent().unwrap();
    let moved = own.with_extension("moved");
    fs::rename(own, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, own).unwrap();
    let request = api::ReopenContainerLogRequest { container_id: runs.clone() };
    cri.runtime.clone().reopen_container_log(request).await.unwrap_err();
    assert_eq!(fs::read_to_string(&host).unwrap(), "the host's\n");
}
