// SPDX-License-Identifier: Apache-2.0
//! Messages of CRI as JSON with words: names of states, signals and modes for their numbers, RFC 3339 for times.
//! Pure.

use super::format;
use hull_proto::cri as api;
use serde_json::Value;

/// The kind of the object that a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Container,
    Pod,
}

/// Replaces the numbers in a message.
pub(crate) fn replace(value: &mut Value, about: About) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_i64().and_then(|number| word(key, number, about)) {
                    Some(word) => *inner = word,
                    None => replace(inner, about),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, about)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The word for the number of this key; `None` if it is a plain number.
fn word(key: &str, number: i64, about: About) -> Option<Value> {
    let small = i32::try_from(number).ok();
    let name = match key {
        "createdAt" | "startedAt" | "finishedAt" => return Some(format::time(number)),
        "state" => match about {
            About::Container => api::ContainerState::try_from(small?).ok()?.as_str_name(),
            About::Pod => api::PodSandboxState::try_from(small?).ok()?.as_str_name(),
        },
        "stopSignal" => api::Signal::try_from(small?).ok()?.as_str_name(),
        "network" | "pid" | "ipc" | "mode" => {
            api::NamespaceMode::try_from(small?).ok()?.as_str_name()
        }
        "protocol" => api::Protocol::try_from(small?).ok()?.as_str_name(),
        "propagation" => api::MountPropagation::try_from(small?).ok()?.as_str_name(),
        "profileType" => api::security_profile::ProfileType::try_from(small?).ok()?.as_str_name(),
        "supplementalGroupsPolicy" => {
            api::SupplementalGroupsPolicy::try_from(small?).ok()?.as_str_name()
        }
        _ => return None,
    };
    Some(Value::String(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_become_words() {
        let mut status = json!(api::ContainerStatus {
            state: 1,
            created_at: 1_000_000_000,
            stop_signal: 41,
            exit_code: 1,
            ..Default::default()
        });
        replace(&mut status, About::Container);
        assert_eq!(status["state"], "CONTAINER_RUNNING");
        assert_eq!(status["createdAt"], "1970-01-01T00:00:01.000000000Z");
        assert_eq!(status["finishedAt"], "");
        assert!(status["stopSignal"].is_string(), "{status}");
        assert_eq!(status["exitCode"], 1);
    }
}
