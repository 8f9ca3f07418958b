// SPDX-License-Identifier: Apache-2.0
//! Garbage collection: plugins get the attachments that are valid, and remove everything else that they have of a
//! network (GC of CNI 1.1).

use super::conf::{Network, Plugin};
use super::error::Error;
use super::plugins::Plugins;
use super::protocol::{PluginInput, ValidAttachment, Verb};
use super::records::Record;
use crate::limits::SURVEY_S;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Runs GC with all plugins of these networks that support it, and returns the failures. Pods wait meanwhile: after
/// [`SURVEY_S`] the rest is left to the next collection, which begins with it: `next` is the number of its first plugin.
pub(super) fn collect(
    plugins: &Plugins,
    networks: &[Network],
    next: &AtomicUsize,
    valid: impl Fn(&str) -> Vec<ValidAttachment>,
) -> Vec<Error> {
    let (began, mut failed, mut versions) = (Instant::now(), Vec::new(), HashMap::new());
    let with_gc = networks.iter().filter(|network| !network.disable_gc);
    let calls: Vec<(&Network, &Plugin)> = with_gc
        .flat_map(|network| network.plugins.iter().map(move |plugin| (network, plugin)))
        .collect();
    let first = next.load(Ordering::Relaxed).checked_rem(calls.len()).unwrap_or(0);
    let (after, before) = (calls.iter().enumerate().skip(first), calls.iter().take(first));
    for (number, (network, plugin)) in after.chain(before.enumerate()) {
        if began.elapsed() >= SURVEY_S.time() {
            next.store(number, Ordering::Relaxed);
            break;
        }
        let version = *versions.entry(network.name.as_str()).or_insert_with(|| {
            let version = plugins.version(network, plugins.survey_deadline());
            version.map_err(|err| failed.push(err)).ok()
        });
        let Some(version) = version.filter(|of| of.has_gc()) else { continue };
        let valid = valid(&network.name);
        let input = PluginInput { valid: Some(&valid), ..PluginInput::default() };
        let of = (network.name.as_str(), version);
        failed.extend(plugins.call(Verb::Gc, of, plugin, None, &input).err());
    }
    failed
}

/// The attachments of a network that pods have, and that their plugins may still take down.
pub(super) fn valid<'r>(
    network: &str,
    records: impl Iterator<Item = &'r Record>,
) -> Vec<ValidAttachment> {
    let of_record = |record: &'r Record| {
        let of = record.attachments.iter().filter(|of| of.network == network && !of.gave_up);
        of.map(|of| ValidAttachment { container: record.pod.clone(), if_name: of.if_name.clone() })
            .collect::<Vec<_>>()
    };
    records.flat_map(of_record).collect()
}
