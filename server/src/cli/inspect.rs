// SPDX-License-Identifier: Apache-2.0
//! `hull inspect`, and its forms for one kind of objects: everything that the daemon knows of an object.

use super::args::Inspect;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Format};
use super::names::{Object, Objects, Prefer, container_name, namespace, pod_name};
use super::words::{self, About};
use super::{documents, images, output, verbose};
use hull_proto::cri as api;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

/// The kinds of objects that a command looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Any,
    Pods,
    Images,
}

/// Prints one document, or an array of several.
pub(crate) async fn inspect(mut client: Client, args: &Inspect, what: What) -> Result<()> {
    let objects = match what {
        What::Any | What::Pods => Objects::fetch_in(&mut client, &args.place).await?,
        What::Images if args.place.namespace.is_some() => {
            let text = "images have no namespace: omit -n".into();
            return Err(Error::Usage { text });
        }
        What::Images => Objects::default(),
    };
    let mut all = Vec::new();
    for name in &args.names {
        all.push(one(&mut client, &objects, name, what).await?);
    }
    let args = args.output.or(Format::Json);
    if matches!(args.selected(), Format::Template(_) | Format::JsonLines | Format::Name) {
        return all.iter().try_for_each(|(document, name)| {
            format::document(document, std::slice::from_ref(name), &args)
        });
    }
    match all.as_slice() {
        [(one, _)] => format::document(one, &[], &args),
        _ => {
            let all = all.into_iter().map(|(document, _)| document).collect();
            format::document(&Value::Array(all), &[], &args)
        }
    }
}

/// The document of an object, and its name as the lists of its kind have it with `-o name`.
async fn one(
    client: &mut Client,
    objects: &Objects,
    name: &str,
    what: What,
) -> Result<(Value, String)> {
    let object = match what {
        What::Any => objects.find(name, Prefer::Container),
        What::Pods => objects.find_pod(name).map(Object::Pod),
        What::Images => Err(Error::NotFound { kind: "image", name: name.to_owned() }),
    };
    match object {
        Ok(Object::Container(container)) => {
            let answer = verbose::container(client, &container.id).await?;
            let of = document("status", json!(answer.status), &answer.info, About::Container);
            let pod = objects.pod_of(container);
            let (pod, namespace) = (pod.map_or("", pod_name), pod.map_or("", namespace));
            Ok((of, format!("{namespace}/{pod}/{}", container_name(container))))
        }
        Ok(Object::Pod(pod)) => {
            let answer = verbose::pod(client, &pod.id).await?;
            let of = document("status", json!(answer.status), &answer.info, About::Pod);
            Ok((of, format!("{}/{}", namespace(pod), pod_name(pod))))
        }
        Err(Error::NotFound { .. }) if what != What::Pods => {
            let Some(image) = images::find(client, name).await? else {
                let kind = if what == What::Images { "image" } else { "container, pod or image" };
                return Err(Error::NotFound { kind, name: name.to_owned() });
            };
            let of = document("image", json!(image.image), &image.info, About::Container);
            Ok((of, image.image.as_ref().map_or_else(String::new, images::display_name)))
        }
        Err(other) => Err(other),
    }
}

/// The document `{ "<what>": …, "info": … }`. The values of `info` are strings with JSON.
fn document(what: &str, mut status: Value, info: &HashMap<String, String>, about: About) -> Value {
    words::replace(&mut status, about);
    let mut all = Map::from_iter([(what.to_owned(), status)]);
    for (key, text) in info {
        let mut value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        // `pid` is a number there; of a config, it is a mode.
        if let Some(config) = value.get_mut("config") {
            words::replace(config, about);
        }
        all.insert(key.clone(), value);
    }
    Value::Object(all)
}

/// Reads a message of CRI from a file with YAML or JSON. A key that it does not have is an error.
pub(crate) fn message<M>(path: &std::path::Path) -> Result<M>
where
    M: serde::de::DeserializeOwned + serde::Serialize,
{
    let text = documents::text(path)?;
    let bad = |why: String| Error::BadFile { path: path.to_owned(), why };
    let mut given: Value = documents::parse(&text).map_err(bad)?;
    camel_case(&mut given);
    let message: M = serde_json::from_value(given.clone()).map_err(|err| bad(err.to_string()))?;
    let known = serde_json::to_value(&message).map_err(|source| Error::Json { source })?;
    match unknown_key(&given, &known) {
        Some(key) => Err(bad(format!("the message has no field `{key}`"))),
        None => Ok(message),
    }
}

/// The first key of `given` that the parsed message does not have.
fn unknown_key(given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            given.iter().find_map(|(key, inner)| match known.get(key) {
                None => Some(key.clone()),
                Some(known) => unknown_key(inner, known),
            })
        }
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).find_map(|(given, known)| unknown_key(given, known))
        }
        _ => None,
    }
}

/// The document with keys in camel case, where it has those of the protocol, with underscores.
fn camel_case(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let entries = std::mem::take(map);
            for (key, mut inner) in entries {
                // Labels and annotations have keys of their own.
                if !matches!(key.as_str(), "labels" | "annotations" | "sysctls" | "unified") {
                    camel_case(&mut inner);
                }
                map.insert(camel(&key), inner);
            }
        }
        Value::Array(items) => {
            for item in items {
                camel_case(item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// Prints the file systems of images.
pub(crate) async fn image_fs(mut client: Client, args: &format::OutputArgs) -> Result<()> {
    let answer = client.images.image_fs_info(api::ImageFsInfoRequest {}).await?.into_inner();
    let all = answer.image_filesystems.iter().chain(&answer.container_filesystems);
    let paths = all.filter_map(|of| Some(of.fs_id.as_ref()?.mountpoint.clone()));
    let mountpoints: Vec<String> = paths.collect::<BTreeSet<_>>().into_iter().collect();
    let mut document = json!({
        "imageFilesystems": answer.image_filesystems,
        "containerFilesystems": answer.container_filesystems,
    });
    timestamps(&mut document);
    format::document(&document, &mountpoints, &args.or(Format::Json))
}

/// Replaces the numbers of `timestamp` by RFC 3339.
pub(crate) fn timestamps(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_i64() {
                    Some(at) if key == "timestamp" => *inner = format::time(at),
                    _ => timestamps(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(timestamps),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Prints the id of a pod that runs now.
pub(crate) async fn run_pod(mut client: Client, args: &super::args::pods::RunPod) -> Result<()> {
    let config: api::PodSandboxConfig = message(&args.pod_config)?;
    let request =
        api::RunPodSandboxRequest { config: Some(config), runtime_handler: args.runtime.clone() };
    let answer = client.runtime.run_pod_sandbox(request).await?.into_inner();
    output::line(&answer.pod_sandbox_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_crictl_are_read_with_the_names_of_the_protocol() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.json");
        let text = r#"{"metadata": {"name": "web"}, "log_directory": "/l", "labels": {"a_b": "c"},
            "port_mappings": [{"container_port": 80}]}"#;
        std::fs::write(&file, text).unwrap();
        let config: api::PodSandboxConfig = message(&file).unwrap();
        assert_eq!(config.log_directory, "/l");
        assert_eq!(config.labels["a_b"], "c");
        assert_eq!(config.port_mappings[0].container_port, 80);
        std::fs::write(&file, r#"{"metadata": {"nme": "web"}}"#).unwrap();
        let said = message::<api::PodSandboxConfig>(&file).unwrap_err().to_string();
        assert!(said.contains("no field `nme`"), "{said}");
    }
}
