// SPDX-License-Identifier: Apache-2.0
//! Which part of an object a response has: `Content-Range`, RFC 9110, 14.4.
//!
//! Pure. The rule: a part counts only if it says where it begins. Servers that refuse parts answer in many ways; for all
//! of them the whole is requested.

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

/// A part, and the size of the whole if the response states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    start: u64,
    whole: Option<u64>,
}

/// How many bytes at the beginning of a response are among the first `received` ones of an object of `size` bytes, when
/// the rest was requested. `None` if the response is neither the rest nor the whole.
pub(super) fn known(response: &Response, received: u64, size: u64) -> Option<u64> {
    let header = response.headers().get(CONTENT_RANGE);
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let part = header.and_then(|of| parse(of.to_str().ok()?))?;
        if part.whole.is_some_and(|whole| whole != size) {
            return None;
        }
        return received.checked_sub(part.start);
    }
    // The whole, because the server does not know parts.
    let is_whole = header.is_none() && response.content_length().is_none_or(|of| of == size);
    is_whole.then_some(received)
}

/// Whether a response says that it is a part of an object of this size: then it is one of the layer as it is stored,
/// also where the storage calls a compressed layer encoded.
pub(super) fn is_part_of(response: &Response, size: u64) -> bool {
    let header = response.headers().get(CONTENT_RANGE).and_then(|of| parse(of.to_str().ok()?));
    response.status() == StatusCode::PARTIAL_CONTENT
        && header.is_some_and(|part| part.whole == Some(size))
}

/// Where the part of a response begins, if it says so.
pub(super) fn start(response: &Response) -> Option<u64> {
    let header = response.headers().get(CONTENT_RANGE)?;
    parse(header.to_str().ok()?).map(|part| part.start)
}

/// Parses the value of a `Content-Range` header; `None` if it does not say which bytes these are.
pub(super) fn parse(text: &str) -> Option<Part> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, whole) = rest.trim().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (start.trim().parse::<u64>().ok()?, end.trim().parse::<u64>().ok()?);
    let whole = match whole.trim() {
        "*" => None,
        number => Some(number.parse::<u64>().ok()?),
    };
    let is_good =
        unit.eq_ignore_ascii_case("bytes") && start <= end && whole.is_none_or(|whole| end < whole);
    is_good.then_some(Part { start, whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_says_where_it_begins() {
        let part = |start, whole| Some(Part { start, whole });
        for (text, wanted) in [
            ("bytes 5-9/10", part(5, Some(10))),
            ("Bytes  5-9/*", part(5, None)),
            ("bytes 5 - 9 / 10", part(5, Some(10))),
            ("bytes 5-9", None),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("bytes */10", None),
            ("bytes -5/10", None),
            ("bytes 99999999999999999999-99999999999999999999/*", None),
            ("items 5-9/10", None),
            ("", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "\\PC{0,40}") {
            let _any = parse(&text);
        }
    }
}
