// SPDX-License-Identifier: Apache-2.0
//! The section `[logs]`: limits, rotation and a second sink for the logs of containers.

use super::size::Size;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Smallest rate in bytes per second: less would not pass a line of the longest kind within seconds.
pub(crate) const RATE_MIN: Size = Size::of(1 << 10);
/// Smallest burst: a line of the longest kind and a notice have to pass.
pub(crate) const BURST_MIN: Size = Size::of(32 << 10);
/// Largest burst, and rate: beyond this there is nothing to limit.
pub(crate) const BURST_MAX: Size = Size::of(1 << 40);
/// The burst of a small rate that names none.
pub(crate) const BURST_DEFAULT: Size = Size::of(64 << 10);
/// Smallest limit on a file of a log.
pub(crate) const FILE_MIN: Size = Size::of(64 << 10);
/// Smallest file that is rotated: what a monitor writes at once fits.
const ROTATE_MIN: Size = Size::of(128 << 10);
/// Most files beside the current one.
const FILES_MAX: u32 = 100;

/// The section `[logs]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_limit: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<Size>,
    pub(crate) over_rate: OverRate,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size_max: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_size: Option<Size>,
    pub(crate) rotate_files: u32,
    pub(crate) journald: bool,
    pub(crate) journald_socket: PathBuf,
}

/// The treatment of output that exceeds the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OverRate {
    Drop,
    Wait,
}

impl OverRate {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Wait => "wait",
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            rate_limit: None,
            burst: None,
            over_rate: OverRate::Drop,
            size_max: None,
            rotate_size: None,
            rotate_files: 3,
            journald: false,
            journald_socket: "/run/systemd/journal/socket".into(),
        }
    }
}

/// Checks the values; the first that cannot be used is the error, with its key.
pub(super) fn validate(logs: &Logs) -> Result<(), (&'static str, String)> {
    within("logs.rate_limit", logs.rate_limit, RATE_MIN)?;
    within("logs.burst", logs.burst, BURST_MIN)?;
    within("logs.size_max", logs.size_max, FILE_MIN)?;
    within("logs.rotate_size", logs.rotate_size, ROTATE_MIN)?;
    if logs.burst.is_some() && logs.rate_limit.is_none() {
        return Err(("logs.burst", "it has no effect without `logs.rate_limit`".into()));
    }
    if let (Some(max), Some(rotate)) = (logs.size_max, logs.rotate_size)
        && max.bytes() / 2 < rotate.bytes()
    {
        let why = format!(
            "it must be at least twice `logs.rotate_size` ({rotate}): it is for a file that could not be rotated"
        );
        return Err(("logs.size_max", why));
    }
    if !(1..=FILES_MAX).contains(&logs.rotate_files) {
        let why = format!("{} is not within 1 to {FILES_MAX}", logs.rotate_files);
        return Err(("logs.rotate_files", why));
    }
    Ok(())
}

fn within(key: &'static str, size: Option<Size>, min: Size) -> Result<(), (&'static str, String)> {
    match size.filter(|size| !(min..=BURST_MAX).contains(size)) {
        Some(size) => Err((key, format!("{size} is not within {min} to {BURST_MAX}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_its_key() {
        let of = |text: &str| validate(&toml::from_str(text).unwrap()).map_err(|(key, _)| key);
        for good in [
            "",
            "rate_limit = '1m'",
            "rate_limit = '1k'\nburst = '32k'\nover_rate = 'wait'",
            "size_max = '2m'\nrotate_size = '1m'\nrotate_files = 1",
        ] {
            assert_eq!(of(good), Ok(()), "{good}");
        }
        for (bad, key) in [
            ("rate_limit = '1023'", "logs.rate_limit"),
            ("burst = '1m'", "logs.burst"),
            ("rate_limit = '1m'\nburst = '31k'", "logs.burst"),
            ("size_max = '1k'", "logs.size_max"),
            ("size_max = '1m'\nrotate_size = '1m'", "logs.size_max"),
            ("rotate_size = '64k'", "logs.rotate_size"),
            ("rotate_files = 0", "logs.rotate_files"),
            ("rotate_files = 101", "logs.rotate_files"),
        ] {
            assert_eq!(of(bad), Err(key), "{bad}");
        }
        assert!(toml::from_str::<Logs>("rate_limit = 'fast'").is_err());
        assert!(toml::from_str::<Logs>("over_rate = 'block'").is_err());
    }
}
