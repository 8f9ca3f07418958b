// SPDX-License-Identifier: Apache-2.0
//! The ConfigMaps and Secrets of a manifest: documents of the same file, as there is no cluster that has them. Pure.

use super::super::documents;
use super::manifest::Metadata;
use super::validate;
use data_encoding::BASE64;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Longest key, in bytes, as in Kubernetes.
const KEY_BYTES_MAX: usize = 253;

/// Before the name of the namespace in which a document is that is looked for in another one.
pub(super) const IN_ANOTHER: &str = ", but one in namespace `";

/// Values by key.
pub(super) type Values = BTreeMap<String, Vec<u8>>;

/// A kind of documents with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DataKind {
    ConfigMap,
    Secret,
}

impl DataKind {
    /// The kind with this name.
    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "ConfigMap") => Some(Self::ConfigMap),
            ("v1", "Secret") => Some(Self::Secret),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigMap {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    binary_data: BTreeMap<String, String>,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    /// Nothing here changes a value.
    #[serde(default, rename = "immutable")]
    _immutable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Secret {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default, rename = "immutable")]
    _immutable: bool,
    /// Says a cluster which keys it must have.
    #[serde(default, rename = "type")]
    _type: Option<String>,
}

/// All of them, by kind, namespace and name.
#[derive(Debug, Default)]
pub(super) struct Data {
    all: BTreeMap<(DataKind, String, String), Document>,
}

/// The values of one document.
#[derive(Debug)]
struct Document {
    values: Values,
    /// The keys of `binaryData`, which are files, but not variables.
    binary: BTreeSet<String>,
}

impl Data {
    /// Adds a document.
    ///
    /// # Errors
    /// It is not of its kind, a key or value is not valid, or another one has its name.
    pub(super) fn add(&mut self, kind: DataKind, document: &str) -> Result<(), String> {
        let (metadata, plain, encoded) = match kind {
            DataKind::ConfigMap => {
                let of: ConfigMap = documents::parse(document)?;
                (of.metadata, of.data, of.binary_data)
            }
            DataKind::Secret => {
                let of: Secret = documents::parse(document)?;
                (of.metadata, of.string_data, of.data)
            }
        };
        let mut values = Values::new();
        let mut binary = BTreeSet::new();
        if kind == DataKind::ConfigMap {
            binary.extend(encoded.keys().filter(|key| !plain.contains_key(*key)).cloned());
        }
        for (key, text) in encoded {
            let text: String = text.split_ascii_whitespace().collect();
            let bytes = BASE64.decode(text.as_bytes());
            let bytes = bytes.map_err(|_| format!("the value of `{key}` is not base64"))?;
            values.insert(key, bytes);
        }
        // As in a cluster, these replace the others.
        values.extend(plain.into_iter().map(|(key, text)| (key, text.into_bytes())));
        if let Some(key) = values.keys().find(|key| !is_key(key)) {
            return Err(format!("`{key}` is not a key of letters, digits, `-`, `_` and `.`"));
        }
        validate::subdomain(&format!("the name of a {}", kind.name()), &metadata.name)?;
        let namespace = metadata.namespace().to_owned();
        let name = metadata.name.clone();
        if self.all.insert((kind, namespace, metadata.name), Document { values, binary }).is_some()
        {
            return Err(format!("{} `{name}` is there twice", kind.name()));
        }
        Ok(())
    }

    /// The values of one; none if it is optional and not there.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn find(
        &self,
        kind: DataKind,
        (namespace, name): (&str, &str),
        optional: bool,
    ) -> Result<Option<&Values>, String> {
        Ok(self.document(kind, (namespace, name), optional)?.map(|of| &of.values))
    }

    /// The values that become variables, by key.
    ///
    /// # Errors
    /// It is not there, and not optional.
    pub(super) fn texts(
        &self,
        kind: DataKind,
        at: (&str, &str),
        optional: bool,
    ) -> Result<impl Iterator<Item = (&String, &Vec<u8>)>, String> {
        let document = self.document(kind, at, optional)?.into_iter();
        Ok(document.flat_map(|of| of.values.iter().filter(|(key, _)| !of.binary.contains(*key))))
    }

    fn document(
        &self,
        kind: DataKind,
        (namespace, name): (&str, &str),
        optional: bool,
    ) -> Result<Option<&Document>, String> {
        match self.all.get(&(kind, namespace.to_owned(), name.to_owned())) {
            Some(document) => Ok(Some(document)),
            None if optional => Ok(None),
            None => {
                let other = self.all.keys().find(|of| of.0 == kind && of.2 == name);
                let other = other.map_or_else(String::new, |(_, namespace, _)| {
                    format!("{IN_ANOTHER}{namespace}`")
                });
                let kind = kind.name();
                Err(format!("the file has no {kind} `{name}` in namespace `{namespace}`{other}"))
            }
        }
    }

    /// One value; none if it is optional and not there.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn value(
        &self,
        kind: DataKind,
        (namespace, name): (&str, &str),
        key: &str,
        optional: bool,
    ) -> Result<Option<&[u8]>, String> {
        let Some(values) = self.find(kind, (namespace, name), optional)? else { return Ok(None) };
        match values.get(key) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(format!("{} `{name}` has no key `{key}`", kind.name())),
        }
    }
}

/// Whether a key may be the name of a file.
fn is_key(key: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !key.is_empty()
        && key.len() <= KEY_BYTES_MAX
        && key.bytes().all(is_plain)
        && key != "."
        && !key.starts_with("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(kind: DataKind, rest: &str) -> Result<Data, String> {
        let mut data = Data::default();
        let kind_name = kind.name();
        let text = format!("apiVersion: v1\nkind: {kind_name}\nmetadata: {{name: of}}\n{rest}");
        data.add(kind, &text).map(|()| data)
    }

    #[test]
    fn values_are_text_or_base64() {
        let data = added(DataKind::Secret, "data: {a: aGk=}\nstringData: {b: text}\n").unwrap();
        let value = |key| data.value(DataKind::Secret, ("default", "of"), key, false);
        assert_eq!(
            (value("a").unwrap(), value("b").unwrap()),
            (Some(&b"hi"[..]), Some(&b"text"[..]))
        );
        assert!(value("c").unwrap_err().contains("no key `c`"));
        let optional = data.value(DataKind::Secret, ("default", "of"), "c", true);
        assert_eq!(optional.unwrap(), None);
        let missing = data.find(DataKind::ConfigMap, ("default", "of"), false).unwrap_err();
        assert!(missing.contains("no ConfigMap `of`"), "{missing}");
        let data = added(DataKind::ConfigMap, "data: {a: hi}\nbinaryData: {b: AAE=}\n").unwrap();
        let values = data.find(DataKind::ConfigMap, ("default", "of"), false).unwrap().unwrap();
        assert_eq!(values["b"], [0, 1]);
    }

    #[test]
    fn a_key_is_the_name_of_a_file_and_nothing_else() {
        for key in ["../x", "a/b", ".", "..", "..data", "\"\"", "ä"] {
            added(DataKind::ConfigMap, &format!("data: {{{key}: x}}\n")).unwrap_err();
        }
        assert!(added(DataKind::Secret, "data: {a: '*'}\n").unwrap_err().contains("base64"));
        assert!(added(DataKind::Secret, "colour: red\n").unwrap_err().contains("colour"));
    }
}
