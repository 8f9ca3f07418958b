// SPDX-License-Identifier: Apache-2.0
//! Sizes with units: `64m`, `1.5g`, `1Gi`, `512 KiB`, `1048576`. Pure.

use serde::de::{self, Deserializer, Visitor};
use std::fmt;

/// Parses a size in bytes. Units are powers of 1024, in any case, with or without `i` and `b`. The error is a sentence
/// without its subject.
pub(crate) fn parse(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let ends = ["ib", "i", "b"];
    let letter = ends.iter().find_map(|end| unit.strip_suffix(end)).unwrap_or(&unit);
    let scale: u128 = match letter {
        "" if unit != "i" && unit != "ib" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err("its unit is none of k, m, g, t"),
    };
    let bytes = decimal(number, scale).ok_or("it is not a size such as 64m or 1.5g")?;
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
    from.deserialize_any(Size)
}

struct Size;

impl Visitor<'_> for Size {
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
