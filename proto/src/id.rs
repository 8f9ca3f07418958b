// SPDX-License-Identifier: Apache-2.0
//! Ids of pods and containers: 64 lower-case hex digits, as in containerd and CRI-O.
//!
//! Every name on the host (network namespace, cgroup, link, socket, directory) is derived from
//! one of these, so a value of these types is safe in a path, a link name and a cgroup name.

use std::fmt;
use std::str::FromStr;

/// Digits of an id.
pub const ID_LEN: usize = 64;

/// The error for a text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not an id: ids are {ID_LEN} lower-case hex digits")]
pub struct BadId {
    shown: String,
}

fn check(text: &str) -> Result<(), BadId> {
    let good = text.len() == ID_LEN
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if good {
        return Ok(());
    }
    // What came in may be long or hold control characters; the message must stay one line.
    let shown = text.chars().take(ID_LEN).flat_map(char::escape_default).collect();
    Err(BadId { shown })
}

fn from_random(bytes: [u8; 32]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(ID_LEN), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, borsh::BorshSerialize)]
        pub struct $name(String);

        impl $name {
            /// Makes an id of 32 random bytes.
            #[must_use]
            pub fn from_random(bytes: [u8; 32]) -> Self {
                Self(from_random(bytes))
            }

            /// Parses a whole id.
            ///
            /// # Errors
            /// When the text is not 64 lower-case hex digits.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The 64 digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 11 digits: what fits a link name (IFNAMSIZ) behind a four-letter prefix.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.0[..11]
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl borsh::BorshDeserialize for $name {
            fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
                let text = String::deserialize_reader(reader)?;
                Self::parse(&text)
                    .map_err(|err| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, err))
            }
        }
    };
}

id! {
    /// The id of a pod.
    PodId
}
id! {
    /// The id of a container.
    ContainerId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_hex_is_an_id() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(PodId::parse(&good).unwrap().as_str(), good);
        for bad in ["", "abc", &good.to_uppercase(), &good[1..], "../../../../etc/passwd"] {
            PodId::parse(bad).unwrap_err();
        }
        PodId::parse(&format!("{}/", &good[1..])).unwrap_err();
    }

    #[test]
    fn random_bytes_make_an_id() {
        let id = ContainerId::from_random([0xa5; 32]);
        assert_eq!(ContainerId::parse(id.as_str()).unwrap(), id);
    }
}
