// SPDX-License-Identifier: Apache-2.0
//! Reads the configuration again on SIGHUP and when its files change, and answers SIGUSR1 with a dump. `hull reload` is
//! a call.

use super::call_log::CallLog;
use super::config_watch::ConfigWatch;
use super::dump::dump;
use super::service::Service;
use super::signals::{Request, Signals};
use crate::config::Takes;
use crate::error::Chain;
use crate::node::Node;
use crate::node::reload::{Reloaded, reload};
use std::sync::Arc;
use tracing::{debug, error, info, warn};

/// Answers signals, and follows the files, until the daemon ends.
pub(super) fn start(node: &Arc<Node>, mut signals: Signals, calls: CallLog) {
    let watched = Arc::clone(node);
    tokio::spawn(async move {
        let mut watch = match ConfigWatch::start(&watched.config_source) {
            Ok(watch) => watch,
            Err(err) => {
                warn!(error = %err, hint = "use `hull reload` after changes", "the files of the configuration are not watched");
                return;
            }
        };
        while watch.changed().await.is_ok() {
            read_again(&watched, "a file changed").await;
        }
    });
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            match signals.next().await {
                Request::Reload => read_again(&node, "SIGHUP").await,
                Request::Dump => dump(&node, &calls),
            }
        }
    });
}

/// Takes over what can be, and says in the log what came of it.
async fn read_again(node: &Arc<Node>, cause: &str) {
    let service = Service::find();
    service.say(&reloading());
    match reload(node).await {
        Ok(Reloaded { changes, is_policy_edited: false }) if changes.is_empty() => {
            debug!(cause, "configuration read again; it is the same");
        }
        Ok(Reloaded { changes, is_policy_edited }) => {
            let taken = changes.iter().filter(|change| change.takes == Takes::AtOnce).count();
            let need_restart = changes.len().saturating_sub(taken);
            info!(
                cause,
                taken_over = taken,
                need_restart,
                policy_edited = is_policy_edited,
                "configuration read again"
            );
        }
        Err(err) => {
            error!(cause, error = %Chain(&err), hint = err.hint(), "configuration not taken over; nothing has changed");
        }
    }
    service.say("READY=1");
}

/// That the configuration is being read, with the time that systemd compares with its request (`sd_notify(3)`).
fn reloading() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
    format!("RELOADING=1\nMONOTONIC_USEC={micros}")
}
