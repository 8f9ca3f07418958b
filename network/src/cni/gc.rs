// SPDX-License-Identifier: Apache-2.0
//! Garbage collection: plugins get the attachments that are valid, and remove everything else that they have of a
//! network (GC of CNI 1.1).

use super::conf::Network;
use super::error::Error;
use super::plugins::Plugins;
use super::protocol::{PluginInput, ValidAttachment, Verb};
use super::records::Record;
use super::version::Version;
use crate::limits::SURVEY_S;
use std::time::Instant;

/// Runs GC with all plugins of these networks that support it, and returns the failures. Pods wait meanwhile: after
/// [`SURVEY_S`] the rest is left to the next collection.
pub(super) fn collect(
    plugins: &Plugins,
    networks: impl Iterator<Item = Result<(Network, Version), Error>>,
    valid: impl Fn(&str) -> Vec<ValidAttachment>,
) -> Vec<Error> {
    let (began, mut failed) = (Instant::now(), Vec::new());
    for network in networks {
        let (network, version) = match network {
            Ok(network) => network,
            Err(err) => {
                failed.push(err);
                continue;
            }
        };
        if !version.has_gc() || network.disable_gc {
            continue;
        }
        let valid = valid(&network.name);
        let input = PluginInput { valid: Some(&valid), ..PluginInput::default() };
        for plugin in &network.plugins {
            let of = (network.name.as_str(), version);
            failed.extend(plugins.call(Verb::Gc, of, plugin, None, &input).err());
            if began.elapsed() >= SURVEY_S.time() {
                return failed;
            }
        }
    }
    failed
}

/// The attachments of a network that pods have.
pub(super) fn valid<'r>(
    network: &str,
    records: impl Iterator<Item = &'r Record>,
) -> Vec<ValidAttachment> {
    let of_record = |record: &'r Record| {
        let of = record.attachments.iter().filter(|of| of.network == network);
        of.map(|of| ValidAttachment { container: record.pod.clone(), if_name: of.if_name.clone() })
            .collect::<Vec<_>>()
    };
    records.flat_map(of_record).collect()
}
