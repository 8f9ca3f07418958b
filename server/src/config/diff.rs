// SPDX-License-Identifier: Apache-2.0
//! The differences between the configuration of the daemon and that of the files, and which of them can be taken
//! over without a restart. Pure.

use super::keys::{HANDLERS, KEYS, REGISTRY, Takes, value_at};
use super::layers::Loaded;
use super::origin::Origin;
use super::settings::Config;
use serde::Deserialize as _;

/// A setting with another value in the files than in the daemon. Values are TOML, without accounts; `None`: not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: &'static str,
    pub(crate) running: Option<String>,
    pub(crate) file: Option<String>,
    /// The file and line of the new value, or why there is none.
    pub(crate) origin: Origin,
    pub(crate) takes: Takes,
}

/// The differences, in the order of the table of settings.
pub(crate) fn changes(running: &Config, loaded: &Loaded) -> Vec<Change> {
    let (old, new) = (table(running), table(&loaded.config));
    let (old_shown, new_shown) =
        (table(&running.without_accounts()), table(&loaded.config.without_accounts()));
    let shown = |table: &toml::Table, key| value_at(table, key).map(ToString::to_string);
    units()
        .filter(|(key, _)| value_at(&old, key) != value_at(&new, key))
        .map(|(key, takes)| Change {
            key,
            running: shown(&old_shown, key),
            file: shown(&new_shown, key),
            origin: loaded.origins.get(key).cloned().unwrap_or(Origin::Default),
            takes,
        })
        .collect()
}

/// The configuration with those changes that need no restart. `None` if it would not be a configuration.
pub(crate) fn taken_over(running: &Config, loaded: &Loaded) -> Option<Config> {
    let (mut next, new) = (table(running), table(&loaded.config));
    for (key, _) in units().filter(|(_, takes)| *takes == Takes::AtOnce) {
        set_at(&mut next, key, value_at(&new, key).cloned());
    }
    Config::deserialize(next).ok()
}

/// The settings that change as one: each key, but all registries together, and all runtime handlers.
fn units() -> impl Iterator<Item = (&'static str, Takes)> {
    let together = [HANDLERS, REGISTRY];
    let single = KEYS.iter().filter(move |key| !together.iter().any(|of| key.name.starts_with(of)));
    let all_of = |of: &'static str| {
        let first = KEYS.iter().find(|key| key.name.starts_with(of));
        first.map(|key| (of, key.takes))
    };
    single.map(|key| (key.name, key.takes)).chain(together.into_iter().filter_map(all_of))
}

fn table(config: &Config) -> toml::Table {
    // A struct of plain values with text keys: there is always a TOML for it.
    toml::Table::try_from(config).unwrap_or_default()
}

/// Sets the value of a dotted key, or removes it.
fn set_at(table: &mut toml::Table, key: &str, value: Option<toml::Value>) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Some(toml::Value::Table(inner)) = table.get_mut(section) {
                set_at(inner, rest, value);
            }
        }
        None => {
            drop(match value {
                Some(value) => table.insert(key.to_owned(), value),
                None => table.remove(key),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::load;
    use super::*;
    use std::fs;

    fn loaded(text: &str) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, text).unwrap();
        load(Some(&file), &[]).unwrap()
    }

    #[test]
    fn what_needs_a_restart_stays_and_the_rest_is_taken_over() {
        let running = loaded(
            "[network]\nmtu = 1400\n[image]\ndocker_config = \"/a\"\n[[image.registry]]\nhost = \"a\"\n",
        );
        let new = loaded(
            "[network]\nmtu = 1450\n[runtime.handlers.x]\npids_max = 7\n[image]\npinned = [\"b\"]\n[[image.registry]]\nhost = \"b\"\nmirrors = [\"http://b\"]\n",
        );
        let found = changes(&running.config, &new);
        let keys: Vec<_> = found.iter().map(|change| (change.key, change.takes)).collect();
        assert_eq!(
            keys,
            [
                ("network.mtu", Takes::WithRestart),
                ("image.pinned", Takes::AtOnce),
                ("image.docker_config", Takes::AtOnce),
                ("runtime.handlers", Takes::AtOnce),
                ("image.registry", Takes::AtOnce),
            ]
        );
        assert!(found[0].origin.to_string().ends_with("config.toml:2"), "{found:?}");
        assert_eq!((found[2].running.as_deref(), found[2].file.as_deref()), (Some("\"/a\""), None));
        let next = taken_over(&running.config, &new).unwrap();
        assert_eq!(next.network.mtu, Some(1400));
        assert_eq!(next.image.docker_config, None);
        assert_eq!(next.image.pinned, ["b"]);
        assert_eq!(next.runtime.handlers["x"].pids_max, Some(7));
        assert_eq!(next.image.registry[0].mirrors, ["http://b"]);
        // Only what needs a restart is left.
        let left = changes(&next, &new);
        assert!(left.iter().all(|change| change.key == "network.mtu"), "{left:?}");
        assert_eq!(changes(&new.config, &new), []);
    }

    #[test]
    fn every_key_changes_alone() {
        let default = loaded("");
        for (key, takes) in units() {
            let mut other = table(&default.config);
            let value = different(value_at(&other, key), key);
            set_at(&mut other, key, Some(value));
            let text = toml::to_string(&other).unwrap();
            let new = Loaded {
                config: toml::from_str(&text).unwrap_or_else(|err| panic!("{key}: {err}")),
                ..loaded("")
            };
            let found = changes(&default.config, &new);
            let keys: Vec<_> = found.iter().map(|change| change.key).collect();
            assert_eq!(keys, [key]);
            let next = taken_over(&default.config, &new).unwrap();
            assert_eq!(next == new.config, takes == Takes::AtOnce, "{key}");
            assert_eq!(next == default.config, takes == Takes::WithRestart, "{key}");
        }
    }

    /// Another value of the same type; for settings without a default, their example.
    fn different(value: Option<&toml::Value>, key: &str) -> toml::Value {
        match value {
            Some(toml::Value::Boolean(on)) => (!on).into(),
            Some(toml::Value::Integer(number)) => (number + 1).into(),
            Some(toml::Value::Array(_)) if key == REGISTRY => {
                toml::from_str::<toml::Table>("x = [{ host = \"b\" }]").unwrap()["x"].clone()
            }
            Some(toml::Value::Array(_)) => toml::Value::Array(vec!["/b".into()]),
            Some(toml::Value::String(text)) => match text.as_str() {
                "auto" if key == "cgroup.driver" => "cgroupfs".into(),
                "auto" => "bridge".into(),
                "text" => "json".into(),
                "never" => "always".into(),
                "drop" => "wait".into(),
                "off" => "auto".into(),
                "unconfined" => "runtime/default".into(),
                other => format!("{other}x").into(),
            },
            _ => {
                let example = super::super::kinds::example(key);
                toml::from_str::<toml::Table>(&format!("x = {example}")).unwrap()["x"].clone()
            }
        }
    }
}
