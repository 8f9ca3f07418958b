// SPDX-License-Identifier: Apache-2.0
//! Reads the directory of network configurations.
//!
//! ```text
//! <conf_dir>/10-calico.conflist     a network: a chain of plugins
//!            20-bridge.conf         a network of one plugin (also *.json)
//!            <network>/*.conf       more plugins, appended to that network's chain
//! ```
//!
//! The rule: the first valid files in name order are the networks. An invalid file is reported with the
//! reason, never ignored silently. Every use checks the files for changes and reads them again after one,
//! so a directory that is created later and a redirected symlink are noticed.

use super::version::Version;
use serde_json::{Map, Value};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Longest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = crate::limits::CONF_BYTES.default;
/// Most files that are read from one directory.
const FILES_MAX: usize = 256;

/// A configured network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network {
    pub(super) name: String,
    /// The CNI versions that the configuration supports, lowest first.
    pub(super) versions: Vec<Version>,
    pub(super) disable_check: bool,
    pub(super) disable_gc: bool,
    /// In the order of ADD; at least one.
    pub(super) plugins: Vec<Plugin>,
    /// The file that it was read from.
    pub(super) file: PathBuf,
}

impl Network {
    /// Whether it configures only loopback, which pods have in any case: some packages install such a file beside
    /// the cluster's.
    pub(super) fn is_loopback(&self) -> bool {
        self.plugins.iter().all(|plugin| plugin.program == "loopback")
    }
}

/// A plugin of a chain.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plugin {
    /// The plugin's `type`, which is the name of its program.
    pub(super) program: String,
    /// The plugin's whole configuration object.
    pub(super) object: Map<String, Value>,
    /// The file that it was read from; empty in records of earlier releases.
    pub(super) file: PathBuf,
}

/// An invalid configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidFile {
    /// The file's path.
    pub file: PathBuf,
    /// The reason why it is invalid.
    pub why: String,
}

/// The contents of a configuration directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Configurations {
    /// The networks, in file name order.
    pub(super) networks: Vec<Network>,
    pub(super) bad: Vec<InvalidFile>,
}

impl Configurations {
    /// The network with this name.
    pub(super) fn named(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|of| of.name == name && !of.is_loopback())
    }
}

/// The state of all configuration files: equal as long as none has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<(PathBuf, u64, i64, i64, u64)>);

/// Computes the fingerprint of the directory.
pub(super) fn fingerprint(dir: &Path) -> io::Result<Fingerprint> {
    let mut seen = Vec::new();
    seen.extend(files(dir, &["conf", "conflist", "json"])?.into_iter().map(state_of));
    for folder in folders(dir)? {
        seen.extend(files(&folder, &["conf"])?.into_iter().map(state_of));
    }
    Ok(Fingerprint(seen))
}

fn state_of(path: PathBuf) -> (PathBuf, u64, i64, i64, u64) {
    // A link to nothing may lead to a file later.
    let of = fs::metadata(&path);
    of.map_or((path.clone(), 0, 0, 0, 0), |of| {
        (path, of.ino(), of.mtime(), of.mtime_nsec(), of.size())
    })
}

/// Reads the directory; a missing one counts as empty.
pub(super) fn read(dir: &Path) -> io::Result<Configurations> {
    let mut found = Configurations::default();
    for file in files(dir, &["conf", "conflist", "json"])? {
        let network = text_of(&file).and_then(|text| network(&file, &text));
        let network = network.and_then(|network| with_folder(network, dir));
        match network {
            Ok(network) if found.networks.iter().any(|other| other.name == network.name) => {
                let why =
                    format!("an earlier file already defines a network named `{}`", network.name);
                found.bad.push(InvalidFile { file, why });
            }
            Ok(network) => found.networks.push(network),
            Err(why) => found.bad.push(InvalidFile { file, why }),
        }
    }
    // The folder of a network may be named like a file.
    let folder = |bad: &InvalidFile| {
        bad.file.is_dir() && found.networks.iter().any(|of| dir.join(&of.name) == bad.file)
    };
    let (_, bad) = found.bad.iter().cloned().partition(folder);
    found.bad = bad;
    Ok(found)
}

/// Parses a network, which is a plugin chain or a single plugin, from the text of its file.
pub(super) fn network(file: &Path, text: &str) -> Result<Network, String> {
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|err| format!("it is not a JSON object: {err}"))?;
    let listed = file.extension().is_some_and(|ending| ending == "conflist")
        || object.contains_key("plugins");
    let name = name_of(&object)?;
    let versions = versions_of(&object)?;
    let plugins = match (listed, object.get("plugins")) {
        (true, Some(Value::Array(list))) => {
            list.iter().map(|of| plugin(file, of)).collect::<Result<_, _>>()?
        }
        // All plugins may be in the network's folder.
        (true, None) => Vec::new(),
        (true, Some(_)) => return Err("`plugins` is not a list".into()),
        (false, _) => vec![plugin(file, &Value::Object(object.clone()))?],
    };
    Ok(Network {
        name,
        versions,
        disable_check: bool_field(&object, "disableCheck")?,
        disable_gc: bool_field(&object, "disableGC")?,
        plugins,
        file: file.to_owned(),
    })
}

/// Appends the plugins in the network's folder, unless the network's file disables that.
fn with_folder(mut network: Network, dir: &Path) -> Result<Network, String> {
    let only_inlined = {
        let text = text_of(&network.file)?;
        let object: Map<String, Value> =
            serde_json::from_str(&text).map_err(|err| err.to_string())?;
        bool_field(&object, "loadOnlyInlinedPlugins")?
    };
    if !only_inlined {
        let folder = dir.join(&network.name);
        for file in files(&folder, &["conf"]).map_err(|err| err.to_string())? {
            let read = text_of(&file).and_then(|text| {
                let value: Value = serde_json::from_str(&text).map_err(|err| err.to_string())?;
                plugin(&file, &value)
            });
            let plugin = read.map_err(|why| format!("{}: {why}", file.display()))?;
            network.plugins.push(plugin);
        }
    }
    if network.plugins.is_empty() {
        return Err("it has no plugins".into());
    }
    Ok(network)
}

fn plugin(file: &Path, value: &Value) -> Result<Plugin, String> {
    let object = value.as_object().ok_or("a plugin is not a JSON object")?;
    let program = match object.get("type").and_then(Value::as_str) {
        None | Some("") => return Err("a plugin has no `type`".into()),
        Some(program) => program,
    };
    if program.contains('/') || program.contains('\0') || matches!(program, "." | "..") {
        return Err(format!("plugin type {program:?} is not a program name"));
    }
    if let Some(of) = object.get("capabilities")
        && !of.as_object().is_some_and(|of| of.values().all(Value::is_boolean))
    {
        return Err(format!("`capabilities` of plugin `{program}` is not an object of booleans"));
    }
    let (program, file) = (program.to_owned(), file.to_owned());
    Ok(Plugin { program, object: object.clone(), file })
}

impl Plugin {
    /// Whether the plugin declares this capability.
    pub(super) fn has(&self, capability: &str) -> bool {
        let of = self.object.get("capabilities").and_then(|of| of.get(capability));
        of.and_then(Value::as_bool).unwrap_or(false)
    }
}

fn name_of(object: &Map<String, Value>) -> Result<String, String> {
    let name = object.get("name").and_then(Value::as_str).ok_or("it has no `name`")?;
    let inner = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    if !name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) || !name.chars().all(inner)
    {
        return Err(format!(
            "name {name:?} must start with a letter or digit and contain only letters, digits, `_`, `.` and `-`"
        ));
    }
    Ok(name.to_owned())
}

/// The CNI versions that both the configuration and Hull support.
fn versions_of(object: &Map<String, Value>) -> Result<Vec<Version>, String> {
    let one = object.get("cniVersion").and_then(Value::as_str);
    let list = object.get("cniVersions").and_then(Value::as_array);
    let texts: Vec<&str> =
        one.into_iter().chain(list.into_iter().flatten().filter_map(Value::as_str)).collect();
    if texts.is_empty() {
        return Err("it has no `cniVersion`; set one from 0.3.1 to 1.1.0".into());
    }
    let mut versions: Vec<Version> = texts.iter().filter_map(|text| Version::parse(text)).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.is_empty() {
        return Err(format!(
            "its `cniVersion` is {}; hull supports 0.3.1, 0.4.0, 1.0.0 and 1.1.0",
            texts.join(", ")
        ));
    }
    Ok(versions)
}

fn bool_field(object: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        // Old files have a string here, which libcni accepts.
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
        Some(_) => Err(format!("`{key}` is neither true nor false")),
    }
}

fn text_of(file: &Path) -> Result<String, String> {
    let bytes = hull_sys::files::read(file, FILE_BYTES_MAX).map_err(|err| {
        let is_broken_link = err.kind() == io::ErrorKind::NotFound && file.is_symlink();
        if is_broken_link { format!("where its link leads: {err}") } else { err.to_string() }
    })?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// The entries with these extensions, in name order; none if the directory does not exist. Entries that are not files
/// are among them, so that they are reported.
fn files(dir: &Path, endings: &[&str]) -> io::Result<Vec<PathBuf>> {
    let ending = |path: &PathBuf| {
        path.extension().and_then(|of| of.to_str()).is_some_and(|of| endings.contains(&of))
    };
    let mut paths = entries(dir)?;
    paths.retain(ending);
    paths.truncate(FILES_MAX);
    Ok(paths)
}

fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = entries(dir)?;
    paths.retain(|path| path.is_dir());
    paths.truncate(FILES_MAX);
    Ok(paths)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let paths: io::Result<Vec<PathBuf>> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths?;
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = r#"{
        "cniVersion": "0.4.0", "cniVersions": ["1.1.0", "9.9.9"], "name": "pods", "disableCheck": "true",
        "plugins": [
            {"type": "bridge", "ipam": {"type": "host-local"}},
            {"type": "portmap", "capabilities": {"portMappings": true, "mac": false}}
        ]
    }"#;

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn named(name: &str) -> String {
        CHAIN.replace("pods", name)
    }

    #[test]
    fn a_chain_is_read_with_all_that_plugins_need() {
        let network = network(Path::new("x.conflist"), CHAIN).unwrap();
        assert_eq!(network.versions, [Version::V0_4_0, Version::V1_1_0]);
        assert!(network.disable_check && !network.disable_gc);
        let [bridge, portmap] = &network.plugins[..] else { panic!("two plugins") };
        assert_eq!(bridge.object["ipam"]["type"], "host-local");
        assert!(portmap.has("portMappings") && !portmap.has("mac") && !bridge.has("portMappings"));
    }

    #[test]
    fn networks_come_by_file_name_and_bad_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "30-late.conflist", &named("late"));
        write(dir.path(), "10-broken.conflist", "{\"name\": ");
        write(
            dir.path(),
            "20-single.conf",
            r#"{"cniVersion": "1.0.0", "name": "one", "type": "ptp"}"#,
        );
        write(dir.path(), "40-again.conflist", &named("late"));
        write(dir.path(), "00-readme.txt", "not ours");
        let found = read(dir.path()).unwrap();
        let names: Vec<_> = found.networks.iter().map(|network| network.name.as_str()).collect();
        assert_eq!(names, ["one", "late"]);
        let bad: Vec<_> =
            found.bad.iter().map(|bad| bad.file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(bad, ["10-broken.conflist", "40-again.conflist"]);
        assert_eq!(read(&dir.path().join("none")).unwrap(), Configurations::default());
    }

    #[test]
    fn what_is_not_a_file_is_named_and_noticed_when_it_becomes_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(at("elsewhere"), at("10-link.conflist")).unwrap();
        fs::create_dir(at("20-folder.conflist")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("30-pipe.conf"), fifo, 0o600.into(), 0).unwrap();
        let found = read(dir.path()).unwrap();
        let bad: Vec<_> = found.bad.iter().map(|of| of.why.clone()).collect();
        assert!(bad[0].contains("its link leads: No such file"), "{bad:?}");
        assert_eq!(bad[1..], ["it is not a regular file", "it is not a regular file"]);
        let before = fingerprint(dir.path()).unwrap();
        fs::write(at("elsewhere"), named("late")).unwrap();
        assert_ne!(fingerprint(dir.path()).unwrap(), before);
        assert_eq!(read(dir.path()).unwrap().networks.len(), 1);
        // A network's own folder is not a file that is wrong.
        write(dir.path(), "40.conflist", &named("folder.conf"));
        write(dir.path(), "folder.conf/20-tuning.conf", r#"{"type": "tuning"}"#);
        let found = read(dir.path()).unwrap();
        assert!(found.bad.iter().all(|of| !of.file.ends_with("folder.conf")), "{:?}", found.bad);
        assert_eq!(found.networks.len(), 2);
    }

    #[test]
    fn plugins_of_a_networks_folder_join_its_chain() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "10.conflist", CHAIN);
        write(dir.path(), "pods/20-tuning.conf", r#"{"type": "tuning"}"#);
        write(dir.path(), "pods/10-sbr.conf", r#"{"type": "sbr"}"#);
        write(dir.path(), "others/10.conf", r#"{"type": "vrf"}"#);
        let programs = |found: &Configurations| -> Vec<String> {
            found.networks[0].plugins.iter().map(|plugin| plugin.program.clone()).collect()
        };
        assert_eq!(programs(&read(dir.path()).unwrap()), ["bridge", "portmap", "sbr", "tuning"]);
        let closed = CHAIN.replace("\"name\"", "\"loadOnlyInlinedPlugins\": true, \"name\"");
        write(dir.path(), "10.conflist", &closed);
        assert_eq!(programs(&read(dir.path()).unwrap()), ["bridge", "portmap"]);
        write(dir.path(), "10.conflist", CHAIN);
        write(dir.path(), "pods/30.conf", r#"{"mtu": 1}"#);
        let found = read(dir.path()).unwrap();
        assert!(
            found.networks.is_empty() && found.bad[0].why.contains("pods/30.conf"),
            "{found:?}"
        );
    }

    #[test]
    fn every_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |dir: &Path| fingerprint(dir).unwrap();
        let later = dir.path().join("later");
        let none = at(&later);
        write(&later, "10.conflist", CHAIN);
        let one = at(&later);
        assert_ne!(none, one);
        assert_eq!(one, at(&later));
        write(&later, "pods/10.conf", r#"{"type": "sbr"}"#);
        let two = at(&later);
        assert_ne!(one, two);
        // Replaced by a file of the same size, as editors do.
        write(&later, "new", CHAIN);
        fs::rename(later.join("new"), later.join("10.conflist")).unwrap();
        assert_ne!(two, at(&later));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("[]", "not a JSON object"),
            (r#"{"cniVersion": "1.0.0", "plugins": [{"type": "x"}]}"#, "no `name`"),
            (r#"{"cniVersion": "1.0.0", "name": "../x", "plugins": [{"type": "x"}]}"#, "../x"),
            (r#"{"name": "a", "plugins": [{"type": "x"}]}"#, "no `cniVersion`"),
            (r#"{"cniVersion": "2.0.0", "name": "a", "plugins": [{"type": "x"}]}"#, "2.0.0"),
            (r#"{"cniVersion": "1.0.0", "name": "a", "plugins": {}}"#, "not a list"),
            (r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "../x"}]}"#, "../x"),
            (r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{}]}"#, "no `type`"),
            (
                r#"{"cniVersion": "1.0.0", "name": "a", "disableGC": 3, "plugins": [{"type": "x"}]}"#,
                "disableGC",
            ),
            (
                r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "x", "capabilities": []}]}"#,
                "capabilities",
            ),
        ] {
            let err = network(Path::new("x.conflist"), text).unwrap_err();
            assert!(err.contains(why), "{text}: {err}");
        }
    }
}
