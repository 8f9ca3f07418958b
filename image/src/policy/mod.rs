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
//! The rule: the longest `match` decides, and a file that cannot be read lets nothing in. Names and rules
//! are compared in the one spelling of references, so it does not matter how either is written. This
//! machine has several addresses, which may or may not be one registry: the strictest rule for any of
//! them holds. What a signature is and how it is checked is [`cosign`]'s business.
//!
//! Not here: images that are here already. They came in by the policy of their day.

mod cosign;

pub(crate) use cosign::signed;

use crate::error::{Cause, Error};
use crate::reference::Reference;
use crate::reference::host::{is_this_machine, port_of};
use cosign::Key;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 1 << 20;
/// Names of this machine that are tried beside those in rules.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The rule for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Every image is accepted.
    Accept,
    /// No image is accepted, for this reason.
    Reject(String),
    /// Images that one of these keys has signed are accepted.
    Signed(Vec<Key>),
}

impl Rule {
    fn strictness(&self) -> u8 {
        match self {
            Self::Accept => 0,
            Self::Signed(_) => 1,
            Self::Reject(_) => 2,
        }
    }
}

/// The content of the policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) path: PathBuf,
    default: Rule,
    /// Rules by names, or beginnings of names.
    repositories: Vec<(Pattern, Rule)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// `host/repository`.
    Is(String),
    /// `host/repo*`: the host is whole.
    BeginsWith(String),
    /// `host*`: the `*` stands within the host, or right behind it.
    HostBeginsWith(String),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` is not a pattern: {why}");
        let beginning = text.strip_suffix('*');
        let exact = beginning.unwrap_or(text);
        if exact.contains('*') || exact.is_empty() {
            return Err(wrong("`*` stands at the end"));
        }
        match beginning {
            None => Reference::repository_alone(text).map(|of| Self::Is(of.name())),
            Some(text) if text.contains('/') => Reference::beginning(text).map(Self::BeginsWith),
            Some(text) => Ok(Self::HostBeginsWith(text.to_ascii_lowercase())),
        }
        .map_err(wrong)
    }

    fn matches(&self, reference: &Reference) -> bool {
        match self {
            Self::Is(text) => reference.name() == *text,
            Self::BeginsWith(text) => reference.name().starts_with(text),
            Self::HostBeginsWith(text) => reference.spellings().any(|name| name.starts_with(text)),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Is(text) | Self::BeginsWith(text) | Self::HostBeginsWith(text) => text,
        }
    }

    /// The more exact, the larger.
    fn weight(&self) -> (usize, bool) {
        (self.text().len(), matches!(self, Self::Is(_)))
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
            hull_sys::files::read(path, FILE_BYTES_MAX).map_err(|err| wrong(err.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|err| wrong(err.to_string()))?;
        Self::parse(text, path).map_err(wrong)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let raw: RawPolicy = toml::from_str(text).map_err(|err| {
            let before = err.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
            format!("line {line}: {}", err.message())
        })?;
        let default = match raw.default {
            RawRule::Accept => Rule::Accept,
            RawRule::Reject => Rule::Reject(
                "`default` is reject, and no `[[repository]]` of it has a `match` for this one"
                    .into(),
            ),
            RawRule::Signed => return Err("`default` is accept or reject".into()),
        };
        let mut repositories = Vec::new();
        for raw in raw.repository {
            let rule = rule_of(&raw, path)?;
            repositories.push((Pattern::parse(&raw.r#match)?, rule));
        }
        Ok(Self { path: path.to_owned(), default, repositories })
    }

    /// The rule for an image.
    pub(crate) fn rule(&self, reference: &Reference) -> &Rule {
        let own = self.best(reference).unwrap_or(&self.default);
        if !is_this_machine(reference.host()) {
            return own;
        }
        let port = port_of(reference.host());
        let by_rules = self.repositories.iter().filter_map(|(pattern, _)| {
            let (host, _) = pattern.text().split_once('/')?;
            (is_this_machine(host) && port_of(host) == port).then(|| host.to_owned())
        });
        let by_nature = THIS_MACHINE.iter().map(|name| format!("{name}:{port}"));
        let mut strictest = own;
        for host in by_nature.chain(by_rules) {
            let Ok(host) = crate::reference::host::normal(&host) else { continue };
            if let Some(rule) = self.best(&reference.at(&host))
                && rule.strictness() > strictest.strictness()
            {
                strictest = rule;
            }
        }
        strictest
    }

    fn best(&self, reference: &Reference) -> Option<&Rule> {
        let found = self.repositories.iter().filter(|(pattern, _)| pattern.matches(reference));
        found.max_by_key(|(pattern, _)| pattern.weight()).map(|(_, rule)| rule)
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
            ("registry.example.org/team/other", "`registry.example.org/team/*` is rejected"),
            ("busybox", "accept"),
            (
                "registry.example.organ/a",
                "`default` is reject, and no `[[repository]]` of it has a `match` for this one",
            ),
        ] {
            assert_eq!(decides(policy, name), wanted, "{name}");
        }
    }

    fn governed(pattern: &str, rule: &str, name: &str) -> bool {
        let policy =
            format!("default = \"accept\"\n[[repository]]\nmatch = {pattern:?}\nrule = {rule:?}");
        decides(&policy, name) != "accept"
    }

    #[test]
    fn a_rule_holds_for_every_spelling_of_a_name_and_of_itself() {
        let spellings = [
            "reg.invalid",
            "REG.invalid",
            "reg.invalid:443",
            "Reg.Invalid:0443",
            "reg.invalid:00443",
        ];
        for host in spellings {
            for name in spellings {
                for rest in ["team/x", "team/*", "*"] {
                    let (pattern, name) = (format!("{host}/{rest}"), format!("{name}/team/x:1"));
                    assert!(governed(&pattern, "reject", &name), "{pattern}: {name}");
                }
            }
        }
        for pattern in ["reg.invalid*", "REG.inv*", "reg.invalid:443*", "reg.invalid:4*"] {
            for name in spellings {
                assert!(governed(pattern, "reject", &format!("{name}/x")), "{pattern}: {name}");
            }
        }
        let docker = [
            "busybox",
            "library/busybox",
            "docker.io/busybox",
            "Docker.io:443/library/busybox",
            "index.docker.io/library/busybox",
            "registry-1.docker.io/library/busybox",
            "registry-1.docker.io:443/busybox",
            "registry.hub.docker.com/library/busybox",
        ];
        for pattern in docker.into_iter().chain([
            "docker.io/*",
            "registry-1.docker.io/*",
            "library/*",
            "index.docker.io*",
        ]) {
            for name in docker {
                assert!(governed(pattern, "reject", name), "{pattern}: {name}");
            }
        }
        for (pattern, name) in [
            ("reg.invalid/*", "reg.invalid:80/x"),
            ("reg.invalid/*", "reg.invalid.evil/x"),
            ("index.docker.io*", "docker.io.evil/x"),
            ("reg.invalid:443*", "reg.invalid:5000/x"),
            ("docker.io/library/*", "docker.io/user/x"),
        ] {
            assert!(!governed(pattern, "reject", name), "{pattern}: {name}");
        }
    }

    #[test]
    fn of_what_is_said_of_this_machine_the_strictest_holds() {
        let hosts = [
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1:5000",
            "[::1]:5000",
            "[0::1]:5000",
            "[::ffff:127.0.0.1]:5000",
            "127.0.0.2:5000",
            "0.0.0.0:5000",
            "[::]:5000",
            "LOCALHOST:5000",
            "registry.localhost:5000",
        ];
        for host in hosts {
            for name in hosts {
                let (pattern, name) = (format!("{host}/*"), format!("{name}/x"));
                assert!(governed(&pattern, "reject", &name), "{pattern}: {name}");
            }
        }
        for pattern in ["localhost*", "127.*", "127.0.0.1:*", "[::1]*"] {
            assert!(governed(pattern, "reject", "127.0.0.2:5000/x"), "{pattern}");
        }
        for name in ["localhost", "localhost:80", "127.0.0.1:80", "0.0.0.0:80", "[::1]"] {
            assert!(governed("127.0.0.1/*", "reject", &format!("{name}/x")), "{name}");
            assert!(!governed("127.0.0.1:5000/*", "reject", &format!("{name}/x")), "{name}");
        }
        // A rule for one address is not a rule for the next: another program may listen there.
        let policy = r#"
            default = "reject"
            [[repository]]
            match = "127.0.0.1:5000/*"
            rule = "accept"
        "#;
        assert_eq!(decides(policy, "127.1:5000/x"), "accept");
        assert_ne!(decides(policy, "[::1]:5000/x"), "accept");
        assert_ne!(decides(policy, "localhost:5000/x"), "accept");
    }

    #[test]
    fn a_file_that_is_not_understood_is_an_error() {
        for (text, detail) in [
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
                "default = \"accept\"\n[[repository]]\nmatch = \"a.b/c:1\"\nrule = \"reject\"",
                "without tag",
            ),
            (
                "default = \"accept\"\n[[repository]]\nmatch = \"a.b./c\"\nrule = \"reject\"",
                "host name",
            ),
            (
                "default = \"accept\"\n[[repository]]\nmatch = \"a.b./*\"\nrule = \"reject\"",
                "host name",
            ),
            ("\ndefault = \"maybe\"", "line 2"),
            (
                "default = \"accept\"\n[[repository]]\nmatch = \"a\"\nrule = \"accept\"\nkeys = [\"k\"]",
                "nothing is done with",
            ),
        ] {
            let err = Policy::parse(text, Path::new("/etc/hull/policy.toml")).unwrap_err();
            assert!(err.contains(detail), "{text}: {err}");
        }
    }
}
