// SPDX-License-Identifier: Apache-2.0
//! Chooses the image of an index for this machine.
//!
//! Pure: [`Machine`] is a value, found once.

use serde::Deserialize;

/// An operating system and a processor architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

impl Platform {
    pub(super) fn shown(&self) -> String {
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => {
                format!("{}/{}/{variant}", self.os, self.architecture)
            }
            _ => format!("{}/{}", self.os, self.architecture),
        }
    }
}

/// The platforms that run on this machine, best first.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    architecture: String,
    /// Variants that run here, best first. The empty one stands for "not said".
    variants: Vec<&'static str>,
}

impl Machine {
    /// The platforms of this machine.
    pub(crate) fn this() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::of(architecture, level())
    }

    fn of(architecture: &str, level: u8) -> Self {
        let variants: &[&'static str] = match (architecture, level) {
            ("amd64", 3..) => &["v3", "v2", "", "v1"],
            ("amd64", 2) => &["v2", "", "v1"],
            ("amd64", _) => &["", "v1"],
            ("arm64", _) => &["v8", ""],
            ("arm", _) => &["v7", "", "v6", "v5"],
            _ => &[""],
        };
        Self { architecture: architecture.to_owned(), variants: variants.to_vec() }
    }

    /// The rank of a platform: lower is better, `None` does not run here.
    pub(crate) fn rank(&self, platform: &Platform) -> Option<usize> {
        if platform.os != "linux" || platform.architecture != self.architecture {
            return None;
        }
        let variant = platform.variant.as_deref().unwrap_or_default();
        self.variants.iter().position(|known| *known == variant)
    }

    /// The item with the best platform.
    pub(crate) fn best<'a, T>(&self, of: impl Iterator<Item = (&'a Platform, T)>) -> Option<T> {
        of.filter_map(|(platform, item)| Some((self.rank(platform)?, item)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, item)| item)
    }

    /// The platform for messages, such as `linux/amd64`.
    pub(crate) fn shown(&self) -> String {
        format!("linux/{}", self.architecture)
    }
}

/// The micro-architecture level of x86-64.
#[cfg(target_arch = "x86_64")]
fn level() -> u8 {
    let has = |second: bool, third: bool| if third { 3 } else { u8::from(second) + 1 };
    let second = std::arch::is_x86_feature_detected!("sse4.2")
        && std::arch::is_x86_feature_detected!("popcnt");
    let third = second
        && std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("movbe");
    has(second, third)
}

#[cfg(not(target_arch = "x86_64"))]
fn level() -> u8 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    fn best(machine: &Machine, of: &[&'static str]) -> Option<&'static str> {
        let parsed: Vec<(Platform, &str)> = of.iter().map(|text| (platform(text), *text)).collect();
        machine.best(parsed.iter().map(|(platform, text)| (platform, *text)))
    }

    #[test]
    fn the_best_variant_that_runs_here_is_taken() {
        let old = Machine::of("amd64", 1);
        assert_eq!(
            best(&old, &["linux/amd64/v3", "linux/amd64", "linux/arm64"]),
            Some("linux/amd64")
        );
        let new = Machine::of("amd64", 3);
        assert_eq!(best(&new, &["linux/amd64", "linux/amd64/v3"]), Some("linux/amd64/v3"));
        let arm = Machine::of("arm", 0);
        assert_eq!(
            best(&arm, &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"]),
            Some("linux/arm/v6")
        );
        let arm64 = Machine::of("arm64", 0);
        assert_eq!(best(&arm64, &["linux/arm64", "linux/arm64/v8"]), Some("linux/arm64/v8"));
    }

    #[test]
    fn another_system_is_no_choice() {
        let machine = Machine::of("amd64", 1);
        assert_eq!(best(&machine, &["windows/amd64", "linux/s390x", "linux/amd64/v4"]), None);
    }
}
