// SPDX-License-Identifier: Apache-2.0
//! Calls plugins for the attachments in a record: CHECK, and DEL of whole chains.
//!
//! DEL of an attachment gets the configuration of its ADD. Where that cannot work, it gets the present configuration
//! of the network's name instead: ADD never succeeded with the recorded one, its program is gone, or the plugin
//! rejects the configuration itself.
//!
//! The rule: plugins cannot keep a pod for ever. After [`tries_max`] failures in a row the pod is detached without
//! the plugins that fail; whatever they have left is theirs to collect.

use super::conf::{Network, Plugin};
use super::error::Error;
use super::plugins::Plugins;
use super::protocol::{PluginInput, Verb};
use super::records::{Attachment, Record};
use super::result::AddResult;
use super::version::Version;
use crate::limits::{DEL_TRIES, DEL_TRIES_UNATTACHED};
use serde_json::Value;
use std::path::Path;
use tracing::{error, warn};

/// A pod that plugins have attached, and the parts that calls for it need.
pub(super) struct Attached<'c> {
    pub(super) plugins: &'c Plugins,
    pub(super) record: &'c Record,
    /// The path of the network namespace; empty when it is gone.
    pub(super) netns: String,
    /// The marker file of the running call.
    pub(super) call: &'c Path,
}

impl Attached<'_> {
    /// Runs CHECK of all plugins for the attachments that support it.
    pub(super) fn check(&self) -> Result<(), Error> {
        for attachment in self.record.attachments.iter().filter(|of| of.can_check()) {
            let chain = Chain::recorded(attachment);
            for plugin in &chain.plugins {
                self.call(Verb::Check, attachment, &chain, plugin)?;
            }
        }
        Ok(())
    }

    /// Runs DEL of all chains, the last one first. `present` is the configuration of a network now.
    pub(super) fn delete(&self, present: impl Fn(&str) -> Option<Network>) -> Result<(), Error> {
        for attachment in self.record.attachments.iter().rev() {
            let Err(failed) = self.delete_one(attachment, &present) else { continue };
            if self.record.failed_deletes.saturating_add(1) < tries_max(attachment) {
                return Err(failed);
            }
            let chain = Chain::recorded(attachment);
            for plugin in chain.plugins.iter().rev() {
                // Those before the one that fails release addresses.
                if let Err(err) = self.call(Verb::Del, attachment, &chain, plugin) {
                    warn!(pod = self.record.pod, error = %err, "DEL failed");
                }
            }
            error!(pod = self.record.pod, network = attachment.network, error = %failed, hint = failed.hint(),
                "the pod is detached without its network plugins, which fail again and again: addresses and rules that they made for it may be left");
        }
        Ok(())
    }

    /// Runs DEL of one chain.
    fn delete_one(
        &self,
        attachment: &Attachment,
        present: impl Fn(&str) -> Option<Network>,
    ) -> Result<(), Error> {
        let recorded = Chain::recorded(attachment);
        let Err(failed) = self.delete_chain(attachment, &recorded) else { return Ok(()) };
        if attachment.result.is_some() && !failed.blames_setup() {
            return Err(failed);
        }
        let now =
            present(&attachment.network).filter(|of| !is_same(&of.plugins, &recorded.plugins));
        let Some(now) = now else { return Err(failed) };
        warn!(pod = self.record.pod, network = attachment.network, error = %failed, file = %now.file.display(),
            "the pod is detached by the present configuration of its network, because the one of its start fails");
        let version = self.plugins.version(&now)?;
        self.delete_chain(attachment, &Chain { version, plugins: now.plugins })
    }

    fn delete_chain(&self, attachment: &Attachment, chain: &Chain) -> Result<(), Error> {
        let mut plugins = chain.plugins.iter().rev();
        plugins.try_for_each(|plugin| self.call(Verb::Del, attachment, chain, plugin))
    }

    fn call(
        &self,
        verb: Verb,
        attachment: &Attachment,
        chain: &Chain,
        plugin: &Plugin,
    ) -> Result<(), Error> {
        let target = self.record.target(attachment, &self.netns, self.call);
        let prev_result = attachment.result.as_ref().filter(|_| chain.version.has_check());
        let prev_result = prev_result.map(|result| in_version(result, chain.version));
        let capabilities = Some(&self.record.capabilities);
        let input = PluginInput { capabilities, prev_result, valid: None };
        let of = (attachment.network.as_str(), chain.version);
        self.plugins.call(verb, of, plugin, Some(&target), &input).map(drop)
    }
}

/// A chain of plugins, and the version in which they are called.
struct Chain {
    version: Version,
    plugins: Vec<Plugin>,
}

impl Chain {
    fn recorded(attachment: &Attachment) -> Self {
        Self { version: attachment.version(), plugins: attachment.plugins() }
    }
}

/// Whether two chains are configured in the same way.
fn is_same(one: &[Plugin], other: &[Plugin]) -> bool {
    one.iter().map(|of| &of.object).eq(other.iter().map(|of| &of.object))
}

/// The number of failed tries after which a pod is detached without its plugins.
fn tries_max(attachment: &Attachment) -> u32 {
    let tries = if attachment.result.is_some() { &DEL_TRIES } else { &DEL_TRIES_UNATTACHED };
    tries.number()
}

/// A result in the form of `version`.
fn in_version(result: &Value, version: Version) -> Value {
    let is_same = result.get("cniVersion").and_then(Value::as_str) == Some(version.text());
    match AddResult::read(result) {
        Ok(read) if !is_same => read.write(version),
        Ok(_) | Err(_) => result.clone(),
    }
}
