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

/// The user name beside a password that is an identity token.
const TOKEN_USER: &str = "<token>";

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
    /// username is given. The user name `<token>` says that the password is an identity token, as in Docker's
    /// credential helpers.
    pub fn from_parts(
        username: &str,
        password: &str,
        auth: &str,
        identity_token: &str,
        registry_token: &str,
    ) -> Result<Self, Error> {
        let has_token = !identity_token.is_empty() || !registry_token.is_empty();
        let (username, password) = match decoded(auth) {
            _ if !username.is_empty() || auth.trim().is_empty() => {
                (username.to_owned(), password.to_owned())
            }
            Ok(parts) => parts,
            // Beside a token some tools put a text of no meaning there.
            Err(_) if has_token => (String::new(), String::new()),
            Err(why) => return Err(Error::Credentials { why }),
        };
        let is_token = username == TOKEN_USER;
        let identity_token = match identity_token {
            "" if is_token => &password,
            token => token,
        };
        let (identity_token, registry_token) =
            (identity_token.to_owned(), registry_token.to_owned());
        if is_token {
            let (username, password) = Default::default();
            return Ok(Self { username, password, identity_token, registry_token });
        }
        Ok(Self { username, password, identity_token, registry_token })
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

/// Username and password of Docker's `auth`, or what is wrong with it.
fn decoded(auth: &str) -> Result<(String, String), &'static str> {
    let text = decode_base64(auth).and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or("`auth` is not base64 of text")?;
    let (username, password) =
        text.split_once(':').ok_or("`auth` has no colon between username and password")?;
    // Some tools pad with NUL.
    Ok((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Base64 in the standard or URL-safe alphabet, padded or not, in one line or several.
static BASE64_LENIENT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut base64 = BASE64_NOPAD.specification();
    base64.check_trailing_bits = false;
    base64.translate.from.push_str("-_");
    base64.translate.to.push_str("+/");
    base64.ignore.push_str(" \t\r\n");
    // A fixed specification, whose encoding the tests use.
    base64.encoding().unwrap_or(BASE64_NOPAD)
});

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches(|c: char| c == '=' || c.is_whitespace());
    BASE64_LENIENT.decode(text.as_bytes()).ok()
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
            let beside = Auth::from_parts("", "", bad, "identity", "").unwrap();
            assert_eq!(
                (beside.basic(), beside.identity_token()),
                (None, Some("identity")),
                "{bad}"
            );
            assert!(Auth::from_parts("", "", bad, "", "ready").unwrap().registry_token().is_some());
        }
        for (text, password) in [
            ("dTpw\n", "p"),
            ("dTpw====", "p"),
            (" dT\r\npw ", "p"),
            ("dTo6Ojo=", ":::"),
            ("dTo=", ""),
            ("dTpwAAAA", "p"),
        ] {
            let auth = Auth::from_parts("", "", text, "", "").unwrap();
            assert_eq!(auth.basic(), Some(("u", password)), "{text:?}");
        }
        let given = Auth::from_parts("u", "p", "%%%", "", "").unwrap();
        assert_eq!(given.basic(), Some(("u", "p")), "a user name counts before `auth`");
    }

    #[test]
    fn the_user_name_for_tokens_says_what_the_password_is() {
        for auth in [
            Auth::from_parts("<token>", "identity", "", "", "").unwrap(),
            Auth::from_parts("", "", "PHRva2VuPjppZGVudGl0eQ==", "", "").unwrap(),
            Auth::from_parts("<token>", "", "", "identity", "").unwrap(),
        ] {
            assert_eq!((auth.basic(), auth.identity_token()), (None, Some("identity")));
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
