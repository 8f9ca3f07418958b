// SPDX-License-Identifier: Apache-2.0
//! JSON schemas of printed objects, made from their fields. Pure.

use super::fields::{Kind, Kinds};
use serde_json::{Map, Value, json};

/// The JSON schema (2020-12) of one object of a kind.
pub(crate) fn of(kind: &Kinds) -> Value {
    let properties: Map<String, Value> = kind
        .fields
        .iter()
        .map(|field| {
            let mut schema = types(field.kind);
            schema["description"] = field.doc.into();
            (field.key.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = kind.fields.iter().map(|field| field.key).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn types(kind: Kind) -> Value {
    match kind {
        Kind::Text | Kind::Word | Kind::Id => json!({"type": "string"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::Bytes | Kind::Number => json!({"type": ["integer", "null"]}),
        Kind::Decimal => json!({"type": ["number", "null"]}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::List => json!({"type": "array"}),
        Kind::Map => json!({"type": "object"}),
        Kind::Object => json!({"type": ["object", "array", "null"]}),
    }
}
