// SPDX-License-Identifier: Apache-2.0
//! Reads the files, merges them in order, and records where each value came from.
//!
//! A later file replaces a list as a whole, except `[[image.registry]]`, whose entries are combined:
//! operators deploy one drop-in file per registry.

use super::error::Error;
use super::handlers;
use super::keys::{self, HANDLERS, KEYS, MIRRORS, REGISTRY, in_table, is_handler};
use super::kinds::{self, Kind, described, example, mismatch};
use super::origin::Origin;
use super::settings::Config;
use super::validate::{self, validate};
use serde::Deserialize as _;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the configuration is read from when no file is named.
const FILE: &str = "/etc/hull/config.toml";

/// Largest file of the configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The merged configuration.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// By dotted key. A key that is missing here has its default.
    pub(crate) origins: BTreeMap<String, Origin>,
    /// Where it was read, to read it again.
    pub(crate) source: Source,
}

/// The arguments of [`load`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    named: Option<PathBuf>,
    set: Vec<String>,
}

impl Source {
    /// Reads the files again.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        load(self.named.as_deref(), &self.set)
    }

    /// The file, whether it exists or not, and the directory of its drop-in files.
    pub(crate) fn places(&self) -> (PathBuf, PathBuf) {
        let file = self.named.clone().unwrap_or_else(|| FILE.into());
        let directory = drop_in_dir(&file);
        (file, directory)
    }
}

impl Loaded {
    /// The merged values as TOML, each with its origin.
    pub(crate) fn shown(&self) -> String {
        use fmt::Write as _;
        // A struct of plain values with text keys: there is always a TOML for it.
        let config = self.config.without_accounts();
        let table = toml::Table::try_from(&config).unwrap_or_default();
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            let Some(value) = keys::value_at(&table, key.name) else { continue };
            if of != section {
                section = of;
                let _ = writeln!(out, "\n[{section}]");
            }
            let origin = self.origins.get(key.name).unwrap_or(&Origin::Default);
            let _ = writeln!(out, "{name} = {value}  # from {origin}");
        }
        for (index, registry) in config.image.registry.iter().enumerate() {
            let origin =
                self.origins.get(&format!("{REGISTRY}.{index}")).unwrap_or(&Origin::Default);
            let text = toml::to_string(registry).unwrap_or_default();
            let _ = write!(out, "\n[[{REGISTRY}]]  # from {origin}\n{text}");
        }
        for (name, handler) in &config.runtime.handlers {
            let table = toml::Table::try_from(handler).unwrap_or_default();
            let _ = writeln!(out, "\n[{HANDLERS}.{name}]");
            for (key, value) in table {
                let origin = self.origins.get(&format!("{HANDLERS}.{name}.{key}"));
                let _ =
                    writeln!(out, "{key} = {value}  # from {}", origin.unwrap_or(&Origin::Default));
            }
        }
        out
    }
}

/// Reads `path`, or [`FILE`], then the drop-in files beside it, then `KEY=VALUE` settings of the command line.
/// A later value replaces an earlier one. `path` must exist; [`FILE`] need not.
pub(crate) fn load(path: Option<&Path>, set: &[String]) -> Result<Loaded, Error> {
    let file = path.unwrap_or(Path::new(FILE));
    let mut merged = Merged::default();
    match read(file) {
        Ok(text) => merged.add(&text, |line| Origin::File { path: file.to_owned(), line })?,
        Err(err) if err.kind() == io::ErrorKind::NotFound && path.is_none() => {}
        Err(source) => return Err(Error::Read { path: file.to_owned(), source }),
    }
    for path in drop_ins(file)? {
        let text = read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        merged.add(&text, |line| Origin::File { path: path.clone(), line })?;
    }
    for setting in set {
        merged.add(&as_toml(setting)?, |_| Origin::Flag)?;
    }
    merged.finish(Source { named: path.map(Path::to_owned), set: set.to_vec() })
}

/// The text of a file, which is regular and not large.
fn read(path: &Path) -> io::Result<String> {
    let bytes = hull_sys::files::read(path, FILE_BYTES_MAX)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Whether a name is that of a drop-in file: as `*.toml` in a shell, without those that begin with a dot.
pub(crate) fn is_drop_in(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

/// The directory of the drop-in files of `file`.
fn drop_in_dir(file: &Path) -> PathBuf {
    let mut directory = file.as_os_str().to_owned();
    directory.push(".d");
    directory.into()
}

/// `<file>.d/*.toml`, by name.
pub(crate) fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, Error> {
    let directory = drop_in_dir(file);
    let failed = |source| Error::List { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if is_drop_in(&entry.file_name()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Turns `KEY=VALUE` into a line of TOML; a value that is not valid TOML is used as a string, and so is any value
/// of a setting that takes strings.
fn as_toml(setting: &str) -> Result<String, Error> {
    let bad = || Error::BadSetting { setting: setting.to_owned() };
    let (key, value) = setting.split_once('=').ok_or_else(bad)?;
    let (key, value) = (key.trim(), value.trim());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if key.is_empty() || !key.chars().all(plain) {
        return Err(bad());
    }
    let line = format!("{key} = {value}");
    let parsed = toml::from_str::<toml::Table>(&line).ok();
    let parsed = parsed.filter(|table| !value.contains('\n') && table.len() == 1);
    let is_text = |table: &toml::Table| keys::value_at(table, key).is_some_and(|of| of.is_str());
    let takes_text = kinds::kind(key) == Some(Kind::Text);
    if parsed.is_some_and(|table| !takes_text || is_text(&table)) {
        return Ok(line);
    }
    Ok(format!("{key} = {}", toml::Value::String(value.to_owned())))
}

#[derive(Default)]
struct Merged {
    table: toml::Table,
    origins: BTreeMap<String, Origin>,
}

impl Merged {
    /// Merges one text over the earlier ones. `origin` turns a line number into an origin.
    fn add(&mut self, text: &str, origin: impl Fn(usize) -> Origin) -> Result<(), Error> {
        let syntax = |err: &toml::de::Error| {
            let line = err.span().map_or(1, |span| line_of(text, span.start));
            Error::Syntax { origin: origin(line), message: err.message().to_owned() }
        };
        let parsed = DeTable::parse(text).map_err(|err| syntax(&err))?;
        let mut found = Vec::new();
        leaves(parsed.get_ref(), "", text, &mut found);
        for leaf in &found {
            leaf.check(text, &origin)?;
        }
        // Each layer must be valid by itself, so that an error names its file and line.
        toml::from_str::<Config>(text).map_err(|err| match of_value(&err, &found) {
            Some((key, line, why)) => Error::BadValue { key, origin: origin(line), why },
            None => syntax(&err),
        })?;
        let table: toml::Table = toml::from_str(text).map_err(|err| syntax(&err))?;
        let before = self.registries();
        merge(&mut self.table, table, "");
        for index in before..self.registries() {
            let entry = found.iter().filter(|leaf| leaf.key == REGISTRY).nth(index - before);
            let line = entry.map_or(1, |leaf| leaf.line);
            self.origins.insert(format!("{REGISTRY}.{index}"), origin(line));
        }
        for leaf in found {
            if is_handler(&leaf.key) {
                // All handlers change as one setting.
                self.origins.insert(HANDLERS.to_owned(), origin(leaf.line));
            }
            self.origins.insert(leaf.key, origin(leaf.line));
        }
        Ok(())
    }

    fn registries(&self) -> usize {
        keys::value_at(&self.table, REGISTRY).and_then(toml::Value::as_array).map_or(0, Vec::len)
    }

    fn finish(self, source: Source) -> Result<Loaded, Error> {
        let Self { table, origins } = self;
        let config = Config::deserialize(table).map_err(|err| Error::Syntax {
            origin: Origin::Default,
            message: err.message().to_owned(),
        })?;
        let checked = validate(&config).map_err(|(key, why)| (key.to_owned(), why));
        match checked.and_then(|()| handlers::validate(&config.runtime.handlers)) {
            Ok(()) => Ok(Loaded { config, origins, source }),
            Err((key, why)) => {
                let origin = origins.get(&key).cloned().unwrap_or(Origin::Default);
                Err(Error::BadValue { key, origin, why })
            }
        }
    }
}

/// Whether the key is a known one, or the table of registries itself.
fn known(key: &str) -> bool {
    let name = in_table(key);
    key == REGISTRY || KEYS.iter().any(|known| known.name == name)
}

/// A value, by dotted key, with its line. Each entry of `[[image.registry]]` is a value of its own, and so are
/// its keys; the same for each section of a runtime handler.
struct Leaf<'t> {
    key: String,
    line: usize,
    value: &'t Spanned<DeValue<'t>>,
    /// Whether it is an entry of `[[image.registry]]`, or a section of a runtime handler.
    is_entry: bool,
}

impl Leaf<'_> {
    /// Checks that the key is known, and the type of its value.
    fn check(&self, text: &str, origin: impl Fn(usize) -> Origin) -> Result<(), Error> {
        let key = self.key.clone();
        if self.is_entry && is_handler(&key) {
            return Ok(());
        }
        if !known(&key) {
            let origin = origin(self.line);
            let below = format!("{}.", in_table(&key));
            if KEYS.iter().any(|known| known.name.starts_with(&below)) {
                let what = described(self.value.get_ref());
                return Err(Error::NotASection { section: key, origin, what });
            }
            let nearest = keys::nearest(&key).map(str::to_owned);
            return Err(Error::UnknownKey { key, origin, nearest });
        }
        let found = if key == REGISTRY && !self.is_entry {
            Some(kinds::not_a_list(self.value))
        } else {
            mismatch(&key, self.value)
        };
        let Some(found) = found else { return self.check_mirrors(text, origin) };
        let (example, origin) = (example(&key), origin(line_of(text, found.at)));
        Err(Error::BadType { key, origin, why: found.why, example })
    }

    /// Here and not with the merged values, which do not know the lines of each entry.
    fn check_mirrors(&self, text: &str, origin: impl Fn(usize) -> Origin) -> Result<(), Error> {
        let DeValue::Array(mirrors) = self.value.get_ref() else { return Ok(()) };
        for mirror in mirrors.iter().filter(|_| self.key == MIRRORS) {
            let checked = mirror.get_ref().as_str().map_or(Ok(()), validate::mirror);
            checked.map_err(|why| {
                let origin = origin(line_of(text, mirror.span().start));
                Error::BadValue { key: self.key.clone(), origin, why }
            })?;
        }
        Ok(())
    }
}

/// The key, line and reason of an error about a value that has the right type.
fn of_value(err: &toml::de::Error, found: &[Leaf<'_>]) -> Option<(String, usize, String)> {
    let at = err.span()?.start;
    let leaf = found.iter().rfind(|leaf| leaf.value.span().contains(&at))?;
    let message = err.message();
    let why = if message.starts_with("invalid value: integer") {
        format!("it is {}, which is too large", described(leaf.value.get_ref()))
    } else if message.starts_with("invalid socket address") {
        let example = example(&leaf.key);
        let found = described(leaf.value.get_ref());
        format!("it is {found}, and must be an IP address and a port, as in {example}")
    } else if let Some(variant) = message.strip_prefix("unknown variant ") {
        format!("it is {}", variant.replacen(", expected ", ", and must be ", 1))
    } else {
        message.to_owned()
    };
    Some((leaf.key.clone(), leaf.line, why))
}

/// Collects every value of a table.
fn leaves<'t>(table: &'t DeTable<'t>, prefix: &str, text: &str, out: &mut Vec<Leaf<'t>>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let line = line_of(text, name.span().start);
        let is_setting = known(&key);
        match value.get_ref() {
            DeValue::Table(inner) if !is_setting && key != REGISTRY => {
                if is_handler(&key) {
                    out.push(Leaf { key: key.clone(), line, value, is_entry: true });
                }
                leaves(inner, &format!("{key}."), text, out);
            }
            DeValue::Array(entries) if key == REGISTRY => {
                for entry in entries.iter() {
                    let line = line_of(text, entry.span().start);
                    out.push(Leaf { key: key.clone(), line, value: entry, is_entry: true });
                    if let DeValue::Table(inner) = entry.get_ref() {
                        leaves(inner, &format!("{key}."), text, out);
                    }
                }
            }
            DeValue::Table(_)
            | DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => out.push(Leaf { key, line, value, is_entry: false }),
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

fn merge(below: &mut toml::Table, above: toml::Table, prefix: &str) {
    for (key, value) in above {
        let name = format!("{prefix}{key}");
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                merge(below, above, &format!("{name}."));
            }
            (Some(toml::Value::Array(below)), toml::Value::Array(above)) if name == REGISTRY => {
                below.extend(above);
            }
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
