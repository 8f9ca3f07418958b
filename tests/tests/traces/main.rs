// SPDX-License-Identifier: Apache-2.0
//! Traces: a collector gets the calls of a traced caller with their stages, and nothing of others; by
//! TLS, too. Metrics name these traces to who reads that.

mod collector;

use collector::Collector;
use hull_proto::cri as api;
use hull_tests::eventually::eventually;
use hull_tests::scrape::{OPENMETRICS_REQUEST, Scrape, ask_by};
use hull_tests::{ExpectExt as _, Node, certificates, fixture};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use tonic::Request;

/// The trace of a kubelet, and its span that calls.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const KUBELET: [u8; 8] = 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes();

/// Sets `[tracing]`, and starts the node's daemon again.
async fn configure(node: &mut Node, settings: &str) {
    let dir = node.state_dir().join("../hull.toml.d");
    fs::create_dir_all(&dir).or_fail("make the directory of more config");
    fs::write(dir.join("tracing.toml"), format!("[tracing]\n{settings}\n"))
        .or_fail("write the config");
    node.restart().await;
}

/// A request in the trace of a kubelet, recorded or not.
fn traced<T>(message: T, trace: &str, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{trace}-00f067aa0ba902b7-{flags}");
    request.metadata_mut().insert("traceparent", header.parse().or_fail("make a header"));
    request
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|of| of.key == key);
    format!(
        "{:?}",
        found.and_then(|of| of.value.clone()).or_fail(format!("find {key} in {span:?}"))
    )
}

#[tokio::test]
async fn a_collector_gets_the_calls_of_a_traced_kubelet_with_their_stages() {
    const OTHER: &str = "11111111111111111111111111111111";
    let mut node = Node::start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], node.host_port()));
    let collector = Collector::start(address);
    let settings = format!("endpoint = \"http://{address}\"\nsample_percent = 0");
    configure(&mut node, &settings).await;

    let cri = node.cri();
    let mut runtime = cri.runtime.clone();
    let run = |name: &str| api::RunPodSandboxRequest {
        config: Some(cri.pod_config(name)),
        ..Default::default()
    };
    // Neither is recorded: one has no trace, the kubelet does not record the other.
    let _plain = cri.run_pod("plain").await.or_fail("run a pod");
    let unrecorded = traced(run("unrecorded"), OTHER, "00");
    let _id = runtime.run_pod_sandbox(unrecorded).await.or_fail("run a pod");
    let recorded = traced(run("recorded"), TRACE, "01");
    let pod = runtime.run_pod_sandbox(recorded).await.or_fail("run a pod").into_inner();
    let stop = api::StopPodSandboxRequest { pod_sandbox_id: pod.pod_sandbox_id };
    let _stopped = runtime.stop_pod_sandbox(traced(stop, TRACE, "01")).await.or_fail("stop it");
    let missing = format!("{}/tests/is-not-there:1", fixture::registry().host);
    let image = Some(hull_tests::cri::image(&missing));
    let pull = api::PullImageRequest { image, ..Default::default() };
    cri.image.clone().pull_image(traced(pull, TRACE, "01")).await.unwrap_err();

    let collector = &collector;
    eventually("all spans have come", || async move {
        let call = collector.below(&KUBELET, "runtime.v1.RuntimeService/RunPodSandbox")?;
        let start = collector.below(&call.span_id, "start pod")?;
        for stage in ["monitor", "network namespace", "network", "pause", "cgroup"] {
            collector.below(&start.span_id, stage)?;
        }
        let call = collector.below(&KUBELET, "runtime.v1.RuntimeService/StopPodSandbox")?;
        let stop = collector.below(&call.span_id, "stop pod")?;
        collector.below(&stop.span_id, "processes")?;
        let call = collector.below(&KUBELET, "runtime.v1.ImageService/PullImage")?;
        collector.below(&call.span_id, "pull").map(drop)
    })
    .await;
    let spans = collector.spans();
    let trace = u128::from_str_radix(TRACE, 16).or_fail("read the trace").to_be_bytes();
    assert!(spans.iter().all(|of| of.trace_id == trace), "{spans:#?}");
    let of = |name: &str| spans.iter().find(|of| of.name == name).or_fail(format!("find {name}"));
    assert!(attribute(of("network"), "k8s.pod.name").contains("recorded"));
    assert!(attribute(of("pull"), "container.image.name").contains("is-not-there"));
    let (start, network) = (of("start pod"), of("network"));
    assert!(start.start_time_unix_nano <= network.start_time_unix_nano, "{start:?} {network:?}");
    assert!(network.end_time_unix_nano <= start.end_time_unix_nano, "{start:?} {network:?}");
    let failed = |name: &str| of(name).status.clone().unwrap_or_default();
    assert_eq!((failed("start pod").code, failed("pull").code), (0, 2));
    assert!(failed("pull").message.contains("is-not-there"), "{:?}", failed("pull"));
    metrics_name_the_trace(&node);
}

/// Buckets of calls, of their work and of its stages have the trace, for a client that reads OpenMetrics.
fn metrics_name_the_trace(node: &Node) {
    let socket = UnixStream::connect(node.state_dir().join("metrics.sock")).or_fail("connect");
    let (head, text) = ask_by(OPENMETRICS_REQUEST, socket);
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    let marked: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
    let exemplar = format!(" # {{trace_id=\"{TRACE}\"}} ");
    assert!(marked.iter().all(|line| line.contains(&exemplar)), "of no other trace: {marked:?}");
    for (name, label) in [
        ("hull_grpc_call_seconds_bucket{", "verb=\"RunPodSandbox\""),
        ("hull_operation_seconds_bucket{", "operation=\"start pod\""),
        ("hull_stage_seconds_bucket{", "operation=\"start pod\",stage=\"network\""),
    ] {
        let of = |line: &&&str| line.starts_with(name) && line.contains(label);
        assert_eq!(marked.iter().filter(of).count(), 1, "{name} {label}: {marked:?}");
    }
    assert!(!Scrape::of(node).text.contains(" # {"), "not for any other client");
}

/// Runs a pod in the trace of the kubelet.
async fn run_traced(node: &Node, name: &str) {
    let cri = node.cri();
    let message =
        api::RunPodSandboxRequest { config: Some(cri.pod_config(name)), ..Default::default() };
    let call = cri.runtime.clone().run_pod_sandbox(traced(message, TRACE, "01")).await;
    drop(call.or_fail("run a pod"));
}

#[tokio::test]
async fn a_collector_is_reached_by_tls_with_a_certificate_and_no_other_one_gets_spans() {
    let mut node = Node::start().await;
    let dir = node.host_dir();
    certificates::make(&dir);
    let address = SocketAddr::from(([127, 0, 0, 1], node.host_port()));
    let collector = &Collector::start_by_tls(address, &dir).await;
    let file = |name: &str| certificates::value(&dir, name);
    let settings = |ca: &str, identity: &str| {
        format!(
            "endpoint = \"https://{address}\"\nca_file = {}\nsample_percent = 0\n{identity}",
            file(ca)
        )
    };
    let own = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        format!("client_cert = {certificate}\nclient_key = {key}")
    };
    configure(&mut node, &settings("ca.pem", &own("client"))).await;
    run_traced(&node, "by-tls").await;
    eventually("the spans have come", || async move {
        let call = collector.below(&KUBELET, "runtime.v1.RuntimeService/RunPodSandbox")?;
        collector.below(&call.span_id, "start pod").map(drop)
    })
    .await;
    assert_eq!(collector.refused(), Vec::<String>::new());
    node.terminate();
    let before = collector.spans().len();

    // One that the daemon has no reason to trust gets nothing, and the log says why.
    node.start_again().await;
    configure(&mut node, &settings("other.pem", &own("client"))).await;
    run_traced(&node, "untrusted").await;
    let node_ref = &node;
    eventually("the log says why", || async move {
        let log = node_ref.daemon_log();
        let line = log.lines().find(|line| line.contains("is not reached by TLS"));
        match line {
            Some(line) if line.contains("UnknownIssuer") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Nor does the daemon get in without a certificate of the collector's CA.
    for (identity, why) in
        [(String::new(), "sent no certificates"), (own("stranger"), "UnknownIssuer")]
    {
        configure(&mut node, &settings("ca.pem", &identity)).await;
        run_traced(&node, &format!("stranger-{}", identity.len())).await;
        eventually("it is refused", || async move {
            let all = collector.refused();
            let is_refused = all.iter().any(|of| of.contains(why));
            if is_refused { Ok(()) } else { Err(format!("{why}: {all:?}")) }
        })
        .await;
    }
    assert_eq!(collector.spans().len(), before, "only its first daemon was trusted");
}

#[tokio::test]
async fn a_daemon_ends_in_order_while_its_collector_hangs() {
    let mut node = Node::start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], node.host_port()));
    // The kernel accepts connections for it, and it never answers.
    let hangs = TcpListener::bind(address).or_fail("listen");
    configure(&mut node, &format!("endpoint = \"http://{address}\"\nsample_percent = 100")).await;
    let _pod = node.cri().run_pod("traced").await.or_fail("run a pod");
    // Fails unless the daemon ends by itself, with success.
    node.terminate();
    let log = node.daemon_log();
    // The last time: it was started before.
    let at = |text: &str| log.rfind(text).or_fail(format!("find `{text}` in {log}"));
    assert!(at("the collector does not answer") < at("ended; pods go on running"), "{log}");
    // It was sent something.
    let (stream, _) = hangs.accept().or_fail("accept the connection of the daemon");
    let read = std::io::Read::read(&mut &stream, &mut [0; 24]).or_fail("read what it sent");
    assert!(read > 0, "it sent nothing");
    node.start_again().await;
}

#[test]
fn an_address_without_a_scheme_is_refused_with_its_key() {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let file = dir.path().join("hull.toml");
    for (settings, wanted) in [
        ("endpoint = \"collector:4317\"", "tracing.endpoint"),
        ("endpoint = \"http://\"", "tracing.endpoint"),
        ("endpoint = \"https:///x\"", "tracing.endpoint"),
        ("endpoint = \"http://127.0.0.1:4317\"\nca_file = \"/ca\"", "tracing.ca_file"),
        ("endpoint = \"https://127.0.0.1:4317\"\nca_file = \"ca\"", "tracing.ca_file"),
        ("endpoint = \"https://127.0.0.1:4317\"\nclient_cert = \"/c\"", "tracing.client_key"),
        ("endpoint = \"https://127.0.0.1:4317\"\nclient_key = \"/k\"", "tracing.client_cert"),
        ("sample_percent = 101", "tracing.sample_percent"),
    ] {
        fs::write(&file, format!("[tracing]\n{settings}\n")).or_fail("write the config");
        let mut command = std::process::Command::new(hull_tests::paths::hull());
        command.args(["config", "show", "--config"]).arg(&file);
        let ran = hull_tests::shell::finish(&mut command);
        assert!(ran.code != 0 && ran.stderr.contains(wanted), "{settings}: {}", ran.stderr);
    }
}
