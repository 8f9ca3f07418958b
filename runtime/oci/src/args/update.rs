// SPDX-License-Identifier: Apache-2.0
//! The options of `update`.

use crate::error::{Error, Result};
use hull_plan::{FurtherLimits, Limits};
use std::path::PathBuf;

/// The arguments of `update`.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) id: String,
    /// A document of `linux.resources`; `-` is stdin.
    pub(crate) file: Option<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) further: FurtherLimits,
    /// A limit of kernel memory is among them, which is ignored with a warning.
    pub(crate) kernel_memory: bool,
}

impl Update {
    /// Takes an option by its name.
    pub(crate) fn take(&mut self, name: &str, value: String) -> Result<()> {
        let limits = &mut self.limits;
        match name {
            "resources" => self.file = Some(value.into()),
            "blkio-weight" => {
                // As in a spec, 0 is none.
                limits.io_weight = Some(number(name, &value)?).filter(|weight| *weight != 0);
            }
            "cpu-period" => limits.cpu_period_us = Some(number(name, &value)?),
            "cpu-quota" => limits.cpu_quota_us = Some(number(name, &value)?),
            "cpu-burst" => limits.cpu_burst_us = Some(number(name, &value)?),
            "cpu-share" => limits.cpu_shares = Some(number(name, &value)?),
            "cpu-idle" => limits.cpu_idle = Some(zero_or_one(name, &value)?),
            "cpu-rt-period" => self.further.realtime_period_us = Some(number(name, &value)?),
            "cpu-rt-runtime" => self.further.realtime_runtime_us = Some(number(name, &value)?),
            "kernel-memory" | "kernel-memory-tcp" => {
                self.kernel_memory |= bytes(name, &value)? != 0
            }
            "cpuset-cpus" => limits.cpuset_cpus = Some(value),
            "cpuset-mems" => limits.cpuset_mems = Some(value),
            "memory" => limits.memory_bytes = Some(bytes(name, &value)?),
            "memory-reservation" => limits.memory_reservation_bytes = Some(bytes(name, &value)?),
            "memory-swap" => limits.memory_swap_bytes = Some(bytes(name, &value)?),
            // As in a spec: 0 is the fewest that there can be.
            "pids-limit" => {
                limits.pids =
                    Some(number(name, &value)?).map(|most| if most == 0 { 1 } else { most })
            }
            name => return Err(Error::Usage { what: format!("there is no option `--{name}`") }),
        }
        Ok(())
    }
}

fn zero_or_one(name: &str, value: &str) -> Result<bool> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Error::Usage { what: format!("--{name} is 0 or 1, not `{value}`") }),
    }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N> {
    let wrong = |_| Error::Usage { what: format!("`{value}` is not a number for --{name}") };
    value.parse().map_err(wrong)
}

/// With k, m or g behind it, as runc takes it.
fn bytes(name: &str, value: &str) -> Result<i64> {
    let lower = value.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b');
    let (digits, shift) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 10),
        Some('m') => (&digits[..digits.len() - 1], 20),
        Some('g') => (&digits[..digits.len() - 1], 30),
        _ => (digits, 0),
    };
    let count: i64 = number(name, digits)?;
    let product = count.checked_mul(1 << shift);
    product.ok_or_else(|| Error::Usage { what: format!("`{value}` is too much for --{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in [("5", 5), ("2k", 2048), ("3M", 3 << 20), ("1gb", 1 << 30), ("-1", -1)]
        {
            assert_eq!(bytes("memory", text).unwrap(), size, "{text}");
        }
        for text in ["", "m", "1x", "9223372036854775807k"] {
            bytes("memory", text).unwrap_err();
        }
    }
}
