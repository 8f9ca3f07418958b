// SPDX-License-Identifier: Apache-2.0
//! registries.conf: its registries and mirrors become hosts.toml files, with the certificates of
//! /etc/containers/certs.d.
//!
//! A hosts.toml is for all repositories of one host, so a prefix with a path or a wildcard has no counterpart.

use super::super::super::error::Result;
use super::super::findings::{Findings, NewFile};
use super::super::hosts::{self, Endpoint, Registry, Serves, Tls};
use super::super::root::Root;
use super::super::toml_file::{merge, read, strings};
use crate::cli::containerd::flatten;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const FILE: &str = "/etc/containers/registries.conf";
const DROP_INS: &str = "/etc/containers/registries.conf.d";
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
const FROM: &str = "registries.conf and certs.d of CRI-O";

/// Sorts the settings into the lists, and writes the files.
///
/// # Errors
/// A file cannot be read or parsed.
pub(super) fn translate(root: &Root, found: &mut Findings) -> Result<()> {
    let names = root.names(Path::new(DROP_INS))?;
    let drop_ins = names.iter().filter(|name| name.ends_with(".conf"));
    let drop_ins = drop_ins.map(|name| Path::new(DROP_INS).join(name));
    let (mut others, mut tables) = (Table::new(), BTreeMap::new());
    for path in std::iter::once(PathBuf::from(FILE)).chain(drop_ins) {
        let Some(mut file) = read(root, &path)? else { continue };
        found.sources.push(path.display().to_string());
        let all = match file.remove("registry") {
            Some(Value::Array(all)) => all,
            other => other.into_iter().collect(),
        };
        for of in all {
            let Value::Table(of) = of else {
                found.lost("registry", "it is not a table");
                continue;
            };
            // A later file replaces the registry of an earlier one.
            match string(&of, "prefix").or_else(|| string(&of, "location")) {
                Some(prefix) => drop(tables.insert(prefix, of)),
                None => found.lost("registry", "it has neither `prefix` nor `location`"),
            }
        }
        merge(&mut others, file);
    }
    beside(&others, found);
    let certificates = certificates(root)?;
    let mut registries = BTreeMap::new();
    for (prefix, table) in &tables {
        if let Some(registry) = of_table(prefix, table, &certificates, found) {
            registries.insert(prefix.clone(), registry);
        }
    }
    for (host, tls) in &certificates {
        let entry = registries.entry(host.clone()).or_insert_with(Registry::default);
        if entry.server.is_none() {
            entry.server_tls.ca.clone_from(&tls.ca);
            entry.server_tls.client.clone_from(&tls.client);
        }
    }
    for (host, registry) in registries.iter().filter(|(_, of)| **of != Registry::default()) {
        match hosts::path(host) {
            Some(path) => {
                found.set(FROM, "image.config_path", &hosts::DIRECTORY.into());
                found.files.push(NewFile { path, text: hosts::text(registry, FROM) });
            }
            None => found.lost(
                &format!("registry \"{}\"", hosts::without_account(host)),
                "it is not the name of a registry",
            ),
        }
    }
    Ok(())
}

/// The settings that are not of one registry.
fn beside(others: &Table, found: &mut Findings) {
    let mut leaves = Vec::new();
    for (key, value) in others {
        flatten(value, key, &mut leaves);
    }
    for (key, value) in leaves {
        let name = format!("registries.conf: {key}");
        match key.as_str() {
            "unqualified-search-registries" if strings(value) == ["docker.io"] => {
                found.same(&name, "Hull completes short names with docker.io");
            }
            "unqualified-search-registries" => {
                found.lost(
                    &name,
                    "Hull completes short names with docker.io alone: write names in full",
                );
            }
            "short-name-mode" => found.same(&name, "Hull asks no questions about short names"),
            "credential-helpers" => {
                found.lost(
                    &name,
                    "name helpers as `credHelpers` in the file of `image.docker_config`",
                );
            }
            _ if key.starts_with("aliases.") => {
                found.lost(&name, "Hull has no aliases: write the name in full");
            }
            _ => found.lost(&name, "hosts.toml has no such setting"),
        }
    }
}

/// The certificates of each host, by the extensions of their files.
fn certificates(root: &Root) -> Result<BTreeMap<String, Tls>> {
    let mut all: BTreeMap<String, Tls> = BTreeMap::new();
    for directory in CERTIFICATES.map(Path::new) {
        for host in root.names(directory)? {
            let beside = directory.join(&host);
            let names = root.names(&beside)?;
            let path = |name: &str| beside.join(name).display().to_string();
            let mut tls = Tls::default();
            for name in &names {
                if name.ends_with(".crt") {
                    tls.ca.push(path(name));
                }
                if let Some(stem) = name.strip_suffix(".cert") {
                    let key = format!("{stem}.key");
                    if names.contains(&key) {
                        tls.client = Some((path(name), path(&key)));
                    }
                }
            }
            if tls != Tls::default() {
                all.entry(host).or_insert(tls);
            }
        }
    }
    Ok(all)
}

fn of_table(
    prefix: &str,
    table: &Table,
    certificates: &BTreeMap<String, Tls>,
    found: &mut Findings,
) -> Option<Registry> {
    let name = format!("registry \"{}\"", hosts::without_account(prefix));
    if prefix.contains(['/', '*']) {
        found.lost(&name, "a hosts.toml is for all repositories of one host");
        return None;
    }
    if is_on(table, "blocked") {
        let why = format!(
            "name a file by `image.policy` with `[[repository]] match = \"{prefix}/*\", rule = \"reject\"`"
        );
        found.lost(&format!("{name}.blocked"), why);
    }
    for key in table.keys() {
        let known =
            ["prefix", "location", "insecure", "blocked", "mirror", "mirror-by-digest-only"];
        if !known.contains(&key.as_str()) {
            found.lost(&format!("{name}.{key}"), "hosts.toml has no such setting");
        }
    }
    let only_digests = is_on(table, "mirror-by-digest-only");
    let mut registry = Registry::default();
    for mirror in table.get("mirror").and_then(Value::as_array).into_iter().flatten() {
        let Some(mirror) = mirror.as_table() else { continue };
        let from = string(mirror, "pull-from-mirror").unwrap_or_default();
        if from == "tag-only" {
            found.lost(&format!("{name}.mirror"), "hosts.toml has no mirror for tags alone");
            continue;
        }
        let is_for_digests = only_digests || from == "digest-only";
        let serves = if is_for_digests { Serves::Digests } else { Serves::All };
        let location = string(mirror, "location").unwrap_or_default();
        let all = endpoints(&location, is_on(mirror, "insecure"), serves, certificates);
        if all.is_empty() {
            found.lost(&format!("{name}.mirror"), not_an_address(&location));
        }
        registry.endpoints.extend(all);
    }
    let location = string(table, "location").unwrap_or_else(|| prefix.to_owned());
    let is_insecure = is_on(table, "insecure");
    if location != prefix || is_insecure {
        // The last endpoint of the place itself stands as the server.
        let mut own = endpoints(&location, is_insecure, Serves::All, certificates);
        let Some(last) = own.pop() else {
            found.lost(&format!("{name}.location"), not_an_address(&location));
            return None;
        };
        registry.endpoints.extend(own);
        registry.server = Some(last.address);
        registry.server_has_api_path = last.has_api_path;
        registry.server_tls = last.tls;
    }
    Some(registry)
}

/// The endpoints at a location: an insecure one is tried by TLS with any certificate, then without TLS. None if
/// the location is not an address.
fn endpoints(
    location: &str,
    is_insecure: bool,
    serves: Serves,
    certificates: &BTreeMap<String, Tls>,
) -> Vec<Endpoint> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:/[]~%".contains(c);
    if location.is_empty() || !location.chars().all(is_plain) || location.contains("://") {
        return Vec::new();
    }
    let (host, path) = location.split_once('/').unwrap_or((location, ""));
    let path = path.trim_end_matches('/');
    let has_api_path = !path.is_empty();
    let address = |scheme: &str| {
        if has_api_path {
            format!("{scheme}://{host}/v2/{path}")
        } else {
            format!("{scheme}://{host}")
        }
    };
    if hosts::refusal(&address("https")).is_some() {
        return Vec::new();
    }
    let mut tls = certificates.get(host).cloned().unwrap_or_default();
    tls.skip_verify = is_insecure;
    let mut all = vec![Endpoint { address: address("https"), has_api_path, serves, tls }];
    if is_insecure {
        let tls = Tls::default();
        all.push(Endpoint { address: address("http"), has_api_path, serves, tls });
    }
    all
}

/// Why a location leads to no endpoint, without its credentials.
fn not_an_address(location: &str) -> String {
    let bare = hull_sys::text::shown(hosts::without_account(location), 256);
    let why = if location.contains('@') { "has credentials" } else { "is not an address" };
    format!("its location `{bare}` {why}")
}

fn is_on(table: &Table, key: &str) -> bool {
    table.get(key).and_then(Value::as_bool) == Some(true)
}

fn string(table: &Table, key: &str) -> Option<String> {
    table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(files: &[(&str, &str)]) -> Findings {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join("etc/containers").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut found = Findings::default();
        translate(&Root::open(dir.path()).unwrap(), &mut found).unwrap();
        found
    }

    fn text<'f>(found: &'f Findings, host: &str) -> &'f str {
        let path = PathBuf::from(hosts::DIRECTORY).join(host).join("hosts.toml");
        let file = found.files.iter().find(|of| of.path == path);
        &file.unwrap_or_else(|| panic!("{path:?}: {found:?}")).text
    }

    #[test]
    fn registries_and_mirrors_become_hosts_files() {
        let found = translated(&[
            (
                "registries.conf",
                r#"
unqualified-search-registries = ["docker.io", "quay.io"]
short-name-mode = "enforcing"
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/proxy"
insecure = true
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry]]
location = "quay.io"
blocked = true
mirror-by-digest-only = true
[[registry.mirror]]
location = "quay-mirror.example"
[[registry]]
prefix = "old.example"
location = "new.example/team"
[[registry]]
prefix = "*.wild.example"
location = "w.example"
[aliases]
"alpine" = "docker.io/library/alpine"
"#,
            ),
            ("certs.d/quay-mirror.example/ca.crt", ""),
            ("certs.d/quay-mirror.example/me.cert", ""),
            ("certs.d/quay-mirror.example/me.key", ""),
        ]);
        let docker = text(&found, "docker.io");
        let first = "[host.\"https://mirror.example:5000/v2/proxy\"]\noverride_path = true\nskip_verify = true";
        let second = "[host.\"http://mirror.example:5000/v2/proxy\"]\noverride_path = true";
        assert!(docker.contains(first) && docker.contains(second), "{docker}");
        let quay = text(&found, "quay.io");
        assert!(quay.contains("capabilities = [\"pull\"]"), "{quay}");
        assert!(
            quay.contains("ca = [\"/etc/containers/certs.d/quay-mirror.example/ca.crt\"]"),
            "{quay}"
        );
        assert!(quay.contains("client = [["), "{quay}");
        let old = text(&found, "old.example");
        assert!(
            old.contains("server = \"https://new.example/v2/team\"\noverride_path = true"),
            "{old}"
        );
        assert!(text(&found, "quay-mirror.example").contains("ca = ["));
        let lost = format!("{:?}", found.lost);
        for part in
            ["*.wild.example", "blocked", "tags alone", "unqualified-search", "aliases.alpine"]
        {
            assert!(lost.contains(part), "{part}: {lost}");
        }
        assert!(found.settings.contains_key("image.config_path"));
    }

    #[test]
    fn a_drop_in_replaces_a_registry_and_odd_addresses_are_named() {
        let found = translated(&[
            ("registries.conf", "[[registry]]\nlocation = \"a.example\"\ninsecure = true\n"),
            (
                "registries.conf.d/1.conf",
                "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"b c\"\n",
            ),
            ("registries.conf.d/2.other", "[[["),
        ]);
        assert!(found.files.is_empty(), "{found:?}");
        assert!(found.lost[0].why.contains("not an address"), "{found:?}");
        let found = translated(&[(
            "registries.conf",
            "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"me:hunter2@m.example\"\n\
             [[registry]]\nlocation = \"me:hunter2@b.example\"\ninsecure = true\n",
        )]);
        assert!(found.files.is_empty() && found.lost.len() == 2, "{found:?}");
        assert!(found.lost[0].why.contains("`m.example` has credentials"), "{found:?}");
        assert!(!format!("{found:?}").contains("hunter2"), "a secret is shown");
    }
}
