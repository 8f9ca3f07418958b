// SPDX-License-Identifier: Apache-2.0
//! How much memory calls may take together, so that many large ones at a time are refused and the daemon
//! is not killed.
//!
//! ```text
//! request body ──▶ counted as it comes ─┐
//!                                       ├─ a lease on `runtime.call_memory_bytes_max`
//! ExecSync output ▶ counted as it grows ┘   ▶ goes with the last byte of the answer
//! ```
//!
//! The rule: small calls are never refused. The first [`FREE_BYTES`] of each request and of each stream of output are
//! not counted; all beyond is counted before it is kept, twice, as a message and its fields are there side by
//! side. Who finds nothing left is answered RESOURCE_EXHAUSTED at once; nobody waits while holding a part.

use crate::cri::status;
use crate::error::Error;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// Of each request and each stream of output this much is not counted, in bytes.
pub(crate) const FREE_BYTES: usize = crate::limits::CALL_FREE_BYTES.count();
/// How often a byte is there at a time: encoded, and decoded.
const COPIES: u64 = 2;

/// All that calls may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    used: AtomicU64,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub(crate) most: u64,
}

impl From<UsedUp> for Error {
    fn from(UsedUp { most }: UsedUp) -> Self {
        Self::CallMemory { most }
    }
}

impl Budget {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicU64::new(0) })
    }

    /// A lease on nothing yet.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { of: Arc::clone(self), held: 0 }
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    of: Arc<Budget>,
    held: u64,
}

impl Lease {
    /// Counts `bytes` more, and their copies.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), UsedUp> {
        let (most, more) = (self.of.most, (bytes as u64).saturating_mul(COPIES));
        let grown = |used: u64| used.checked_add(more).filter(|used| *used <= most);
        match self.of.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => {
                self.held += more;
                Ok(())
            }
            Err(_) => Err(UsedUp { most }),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// What an answer goes on holding until its last byte is sent: put into its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "it is held, not looked at")] Arc<Lease>);

impl Held {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(Arc::new(lease))
    }
}

/// Counts what requests bring, and lets go of leases when their answers are sent.
#[derive(Debug, Clone)]
pub(crate) struct Budgeted(pub(crate) Arc<Budget>);

impl<S> Layer<S> for Budgeted {
    type Service = BudgetedService<S>;

    fn layer(&self, inner: S) -> BudgetedService<S> {
        BudgetedService { inner, budget: Arc::clone(&self.0) }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(crate) struct BudgetedService<S> {
    inner: S,
    budget: Arc<Budget>,
}

impl<S, B> Service<Request<B>> for BudgetedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The request's own bytes are counted until it is answered: they are in its fields until then.
        let lease = Arc::new(Mutex::new(self.budget.lease()));
        let counted = Arc::clone(&lease);
        let request = request.map(|inner| Body::new(Incoming { inner, came: 0, lease: counted }));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(lease);
            answer.map(hold)
        })
    }
}

/// Moves what an answer holds into its body.
fn hold(mut answer: Response<Body>) -> Response<Body> {
    match answer.extensions_mut().remove::<Held>() {
        Some(held) => answer.map(|inner| Body::new(Outgoing { inner, _held: held })),
        None => answer,
    }
}

/// A request's body, counted as it comes.
struct Incoming<B> {
    inner: B,
    came: usize,
    lease: Arc<Mutex<Lease>>,
}

impl<B> HttpBody for Incoming<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = match frame {
            Ok(frame) => frame,
            Err(err) => return Poll::Ready(Some(Err(Status::from_error(err.into())))),
        };
        let before = self.came.max(FREE_BYTES);
        self.came += frame.data_ref().map_or(0, Bytes::len);
        let more = self.came.saturating_sub(before);
        if more > 0 {
            // Nothing in there is left half done by a panic.
            let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(used_up) = lease.grow(more) {
                return Poll::Ready(Some(Err(status::of(Error::from(used_up)))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body: the connection drops it when all of it is sent, or the client is gone.
struct Outgoing {
    inner: Body,
    _held: Held,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_comes_back_and_nobody_gets_more_than_there_is() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.lease(), budget.lease());
        one.grow(30).unwrap();
        two.grow(20).unwrap();
        assert_eq!(two.grow(1), Err(UsedUp { most: 100 }));
        assert_eq!(one.grow(usize::MAX), Err(UsedUp { most: 100 }));
        drop(one);
        two.grow(30).unwrap();
        drop(two);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
