// SPDX-License-Identifier: Apache-2.0
//! The environment of a container, and the variables in its command, as a kubelet resolves them. Pure.

use super::data::{Data, DataKind};
use super::fields::PodFacts;
use super::manifest::{Container, EnvVar, ValueFrom};
use hull_proto::cri as api;
use std::collections::BTreeMap;

/// The variables of a container, by name.
pub(super) type Variables = BTreeMap<String, String>;

/// Resolves the variables: those of `envFrom` first, then those of `env`, each of which may refer to earlier ones.
///
/// # Errors
/// The sentence names the variable, or the part of `envFrom`.
pub(super) fn variables(
    of: &Container,
    facts: &PodFacts<'_>,
    data: &Data,
) -> Result<Variables, String> {
    let mut all = Variables::new();
    let namespace = facts.pod.metadata.namespace();
    for source in &of.env_from {
        let (kind, from) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(from), None) => (DataKind::ConfigMap, from),
            (None, Some(from)) => (DataKind::Secret, from),
            _ => return Err("envFrom has neither configMapRef nor secretRef, or both".into()),
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let values = data
            .texts(kind, (namespace, &from.name), from.optional)
            .map_err(|why| format!("envFrom: {why}"))?;
        for (key, value) in values {
            let name = format!("{prefix}{key}");
            let value = text(value).map_err(|why| format!("envFrom: `{key}` {why}"))?;
            all.insert(name, value);
        }
    }
    for variable in &of.env {
        let name = &variable.name;
        let bad = |why: String| format!("env `{name}`: {why}");
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(bad("it is not a name of a variable".into()));
        }
        let value = match (&variable.value, &variable.value_from) {
            (Some(_), Some(_)) => return Err(bad("it has both value and valueFrom".into())),
            (value, None) => Some(expanded(value.as_deref().unwrap_or_default(), &all)),
            (None, Some(from)) => value(variable, from, of, facts, data).map_err(bad)?,
        };
        all.extend(value.map(|value| (name.clone(), value)));
    }
    Ok(all)
}

/// The value of one variable; none if it is optional and not there.
fn value(
    variable: &EnvVar,
    from: &ValueFrom,
    of: &Container,
    facts: &PodFacts<'_>,
    data: &Data,
) -> Result<Option<String>, String> {
    let namespace = facts.pod.metadata.namespace();
    let keys =
        [(DataKind::ConfigMap, &from.config_map_key_ref), (DataKind::Secret, &from.secret_key_ref)];
    let keys = keys.into_iter().filter_map(|(kind, key)| Some((kind, key.as_ref()?)));
    let keys: Vec<_> = keys.collect();
    match (keys.as_slice(), &from.field_ref, &from.resource_field_ref) {
        ([(kind, of)], None, None) => {
            let found = data.value(*kind, (namespace, &of.name), &of.key, of.optional)?;
            found.map(text).transpose().map_err(|why| format!("its value {why}"))
        }
        ([], Some(field), None) => facts.of_env(&field.field_path).map(Some),
        ([], None, Some(field)) => facts.resource(field, Some(of)).map(Some),
        _ => Err(format!(
            "valueFrom of `{}` is not one of configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef",
            variable.name
        )),
    }
}

/// A value as text, which a variable is.
fn text(bytes: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text in UTF-8")?;
    if text.contains('\0') { Err("has a byte of value 0") } else { Ok(text.to_owned()) }
}

/// The variables for CRI.
pub(super) fn pairs(variables: &Variables) -> Vec<api::KeyValue> {
    let pair = |(key, value): (&String, &String)| api::KeyValue {
        key: key.clone(),
        value: value.clone().into_bytes(),
    };
    variables.iter().map(pair).collect()
}

/// Replaces `$(NAME)` by the value of a variable; `$$` is a `$`, and a name that is not known stays as it is.
pub(super) fn expanded(text: &str, variables: &Variables) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'))
        {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::super::documents;
    use super::super::fields::NodeFacts;
    use super::super::manifest::Pod;
    use super::*;
    use proptest::prelude::*;

    const CONFIG: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: conf}, data: {PORT: '80', HOST: a}, binaryData: {RAW: /w==}}";
    const SECRET: &str = "{apiVersion: v1, kind: Secret, metadata: {name: key}, stringData: {password: s}, data: {raw: /w==}}";

    fn resolved(env: &str) -> Result<Variables, String> {
        let mut data = Data::default();
        data.add(DataKind::ConfigMap, CONFIG).unwrap();
        data.add(DataKind::Secret, SECRET).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers:\n  - name: app\n    image: i\n{env}"
        );
        let pod: Pod = documents::parse(&text)?;
        let (node, ips) = (NodeFacts::default(), ["10.1.0.2".to_owned()]);
        let facts = PodFacts { pod: &pod, uid: "u", node: &node, ips: &ips };
        variables(&pod.spec.containers[0], &facts, &data)
    }

    #[test]
    fn variables_come_from_values_config_maps_secrets_and_the_pod() {
        let all = resolved(
            "    envFrom: [{configMapRef: {name: conf}}, {prefix: S_, secretRef: {name: none, optional: true}}]
    env:
    - {name: HOST, value: b}
    - {name: URL, value: 'http://$(HOST):$(PORT)/$(NONE)/$$(PORT)'}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: conf, key: x, optional: true}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
",
        )
        .unwrap();
        assert_eq!(all["URL"], "http://b:80/$(NONE)/$(PORT)");
        assert_eq!((all["PASSWORD"].as_str(), all["IP"].as_str()), ("s", "10.1.0.2"));
        assert!(!all.contains_key("ABSENT"), "{all:?}");
        assert!(!all.contains_key("RAW"), "binaryData makes no variables: {all:?}");
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        for (env, name) in [
            ("    envFrom: [{configMapRef: {name: none}}]\n", "no ConfigMap `none`"),
            ("    envFrom: [{secretRef: {name: key}}]\n", "`raw` is not text"),
            ("    envFrom: [{prefix: x}]\n", "neither configMapRef nor secretRef"),
            ("    env: [{name: A, valueFrom: {}}]\n", "valueFrom of `A`"),
            ("    env: [{name: A, value: x, valueFrom: {}}]\n", "both value and valueFrom"),
            ("    env: [{name: 'A=B', value: x}]\n", "not a name"),
            (
                "    env: [{name: A, valueFrom: {secretKeyRef: {name: key, key: no}}}]\n",
                "no key `no`",
            ),
            (
                "    env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]\n",
                "status.phase",
            ),
            ("    env: [{name: A, valueFrom: {fileKeyRef: {}}}]\n", "fileKeyRef"),
        ] {
            let said = resolved(env).unwrap_err();
            assert!(said.contains(name), "{name}: {said}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_as_it_was(text in "[^$]{0,40}") {
            prop_assert_eq!(expanded(&text, &Variables::new()), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[$()A-Cé]{0,20}") {
            let variables = Variables::from([("A".to_owned(), "x".to_owned())]);
            let _expanded = expanded(&text, &variables);
        }
    }
}
