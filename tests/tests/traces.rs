// SPDX-License-Identifier: Apache-2.0
//! Traces: a collector gets the calls of a traced caller with their stages, and nothing of others.

use hull_proto::cri as api;
use hull_tests::eventually::eventually;
use hull_tests::{ExpectExt as _, Node, fixture};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::{Request, Response, Status};

/// The spans that have come.
#[derive(Debug, Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(scopes.flat_map(|of| of.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start(address: SocketAddr) -> Self {
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let served = tonic::transport::Server::builder().add_service(service).serve(address);
        tokio::spawn(served);
        collector
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The span of this name whose parent is `parent`.
    fn below(&self, parent: &[u8], name: &str) -> Result<Span, String> {
        let spans = self.spans();
        let names: Vec<_> = spans.iter().map(|of| of.name.clone()).collect();
        let found = spans.into_iter().find(|of| of.name == name && of.parent_span_id == parent);
        found.ok_or_else(|| format!("no span `{name}` there among {names:?}"))
    }
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
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const OTHER: &str = "11111111111111111111111111111111";
    let mut node = Node::start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], node.host_port()));
    let collector = Collector::start(address);
    let dir = node.state_dir().join("../hull.toml.d");
    fs::create_dir_all(&dir).or_fail("make the directory of more config");
    let settings = format!("[tracing]\nendpoint = \"http://{address}\"\nsample_percent = 0\n");
    fs::write(dir.join("tracing.toml"), settings).or_fail("write the config");
    node.restart().await;

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

    let kubelet = 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes();
    let collector = &collector;
    eventually("all spans have come", || async move {
        let call = collector.below(&kubelet, "runtime.v1.RuntimeService/RunPodSandbox")?;
        let start = collector.below(&call.span_id, "start pod")?;
        for stage in ["monitor", "network namespace", "network", "pause", "cgroup"] {
            collector.below(&start.span_id, stage)?;
        }
        let call = collector.below(&kubelet, "runtime.v1.RuntimeService/StopPodSandbox")?;
        let stop = collector.below(&call.span_id, "stop pod")?;
        collector.below(&stop.span_id, "processes")?;
        let call = collector.below(&kubelet, "runtime.v1.ImageService/PullImage")?;
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
}

#[test]
fn an_address_without_a_scheme_is_refused_with_its_key() {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let file = dir.path().join("hull.toml");
    for (settings, wanted) in [
        ("endpoint = \"collector:4317\"", "tracing.endpoint"),
        ("endpoint = \"http://\"", "tracing.endpoint"),
        ("sample_percent = 101", "tracing.sample_percent"),
    ] {
        fs::write(&file, format!("[tracing]\n{settings}\n")).or_fail("write the config");
        let mut command = std::process::Command::new(hull_tests::paths::hull());
        command.args(["config", "show", "--config"]).arg(&file);
        let ran = hull_tests::shell::finish(&mut command);
        assert!(ran.code != 0 && ran.stderr.contains(wanted), "{settings}: {}", ran.stderr);
    }
}
