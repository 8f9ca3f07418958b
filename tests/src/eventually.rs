// SPDX-License-Identifier: Apache-2.0
//! Waiting for a state, the only way to wait in these tests.
//!
//! The check is level-triggered: it is asked again until it holds, so nothing that happens between two
//! looks is missed. The wait ends at a deadline with the last answer in the message. `tidy` lets no
//! other file here sleep.

use std::fmt::Display;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait. Generous, because a busy machine with two cores runs several nodes at once; a test
/// that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const TICK: Duration = Duration::from_millis(5);

/// [`DEADLINE`], on this machine.
#[must_use]
pub fn deadline() -> Duration {
    with_long_timeout(DEADLINE)
}

/// A longest wait as it is on this machine: an emulated one sets `TESTS_SLOWER` to how many times
/// slower it is.
#[must_use]
pub fn with_long_timeout(wait: Duration) -> Duration {
    static SLOWER: OnceLock<u32> = OnceLock::new();
    let told = || std::env::var("TESTS_SLOWER").ok()?.parse().ok();
    wait * *SLOWER.get_or_init(|| told().unwrap_or(1))
}

/// Asks `check` until it gives a value.
pub async fn eventually<T, F, Fut>(what: impl Display, check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    eventually_within(DEADLINE, what, check).await
}

/// Asks `check` until it gives a value, for what may take longer than most: `most` is the longest wait
/// on a machine of usual speed.
pub async fn eventually_within<T, F, Fut>(most: Duration, what: impl Display, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let (began, most) = (Instant::now(), with_long_timeout(most));
    loop {
        let last = match check().await {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(began.elapsed() < most, "waited {most:?} until {what}; at last: {last}");
        tokio::time::sleep(TICK).await;
    }
}

/// Asks `check` until it gives a value or `deadline` has passed, where there is no async runtime.
///
/// # Errors
/// The last answer of `check`.
pub fn blocking<T>(
    deadline: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match check() {
            Err(last) if began.elapsed() >= deadline => return Err(last),
            Err(_) => std::thread::sleep(TICK),
            done => return done,
        }
    }
}
