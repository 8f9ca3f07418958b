// SPDX-License-Identifier: Apache-2.0
//! The number of calls in flight, so that the daemon can finish them before it ends.
//!
//! The rule: a call counts from its arrival until its answer is handed to the connection, also when
//! the caller hangs up. An idle connection counts for nothing: HTTP/2 ends one only when its client
//! does so, and a client that is stopped, or waits for the daemon to end, never does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tower::{Layer, Service};

/// Counts the calls of every service that it is laid around.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    count: Arc<watch::Sender<usize>>,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { count: Arc::new(watch::Sender::new(0)) }
    }

    /// Waits until no call is in flight.
    pub(crate) async fn none(&self) {
        // The sender is ours, so this waits for nothing else.
        let mut count = self.count.subscribe();
        let _none = count.wait_for(|count| *count == 0).await;
    }

    fn one(&self) -> CallGuard {
        self.count.send_modify(|count| *count += 1);
        CallGuard { count: Arc::clone(&self.count) }
    }
}

/// Counts a call until it is dropped.
struct CallGuard {
    count: Arc<watch::Sender<usize>>,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

impl<S> Layer<S> for InFlight {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> CountedService<S> {
        CountedService { inner, calls: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(crate) struct CountedService<S> {
    inner: S,
    calls: InFlight,
}

impl<S, R> Service<R> for CountedService<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let one = self.calls.one();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(one);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;
    use std::convert::Infallible;
    use tokio::sync::oneshot;
    use tower::service_fn;

    #[tokio::test]
    async fn it_is_none_again_when_the_last_call_has_its_answer() {
        let calls = InFlight::new();
        calls.none().await;
        let mut service = calls.layer(service_fn(|wait: oneshot::Receiver<u8>| async {
            Ok::<_, Infallible>(wait.await.unwrap())
        }));
        let (first_in, first) = oneshot::channel();
        let (_second_in, second) = oneshot::channel();
        let (first, second) = (service.call(first), service.call(second));
        assert_eq!(*calls.count.borrow(), 2);
        first_in.send(7).unwrap();
        assert_eq!(first.await.unwrap(), 7);
        assert_eq!(*calls.count.borrow(), 1);
        // A caller that hangs up.
        drop(second);
        calls.none().await;
    }
}
