// SPDX-License-Identifier: Apache-2.0
//! `Content-Encoding` of responses: RFC 9110, 8.4.
//!
//! The rule: no encoding is asked for, because digests are those of the bytes without one. Proxies in between compress
//! nevertheless, so gzip is undone. Some storages send this header for layers that are compressed by themselves; then the
//! announced length is that of the layer.

use crate::error::shown;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use std::io::{self, Write as _};

/// Gzip inflates a byte to at most 1032 bytes, so the output of one step is at most about a megabyte.
const STEP_BYTES: usize = 1 << 10;
const SHOWN_BYTES: usize = 60;
/// How gzip begins (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The largest header of gzip before the first byte that it has, about.
const HELD_BYTES_MAX: usize = 128 << 10;

/// How the body of a response is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// One that is not known, or several, as the header says.
    Other(String),
}

/// The encoding that headers state.
pub(super) fn of(headers: &HeaderMap) -> Encoding {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let text =
        values.map(|of| String::from_utf8_lossy(of.as_bytes())).collect::<Vec<_>>().join(",");
    let mut names = text.split(',').map(str::trim).filter(|of| !of.is_empty());
    let mut named = names.by_ref().filter(|of| !of.eq_ignore_ascii_case("identity"));
    match (named.next(), named.next()) {
        (None, _) => Encoding::Identity,
        (Some(name), None) if ["gzip", "x-gzip"].iter().any(|of| name.eq_ignore_ascii_case(of)) => {
            Encoding::Gzip
        }
        _ => Encoding::Other(shown(text.trim(), SHOWN_BYTES)),
    }
}

/// Whether the body of a response is to be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoding {
    None,
    Gzip,
    /// The length is not known, so the header may also tell of a layer that is gzip by itself. It does unless gzip is
    /// in it once more.
    GzipOfGzip,
}

/// The bytes of a body without its encoding, in pieces of limited size.
pub(super) struct Decoded {
    pending: Bytes,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    /// The bytes that came before it is known whether the body is encoded.
    held: Option<Vec<u8>>,
    /// The bytes that were fed.
    fed: u64,
}

impl Decoded {
    pub(super) fn new(decoding: Decoding) -> Self {
        let gzip = (decoding != Decoding::None).then(|| MultiGzDecoder::new(Vec::new()));
        let held = (decoding == Decoding::GzipOfGzip).then(Vec::new);
        Self { pending: Bytes::new(), gzip, held, fed: 0 }
    }

    /// Whether a compression is undone.
    pub(super) fn is_gzip(&self) -> bool {
        self.gzip.is_some()
    }

    /// The number of bytes that were fed so far.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// Takes the next bytes that came, when `next` has none left.
    pub(super) fn feed(&mut self, chunk: Bytes) {
        self.fed = self.fed.saturating_add(chunk.len() as u64);
        self.pending = chunk;
    }

    /// The next piece of what was fed; `None` when more has to come. An error if it is not gzip.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(gzip) = &mut self.gzip else {
            let all = std::mem::take(&mut self.pending);
            return Ok(Some(all).filter(|all| !all.is_empty()));
        };
        while !self.pending.is_empty() {
            let step = self.pending.split_to(STEP_BYTES.min(self.pending.len()));
            let written = gzip.write_all(&step).and_then(|()| gzip.flush());
            if let Some(held) = &mut self.held {
                held.extend_from_slice(&step);
                let start = gzip.get_ref().as_slice();
                let is_open = written.is_ok() && start.len() < GZIP.len();
                if is_open && held.len() < HELD_BYTES_MAX {
                    continue;
                }
                if written.is_err() || !start.starts_with(&GZIP) {
                    return Ok(Some(self.undecoded()));
                }
                self.held = None;
            }
            written?;
            let piece = std::mem::take(gzip.get_mut());
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        Ok(None)
    }

    /// The bytes that are left when the body has ended.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        self.held.is_some().then(|| self.undecoded()).filter(|all| !all.is_empty())
    }

    /// The bytes so far as they came. So are all that follow.
    fn undecoded(&mut self) -> Bytes {
        self.gzip = None;
        let mut all = self.held.take().unwrap_or_default();
        all.extend_from_slice(&std::mem::take(&mut self.pending));
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn headers_state_an_encoding() {
        let stated = |values: &[&'static str]| {
            let header = |of: &&'static str| (CONTENT_ENCODING, HeaderValue::from_static(of));
            let mut headers = HeaderMap::new();
            for (name, value) in values.iter().map(header) {
                headers.append(name, value);
            }
            of(&headers)
        };
        for values in [&[][..], &[""], &["identity"], &["Identity", " , "]] {
            assert_eq!(stated(values), Encoding::Identity, "{values:?}");
        }
        for values in [&["gzip"][..], &["X-GZIP"], &["identity", "gzip"], &[" gzip , identity"]] {
            assert_eq!(stated(values), Encoding::Gzip, "{values:?}");
        }
        for (values, text) in
            [(&["br"][..], "br"), (&["gzip", "gzip"], "gzip,gzip"), (&["gzip, zstd"], "gzip, zstd")]
        {
            assert_eq!(stated(values), Encoding::Other(text.into()), "{values:?}");
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn decoded(bytes: &[u8], chunk: usize, is_gzip: bool) -> io::Result<Vec<u8>> {
        let decoding = if is_gzip { Decoding::Gzip } else { Decoding::None };
        decoded_by(decoding, bytes, chunk)
    }

    fn decoded_by(decoding: Decoding, bytes: &[u8], chunk: usize) -> io::Result<Vec<u8>> {
        let is_gzip = decoding != Decoding::None;
        let (mut out, mut decoded) = (Vec::new(), Decoded::new(decoding));
        for chunk in bytes.chunks(chunk) {
            decoded.feed(Bytes::copy_from_slice(chunk));
            while let Some(piece) = decoded.next()? {
                assert!(!is_gzip || piece.len() <= 2 << 20, "{}", piece.len());
                out.extend_from_slice(&piece);
            }
        }
        out.extend(decoded.finish().into_iter().flatten());
        Ok(out)
    }

    #[test]
    fn a_body_that_inflates_a_lot_comes_in_pieces() {
        let zeros = vec![0; 40 << 20];
        assert!(decoded(&gzip(&zeros), usize::MAX, true).unwrap() == zeros);
        decoded(b"not gzip at all", 4, true).unwrap_err();
    }

    /// A header may tell of a layer that is gzip by itself; without a length only the content says so.
    #[test]
    fn gzip_is_undone_once_if_it_is_there_twice() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let layer = gzip(&plain);
        let by = |bytes: &[u8], chunk| decoded_by(Decoding::GzipOfGzip, bytes, chunk).unwrap();
        for chunk in [1, 7, 4096, usize::MAX] {
            assert!(by(&layer, chunk) == layer && by(&gzip(&layer), chunk) == layer, "{chunk}");
            for short in [&b""[..], b"x", b"no gzip at all", &layer[..5], &gzip(b"")] {
                assert_eq!(by(short, chunk), short, "{chunk}");
            }
        }
        // A name in the header that never ends.
        let endless = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..], &[b'a'; 300_000]].concat();
        assert!(by(&endless, 5000) == endless);
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_in_any_chunks(
            one in prop::collection::vec(any::<u8>(), 0..5000), two in "[ab]{0,3000}", chunk in 1_usize..3000,
        ) {
            let both = [one.as_slice(), two.as_bytes()].concat();
            let members = [gzip(&one), gzip(two.as_bytes())].concat();
            prop_assert_eq!(&decoded(&members, chunk, true).unwrap(), &both);
            prop_assert_eq!(&decoded(&both, chunk, false).unwrap(), &both);
        }
    }
}
