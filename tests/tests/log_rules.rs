// SPDX-License-Identifier: Apache-2.0
//! Limits, rotation and the second sink of container logs, by settings and annotations.

use hull_proto::cri as api;
use hull_tests::cri::{mount, read_log, shell};
use hull_tests::{ExpectExt as _, Node, eventually, node};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

/// The verbose information about a container's log.
async fn info(node: &Node, id: &str) -> serde_json::Value {
    let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = node.cri().runtime.clone().container_status(request).await.or_fail("ask");
    let info = answer.into_inner().info.remove("info").or_fail("find the info");
    serde_json::from_str::<serde_json::Value>(&info).or_fail("read the info")["log"].take()
}

#[tokio::test]
async fn the_rate_of_an_annotation_holds_and_what_was_dropped_is_counted_everywhere() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let _id = cri.pull(&image).await.unwrap();
    let mut config = cri.pod_config("web");
    let annotation = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    config.annotations.extend([
        annotation("hull.run/log-rate-limit", "1g"),
        annotation("hull.run/log-rate-limit.main", "64k"),
    ]);
    let pod = cri.run_pod_with(config).await.unwrap();
    let main = cri.run(&pod, shell("main", &image, "seq 1 200000; exec sleep 100000")).await;
    let other = cri.run(&pod, shell("other", &image, "seq 1 20000; exec sleep 100000")).await;
    let log = cri.status(&other).await.log_path;
    eventually("all of the other is logged", || async {
        let lines = read_log(Path::new(&log)).len();
        if lines == 20_000 { Ok(()) } else { Err(format!("{lines} lines")) }
    })
    .await;
    let lost = || async {
        let dropped = info(&node, &main).await["dropped"].take();
        dropped["lines"].as_u64().filter(|lines| *lines > 0).ok_or(format!("{dropped}"))
    };
    eventually("the count is in the status", lost).await;
    let of = info(&node, &main).await;
    assert_eq!(of["rateLimitBytes"], 64 << 10, "{of}");
    assert_eq!((&of["overRate"], &of["burstBytes"]), (&"drop".into(), &(64 << 10).into()));
    assert_eq!(info(&node, &other).await["dropped"]["lines"], 0);
    let stats = node.hull(&["stats", "-o", "json", "--over-ms", "10", &main]);
    let rows: serde_json::Value = serde_json::from_str(&stats.stdout).or_fail("read the stats");
    let dropped = rows[0]["logDropped"].as_u64();
    assert!(dropped.or_fail("find it in the stats") > 100_000, "{rows}");
    let log = node.daemon_log();
    let told = log.lines().find(|line| line.contains("exceeds the limits of its log"));
    assert!(told.or_fail("find it in the daemon's log").contains("logs.rate_limit"));
    // A later daemon knows it as well.
    node.kill();
    node.start_again().await;
    assert!(info(&node, &main).await["dropped"]["lines"].as_u64() > Some(0));
    cri.stop(&main, 0).await.or_fail("stop it");
    let path = cri.ended(&main).await.log_path;
    let dropped = info(&node, &main).await["dropped"].take();
    let text = fs::read_to_string(path).or_fail("read the log");
    let told = |words: &str| words.split(' ').nth(5).and_then(|lines| lines.parse::<u64>().ok());
    let told = text.lines().filter_map(|line| told(line.split_once("[hull: dropped ")?.1));
    assert_eq!(Some(told.sum::<u64>()), dropped["lines"].as_u64(), "{dropped}");
    cri.remove_all_pods().await.unwrap();
}

#[tokio::test]
async fn an_annotation_that_asks_for_more_than_the_node_allows_is_refused() {
    let node = Node::start_with("[logs]\nrate_limit = '1m'\n").await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let _id = cri.pull(&image).await.unwrap();
    for (value, why) in [("2m", "more than this node allows"), ("fast", "it is not a size")] {
        let mut config = cri.pod_config(&format!("web-{}", value.len()));
        config.annotations.insert("hull.run/log-rate-limit".into(), value.into());
        let pod = cri.run_pod_with(config).await.unwrap();
        let refused = cri.create(&pod, shell("main", &image, "true")).await.unwrap_err();
        assert!(refused.message().contains(why), "{refused}");
        assert!(refused.message().contains("hull.run/log-rate-limit"), "{refused}");
    }
    cri.remove_all_pods().await.unwrap();
}

#[tokio::test]
async fn a_rotated_log_is_followed_and_shown_as_one() {
    let node = Node::start_with("[logs]\nrotate_size = '128k'\nrotate_files = 100\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo n$i; done";
    let made = cri.run(&pod, shell("main", &image, script)).await;
    let wanted: String = (1..=20_000).map(|number| format!("n{number}\n")).collect();
    let followed = node.hull(&["logs", "-f", &made]);
    assert!(followed.stdout == wanted, "lines are missing, doubled or out of order");
    let path = cri.ended(&made).await.log_path;
    let first = format!("{path}.1");
    assert!(Path::new(&first).is_file(), "it was not rotated");
    assert!(node.hull(&["logs", &made]).stdout == wanted);
    let last = node.hull(&["logs", "--tail", "10000", &made]);
    assert_eq!(last.stdout.lines().count(), 10_000);
    assert!(wanted.ends_with(&last.stdout));
}

#[tokio::test]
async fn a_follower_that_is_too_slow_says_where_lines_are_missing_and_fails() {
    let node = Node::start_with("[logs]\nrotate_size = '128k'\nrotate_files = 2\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "echo 0; while [ ! -e /host/go ]; do sleep 0.05; done; seq 1 100000";
    let mut config = shell("main", &image, script);
    config.mounts = vec![mount(&node.host_dir(), "/host")];
    let made = cri.run(&pod, config).await;
    let mut command = node.hull_command(&["logs", "-f", &made]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().or_fail("start hull");
    let mut out = BufReader::new(child.stdout.take().or_fail("have its stdout"));
    let mut first = String::new();
    let _bytes = out.read_line(&mut first).or_fail("read a line");
    assert_eq!(first, "0\n");
    // It follows. Nobody reads what it prints while the container writes more than is kept.
    let _go = node::write(&node.host_dir(), "go", "");
    let _status = cri.ended(&made).await;
    let mut text = String::new();
    let _bytes = out.read_to_string(&mut text).or_fail("read the rest");
    let mut said = String::new();
    let mut err = child.stderr.take().or_fail("have its stderr");
    let _bytes = err.read_to_string(&mut said).or_fail("read what it says");
    let status = child.wait().or_fail("wait for hull");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("was rotated away before it was read"), "{said}");
    assert!(said.contains("hint: raise `logs.rotate_size`"), "{said}");
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "lines are doubled or out of order");
    assert_eq!((numbers.len(), numbers.last()), (text.lines().count(), Some(&100_000)));
    assert!(numbers.len() < 100_000, "nothing was missing");
}

#[tokio::test]
async fn journald_gets_what_a_container_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.sock");
    let journald = UnixDatagram::bind(&path).unwrap();
    journald.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let settings = format!("[logs]\njournald = true\njournald_socket = '{}'\n", path.display());
    let node = Node::start_with(&settings).await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run(&pod, shell("main", &image, "echo all is well")).await;
    let _status = cri.ended(&made).await;
    let mut bytes = [0; 4096];
    let got = journald.recv(&mut bytes).unwrap();
    let entry = String::from_utf8_lossy(&bytes[..got]).into_owned();
    for field in [
        "CONTAINER_NAME=main\n",
        &format!("CONTAINER_ID={}\n", &made[..12]),
        "POD_NAME=web",
        "POD_NAMESPACE=",
        "PRIORITY=6\n",
        "\nMESSAGE=all is well\n",
    ] {
        assert!(entry.contains(field), "{field:?} is not in {entry:?}");
    }
    // Without journald, containers start and are logged.
    drop(journald);
    fs::remove_file(&path).unwrap();
    let made = cri.run(&pod, shell("again", &image, "echo in the file")).await;
    assert_eq!(cri.ended(&made).await.exit_code, 0);
    assert_eq!(cri.logs(&made).await[0].text, "in the file");
    assert!(node.daemon_log().contains("journald is not there"));
}
