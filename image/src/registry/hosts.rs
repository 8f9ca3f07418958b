// SPDX-License-Identifier: Apache-2.0
//! Parses `hosts.toml`, the format of containerd for the endpoints of a registry.
//!
//! ```toml
//! server = "https://registry.example.org"     # what stands last; without it the registry itself
//! [host."https://mirror.example.org/v2/proxy"]
//! capabilities = ["pull", "resolve"]
//! override_path = true
//! ```
//!
//! Pure. The rule: a setting is applied or is an error that names the line: an unknown key, an invalid
//! capability, an invalid address. Hosts keep their order.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Longest file that is read.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most hosts of one registry.
const HOSTS_MAX: usize = 64;

/// Why several client certificates of one host are refused.
pub(super) const ONE_CERTIFICATE: &str =
    "it has several client certificates, and a connection shows one: leave the one that it wants";

/// One endpoint of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Scheme, host, port and path, up to and with `/v2`; no slash at the end.
    pub(crate) api: String,
    /// Whether it may resolve tags.
    pub(crate) resolves: bool,
    /// Whether it may serve content by digest.
    pub(crate) pulls: bool,
    pub(crate) trust: Trust,
    pub(crate) headers: Vec<(String, String)>,
}

/// The TLS settings and timeouts of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    pub(crate) skip_verify: bool,
    pub(crate) ca: Vec<PathBuf>,
    /// A certificate with its key, which may be in the same file. TLS shows one, so several are refused: which
    /// of them a server wants could only be guessed.
    pub(crate) client: Option<(PathBuf, Option<PathBuf>)>,
    pub(crate) connect_timeout: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, RawHost>,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<OneOrMany<PathBuf>>>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany<String>>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawHost {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<OneOrMany<PathBuf>>>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany<String>>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Reads a file: the mirrors in order, then the server. `fallback` is the server of files that name
/// none; relative paths are beneath `beside`. What is wrong is said in words.
pub(crate) fn parse(text: &str, fallback: &str, beside: &Path) -> Result<Vec<Host>, String> {
    let raw: RawFile = toml::from_str(text).map_err(|err| {
        let line = err.span().map_or(1, |span| {
            1 + text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
        });
        format!("line {line}: {}", err.message())
    })?;
    if raw.host.len() > HOSTS_MAX {
        return Err(format!("more than {HOSTS_MAX} hosts"));
    }
    let mut mirrors: Vec<(Spanned<String>, RawHost)> = raw.host.into_iter().collect();
    mirrors.sort_by_key(|(name, _)| name.span().start);
    let mut hosts = Vec::new();
    for (name, settings) in mirrors {
        hosts.push(host(name.get_ref(), settings, beside)?);
    }
    let settings = RawHost {
        capabilities: raw.capabilities,
        ca: raw.ca,
        client: raw.client,
        skip_verify: raw.skip_verify,
        header: raw.header,
        override_path: raw.override_path,
        dial_timeout: raw.dial_timeout,
    };
    let server = raw.server.filter(|server| !server.is_empty());
    hosts.push(host(server.as_deref().unwrap_or(fallback), settings, beside)?);
    Ok(hosts)
}

/// Checks the text of a `hosts.toml` as a pull reads it.
///
/// # Errors
/// A pull would refuse the file; the reason may contain an address of it.
pub fn check(text: &str) -> Result<(), String> {
    parse(text, "https://registry.invalid", Path::new("/")).map(drop)
}

fn host(address: &str, raw: RawHost, beside: &Path) -> Result<Host, String> {
    let wrong = |why: &str| format!("`{}`: {why}", address.escape_debug());
    let (resolves, pulls) = capabilities(raw.capabilities.as_deref()).map_err(|why| wrong(&why))?;
    let path = |path: PathBuf| beside.join(path);
    let client = raw.client.map(OneOrMany::into_vec).unwrap_or_default();
    if client.len() > 1 {
        return Err(wrong(ONE_CERTIFICATE));
    }
    let client = client.into_iter().next().map(|pair| {
        let mut parts = pair.into_vec().into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(certificate), key, None) => {
                Ok((path(certificate), key.filter(|key| !key.as_os_str().is_empty()).map(path)))
            }
            _ => Err(wrong("`client` is a certificate, or a certificate and its key")),
        }
    });
    let mut headers = Vec::new();
    for (name, values) in raw.header.unwrap_or_default() {
        for value in values.into_vec() {
            if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err()
                || reqwest::header::HeaderValue::from_str(&value).is_err()
            {
                return Err(wrong("a `header` is none that HTTP can carry"));
            }
            headers.push((name.clone(), value));
        }
    }
    let timeout = raw.dial_timeout.as_deref().map(duration);
    Ok(Host {
        api: api(address, raw.override_path.unwrap_or(false)).map_err(wrong)?,
        resolves,
        pulls,
        trust: Trust {
            skip_verify: raw.skip_verify.unwrap_or(false),
            ca: raw.ca.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(path).collect(),
            client: client.transpose()?,
            connect_timeout: timeout
                .map(|of| of.ok_or_else(|| wrong("`dial_timeout` is none like \"10s\"")))
                .transpose()?,
        },
        headers,
    })
}

/// Whether it resolves and whether it pulls. None named means all.
fn capabilities(named: Option<&[String]>) -> Result<(bool, bool), String> {
    let Some(named) = named.filter(|named| !named.is_empty()) else { return Ok((true, true)) };
    let known = ["pull", "resolve", "push", "referrers"];
    if let Some(bad) = named.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("`{}` is not a capability", bad.escape_debug()));
    }
    let has = |name: &str| named.iter().any(|of| of == name);
    Ok((has("resolve"), has("pull")))
}

/// The address of the API: `/v2` goes without saying unless the path is to be taken as it is.
fn api(address: &str, override_path: bool) -> Result<String, &'static str> {
    let text = if address.contains("://") {
        address.to_owned()
    } else {
        let is_here = crate::reference::host::is_loopback(address);
        format!("{}://{address}", if is_here { "http" } else { "https" })
    };
    let url = reqwest::Url::parse(&text).map_err(|_| "it is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("it is not an HTTP or HTTPS URL");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an address of a registry has no query");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into an address");
    }
    let mut base = url.to_string().trim_end_matches('/').to_owned();
    if !override_path && !url.path().trim_end_matches('/').ends_with("/v2") {
        base.push_str("/v2");
    }
    Ok(base)
}

/// `1m30s`, `10s`, `500ms`: the units of Go that make sense here.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        let behind = &rest[digits..];
        let unit_end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let unit = match &behind[..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = &behind[unit_end..];
    }
    (total > Duration::ZERO).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<Host>, String> {
        parse(text, "https://registry.example.org", Path::new("/etc/certs.d/x"))
    }

    fn apis(text: &str) -> Vec<String> {
        parsed(text).unwrap().into_iter().map(|host| host.api).collect()
    }

    #[test]
    fn hosts_come_in_the_order_written_and_the_server_last() {
        let text = r#"
            server = "https://last.example.org"
            [host."https://z.example.org"]
            [host."http://a.example.org:5000/v2/"]
            [host."https://m.example.org/proxy/v2/cache"]
            override_path = true
            [host."https://n.example.org/proxy"]
            [host."localhost:5000"]
        "#;
        assert_eq!(
            apis(text),
            [
                "https://z.example.org/v2",
                "http://a.example.org:5000/v2",
                "https://m.example.org/proxy/v2/cache",
                "https://n.example.org/proxy/v2",
                "http://localhost:5000/v2",
                "https://last.example.org/v2",
            ]
        );
        assert_eq!(apis(""), ["https://registry.example.org/v2"]);
    }

    #[test]
    fn every_setting_is_taken() {
        let text = r#"
            ca = "ca.pem"
            skip_verify = true
            [host."https://mirror.example.org"]
            capabilities = ["pull"]
            ca = ["/abs/ca.pem", "rel.pem"]
            client = [["cert.pem", "key.pem"]]
            dial_timeout = "1m30s"
            [host."https://mirror.example.org".header]
            x-one = "1"
            x-two = ["2", "3"]
        "#;
        let hosts = parsed(text).unwrap();
        let at = |name: &str| PathBuf::from("/etc/certs.d/x").join(name);
        assert_eq!((hosts[0].resolves, hosts[0].pulls), (false, true));
        assert_eq!(hosts[0].trust.ca, [PathBuf::from("/abs/ca.pem"), at("rel.pem")]);
        assert_eq!(hosts[0].trust.client, Some((at("cert.pem"), Some(at("key.pem")))));
        for text in
            ["client = \"both.pem\"", "client = [\"both.pem\"]", "client = [[\"both.pem\", \"\"]]"]
        {
            let both = parsed(text).unwrap().remove(0).trust.client;
            assert_eq!(both, Some((at("both.pem"), None)), "{text}");
        }
        assert_eq!(hosts[0].trust.connect_timeout, Some(Duration::from_secs(90)));
        let headers: Vec<(&str, &str)> =
            hosts[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, [("x-one", "1"), ("x-two", "2"), ("x-two", "3")]);
        assert!(hosts[1].trust.skip_verify && hosts[1].trust.ca == [at("ca.pem")]);
    }

    #[test]
    fn what_cannot_be_done_is_an_error_that_says_where() {
        for (text, detail) in [
            ("server = 1", "line 1"),
            ("\nsevrer = \"https://x\"", "sevrer"),
            ("[host.\"https://x\"]\nskip_verfy = true", "skip_verfy"),
            ("[host.\"https://x\"]\ncapabilities = [\"pul\"]", "`pul` is not a capability"),
            ("[host.\"ftp://x\"]", "not an HTTP or HTTPS URL"),
            ("[host.\"https://u:p@x\"]", "credentials"),
            ("[host.\"https://x\"]\ndial_timeout = \"soon\"", "dial_timeout"),
            ("[host.\"https://x\"]\nclient = [[\"a\", \"b\", \"c\"]]", "client"),
            ("[host.\"https://x\"]\nclient = [[\"a\", \"b\"], \"c\"]", "several client"),
            ("[host.\"https://x\".header]\n\"a b\" = \"c\"", "header"),
        ] {
            let err = parsed(text).unwrap_err();
            assert!(err.contains(detail), "{text}: {err}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _either = parsed(&text);
            let _either = duration(&text);
        }
    }
}
