// SPDX-License-Identifier: Apache-2.0
//! A configured plugin: its subscriptions, calls to it, and the consequences of a failed call.
//!
//! The rules: a plugin gets one call at a time, in the order of the requests, because plugins were always
//! called like that. A call has a timeout. A plugin that misses it, exits, or sends an invalid answer is
//! disconnected, and the verb goes on without it, unless its failure policy says otherwise. A refusal is
//! not a failure of the plugin: it fails the verb.

use crate::connection::{CallError, Connection, code};
use crate::counters::Counters;
use crate::method::method;
use crate::{Error, LiveTimeouts};
use hull_proto::nri::{Container, PodSandbox};
use hull_proto::nri::{Empty, Event, FailurePolicy, StateChangeEvent};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

/// The mask of all events of the interface.
pub(crate) const ALL_EVENTS: u32 = (1 << (Event::Last as u32 - 1)) - 1;

/// A configured plugin and its connection.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// Distinguishes plugins with the same index and name.
    pub(crate) number: u64,
    /// Two digits, by which plugins are ordered.
    pub(crate) index: String,
    pub(crate) name: String,
    /// Mask of the subscribed events.
    pub(crate) events: u32,
    pub(crate) policy: FailurePolicy,
    pub(crate) connection: Connection,
    pub(crate) timeouts: LiveTimeouts,
    pub(crate) counters: Arc<Counters>,
    /// Held during a call: one at a time, first come, first served.
    pub(crate) turn_lock: Arc<Semaphore>,
    /// Mask of the events that it accepts only as StateChange.
    pub(crate) by_state_change: AtomicU32,
}

/// The bit of an event in a mask of events.
fn bit(event: Event) -> u32 {
    1_u32.checked_shl((event as u32).wrapping_sub(1)).unwrap_or(0)
}

impl Plugin {
    /// Index and name, as in `10-example`: its name in logs and errors.
    pub(crate) fn full_name(&self) -> String {
        format!("{}-{}", self.index, self.name)
    }

    /// Whether it is connected and subscribed to `event`.
    pub(crate) fn is_subscribed(&self, event: Event) -> bool {
        self.events & bit(event) != 0 && !self.connection.is_closed()
    }

    /// Calls the method of `event`. `None` if the plugin is not subscribed, or if it gave no answer and its
    /// failure policy does not require one.
    pub(crate) async fn request<R: prost::Message + Default>(
        &self,
        event: Event,
        message: &impl prost::Message,
    ) -> Result<Option<R>, Error> {
        if !self.is_subscribed(event) {
            return Ok(None);
        }
        match self.call(method(event), message).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failed) => self.failed(method(event), failed).await.map(|()| None),
        }
    }

    /// Sends an event that it can refuse but not change; as StateChange if the plugin is too old for the
    /// event's own method.
    pub(crate) async fn notify(
        &self,
        event: Event,
        message: &impl prost::Message,
        subject: (&PodSandbox, Option<&Container>),
    ) -> Result<(), Error> {
        if !self.is_subscribed(event) {
            return Ok(());
        }
        let old = || self.by_state_change.load(Ordering::Relaxed) & bit(event) != 0;
        if !old() {
            match self.call::<Empty>(method(event), message).await {
                Ok(Empty {}) => return Ok(()),
                Err(CallError::Refused { code: code::UNIMPLEMENTED, .. }) => {
                    self.by_state_change.fetch_or(bit(event), Ordering::Relaxed);
                    debug!(plugin = %self.full_name(), call = method(event), "plugin accepts this event as StateChange");
                }
                Err(failed) => return self.failed(method(event), failed).await,
            }
        }
        let change = StateChangeEvent {
            event: event as i32,
            pod: Some(subject.0.clone()),
            container: subject.1.cloned(),
        };
        match self.call::<Empty>("StateChange", &change).await {
            Ok(Empty {}) => Ok(()),
            Err(failed) => self.failed(method(event), failed).await,
        }
    }

    /// Asks a validating plugin to approve the adjustments. No answer is not an approval.
    pub(crate) async fn validate<R: prost::Message + Default>(
        &self,
        message: &impl prost::Message,
    ) -> Result<R, Error> {
        let call = method(Event::ValidateContainerAdjustment);
        match self.call(call, message).await {
            Ok(answer) => Ok(answer),
            Err(failed) => {
                let why = failed.to_string();
                self.failed(call, failed).await?;
                Err(Error::NoAnswer { plugin: self.full_name(), call, why })
            }
        }
    }

    /// Calls the method, and counts the call.
    async fn call<R: prost::Message + Default>(
        &self,
        method: &'static str,
        message: &impl prost::Message,
    ) -> Result<R, CallError> {
        let began = Instant::now();
        let called = self.call_in_turn(method, message).await;
        self.counters.count(method, called.is_ok(), began.elapsed());
        called
    }

    /// Waits for the plugin's turn, calls the method and waits for the answer, with the request timeout.
    async fn call_in_turn<R: prost::Message + Default>(
        &self,
        method: &'static str,
        message: &impl prost::Message,
    ) -> Result<R, CallError> {
        let _turn = self.turn().await?;
        let limit = self.timeouts.get().request;
        let answer = tokio::time::timeout(limit, self.connection.call(method, message)).await;
        let answer = answer.map_err(|_| CallError::Timeout(limit))??;
        R::decode(answer).map_err(|err| CallError::Invalid { why: err.to_string() })
    }

    /// Waits until no other call is in flight. A plugin that is disconnected at its first timeout delays a
    /// caller by at most that time. A plugin that stays connected could do that again and again, so for it
    /// the wait has a timeout too.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, CallError> {
        let closed = |why| CallError::Closed { why };
        let limit = self.timeouts.get().request;
        let wait_timeout = async {
            if self.policy.keep_connected {
                tokio::time::sleep(limit).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            turn = Arc::clone(&self.turn_lock).acquire_owned() => {
                turn.map_err(|_| closed("it was disconnected".into()))
            }
            why = self.connection.ended() => Err(closed(why)),
            () = wait_timeout => Err(CallError::Timeout(limit)),
        }
    }

    /// Applies the failure policy to a failed call: disconnects the plugin, and fails the verb or not.
    async fn failed(&self, call: &'static str, failed: CallError) -> Result<(), Error> {
        let plugin = self.full_name();
        let kept = match &failed {
            CallError::Refused { message, .. } => {
                return Err(Error::Refused { plugin, call, why: message.clone() });
            }
            CallError::TooLong => {
                return Err(Error::Refused { plugin, call, why: failed.to_string() });
            }
            CallError::Timeout(_) | CallError::NotReading => self.policy.keep_connected,
            CallError::Closed { .. } | CallError::Invalid { .. } => false,
        };
        let why = failed.to_string();
        if !kept && !self.connection.is_closed() {
            warn!(
                %plugin, call, %why, request_timeout_ms = self.timeouts.get().request.as_millis(),
                hint = "see the plugin's log and restart it; `nri.request_timeout_ms` limits the time of a call",
                "plugin gave no answer and is disconnected; pods run without it"
            );
            self.connection.close(format!("no answer to {call}: {why}")).await;
        }
        if self.policy.fail_request {
            return Err(Error::NoAnswer { plugin, call, why });
        }
        if kept {
            warn!(%plugin, call, %why, "plugin gave no answer; this request continues without it");
        }
        Ok(())
    }
}
