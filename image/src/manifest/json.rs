// SPDX-License-Identifier: Apache-2.0
//! JSON as Go's decoder takes it, with which every builder and registry was tried: null stands for a value that
//! is absent, of a key that comes twice the last one counts, and keys match without regard to case.
//!
//! Pure.

use serde_json::{Map, Value};

/// Parses a document, without its nulls.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|err| err.to_string())?;
    drop_nulls(&mut value);
    Ok(value)
}

/// Maps to strings, and sets in the form of maps: their nulls are empty values.
const MAPS: [(&str, &str); 4] =
    [("Labels", "\"\""), ("annotations", "\"\""), ("Volumes", "{}"), ("ExposedPorts", "{}")];

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, empty) in MAPS {
                let Some(Value::Object(of)) = entry(map, key) else { continue };
                for value in of.values_mut().filter(|value| value.is_null()) {
                    *value = serde_json::from_str(empty).unwrap_or_default();
                }
            }
            map.retain(|_, value| !value.is_null());
            // Their keys are any text, and not those of documents.
            let is_map = |key: &str| MAPS.iter().any(|(of, _)| *of == key);
            map.iter_mut().filter(|(key, _)| !is_map(key)).for_each(|(_, value)| drop_nulls(value));
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The value of a key, which may be spelled in another case.
fn entry<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Value> {
    respell(map, &[key]);
    map.get_mut(key)
}

/// Gives these keys their own spelling.
pub(super) fn respell(map: &mut Map<String, Value>, keys: &[&str]) {
    for key in keys {
        if map.contains_key(*key) {
            continue;
        }
        let other = map.keys().find(|other| other.eq_ignore_ascii_case(key)).cloned();
        if let Some(value) = other.and_then(|other| map.remove(&other)) {
            map.insert((*key).to_owned(), value);
        }
    }
}

/// The object under a key, made if it is absent.
pub(super) fn object<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    map.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_are_absent_and_the_last_of_two_keys_counts() {
        let bytes = br#"{"a": null, "b": [1, {"c": null, "d": 2}], "b2": 1, "b2": 2,
            "config": {"Volumes": {"/v": null}, "labels": {"x": null}, "exposedports": null}}"#;
        let wanted = json!({
            "b": [1, {"d": 2}], "b2": 2, "config": {"Volumes": {"/v": {}}, "Labels": {"x": ""}},
        });
        assert_eq!(parse(bytes).unwrap(), wanted);
        assert!(parse(b"{").is_err());
        // A label may have the name of a key.
        let labels =
            json!({"volumes": "v", "labels": "l", "Annotations": "a", "exposedports": "e"});
        let value =
            json!({"config": {"Labels": labels, "Volumes": {"labels": {}}}, "annotations": labels});
        assert_eq!(parse(value.to_string().as_bytes()).unwrap(), value);
    }
}
