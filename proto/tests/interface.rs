// SPDX-License-Identifier: Apache-2.0
//! Holds our CRI interface against the tables of facts in `cri/` (1.36, and what 1.37 added), both ways: nothing is
//! missing, misnumbered or mistyped, and nothing is there that the interface does not have.
#![cfg(feature = "cri")]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test says what went wrong by panicking"
)]

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::BTreeSet;

const TABLES: [&str; 2] =
    [include_str!("../cri/cri-v1.36.tsv"), include_str!("../cri/cri-v1.37.tsv")];

/// The rows of the tables; flags that do not belong to the wire format are left out.
fn wanted() -> BTreeSet<String> {
    TABLES
        .iter()
        .flat_map(|table| table.lines())
        .map(|line| line.split('\t').take(5).collect::<Vec<_>>().join("\t"))
        .map(|row| row.replace(", ", ","))
        .collect()
}

fn short(name: &str) -> &str {
    name.trim_start_matches(".runtime.v1.")
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let scalar = match field.r#type() {
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Uint32 => "uint32",
        Type::Uint64 => "uint64",
        Type::Double => "double",
        Type::Message | Type::Enum => short(field.type_name()),
        other => panic!("the table has no {other:?}"),
    };
    if field.label() != Label::Repeated {
        return scalar.to_owned();
    }
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
            && field.type_name().ends_with(&format!(".{}", nested.name()))
    });
    match entry {
        Some(entry) => {
            let part = |n: usize| type_of(&entry.field[n], entry);
            format!("map<{},{}>", part(0), part(1))
        }
        None => format!("repeated {scalar}"),
    }
}

fn enum_rows(prefix: &str, of: &EnumDescriptorProto, rows: &mut BTreeSet<String>) {
    for value in &of.value {
        rows.insert(format!("enum\t{prefix}{}\t{}\t{}", of.name(), value.name(), value.number()));
    }
}

fn have() -> BTreeSet<String> {
    let set: FileDescriptorSet = prost::Message::decode(hull_proto::INTERFACE).unwrap();
    let file = set.file.iter().find(|file| file.package() == "runtime.v1").unwrap();
    let mut rows = BTreeSet::new();
    for service in &file.service {
        for method in &service.method {
            let stream = if method.server_streaming() { "stream " } else { "" };
            rows.insert(format!(
                "rpc\t{}\t{}\t{}\t{stream}{}",
                service.name(),
                method.name(),
                short(method.input_type()),
                short(method.output_type())
            ));
        }
    }
    for message in &file.message_type {
        if message.field.is_empty() {
            rows.insert(format!("message\t{}\t(empty)", message.name()));
        }
        for field in &message.field {
            let ty = type_of(field, message);
            rows.insert(format!(
                "field\t{}\t{}\t{}\t{ty}",
                message.name(),
                field.name(),
                field.number()
            ));
        }
        for nested in &message.enum_type {
            enum_rows(&format!("{}.", message.name()), nested, &mut rows);
        }
    }
    for of in &file.enum_type {
        enum_rows("", of, &mut rows);
    }
    rows
}

#[test]
fn our_interface_is_the_one_of_the_tables() {
    let (wanted, have) = (wanted(), have());
    assert!(wanted.len() > 600, "the table is cut short: {} rows", wanted.len());
    let missing: Vec<_> = wanted.difference(&have).collect();
    let surplus: Vec<_> = have.difference(&wanted).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}\nsurplus {surplus:#?}");
}

#[test]
fn secrets_are_not_printed() {
    let auth = hull_proto::cri::AuthConfig {
        username: "alice".into(),
        password: "hunter2".into(),
        auth: "YWxpY2U6aHVudGVyMg==".into(),
        identity_token: "idtoken".into(),
        registry_token: "regtoken".into(),
        ..Default::default()
    };
    let request = hull_proto::cri::PullImageRequest { auth: Some(auth), ..Default::default() };
    let shown = format!("{request:?}");
    for secret in ["hunter2", "YWxp", "idtoken", "regtoken"] {
        assert!(!shown.contains(secret), "{secret} is printed: {shown}");
    }
}
