// SPDX-License-Identifier: Apache-2.0
//! The layer that counts request bodies against [`call_memory`](crate::limits::call_memory), and releases what an
//! answer holds when its last byte is sent.

use crate::cri::status;
use crate::error::Error;
use crate::limits::call_memory::{Budget, FREE_BYTES, Held, Received};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The request's own bytes are counted until it is answered: they are in its fields until then. A method
        // that receives a stream gives them back earlier.
        let lease = Received::new(self.budget.lease());
        request.extensions_mut().insert(lease.clone());
        let counted = lease.clone();
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
    lease: Received,
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
        if more > 0
            && let Err(used_up) = self.lease.grow(more)
        {
            return Poll::Ready(Some(Err(status::of(Error::from(used_up)))));
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
