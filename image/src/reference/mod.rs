// SPDX-License-Identifier: Apache-2.0
//! Names of images: `[registry/]repository[:tag][@digest]`.
//!
//! Short names are expanded as usual: `busybox` is `docker.io/library/busybox:latest`.
//! The rule: a [`Reference`] is well formed, so its parts may be put into a URL, and its registry is in
//! normalized ([`host`]). Names are compared as references, never as texts.
//!
//! Not here: the image that a name refers to. The store has that.

pub(crate) mod host;

use crate::digest::Digest;
use crate::error::Error;
use host::{DEFAULT_HOST, DEFAULT_HOST_ALIASES};
use std::fmt;

/// Its namespace for repositories of one word.
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository, with its registry, and longest tag that registries take.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name as a person or a pod writes it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text).map_err(|why| Error::Reference { text: text.to_owned(), why })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() == 64
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err("it is an image id, not a name");
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest)
                    .ok_or("the part behind `@` is not a sha256 or sha512 digest")?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = split_host(name);
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        let host = host::normal(host)?;
        check_repository(repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let namespace =
            if host == DEFAULT_HOST && !repository.contains('/') { DEFAULT_NAMESPACE } else { "" };
        let repository = format!("{namespace}{repository}");
        if host.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err("registry and repository are longer than 255 characters");
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { host, repository, tag, digest })
    }

    /// A repository, as rules name it: without tag and digest.
    pub(crate) fn repository_alone(text: &str) -> Result<Self, &'static str> {
        let last = text.rsplit('/').next().unwrap_or(text);
        // A name without a slash has no registry, hence no port.
        if last.contains([':', '@']) {
            return Err("a rule is for a repository, without tag and digest");
        }
        Self::read(text)
    }

    /// The beginning of names, with the whole of the registry, in the one spelling.
    pub(crate) fn beginning(text: &str) -> Result<String, &'static str> {
        let (host, rest) = split_host(text);
        Ok(format!("{}/{rest}", host::normal(host)?))
    }

    /// The same repository at `host`, which is in its normal form.
    pub(crate) fn at(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// Every way to write `host/repository` that is known to mean it.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = String> {
        let with_port = format!("{}:{}", self.host, host::port_of(&self.host));
        let aliases = DEFAULT_HOST_ALIASES.iter().filter(|_| self.host == DEFAULT_HOST);
        let hosts = [self.host.clone(), with_port].into_iter();
        let hosts = hosts.chain(aliases.map(|alias| (*alias).to_owned()));
        hosts.map(|host| format!("{host}/{}", self.repository))
    }

    /// The registry: `host` or `host:port`, in its one spelling.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether `address`, as people write addresses of registries, is that of the registry.
    #[must_use]
    pub fn is_on(&self, address: &str) -> bool {
        host::normal_or_lower(host::bare(address)) == self.host
    }

    /// The repository in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if it was given or nothing else was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it was given. It decides, whatever the tag says.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_ref().map(Digest::as_str)
    }

    pub(crate) fn wanted_digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The part of the name that selects the manifest in the registry: the digest, or else the tag.
    pub(crate) fn selector(&self) -> &str {
        self.digest().or(self.tag()).unwrap_or(DEFAULT_TAG)
    }

    /// The name without tag and digest: `host/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The short form, without default registry, namespace and tag.
    #[must_use]
    pub fn familiar(&self) -> String {
        let name =
            match (self.host == DEFAULT_HOST, self.repository.strip_prefix(DEFAULT_NAMESPACE)) {
                (true, Some(word)) if !word.contains('/') => word.to_owned(),
                // Its first part must not be taken for a registry.
                (true, _) if split_host(&self.repository).1 == self.repository => {
                    self.repository.clone()
                }
                (true | false, _) => self.name(),
            };
        match (&self.tag, &self.digest) {
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), Some(digest)) => format!("{name}:{tag}@{digest}"),
            (None, None) => name,
        }
    }

    /// The name under which a pulled image is kept with its tag, unless a digest was asked for.
    pub(crate) fn tagged(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }

    /// The name of the content `digest` of this repository.
    pub(crate) fn digested(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

/// The full form: nothing left out.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part names a registry if it cannot be part of a repository's name.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if names_host(first) => (first, rest),
        _ => (DEFAULT_HOST, name),
    }
}

fn names_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.is_empty() {
        return Err("the repository is missing");
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be in lower case");
    }
    if repository.split('/').all(is_component) {
        Ok(())
    } else {
        Err("the repository has a character, or two separators, where none may be")
    }
}

/// Words of letters and digits, with one dot, one or two underscores or any dashes between two.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| is_word(*b));
    if !ends(bytes.first()) || !ends(bytes.last()) {
        return false;
    }
    bytes.split(|b| is_word(*b)).filter(|separator| !separator.is_empty()).all(|separator| {
        matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.len() <= TAG_BYTES_MAX;
    if good { Ok(()) } else { Err("the tag is not 1 to 128 letters, digits, `_`, `.` or `-`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn full(text: &str) -> String {
        Reference::parse(text).map(|of| of.to_string()).unwrap_or_else(|err| panic!("{err}"))
    }

    #[test]
    fn short_names_are_widened() {
        for (text, wanted) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("[2001:db8::1]/x:t", "[2001:db8::1]/x:t"),
            ("UPPER/x", "upper:443/x:latest"),
            ("REG.example.org:443/x", "reg.example.org/x:latest"),
            ("registry-1.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io:443/user/app", "docker.io/user/app:latest"),
            ("registry:443/x", "registry:443/x:latest"),
            ("127.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("a__b/c.d/e--f", "docker.io/a__b/c.d/e--f:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("xn--7o8h.com/m:p", "xn--7o8h.com/m:p"),
            ("example.org/a:Tag_1.2-x", "example.org/a:Tag_1.2-x"),
        ] {
            assert_eq!(full(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_digest_takes_the_place_of_the_tag_that_was_not_given() {
        let of = Reference::parse(&format!("busybox@sha256:{HEX}")).unwrap();
        assert_eq!((of.tag(), of.selector()), (None, format!("sha256:{HEX}").as_str()));
        assert_eq!(of.familiar(), format!("busybox@sha256:{HEX}"));
        let of = Reference::parse(&format!("busybox:1@sha256:{HEX}")).unwrap();
        assert_eq!((of.tag(), of.tagged()), (Some("1"), None));
        assert_eq!(of.to_string(), format!("docker.io/library/busybox:1@sha256:{HEX}"));
    }

    #[test]
    fn what_goes_without_saying_is_not_said() {
        for text in [
            "busybox:1",
            "user/app:1",
            "example.org/library/app:1",
            "docker.io/li.brary/app:1",
            "docker.io/index.docker.io/app:1",
            "docker.io/localhost/app:1",
        ] {
            assert_eq!(Reference::parse(text).unwrap().familiar(), text);
        }
        assert_eq!(
            Reference::parse("docker.io/library/x/y").unwrap().familiar(),
            "library/x/y:latest"
        );
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "empty"),
            (HEX, "image id"),
            ("Busybox", "lower case"),
            ("a/B", "lower case"),
            ("docker.io/", "missing"),
            ("aa//bb", "character"),
            ("a/-b", "character"),
            ("a..b", "character"),
            ("a___b", "character"),
            ("a._b", "character"),
            ("a/../b", "character"),
            ("a b", "character"),
            ("a:b c", "tag"),
            ("a:", "tag"),
            ("a:-b", "tag"),
            ("a@sha256:ff", "digest"),
            ("a@md5:ffffffffffffffffffffffffffffffff", "digest"),
            ("-a.b/c", "host name"),
            ("a.b:x/c", "port"),
            ("[fe80::1%eth0]:5000/x", "host name"),
            ("[::1/x", "host name"),
            ("a.b:/c", "port"),
            ("https://a.b/c", "port"),
        ] {
            let err = Reference::parse(text).unwrap_err();
            assert!(err.to_string().contains(why), "{text}: {err}");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
    }

    #[test]
    fn a_message_shows_a_name_on_one_line_and_not_all_of_it() {
        let text = format!("a\nb\u{1b}[2J\u{202e}{}", "x".repeat(10_000));
        let err = Reference::parse(&text).unwrap_err().to_string();
        assert!(!err.contains(['\n', '\u{1b}', '\u{202e}']) && err.len() < 700, "{err}");
        assert!(err.contains("a\\nb\\u{1b}[2J"), "{err}");
    }

    #[test]
    fn credentials_for_an_address_are_for_every_spelling_of_it() {
        let of = |name: &str| Reference::parse(name).unwrap();
        for address in ["https://REG.example.org/v1/", "reg.example.org:443", "reg.example.org"] {
            assert!(of("reg.example.org/x").is_on(address), "{address}");
        }
        for address in ["https://index.docker.io/v1/", "registry-1.docker.io", "docker.io"] {
            assert!(of("busybox").is_on(address), "{address}");
        }
        for address in ["reg.example.org:80", "u@reg.example.org", "reg.example.org.evil", ""] {
            assert!(!of("reg.example.org/x").is_on(address), "{address}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_was_understood_means_the_same_when_written_out(text in "[a-zA-Z0-9.:/@_-]{1,40}") {
            if let Ok(first) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&first.to_string()).unwrap(), &first);
                prop_assert_eq!(&Reference::parse(&first.familiar()).unwrap(), &first);
            }
        }
    }
}
