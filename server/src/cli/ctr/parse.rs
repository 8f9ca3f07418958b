// SPDX-License-Identifier: Apache-2.0
//! The command line of `ctr`: [`FLAGS`] has every flag that Hull understands.
//!
//! The rule: a flag that changes the result is either implemented or refused, and so is every flag that is
//! not in the table. Flags that choose a namespace or a snapshotter are ignored, because Hull has only one of
//! each. As in Go programs, one dash or two begin a flag, and its value follows after `=` or as the next word.

use crate::cli::error::but_not;
use crate::config::size::decimal;
use std::path::PathBuf;
use std::time::Duration;

/// The requested operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Import(String),
    /// Without names, all images.
    List {
        quiet: bool,
        names: Vec<String>,
    },
    Export {
        file: Option<PathBuf>,
        images: Vec<String>,
    },
    Remove(Vec<String>),
    Tag {
        image: String,
        names: Vec<String>,
        force: bool,
    },
    Version,
}

/// How to perform it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// The daemon's socket, if a flag names one.
    pub(super) address: Option<PathBuf>,
    /// Longest wait for the connection.
    pub(super) connect_timeout: Option<Duration>,
    /// Longest time of the whole command.
    pub(super) timeout: Option<Duration>,
    /// Requested platforms, which have to be that of this machine.
    pub(super) platforms: Vec<String>,
}

/// The meaning of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Address,
    ConnectTimeout,
    Timeout,
    Platform,
    Quiet,
    Force,
    Version,
    /// Hull has no choice there, or does so always.
    None,
}

#[derive(Debug)]
struct Flag {
    /// All spellings, without their dashes.
    names: &'static [&'static str],
    meaning: Meaning,
    has_value: bool,
    /// The commands that have it; empty for the flags of ctr itself.
    of: &'static [&'static str],
}

const fn flag(
    names: &'static [&'static str],
    meaning: Meaning,
    of: &'static [&'static str],
) -> Flag {
    Flag { names, meaning, has_value: false, of }
}

const fn with_value(
    names: &'static [&'static str],
    meaning: Meaning,
    of: &'static [&'static str],
) -> Flag {
    Flag { names, meaning, has_value: true, of }
}

const FLAGS: [Flag; 18] = [
    with_value(&["address", "a"], Meaning::Address, &[]),
    with_value(&["connect-timeout"], Meaning::ConnectTimeout, &[]),
    with_value(&["timeout"], Meaning::Timeout, &[]),
    with_value(&["namespace", "n"], Meaning::None, &[]),
    flag(&["debug"], Meaning::None, &[]),
    flag(&["version", "v"], Meaning::Version, &[]),
    with_value(&["platform"], Meaning::Platform, &["import", "export"]),
    with_value(&["snapshotter"], Meaning::None, &["import"]),
    flag(&["all-platforms"], Meaning::None, &["import", "export"]),
    flag(&["digests"], Meaning::None, &["import"]),
    flag(&["skip-digest-for-named"], Meaning::None, &["import"]),
    flag(&["local"], Meaning::None, &["import", "export", "tag"]),
    flag(&["sync-fs"], Meaning::None, &["import"]),
    flag(&["quiet", "q"], Meaning::Quiet, &["list"]),
    flag(&["sync"], Meaning::None, &["rm"]),
    flag(&["force"], Meaning::Force, &["tag"]),
    flag(&["skip-reference-check"], Meaning::None, &["tag"]),
    // No effect on Linux images: their layers may all be distributed.
    flag(&["skip-non-distributable"], Meaning::None, &["export"]),
];

/// A flag of the command line, with its value if it has one.
type Given<'words> = (&'static Flag, String, &'words str);

/// Parses the words after `ctr`. The error reads after "run the command: ".
pub(super) fn parse(words: &[String]) -> Result<(Options, Request), String> {
    let (plain, given) = split(words)?;
    let is = |meaning| given.iter().any(|(flag, ..)| flag.meaning == meaning);
    let options = options(&given)?;
    if is(Meaning::Version) {
        return Ok((options, Request::Version));
    }
    let (command, request) = request(&plain, is(Meaning::Quiet), is(Meaning::Force))?;
    for (flag, _, word) in &given {
        if !flag.of.is_empty() && !flag.of.contains(&command) {
            return Err(format!("`images {command}` of ctr has no {word}"));
        }
    }
    Ok((options, request))
}

/// Separates flags from other words. A flag that is switched off, as in `--force=false`, is left out.
fn split(words: &[String]) -> Result<(Vec<&str>, Vec<Given<'_>>), String> {
    let (mut plain, mut given) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(dashed) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            plain.push(word.as_str());
            continue;
        };
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        let bare = dashed.strip_prefix('-').unwrap_or(dashed);
        let bare = bare.split('=').next().unwrap_or(bare);
        let Some(flag) = FLAGS.iter().find(|flag| flag.names.contains(&bare)) else {
            return Err(format!("hull does not implement {name} of ctr"));
        };
        let value = match (flag.has_value, attached) {
            (true, Some(value)) => value,
            (true, None) => words.next().map(String::as_str).unwrap_or_default(),
            (false, None | Some("true" | "1")) => "true",
            (false, Some("false" | "0")) => continue,
            (false, Some(other)) => return Err(format!("{name} is true or false, not `{other}`")),
        };
        if value.is_empty() {
            return Err(format!("{name} has no value"));
        }
        given.push((flag, value.to_owned(), name));
    }
    Ok((plain, given))
}

fn options(given: &[Given<'_>]) -> Result<Options, String> {
    let mut options = Options::default();
    for (flag, value, name) in given {
        let limit = || {
            duration(value)
                .map(|limit| (!limit.is_zero()).then_some(limit))
                .ok_or_else(|| format!("{name} is a duration such as 1m30s, not `{value}`"))
        };
        match flag.meaning {
            Meaning::Address => {
                options.address = Some(value.strip_prefix("unix://").unwrap_or(value).into());
            }
            Meaning::ConnectTimeout => options.connect_timeout = limit()?,
            Meaning::Timeout => options.timeout = limit()?,
            Meaning::Platform => options.platforms.push(value.clone()),
            Meaning::Quiet | Meaning::Force | Meaning::Version | Meaning::None => {}
        }
    }
    Ok(options)
}

/// The operation, and the name of its command.
fn request(plain: &[&str], quiet: bool, force: bool) -> Result<(&'static str, Request), String> {
    match plain {
        ["images" | "image" | "i", "import", file] => {
            Ok(("import", Request::Import((*file).to_owned())))
        }
        ["images" | "image" | "i", "list" | "ls", filters @ ..] => {
            let named = |filter: &&str| filter.strip_prefix("name==").map(str::to_owned);
            let names = filters.iter().map(|filter| {
                named(filter)
                    .ok_or_else(|| format!("of filters, hull knows name==NAME, not `{filter}`"))
            });
            let names = names.collect::<Result<_, String>>()?;
            Ok(("list", Request::List { quiet, names }))
        }
        ["images" | "image" | "i", "export", file, images @ ..] if !images.is_empty() => {
            let file = (*file != "-").then(|| PathBuf::from(file));
            Ok(("export", Request::Export { file, images: owned(images) }))
        }
        ["images" | "image" | "i", "rm" | "remove" | "delete" | "del", names @ ..]
            if !names.is_empty() =>
        {
            Ok(("rm", Request::Remove(owned(names))))
        }
        ["images" | "image" | "i", "tag", image, names @ ..] if !names.is_empty() => {
            let (image, names) = ((*image).to_owned(), owned(names));
            Ok(("tag", Request::Tag { image, names, force }))
        }
        _ => Err(format!(
            "of ctr, hull knows `images import FILE`, `images export FILE NAME`, `images list`, \
             `images tag NAME NAME`, `images rm NAME` and `--version`{}",
            but_not(plain)
        )),
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A duration as Go writes it: numbers with units, such as `1m30s` or `1.5h`, or `0`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (0_u128, text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_digit(c))?);
        let (unit, after) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(decimal(number, scale)?)?;
        rest = after;
    }
    let nanoseconds = u64::try_from(total).ok()?;
    (!text.is_empty()).then(|| Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(line: &str) -> Result<(Options, Request), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    fn parsed(line: &str) -> Result<Request, String> {
        both(line).map(|(_, request)| request)
    }

    fn options(line: &str) -> Options {
        both(line).unwrap().0
    }

    #[test]
    fn what_tools_that_load_images_call_is_understood() {
        for line in [
            "--namespace=k8s.io images import --all-platforms --digests --snapshotter=overlayfs -",
            "-n k8s.io images import -",
            "-n=k8s.io i import --platform linux/amd64 -",
            "-namespace=k8s.io i import -",
            "-a /run/x.sock --namespace k8s.io image import --local -",
        ] {
            assert_eq!(parsed(line), Ok(Request::Import("-".into())), "{line}");
        }
        let list = |quiet, names| Ok(Request::List { quiet, names });
        assert_eq!(parsed("-n k8s.io images ls -q"), list(true, Vec::new()));
        assert_eq!(parsed("-n=k8s.io images ls name==a:1"), list(false, vec!["a:1".into()]));
        assert_eq!(
            parsed("-n=k8s.io images export /x a b"),
            Ok(Request::Export { file: Some("/x".into()), images: vec!["a".into(), "b".into()] })
        );
        let removed = Request::Remove(vec!["a".into(), "b".into()]);
        assert_eq!(parsed("images rm --sync a b"), Ok(removed));
        let tag =
            |force| Request::Tag { image: "sha256:1".into(), names: vec!["a:1".into()], force };
        assert_eq!(parsed("-n k8s.io images tag sha256:1 a:1"), Ok(tag(false)));
        assert_eq!(parsed("images tag --force=false sha256:1 a:1"), Ok(tag(false)));
        assert_eq!(parsed("images tag --local --force sha256:1 a:1"), Ok(tag(true)));
        assert_eq!(parsed("--version"), Ok(Request::Version));
    }

    #[test]
    fn flags_that_change_the_result_have_an_effect() {
        for line in ["-a /x", "-a=/x", "--address /x", "--address=unix:///x", "-address=/x"] {
            let options = options(&format!("{line} images ls"));
            assert_eq!(options.address, Some(PathBuf::from("/x")), "{line}");
        }
        let limits = options("--timeout 1m30s --connect-timeout=0 images ls");
        assert_eq!(limits.timeout, Some(Duration::from_secs(90)));
        assert_eq!(limits.connect_timeout, None);
        let platforms = options("images export --platform linux/arm64 --platform=x /x a").platforms;
        assert_eq!(platforms, ["linux/arm64", "x"]);
    }

    #[test]
    fn what_would_come_out_differently_is_refused() {
        for line in [
            "run x y",
            "images import",
            "images import --no-unpack -",
            "images import --base-name x -",
            "images import --label a=b -",
            "images import --compress-blobs -",
            "images import --unknown -",
            "images import --force -",
            "images rm",
            "images rm -q a",
            "images ls labels.x",
            "images ls --quiet=maybe",
            "images export /x",
            "images export --skip-manifest-json /x a",
            "images tag a",
            "images import - -n",
            "-a= images ls",
            "images ls -a",
            "--timeout soon images ls",
            "--timeout -1s images ls",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_error_quotes_the_words_that_there_are() {
        assert!(parsed("-n k8s.io").unwrap_err().ends_with("`--version`"));
        assert!(parsed("run x").unwrap_err().ends_with(", not `run x`"));
        assert!(parsed("images ls --x=1").unwrap_err().ends_with("--x of ctr"));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let nanoseconds = |text| duration(text).map(|of| of.as_nanos());
        assert_eq!(nanoseconds("1.5h"), Some(5_400_000_000_000));
        assert_eq!(nanoseconds("2m0.5s10us"), Some(120_500_010_000));
        for text in ["", "1", "s", "1d", "1..5s", "-1s", "99999999999999h"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }
}
