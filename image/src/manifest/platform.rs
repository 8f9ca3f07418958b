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
    /// Features that the system must have, such as `erofs` (image-spec, image-index.md). Hull asks only whether
    /// there are some.
    #[serde(default, rename = "os.features")]
    pub(crate) features: Option<serde_json::Value>,
}

/// The words of builders for a manifest that is not an image, such as an attestation.
const UNKNOWN: &str = "unknown";

impl Platform {
    /// Whether neither system nor architecture are stated.
    pub(super) fn is_unsaid(&self) -> bool {
        self.os.is_empty() || self.architecture.is_empty()
    }

    /// Whether it names features of the system. Hull has none of those that are in use on Linux.
    pub(super) fn has_features(&self) -> bool {
        self.features
            .as_ref()
            .and_then(serde_json::Value::as_array)
            .is_some_and(|of| !of.is_empty())
    }

    /// Whether two platforms are the same, whichever way their architectures are spelled. Variants are not compared.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (Spelled::of(self), Spelled::of(other)) {
            (Some(one), Some(other)) => {
                (one.os, one.architecture) == (other.os, other.architecture)
            }
            (None, _) | (_, None) => self == other,
        }
    }

    /// Whether it is that of a manifest that is not an image.
    pub(super) fn is_of_none(&self) -> bool {
        self.os == UNKNOWN && self.architecture == UNKNOWN
    }

    pub(crate) fn shown(&self) -> String {
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => {
                format!("{}/{}/{variant}", self.os, self.architecture)
            }
            _ => format!("{}/{}", self.os, self.architecture),
        }
    }
}

/// A platform with its spelling normalized, as containerd does: `x86_64` is `amd64`, `aarch64` is `arm64`.
struct Spelled {
    os: String,
    architecture: &'static str,
    variant: String,
}

impl Spelled {
    /// None for an architecture that Hull does not run on.
    fn of(platform: &Platform) -> Option<Self> {
        let given = platform.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        // `8` stands for `v8`.
        let given = if given.starts_with(|first: char| first.is_ascii_digit()) {
            format!("v{given}")
        } else {
            given
        };
        let (architecture, variant) = match platform.architecture.to_ascii_lowercase().as_str() {
            "amd64" | "x86_64" | "x86-64" | "x64" => ("amd64", given),
            "arm64" | "aarch64" => ("arm64", given),
            "386" | "x86" | "i386" | "i486" | "i586" | "i686" => ("386", String::new()),
            "arm" => ("arm", given),
            "armhf" | "armv7l" | "armv7" => ("arm", "v7".to_owned()),
            "armel" | "armv6l" | "armv6" => ("arm", "v6".to_owned()),
            "ppc64le" | "ppc64el" | "powerpc64le" => ("ppc64le", given),
            "riscv64" | "riscv64gc" => ("riscv64", given),
            "s390x" => ("s390x", given),
            "loong64" | "loongarch64" => ("loong64", given),
            _ => return None,
        };
        // The first level of each is what its name alone means.
        let variant = match (architecture, variant.as_str()) {
            ("amd64", "v1") | ("arm64", "v8" | "v8.0") | ("arm", "v7") => String::new(),
            (_, other) => other.to_owned(),
        };
        Some(Self { os: platform.os.to_ascii_lowercase(), architecture, variant })
    }
}

/// The platforms that run on this machine, best first.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    architecture: &'static str,
    /// Architectures and variants that run here, best first. The empty variant is what the name alone means.
    platforms: Vec<(&'static str, &'static str)>,
}

impl Machine {
    /// The platforms of this machine.
    pub(crate) fn this() -> Self {
        let named = Platform {
            os: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            ..Platform::default()
        };
        Self::of(Spelled::of(&named).map_or(std::env::consts::ARCH, |of| of.architecture), level())
    }

    fn of(architecture: &'static str, level: u8) -> Self {
        let variants: &[&str] = match (architecture, level) {
            ("amd64", 4..) => &["v4", "v3", "v2", ""],
            ("amd64", 3) => &["v3", "v2", ""],
            ("amd64", 2) => &["v2", ""],
            ("arm", _) => &["", "v6", "v5"],
            _ => &[""],
        };
        let mut platforms: Vec<_> = variants.iter().map(|of| (architecture, *of)).collect();
        // The programs of 32 bits that these processors run too, as containerd does.
        let narrow: &[(&str, &str)] = match architecture {
            "amd64" => &[("386", "")],
            "arm64" => &[("arm", "v8"), ("arm", ""), ("arm", "v6"), ("arm", "v5")],
            _ => &[],
        };
        platforms.extend(narrow);
        Self { architecture, platforms }
    }

    /// The rank of a platform: lower is better, `None` does not run here.
    pub(crate) fn rank(&self, platform: &Platform) -> Option<usize> {
        let spelled = Spelled::of(platform).filter(|of| of.os == "linux")?;
        let is_same = |of: &(&str, &str)| *of == (spelled.architecture, spelled.variant.as_str());
        self.platforms.iter().position(is_same)
    }

    /// The platform for messages, such as `linux/amd64`.
    pub(crate) fn shown(&self) -> String {
        format!("linux/{}", self.architecture)
    }

    /// The best platform that runs here, such as `linux/amd64/v3`.
    pub(crate) fn best(&self) -> String {
        match self.platforms.first() {
            Some((architecture, variant)) if !variant.is_empty() => {
                format!("linux/{architecture}/{variant}")
            }
            _ => self.shown(),
        }
    }
}

/// The micro-architecture level of x86-64, from 1 to 4 (System V ABI, AMD64 supplement, section 3.1.1).
#[cfg(target_arch = "x86_64")]
fn level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let levels = [
        has!("cmpxchg16b")
            && has!("popcnt")
            && has!("sse3")
            && has!("sse4.1")
            && has!("sse4.2")
            && has!("ssse3"),
        has!("avx")
            && has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("f16c")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe"),
        has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl"),
    ];
    let reached = levels.iter().take_while(|has| **has).count();
    u8::try_from(reached).map_or(1, |reached| reached + 1)
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
            ..Platform::default()
        }
    }

    fn best(machine: &Machine, of: &[&'static str]) -> Option<&'static str> {
        let ranked = of.iter().filter_map(|text| Some((machine.rank(&platform(text))?, *text)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, text)| text)
    }

    #[test]
    fn the_best_variant_that_runs_here_is_taken() {
        let all =
            ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4", "linux/386"];
        for (level, wanted) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
            let machine = Machine::of("amd64", level);
            assert_eq!(best(&machine, &all), Some(all[wanted]), "{level}");
            assert_eq!(machine.best(), all[wanted]);
        }
        assert_eq!(best(&Machine::of("amd64", 3), &["linux/386", "linux/arm"]), Some("linux/386"));
        let arm = Machine::of("arm", 0);
        assert_eq!(
            best(&arm, &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"]),
            Some("linux/arm/v6")
        );
        let arm64 = Machine::of("arm64", 0);
        assert_eq!(best(&arm64, &["linux/arm/v7", "linux/arm64/v8"]), Some("linux/arm64/v8"));
        assert_eq!(best(&arm64, &["linux/arm/v7", "linux/arm64/v9"]), Some("linux/arm/v7"));
    }

    #[test]
    fn every_spelling_of_a_platform_is_known() {
        let (amd64, arm64) = (Machine::of("amd64", 3), Machine::of("arm64", 0));
        for of in ["linux/x86_64", "linux/x86-64", "Linux/AMD64", "linux/amd64/v1", "linux/amd64/3"]
        {
            assert!(amd64.rank(&platform(of)).is_some(), "{of}");
            assert!(arm64.rank(&platform(of)).is_none(), "{of}");
        }
        for of in ["linux/aarch64", "linux/arm64/8", "linux/arm64/v8", "linux/ARM64/V8"] {
            assert_eq!(arm64.rank(&platform(of)), Some(0), "{of}");
        }
        for of in ["linux/armhf", "linux/arm/7", "linux/arm"] {
            assert_eq!(Machine::of("arm", 0).rank(&platform(of)), Some(0), "{of}");
        }
    }

    #[test]
    fn another_system_is_no_choice() {
        let machine = Machine::of("amd64", 1);
        let others =
            ["windows/amd64", "linux/s390x", "linux/amd64/v4", "linux/amd64/v2", "/", "linux/"];
        assert_eq!(best(&machine, &others), None);
    }
}
