// SPDX-License-Identifier: Apache-2.0
//! A hook file: oci-hooks(5), version 1.0.0.
//!
//! Every value is checked while it is parsed, so that an error has its line. An unknown field makes the file invalid: it
//! may be a condition, without which the hook would run for others too.

use hull_plan::HookKind;
use oci_spec::runtime::Hook;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// The version of the format.
const VERSION: &str = "1.0.0";
/// Most bytes that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A hook, the containers that it is for, and when it runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Its path, as messages show it.
    #[serde(skip)]
    path: String,
    #[serde(rename = "version", deserialize_with = "version")]
    _version: String,
    hook: Program,
    #[serde(deserialize_with = "one_condition")]
    when: When,
    #[serde(deserialize_with = "at_least_one")]
    stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    #[serde(deserialize_with = "absolute")]
    path: PathBuf,
    #[serde(default, deserialize_with = "arguments")]
    args: Option<Vec<String>>,
    #[serde(default, deserialize_with = "variables")]
    env: Option<Vec<String>>,
    #[serde(default, deserialize_with = "timeout")]
    timeout: Option<u32>,
}

/// The points at which a hook can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    pub(super) fn kind(self) -> HookKind {
        match self {
            Self::Prestart => HookKind::Prestart,
            Self::CreateRuntime => HookKind::CreateRuntime,
            Self::CreateContainer => HookKind::CreateContainer,
            Self::StartContainer => HookKind::StartContainer,
            Self::Poststart => HookKind::Poststart,
            Self::Poststop => HookKind::Poststop,
        }
    }
}

/// Conditions; all that are there must hold, and at least one must be there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct When {
    always: Option<bool>,
    has_bind_mounts: Option<bool>,
    annotations: Annotations,
    commands: Vec<Pattern>,
}

/// Patterns of a key and its value.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
struct Annotations(Vec<(Pattern, Pattern)>);

/// A regular expression that matches anywhere in a text.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

/// The properties of a container by which files choose it.
#[derive(Debug)]
pub(super) struct Traits<'a> {
    /// The annotations of the container and of its pod.
    pub(super) annotations: HashMap<&'a str, &'a str>,
    /// The path of its program, as its spec has it.
    pub(super) command: &'a str,
    pub(super) has_bind_mounts: bool,
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let built = RegexBuilder::new(&text).size_limit(PATTERN_BYTES_MAX).build();
        // A syntax error draws the pattern over several lines; the last one has the reason.
        built.map(Self).map_err(|err| {
            let why = err.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("`{text}` is not a regular expression: {why}")
        })
    }
}

impl TryFrom<BTreeMap<String, String>> for Annotations {
    type Error = String;

    fn try_from(texts: BTreeMap<String, String>) -> Result<Self, String> {
        let both = |(key, value): (String, String)| -> Result<_, String> {
            Ok((Pattern::try_from(key)?, Pattern::try_from(value)?))
        };
        texts.into_iter().map(both).collect::<Result<_, _>>().map(Self)
    }
}

impl File {
    /// Parses the text of a file. Errors have a line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|err| err.to_string())
    }

    /// With the path at which it was found.
    pub(super) fn named(self, path: String) -> Self {
        Self { path, ..self }
    }

    /// Its path, as messages show it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether its hook is for a container with these properties.
    pub(super) fn matches(&self, of: &Traits<'_>) -> bool {
        let When { always, has_bind_mounts, annotations, commands } = &self.when;
        let annotated = |(key, value): &(Pattern, Pattern)| {
            let mut all = of.annotations.iter();
            all.any(|(name, text)| key.0.is_match(name) && value.0.is_match(text))
        };
        let is_command = (!commands.is_empty())
            .then(|| commands.iter().any(|pattern| pattern.0.is_match(of.command)));
        let conditions = [*always, has_bind_mounts.map(|is| is && of.has_bind_mounts), is_command];
        let annotations = annotations.0.iter().map(annotated);
        let mut all: Vec<bool> = conditions.into_iter().flatten().collect();
        all.extend(annotations);
        all.iter().all(|holds| *holds)
    }

    /// The points at which its hook runs.
    pub(super) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The hook as a spec has it.
    pub(super) fn hook(&self) -> Hook {
        let mut hook = Hook::default();
        hook.set_path(self.hook.path.clone());
        hook.set_args(self.hook.args.clone());
        hook.set_env(self.hook.env.clone());
        hook.set_timeout(self.hook.timeout.map(i64::from));
        hook
    }

    /// Its program, unless only the container has it.
    pub(super) fn program_on_node(&self) -> Option<&Path> {
        let on_node = self.stages.iter().any(|stage| *stage != Stage::StartContainer);
        on_node.then_some(self.hook.path.as_path())
    }
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let version = String::deserialize(from)?;
    if version == VERSION {
        return Ok(version);
    }
    Err(de::Error::custom(format!("version `{version}` is not {VERSION}")))
}

fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Stage>, D::Error> {
    let mut stages: Vec<Stage> = Vec::new();
    for stage in Vec::<Stage>::deserialize(from)? {
        // Named twice, it runs once.
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    if stages.is_empty() { Err(de::Error::custom("`stages` is empty")) } else { Ok(stages) }
}

/// Without a condition the hook would never run, and nobody would know.
fn one_condition<'de, D: Deserializer<'de>>(from: D) -> Result<When, D::Error> {
    let when = When::deserialize(from)?;
    let When { always, has_bind_mounts, annotations, commands } = &when;
    let without = always.is_none() && has_bind_mounts.is_none();
    if without && annotations.0.is_empty() && commands.is_empty() {
        return Err(de::Error::custom(
            "`when` has no condition, and would choose no container; for all it is {\"always\": true}",
        ));
    }
    Ok(when)
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = String::deserialize(from)?;
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path.into());
    }
    Err(de::Error::custom(format!("`{path}` is not an absolute path")))
}

fn arguments<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let texts = Option::<Vec<String>>::deserialize(from)?;
    if texts.iter().flatten().any(|text| text.contains('\0')) {
        return Err(de::Error::custom("a text has a NUL in it"));
    }
    Ok(texts)
}

fn variables<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let texts = arguments(from)?;
    let is_variable = |text: &&String| text.find('=').is_some_and(|at| at > 0);
    match texts.iter().flatten().find(|text| !is_variable(text)) {
        Some(text) => Err(de::Error::custom(format!("`{text}` is not NAME=VALUE"))),
        None => Ok(texts),
    }
}

fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    match Option::<u32>::deserialize(from)? {
        Some(0) => Err(de::Error::custom("its timeout is not greater than 0")),
        timeout => Ok(timeout),
    }
}
