// SPDX-License-Identifier: Apache-2.0
//! Measures every call: its time, its error by code and cause, and its span if it is traced.
//!
//! ```text
//! caller ─▶ MeasuredService ─▶ time limit, memory ─▶ verb ─▶ status: code, and its cause in a header
//!                 ▲                                                     │
//!                 └──── counts the answer, and takes the header out ◀───┘
//! ```
//!
//! The rule: a call is counted once, also if its caller leaves before the answer. An answer that ends with an error, as
//! streams do, is counted as an error when that comes. A caller that leaves a stream has not failed.

use crate::cri::status;
use crate::metrics::Metrics;
use crate::tracer::{self, Ended, Span, Tracer};
use hull_proto::{METHODS, Method};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// The method that calls of unknown methods are counted as.
const UNKNOWN: Method = Method { path: "", interface: "unknown", name: "unknown" };
/// The header with the code of an answer that is only an error, and the trailer of any other: gRPC over HTTP/2.
const CODE: &str = "grpc-status";

/// Measures the calls of every service that it is laid around.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Arc<Tracer>,
}

impl<S> Layer<S> for Measured {
    type Service = MeasuredService<S>;

    fn layer(&self, inner: S) -> MeasuredService<S> {
        MeasuredService { inner, by: self.clone() }
    }
}

/// A service whose calls are measured.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredService<S> {
    inner: S,
    by: Measured,
}

impl<S, B> Service<Request<B>> for MeasuredService<S>
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
        let span = self.by.tracer.call(request.headers());
        let call = Call::begin(&self.by, method(request.uri().path()), span);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = tracer::within(span.map(|span| span.place), answer).await?;
            Ok(match call.answered(answer.headers_mut()) {
                Answered::WithError => answer,
                Answered::Begun(end) => {
                    answer.map(|inner| Body::new(MeasuredBody { inner, end: Some(end) }))
                }
            })
        })
    }
}

fn method(path: &str) -> Method {
    METHODS.iter().find(|of| of.path == path).copied().unwrap_or(UNKNOWN)
}

/// A call that has no answer yet. If it is dropped, its caller has left.
struct Call {
    by: Measured,
    method: Method,
    span: Option<Span>,
    began: Instant,
    outcome: Option<(&'static str, &'static str)>,
    _in_flight: crate::metrics::Level,
}

impl Call {
    fn begin(by: &Measured, method: Method, span: Option<Span>) -> Self {
        Self {
            by: by.clone(),
            method,
            span,
            began: Instant::now(),
            outcome: Some(("CANCELLED", "client")),
            _in_flight: by.metrics.calls_in_flight.enter(&[method.interface, method.name]),
        }
    }

    /// Counts the answer with these headers. The cause of an error is taken out of them.
    fn answered(mut self, headers: &mut HeaderMap) -> Answered {
        self.outcome = error_of(headers);
        match self.outcome {
            Some(_) => Answered::WithError,
            None => Answered::Begun(AnswerEnd {
                metrics: Arc::clone(&self.by.metrics),
                method: self.method,
            }),
        }
    }
}

/// The beginning of an answer to a call.
enum Answered {
    WithError,
    /// Its end says whether the call has failed.
    Begun(AnswerEnd),
}

/// The code and the cause of an error in these headers or trailers. The cause is taken out of them.
fn error_of(headers: &mut HeaderMap) -> Option<(&'static str, &'static str)> {
    let cause = headers.remove(status::CAUSE_HEADER);
    let code = headers.get(CODE).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    (code != Code::Ok).then(|| {
        let cause = cause.and_then(|cause| status::cause_named(cause.as_bytes()));
        (status::code_name(code), cause.unwrap_or_else(|| status::cause_of_code(code)).name())
    })
}

/// Counts the error with which an answer ends.
struct AnswerEnd {
    metrics: Arc<Metrics>,
    method: Method,
}

impl AnswerEnd {
    fn failed(self, (code, cause): (&'static str, &'static str)) {
        let Method { interface, name, .. } = self.method;
        self.metrics.call_errors.count(&[interface, name, code, cause]);
    }
}

/// The body of an answer, until its end was seen.
struct MeasuredBody {
    inner: Body,
    end: Option<AnswerEnd>,
}

impl HttpBody for MeasuredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let error = match &mut frame {
            Some(Ok(frame)) => frame.trailers_mut().and_then(error_of),
            Some(Err(status)) => {
                let code = status.code();
                Some((status::code_name(code), status::cause_of_code(code).name()))
            }
            None => None,
        };
        if let Some(error) = error
            && let Some(end) = self.end.take()
        {
            end.failed(error);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Method { interface, name, .. } = self.method;
        let took = self.began.elapsed();
        let trace = self.span.map(|span| span.place.trace);
        self.by.metrics.call_seconds.observe(&[interface, name], took, trace);
        if let Some(span) = self.span {
            let error = self.outcome.map(|(code, cause)| format!("{code} ({cause})"));
            self.by.tracer.ended(Ended {
                span,
                name: self.method.path.trim_start_matches('/').to_owned(),
                is_call: true,
                took,
                error: error.unwrap_or_default(),
                attributes: vec![("rpc.system", "grpc".to_owned())],
            });
        }
        if let Some((code, cause)) = self.outcome {
            self.by.metrics.call_errors.count(&[interface, name, code, cause]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;
    use crate::error::Error;
    use crate::metrics::{Exemplars, Scraped};
    use std::convert::Infallible;
    use tower::service_fn;

    const PATH: &str = "/runtime.v1.RuntimeService/StartContainer";

    fn measured(metrics: &Arc<Metrics>) -> Measured {
        Measured { metrics: Arc::clone(metrics), tracer: Arc::default() }
    }

    fn text(metrics: &Metrics) -> String {
        metrics.text(&Scraped::default(), Exemplars::Included).unwrap()
    }

    fn request(path: &str) -> Request<()> {
        Request::builder().uri(path).body(()).unwrap()
    }

    #[tokio::test]
    async fn an_error_is_counted_by_code_and_cause_which_its_caller_does_not_see() {
        let metrics = Arc::new(Metrics::default());
        let refuse = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(status::of(Error::NoImage { image: "x".into() }).into_http())
        });
        let answer = measured(&metrics).layer(refuse).call(request(PATH)).await.unwrap();
        assert_eq!(answer.headers().get(CODE).unwrap(), "5");
        assert!(answer.headers().get(status::CAUSE_HEADER).is_none());
        let text = text(&metrics);
        let wanted = "hull_grpc_errors_total{interface=\"cri\",verb=\"StartContainer\",code=\"NOT_FOUND\",cause=\"image\"} 1";
        assert!(text.contains(wanted), "{text}");
        let wanted = "hull_grpc_call_seconds_count{interface=\"cri\",verb=\"StartContainer\"} 1";
        assert!(text.contains(wanted), "{text}");
    }

    #[tokio::test]
    async fn a_caller_that_leaves_is_counted_and_is_in_flight_before() {
        let metrics = Arc::new(Metrics::default());
        let never = service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let call = measured(&metrics).layer(never).call(request("/unknown.v1.X/Y"));
        let labels = "interface=\"unknown\",verb=\"unknown\"";
        let in_flight = |count| format!("hull_grpc_calls_in_flight{{{labels}}} {count}");
        assert!(text(&metrics).contains(&in_flight(1)));
        drop(call);
        let text = text(&metrics);
        assert!(text.contains(&in_flight(0)), "{text}");
        let left =
            format!("hull_grpc_errors_total{{{labels},code=\"CANCELLED\",cause=\"client\"}} 1");
        assert!(text.contains(&left), "{text}");
    }

    /// A body of these trailers.
    struct Trailers(Option<HeaderMap>);

    impl HttpBody for Trailers {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    /// The trailers that a caller gets of an answer that began without an error.
    async fn received(metrics: &Arc<Metrics>, trailers: HeaderMap) -> HeaderMap {
        let stream = service_fn(move |_: Request<()>| {
            let body = Body::new(Trailers(Some(trailers.clone())));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let answer = measured(metrics).layer(stream).call(request(PATH)).await.unwrap();
        let mut body = answer.into_body();
        let mut found = HeaderMap::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
            found.extend(frame.unwrap().into_trailers().unwrap_or_default());
        }
        found
    }

    #[tokio::test]
    async fn an_error_at_the_end_of_a_stream_is_counted_by_code_and_cause() {
        let metrics = Arc::new(Metrics::default());
        let mut good = HeaderMap::new();
        good.insert("grpc-status", "0".parse().unwrap());
        let _trailers = received(&metrics, good).await;
        assert!(!text(&metrics).contains("hull_grpc_errors_total{"));
        let mut failed = HeaderMap::new();
        status::of(Error::NoImage { image: "x".into() }).add_header(&mut failed).unwrap();
        assert!(failed.contains_key(status::CAUSE_HEADER));
        let trailers = received(&metrics, failed).await;
        assert_eq!(trailers.get(CODE).unwrap(), "5");
        assert!(!trailers.contains_key(status::CAUSE_HEADER), "its caller sees the cause");
        let text = text(&metrics);
        let labels = "interface=\"cri\",verb=\"StartContainer\"";
        let error =
            format!("hull_grpc_errors_total{{{labels},code=\"NOT_FOUND\",cause=\"image\"}} 1\n");
        assert!(text.contains(&error), "{text}");
        assert!(text.contains(&format!("hull_grpc_call_seconds_count{{{labels}}} 2\n")), "{text}");
    }

    #[tokio::test]
    async fn a_call_that_succeeds_is_no_error() {
        let metrics = Arc::new(Metrics::default());
        let fine = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let answered = measured(&metrics).layer(fine).call(request(PATH)).await;
        assert!(answered.is_ok());
        assert!(!text(&metrics).contains("hull_grpc_errors_total{"));
    }
}
