// SPDX-License-Identifier: Apache-2.0
//! Sizes in bytes with units, as people write them: `64m`, `1.5g`, `1Gi`, `512 KiB`, `1048576`. Pure.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// The units, the largest first.
const UNITS: [(&str, u64); 4] = [("t", 1 << 40), ("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)];

/// A number of bytes, more than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u64);

/// Smallest limit of a writable layer: places for mounts and a few files fit.
pub(crate) const LAYER_MIN: Size = Size::of(1 << 20);

impl Size {
    /// A size of so many bytes.
    pub(crate) const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }

    /// Parses a size as [`parse`] does, which must be more than 0.
    ///
    /// # Errors
    /// The reason, as a sentence that begins with "it" or "its".
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match parse(text)? {
            0 => Err("it must be more than 0"),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// Formats as [`Size::parse`] reads it, exactly.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match deserialize(from)? {
            0 => Err(de::Error::custom("it must be more than 0")),
            bytes => Ok(Self(bytes)),
        }
    }
}

const MALFORMED: &str = "it is not a size such as 64m or 1.5g";

/// Parses a size in bytes. Units are powers of 1024, in any case, with or without `i` and `b`. The error is a sentence
/// without its subject.
pub(crate) fn parse(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if text.starts_with('-') {
        return Err("it is less than 0");
    }
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(MALFORMED);
    }
    let unit = unit.trim_start().to_ascii_lowercase();
    let ends = ["ib", "i", "b"];
    let letter = ends.iter().find_map(|end| unit.strip_suffix(end)).unwrap_or(&unit);
    let known = UNITS.iter().find(|(name, _)| *name == letter);
    let scale = match known {
        Some((_, scale)) => u128::from(*scale),
        None if unit.is_empty() || unit == "b" => 1,
        None => return Err("its unit is none of k, m, g, t"),
    };
    let bytes = decimal(number, scale).ok_or(MALFORMED)?;
    // TOML and CRI have 64 bits with a sign.
    i64::try_from(bytes).ok().and_then(|bytes| u64::try_from(bytes).ok()).ok_or("it is too large")
}

/// Parses a decimal number, and multiplies it by `scale`, rounded down. At most 15 digits on either side of the point.
pub(crate) fn decimal(text: &str, scale: u128) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let fits = |digits: &str| digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !fits(whole) || !fits(part) {
        return None;
    }
    let number =
        |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let below = 10_u128.pow(u32::try_from(part.len()).ok()?);
    Some(number(whole)? * scale + number(part)? * scale / below)
}

/// Reads a setting that is a number of bytes, or a text with a unit.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Bytes)
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of bytes, or a size such as \"64m\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::custom("it is less than 0"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_shown_as_it_is_read() {
        for (text, bytes, shown) in [
            ("64m", 64 << 20, "64m"),
            ("1Gi", 1 << 30, "1g"),
            ("1024k", 1 << 20, "1m"),
            ("1000", 1000, "1000"),
            ("7b", 7, "7"),
            ("1.5k", 1536, "1536"),
        ] {
            let size = Size::parse(text).unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown), "{text}");
            assert_eq!(Size::parse(shown), Ok(size));
        }
        for text in ["", "m", "i", "ib", "0", "1x", "-1", "1.2.3", "9999999999999t", "1 m m"] {
            Size::parse(text).unwrap_err();
        }
    }

    #[test]
    fn units_are_powers_of_1024_however_they_are_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("1Gi", 1 << 30),
            ("2tb", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "1x", "1ii", "1i", "-1", "1.2.3m", "99999999t", "1 m m"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
