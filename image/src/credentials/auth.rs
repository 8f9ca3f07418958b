// SPDX-License-Identifier: Apache-2.0
//! Credentials of one pull.
//!
//! The rule: they are used for that pull only, and are never printed. What is cached because of them
//! is found by [`Auth::key`], which nobody else can have.

use crate::digest::Digest;
use crate::error::Error;
use data_encoding::{BASE64_NOPAD, Encoding};
use std::fmt;
use std::sync::LazyLock;

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    username: String,
    password: String,
    identity_token: String,
    registry_token: String,
}

impl Auth {
    /// From the parts that CRI has. `auth` is `username:password` in base64 and counts when no
    /// username is given.
    pub fn from_parts(
        username: &str,
        password: &str,
        auth: &str,
        identity_token: &str,
        registry_token: &str,
    ) -> Result<Self, Error> {
        let (username, password) = if username.is_empty() && !auth.is_empty() {
            let decoded = decode_base64(auth)
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or(Error::Credentials { why: "`auth` is not base64 of text" })?;
            let (username, password) = decoded.split_once(':').ok_or(Error::Credentials {
                why: "`auth` has no colon between username and password",
            })?;
            // Some tools pad with NUL.
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        } else {
            (username.to_owned(), password.to_owned())
        };
        Ok(Self {
            username,
            password,
            identity_token: identity_token.to_owned(),
            registry_token: registry_token.to_owned(),
        })
    }

    /// Username and password, if there are.
    pub(crate) fn basic(&self) -> Option<(&str, &str)> {
        (!self.username.is_empty()).then_some((self.username.as_str(), self.password.as_str()))
    }

    /// The token to exchange for others, if there is one.
    pub(crate) fn identity_token(&self) -> Option<&str> {
        (!self.identity_token.is_empty()).then_some(self.identity_token.as_str())
    }

    /// The token to send to the registry itself, if there is one.
    pub(crate) fn registry_token(&self) -> Option<&str> {
        (!self.registry_token.is_empty()).then_some(self.registry_token.as_str())
    }

    fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    /// Tells these credentials from all others without keeping them; empty for none.
    pub(crate) fn key(auth: Option<&Self>) -> String {
        let Some(auth) = auth.filter(|auth| !auth.is_empty()) else { return String::new() };
        let mut bytes = Vec::new();
        for part in [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Digest::of(&bytes).hex().to_owned()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(not shown)")
    }
}

/// Base64 in the standard or URL-safe alphabet, padded or not.
static BASE64_LENIENT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut base64 = BASE64_NOPAD.specification();
    base64.check_trailing_bits = false;
    base64.translate.from.push_str("-_");
    base64.translate.to.push_str("+/");
    // A fixed specification, whose encoding the tests use.
    base64.encoding().unwrap_or(BASE64_NOPAD)
});

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_LENIENT.decode(text.trim().trim_end_matches('=').as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn username_and_password_come_apart_or_encoded() {
        let plain = Auth::from_parts("puller", "pull:me", "", "", "").unwrap();
        let encoded = Auth::from_parts("", "", "cHVsbGVyOnB1bGw6bWU=", "", "").unwrap();
        assert_eq!(plain, encoded);
        assert_eq!(plain.basic(), Some(("puller", "pull:me")));
        // The alphabet for URLs, without padding, and bits behind the text that are not zero.
        for (text, password) in
            [("dTo-Pz8_", ">???"), ("dTo+Pz8/", ">???"), ("dTpw", "p"), ("dTpwcb", "pq")]
        {
            let auth = Auth::from_parts("", "", text, "", "").unwrap();
            assert_eq!(auth.basic(), Some(("u", password)), "{text}");
        }
        for bad in ["%%%", "bm9jb2xvbg==", "dTpwc"] {
            assert!(Auth::from_parts("", "", bad, "", "").is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        let auth = Auth::from_parts("puller", "secret", "", "", "").unwrap();
        assert_eq!(format!("{auth:?}"), "Auth(not shown)");
    }

    #[test]
    fn different_credentials_have_different_keys() {
        let key = |user: &str, password: &str| {
            Auth::key(Some(&Auth::from_parts(user, password, "", "", "").unwrap()))
        };
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert_ne!(key("a", "b"), Auth::key(None));
        assert_eq!(key("", ""), Auth::key(None), "no credentials at all");
    }
}
