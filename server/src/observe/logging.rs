// SPDX-License-Identifier: Apache-2.0
//! The daemon's log: one line per event on stderr, as text or as [JSON](super::log_json).
//!
//! The rule: an event is one line, whatever is in it. Fields hold names of images and programs, paths
//! and answers of registries; each is escaped and cut where it becomes text ([`hull_sys::text`]), so
//! only the daemon itself begins a line of its log. A panic is an event as well, since its message
//! may quote such text.

use super::log_json::{JsonEvent, JsonFields};
use super::log_level::{LogLevel, targets};
use crate::config::log_filter::Filter;
use crate::config::{Log, LogFormat};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use tracing::Subscriber;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

/// Starts the log. Called once, before the first event.
pub(crate) fn start(config: &Log) -> Arc<LogLevel> {
    // It was checked when the configuration was read.
    let configured = Filter::parse(&config.level).unwrap_or_default();
    let (filter, handle) = reload::Layer::new(targets(&configured));
    match config.format {
        LogFormat::Text => text(filter, io::stderr().is_terminal(), io::stderr).init(),
        LogFormat::Json => json(filter, io::stderr).init(),
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a bug in hull")));
    Arc::new(LogLevel::new(handle, configured))
}

fn text<F, W>(filter: F, colours: bool, to: W) -> impl Subscriber + Send + Sync + 'static
where
    F: Layer<Registry> + Send + Sync + 'static,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer();
    let lines = lines.with_ansi(colours).fmt_fields(fields()).with_writer(to);
    tracing_subscriber::registry().with(filter).with(lines)
}

fn json<F, W>(filter: F, to: W) -> impl Subscriber + Send + Sync + 'static
where
    F: Layer<Registry> + Send + Sync + 'static,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer();
    let lines = lines.event_format(JsonEvent).fmt_fields(JsonFields).with_writer(to);
    tracing_subscriber::registry().with(filter).with(lines)
}

/// Fields as `message name=value …`, each value on one line.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|to, field, value| {
        let value = shown(format!("{value:?}"), MESSAGE_BYTES_MAX);
        match field.name() {
            "message" => to.write_str(&value),
            name => write!(to, "{}={value}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};
    use tracing::subscriber::with_default;

    const FORGED: &str =
        "x\n2026-11-29T00:00:00.000000Z  INFO hull: pod removed\r\u{1b}[2J\u{9b}1m\u{202e}";

    fn info() -> impl Layer<Registry> + Send + Sync + 'static {
        targets(&Filter::default())
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Every way in which text gets into an event, and into the span around it.
    fn events(text: &str) {
        let error = io::Error::other(text.to_owned());
        let source: &dyn std::error::Error = &error;
        let span = tracing::info_span!("plugin", plugin = %text, other = text);
        let _entered = span.enter();
        tracing::info!("{text}");
        tracing::info!(image = %text, program = text, names = ?[text], source, "plain");
        tracing::warn!(error = %error, raw = ?text.as_bytes(), "{}", text);
    }

    fn written(subscriber: impl FnOnce(Sink) -> Box<dyn Subscriber + Send + Sync>) -> String {
        let sink = Sink::default();
        with_default(subscriber(sink.clone()), || events(FORGED));
        let bytes = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap()
    }

    fn assert_three_safe_lines(log: &str) {
        assert_eq!(log.lines().count(), 3, "{log}");
        assert!(!log.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{log:?}");
    }

    #[test]
    fn an_event_is_one_line_of_text_whatever_is_in_it() {
        let log = written(|sink| Box::new(text(info(), false, move || sink.clone())));
        assert_three_safe_lines(&log);
        let line = log.lines().nth(1).unwrap();
        assert!(line.contains("plain image=x\\n2026"), "{line}");
    }

    #[test]
    fn an_event_is_one_document_whatever_is_in_it() {
        let log = written(|sink| Box::new(json(info(), move || sink.clone())));
        assert_three_safe_lines(&log);
        for line in log.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["target"], module_path!());
        }
    }

    #[test]
    fn a_long_field_is_cut() {
        for make in [
            |sink: Sink| -> Box<dyn Subscriber + Send + Sync> {
                Box::new(text(info(), false, move || sink.clone()))
            },
            |sink: Sink| -> Box<dyn Subscriber + Send + Sync> {
                Box::new(json(info(), move || sink.clone()))
            },
        ] {
            let sink = Sink::default();
            with_default(make(sink.clone()), || {
                tracing::info!(name = "long".repeat(1 << 20), "end");
            });
            let log = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert!(log.len() < 2 * MESSAGE_BYTES_MAX, "{}", log.len());
            assert!(String::from_utf8(log).unwrap().contains('…'));
        }
    }

    #[test]
    fn numbers_are_numbers_and_spans_have_their_fields() {
        let sink = Sink::default();
        let to = sink.clone();
        with_default(json(info(), move || to.clone()), || {
            let span = tracing::error_span!("call", verb = "Stop", pod = tracing::field::Empty);
            span.record("pod", "default/web");
            let _entered = span.enter();
            let took = std::time::Duration::from_millis(12);
            tracing::info!(
                took_ms = took.as_millis(),
                pid = 7_i32,
                share = 0.5,
                done = true,
                "ended"
            );
            tracing::debug!("not at this level");
        });
        let log = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let event: Value = serde_json::from_slice(&log).unwrap();
        let fields = serde_json::json!({
            "message": "ended", "took_ms": 12, "pid": 7, "share": 0.5, "done": true,
        });
        assert_eq!(event["fields"], fields);
        let span = serde_json::json!({"name": "call", "verb": "Stop", "pod": "default/web"});
        assert_eq!(event["span"], span);
        assert_eq!(event["spans"], serde_json::json!([span]));
        assert_eq!((&event["level"], &event["target"]), (&"INFO".into(), &module_path!().into()));
        assert!(hull_sys::time::parse_rfc3339(event["timestamp"].as_str().unwrap()).is_some());
    }
}
