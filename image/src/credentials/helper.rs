// SPDX-License-Identifier: Apache-2.0
//! Credential helpers: programs called `docker-credential-<name>` that get a registry's address on
//! standard input and answer with JSON.
//!
//! The rule: a helper has a time, its answer a size, and nothing that it prints gets into an error but
//! the last line of what it complains about on stderr. Its stdout, which has secrets, is shown only to the person who
//! runs `hull login`: there its exit code says that it is a complaint, as docker's own helpers write it; and of that
//! only sentences, without words that may be a secret. It is killed when its time is up.

use crate::credentials::auth::Auth;
use crate::error::shown;
use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

const TIME_MAX: Duration = crate::limits::HELPER_S.time();
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const SAID_BYTES: usize = 200;
/// Longest word of a complaint on stdout, in bytes; tokens are longer.
const WORD_BYTES: usize = 24;
/// The output of helpers that have no credentials for a registry.
const NOTHING: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// The program of a helper.
pub(super) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Starts a helper for one of its operations. What goes wrong is said in words.
fn start(name: &str, operation: &str) -> Result<Child, String> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err("it is not the name of a credential helper".into());
    }
    Command::new(program(name))
        .arg(operation)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|err| format!("it cannot be started: {err}"))
}

/// Has a helper store or erase credentials; `input` is what it reads. Only for the command line: a daemon that leaves
/// its children to the kernel gets no exit codes.
pub(super) async fn change(name: &str, operation: &str, input: &str) -> Result<(), String> {
    let mut child = start(name, operation)?;
    let talked = tokio::time::timeout(TIME_MAX, async {
        let (answer, stderr) = talk(&mut child, input).await;
        (child.wait().await, complaint(&answer, &stderr))
    });
    let (ended, complaint) =
        talked.await.map_err(|_| format!("no answer in {} s", TIME_MAX.as_secs()))?;
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("it failed{complaint}")),
        Err(err) => Err(format!("it cannot be waited for: {err}")),
    }
}

/// Asks a helper for the credentials of `server`. What goes wrong is said in words.
pub(super) async fn ask(name: &str, server: &str) -> Result<Option<Auth>, String> {
    let mut child = start(name, "get")?;
    let talked = tokio::time::timeout(TIME_MAX, talk(&mut child, server)).await;
    let (answer, stderr) = talked.map_err(|_| format!("no answer in {} s", TIME_MAX.as_secs()))?;
    // Whether it ended well is seen by its answer: a daemon that leaves its children to the kernel
    // gets no exit codes.
    match serde_json::from_slice::<Answer>(&answer) {
        Ok(Answer { secret, .. }) if secret.is_empty() => Ok(None),
        Ok(Answer { username, secret }) => {
            let auth = Auth::from_parts(&username, &secret, "", "", "");
            auth.map(Some).map_err(|err| err.to_string())
        }
        Err(_) => {
            let detail = String::from_utf8_lossy(&answer).to_lowercase();
            if detail.contains(NOTHING) {
                return Ok(None);
            }
            let seen = match complaint(b"", &stderr) {
                said if said.is_empty() => {
                    format!("; to see its answer, run `{} get` on the node by hand", program(name))
                }
                said => said,
            };
            Err(format!("it has no credentials to give{seen}"))
        }
    }
}

async fn talk(child: &mut Child, server: &str) -> (Vec<u8>, Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has said what it has to say.
        let _gone = stdin.write_all(server.as_bytes()).await;
    }
    tokio::join!(all(child.stdout.take()), all(child.stderr.take()))
}

async fn all(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What was read until then is what there is.
        let _broken = from.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    bytes
}

/// The clause about what a helper complains of; empty if it says nothing that may be shown.
fn complaint(answer: &[u8], stderr: &[u8]) -> String {
    let last = |said: &[u8]| {
        String::from_utf8_lossy(said).trim().lines().last().unwrap_or_default().to_owned()
    };
    let is_document = answer.contains(&b'{') || answer.contains(&b'"');
    let line = match last(stderr) {
        line if line.is_empty() && !is_document => sentence(&last(answer)),
        line => line,
    };
    let line = shown(&line, SAID_BYTES);
    if line.is_empty() { String::new() } else { format!("; it complains: {line}") }
}

/// A line of stdout without what may be a secret: long words, and those with letters and digits. Empty for a single
/// word, as a token is.
fn sentence(line: &str) -> String {
    let may_be_secret = |word: &&str| {
        word.len() > WORD_BYTES
            || word.contains(|c: char| c.is_ascii_digit())
                && word.contains(|c: char| c.is_alphabetic())
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.len() < 2 {
        return String::new();
    }
    let shown = words.iter().map(|word| if may_be_secret(word) { "…" } else { *word });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_read_where_helpers_write_it_and_is_never_a_secret() {
        let said = |answer: &str, stderr: &str| complaint(answer.as_bytes(), stderr.as_bytes());
        assert_eq!(said("error: pass is locked\n", ""), "; it complains: error: pass is locked");
        assert_eq!(said("x", "usage:\nno gpg\n"), "; it complains: no gpg");
        for secret in [r#"{"Username": "u", "Secret": "s3cret""#, r#""Secret": "s3cret","#] {
            assert_eq!(said(secret, " \n"), "");
        }
        // Also without a document: `hull` cannot know what a helper prints.
        for secret in ["eyJhbGciOi.s3cret\n", "warning\ns3cret", "hunter"] {
            assert_eq!(said(secret, "\n"), "");
        }
        let token = format!("token: Bearer {} s3cret", "a".repeat(WORD_BYTES + 1));
        assert_eq!(said(&token, ""), "; it complains: token: Bearer … …");
        assert_eq!(said("", ""), "");
    }
}
