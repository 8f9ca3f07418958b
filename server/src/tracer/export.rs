// SPDX-License-Identifier: Apache-2.0
//! Sends spans to a collector, by OTLP over gRPC: in batches, from a thread of its own. Spans that find no place in its
//! queue are dropped, and the log says so.

use super::collector::{self, Error};
use super::span::Ended;
use crate::config::Tracing;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};
use std::time::{Duration, SystemTime};
use tracing::{debug, warn};

/// How long the last spans may take to be sent when the daemon ends: meanwhile nobody serves calls.
const FINISH_MAX: Duration = Duration::from_millis(500);

/// The queue of spans that have ended, and the thread that sends them.
#[derive(Debug)]
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl Exporter {
    /// Connects when there is something to send. Must be called in the async runtime.
    pub(super) fn start(settings: &Tracing, endpoint: &str) -> Result<Self, Error> {
        let channel = collector::channel(settings, endpoint)?;
        let built = SpanExporter::builder().with_tonic().with_channel(channel).build();
        let exporter =
            built.map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let resource = Resource::builder()
            .with_service_name("hull")
            .with_attribute(KeyValue::new("host.name", node))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        processor.set_resource(&resource);
        let version = env!("CARGO_PKG_VERSION");
        let scope = InstrumentationScope::builder("hull").with_version(version).build();
        Ok(Self { processor, scope })
    }

    /// Adds a span to the queue.
    pub(super) fn export(&self, ended: Ended) {
        let Ended { span, name, is_call, took, error, attributes } = ended;
        let end_time = SystemTime::now();
        let attributes = attributes.into_iter().filter(|(_, value)| !value.is_empty());
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(span.place.trace.to_be_bytes()),
                SpanId::from_bytes(span.place.id.to_be_bytes()),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::from_bytes(span.parent.to_be_bytes()),
            parent_span_is_remote: span.is_remote,
            span_kind: if is_call { SpanKind::Server } else { SpanKind::Internal },
            name: name.into(),
            start_time: end_time.checked_sub(took).unwrap_or(end_time),
            end_time,
            attributes: attributes.map(|(key, value)| KeyValue::new(key, value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if error.is_empty() { Status::Unset } else { Status::error(error) },
            instrumentation_scope: self.scope.clone(),
        });
    }

    /// Sends what is in the queue, within [`FINISH_MAX`]: a collector that hangs does not keep the daemon from ending.
    /// Blocks.
    pub(super) fn finish(&self) {
        match self.processor.shutdown_with_timeout(FINISH_MAX) {
            Ok(()) => {}
            Err(OTelSdkError::Timeout(_)) => {
                warn!("the last spans of traces are not sent: the collector does not answer");
            }
            Err(err) => debug!(error = %err, "last spans not sent"),
        }
    }
}
