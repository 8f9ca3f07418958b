// SPDX-License-Identifier: Apache-2.0
//! The settings of the daemon, for its command line: reload, differences, and the level of the log.

use super::status;
use crate::config::log_filter::Filter;
use crate::config::{Change, Takes};
use crate::node::Node;
use crate::node::reload::{self, Reloaded};
use hull_proto::admin as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

/// Reads the configuration again; with `dry_run`, only compares it.
pub(super) async fn reload(
    node: &Arc<Node>,
    request: api::ReloadRequest,
) -> Result<api::ReloadResponse, Status> {
    let found = if request.dry_run {
        let changes = reload::differences(node).await;
        changes.map(|changes| Reloaded { changes, is_policy_edited: false })
    } else {
        reload::reload(node).await
    };
    let Reloaded { changes, is_policy_edited } = found.map_err(|err| status::of_reload(&err))?;
    let changes = changes.into_iter().map(change).collect();
    Ok(api::ReloadResponse { changes, policy_edited: is_policy_edited })
}

fn change(of: Change) -> api::SettingChange {
    let bounded = |text: String| shown(text, MESSAGE_BYTES_MAX);
    api::SettingChange {
        key: of.key.to_owned(),
        running: of.running.map(bounded),
        file: of.file.map(bounded),
        origin: bounded(of.origin.to_string()),
        at_once: of.takes == Takes::AtOnce,
    }
}

/// Shows the level of the log, or changes it.
pub(super) fn log_level(
    node: &Node,
    request: api::LogLevelRequest,
) -> Result<api::LogLevelResponse, Status> {
    let api::LogLevelRequest { filter, reset, for_ms } = request;
    if reset {
        node.log_level.reset();
    }
    if !filter.is_empty() {
        let parsed = Filter::parse(&filter).map_err(|why| {
            let text = format!(
                "cannot use log level `{filter}`: {why} (hint: for example `hull log-level hull_image=debug --for 10m`)"
            );
            status::plain(Code::InvalidArgument, &text)
        })?;
        let time = (for_ms > 0).then(|| Duration::from_millis(for_ms));
        node.log_level.set(&parsed, time);
        let now = node.log_level.shown();
        tracing::warn!(level = now.filter, for_ms, "log level changed for a time");
    }
    let now = node.log_level.shown();
    let left_ms = now.left.map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    Ok(api::LogLevelResponse {
        filter: now.filter,
        configured: now.configured,
        temporary: now.is_temporary,
        // A time that is nearly over is not one without an end.
        left_ms: if now.left.is_some() { left_ms.max(1) } else { 0 },
    })
}
