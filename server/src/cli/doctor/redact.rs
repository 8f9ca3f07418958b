// SPDX-License-Identifier: Apache-2.0
//! Removes from a document what a bug report does not need and others must not read. Pure.

use serde_json::Value;

/// Stands for a value that was removed.
const REDACTED: &str = "[redacted]";

/// Parts of keys whose values are removed: credentials, and what containers run and write.
const SECRET_KEYS: [&str; 14] = [
    "password",
    "passwd",
    "token",
    "secret",
    "credential",
    "auth",
    "privatekey",
    "env",
    "args",
    "command",
    "annotations",
    "output",
    "stdout",
    "stderr",
];

/// Removes secrets from a document, by the names of its keys and by the form of its texts.
pub(super) fn document(value: &mut Value, hostname: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.to_lowercase().replace(['_', '-'], "");
                if SECRET_KEYS.iter().any(|part| key.contains(part)) && !is_empty(value) {
                    *value = Value::String(REDACTED.into());
                } else {
                    document(value, hostname);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| document(item, hostname)),
        Value::String(text) => *text = self::text(text, hostname),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Removes account and password from addresses, and the name of this host.
pub(super) fn text(text: &str, hostname: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c == '/' || c == '"' || c.is_whitespace());
        let (authority, tail) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(REDACTED);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    // A name of one or two letters is a part of other words.
    if hostname.len() > 2 { out.replace(hostname, "this-node") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_removed_wherever_they_are() {
        let mut value = json!({
            "config": {"envs": [{"key": "DB_PASSWORD", "value": "hunter2"}], "image": "app:1"},
            "list": [{"registryToken": "abc"}, {"args": ["--key=hunter2"]}],
            "proxy": "http://me:hunter2@proxy.example:3128/x and https://plain.example",
            "failedExec": {"command": "echo hunter2", "output": "hunter2", "atNs": 5},
            "execs": 4,
            "node": "worker-17.example",
        });
        document(&mut value, "worker-17.example");
        let text = value.to_string();
        assert!(!text.contains("hunter2") && !text.contains("abc\""), "{text}");
        assert!(!text.contains("worker-17"), "{text}");
        assert!(text.contains("proxy.example:3128/x") && text.contains("app:1"), "{text}");
        assert_eq!(value["execs"], 4);
    }

    #[test]
    fn a_configuration_keeps_its_settings() {
        let text = "[a]\nmtu = 1450\ntoken = \"\"\"\nx\nhunter2\"\"\"\nurl = \"http://u:p@h\"\n";
        let mut value: Value = toml::from_str(text).unwrap();
        document(&mut value, "");
        let wanted =
            json!({"a": {"mtu": 1450, "token": "[redacted]", "url": "http://[redacted]@h"}});
        assert_eq!(value, wanted);
    }

    #[test]
    fn odd_text_is_left_as_it_is() {
        for odd in ["", "://", "a://@", "://x://y"] {
            let _printed = self::text(odd, "a");
        }
        assert_eq!(self::text("mail@example.org", "ab"), "mail@example.org");
    }
}
