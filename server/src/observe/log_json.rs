// SPDX-License-Identifier: Apache-2.0
//! An event of the log as a JSON document: numbers are numbers, also those of 128 bits, and every text is one line of
//! bounded length.
//!
//! ```json
//! {"timestamp":"…","level":"INFO","target":"hull::pod::task","fields":{"message":"…","took_ms":12},
//!  "span":{"name":"pod","pod":"default/web"},"spans":[…]}
//! ```

use hull_sys::text::{MESSAGE_BYTES_MAX, shown, shown_json};
use hull_sys::time::{now_ns, rfc3339};
use serde_json::{Map, Value, json};
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields that the crate `log` gives its events; the target is used, and the others are noise.
const LOG_PREFIX: &str = "log.";
const LOG_TARGET: &str = "log.target";

/// Writes events as documents.
#[derive(Debug)]
pub(super) struct JsonEvent;

impl<S, N> FormatEvent<S, N> for JsonEvent
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = fields.0.remove(LOG_TARGET);
        let target = target.unwrap_or_else(|| event.metadata().target().into());
        fields.0.retain(|name, _| !name.starts_with(LOG_PREFIX));
        let mut document = json!({
            "timestamp": String::from_utf8_lossy(&rfc3339(now_ns())),
            "level": event.metadata().level().as_str(),
            "target": target,
            "fields": fields.0,
        });
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<N>>();
            let mut fields = formatted.map_or_else(Map::new, |of| parsed(&of.fields));
            fields.insert("name".into(), span.name().into());
            spans.push(Value::Object(fields));
        }
        if let Some(innermost) = spans.last().cloned() {
            document["span"] = innermost;
            document["spans"] = Value::Array(spans);
        }
        // The names of fields are the daemon's own, and so is the target; values are safe already.
        writeln!(writer, "{}", shown_json(&document.to_string()))
    }
}

/// Keeps the fields of a span as an object.
#[derive(Debug)]
pub(super) struct JsonFields;

impl<'w> FormatFields<'w> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut found = Fields::default();
        fields.record(&mut found);
        write!(writer, "{}", Value::Object(found.0))
    }

    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let mut found = Fields(parsed(&current.fields));
        fields.record(&mut found);
        current.fields = Value::Object(found.0).to_string();
        Ok(())
    }
}

/// The object that [`JsonFields`] has written.
fn parsed(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// The fields of an event or a span.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        self.put(field, shown(text, MESSAGE_BYTES_MAX));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.put(field, value),
            Err(_) => self.put(field, value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.put(field, value),
            Err(_) => self.put(field, value.to_string()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, &format!("{value:?}"));
    }
}
