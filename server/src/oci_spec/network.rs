// SPDX-License-Identifier: Apache-2.0
//! A pod's network settings: bandwidth by annotations, and DNS.

use super::Error;
use hull_network::{Bandwidth, Dns};
use hull_proto::cri;
use std::collections::HashMap;

/// Annotations of Kubernetes that limit a pod's rates, as quantities of bits per second.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Rates that Kubernetes' own check lets through, in bits per second.
const RATES: std::ops::RangeInclusive<u128> = 1_000..=1_000_000_000_000_000;

/// The rates that the pod's annotations name.
pub(crate) fn bandwidth(annotations: &HashMap<String, String>) -> Result<Bandwidth, Error> {
    let rate = |name: &'static str| annotations.get(name).map(|text| bits(name, text)).transpose();
    Ok(Bandwidth { ingress_bits: rate(INGRESS)?, egress_bits: rate(EGRESS)? })
}

/// The pod's resolver settings.
pub(crate) fn dns(config: &cri::PodSandboxConfig) -> Dns {
    let of = config.dns_config.clone().unwrap_or_default();
    Dns { servers: of.servers, searches: of.searches, options: of.options }
}

fn bits(field: &'static str, text: &str) -> Result<u64, Error> {
    let bad = |why| Error::Bad { field, value: text.chars().take(64).collect(), why };
    let rate = quantity(text).ok_or_else(|| bad("it is not a quantity such as 10M"))?;
    if !RATES.contains(&rate) {
        return Err(bad("a rate is from 1k to 1P bits per second"));
    }
    u64::try_from(rate).map_err(|_| bad("it is too large"))
}

/// A quantity as Kubernetes writes them (`10M`, `1.5Gi`, `2e6`), rounded up to a whole number. Negative
/// ones and ones of more than 30 digits are none.
pub(super) fn quantity(text: &str) -> Option<u128> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, suffix) = text.split_at(digits.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 15 || fraction.len() > 15 {
        return None;
    }
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let (times, over) = match suffix {
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (10_u128.pow(3), 1),
        "M" => (10_u128.pow(6), 1),
        "G" => (10_u128.pow(9), 1),
        "T" => (10_u128.pow(12), 1),
        "P" => (10_u128.pow(15), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let exponent: u32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
            (10_u128.checked_pow(exponent).filter(|_| exponent <= 18)?, 1)
        }
    };
    Some(mantissa.checked_mul(times)?.div_ceil(scale * over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, value) in [
            ("10M", 10_000_000),
            ("1.5k", 1500),
            ("1Mi", 1 << 20),
            ("2e6", 2_000_000),
            ("1E3", 1000),
            ("1500m", 2),
            ("0.5Gi", 1 << 29),
            ("7", 7),
        ] {
            assert_eq!(quantity(text), Some(value), "{text}");
        }
        for text in ["", "M", "-1M", "1X", "1e99", "1 M", "1.2.3", "9999999999999999999999", "1e-3"]
        {
            assert_eq!(quantity(text), None, "{text}");
        }
    }

    #[test]
    fn a_rate_is_named_when_it_makes_no_sense() {
        let of = |text: &str| bandwidth(&HashMap::from([(INGRESS.to_owned(), text.to_owned())]));
        assert_eq!(of("10M").unwrap().ingress_bits, Some(10_000_000));
        assert_eq!(of("10M").unwrap().egress_bits, None);
        for bad in ["10", "fast", "2e18"] {
            assert!(of(bad).unwrap_err().to_string().contains(INGRESS), "{bad}");
        }
    }
}
