// SPDX-License-Identifier: Apache-2.0
//! Extended headers of tar: records of the form `length key=value\n`.
//!
//! The rule: records are split by their length and never by newlines, since values (capabilities,
//! above all) are binary.

use super::error::Error;

/// The fields that an extended header sets for the next entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, i64)>,
    /// Names without the `SCHILY.xattr.` before them.
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// `GNU.sparse.*`, in the order written, keys without that.
    pub(crate) sparse: Vec<(String, String)>,
}

/// Parses an extended header.
pub(crate) fn parse(mut bytes: &[u8], at: u64) -> Result<Pax, Error> {
    let malformed = |why: &'static str| Error::Malformed { at, why: why.into() };
    let mut pax = Pax::default();
    while !bytes.is_empty() {
        // Some writers fill up with NUL.
        if bytes.iter().all(|b| *b == 0) {
            break;
        }
        let space = bytes.iter().take(20).position(|b| *b == b' ');
        let space =
            space.ok_or_else(|| malformed("a record of an extended header has no length"))?;
        let length = number(&bytes[..space])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length > space + 2 && *length <= bytes.len())
            .ok_or_else(|| malformed("the length of a record of an extended header is wrong"))?;
        let (record, rest) = bytes.split_at(length);
        let Some((b'\n', record)) = record[space + 1..].split_last() else {
            return Err(malformed("a record of an extended header has no end"));
        };
        let equals = record.iter().position(|b| *b == b'=');
        let equals =
            equals.ok_or_else(|| malformed("a record of an extended header has no value"))?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if !take(&mut pax, &String::from_utf8_lossy(key), value) {
            return Err(malformed("a value of an extended header makes no sense"));
        }
        bytes = rest;
    }
    Ok(pax)
}

/// Sets the field of a key; false if the value is invalid. Unknown keys are ignored.
fn take(pax: &mut Pax, key: &str, value: &[u8]) -> bool {
    match key {
        "path" => pax.path = Some(value.to_vec()),
        "linkpath" => pax.link = Some(value.to_vec()),
        "size" => pax.size = number(value),
        "uid" => pax.uid = number(value),
        "gid" => pax.gid = number(value),
        "mtime" => pax.mtime = time(value),
        _ => {
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                pax.xattrs.push((name.to_owned(), value.to_vec()));
            } else if let Some(name) = key.strip_prefix("GNU.sparse.") {
                pax.sparse.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
            }
            return true;
        }
    }
    match key {
        "size" => pax.size.is_some(),
        "uid" => pax.uid.is_some(),
        "gid" => pax.gid.is_some(),
        "mtime" => pax.mtime.is_some(),
        _ => true,
    }
}

/// A decimal number, digits only.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Seconds and nanoseconds of `-12.5`.
fn time(bytes: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record as a writer makes it: the length counts its own digits.
    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_may_hold_any_byte() {
        let value = b"\x01\n12 path=evil\n\0=";
        let bytes =
            [record("SCHILY.xattr.security.capability", value), record("path", b"good")].concat();
        let pax = parse(&bytes, 0).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"good"[..]));
        assert_eq!(pax.xattrs, [("security.capability".to_owned(), value.to_vec())]);
    }

    #[test]
    fn times_have_parts_of_seconds_also_before_1970() {
        for (text, wanted) in [
            ("12", (12, 0)),
            ("12.5", (12, 500_000_000)),
            ("-1.25", (-2, 750_000_000)),
            ("-3", (-3, 0)),
        ] {
            assert_eq!(time(text.as_bytes()), Some(wanted), "{text}");
        }
        assert_eq!(time(b"1.x"), None);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bad in [
            &b"99 path=x\n"[..],
            b"3 a\n",
            b"path=x\n",
            b"0 path=x\n",
            b"9 path=xy\n",
            b"9 size=-1\n",
        ] {
            assert!(parse(bad, 0).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(path in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(&record("path", &path), 0).unwrap().path, Some(path));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = parse(&bytes, 0);
        }
    }
}
