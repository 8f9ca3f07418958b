// SPDX-License-Identifier: Apache-2.0
//! What was asked for over CRI and waits to be fetched over HTTP.
//!
//! The rule: a token is the only right to a session. It cannot be guessed, works once, and only for a
//! minute; a client whose offer is refused may come again with another one (kubectl's library does) until
//! then; the table is bounded, so callers that never come fill it but cannot grow it.

use crate::error::{Error, Result};
use data_encoding::HEXLOWER;
use hull_proto::id::{ContainerId, PodId};
use hull_streaming::remotecommand::Wanted;
use hull_streaming::upgrade::Use;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a URL works.
const VALID: Duration = crate::limits::TOKEN_S.time();
/// How many may wait at a time.
const WAITING_MAX: usize = crate::limits::TOKENS.count();

/// A session that a client may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Exec { container: ContainerId, cmd: Vec<String>, wanted: Wanted },
    Attach { container: ContainerId, wanted: Wanted },
    PortForward { pod: PodId },
}

impl Asked {
    /// The first part of the path in its URL.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }

    /// The id of the container or pod.
    pub(super) fn with(&self) -> &str {
        match self {
            Self::Exec { container, .. } | Self::Attach { container, .. } => container.as_str(),
            Self::PortForward { pod } => pod.as_str(),
        }
    }

    /// What its streams are for.
    pub(super) fn used(&self) -> Use {
        match self {
            Self::Exec { .. } | Self::Attach { .. } => Use::RemoteCommand,
            Self::PortForward { .. } => Use::PortForward,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    waiting: Mutex<HashMap<String, (Instant, Asked)>>,
}

impl Tokens {
    /// Keeps `asked` and gives the token for it.
    pub(super) fn give(&self, asked: Asked, now: Instant) -> Result<String> {
        let mut bytes = [0; 16];
        hull_sys::random(&mut bytes);
        let token = HEXLOWER.encode(&bytes);
        let mut waiting = self.waiting();
        waiting.retain(|_, (since, _)| now.duration_since(*since) < VALID);
        if waiting.len() >= WAITING_MAX {
            return Err(Error::TooManyStreams { most: WAITING_MAX }.into());
        }
        waiting.insert(token.clone(), (now, asked));
        Ok(token)
    }

    /// What `token` stands for.
    pub(super) fn see(&self, token: &str, now: Instant) -> Option<Asked> {
        let waiting = self.waiting();
        let (since, asked) = waiting.get(token)?;
        (now.duration_since(*since) < VALID).then(|| asked.clone())
    }

    /// What `token` stands for, once.
    pub(super) fn take(&self, token: &str, now: Instant) -> Option<Asked> {
        let (since, asked) = self.waiting().remove(token)?;
        (now.duration_since(since) < VALID).then_some(asked)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, (Instant, Asked)>> {
        // Nothing in here is left half done by a panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked::PortForward { pod: PodId::from_random([7; 32]) }
    }

    #[test]
    fn a_token_works_once_and_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.give(asked(), now).unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(tokens.see(&token, now), Some(asked()));
        assert_eq!(tokens.take(&token, now), Some(asked()));
        assert_eq!(tokens.take(&token, now), None);
        assert_eq!(tokens.see(&token, now), None);
        let token = tokens.give(asked(), now).unwrap();
        assert_eq!(tokens.see(&token, now + VALID), None);
        assert_eq!(tokens.take(&token, now + VALID), None);
    }

    #[test]
    fn the_table_is_bounded_and_what_expired_makes_room() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for _ in 0..WAITING_MAX {
            let _token = tokens.give(asked(), now).unwrap();
        }
        let refused = tokens.give(asked(), now).unwrap_err();
        assert!(matches!(*refused, Error::TooManyStreams { .. }));
        let _token = tokens.give(asked(), now + VALID).unwrap();
    }
}
