// SPDX-License-Identifier: Apache-2.0
//! The stream of a layer: how much of it is known, and which responses continue it.

use super::encoding::{self, Decoded, Decoding, Encoding};
use super::endpoint::Endpoint;
use super::range;
use super::request::Target;
use super::transport;
use crate::error::{Cause, Unreachable};
use crate::manifest::Descriptor;
use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;

/// The bytes that an encoding may add to a small layer.
const ENCODING_BYTES_MAX: u64 = 1 << 20;

/// The stream of a layer.
pub(super) struct Stream<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) into: mpsc::Sender<Bytes>,
    pub(super) received: u64,
    /// Requests so far, to all endpoints.
    pub(super) tries: u32,
    pub(super) target: Target<'a>,
}

impl Stream<'_> {
    /// Refuses a response to a request for the whole that cannot be it, before any of its bytes get into the stream.
    /// Returns the number of its bytes that are known.
    pub(super) fn check_whole(
        &self,
        response: &Response,
        endpoint: &Endpoint,
    ) -> Result<u64, Cause> {
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if is_part { range::start(response).unwrap_or(0) } else { 0 };
        // The length of a compressed body says nothing.
        let announced = response.content_length().filter(|_| !self.is_encoded(response));
        let announced = announced.map(|of| start.saturating_add(of));
        if announced != Some(self.descriptor.size) && is_html(response) {
            let (host, what) = (endpoint.host.clone(), self.target.what.to_owned());
            return Err(Cause::Page { host, status: response.status().as_u16(), what });
        }
        if let Some(announced) = announced.filter(|of| *of < self.descriptor.size) {
            let why = format!("has {announced} of {} bytes there", self.descriptor.size);
            return Err(self.broken(endpoint, why));
        }
        let known = self.received.checked_sub(start);
        known.ok_or_else(|| self.broken(endpoint, "begins in its middle".into()))
    }

    /// Whether the body has an encoding. If it has the length of the layer, or is a part of that, the header tells of
    /// the layer.
    fn is_encoded(&self, response: &Response) -> bool {
        response.content_length() != Some(self.descriptor.size)
            && !range::is_part_of(response, self.descriptor.size)
            && encoding::of(response.headers()) != Encoding::Identity
    }

    /// The body of a response, to be fed with its bytes.
    pub(super) fn decoded(&self, response: &Response) -> Result<Decoded, Cause> {
        if !self.is_encoded(response) {
            return Ok(Decoded::new(Decoding::None));
        }
        match encoding::of(response.headers()) {
            Encoding::Identity => Ok(Decoded::new(Decoding::None)),
            // In chunks, or as HTTP/2 may have it, a body has no length that tells what is compressed.
            Encoding::Gzip
                if response.content_length().is_none()
                    && self.descriptor.media_type.contains("gzip") =>
            {
                Ok(Decoded::new(Decoding::GzipOfGzip))
            }
            Encoding::Gzip => Ok(Decoded::new(Decoding::Gzip)),
            Encoding::Other(name) => Err(Cause::Document {
                what: self.target.what.to_owned(),
                why: format!("its Content-Encoding is `{name}`, which was not asked for"),
            }),
        }
    }

    /// Refuses an encoded body that goes on without end. Gzip adds a little to what does not compress.
    pub(super) fn check_length(&self, decoded: &Decoded) -> Result<(), Cause> {
        let max = self.descriptor.size.saturating_mul(2).saturating_add(ENCODING_BYTES_MAX);
        if decoded.is_gzip() && decoded.fed() > max {
            return Err(Cause::TooLarge { what: self.target.what.to_owned(), max });
        }
        Ok(())
    }

    /// The next piece of what came of the layer.
    pub(super) fn next_piece(
        &self,
        decoded: &mut Decoded,
        endpoint: &Endpoint,
    ) -> Result<Option<Bytes>, Cause> {
        let piece = decoded.next().map_err(|err| Cause::Document {
            what: self.target.what.to_owned(),
            why: format!("it is not gzip, as its Content-Encoding says: {err}"),
        })?;
        // The length of a compressed body did not tell, and no archive begins like a page.
        let is_page = |piece: &Bytes| decoded.is_gzip() && transport::is_page(piece);
        if self.received == 0 && piece.as_ref().is_some_and(is_page) {
            let (host, what) = (endpoint.host.clone(), self.target.what.to_owned());
            return Err(Cause::Page { host, status: StatusCode::OK.as_u16(), what });
        }
        Ok(piece)
    }

    pub(super) fn broken(&self, endpoint: &Endpoint, why: String) -> Cause {
        broken(&endpoint.host, format!("{} {why}", self.target.what))
    }

    /// Sends a chunk; false if the receiver was dropped.
    pub(super) async fn pass_on(&mut self, chunk: Bytes) -> Result<bool, Cause> {
        let length = chunk.len() as u64;
        let received = self.received.saturating_add(length);
        if received > self.descriptor.size {
            return Err(Cause::WrongSize {
                what: format!("layer {}", self.descriptor.digest),
                want: self.descriptor.size,
                got: None,
            });
        }
        let is_taken = self.into.send(chunk).await.is_ok();
        self.received = received;
        Ok(is_taken)
    }
}

/// Whether a response says that it is a page for people.
fn is_html(response: &Response) -> bool {
    let header = response.headers().get(CONTENT_TYPE).and_then(|of| of.to_str().ok());
    let media_type = header.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    ["text/html", "application/xhtml+xml"].iter().any(|of| media_type.eq_ignore_ascii_case(of))
}

/// A connection that ended too early.
pub(super) fn broken(host: &str, detail: String) -> Cause {
    Cause::Unreachable { host: host.to_owned(), kind: Unreachable::Broken, detail, registry: None }
}
