// SPDX-License-Identifier: Apache-2.0
//! When a request is sent again: after which pause, and how often.
//!
//! ```text
//! failure ─→ transient? ─→ tries left, time left? ─→ pause: as asked, or 0.5 s doubled each time ─→ next try
//! ```
//!
//! The rule: the number of tries, the time that tries without progress take, and every pause are bounded, so a request
//! ends whatever its server does. A host that others can stand in for is not waited for.

use super::breaker::Breakers;
use super::retry_after;
use crate::error::Cause;
use crate::layer::progress::{LayerProgress, WaitReason};
use reqwest::Response;
use reqwest::header::{DATE, HeaderValue, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// Tries that bring nothing, in a row.
const TRIES: u32 = crate::limits::TRIES_WITHOUT_PROGRESS.number();
/// The longest pause, also if the server asks for a longer one.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often a transfer continues at a host that others can stand in for.
const RESUMES_ONCE: u32 = 10;
/// A connection that broke amid a transfer is replaced after this part of the first pause.
const AFTER_PROGRESS: u32 = 5;

/// One try that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// The HTTP status of the response, if there was a response.
    pub(super) status: Option<u16>,
    /// How long the server asks to wait: `Retry-After`.
    pub(super) asks: Option<Duration>,
    /// Whether the request was tried often enough already.
    pub(super) is_final: bool,
    /// Whether a part of the object is here, so that a host which does not accept connections is waited for.
    pub(super) has_part: bool,
}

impl From<Cause> for Failed {
    fn from(cause: Cause) -> Self {
        Self { cause, status: None, asks: None, is_final: false, has_part: false }
    }
}

/// How long a host is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Once: another host has the same.
    Once,
    /// Until the tries are used up.
    Full,
}

/// The tries of one request at one host.
#[derive(Debug)]
pub(super) struct Retry {
    tries_max: u32,
    tries: u32,
    first: Duration,
    /// The time that tries without progress may take together; a pause is not a try.
    time_left: Duration,
    time_max: Duration,
    has_progress: bool,
    /// How often the transfer may still continue after progress.
    resumes_left: u32,
}

impl Retry {
    /// The first pause is `first`. No try begins once tries without progress took `time_max`.
    pub(super) fn new(patience: Patience, first: Duration, time_max: Duration) -> Self {
        let (tries_max, resumes_left) =
            if patience == Patience::Full { (TRIES, u32::MAX) } else { (1, RESUMES_ONCE) };
        let (time_left, has_progress) = (time_max, false);
        Self { tries_max, tries: 0, first, time_left, time_max, has_progress, resumes_left }
    }

    /// Records that the last try brought something.
    pub(super) fn progress(&mut self) {
        (self.tries, self.time_left, self.has_progress) = (0, self.time_max, true);
    }

    /// The pause before the next try, after one that took `took`; `None` if there is no next try.
    fn pause(&mut self, asks: Option<Duration>, took: Duration) -> Option<Duration> {
        let after_progress = std::mem::take(&mut self.has_progress);
        if after_progress {
            self.resumes_left = self.resumes_left.checked_sub(1)?;
        } else {
            self.tries = self.tries.saturating_add(1);
            self.time_left = self.time_left.saturating_sub(took);
        }
        if self.tries >= self.tries_max || self.time_left.is_zero() {
            return None;
        }
        if let Some(asks) = asks {
            return Some(asks.min(PAUSE_MAX));
        }
        if after_progress {
            return Some(self.first / AFTER_PROGRESS);
        }
        let doubled = 2_u32.saturating_pow(self.tries.saturating_sub(1));
        Some(jittered(self.first.saturating_mul(doubled).min(PAUSE_MAX)))
    }

    /// Waits before the next try at `host`, or returns the reason why there is none.
    pub(super) async fn wait(
        &mut self,
        failed: Failed,
        took: Duration,
        host: &str,
        breakers: &Breakers,
        watch: &LayerProgress,
    ) -> Result<(), Cause> {
        let asks = failed.asks.filter(|asks| *asks <= PAUSE_MAX);
        // Other layers, and other pulls, wait too.
        let all_wait = |pause| {
            if let Some(status) = failed.status {
                breakers.asks_to_wait(host, pause, status);
            }
        };
        let may_succeed =
            failed.cause.is_transient() || (failed.has_part && failed.cause.may_be_restarting());
        if failed.is_final || !may_succeed {
            return Err(failed.cause);
        }
        if let Some(too_long) = failed.asks.filter(|asks| *asks > PAUSE_MAX) {
            return Err(failed.cause.asks_to_wait(too_long));
        }
        let Some(pause) = self.pause(asks, took) else {
            if let Some(asks) = asks {
                all_wait(asks);
            }
            return Err(failed.cause);
        };
        if failed.status.is_some() {
            all_wait(pause);
            return Ok(());
        }
        watch.waits_for(WaitReason::Retry);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// How long a response asks to wait before the next request.
pub(super) fn asked_pause(response: &Response) -> Option<Duration> {
    let header = |name| response.headers().get(name).and_then(|of: &HeaderValue| of.to_str().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    retry_after::parse(header(RETRY_AFTER)?, header(DATE), clock.as_secs())
}

/// Waits until the host takes requests again. A host that others can stand in for is not waited for.
pub(super) async fn turn(
    host: &str,
    what: &str,
    patience: Patience,
    breakers: &Breakers,
    watch: &LayerProgress,
) -> Result<(), Cause> {
    let Some((wait, status)) = breakers.wait(host) else { return Ok(()) };
    if patience == Patience::Once {
        let detail = format!("a moment ago, and asked to wait; {} s are left", wait.as_secs());
        let (host, what) = (host.to_owned(), what.to_owned());
        return Err(Cause::Answer {
            host,
            status,
            what,
            detail,
            registry: None,
            redirected_by: None,
        });
    }
    watch.waits_for(WaitReason::Later);
    // Those that waited do not all come back at once.
    tokio::time::sleep(wait.min(PAUSE_MAX) + spread(wait / 8)).await;
    Ok(())
}

/// Between half of `pause` and all of it.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + spread(pause / 2)
}

/// A random time up to `most`.
fn spread(most: Duration) -> Duration {
    let mut bytes = [0; 4];
    hull_sys::random(&mut bytes);
    most.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn retry(patience: Patience) -> Retry {
        Retry::new(patience, SECOND, 60 * SECOND)
    }

    #[test]
    fn pauses_double_and_end_with_the_tries() {
        let mut retry = retry(Patience::Full);
        for most in [1, 2, 4, 8, 16] {
            let pause = retry.pause(None, SECOND).unwrap();
            assert!(pause >= most * SECOND / 2 && pause <= most * SECOND, "{pause:?}");
        }
        assert_eq!(retry.pause(None, SECOND), None);
        let mut once = self::retry(Patience::Once);
        let resumed = (0..100).take_while(|_| {
            once.progress();
            once.pause(None, SECOND).is_some()
        });
        assert_eq!(resumed.count(), 10);
        assert_eq!(self::retry(Patience::Once).pause(Some(SECOND), SECOND), None);
    }

    #[test]
    fn progress_begins_from_the_start_and_time_ends_the_tries() {
        let mut retry = retry(Patience::Full);
        for _ in 0..1000 {
            retry.progress();
            assert_eq!(retry.pause(None, 100 * SECOND), Some(SECOND / AFTER_PROGRESS));
        }
        assert!(retry.pause(None, 59 * SECOND).is_some());
        assert_eq!(retry.pause(None, SECOND), None);
    }

    #[test]
    fn a_server_decides_about_the_pause_within_a_bound() {
        let mut retry = retry(Patience::Full);
        assert_eq!(retry.pause(Some(7 * SECOND), SECOND), Some(7 * SECOND));
        assert_eq!(retry.pause(Some(Duration::MAX), SECOND), Some(PAUSE_MAX));
        let mut huge = Retry::new(Patience::Full, Duration::MAX, Duration::MAX);
        assert!(huge.pause(None, Duration::MAX).is_none());
        assert!(
            Retry::new(Patience::Full, Duration::MAX, Duration::MAX).pause(None, SECOND).unwrap()
                <= PAUSE_MAX
        );
    }
}
