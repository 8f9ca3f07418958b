// SPDX-License-Identifier: Apache-2.0
//! The caller's deadline (`grpc-timeout`, gRPC over HTTP/2), reported as what it is.
//!
//! The rule: a call that is not answered in the time that its caller gave is answered DEADLINE_EXCEEDED,
//! whoever's clock is quicker. Left to tonic it would be CANCELLED, which a kubelet does not take for a
//! time-out. The work itself goes on, and the next caller with the same request joins it.

use crate::cri::status;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

const HEADER: &str = "grpc-timeout";

/// Ends calls at their callers' deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner }
    }
}

/// A service whose calls end at their callers' deadlines.
#[derive(Debug, Clone)]
pub(crate) struct DeadlineService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = limit(request.headers());
        // The time runs from here: before tonic's own timer starts.
        let over =
            limit.and_then(|limit| Some((limit, tokio::time::Instant::now().checked_add(limit)?)));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some((limit, over)) = over else { return answer.await };
            match tokio::time::timeout_at(over, answer).await {
                Ok(answer) => answer,
                Err(_over) => Ok(too_late(limit).into_http()),
            }
        })
    }
}

fn too_late(limit: Duration) -> Status {
    let text = format!(
        "cannot answer within {limit:?}, the time that the caller gave; the work goes on (hint: the same call again \
         waits for the same work; if it never ends, the daemon's log tells at which stage it is)"
    );
    status::plain(Code::DeadlineExceeded, &text)
}

/// At most eight digits and a unit; anything else is ignored.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;
    use proptest::prelude::*;
    use tonic::Code;

    fn of(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().ok()?);
        limit(&headers)
    }

    #[test]
    fn units_are_those_of_grpc() {
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(of("2M"), Some(Duration::from_secs(120)));
        assert_eq!(of("3S"), Some(Duration::from_secs(3)));
        assert_eq!(of("4m"), Some(Duration::from_millis(4)));
        assert_eq!(of("5u"), Some(Duration::from_micros(5)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "1", "1x", "-1S", "1.5S", "123456789S", "1ſ"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_a_panic(text in "\\PC{0,12}") {
            let _limit = of(&text);
        }
    }

    /// A service that never answers; asked as tonic asks, with its own timer around.
    #[tokio::test]
    async fn the_deadline_is_told_even_where_another_timer_runs_as_long() {
        for _ in 0..50 {
            let never = tower::service_fn(|_: Request<()>| {
                std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
            });
            let request = Request::builder().header(HEADER, "1m").body(()).unwrap();
            let answer = DeadlineLayer.layer(never).call(request);
            let outer = tokio::time::timeout(Duration::from_millis(1), answer).await;
            let answered = outer.expect("the inner timer is first").unwrap();
            let status = Status::from_header_map(answered.headers()).unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded);
        }
    }
}
