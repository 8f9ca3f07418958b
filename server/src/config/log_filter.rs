// SPDX-License-Identifier: Apache-2.0
//! The filter of the log: a level, and levels of modules, as in `info,hull_image=debug`. Pure.
//!
//! The rule: a filter names only what exists, since a misspelt module would be silence where somebody looks for a
//! cause. Libraries say nothing below `warn` unless the filter names them: a level is about Hull.

use std::fmt;
use strsim::levenshtein;

/// A level of the log; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const ALL: [Self; 6] =
        [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The level as it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text))
    }
}

/// The crates of Hull that write to the daemon's log, with their modules. A test compares them with the sources.
const CRATES: [(&str, &[&str]); 4] = [
    (
        "hull",
        &[
            "apparmor",
            "audit",
            "check",
            "cli",
            "config",
            "container",
            "cri",
            "daemon",
            "diagnostics",
            "doctor",
            "embedded",
            "error",
            "history",
            "limits",
            "metrics",
            "monitors",
            "node",
            "nri",
            "observe",
            "oci_spec",
            "pod",
            "records",
            "storage",
            "streaming",
            "systemd",
            "tracer",
            "userns",
        ],
    ),
    (
        "hull_image",
        &[
            "credentials",
            "digest",
            "error",
            "file_list",
            "fs",
            "layer",
            "limits",
            "manifest",
            "policy",
            "reference",
            "registry",
            "store",
            "types",
            "unpack",
            "view",
        ],
    ),
    (
        "hull_network",
        &[
            "builtin",
            "cni",
            "error",
            "held_ports",
            "ipam",
            "limits",
            "listeners",
            "netns",
            "network",
            "nft",
            "ports_in_use",
            "records",
            "sync",
            "types",
        ],
    ),
    (
        "hull_nri",
        &[
            "calls",
            "connection",
            "counters",
            "error",
            "host",
            "launch",
            "limits",
            "merge",
            "method",
            "plugin",
            "plugin_set",
            "session",
            "types",
            "wire",
        ],
    ),
];

/// The libraries in the daemon that have events of their own.
const LIBRARIES: [&str; 11] = [
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "netlink_packet_route",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
    "tungstenite",
    "zbus",
];

/// Longest filter, in bytes.
const BYTES_MAX: usize = 1024;

/// A filter that names only what exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The level of modules without one of their own; `None` if the filter has none.
    level: Option<Level>,
    /// Levels by module, in the order of the filter.
    modules: Vec<(String, Level)>,
}

impl Filter {
    /// Parses `LEVEL`, `MODULE=LEVEL`, or several of them with commas between. The error is a sentence, and names what
    /// exists.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("it is longer than {BYTES_MAX} bytes"));
        }
        let mut filter = Self { level: None, modules: Vec::new() };
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => filter.level = Some(bare(part)?),
                Some((module, level)) => {
                    let (module, level) = (module.trim(), level.trim());
                    let level = Level::parse(level).ok_or_else(|| no_level(level))?;
                    exists(module)?;
                    filter.modules.retain(|(name, _)| name != module);
                    filter.modules.push((module.to_owned(), level));
                }
            }
        }
        Ok(filter)
    }

    /// This filter over `below`: what this one does not name is as there.
    pub(crate) fn over(&self, below: &Self) -> Self {
        if self.level.is_some() {
            return self.clone();
        }
        let mut modules = below.modules.clone();
        modules.retain(|(name, _)| !self.modules.iter().any(|(own, _)| own == name));
        modules.extend(self.modules.iter().cloned());
        Self { level: below.level, modules }
    }

    /// The level of Hull's modules without one of their own.
    pub(crate) fn level(&self) -> Level {
        self.level.unwrap_or(Level::Info)
    }

    /// The level of libraries that the filter does not name.
    pub(crate) fn level_of_libraries(&self) -> Level {
        self.level().min(Level::Warn)
    }

    /// The modules with a level of their own.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&str, Level)> {
        self.modules.iter().map(|(name, level)| (name.as_str(), *level))
    }

    /// The most verbose level in it.
    pub(crate) fn most(&self) -> Level {
        self.modules.iter().map(|(_, level)| *level).fold(self.level(), Level::max)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level().name())?;
        self.modules.iter().try_for_each(|(name, level)| write!(f, ",{name}={}", level.name()))
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self { level: Some(Level::Info), modules: Vec::new() }
    }
}

/// A part without `=`: a level, or by mistake a module.
fn bare(part: &str) -> Result<Level, String> {
    match Level::parse(part) {
        Some(level) => Ok(level),
        None if exists(part).is_ok() => Err(format!("`{part}` has no level; write `{part}=debug`")),
        None => Err(no_level(part)),
    }
}

fn no_level(text: &str) -> String {
    format!("`{text}` is none of {}", Level::ALL.map(Level::name).join(", "))
}

/// Checks that a module of Hull, or a library, has this name.
fn exists(name: &str) -> Result<(), String> {
    let libraries = LIBRARIES.contains(&name);
    let modules = CRATES.iter().any(|(krate, modules)| {
        let rest = name.strip_prefix(krate);
        rest == Some("")
            || rest.and_then(|rest| rest.strip_prefix("::")).is_some_and(|of| modules.contains(&of))
    });
    if libraries || modules {
        return Ok(());
    }
    if let Some((_, modules)) = CRATES.iter().find(|(krate, _)| below(name, krate)) {
        let krate = name.split("::").next().unwrap_or_default();
        let near = nearest(name, modules.iter().map(|module| format!("{krate}::{module}")));
        return Err(format!(
            "there is no module `{name}`{near}; {krate} has {}",
            modules.join(", ")
        ));
    }
    let known = CRATES.iter().map(|(krate, _)| *krate).chain(LIBRARIES);
    let near = nearest(name, known.clone().map(str::to_owned));
    Err(format!(
        "there is no module `{name}`{near}; there are {}",
        known.collect::<Vec<_>>().join(", ")
    ))
}

fn below(name: &str, krate: &str) -> bool {
    name.strip_prefix(krate).is_some_and(|rest| rest.starts_with("::"))
}

/// `, did you mean …`, if a known name is near enough.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let near = known.map(|of| (levenshtein(name, &of), of)).min();
    near.filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, of)| format!(" (did you mean `{of}`?)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn parsed(text: &str) -> String {
        Filter::parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).to_string()
    }

    #[test]
    fn filters_are_levels_and_modules() {
        assert_eq!(parsed("debug"), "debug");
        assert_eq!(parsed("hull_image=debug"), "info,hull_image=debug");
        assert_eq!(parsed("INFO, hull::pod=trace ,h2=warn"), "info,hull::pod=trace,h2=warn");
        assert_eq!(parsed("warn,hull=debug,hull=trace"), "warn,hull=trace");
        assert_eq!(Filter::parse("debug").unwrap().level_of_libraries(), Level::Warn);
        assert_eq!(Filter::parse("off").unwrap().level_of_libraries(), Level::Off);
        assert_eq!(Filter::parse("warn,h2=trace").unwrap().most(), Level::Trace);
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_does() {
        for (text, words) in [
            ("loud", "`loud` is none of off, error"),
            ("", "`` is none of off"),
            ("hull_imag=debug", "did you mean `hull_image`?"),
            ("hull_image=loud", "`loud` is none of"),
            ("hull::pods=debug", "did you mean `hull::pod`?"),
            ("hull::pod::task=debug", "hull has apparmor"),
            ("serde=debug", "there are hull, hull_image"),
            ("hull_image", "write `hull_image=debug`"),
            ("hull[span]=debug", "there is no module `hull[span]`"),
        ] {
            let why = Filter::parse(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
        assert!(Filter::parse(&"info,".repeat(1000)).is_err());
    }

    #[test]
    fn a_filter_without_a_level_adds_to_the_one_below() {
        let below = Filter::parse("warn,hull_nri=debug,h2=info").unwrap();
        let over = |text: &str| Filter::parse(text).unwrap().over(&below).to_string();
        assert_eq!(over("hull_image=debug"), "warn,hull_nri=debug,h2=info,hull_image=debug");
        assert_eq!(over("h2=trace"), "warn,hull_nri=debug,h2=trace");
        assert_eq!(over("debug"), "debug");
    }

    #[test]
    fn the_modules_are_those_of_the_sources() {
        let server = Path::new(env!("CARGO_MANIFEST_DIR"));
        for ((krate, modules), folder) in
            CRATES.iter().zip(["src", "../image/src", "../network/src", "nri/src"])
        {
            let names = fs::read_dir(server.join(folder)).unwrap().map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.trim_end_matches(".rs").to_owned()
            });
            let mut found: BTreeSet<String> = names.collect();
            // `documented` has only tests.
            for root in ["lib", "main", "tests", "fuzz", "documented"] {
                found.remove(root);
            }
            let listed: BTreeSet<String> = modules.iter().map(|of| (*of).to_owned()).collect();
            assert_eq!(listed, found, "the modules of {krate}");
        }
    }

    #[test]
    fn the_libraries_are_in_the_daemon() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let lock = fs::read_to_string(lock).unwrap().replace('-', "_");
        for library in LIBRARIES {
            assert!(lock.contains(&format!("name = \"{library}\"\n")), "{library}");
        }
    }
}
