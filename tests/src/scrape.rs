// SPDX-License-Identifier: Apache-2.0
//! The daemon's own metrics, as a Prometheus server gets them.

use crate::expect::ExpectExt;
use crate::node::Node;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// The request for them.
pub const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: hull\r\n\r\n";

/// The request of a client that reads exemplars, too.
pub const OPENMETRICS_REQUEST: &[u8] =
    b"GET /metrics HTTP/1.1\r\nHost: hull\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1\r\n\r\n";

/// The values of one answer by series, as `name{label="value"}`.
#[derive(Debug)]
pub struct Scrape {
    /// The answer itself.
    pub text: String,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    /// Gets the metrics from the socket of a node's daemon.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let socket = node.state_dir().join("metrics.sock");
        let (head, body) = ask(UnixStream::connect(&socket).or_fail("connect to the socket"));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        Self::parse(body)
    }

    /// Reads the body of an answer.
    #[must_use]
    pub fn parse(text: String) -> Self {
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ').or_fail(format!("read {line}"));
            (series.to_owned(), value.parse().or_fail(format!("read {line}")))
        };
        let values = samples.map(value).collect();
        Self { text, values }
    }

    /// The value of a series; 0 if it is not there yet.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or(0.0)
    }

    /// Fails unless every series has risen by that much since `before`.
    #[track_caller]
    pub fn rose(&self, before: &Self, series: &[(&str, f64)]) {
        for (series, by) in series {
            let rose = self.value(series) - before.value(series);
            assert!(
                (rose - by).abs() < 0.001,
                "{series} rose by {rose}, not by {by}:\n{}",
                self.text
            );
        }
    }
}

/// Sends the request over a connection, and returns head and body of the response.
pub fn ask(stream: impl Read + Write) -> (String, String) {
    ask_by(REQUEST, stream)
}

/// Sends this request over a connection, and returns head and body of the response.
pub fn ask_by(request: &[u8], mut stream: impl Read + Write) -> (String, String) {
    stream.write_all(request).or_fail("send the request");
    let mut text = String::new();
    let _bytes = stream.read_to_string(&mut text).or_fail("read the response");
    let (head, body) = text.split_once("\r\n\r\n").or_fail(format!("read {text}"));
    (head.to_owned(), body.to_owned())
}
