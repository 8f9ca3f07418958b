// SPDX-License-Identifier: Apache-2.0
//! Signals by people: `hull kill`.
//!
//! A signal is recorded before it is sent: so the exit that it causes counts as requested however quickly it comes, and
//! also if the daemon restarts in between. One that could not be sent is taken back.

use super::containers::not_found;
use super::data::{Task, answer};
use super::result::{SignalRequest, WorkResult};
use crate::container::control;
use crate::container::exec::running;
use crate::node::now_ns;
use crate::pod::Reply;
use hull_proto::id::ContainerId;
use std::sync::Arc;

impl Task {
    /// Records a signal, and sends it.
    pub(super) async fn signal(&mut self, id: &ContainerId, signal: i32, reply: Reply<()>) {
        if let Err(err) = running(&self.snapshot(), id, "signal") {
            return answer(Some(reply), Err(err));
        }
        let Some(client) = self.client.clone() else {
            return answer(Some(reply), Err(control::no_monitor()));
        };
        let Some(entry) = self.containers.get_mut(id) else {
            return answer(Some(reply), Err(not_found(id)));
        };
        let at_ns = now_ns();
        let is_final = control::is_final(&entry.record, signal);
        let before = Arc::make_mut(&mut entry.record).request_signal(signal, at_ns);
        self.save_container(id).await;
        let cancels = is_final && self.may_restart(id);
        if is_final {
            self.cancel_restarts(id).await;
        }
        let request = SignalRequest { before, at_ns, cancels };
        let (of, failed, on_panic) = (id.clone(), id.clone(), request.clone());
        let panicked = |_| WorkResult::SignalNotSent(failed, on_panic);
        // Also if the caller disconnects now.
        self.work.spawn("send a signal", panicked, async move {
            let sent = control::send(client, of.clone(), signal).await;
            let is_sent = sent.is_ok();
            answer(Some(reply), sent);
            if is_sent { WorkResult::Nothing } else { WorkResult::SignalNotSent(of, request) }
        });
    }

    /// Takes back what was recorded of a signal that was not sent.
    pub(super) async fn signal_not_sent(&mut self, id: &ContainerId, request: &SignalRequest) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let record = Arc::make_mut(&mut entry.record);
        if !record.take_back_signal(&request.before, request.at_ns) {
            // Another one was requested since.
            return;
        }
        let is_stopped = record.stop_requested;
        self.save_container(id).await;
        if request.cancels && !is_stopped {
            self.restore_restarts(id).await;
        }
        self.publish();
    }
}
