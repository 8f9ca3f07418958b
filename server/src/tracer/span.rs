// SPDX-License-Identifier: Apache-2.0
//! Spans, and the one in which code runs.

use std::future::Future;
use std::time::Duration;

tokio::task_local! {
    static CURRENT: SpanPlace;
}

/// The place of a span: its trace and its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanPlace {
    pub(crate) trace: u128,
    pub(super) id: u64,
}

/// A span that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) place: SpanPlace,
    /// The id of its parent; 0 without one.
    pub(super) parent: u64,
    /// The parent is of another program.
    pub(super) is_remote: bool,
}

impl Span {
    /// A new span below one of this program.
    pub(crate) fn below(parent: SpanPlace) -> Self {
        let place = SpanPlace { trace: parent.trace, id: random() };
        Self { place, parent: parent.id, is_remote: false }
    }
}

/// A span that has ended now.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) span: Span,
    pub(crate) name: String,
    /// It is a call of another program.
    pub(crate) is_call: bool,
    pub(crate) took: Duration,
    /// The reason, if it failed.
    pub(crate) error: String,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// The span in which this code runs, if it is traced.
pub(crate) fn current() -> Option<SpanPlace> {
    CURRENT.try_with(|place| *place).ok()
}

/// Does `work` in a span, if there is one.
pub(crate) async fn within<T>(place: Option<SpanPlace>, work: impl Future<Output = T>) -> T {
    match place {
        Some(place) => CURRENT.scope(place, work).await,
        None => work.await,
    }
}

/// A number that is not 0.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    hull_sys::random(&mut bytes);
    u64::from_ne_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_in_a_span_knows_it_and_other_work_does_not() {
        let place = SpanPlace { trace: 7, id: 8 };
        assert_eq!(current(), None);
        assert_eq!(within(Some(place), async { current() }).await, Some(place));
        assert_eq!(within(None, async { current() }).await, None);
        let child = Span::below(place);
        assert_eq!((child.place.trace, child.parent), (7, 8));
        assert_ne!(child.place.id, 8);
    }
}
