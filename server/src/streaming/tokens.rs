// SPDX-License-Identifier: Apache-2.0
//! Sessions that were requested over CRI and not opened over HTTP yet, by token.
//!
//! The rule: only a token gives access to a session. It cannot be guessed, and works once, within a minute. Until
//! then, a client whose protocols are refused may try again with others (kubectl's library does). The table is
//! bounded: callers that never open their sessions can fill it, but not grow it.

use crate::error::{Error, Result};
use data_encoding::HEXLOWER;
use hull_proto::id::{ContainerId, PodId};
use hull_streaming::remotecommand::RequestedStreams;
use hull_streaming::upgrade::Purpose;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a token is valid.
const VALID: Duration = crate::limits::TOKEN_S.time();
/// Most tokens at a time.
const PENDING_MAX: usize = crate::limits::TOKENS.count();

/// A session that a client may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamRequest {
    Exec { container: ContainerId, cmd: Vec<String>, requested: RequestedStreams },
    Attach { container: ContainerId, requested: RequestedStreams },
    PortForward { pod: PodId },
}

impl StreamRequest {
    /// The first part of the path in the session's URL.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }

    /// The id of the container or pod.
    pub(super) fn target_id(&self) -> &str {
        match self {
            Self::Exec { container, .. } | Self::Attach { container, .. } => container.as_str(),
            Self::PortForward { pod } => pod.as_str(),
        }
    }

    /// The purpose of its streams.
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Exec { .. } | Self::Attach { .. } => Purpose::RemoteCommand,
            Self::PortForward { .. } => Purpose::PortForward,
        }
    }
}

/// The table of tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pending: Mutex<HashMap<String, (Instant, StreamRequest)>>,
}

impl Tokens {
    /// Issues a token for `request`.
    pub(super) fn issue(&self, request: StreamRequest, now: Instant) -> Result<String> {
        let mut bytes = [0; 16];
        hull_sys::random(&mut bytes);
        let token = HEXLOWER.encode(&bytes);
        let mut pending = self.pending();
        pending.retain(|_, (since, _)| now.duration_since(*since) < VALID);
        if pending.len() >= PENDING_MAX {
            return Err(Error::TooManyStreams { most: PENDING_MAX }.into());
        }
        pending.insert(token.clone(), (now, request));
        Ok(token)
    }

    /// The request for which `token` was issued.
    pub(super) fn peek(&self, token: &str, now: Instant) -> Option<StreamRequest> {
        let pending = self.pending();
        let (since, request) = pending.get(token)?;
        (now.duration_since(*since) < VALID).then(|| request.clone())
    }

    /// The request for which `token` was issued. The token is invalid from then on.
    pub(super) fn redeem(&self, token: &str, now: Instant) -> Option<StreamRequest> {
        let (since, request) = self.pending().remove(token)?;
        (now.duration_since(since) < VALID).then_some(request)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, (Instant, StreamRequest)>> {
        // A panic cannot leave the table inconsistent.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_request() -> StreamRequest {
        StreamRequest::PortForward { pod: PodId::from_random([7; 32]) }
    }

    #[test]
    fn a_token_works_once_and_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.issue(stream_request(), now).unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(tokens.peek(&token, now), Some(stream_request()));
        assert_eq!(tokens.redeem(&token, now), Some(stream_request()));
        assert_eq!(tokens.redeem(&token, now), None);
        assert_eq!(tokens.peek(&token, now), None);
        let token = tokens.issue(stream_request(), now).unwrap();
        assert_eq!(tokens.peek(&token, now + VALID), None);
        assert_eq!(tokens.redeem(&token, now + VALID), None);
    }

    #[test]
    fn the_table_is_bounded_and_expired_tokens_are_removed() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for _ in 0..PENDING_MAX {
            let _token = tokens.issue(stream_request(), now).unwrap();
        }
        let refused = tokens.issue(stream_request(), now).unwrap_err();
        assert!(matches!(*refused, Error::TooManyStreams { .. }));
        let _token = tokens.issue(stream_request(), now + VALID).unwrap();
    }
}
