// SPDX-License-Identifier: Apache-2.0
//! Encodes netlink attributes, and decodes text attributes.

use netlink_packet_core::NlasIterator;

/// A sequence of encoded netlink attributes.
#[derive(Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // The kernel rejects a longer one as malformed; callers stay below the limit.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub fn nested(self, kind: u16, inner: Self) -> Self {
        const NESTED: u16 = 0x8000;
        self.bytes(kind | NESTED, &inner.0)
    }

    /// A list of attributes of the same kind.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        const ELEMENT: u16 = 1;
        items.into_iter().fold(Self::default(), |list, item| list.nested(ELEMENT, item))
    }
}

impl AsRef<[u8]> for Attributes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The text of the first attribute of this kind.
pub(crate) fn text(attributes: &[u8], kind: u16) -> Option<String> {
    NlasIterator::new(attributes).map_while(|found| found.ok()).find(|one| one.kind() == kind).map(
        |one| {
            let value = one.value();
            String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_big_endian() {
        let inner = Attributes::default().number(2, 0x0102_0304).text(1, "hull");
        let bytes = Attributes::default().nested(3, inner).as_ref().to_vec();
        let mut expected = Vec::new();
        expected.extend(24_u16.to_ne_bytes());
        expected.extend(0x8003_u16.to_ne_bytes());
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(2_u16.to_ne_bytes());
        expected.extend([1, 2, 3, 4]);
        expected.extend(9_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(*b"hull\0\0\0\0");
        assert_eq!(bytes, expected);
    }
}
