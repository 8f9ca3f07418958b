// SPDX-License-Identifier: Apache-2.0
//! Quantities of Kubernetes, as in `500m`, `1.5` or `64Mi`. Pure.
//!
//! The rule: a quantity is rounded up, so that a limit that is not 0 never becomes 0, which would mean no limit.

/// Most digits of a number: those of the largest whole number of 64 bits.
const DIGITS_MAX: usize = 19;

/// Parses a quantity into thousandths, rounded up.
///
/// # Errors
/// The sentence names the quantity and what is wrong with it.
pub(super) fn thousandths(text: &str) -> Result<u128, String> {
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative"));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let not_one = || format!("`{text}` is not a quantity such as 500m or 64Mi");
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.contains('.') {
        return Err(not_one());
    }
    let (times, per) = scale(suffix).ok_or_else(|| format!("`{text}`: {}", meant(suffix)))?;
    let significant = format!("{}{}", whole.trim_start_matches('0'), part.trim_end_matches('0'));
    if significant.len() > DIGITS_MAX {
        return Err(format!("`{text}` has more than {DIGITS_MAX} digits"));
    }
    let large = || format!("`{text}` is too large");
    let value =
        if significant.is_empty() { 0 } else { significant.parse().map_err(|_| not_one())? };
    let below = u32::try_from(part.trim_end_matches('0').len()).map_err(|_| large())?;
    let below = 10_u128.checked_pow(below).and_then(|of| of.checked_mul(per)).ok_or_else(large)?;
    let value: u128 = value;
    Ok(value.checked_mul(times).ok_or_else(large)?.div_ceil(below))
}

/// Parses a quantity of memory into bytes, rounded up.
///
/// # Errors
/// The sentence names the quantity and what is wrong with it, also if it is a part of a byte.
pub(super) fn bytes(text: &str) -> Result<u128, String> {
    let thousandths = thousandths(text)?;
    if (1..1000).contains(&thousandths) {
        let meant = match text.strip_suffix('m') {
            Some(number) => format!(": `m` is milli; `{number}Mi` is {number} MiB"),
            None => "; `64Mi` is 64 MiB".to_owned(),
        };
        return Err(format!("`{text}` of memory is a fraction of a byte{meant}"));
    }
    Ok(thousandths.div_ceil(1000))
}

/// The thousandths of a suffix, as a fraction.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000 << 60, 1),
        _ => return exponent(suffix),
    })
}

/// The thousandths of `e3` or `E-3`.
fn exponent(suffix: &str) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = power.checked_add(3).filter(|power| (-18..=21).contains(power))?;
    let scale = 10_u128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, scale) } else { (scale, 1) })
}

/// The sentence about a suffix that does not exist.
fn meant(suffix: &str) -> String {
    let lower = suffix.to_ascii_lowercase();
    let letter = lower.strip_suffix("ib").or(lower.strip_suffix('i')).or(lower.strip_suffix('b'));
    let upper = letter.unwrap_or(&lower).to_ascii_uppercase();
    if !matches!(upper.as_str(), "K" | "M" | "G" | "T" | "P" | "E") {
        return format!(
            "the suffix `{suffix}` is none of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei"
        );
    }
    if lower.contains('i') {
        return format!("the suffix is `{upper}i`");
    }
    let decimal = if upper == "K" { "k" } else { &upper };
    format!("the suffix is `{upper}i` for powers of 1024, or `{decimal}` for powers of 1000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_have_the_suffixes_of_kubernetes() {
        for (text, value) in [
            ("0", 0),
            ("0.0", 0),
            ("500m", 500),
            ("0.25", 250),
            ("1.5", 1500),
            (".5", 500),
            ("2.", 2000),
            ("64Mi", 64_000 << 20),
            ("1k", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("1e3", 1_000_000),
            ("5e-1", 500),
            ("0.0001", 1),
            ("1n", 1),
            ("1500u", 2),
            ("9223372036854775807", 9_223_372_036_854_775_807_000),
        ] {
            assert_eq!(thousandths(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn memory_is_whole_bytes_and_a_part_of_one_is_refused() {
        for (text, value) in [("0", 0), ("1", 1), ("1.5", 2), ("1500m", 2), ("0.1Mi", 104_858)] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        assert_eq!(
            bytes("100m").unwrap_err(),
            "`100m` of memory is a fraction of a byte: `m` is milli; `100Mi` is 100 MiB"
        );
        for text in ["0.4", "1m", "1n", "0.0001"] {
            assert!(bytes(text).unwrap_err().contains("fraction of a byte"), "{text}");
        }
    }

    #[test]
    fn a_quantity_that_is_none_says_what_is_wrong() {
        for (text, said) in [
            ("64MiB", "`64MiB`: the suffix is `Mi`"),
            ("1gi", "the suffix is `Gi`"),
            ("64MB", "the suffix is `Mi` for powers of 1024, or `M`"),
            ("1K", "the suffix is `Ki` for powers of 1024, or `k`"),
            ("1x", "the suffix `x` is none of m, k"),
            ("-1", "`-1` is negative"),
            ("", "not a quantity"),
            ("Mi", "not a quantity"),
            ("1.2.3", "not a quantity"),
            ("123456789012345678901", "more than 19 digits"),
            ("9999999999999999999E", "too large"),
        ] {
            let why = thousandths(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_nothing_but_zero_is_zero(text in "[0-9.]{0,30}[a-zA-Z0-9-]{0,4}") {
            let is_zero = !text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').any(|c| matches!(c, '1'..='9'));
            if let Ok(value) = thousandths(&text) {
                prop_assert_eq!(value == 0, is_zero, "{}", text);
            }
        }
    }
}
