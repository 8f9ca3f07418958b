// SPDX-License-Identifier: Apache-2.0
//! The calls in the log: each event of a call has its verb and what it is about, and a call that is refused is a line
//! with code and message. Knows the calls that are under way.

use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument as _, error_span, info, warn};

/// Longest name of a verb that is logged, in bytes: clients may call anything.
const VERB_BYTES_MAX: usize = 64;

/// The calls that are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct CallLog(Arc<Mutex<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    under_way: BTreeMap<u64, (String, Instant)>,
}

/// A call that is under way, until it is dropped.
struct CallGuard {
    log: CallLog,
    number: u64,
}

impl CallLog {
    /// The calls that have no answer yet, the oldest first, with their ages.
    pub(super) fn under_way(&self) -> Vec<(String, Duration)> {
        let calls = self.calls();
        calls.under_way.values().map(|(verb, began)| (verb.clone(), began.elapsed())).collect()
    }

    fn begin(&self, verb: &str) -> CallGuard {
        let mut calls = self.calls();
        calls.next = calls.next.wrapping_add(1);
        let number = calls.next;
        calls.under_way.insert(number, (verb.to_owned(), Instant::now()));
        CallGuard { log: self.clone(), number }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.log.calls().under_way.remove(&self.number);
    }
}

impl<S> Layer<S> for CallLog {
    type Service = LoggedService<S>;

    fn layer(&self, inner: S) -> LoggedService<S> {
        LoggedService { inner, log: self.clone() }
    }
}

/// A service whose calls are logged.
#[derive(Debug, Clone)]
pub(super) struct LoggedService<S> {
    inner: S,
    log: CallLog,
}

impl<S, B, R> Service<Request<B>> for LoggedService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let verb = verb(request.uri().path());
        let guard = self.log.begin(&verb);
        let span =
            error_span!(parent: None, "call", verb, pod = Empty, container = Empty, image = Empty);
        let answer = span.in_scope(|| self.inner.call(request));
        let answer = async move {
            let answer = answer.await;
            drop(guard);
            if let Ok(answer) = &answer
                && let Some(status) = Status::from_header_map(answer.headers())
            {
                log_refusal(&status);
            }
            answer
        };
        Box::pin(answer.instrument(span))
    }
}

/// The method's name, without its service.
fn verb(path: &str) -> String {
    shown(path.rsplit('/').next().unwrap_or_default(), VERB_BYTES_MAX)
}

/// A line for an answer that is an error. Those that no caller can have caused are warnings.
fn log_refusal(status: &Status) {
    let (code, why) = (status.code(), shown(status.message(), MESSAGE_BYTES_MAX));
    match code {
        Code::Ok => {}
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Unavailable => {
            warn!(?code, why, "call failed");
        }
        Code::Cancelled
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => info!(?code, why, "call refused"),
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
    async fn a_call_is_under_way_until_its_answer_or_until_its_caller_is_gone() {
        let log = CallLog::default();
        let (send, wait) = oneshot::channel::<()>();
        let mut service =
            log.layer(service_fn(|request: Request<oneshot::Receiver<()>>| async move {
                let _sent = request.into_body().await;
                Ok::<_, Infallible>(Response::new(()))
            }));
        let request = |wait| Request::builder().uri("/a.B/StopContainer").body(wait).unwrap();
        let first = service.call(request(wait));
        let (_never, wait) = oneshot::channel::<()>();
        let second = service.call(request(wait));
        let verbs: Vec<String> = log.under_way().into_iter().map(|(verb, _)| verb).collect();
        assert_eq!(verbs, ["StopContainer", "StopContainer"]);
        send.send(()).unwrap();
        let _answer = first.await.unwrap();
        assert_eq!(log.under_way().len(), 1);
        drop(second);
        assert!(log.under_way().is_empty());
    }

    #[test]
    fn the_verb_is_a_bounded_word() {
        assert_eq!(verb("/runtime.v1.RuntimeService/ListContainers"), "ListContainers");
        assert_eq!(verb(""), "");
        assert!(verb(&"x".repeat(10_000)).len() < 100);
    }
}
