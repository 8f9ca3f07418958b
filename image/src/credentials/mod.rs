// SPDX-License-Identifier: Apache-2.0
//! The node's own credentials, for pulls without credentials: Docker's `config.json` and the helpers
//! that it names.
//!
//! ```json
//! {"auths": {"registry.example.org": {"auth": "…"}}, "credHelpers": {"other.example.org": "ecr-login"}}
//! ```
//!
//! The rule: a registry receives only the credentials under its own name, in any spelling (the one that
//! names use first), and a helper that is named and
//! fails is an error: a pull without credentials would say "not found" instead. The file is read
//! for every pull; nothing of it is kept.

pub(crate) mod auth;
pub mod docker;
mod helper;

use crate::error::Cause;
use crate::reference::host::{bare, normal_or_lower};
use auth::Auth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 4 << 20;
/// Docker's names of its own registry.
const DOCKER_NAMES: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

/// Where the credentials for a registry are.
enum Place {
    Nowhere,
    Here(Entry),
    /// The helper's name, and what it calls the registry.
    Helper(String, String),
}

/// The credentials for `host`, if there are any.
pub(crate) async fn find(path: &Path, host: &str) -> Result<Option<Auth>, Cause> {
    let failed = |why: String| Cause::Credentials {
        host: host.to_owned(),
        from: path.display().to_string(),
        why,
    };
    let bytes = match hull_sys::files::read(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(failed(err.to_string())),
    };
    // The message of serde may quote the text, and with it a secret: report only the position.
    let file: File = serde_json::from_slice(&bytes).map_err(|err| {
        failed(format!("it is not valid JSON, line {} column {}", err.line(), err.column()))
    })?;
    match place(file, host) {
        Place::Nowhere => Ok(None),
        Place::Here(of) => Auth::from_parts(
            &of.username,
            &of.password,
            &of.auth,
            &of.identity_token,
            &of.registry_token,
        )
        .map(Some)
        .map_err(|err| failed(err.to_string())),
        Place::Helper(name, server) => helper::ask(&name, &server).await.map_err(|why| {
            Cause::Credentials { host: host.to_owned(), from: helper::program(&name), why }
        }),
    }
}

fn place(mut file: File, host: &str) -> Place {
    let names: Vec<String> = if host == "docker.io" {
        DOCKER_NAMES.map(str::to_owned).to_vec()
    } else {
        vec![host.to_owned()]
    };
    let is_it = |key: &str| names.iter().any(|name| name == key) || bare(key) == host;
    let spells_it = |key: &str| normal_or_lower(bare(key)) == host;
    let helpers = &file.cred_helpers;
    let helper = helpers.iter().find(|(key, _)| is_it(key));
    if let Some((key, helper)) = helper.or_else(|| helpers.iter().find(|(key, _)| spells_it(key))) {
        return Place::Helper(helper.clone(), key.clone());
    }
    let keys = || file.auths.keys();
    let key = keys().find(|key| is_it(key)).or_else(|| keys().find(|key| spells_it(key))).cloned();
    let entry = key.as_ref().and_then(|key| file.auths.remove(key)).filter(|of| !of.is_empty());
    match entry {
        Some(entry) => Place::Here(entry),
        None if !file.creds_store.is_empty() => {
            let server = key.unwrap_or_else(|| names[0].clone());
            Place::Helper(file.creds_store, server)
        }
        None => Place::Nowhere,
    }
}

impl Entry {
    /// With a store for everything, entries are there but say nothing.
    fn is_empty(&self) -> bool {
        self.auth.is_empty()
            && self.username.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(text: &str, host: &str) -> Result<Option<Auth>, Cause> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        find(&path, host).await
    }

    #[tokio::test]
    async fn a_registry_gets_what_stands_under_its_own_name() {
        let text = r#"{"auths": {
            "https://registry.example.org/v1/": {"auth": "dTpw"},
            "other.example.org:5000": {"identitytoken": "t"},
            "https://index.docker.io/v1/": {"username": "d", "password": "p"}}}"#;
        let user = async |host: &str| {
            found(text, host).await.unwrap().and_then(|of| Some(of.basic()?.0.to_owned()))
        };
        assert_eq!(user("registry.example.org").await.as_deref(), Some("u"));
        assert_eq!(user("docker.io").await.as_deref(), Some("d"));
        assert_eq!(user("other.example.org").await, None);
        let other = found(text, "other.example.org:5000").await.unwrap().unwrap();
        assert_eq!(other.identity_token(), Some("t"));
    }

    #[tokio::test]
    async fn a_registry_is_found_in_every_spelling_and_in_its_own_first() {
        let text = r#"{"auths": {
            "A.example.org:443": {"username": "spelled", "password": "p"},
            "a.example.org:80": {"username": "another", "password": "p"},
            "https://[0:0::1]:5000/v2/": {"username": "six", "password": "p"},
            "registry-1.docker.io": {"username": "docker", "password": "p"},
            "B.example.org": {"username": "spelled", "password": "p"},
            "b.example.org": {"username": "own", "password": "p"},
            "user@c.example.org": {"username": "none", "password": "p"}}}"#;
        for (host, wanted) in [
            ("a.example.org", Some("spelled")),
            ("b.example.org", Some("own")),
            ("[::1]:5000", Some("six")),
            ("docker.io", Some("docker")),
            ("c.example.org", None),
        ] {
            let auth = found(text, host).await.unwrap();
            assert_eq!(auth.as_ref().and_then(|of| Some(of.basic()?.0)), wanted, "{host}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error_without_what_it_says() {
        let err = found(r#"{"auths": {"x": {"auth": ["c2VjcmV0"]}}}"#, "x").await.unwrap_err();
        assert!(!err.to_string().contains("c2VjcmV0"), "{err}");
        let err = found(r#"{"auths": {"x": {"auth": "%%secret"}}}"#, "x").await.unwrap_err();
        assert!(!err.to_string().contains("secret"), "{err}");
        assert!(find(Path::new("/nowhere/config.json"), "x").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_helper_that_is_named_and_fails_is_an_error() {
        let text = r#"{"credHelpers": {"x.example.org": "hull-has-no-such"}, "auths": {"y": {"auth": "dTpw"}}}"#;
        let err = found(text, "x.example.org").await.unwrap_err().to_string();
        assert!(err.contains("docker-credential-hull-has-no-such"), "{err}");
        assert!(found(text, "y").await.unwrap().is_some());
        let err = found(r#"{"credsStore": "../../bin/sh"}"#, "x").await.unwrap_err().to_string();
        assert!(err.contains("not the name of a credential helper"), "{err}");
    }
}
