// SPDX-License-Identifier: Apache-2.0
//! Limits of resources of a container's processes (`getrlimit(2)`): none comes from the daemon.
//!
//! The defaults are those that the services of containerd and CRI-O give the containers of their pods, and otherwise the
//! kernel's for its first process. `runtime.default_ulimits` changes them, NRI plugins change them for a container.

use serde_json::{Value, json};
use std::fs;

/// No limit, `RLIM_INFINITY`.
const INFINITY: u64 = u64::MAX;
/// Number of processes of a kernel that does not say how many threads it takes.
const THREADS_MAX: u64 = 1 << 16;

/// The name of each limit, as in the file and without `RLIMIT_`, with its default, soft and hard; `None` is
/// half as much as the machine has threads.
const DEFAULTS: [(&str, Option<(u64, u64)>); 16] = [
    ("as", Some((INFINITY, INFINITY))),
    ("core", Some((INFINITY, INFINITY))),
    ("cpu", Some((INFINITY, INFINITY))),
    ("data", Some((INFINITY, INFINITY))),
    ("fsize", Some((INFINITY, INFINITY))),
    ("locks", Some((INFINITY, INFINITY))),
    ("memlock", Some((8 << 20, 8 << 20))),
    ("msgqueue", Some((819_200, 819_200))),
    ("nice", Some((0, 0))),
    ("nofile", Some((1 << 20, 1 << 20))),
    ("nproc", Some((INFINITY, INFINITY))),
    ("rss", Some((INFINITY, INFINITY))),
    ("rtprio", Some((0, 0))),
    ("rttime", Some((INFINITY, INFINITY))),
    ("sigpending", None),
    ("stack", Some((8 << 20, INFINITY))),
];

/// One limit as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ulimit {
    name: &'static str,
    soft: u64,
    hard: u64,
}

impl Ulimit {
    /// Reads `NAME=SOFT[:HARD]`, with -1 or `unlimited` for no limit; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, values) =
            text.split_once('=').ok_or("it is not NAME=SOFT:HARD, as in nofile=1024:4096")?;
        let known = DEFAULTS.iter().find(|(known, _)| *known == name);
        let Some((name, _)) = known else {
            let names: Vec<_> = DEFAULTS.iter().map(|(name, _)| *name).collect();
            return Err(format!("its name is none of {}", names.join(", ")));
        };
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(INFINITY),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_err(|_| ()),
            _ => Err(()),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (Ok(soft), Ok(hard)) = (number(soft), number(hard)) else {
            return Err("a limit is a number, -1 or `unlimited`".into());
        };
        if soft > hard {
            return Err(format!(
                "the soft limit, {}, is above the hard one, {}",
                in_words(soft),
                in_words(hard)
            ));
        }
        Ok(Self { name, soft, hard })
    }
}

/// A limit as it is written.
fn in_words(limit: u64) -> String {
    if limit == INFINITY { "unlimited".to_owned() } else { limit.to_string() }
}

/// The limits of a container, in the form of the runtime spec. Of several of one name in `configured`, which are
/// valid, the last counts.
pub(crate) fn rlimits(configured: &[String]) -> Value {
    let half = fs::read_to_string("/proc/sys/kernel/threads-max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(THREADS_MAX)
        / 2;
    with(configured, half)
}

fn with(configured: &[String], sigpending: u64) -> Value {
    let configured: Vec<_> =
        configured.iter().filter_map(|text| Ulimit::parse(text).ok()).collect();
    let limits = DEFAULTS.into_iter().map(|(name, default)| {
        let (soft, hard) = match configured.iter().rfind(|of| of.name == name) {
            Some(of) => (of.soft, of.hard),
            None => default.unwrap_or((sigpending, sigpending)),
        };
        json!({"type": format!("RLIMIT_{}", name.to_ascii_uppercase()), "soft": soft, "hard": hard})
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::PosixRlimit;

    #[test]
    fn every_limit_is_given_once_and_the_last_configured_value_counts() {
        let configured = ["nofile=1024:524288".to_owned(), "core=0".into(), "core=5:-1".into()];
        let all: Vec<PosixRlimit> = serde_json::from_value(with(&configured, 77)).unwrap();
        let of = |name: &str| {
            let mut found = all.iter().filter(|of| of.typ().to_string() == name);
            let limit = found.next().map(|of| (of.soft(), of.hard()));
            assert!(found.next().is_none(), "{name} is there twice");
            limit
        };
        assert_eq!(all.len(), 16);
        assert_eq!(of("RLIMIT_NOFILE"), Some((1024, 524_288)));
        assert_eq!(of("RLIMIT_CORE"), Some((5, INFINITY)));
        assert_eq!(of("RLIMIT_SIGPENDING"), Some((77, 77)));
        assert_eq!(of("RLIMIT_MEMLOCK"), Some((8 << 20, 8 << 20)));
    }

    #[test]
    fn a_limit_that_is_none_is_refused_and_says_why() {
        for (text, why) in [
            ("nofile", "NAME=SOFT"),
            ("NOFILE=5", "none of"),
            ("nofile=5:4", "the soft limit, 5, is above the hard one, 4"),
            ("nofile=-1:4", "the soft limit, unlimited, is above"),
            ("nofile=+5", "a number"),
            ("nofile=", "a number"),
            ("nofile=5:", "a number"),
            ("nofile=5:6:7", "a number"),
            ("nofile=99999999999999999999", "a number"),
        ] {
            let said = Ulimit::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        let all = Ulimit::parse("stack=unlimited").unwrap();
        assert_eq!((all.soft, all.hard), (INFINITY, INFINITY));
    }
}
