// SPDX-License-Identifier: Apache-2.0
//! Everything that was found of the other runtime, and its counterpart in Hull. Pure, but for the check of
//! settings by Hull's own reader.
//!
//! The rule: each setting of the other runtime ends in one of three lists: it is a setting of Hull, it needs
//! none, or it is lost with a reason. Values are never shown, except as settings of Hull: they may be secrets.

use super::source_image::SourceImage;
use crate::config::{self, Config};
use hull_sys::text::shown;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Value;

/// Longest name of a setting in a message, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The files that were read.
    pub(crate) sources: Vec<String>,
    /// Settings of Hull by their key.
    pub(crate) settings: BTreeMap<String, Setting>,
    /// Settings that need no counterpart.
    pub(crate) same: Vec<Noted>,
    /// Settings without a counterpart.
    pub(crate) lost: Vec<Noted>,
    /// Files to write beside the settings.
    pub(crate) files: Vec<NewFile>,
    pub(crate) images: Vec<SourceImage>,
    /// Images that have to be pulled again.
    pub(crate) to_pull: Vec<Noted>,
    /// The socket of the other runtime's CRI, if its configuration names one.
    pub(crate) socket: Option<String>,
}

/// The value of a setting of Hull, as TOML, and the setting that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) value: String,
    pub(crate) from: String,
}

/// A name, and a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Findings {
    /// Notes a setting that needs no counterpart.
    pub(crate) fn same(&mut self, name: &str, why: impl Into<String>) {
        self.same.push(Noted::of(name, why));
    }

    /// Notes a setting without a counterpart.
    pub(crate) fn lost(&mut self, name: &str, why: impl Into<String>) {
        self.lost.push(Noted::of(name, why));
    }

    /// Notes an image that has to be pulled again.
    pub(crate) fn pull(&mut self, name: &str, why: impl Into<String>) {
        self.to_pull.push(Noted::of(name, why));
    }

    /// Notes the names of images that are none.
    pub(crate) fn odd_names(&mut self, all: &[String]) {
        for name in super::documents::odd_names(all) {
            self.pull(name, "it is not the name of an image");
        }
    }

    /// Sets a setting of Hull to a value, for the setting `from`. Hull's own reader decides whether the value is
    /// right, and whether it is the default.
    pub(crate) fn set(&mut self, from: &str, key: &str, value: &Value) {
        let value = value.to_string();
        if value.contains('\n') {
            return self.lost(from, "its value has a line break");
        }
        let setting = format!("{key}={value}");
        // Only this setting counts, so no file is read.
        match config::load(Some(Path::new("/dev/null")), &[setting]) {
            Err(config::Error::BadValue { why, .. } | config::Error::BadType { why, .. }) => {
                self.lost(from, format!("Hull's `{key}` does not take its value: {why}"));
            }
            Err(other) => self.lost(from, format!("Hull's `{key}` does not take it: {other}")),
            Ok(loaded) if loaded.config == Config::default() => {
                self.same(from, format!("it is the default of `{key}`"));
            }
            Ok(_) => {
                let from = shown(from, NAME_BYTES_MAX);
                let setting = Setting { value, from };
                if let Some(before) = self.settings.insert(key.to_owned(), setting.clone())
                    && before.value != setting.value
                {
                    self.lost(
                        &before.from,
                        format!("{} sets `{key}` too, and is taken", setting.from),
                    );
                }
            }
        }
    }

    /// The text that a setting of Hull gets.
    pub(crate) fn text_of(&self, key: &str) -> Option<String> {
        let value = &self.settings.get(key)?.value;
        let table: toml::Table = toml::from_str(&format!("value = {value}")).ok()?;
        table.get("value")?.as_str().map(str::to_owned)
    }

    /// The settings as a configuration file, if there are any.
    pub(crate) fn config_text(&self, runtime: &str) -> Option<String> {
        use std::fmt::Write as _;
        if self.settings.is_empty() {
            return None;
        }
        let mut text = format!("# Taken over from {runtime} by `hull migrate`.\n");
        for (key, setting) in &self.settings {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n# {}\n{key} = {}\n", setting.from, setting.value);
        }
        Some(text)
    }
}

impl Noted {
    fn of(name: &str, why: impl Into<String>) -> Self {
        // Names of settings may be addresses, and these may have passwords.
        let name = match name.split_once("://") {
            Some((before, rest)) => match rest.rsplit_once('@') {
                Some((_, rest)) => format!("{before}://{rest}"),
                None => name.to_owned(),
            },
            None => name.to_owned(),
        };
        Self { name: shown(&name, NAME_BYTES_MAX), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_taken_refused_or_the_default() {
        let mut found = Findings::default();
        found.set("a", "network.cni.conf_dir", &"/etc/cni/other".into());
        found.set("b", "network.cni.conf_dir", &"/etc/cni/net.d".into());
        found.set("c", "cgroup.driver", &"odd".into());
        found.set("d", "image.concurrent_layers", &"three".into());
        assert_eq!(found.settings.len(), 1, "{found:?}");
        assert_eq!(found.settings["network.cni.conf_dir"].value, "\"/etc/cni/other\"");
        assert_eq!(found.same, [Noted::of("b", "it is the default of `network.cni.conf_dir`")]);
        let names: Vec<&str> = found.lost.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["c", "d"], "{found:?}");
        found.set("e", "network.cni.conf_dir", &"/etc/cni/third".into());
        let last = found.lost.last().unwrap();
        assert!(last.name == "a" && last.why.contains("e sets"), "{last:?}");
        found.lost("auths.https://user:hunter2@r.example", "x");
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    }

    #[test]
    fn the_file_can_be_read_by_hull_whatever_the_names() {
        let mut found = Findings::default();
        found.set("x\n[forged]\u{1b}", "cgroup.driver", &"systemd".into());
        found.set("pins", "image.pinned", &Value::Array(vec!["a/b:1".into()]));
        let text = found.config_text("containerd").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, &text).unwrap();
        let loaded = config::load(Some(&path), &[]).unwrap().config;
        assert_eq!(loaded.cgroup.driver, config::Driver::Systemd, "{text}");
        assert_eq!(loaded.image.pinned, ["a/b:1"]);
        assert_eq!(Findings::default().config_text("x"), None);
    }
}
