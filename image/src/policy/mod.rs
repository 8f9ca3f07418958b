// SPDX-License-Identifier: Apache-2.0
//! Which images may come here: a file that decides by repository.
//!
//! ```toml
//! default = "reject"                               # accept, reject
//! [[repository]]
//! match = "registry.example.org/team/*"            # `*` at the end: all that begins so
//! rule = "signed"                                  # accept, reject, signed
//! keys = ["team.pub"]                              # beside this file, or absolute
//! ```
//!
//! The rule: the longest `match` decides, and a file that cannot be read lets nothing in. What a
//! signature is and how it is checked is [`cosign`]'s business.
//!
//! Not here: images that are here already. They came in by the policy of their day.

mod cosign;

pub(crate) use cosign::signed;

use crate::error::{Cause, Error};
use crate::files;
use crate::reference::Reference;
use cosign::Key;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the file says of a repository.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    /// Anything.
    Accept,
    /// Nothing, and why.
    Reject(String),
    /// What one of these keys has signed.
    Signed(Vec<Key>),
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) path: PathBuf,
    default: Rule,
    /// What names begin with or are, and what is for them.
    repositories: Vec<(Pattern, Rule)>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    is_prefix: bool,
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    default: RawRule,
    #[serde(default)]
    repository: Vec<RawRepository>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawRule {
    Accept,
    Reject,
    Signed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRepository {
    r#match: String,
    rule: RawRule,
    #[serde(default)]
    keys: Vec<PathBuf>,
}

impl Policy {
    /// Reads the file and the keys that it names.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Policy { path: path.to_owned(), why };
        let bytes =
            files::read_following(path, FILE_BYTES_MAX).map_err(|err| wrong(err.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|err| wrong(err.to_string()))?;
        Self::parse(text, path).map_err(wrong)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let raw: RawPolicy = toml::from_str(text).map_err(|err| err.to_string())?;
        let default = match raw.default {
            RawRule::Accept => Rule::Accept,
            RawRule::Reject => Rule::Reject("no repository of it is this one's".into()),
            RawRule::Signed => return Err("`default` is accept or reject".into()),
        };
        let mut repositories = Vec::new();
        for raw in raw.repository {
            let rule = rule_of(&raw, path)?;
            let text = raw.r#match.strip_suffix('*');
            let is_prefix = text.is_some();
            let text = text.unwrap_or(&raw.r#match).to_owned();
            if text.is_empty() || text.contains('*') {
                return Err(format!("`{}` is no pattern: `*` stands at the end", raw.r#match));
            }
            repositories.push((Pattern { text, is_prefix }, rule));
        }
        Ok(Self { path: path.to_owned(), default, repositories })
    }

    /// What the file says of this image.
    pub(crate) fn rule(&self, reference: &Reference) -> &Rule {
        let name = reference.name();
        let found = self.repositories.iter().filter(|(pattern, _)| pattern.matches(&name));
        let best = found.max_by_key(|(pattern, _)| (pattern.text.len(), !pattern.is_prefix));
        best.map_or(&self.default, |(_, rule)| rule)
    }

    /// Why an image may not come here.
    pub(crate) fn refusal(&self, why: impl Into<String>) -> Cause {
        Cause::Policy { why: why.into(), file: self.path.clone() }
    }

    /// Decides on what comes from an archive: nobody signs those.
    pub(crate) fn check_import(&self, names: &[Reference]) -> Result<(), Cause> {
        let nameless = [Reference::parse("nameless.invalid/image")];
        let nameless = nameless.iter().filter_map(|of| of.as_ref().ok());
        let all = names.iter().chain(nameless.filter(|_| names.is_empty()));
        for name in all {
            match self.rule(name) {
                Rule::Accept => {}
                Rule::Reject(why) => return Err(self.refusal(why.clone())),
                Rule::Signed(_) => {
                    let why = format!(
                        "{} must be signed, and what is in an archive is not; pull it",
                        name.name()
                    );
                    return Err(self.refusal(why));
                }
            }
        }
        Ok(())
    }
}

fn rule_of(raw: &RawRepository, path: &Path) -> Result<Rule, String> {
    let name = &raw.r#match;
    match (raw.rule, raw.keys.is_empty()) {
        (RawRule::Accept, true) => Ok(Rule::Accept),
        (RawRule::Reject, true) => Ok(Rule::Reject(format!("`{name}` is rejected"))),
        (RawRule::Signed, false) => {
            let beside = path.parent().unwrap_or(Path::new("/"));
            let read = |key: &PathBuf| Key::read(&beside.join(key));
            raw.keys.iter().map(read).collect::<Result<_, _>>().map(Rule::Signed)
        }
        (RawRule::Signed, true) => Err(format!("`{name}` is to be signed, but by no key: `keys`")),
        (RawRule::Accept | RawRule::Reject, false) => {
            Err(format!("`{name}` has keys that nothing is done with: `rule = \"signed\"`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decides(policy: &str, name: &str) -> String {
        let policy = Policy::parse(policy, Path::new("/etc/hull/policy.toml")).unwrap();
        match policy.rule(&Reference::parse(name).unwrap()) {
            Rule::Accept => "accept".into(),
            Rule::Reject(why) => why.clone(),
            Rule::Signed(keys) => format!("signed by {}", keys.len()),
        }
    }

    #[test]
    fn the_longest_match_decides() {
        let policy = r#"
            default = "reject"
            [[repository]]
            match = "registry.example.org/*"
            rule = "accept"
            [[repository]]
            match = "registry.example.org/team/*"
            rule = "reject"
            [[repository]]
            match = "registry.example.org/team/good"
            rule = "accept"
            [[repository]]
            match = "docker.io/library/busybox"
            rule = "accept"
        "#;
        for (name, wanted) in [
            ("registry.example.org/a:1", "accept"),
            ("registry.example.org/team/bad", "`registry.example.org/team/*` is rejected"),
            (
                "registry.example.org/team/good@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "accept",
            ),
            ("registry.example.org/team/goodbye", "`registry.example.org/team/*` is rejected"),
            ("busybox", "accept"),
            ("registry.example.organ/a", "no repository of it is this one's"),
        ] {
            assert_eq!(decides(policy, name), wanted, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_understood_is_an_error() {
        for (text, said) in [
            ("", "default"),
            ("default = \"maybe\"", "maybe"),
            ("default = \"signed\"", "accept or reject"),
            ("default = \"accept\"\nrepositories = []", "repositories"),
            (
                "default = \"accept\"\n[[repository]]\nmatch = \"a*b\"\nrule = \"accept\"",
                "at the end",
            ),
            ("default = \"accept\"\n[[repository]]\nmatch = \"a\"\nrule = \"signed\"", "by no key"),
            (
                "default = \"accept\"\n[[repository]]\nmatch = \"a\"\nrule = \"accept\"\nkeys = [\"k\"]",
                "nothing is done with",
            ),
        ] {
            let err = Policy::parse(text, Path::new("/etc/hull/policy.toml")).unwrap_err();
            assert!(err.contains(said), "{text}: {err}");
        }
    }
}
