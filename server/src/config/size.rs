// SPDX-License-Identifier: Apache-2.0
//! Sizes in bytes with units, as people write them: `64m`, `1.5g`, `1Gi`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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

    /// Parses `64m`, `1.5g`, `1048576`. Units are powers of 1024; `mb`, `Mi` and `MiB` are accepted, too.
    ///
    /// # Errors
    /// The reason, as a sentence that begins with "it" or "its".
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.to_ascii_lowercase();
        let letter = ["ib", "b", "i"].iter().find_map(|end| unit.strip_suffix(*end));
        let letter = letter.unwrap_or(&unit);
        let known = UNITS.iter().find(|(name, _)| *name == letter);
        let scale = match known {
            Some((_, scale)) => *scale,
            None if unit.is_empty() || unit == "b" => 1,
            None => return Err("its unit is none of k, m, g, t"),
        };
        let bytes =
            decimal(number, u128::from(scale)).ok_or("it is not a size such as 64m or 1.5g")?;
        // Where sizes go, numbers have a sign.
        match i64::try_from(bytes).map(u64::try_from) {
            Ok(Ok(bytes)) if bytes > 0 => Ok(Self(bytes)),
            Ok(_) => Err("it must be more than 0"),
            Err(_) => Err("it is too large"),
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
        let text = String::deserialize(from)?;
        let shown = hull_sys::text::shown(&text, 80);
        Self::parse(&text).map_err(|why| D::Error::custom(format!("`{shown}`: {why}")))
    }
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
        for text in ["", "m", "i", "ib", "0", "1x", "-1", "1.2.3", "9999999999999t", "1 m"] {
            Size::parse(text).unwrap_err();
        }
    }
}
