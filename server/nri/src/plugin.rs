// SPDX-License-Identifier: Apache-2.0
//! A plugin that is configured: what it hears of, how it is called, and what becomes of it when it gives
//! no answer.
//!
//! The rules: it has one call of ours at a time, in the order in which they were wanted, because plugins
//! were always called so. A call has a deadline. A plugin that misses it, dies or talks nonsense is let
//! go, and the call goes on without it; its failure policy can say otherwise. An answer that says no is
//! no failure of the plugin: it makes the call fail.

use crate::connection::{Connection, Failed, code};
use crate::{Error, Times};
use hull_proto::nri::{Container, PodSandbox};
use hull_proto::nri::{Empty, Event, FailurePolicy, StateChangeEvent};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

/// Every event there is.
pub(crate) const ALL_EVENTS: u32 = (1 << (Event::Last as u32 - 1)) - 1;

/// A plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// Tells apart plugins of one name.
    pub(crate) number: u64,
    /// Two digits.
    pub(crate) index: String,
    pub(crate) name: String,
    pub(crate) events: u32,
    pub(crate) policy: FailurePolicy,
    pub(crate) connection: Connection,
    pub(crate) times: Times,
    /// Whose turn it is.
    pub(crate) lane: Arc<Semaphore>,
    /// Events that it only takes by StateChange.
    pub(crate) by_state_change: AtomicU32,
}

/// The name of an event's method.
pub(crate) fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

fn bit(event: Event) -> u32 {
    1_u32.checked_shl((event as u32).wrapping_sub(1)).unwrap_or(0)
}

impl Plugin {
    /// As logs and errors name it.
    pub(crate) fn title(&self) -> String {
        format!("{}-{}", self.index, self.name)
    }

    /// Whether it is told of `event`.
    pub(crate) fn hears(&self, event: Event) -> bool {
        self.events & bit(event) != 0 && !self.connection.is_closed()
    }

    /// Calls the method of `event`. `None` when the plugin does not hear of it, or gave no answer that
    /// its policy waits for.
    pub(crate) async fn ask<R: prost::Message + Default>(
        &self,
        event: Event,
        message: &impl prost::Message,
    ) -> Result<Option<R>, Error> {
        if !self.hears(event) {
            return Ok(None);
        }
        match self.exchange(method(event), message).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failed) => self.failed(method(event), failed).await.map(|()| None),
        }
    }

    /// Tells it of an event that it can only refuse; by StateChange when it is too old for a method of
    /// its own.
    pub(crate) async fn tell(
        &self,
        event: Event,
        message: &impl prost::Message,
        about: (&PodSandbox, Option<&Container>),
    ) -> Result<(), Error> {
        if !self.hears(event) {
            return Ok(());
        }
        let old = || self.by_state_change.load(Ordering::Relaxed) & bit(event) != 0;
        if !old() {
            match self.exchange::<Empty>(method(event), message).await {
                Ok(Empty {}) => return Ok(()),
                Err(Failed::Refused { code: code::UNIMPLEMENTED, .. }) => {
                    self.by_state_change.fetch_or(bit(event), Ordering::Relaxed);
                    debug!(plugin = %self.title(), call = method(event), "plugin takes this by StateChange");
                }
                Err(failed) => return self.failed(method(event), failed).await,
            }
        }
        let change = StateChangeEvent {
            event: event as i32,
            pod: Some(about.0.clone()),
            container: about.1.cloned(),
        };
        match self.exchange::<Empty>("StateChange", &change).await {
            Ok(Empty {}) => Ok(()),
            Err(failed) => self.failed(method(event), failed).await,
        }
    }

    /// Has a validator look at an adjustment. One that gives no answer has not agreed.
    pub(crate) async fn validate<R: prost::Message + Default>(
        &self,
        message: &impl prost::Message,
    ) -> Result<R, Error> {
        let call = method(Event::ValidateContainerAdjustment);
        match self.exchange(call, message).await {
            Ok(answer) => Ok(answer),
            Err(failed) => {
                let why = failed.to_string();
                self.failed(call, failed).await?;
                Err(Error::NoAnswer { plugin: self.title(), call, why })
            }
        }
    }

    /// Waits for its turn, then calls and waits for the answer, until the deadline.
    async fn exchange<R: prost::Message + Default>(
        &self,
        method: &'static str,
        message: &impl prost::Message,
    ) -> Result<R, Failed> {
        let _turn = self.turn().await?;
        let limit = self.times.request;
        let answer = tokio::time::timeout(limit, self.connection.call(method, message)).await;
        let answer = answer.map_err(|_| Failed::Late(limit))??;
        R::decode(answer).map_err(|err| Failed::Garbled { why: err.to_string() })
    }

    /// Its turn. One that is let go on its first missed deadline holds up those who wait no longer than
    /// that; one that is kept could do so again and again, so for it waiting counts.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Failed> {
        let closed = |why| Failed::Closed { why };
        let limit = self.times.request;
        let patience = async {
            if self.policy.keep_connected {
                tokio::time::sleep(limit).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            turn = Arc::clone(&self.lane).acquire_owned() => {
                turn.map_err(|_| closed("it was let go".into()))
            }
            why = self.connection.ended() => Err(closed(why)),
            () = patience => Err(Failed::Late(limit)),
        }
    }

    /// What a failed call means: for the plugin, and for who called.
    async fn failed(&self, call: &'static str, failed: Failed) -> Result<(), Error> {
        let plugin = self.title();
        let kept = match &failed {
            Failed::Refused { message, .. } => {
                return Err(Error::Refused { plugin, call, why: message.clone() });
            }
            Failed::TooLong => {
                return Err(Error::Refused { plugin, call, why: failed.to_string() });
            }
            Failed::Late(_) | Failed::Unread => self.policy.keep_connected,
            Failed::Closed { .. } | Failed::Garbled { .. } => false,
        };
        let why = failed.to_string();
        if !kept && !self.connection.is_closed() {
            warn!(
                %plugin, call, %why, request_timeout_ms = self.times.request.as_millis(),
                hint = "see the plugin's log and restart it; `nri.request_timeout_ms` is how long it may take",
                "plugin gave no answer and is let go; pods go on without it"
            );
            self.connection.close(format!("no answer to {call}: {why}")).await;
        }
        if self.policy.fail_request {
            return Err(Error::NoAnswer { plugin, call, why });
        }
        if kept {
            warn!(%plugin, call, %why, "plugin gave no answer; this call goes on without it");
        }
        Ok(())
    }
}
