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

/// The bytes of a body without its encoding, in pieces of limited size.
pub(super) struct Decoded {
    pending: Bytes,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
}

impl Decoded {
    /// For a body that is compressed with gzip, or not at all.
    pub(super) fn new(is_gzip: bool) -> Self {
        let gzip = is_gzip.then(|| MultiGzDecoder::new(Vec::new()));
        Self { pending: Bytes::new(), gzip }
    }

    /// Whether a compression is undone.
    pub(super) fn is_gzip(&self) -> bool {
        self.gzip.is_some()
    }

    /// Takes the next bytes that came, when `next` has none left.
    pub(super) fn feed(&mut self, chunk: Bytes) {
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
            gzip.write_all(&step)?;
            gzip.flush()?;
            let piece = std::mem::take(gzip.get_mut());
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        Ok(None)
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
        let (mut out, mut decoded) = (Vec::new(), Decoded::new(is_gzip));
        for chunk in bytes.chunks(chunk) {
            decoded.feed(Bytes::copy_from_slice(chunk));
            while let Some(piece) = decoded.next()? {
                assert!(!is_gzip || piece.len() <= 2 << 20, "{}", piece.len());
                out.extend_from_slice(&piece);
            }
        }
        Ok(out)
    }

    #[test]
    fn a_body_that_inflates_a_lot_comes_in_pieces() {
        let zeros = vec![0; 40 << 20];
        assert!(decoded(&gzip(&zeros), usize::MAX, true).unwrap() == zeros);
        decoded(b"not gzip at all", 4, true).unwrap_err();
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
