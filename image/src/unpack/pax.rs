// SPDX-License-Identifier: Apache-2.0
//! Extended headers of tar: records of the form `length key=value\n`.
//!
//! The rule: records are split by their length and never by newlines, since values (capabilities,
//! above all) are binary.

use super::error::Error;
use std::collections::BTreeMap;

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
    pub(crate) xattrs: Vec<Xattr>,
    /// `GNU.sparse.*`, in the order written, keys without that.
    pub(crate) sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The longest name that a global header may give to all entries. Each of them has a copy.
const GLOBAL_NAME_BYTES_MAX: usize = 4096;

impl Pax {
    /// The fields that a global header sets for all entries, which have a bounded size. Attributes and sparse maps are
    /// of one file; kept for all of them they would cost any amount.
    pub(crate) fn into_global(self, at: u64) -> Result<Self, Error> {
        let names = self.path.iter().chain(&self.link);
        if names.into_iter().any(|name| name.len() > GLOBAL_NAME_BYTES_MAX) {
            let why = "a global header has a name that is too long".into();
            return Err(Error::Malformed { at, why });
        }
        Ok(Self { xattrs: Vec::new(), sparse: Vec::new(), ..self })
    }
}

/// An extended attribute: name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Parses an extended header. `global` is of the header for all entries, whose fields those of this one replace; an
/// empty value takes a field back to that of the entry's own header (`pax(1)`, "pax Extended Header").
pub(crate) fn parse(mut bytes: &[u8], at: u64, global: &Pax) -> Result<Pax, Error> {
    let malformed = |why: &str| Error::Malformed { at, why: why.into() };
    let mut pax = global.clone();
    let mut xattrs = BTreeMap::new();
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
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            xattrs.insert(name, value);
        } else if !take(&mut pax, key, value) {
            let key = key.escape_ascii();
            return Err(malformed(&format!("`{key}` of an extended header has an invalid value")));
        }
        bytes = rest;
    }
    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    pax.xattrs = xattrs.into_iter().map(owned).collect();
    Ok(pax)
}

/// Sets the field of a key; false if the value is invalid. Unknown keys are ignored.
fn take(pax: &mut Pax, key: &[u8], value: &[u8]) -> bool {
    match key {
        b"path" => set(&mut pax.path, value, name),
        b"linkpath" => set(&mut pax.link, value, name),
        b"size" => set(&mut pax.size, value, number),
        b"uid" => set(&mut pax.uid, value, number),
        b"gid" => set(&mut pax.gid, value, number),
        b"mtime" => set(&mut pax.mtime, value, time),
        _ => {
            if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                pax.sparse.push((name.to_vec(), value.to_vec()));
            }
            true
        }
    }
}

fn set<T>(field: &mut Option<T>, value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> bool {
    *field = parse(value);
    value.is_empty() || field.is_some()
}

fn name(bytes: &[u8]) -> Option<Vec<u8>> {
    (!bytes.is_empty() && !bytes.contains(&0)).then(|| bytes.to_vec())
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
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    if !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = nine.parse().ok()?;
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
        let pax = parse(&bytes, 0, &Pax::default()).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"good"[..]));
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), value.to_vec())]);
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
        for bad in [&b"1.x"[..], b".5", b"", b"-", b"+1", b"1e3", b"--1"] {
            assert_eq!(time(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn an_empty_value_takes_a_field_back_and_the_rest_stays_global() {
        let global = [record("uid", b"7"), record("mtime", b"5"), record("path", b"all")].concat();
        let global = parse(&global, 0, &Pax::default()).unwrap();
        let own = [record("uid", b""), record("mtime", b"6"), record("SCHILY.xattr.user.a", b"")];
        let pax = parse(&own.concat(), 0, &global).unwrap();
        assert_eq!((pax.uid, pax.mtime), (None, Some((6, 0))));
        assert_eq!(pax.path.as_deref(), Some(&b"all"[..]));
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), Vec::new())]);
    }

    #[test]
    fn a_global_header_costs_no_more_than_its_own_fields() {
        let mut global = Pax::default();
        for number in 0..100 {
            let name = format!("SCHILY.xattr.user.{number}");
            let bytes = [
                record(&name, &[b'x'; 1000]),
                record("GNU.sparse.offset", b"1"),
                record("GNU.sparse.map", &[b'0'; 1000]),
                record("gid", b"7"),
            ];
            global = parse(&bytes.concat(), 0, &global).unwrap().into_global(0).unwrap();
        }
        assert_eq!(global, Pax { gid: Some(7), ..Pax::default() });
        for (key, is_good) in [("path", 4096), ("linkpath", 4096)] {
            for (length, is_taken) in [(is_good, true), (is_good + 1, false)] {
                let parsed = parse(&record(key, &vec![b'a'; length]), 0, &Pax::default());
                assert_eq!(parsed.unwrap().into_global(0).is_ok(), is_taken, "{key} {length}");
            }
        }
    }

    #[test]
    fn an_attribute_that_comes_again_has_the_last_value_and_many_take_no_time() {
        let many: Vec<u8> = (0..60_000_u32)
            .flat_map(|number| {
                record(&format!("SCHILY.xattr.{}", number % 30_000), &number.to_be_bytes())
            })
            .collect();
        let pax = parse(&many, 0, &Pax::default()).unwrap();
        assert_eq!(pax.xattrs.len(), 30_000);
        assert!(pax.xattrs.contains(&(b"7".to_vec(), 30_007_u32.to_be_bytes().to_vec())));
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bad in [
            &b"99 path=x\n"[..],
            b"3 a\n",
            b"path=x\n",
            b"0 path=x\n",
            b"9 path=xy\n",
            b"11 size=-1\n",
            b"11 path=a\0\n",
            b"9 uid=+1\n",
        ] {
            assert!(parse(bad, 0, &Pax::default()).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(path in proptest::collection::vec(1_u8.., 1..200)) {
            let parsed = parse(&record("path", &path), 0, &Pax::default()).unwrap();
            prop_assert_eq!(parsed.path, Some(path));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = parse(&bytes, 0, &Pax::default());
        }
    }
}
