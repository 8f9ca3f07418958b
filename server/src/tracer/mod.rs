// SPDX-License-Identifier: Apache-2.0
//! Traces of verbs and their stages, for a collector of OpenTelemetry: by setting, else this costs a comparison.
//!
//! ```text
//! kubelet ──traceparent──▶ call ──current span──▶ command to the pod's task ──▶ stage of the timeline ──▶ its parts
//!                           │                                                        │
//!                           └──────────────── spans, when they end ──────────────────┴──▶ export (OTLP)
//! ```
//!
//! The rule: the caller decides whether a call is traced; only calls without a trace of their own are sampled here. A
//! span exists only in a trace that is recorded. The work of a verb is below the call that requested it, also when that
//! ends earlier.

mod collector;
mod export;
mod span;

pub(crate) use collector::Error;
pub(crate) use span::{Ended, Span, SpanPlace, current, within};

use crate::config::Tracing;
use export::Exporter;
use span::random;
use tonic::codegen::http::HeaderMap;

/// The header with the trace of a caller. <https://www.w3.org/TR/trace-context/>
const TRACEPARENT: &str = "traceparent";

/// Records traces, if that is configured.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    exporter: Exporter,
    sample_percent: u64,
}

impl Tracer {
    /// Starts to record as configured. Must be called in the async runtime.
    pub(crate) fn start(settings: &Tracing) -> Result<Self, Error> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self::default()) };
        let exporter = Exporter::start(settings, endpoint)?;
        let sample_percent = settings.sample_percent;
        Ok(Self { recording: Some(Recording { exporter, sample_percent }) })
    }

    /// The span of a call with these headers, if it is traced.
    pub(crate) fn call(&self, headers: &HeaderMap) -> Option<Span> {
        let recording = self.recording.as_ref()?;
        let header = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let Some(caller) = header.and_then(parse) else {
            if random() % 100 >= recording.sample_percent {
                return None;
            }
            let trace = (u128::from(random()) << 64) | u128::from(random());
            let place = SpanPlace { trace, id: random() };
            return Some(Span { place, parent: 0, is_remote: false });
        };
        caller.is_recorded.then(|| Span { is_remote: true, ..Span::below(caller.place) })
    }

    /// Records a span that has ended.
    pub(crate) fn ended(&self, ended: Ended) {
        if let Some(recording) = &self.recording {
            recording.exporter.export(ended);
        }
    }

    /// Sends what was recorded, within a short time. Blocks.
    pub(crate) fn finish(&self) {
        if let Some(recording) = &self.recording {
            recording.exporter.finish();
        }
    }
}

/// The trace of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caller {
    place: SpanPlace,
    is_recorded: bool,
}

/// Reads a header of version 00, or what later versions have in common with it. Anything else is ignored.
fn parse(header: &str) -> Option<Caller> {
    let mut parts = header.split('-');
    let mut field = |digits: usize| {
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        parts.next().filter(|part| part.len() == digits && part.chars().all(is_hex))
    };
    let (version, trace, id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let id = u64::from_str_radix(id, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(Caller { place: SpanPlace { trace, id }, is_recorded: flags & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_trace_of_a_caller_is_read_and_nonsense_is_ignored() {
        let header = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let caller = parse(&header).unwrap();
        assert_eq!(caller.place.trace, u128::from_str_radix(TRACE, 16).unwrap());
        assert_eq!((caller.place.id, caller.is_recorded), (0x00f0_67aa_0ba9_02b7, true));
        assert!(!parse(&format!("00-{TRACE}-00f067aa0ba902b7-00")).unwrap().is_recorded);
        assert!(parse(&format!("cc-{TRACE}-00f067aa0ba902b7-01-later")).is_some());
        for wrong in [
            String::new(),
            format!("{header}-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            header.to_uppercase(),
            header.replace("-01", "-1"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nothing_is_traced_without_a_setting() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap());
        assert_eq!(Tracer::start(&Tracing::default()).unwrap().call(&headers), None);
    }
}
