// SPDX-License-Identifier: Apache-2.0
//! containerd's registries: the directory of hosts.toml files is used where it is; `registry.mirrors` and
//! `registry.configs`, which stand in the configuration itself, become such files.

use super::super::super::error::Result;
use super::super::findings::{Findings, NewFile};
use super::super::hosts::{self, Endpoint, Registry, Serves, Tls};
use super::super::root::Root;
use super::super::toml_file::strings;
use super::settings::cri_tables;
use crate::cli::containerd::flatten;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::{Table, Value};

const KEY: &str = "registry.config_path";
/// The directories of files if nothing else is set.
const DIRECTORIES: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";
const FROM: &str = "containerd's registry.mirrors and registry.configs";
const CREDENTIALS: &str = "credentials are not copied: give pods an imagePullSecret, or name a file with them by \
                           `image.docker_config`";

/// Sorts the settings of registries into the lists, and writes their files.
///
/// # Errors
/// A directory cannot be listed.
pub(super) fn translate(root: &Root, file: &Table, found: &mut Findings) -> Result<()> {
    let (mut mirrors, mut configs) = (BTreeMap::new(), BTreeMap::new());
    let mut configured = None;
    for registry in cri_tables(file).filter_map(|of| of.get("registry")?.as_table()) {
        for (key, value) in registry {
            let into = match (key.as_str(), value) {
                ("config_path", Value::String(path)) => {
                    configured = Some(path.clone());
                    continue;
                }
                ("mirrors", Value::Table(of)) => (&mut mirrors, of),
                ("configs", Value::Table(of)) => (&mut configs, of),
                ("config_path" | "mirrors" | "configs", _) => {
                    found
                        .lost(&format!("registry.{key}"), "it has another type than in containerd");
                    continue;
                }
                _ => continue,
            };
            into.0.extend(into.1.iter().map(|(host, value)| (host.clone(), value.clone())));
        }
    }
    match configured.filter(|path| !path.is_empty()) {
        Some(path) => directory(root, &path, found)?,
        // Without any setting of registries containerd reads these.
        None if mirrors.is_empty() && configs.is_empty() => directory(root, DIRECTORIES, found)?,
        None => found.same(KEY, "it has no value"),
    }
    files(&mirrors, &configs, found);
    Ok(())
}

/// Takes the first directory that has files; containerd tries several.
fn directory(root: &Root, path: &str, found: &mut Findings) -> Result<()> {
    let mut taken = false;
    for directory in path.split(':').filter(|of| !of.is_empty()) {
        let is_there = !root.names(Path::new(directory))?.is_empty();
        if taken && is_there {
            let why = format!(
                "Hull reads one directory: move the entries of {directory} into the first one"
            );
            found.lost(KEY, why);
        } else if is_there {
            taken = true;
            found.set(KEY, "image.config_path", &directory.into());
        }
    }
    if !taken {
        found.same(KEY, "it has no directory with files in it");
    }
    Ok(())
}

fn files(
    mirrors: &BTreeMap<String, Value>,
    configs: &BTreeMap<String, Value>,
    found: &mut Findings,
) {
    let tls: BTreeMap<&str, Tls> = configs
        .iter()
        .map(|(host, value)| (host.as_str(), of_config(host, value, found)))
        .collect();
    let with_tls = tls.iter().filter(|(_, tls)| **tls != Tls::default()).map(|(host, _)| *host);
    let hosts: BTreeSet<&str> = mirrors.keys().map(String::as_str).chain(with_tls).collect();
    for host in hosts {
        let name = format!("registry.mirrors.\"{}\"", hosts::without_account(host));
        let Some(path) = hosts::path(host) else {
            found.lost(&name, "it is not the name of a registry");
            continue;
        };
        let tls_of = |host: &str| tls.get(host).cloned().unwrap_or_default();
        let mut registry = Registry { server_tls: tls_of(host), ..Registry::default() };
        let mut leaves = Vec::new();
        if let Some(mirror) = mirrors.get(host) {
            flatten(mirror, "", &mut leaves);
        }
        for (key, value) in leaves {
            if key != "endpoint" {
                found.lost(&format!("{name}.{key}"), "hosts.toml has no such setting");
                continue;
            }
            for address in strings(value) {
                if address.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    found.lost(&format!("{name}.endpoint"), "an address has blanks or line breaks");
                    continue;
                }
                if let Some(why) = hosts::refusal(&address) {
                    let bare = hosts::without_account(&address);
                    let bare = bare.split(['?', '#']).next().unwrap_or_default();
                    found.lost(&format!("{name}.endpoint {bare}"), why);
                    continue;
                }
                let tls = tls_of(host_of(&address));
                let serves = Serves::All;
                registry.endpoints.push(Endpoint { address, has_api_path: false, serves, tls });
            }
        }
        if registry == Registry::default() {
            continue;
        }
        found.set(FROM, "image.config_path", &hosts::DIRECTORY.into());
        found.files.push(NewFile { path, text: hosts::text(&registry, FROM) });
    }
}

/// The TLS settings of a host. All others are lost, credentials among them.
fn of_config(host: &str, value: &Value, found: &mut Findings) -> Tls {
    let (mut leaves, mut tls, mut pair) = (Vec::new(), Tls::default(), (None, None));
    flatten(value, "", &mut leaves);
    for (key, value) in leaves {
        let name = format!("registry.configs.\"{}\".{key}", hosts::without_account(host));
        match (key.as_str(), value) {
            ("tls.insecure_skip_verify", Value::Boolean(skip)) => tls.skip_verify = *skip,
            (_, Value::String(text)) if text.is_empty() => {}
            ("tls.ca_file", Value::String(path)) => tls.ca.push(path.clone()),
            ("tls.cert_file", Value::String(path)) => pair.0 = Some(path.clone()),
            ("tls.key_file", Value::String(path)) => pair.1 = Some(path.clone()),
            _ if key.starts_with("auth.") => found.lost(&name, CREDENTIALS),
            _ => found.lost(&name, "hosts.toml has no such setting"),
        }
    }
    tls.client = match pair {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            let why = "a client certificate needs both cert_file and key_file";
            let host = hosts::without_account(host);
            found.lost(&format!("registry.configs.\"{host}\".tls"), why);
            None
        }
    };
    tls
}

/// The host and port of an address.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
