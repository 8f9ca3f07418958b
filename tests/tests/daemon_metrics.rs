// SPDX-License-Identifier: Apache-2.0
//! The daemon's own metrics: on its socket, over TCP with certificates, and by `hull metrics`. They rise by exactly what
//! happened.

use hull_tests::cri::{resources, shell as shell_container};
use hull_tests::eventually::eventually;
use hull_tests::scrape::{REQUEST, Scrape, ask};
use hull_tests::shell::{self, Ran};
use hull_tests::{ExpectExt as _, Node, certificates, fixture, paths};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Takes memory until it is killed.
const HUNGRY: &str = "x=a; while true; do x=$x$x$x$x; done";

/// Adds settings to the node's configuration, and starts its daemon again.
async fn configure(node: &mut Node, more: &str) {
    let dir = node.state_dir().join("../hull.toml.d");
    fs::create_dir_all(&dir).or_fail("make the directory of more config");
    fs::write(dir.join("metrics.toml"), more).or_fail("write the config");
    node.restart().await;
}

#[tokio::test]
async fn what_happens_is_counted_once_and_by_no_name() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("counted-pod").await;
    let idle = cri.run_idle(&pod, "counted-container", &image).await;
    let before = Scrape::of(&node);
    assert!((before.value("hull_pods{state=\"ready\"}") - 1.0).abs() < 0.001, "{}", before.text);

    let missing = format!("{}/tests/is-not-there:1", fixture::registry().host);
    cri.pull(&missing).await.unwrap_err();
    let mut hungry = shell_container("hungry", &image, HUNGRY);
    resources(&mut hungry).memory_limit_in_bytes = 8 << 20;
    let hungry = cri.run(&pod, hungry).await;
    assert_eq!(cri.ended(&hungry).await.reason, "OOMKilled");
    assert_eq!(cri.exec(&idle, &["true"]).await.or_fail("run a command").code, 0);
    cri.exec(&idle, &["/is-not-there"]).await.unwrap_err();
    let _said = node.hull(&["exec", &idle, "true"]).good();
    let other = cri.run_pod("another-pod").await.or_fail("run a second pod");
    cri.stop_pod(&other).await.or_fail("stop it");

    let after = Scrape::of(&node);
    after.rose(
        &before,
        &[
            ("hull_image_pulls_total{result=\"not_found\"}", 1.0),
            ("hull_image_pull_objects_total{source=\"registry\",result=\"error\"}", 1.0),
            (
                "hull_grpc_errors_total{interface=\"cri\",verb=\"PullImage\",code=\"UNKNOWN\",cause=\"image\"}",
                1.0,
            ),
            ("hull_grpc_call_seconds_count{interface=\"cri\",verb=\"PullImage\"}", 1.0),
            ("hull_operation_errors_total{operation=\"pull\"}", 1.0),
            ("hull_oom_kills_total", 1.0),
            ("hull_container_exits_total{how=\"signal\"}", 1.0),
            ("hull_containers{state=\"running\"}", 0.0),
            ("hull_containers{state=\"exited\"}", 1.0),
            ("hull_operation_seconds_count{operation=\"start container\"}", 1.0),
            ("hull_stage_seconds_count{operation=\"start container\",stage=\"launch\"}", 1.0),
            ("hull_grpc_call_seconds_count{interface=\"cri\",verb=\"ExecSync\"}", 2.0),
            ("hull_execs_total{result=\"success\"}", 2.0),
            ("hull_execs_total{result=\"error\"}", 1.0),
            ("hull_stage_errors_total{operation=\"exec\",stage=\"launch\"}", 1.0),
            ("hull_stream_sessions_opened_total{kind=\"exec\"}", 1.0),
            ("hull_operation_seconds_count{operation=\"start pod\"}", 1.0),
            ("hull_stage_seconds_count{operation=\"start pod\",stage=\"monitor\"}", 1.0),
            ("hull_stage_seconds_count{operation=\"start pod\",stage=\"network\"}", 1.0),
            ("hull_stage_seconds_count{operation=\"start pod\",stage=\"cgroup\"}", 1.0),
            ("hull_stage_seconds_count{operation=\"start pod\",stage=\"pause\"}", 1.0),
            ("hull_operation_seconds_count{operation=\"stop pod\"}", 1.0),
            ("hull_monitors_started_total", 1.0),
            ("hull_pods{state=\"stopped\"}", 1.0),
            ("hull_scrapes_total{by=\"socket\"}", 1.0),
        ],
    );
    for positive in [
        "hull_process_open_fds",
        "hull_process_resident_memory_bytes",
        "hull_monitors_memory_bytes",
        "hull_image_pull_bytes_total{source=\"registry\"}",
        "hull_image_pull_stage_seconds_total{stage=\"resolve\"}",
    ] {
        assert!(after.value(positive) > 0.0, "{positive} is not above 0:\n{}", after.text);
    }
    for name in [pod.as_str(), &idle, &image, &missing, "counted-", "another-pod", "127.0.0.1"] {
        assert!(!after.text.contains(name), "`{name}` is in a label:\n{}", after.text);
    }
    is_documented(&after.text);
    is_documented(&node.hull(&["metrics"]).good());
}

/// Fails unless docs/metrics.md has every metric of a scrape, with its type and its labels.
fn is_documented(text: &str) {
    let page = fs::read_to_string(paths::root().join("docs/metrics.md")).or_fail("read the page");
    let rows: Vec<Vec<&str>> =
        page.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').or_fail(format!("read {line}"));
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let row = rows.iter().find(|row| row.get(1) == Some(&format!("`{name}`").as_str()));
        let row = row.or_fail(format!("find {name} in docs/metrics.md"));
        assert_eq!(row[2], kind, "{name}");
        assert!(names.insert(name), "{line} is there twice");
    }
    assert!(names.len() > 25, "few metrics: {names:?}");
}

#[tokio::test]
async fn a_lost_monitor_and_a_leak_are_counted() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let pod = cri.run_pod("loses").await.or_fail("run a pod");
    let wanted = format!("hull-monitor\0{pod}\0");
    let is_its = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    };
    let all = shell::names(Path::new("/proc"));
    let monitor = all.iter().filter_map(|name| name.parse::<i32>().ok()).find(is_its);
    let monitor = nix::unistd::Pid::from_raw(monitor.or_fail("find its monitor"));
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).or_fail("kill it");
    let node_ref = &node;
    eventually("the lost monitor is counted", || async move {
        let lost = Scrape::of(node_ref).value("hull_monitors_lost_total");
        if (lost - 1.0).abs() < 0.001 { Ok(()) } else { Err(format!("{lost} are lost")) }
    })
    .await;

    let leak = node.state_dir().join("run").join("f".repeat(64));
    fs::create_dir(&leak).or_fail("make a directory without a pod");
    node.restart().await;
    let found = Scrape::of(&node);
    for series in ["hull_leaks_found_total", "hull_leaks_removed_total"] {
        let count = found.value(&format!("{series}{{kind=\"pod\"}}"));
        assert!((count - 1.0).abs() < 0.001, "{series}: {count}");
    }
    assert!(!leak.try_exists().or_fail("look for the leak"), "it was counted as removed");
}

#[tokio::test]
async fn only_root_may_connect_and_only_the_metrics_are_served() {
    let mut node = Node::start().await;
    let socket = node.state_dir().join("metrics.sock");
    let mode = fs::metadata(&socket).or_fail("find the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (request, code) in
        [("GET / HTTP/1.1", "404"), ("POST /metrics HTTP/1.1", "405"), ("nonsense", "400")]
    {
        let mut stream = UnixStream::connect(&socket).or_fail("connect");
        write!(stream, "{request}\r\nHost: hull\r\n\r\n").or_fail("send a request");
        let mut text = String::new();
        let _bytes = stream.read_to_string(&mut text).or_fail("read the response");
        assert!(text.starts_with(&format!("HTTP/1.1 {code}")), "{request}: {text}");
    }
    // Without TLS, where no other machine can connect.
    let address = format!("127.0.0.1:{}", node.host_port());
    configure(&mut node, &format!("[metrics]\naddress = \"{address}\"\n")).await;
    let (head, body) = ask(TcpStream::connect(&address).or_fail("connect over TCP"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(Scrape::parse(body).value("hull_scrapes_total{by=\"tcp\"}") > 0.0);
    node.terminate();
    assert!(!socket.try_exists().or_fail("look for the socket"), "it goes with the daemon");
    node.start_again().await;
}

/// Asks by TLS, with the certificate of this name or without one.
fn ask_by_tls(dir: &Path, address: &str, certificate: Option<&str>) -> Ran {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quiet", "-connect", address, "-CAfile", "trusted.pem"]);
    client.args(["-verify_return_error"]);
    if let Some(name) = certificate {
        client.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]);
    }
    let piped = client.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().or_fail("start openssl");
    let mut stdin = child.stdin.take().or_fail("take its input");
    // One that was refused at once does not read it.
    let _refused = stdin.write_all(REQUEST);
    drop(stdin);
    let output = child.wait_with_output().or_fail("wait for openssl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

#[tokio::test]
async fn over_tcp_a_client_needs_a_certificate_of_the_ca() {
    let mut node = Node::start().await;
    let dir: PathBuf = node.host_dir();
    certificates::make(&dir);
    let address = format!("127.0.0.1:{}", node.host_port());
    let file = |name: &str| certificates::value(&dir, name);
    let settings = format!(
        "[metrics]\naddress = {address:?}\ntls_cert = {}\ntls_key = {}\nclient_ca = {}\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    configure(&mut node, &settings).await;
    let by_tls = |node: &Node| Scrape::of(node).value("hull_scrapes_total{by=\"tls\"}");

    let answered = ask_by_tls(&dir, &address, Some("client"));
    assert!(answered.stdout.starts_with("HTTP/1.1 200"), "{answered:?}");
    assert!(answered.stdout.contains("hull_build_info{"), "{answered:?}");
    assert!((by_tls(&node) - 1.0).abs() < 0.001);

    for certificate in [None, Some("stranger")] {
        let refused = ask_by_tls(&dir, &address, certificate);
        assert!(!refused.stdout.contains("HTTP/1.1"), "{certificate:?}: {refused:?}");
    }
    // Without TLS there is no answer at all.
    let mut plain = TcpStream::connect(&address).or_fail("connect over TCP");
    plain.write_all(REQUEST).or_fail("send a request");
    let mut bytes = Vec::new();
    let _reset = plain.read_to_end(&mut bytes);
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP/1.1"), "{bytes:?}");
    assert!((by_tls(&node) - 1.0).abs() < 0.001, "nobody else was answered");

    // A renewed certificate is used without a restart, and one that cannot be used lets nobody in.
    fs::write(dir.join("server.key"), "nonsense").or_fail("break the key");
    let broken = ask_by_tls(&dir, &address, Some("client"));
    assert!(!broken.stdout.contains("HTTP/1.1"), "{broken:?}");
    certificates::make(&dir);
    let renewed = ask_by_tls(&dir, &address, Some("client"));
    assert!(renewed.stdout.starts_with("HTTP/1.1 200"), "{renewed:?}");

    // Nor does one that no read of would end.
    for name in ["server.pem", "server.key", "ca.pem"] {
        certificates::put_fifo(&dir.join(name));
        let refused = ask_by_tls(&dir, &address, Some("client"));
        assert!(!refused.stdout.contains("HTTP/1.1"), "{name}: {refused:?}");
        fs::remove_file(dir.join(name)).or_fail("remove the FIFO");
        certificates::make(&dir);
    }
    assert!((by_tls(&node) - 2.0).abs() < 0.001, "the socket is served meanwhile");
    let last = ask_by_tls(&dir, &address, Some("client"));
    assert!(last.stdout.starts_with("HTTP/1.1 200"), "{last:?}");
}

#[tokio::test]
async fn a_stream_that_fails_is_an_error_of_its_verb() {
    let node = Node::start().await;
    let missing = format!("{}/tests/is-not-there:1", fixture::registry().host);
    let before = Scrape::of(&node);
    let failed = node.hull(&["pull", &missing]);
    assert_ne!(failed.code, 0, "{failed:?}");
    let _id = node.hull(&["pull", "-q", &fixture::busybox()]).good();
    let after = Scrape::of(&node);
    after.rose(
        &before,
        &[
            (
                "hull_grpc_errors_total{interface=\"hull\",verb=\"Pull\",code=\"NOT_FOUND\",cause=\"image\"}",
                1.0,
            ),
            ("hull_grpc_call_seconds_count{interface=\"hull\",verb=\"Pull\"}", 2.0),
        ],
    );
}

#[test]
fn a_daemon_that_cannot_serve_its_metrics_says_which_setting_is_wrong() {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let of = |name: &str| dir.path().join(name).display().to_string();
    for (settings, wanted) in [
        ("address = \"0.0.0.0:9477\"", "metrics.address"),
        ("address = \"here\"", "metrics.address"),
        ("address = \"127.0.0.1:9477\"\ntls_cert = \"/c\"", "metrics.tls_key"),
        ("tls_cert = \"/c\"\ntls_key = \"/k\"\nclient_ca = \"/a\"", "metrics.address"),
        (
            "address = \"127.0.0.1:9477\"\ntls_cert = \"c\"\ntls_key = \"/k\"\nclient_ca = \"/a\"",
            "metrics.tls_cert",
        ),
    ] {
        let text = format!("[metrics]\n{settings}\n");
        fs::write(dir.path().join("hull.toml"), text).or_fail("write the config");
        let mut command = Command::new(paths::hull());
        command.args(["config", "show", "--config", &of("hull.toml")]);
        let ran = shell::finish(&mut command);
        assert_ne!(ran.code, 0, "{settings}");
        assert!(ran.stderr.contains(wanted), "{settings}: {}", ran.stderr);
    }
}
