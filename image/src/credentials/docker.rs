// SPDX-License-Identifier: Apache-2.0
//! Docker's configuration file for a user of the command line: finds, stores and removes credentials.
//!
//! The rule: everything else in the file stays as it is, it is replaced as a whole, and only its owner can read it. A
//! credential helper that the file names keeps the password instead of the file.

use super::{DOCKER_NAMES, auth::Auth, helper};
use crate::Reference;
use crate::fs::files;
use crate::reference::host::{bare, normal_or_lower};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The user name with which an identity token is sent.
const TOKEN_USER: &str = "<token>";

/// The user name and password for the registry of an image, if the file or its helper has them. An error is a clause
/// about the file.
pub async fn find(path: &Path, reference: &Reference) -> Result<Option<(String, String)>, String> {
    let found = super::find(path, reference.host()).await;
    let found: Option<Auth> = found.map_err(|cause| cause.to_string())?;
    Ok(found.and_then(|auth| match (auth.basic(), auth.identity_token()) {
        (Some((name, password)), _) => Some((name.to_owned(), password.to_owned())),
        (None, Some(token)) => Some((TOKEN_USER.to_owned(), token.to_owned())),
        (None, None) => None,
    }))
}

/// Stores credentials, and returns where: the file or the helper.
pub async fn store(
    path: &Path,
    registry: &str,
    name: &str,
    password: &str,
) -> Result<String, String> {
    let mut file = read(path)?;
    let key = key(registry);
    if let Some(program) = helper_of(&file, &key) {
        let input = json!({"ServerURL": key, "Username": name, "Secret": password}).to_string();
        helper::change(&program, "store", &input).await?;
        // So that other tools know that the helper has it.
        put(&mut file, key, json!({}))?;
        write(path, &file)?;
        return Ok(helper::program(&program));
    }
    let auth = BASE64.encode(format!("{name}:{password}").as_bytes());
    put(&mut file, key, json!({"auth": auth}))?;
    write(path, &file)?;
    Ok(path.display().to_string())
}

/// Replaces the entries of a registry, however they spell it: an older one would be used instead.
fn put(file: &mut Map<String, Value>, key: String, entry: Value) -> Result<(), String> {
    let all = auths(file)?;
    all.retain(|has, _| !is_same(has, &key));
    all.insert(key, entry);
    Ok(())
}

/// Removes credentials, and returns where they were. None is an error.
pub async fn remove(path: &Path, registry: &str) -> Result<String, String> {
    let mut file = read(path)?;
    let key = key(registry);
    let program = helper_of(&file, &key);
    if let Some(program) = &program {
        helper::change(program, "erase", &key).await?;
    }
    let before = auths(&mut file)?.len();
    auths(&mut file)?.retain(|has, _| !is_same(has, &key));
    if auths(&mut file)?.len() == before && program.is_none() {
        return Err(format!("it has no credentials for {registry}"));
    }
    write(path, &file)?;
    Ok(program.map_or_else(|| path.display().to_string(), |program| helper::program(&program)))
}

/// Docker's name for a registry.
fn key(registry: &str) -> String {
    let host = normal_or_lower(bare(registry));
    if host == "docker.io" { DOCKER_NAMES[0].to_owned() } else { host }
}

fn is_same(has: &str, key: &str) -> bool {
    has == key || normal_or_lower(bare(has)) == normal_or_lower(bare(key))
}

fn helper_of(file: &Map<String, Value>, key: &str) -> Option<String> {
    let helpers = file.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|of| of.iter().find(|(has, _)| is_same(has, key))).map(|of| of.1);
    let name = own.or_else(|| file.get("credsStore")).and_then(Value::as_str)?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn auths(file: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, String> {
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().ok_or_else(|| "its `auths` is not an object".into())
}

fn read(path: &Path) -> Result<Map<String, Value>, String> {
    let bytes = match hull_sys::files::read(path, super::FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(err) => return Err(err.to_string()),
    };
    // The message of serde may quote the text, and with it a secret: report only the position.
    serde_json::from_slice(&bytes).map_err(|err| {
        format!("it is not a JSON object, line {} column {}", err.line(), err.column())
    })
}

/// Replaces the file as a whole, readable for its owner only. A link is kept: what it names is replaced.
fn write(path: &Path, file: &Map<String, Value>) -> Result<(), String> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().ok_or("it has no directory")?;
    let failed = |err: std::io::Error| format!("it cannot be written: {err}");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let temporary = directory.join(files::unique("config"));
    let written = (|| {
        let mut to =
            std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        to.write_all(format!("{:#}\n", Value::Object(file.clone())).as_bytes())?;
        to.sync_all()?;
        std::fs::rename(&temporary, &path)
    })();
    if written.is_err() {
        // The first error is the result.
        let _left = std::fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn what_is_stored_is_found_and_removed_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        store(&path, "https://R.example.org:5000/v2/", "me", "se:cret").await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let image = Reference::parse("r.example.org:5000/app").unwrap();
        let found = find(&path, &image).await.unwrap();
        assert_eq!(found, Some(("me".to_owned(), "se:cret".to_owned())));
        let mut file = read(&path).unwrap();
        file.insert("detachKeys".into(), "ctrl-q".into());
        write(&path, &file).unwrap();
        store(&path, "docker.io", "you", "x").await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("detachKeys") && text.contains(DOCKER_NAMES[0]), "{text}");
        remove(&path, "r.example.org:5000").await.unwrap();
        assert_eq!(find(&path, &image).await.unwrap(), None);
        assert!(remove(&path, "r.example.org:5000").await.is_err());
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_an_error_and_no_password_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"credsStore": "hull-has-no-such"}"#).unwrap();
        assert!(store(&path, "x", "me", "secret").await.is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret") && !text.contains("auths"), "{text}");
    }
}
