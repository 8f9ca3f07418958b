// SPDX-License-Identifier: Apache-2.0
//! `hull containerd`, or hull called by a link named `containerd`: the daemon, and `config dump`, for tools
//! that set up and query a node by containerd's names (kind).
//!
//! ```text
//! containerd [-c FILE] [-a SOCKET] [-l LEVEL]                      the daemon
//! containerd [-c FILE] [-a SOCKET] config dump|default             its settings, as containerd's version 3
//! containerd --version
//! ```
//!
//! Hull's own configuration is read first; then the settings of containerd's file that Hull has under another
//! name replace it, in the schema of version 2, 3 or 4. Every other setting of that file is reported as
//! ignored, unless Hull behaves as it demands anyway.

use super::error::{Error, Result, but_not};
use super::output;
use crate::config::{self, Config};
use std::io;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

pub(crate) const HELP: &str = "\
Examples:
  hull containerd                                run the daemon on containerd's socket
  hull containerd config dump                    its settings, in containerd's terms
  hull containerd -c config.toml config dump     which settings of that file have no effect in Hull?

For tools that expect containerd's names on a node (kind): a link to hull named `containerd` does the same.
/etc/containerd/config.toml is read after Hull's own configuration. Settings that Hull does not have are
reported as ignored.";

/// The file that is read if the command line names none.
const FILE: &str = "/etc/containerd/config.toml";
/// The socket, unless the command line or a file names another.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// The tables of containerd's CRI plugin: of version 2 of the schema, and the two of versions 3 and 4.
pub(super) const CRI_TABLES: [&str; 3] =
    ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];
/// Settings of the CRI plugin that have a counterpart in Hull of the same type.
const SAME: [(&str, &str); 6] = [
    ("cdi_spec_dirs", "runtime.cdi_spec_dirs"),
    ("cni.bin_dirs", "network.cni.bin_dirs"),
    ("cni.conf_dir", "network.cni.conf_dir"),
    ("cni.conf_template", "network.cni.conf_template"),
    ("cni.max_conf_num", "network.cni.networks_max"),
    ("max_concurrent_downloads", "image.concurrent_layers"),
];
/// Values of settings of the CRI plugin that Hull satisfies without a setting of its own.
const SATISFIED: [(&str, &str); 10] = [
    ("containerd.default_runtime_name", "\"runc\""),
    ("containerd.discard_unpacked_layers", "true"),
    ("containerd.runtimes.runc.runtime_type", "\"io.containerd.runc.v2\""),
    ("containerd.snapshotter", "\"overlayfs\""),
    ("discard_unpacked_layers", "true"),
    ("enable_cdi", "true"),
    ("enable_unprivileged_icmp", "true"),
    ("enable_unprivileged_ports", "true"),
    ("restrict_oom_score_adj", "false"),
    ("snapshotter", "\"overlayfs\""),
];
/// Settings that concern parts of containerd that Hull does not need, such as an image for pause.
const NEEDLESS: [&str; 4] = [
    "pinned_images.sandbox",
    "sandbox_image",
    "tolerate_missing_hugepages_controller",
    "tolerate_missing_hugetlb_controller",
];

/// The requested operation.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Serve,
    Dump,
    Default,
    Version,
}

/// The parsed command line.
#[derive(Debug)]
struct Parsed {
    request: Request,
    file: Option<PathBuf>,
    /// Settings of Hull, as `KEY=VALUE`.
    set: Vec<String>,
}

/// The part of a containerd configuration that concerns Hull.
#[derive(Debug, Default, PartialEq, Eq)]
struct Translated {
    /// Settings of Hull, as `KEY=VALUE`.
    set: Vec<String>,
    /// Settings without effect, by dotted key.
    ignored: Vec<String>,
}

/// Whether these arguments start the daemon.
pub(crate) fn serves(words: &[String]) -> bool {
    parse(words).is_ok_and(|parsed| parsed.request == Request::Serve)
}

/// The configuration of the daemon, and the settings of containerd's file that have no effect. `own` is the
/// file with Hull's configuration, if it is not the default one.
pub(crate) fn serve_config(own: Option<&Path>, words: &[String]) -> Result<(Config, Vec<String>)> {
    let parsed = parse(words).map_err(|text| Error::Usage { text })?;
    let from = translated(parsed.file.as_deref())?;
    Ok((merged(own, &parsed, &from)?, from.ignored))
}

/// Runs a command that is not the daemon.
pub(crate) fn run(own: Option<&Path>, words: &[String]) -> Result<()> {
    let parsed = parse(words).map_err(|text| Error::Usage { text })?;
    let from = match parsed.request {
        Request::Version => {
            // Four words, of which tools read the third: program, package, version, revision.
            return output::line(&format!("containerd hull v{0} v{0}", env!("CARGO_PKG_VERSION")));
        }
        Request::Default => Translated::default(),
        Request::Serve | Request::Dump => translated(parsed.file.as_deref())?,
    };
    for key in &from.ignored {
        output::to_stderr(&format!("warning: {key} has no effect in Hull\n"));
    }
    output::print(&dump(&merged(own, &parsed, &from)?))
}

fn merged(own: Option<&Path>, parsed: &Parsed, from: &Translated) -> Result<Config> {
    let failed = |source| Error::Config { source };
    let named = config::load(own, &[]).map_err(failed)?.origins.contains_key("socket");
    let mut set = if named { Vec::new() } else { vec![setting("socket", &SOCKET.into())] };
    set.extend(from.set.iter().chain(&parsed.set).cloned());
    Ok(config::load(own, &set).map_err(failed)?.config)
}

fn parse(words: &[String]) -> std::result::Result<Parsed, String> {
    let mut parsed = Parsed { request: Request::Serve, file: None, set: Vec::new() };
    let (mut plain, mut version) = (Vec::new(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || attached.clone().or_else(|| words.next().cloned());
        let mut value = || value().ok_or_else(|| format!("{name} has no value"));
        match name {
            "-c" | "--config" => parsed.file = Some(value()?.into()),
            "-a" | "--address" => parsed.set.push(setting("socket", &value()?.into())),
            "-l" | "--log-level" => parsed.set.push(setting("log.level", &value()?.into())),
            "-v" | "--version" => version = true,
            _ if name.starts_with('-') => {
                return Err(format!("hull does not implement {name} of containerd"));
            }
            _ => plain.push(word.as_str()),
        }
    }
    parsed.request = match plain.as_slice() {
        _ if version => Request::Version,
        [] => Request::Serve,
        ["config", "dump"] => Request::Dump,
        ["config", "default"] => Request::Default,
        other => {
            return Err(format!(
                "of containerd, hull knows `config dump`, `config default`, --version, and the \
                 daemon without a command{}",
                but_not(other)
            ));
        }
    };
    Ok(parsed)
}

/// Reads and translates `file`, or [`FILE`], which need not exist.
fn translated(file: Option<&Path>) -> Result<Translated> {
    let path = file.unwrap_or(Path::new(FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound && file.is_none() => String::new(),
        Err(source) => return Err(Error::io(format!("read {}", path.display()))(source)),
    };
    let table: Table = toml::from_str(&text).map_err(|err| {
        let source = io::Error::new(io::ErrorKind::InvalidData, err.message().to_owned());
        Error::io(format!("parse {} as TOML", path.display()))(source)
    })?;
    Ok(translate(&table))
}

fn translate(file: &Table) -> Translated {
    let mut out = Translated::default();
    for (key, value) in file {
        match (key.as_str(), value) {
            ("version", _) => {}
            ("grpc", Value::Table(grpc)) => {
                for (key, value) in grpc {
                    if key == "address" {
                        out.set.push(setting("socket", value));
                    } else {
                        out.ignored.push(format!("grpc.{key}"));
                    }
                }
            }
            ("plugins", Value::Table(plugins)) => {
                for (plugin, value) in plugins {
                    let cri = CRI_TABLES.contains(&plugin.as_str());
                    let mut leaves = Vec::new();
                    flatten(value, "", &mut leaves);
                    for (key, value) in leaves {
                        if !cri || !take(&key, value, &mut out.set) {
                            out.ignored.push(format!("plugins.\"{plugin}\".{key}"));
                        }
                    }
                }
            }
            (other, _) => out.ignored.push(other.to_owned()),
        }
    }
    out
}

/// The values below this one, by dotted key. An empty table is not a setting.
pub(super) fn flatten<'value>(
    value: &'value Value,
    at: &str,
    into: &mut Vec<(String, &'value Value)>,
) {
    let Value::Table(table) = value else {
        into.push((at.to_owned(), value));
        return;
    };
    for (key, value) in table {
        let key = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        flatten(value, &key, into);
    }
}

/// Adds the setting of Hull that corresponds to this one of the CRI plugin. False if none does.
pub(super) fn take(key: &str, value: &Value, set: &mut Vec<String>) -> bool {
    if NEEDLESS.contains(&key) || SATISFIED.contains(&(key, value.to_string().as_str())) {
        return true;
    }
    match (key, value) {
        // Empty or 0: containerd's default, which is Hull's own setting here.
        (_, Value::String(text)) if text.is_empty() => return true,
        ("cni.max_conf_num", Value::Integer(0)) => return true,
        ("cni.bin_dir", Value::String(dir)) => {
            let dirs = Value::Array(vec![dir.as_str().into()]);
            set.push(setting("network.cni.bin_dirs", &dirs));
        }
        // containerd tries several directories, separated as in PATH.
        ("registry.config_path", Value::String(path)) if !path.contains(':') => {
            set.push(setting("image.config_path", value));
        }
        ("containerd.runtimes.runc.options.SystemdCgroup", Value::Boolean(systemd)) => {
            let driver = if *systemd { "systemd" } else { "cgroupfs" };
            set.push(setting("cgroup.driver", &driver.into()));
        }
        _ => {
            let Some((_, own)) = SAME.iter().find(|(name, _)| *name == key) else { return false };
            set.push(setting(own, value));
        }
    }
    true
}

fn setting(key: &str, value: &Value) -> String {
    format!("{key}={value}")
}

/// The settings in effect, in version 3 of containerd's schema, as far as tools ask for them.
fn dump(config: &Config) -> String {
    let path = |path: &Path| Value::from(path.to_string_lossy().as_ref());
    let table = |entries: Vec<(&str, Value)>| {
        Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let paths = |dirs: &[PathBuf]| Value::Array(dirs.iter().map(|dir| path(dir)).collect());
    let cni = &config.network.cni;
    // Automatic means: as the init of the machine is, which is not known here.
    let driver = match config.cgroup.driver {
        config::Driver::Auto => Vec::new(),
        config::Driver::Cgroupfs => vec![("SystemdCgroup", false.into())],
        config::Driver::Systemd => vec![("SystemdCgroup", true.into())],
    };
    let registry = config.image.config_path.as_deref().map_or_else(|| "".into(), path);
    let runc =
        table(vec![("runtime_type", "io.containerd.runc.v2".into()), ("options", table(driver))]);
    let runtime = table(vec![
        ("cdi_spec_dirs", paths(&config.runtime.cdi_spec_dirs)),
        ("cni", table(vec![("bin_dirs", paths(&cni.bin_dirs)), ("conf_dir", path(&cni.conf_dir))])),
        (
            "containerd",
            table(vec![
                ("default_runtime_name", "runc".into()),
                ("runtimes", table(vec![("runc", runc)])),
            ]),
        ),
        ("enable_cdi", true.into()),
    ]);
    let images = table(vec![
        ("discard_unpacked_layers", true.into()),
        ("registry", table(vec![("config_path", registry)])),
        ("snapshotter", "overlayfs".into()),
    ]);
    let all = table(vec![
        ("version", 3.into()),
        ("root", path(&config.data_dir)),
        ("state", path(&config.state_dir)),
        ("grpc", table(vec![("address", path(&config.socket))])),
        (
            "plugins",
            table(vec![
                ("io.containerd.cri.v1.images", images),
                ("io.containerd.cri.v1.runtime", runtime),
            ]),
        ),
    ]);
    // Tables of plain values with text keys: there is always a TOML for it.
    toml::to_string(&all).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> std::result::Result<Parsed, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    fn from(text: &str) -> Translated {
        translate(&toml::from_str(text).unwrap())
    }

    #[test]
    fn the_words_of_tools_are_understood_and_others_are_refused() {
        for (line, request) in [
            ("", Request::Serve),
            ("-l debug --config /x --address=/y", Request::Serve),
            ("config dump", Request::Dump),
            ("-c /x config dump", Request::Dump),
            ("config default", Request::Default),
            ("--version", Request::Version),
        ] {
            assert_eq!(parsed(line).unwrap().request, request, "{line}");
        }
        assert_eq!(parsed("-a /y -l debug").unwrap().set, ["socket=\"/y\"", "log.level=\"debug\""]);
        for line in ["--root /x", "publish", "config migrate", "-c"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn settings_of_every_version_of_the_schema_become_hulls() {
        let second = from(
            "version = 2\n[grpc]\naddress = \"/s\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/certs\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
             SystemdCgroup = true\n",
        );
        let expected =
            ["socket=\"/s\"", "cgroup.driver=\"systemd\"", "image.config_path=\"/certs\""];
        assert_eq!(
            (second.set.as_slice(), second.ignored.len()),
            (&expected.map(String::from)[..], 0)
        );
        let third = from(
            "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"overlayfs\"\n\
             max_concurrent_downloads = 7\n[plugins.\"io.containerd.cri.v1.images\".registry]\n\
             config_path = \"\"\n[plugins.\"io.containerd.cri.v1.runtime\".cni]\n\
             bin_dirs = [\"/a\", \"/b\"]\nmax_conf_num = 0\n",
        );
        let expected = ["image.concurrent_layers=7", "network.cni.bin_dirs=[\"/a\", \"/b\"]"];
        assert_eq!(
            (third.set.as_slice(), third.ignored.len()),
            (&expected.map(String::from)[..], 0)
        );
    }

    #[test]
    fn no_setting_is_ignored_in_silence() {
        let ignored = from(
            "imports = [\"/x\"]\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"a:5000\"]\n\
             endpoint = [\"http://a:5000\"]\n[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
        );
        assert_eq!(
            ignored,
            Translated {
                set: Vec::new(),
                ignored: [
                    "imports",
                    "plugins.\"io.containerd.grpc.v1.cri\".containerd.snapshotter",
                    "plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.a:5000.endpoint",
                    "plugins.\"io.containerd.nri.v1.nri\".disable",
                ]
                .map(String::from)
                .into(),
            }
        );
    }

    #[test]
    fn a_dump_names_the_snapshotter_and_can_be_read_back() {
        let config = Config::default();
        let dumped: Table = toml::from_str(&dump(&config)).unwrap();
        assert_eq!(dumped["version"], Value::Integer(3));
        let images = &dumped["plugins"]["io.containerd.cri.v1.images"];
        assert_eq!(images["snapshotter"].as_str(), Some("overlayfs"));
        let back = translate(&dumped);
        // Their places, which Hull's own configuration sets.
        assert_eq!(back.ignored, ["root", "state"]);
        assert!(back.set.contains(&"socket=\"/run/hull/hull.sock\"".to_owned()), "{back:?}");
    }
}
