// SPDX-License-Identifier: Apache-2.0
//! The daemon's log: one line per event on stderr, as text or as JSON.
//!
//! The rule: an event is one line, whatever is in it. Fields hold names of images and programs, paths
//! and answers of registries; each is escaped and cut where it becomes text ([`hull_sys::text`]), so
//! only the daemon itself begins a line of its log. A panic is an event as well, since its message
//! may quote such text.

use crate::config::{Log, LogFormat};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown, shown_json, shown_lines};
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log. Called once, before the first event.
pub(crate) fn start(config: &Log) {
    let colours = io::stderr().is_terminal();
    match config.format {
        LogFormat::Text => text(&config.level, colours, io::stderr).init(),
        LogFormat::Json => json(&config.level, io::stderr).init(),
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a bug in hull")));
}

fn text<W>(level: &str, colours: bool, to: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(colours)
        .fmt_fields(fields())
        .with_writer(to)
        .finish()
}

fn json<W>(level: &str, to: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let to = Documents(to);
    tracing_subscriber::fmt().with_env_filter(filter(level)).json().with_writer(to).finish()
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
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

/// Hands on JSON documents, one a line, with every string in them escaped and cut.
#[derive(Debug)]
struct Documents<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Documents<W> {
    type Writer = Document<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Document(self.0.make_writer())
    }
}

/// Takes one document by one write, as `tracing_subscriber::fmt` gives it.
#[derive(Debug)]
struct Document<W>(W);

impl<W: Write> Write for Document<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let safe = match serde_json::from_str(&text) {
            Ok(document) => format!("{}\n", shown_json(&cut(document).to_string())),
            Err(_) => shown_lines(&text).into_owned(),
        };
        self.0.write_all(safe.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The document with every string in it as one line of bounded length.
fn cut(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(shown(text, MESSAGE_BYTES_MAX)),
        Value::Array(items) => Value::Array(items.into_iter().map(cut).collect()),
        Value::Object(items) => {
            Value::Object(items.into_iter().map(|(key, item)| (key, cut(item))).collect())
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};
    use tracing::subscriber::with_default;

    const FORGED: &str =
        "x\n2026-11-29T00:00:00.000000Z  INFO hull: pod removed\r\u{1b}[2J\u{9b}1m\u{202e}";

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
        let log = written(|sink| Box::new(text("info", false, move || sink.clone())));
        assert_three_safe_lines(&log);
        let line = log.lines().nth(1).unwrap();
        assert!(line.contains("plain image=x\\n2026"), "{line}");
    }

    #[test]
    fn an_event_is_one_document_whatever_is_in_it() {
        let log = written(|sink| Box::new(json("info", move || sink.clone())));
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
                Box::new(text("info", false, move || sink.clone()))
            },
            |sink: Sink| -> Box<dyn Subscriber + Send + Sync> {
                Box::new(json("info", move || sink.clone()))
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
}
