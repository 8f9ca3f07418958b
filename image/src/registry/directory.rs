// SPDX-License-Identifier: Apache-2.0
//! The directory of registries' settings, laid out as containerd has it:
//!
//! ```text
//! <config_path>/registry.example.org/hosts.toml
//! <config_path>/registry.example.org_5000_/hosts.toml   the same as registry.example.org:5000/
//! <config_path>/REG.example.org_443_/hosts.toml         any other spelling of reg.example.org, unless it
//!                                                       has a directory by its own name
//! <config_path>/_default/hosts.toml                     registries without one of their own
//! <config_path>/<host>/*.crt, *.cert + *.key            without hosts.toml: CAs and client certificates
//! ```
//!
//! It is read for every pull, so that a change needs no restart.

use super::hosts::{self, Host, Trust};
use crate::error::Cause;
use crate::fs::files;
use crate::reference::host;
use std::io;
use std::path::{Path, PathBuf};

/// The settings for `host`, if the directory has any. `server` is its own address.
pub(super) fn find(root: &Path, host: &str, server: &str) -> Result<Option<Vec<Host>>, Cause> {
    for name in names(root, host) {
        let directory = root.join(name);
        let path = directory.join("hosts.toml");
        let failed = |why: String| Cause::HostsFile { path: path.clone(), why };
        match hull_sys::files::read(&path, hosts::FILE_BYTES_MAX) {
            Ok(bytes) => {
                let text =
                    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".into()))?;
                return hosts::parse(&text, server, &directory).map(Some).map_err(failed);
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(failed(err.to_string())),
        }
        match files::names(&directory) {
            Ok(found) => {
                let trust = by_names(&directory, &found).map_err(failed)?;
                // Certificates are for TLS, also on this machine.
                let has_tls = !trust.ca.is_empty() || trust.client.is_some();
                let plain = server.strip_prefix("http://").filter(|_| has_tls);
                let tls = plain.map(|address| format!("https://{address}"));
                let server = tls.as_deref().unwrap_or(server);
                let mut hosts = hosts::parse("", server, &directory).map_err(failed)?;
                for host in &mut hosts {
                    host.trust.clone_from(&trust);
                }
                return Ok(Some(hosts));
            }
            Err(err) if err.is_not_found() => {}
            Err(err) => return Err(failed(err.to_string())),
        }
    }
    Ok(None)
}

/// The candidate directories of a registry, best first. Not every file system allows a colon in a name.
fn names(root: &Path, host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    // The directory may be a link; one that cannot be listed says so when a file in it is read.
    let found = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut others: Vec<String> = found
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !names.contains(name) && spells(name, host))
        .collect();
    others.sort();
    names.extend(others);
    names.push("_default".to_owned());
    names
}

/// Whether a directory's name is another spelling of `host`.
fn spells(name: &str, host: &str) -> bool {
    let with_port = name.strip_suffix('_').and_then(|name| name.rsplit_once('_'));
    let with_port = with_port.map(|(name, port)| format!("{name}:{port}"));
    host::normal(with_port.as_deref().unwrap_or(name)).is_ok_and(|of| of == host)
}

/// Docker's layout: the extension of a file tells what it is.
fn by_names(directory: &Path, found: &[String]) -> Result<Trust, String> {
    let mut trust = Trust::default();
    for name in found {
        let path = PathBuf::from(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trust.ca.push(directory.join(name)),
            Some("cert") => {
                let key = path.with_extension("key");
                if !found.iter().any(|of| Path::new(of) == key) {
                    return Err(format!("beside {name} there must be {}", key.display()));
                }
                let pair = (directory.join(name), Some(directory.join(key)));
                if trust.client.replace(pair).is_some() {
                    return Err(hosts::ONE_CERTIFICATE.into());
                }
            }
            _ => {}
        }
    }
    Ok(trust)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_directory_of_a_registry_is_found_by_every_name_that_it_may_have() {
        let dir = tempfile::tempdir().unwrap();
        let find = |host: &str| find(dir.path(), host, "https://own").unwrap();
        assert_eq!(find("registry.example.org:5000"), None);
        let api = |host: &str| find(host).unwrap()[0].api.clone();
        for (name, server) in [
            ("_default", "https://default"),
            ("registry.example.org:5000", "https://colon"),
            ("registry.example.org_5000_", "https://underscore"),
        ] {
            let directory = dir.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("hosts.toml"), format!("server = {server:?}")).unwrap();
            assert_eq!(api("registry.example.org:5000"), format!("{server}/v2"));
        }
        assert_eq!(api("other.example.org"), "https://default/v2");
        for (name, server) in [
            ("Other.Example.org_443_", "https://spelled"),
            ("registry-1.docker.io", "https://docker"),
            ("[0:0::1]_5000_", "https://six"),
            ("other.example.org_444_", "https://another"),
        ] {
            let directory = dir.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("hosts.toml"), format!("server = {server:?}")).unwrap();
        }
        assert_eq!(api("other.example.org"), "https://spelled/v2");
        assert_eq!(api("docker.io"), "https://docker/v2");
        assert_eq!(api("[::1]:5000"), "https://six/v2");
        let own = dir.path().join("other.example.org");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("hosts.toml"), "server = \"https://own\"").unwrap();
        assert_eq!(api("other.example.org"), "https://own/v2");
    }

    #[test]
    fn certificates_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("registry.example.org");
        fs::create_dir(&own).unwrap();
        for name in ["a.crt", "b.cert", "b.key", "readme"] {
            fs::write(own.join(name), "").unwrap();
        }
        let hosts = find(dir.path(), "registry.example.org", "https://own").unwrap().unwrap();
        assert_eq!(hosts[0].api, "https://own/v2");
        assert_eq!(hosts[0].trust.ca, [own.join("a.crt")]);
        assert_eq!(hosts[0].trust.client, Some((own.join("b.cert"), Some(own.join("b.key")))));
        for name in ["c.cert", "c.key"] {
            fs::write(own.join(name), "").unwrap();
        }
        let err = find(dir.path(), "registry.example.org", "https://own").unwrap_err();
        assert!(err.to_string().contains("several client certificates"), "{err}");
        fs::remove_file(own.join("c.cert")).unwrap();
        fs::remove_file(own.join("b.key")).unwrap();
        let err = find(dir.path(), "registry.example.org", "https://own").unwrap_err();
        assert!(err.to_string().contains("b.key"), "{err}");
    }
}
