// SPDX-License-Identifier: Apache-2.0
//! Calls plugins for the attachments in a record: CHECK, and DEL of whole chains.
//!
//! DEL of an attachment gets the configuration of its ADD. Where that cannot work, it gets the present configuration
//! of the network's name instead: ADD never succeeded with the recorded one, its program is gone, or the plugin
//! rejects the configuration itself. The plugins of the recorded chain are called all the same, as far as they can be.
//!
//! The rule: plugins cannot keep a pod for ever. After so many failures in a row, over so long a time, the pod is
//! detached without the plugins that fail ([`is_hopeless`]); whatever they have left is theirs to collect.

use super::conf::{Network, Plugin};
use super::error::Error;
use super::in_flight;
use super::plugins::Plugins;
use super::protocol::{PluginInput, Verb};
use super::records::{Attachment, Record};
use super::result::AddResult;
use super::version::Version;
use crate::limits::{DEL_S, DEL_TRIES, DEL_TRIES_UNATTACHED, DEL_UNATTACHED_S};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::fs;
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

    /// Runs DEL of all chains, the last one first, at `now_s` seconds since the boot. `present` gives the configuration
    /// that a network has now. Returns the record too, with this failure counted.
    pub(super) fn delete(
        &self,
        now_s: u64,
        present: impl Fn(&str) -> Option<Network>,
    ) -> (Record, Result<(), Error>) {
        let mut counted = self.record.clone();
        for (number, attachment) in self.record.attachments.iter().enumerate().rev() {
            if attachment.gave_up {
                continue;
            }
            let Err(failed) = self.delete_one(attachment, &present) else { continue };
            let (tries, failing_s) = counted.count_failure(now_s);
            if !is_hopeless(attachment, tries, failing_s) {
                return (counted, Err(failed));
            }
            let chain = Chain::recorded(attachment);
            self.delete_each(attachment, &chain, &chain.plugins);
            counted.give_up(number);
            warn!(pod_id = self.record.pod, network = attachment.network, tries, failing_s, error = %failed, hint = failed.hint(),
                "the network plugins of a pod fail in DEL again and again, and are not called for it any more");
        }
        (counted, Ok(()))
    }

    /// Runs DEL of one chain.
    fn delete_one(
        &self,
        attachment: &Attachment,
        present: impl Fn(&str) -> Option<Network>,
    ) -> Result<(), Error> {
        in_flight::finish_orphan(self.call, in_flight::ORPHAN_TIMEOUT)?;
        let recorded = Chain::recorded(attachment);
        let Err((failed, before)) = self.delete_chain(attachment, &recorded) else { return Ok(()) };
        if attachment.result.is_some() && !failed.blames_setup() {
            return Err(failed);
        }
        let now =
            present(&attachment.network).filter(|of| !is_same(&of.plugins, &recorded.plugins));
        let Some(now) = now else { return Err(failed) };
        warn!(pod_id = self.record.pod, network = attachment.network, error = %failed, file = %now.file.display(),
            "the pod is detached by the present configuration of its network, because the one of its start fails");
        // The present configuration may not name what these have made.
        self.delete_each(attachment, &recorded, before);
        let version = self.plugins.version(&now, self.plugins.deadline())?;
        let now = Chain { version, plugins: now.plugins };
        self.delete_chain(attachment, &now).map_err(|(failed, _)| failed)
    }

    /// Runs DEL of a chain, the last plugin first, until one fails. Then the error is the failure, with the plugins
    /// before that one.
    fn delete_chain<'p>(
        &self,
        attachment: &Attachment,
        chain: &'p Chain,
    ) -> Result<(), (Error, &'p [Plugin])> {
        let mut left = &chain.plugins[..];
        while let Some((plugin, before)) = left.split_last() {
            self.call(Verb::Del, attachment, chain, plugin).map_err(|failed| (failed, before))?;
            left = before;
        }
        Ok(())
    }

    /// Runs DEL of these plugins of a chain, the last one first, also after one that fails: others release addresses.
    fn delete_each(&self, attachment: &Attachment, chain: &Chain, plugins: &[Plugin]) {
        for plugin in plugins.iter().rev() {
            if let Err(err) = self.call(Verb::Del, attachment, chain, plugin) {
                warn!(pod_id = self.record.pod, error = %err, "DEL failed");
            }
        }
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

/// Says that a pod which is detached now has networks whose plugins have failed too often, and removes the marker of a
/// call that they may have kept.
pub(super) fn report_given_up(record: &Record, call: &Path) {
    let networks = record.given_up();
    if networks.is_empty() {
        return;
    }
    drop(fs::remove_file(call));
    error!(
        pod = record.pod,
        networks,
        "the pod is detached without its network plugins, which fail again and again: addresses and rules that they made for it may be left"
    );
}

/// The seconds since the boot, with those of suspension (`CLOCK_BOOTTIME`, clock_gettime(2)).
pub(super) fn boottime_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// Whether two chains are configured in the same way.
fn is_same(one: &[Plugin], other: &[Plugin]) -> bool {
    one.iter().map(|of| &of.object).eq(other.iter().map(|of| &of.object))
}

/// Whether an attachment has failed in DEL too often, and for too long.
fn is_hopeless(attachment: &Attachment, tries: u32, failing_s: u64) -> bool {
    let (tries_max, time) = match attachment.result {
        Some(_) => (&DEL_TRIES, &DEL_S),
        None => (&DEL_TRIES_UNATTACHED, &DEL_UNATTACHED_S),
    };
    tries >= tries_max.number() && failing_s >= time.time().as_secs()
}

/// A result in the form of `version`.
fn in_version(result: &Value, version: Version) -> Value {
    let is_same = result.get("cniVersion").and_then(Value::as_str) == Some(version.text());
    match AddResult::read(result) {
        Ok(read) if !is_same => read.write(version),
        Ok(_) | Err(_) => result.clone(),
    }
}
