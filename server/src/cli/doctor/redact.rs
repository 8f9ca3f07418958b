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

/// Keys whose texts are addresses also without a scheme.
const ADDRESS_KEYS: [&str; 6] = ["mirrors", "mirror", "proxy", "httpproxy", "httpsproxy", "realm"];

/// Removes secrets from a document, by the names of its keys and by the form of its texts.
pub(super) fn document(value: &mut Value, hostname: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.to_lowercase().replace(['_', '-'], "");
                if SECRET_KEYS.iter().any(|part| key.contains(part)) && !is_empty(value) {
                    *value = Value::String(REDACTED.into());
                } else {
                    if ADDRESS_KEYS.contains(&key.as_str()) {
                        of_address(value);
                    }
                    document(value, hostname);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| document(item, hostname)),
        Value::String(text) => *text = self::text(text, hostname),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Shortens an address, or a list of them, that has no scheme; [`addresses`] finds the others.
fn of_address(value: &mut Value) {
    match value {
        Value::String(text) if !text.contains("://") => *text = shortened(text),
        Value::Array(items) => items.iter_mut().for_each(of_address),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
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

/// Removes everything but scheme, host and port from addresses, and the name of this host.
pub(super) fn text(text: &str, hostname: &str) -> String {
    let out = addresses(text);
    // A name of one or two letters is a part of other words.
    if hostname.len() > 2 { out.replace(hostname, "this-node") } else { out }
}

/// The text with nothing of its addresses but scheme, host and port: a path or query may be a token.
fn addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        // Anything else may be a part of it.
        let is_end = |c: char| c.is_whitespace() || "\"<>`".contains(c);
        let (address, tail) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        let (word, after_word) =
            tail.split_at(tail.find(char::is_whitespace).unwrap_or(tail.len()));
        // What ended the address may be a character of its password.
        if word.contains('@') {
            out.push_str(REDACTED);
            rest = after_word;
        } else {
            out.push_str(&shortened(address));
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// An address without its scheme: host and port.
fn shortened(address: &str) -> String {
    let end = address.find(['/', '?', '#', '\\']).unwrap_or(address.len());
    let (authority, path) = address.split_at(end);
    if path.contains('@') {
        // A slash in a password ends the authority too early, and what is before it looks like host and port.
        return format!("{REDACTED}/{REDACTED}");
    }
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (format!("{REDACTED}@"), host),
        None => (String::new(), authority),
    };
    // Anything but a number in the place of the port is a part of a password.
    let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map(|(_, port)| port);
    let host = match port {
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) => REDACTED,
        Some(_) | None => host,
    };
    let path = if matches!(path, "" | "/") { path.to_owned() } else { format!("/{REDACTED}") };
    format!("{user}{host}{path}")
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
        assert!(text.contains("proxy.example:3128/[redacted]") && text.contains("app:1"), "{text}");
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
    fn of_addresses_only_scheme_host_and_port_stay() {
        for (address, wanted) in [
            ("http://127.0.0.1:1/v2?token=hunter2", "http://127.0.0.1:1/[redacted]"),
            ("https://mirror.example/hunter2/v2", "https://mirror.example/[redacted]"),
            ("https://mirror.example?hunter2", "https://mirror.example/[redacted]"),
            ("https://mirror.example#hunter2", "https://mirror.example/[redacted]"),
            ("https://mirror.example:443/", "https://mirror.example:443/"),
            ("socks5://me:hunter2@[fd00::1]:1080", "socks5://[redacted]@[fd00::1]:1080"),
            ("http://[fd00::1]/x", "http://[fd00::1]/[redacted]"),
            ("http://me:hun/ter2@proxy", "http://[redacted]/[redacted]"),
            ("http://me:12345/hunter2@proxy x", "http://[redacted]/[redacted] x"),
            ("http://hunter2/x@proxy", "http://[redacted]/[redacted]"),
            ("http://hunter2?x@proxy", "http://[redacted]/[redacted]"),
            ("http://me@corp:12345/x@proxy", "http://[redacted]/[redacted]"),
            ("http://me:hunter2\"hunter2@proxy x", "http://[redacted] x"),
            ("http://hunter2\"hunter2<hunter2@proxy/y\nx", "http://[redacted]\nx"),
            ("proxy \"http://me:1`hunter2@proxy\" x", "proxy \"http://[redacted] x"),
            ("\"http://b/hunter2\" me@c", "\"http://b/[redacted]\" me@c"),
            (
                "Bearer realm=\"https://auth.example/hunter2\",service=\"x\"",
                "Bearer realm=\"https://auth.example/[redacted]\",service=\"x\"",
            ),
            ("['http://b/hunter2']", "['http://b/[redacted]"),
            ("http://b/a,hunter2;hunter2'hunter2)", "http://b/[redacted]"),
        ] {
            assert_eq!(self::text(address, ""), wanted);
        }
    }

    #[test]
    fn mirrors_need_no_scheme_to_be_shortened() {
        let mirrors = ["me:hunter2@a:5000/hunter2", "b.example/hunter2", "http://c/hunter2"];
        let mut value = json!({"registry": [{"mirrors": mirrors}], "proxy": "me:hunter2@d"});
        document(&mut value, "");
        let mirrors =
            ["[redacted]@a:5000/[redacted]", "b.example/[redacted]", "http://c/[redacted]"];
        let wanted = json!({"registry": [{"mirrors": mirrors}], "proxy": "[redacted]@d"});
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
