// SPDX-License-Identifier: Apache-2.0
//! The plugin that set each field, in the form in which validating plugins receive it.

use crate::Error;
use hull_proto::nri::{Field, FieldOwners, OwningPlugins};
use std::collections::BTreeSet;

/// The plugin that set `field` of a container, or the entry `key` of it.
#[must_use]
pub fn owner(of: &OwningPlugins, container: &str, field: Field, key: &str) -> Option<String> {
    let fields = of.owners.get(container)?;
    let whole = fields.simple.get(&(field as i32));
    let entries = fields.compound.get(&(field as i32));
    let owner = whole.or_else(|| entries.and_then(|of| of.owners.get(key)))?;
    Some(removed_key(owner).unwrap_or(owner).to_owned())
}

/// All plugins that set a field of a container, each once, sorted.
#[must_use]
pub fn owners_of(of: &OwningPlugins, container: &str) -> Vec<String> {
    let Some(fields) = of.owners.get(container) else { return Vec::new() };
    let entries = fields.compound.values().flat_map(|of| of.owners.values());
    let all = fields.simple.values().chain(entries).flat_map(|owners| owners.split(','));
    let all: BTreeSet<_> =
        all.map(|owner| removed_key(owner).unwrap_or(owner).to_owned()).collect();
    all.into_iter().collect()
}

/// The owners of the fields of all containers in one call.
#[derive(Debug, Default)]
pub(super) struct Owners {
    pub(super) all: OwningPlugins,
}

/// One plugin's claims on the fields of one container.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    fields: &'a mut FieldOwners,
    plugin: &'a str,
}

impl Owners {
    pub(super) fn claims_of<'a>(&'a mut self, container: &str, plugin: &'a str) -> Claims<'a> {
        Claims { fields: self.all.owners.entry(container.to_owned()).or_default(), plugin }
    }
}

/// The key that an entry `-key` removes.
pub(super) fn removed_key(key: &str) -> Option<&str> {
    key.strip_prefix('-')
}

impl Claims<'_> {
    /// Claims a whole field. An error if another plugin has it.
    pub(super) fn whole(&mut self, field: Field) -> Result<(), Error> {
        let owner = self.fields.simple.get(&(field as i32)).cloned();
        self.check_unclaimed(owner, field, "")?;
        self.fields.simple.insert(field as i32, self.plugin.to_owned());
        Ok(())
    }

    /// Claims one entry of a field. An error if another plugin has it.
    pub(super) fn entry(&mut self, field: Field, key: &str) -> Result<(), Error> {
        let entries = self.fields.compound.get(&(field as i32));
        let owner = entries.and_then(|of| of.owners.get(key)).cloned();
        self.check_unclaimed(owner, field, key)?;
        self.set(field, key, self.plugin.to_owned());
        Ok(())
    }

    /// Takes a field from its owner. From then on only this plugin may set it.
    pub(super) fn clear_whole(&mut self, field: Field) {
        self.fields.simple.insert(field as i32, format!("-{}", self.plugin));
    }

    /// Takes one entry of a field from its owner. An entry without an owner stays unclaimed.
    pub(super) fn release(&mut self, field: Field, key: &str) {
        let entries = self.fields.compound.get(&(field as i32));
        if entries.is_some_and(|of| of.owners.contains_key(key)) {
            self.set(field, key, format!("-{}", self.plugin));
        }
    }

    /// Adds this plugin to the owners of a field that may have several.
    pub(super) fn share(&mut self, field: Field) {
        let owners = self.fields.simple.entry(field as i32).or_default();
        if !owners.is_empty() {
            owners.push(',');
        }
        owners.push_str(self.plugin);
    }

    fn set(&mut self, field: Field, key: &str, owner: String) {
        let entries = self.fields.compound.entry(field as i32).or_default();
        entries.owners.insert(key.to_owned(), owner);
    }

    fn check_unclaimed(&self, owner: Option<String>, field: Field, key: &str) -> Result<(), Error> {
        let Some(owner) = owner else { return Ok(()) };
        if removed_key(&owner) == Some(self.plugin) {
            return Ok(());
        }
        let first = removed_key(&owner).unwrap_or(&owner).to_owned();
        let what = match key {
            "" => field.as_str_name().to_owned(),
            key => format!("{} `{}`", field.as_str_name(), key.escape_default()),
        };
        Err(Error::Conflict { first, second: self.plugin.to_owned(), what })
    }
}
