// SPDX-License-Identifier: Apache-2.0
//! Names the compression of bytes that are not a tar archive, for messages.
//!
//! Pure. Layers are plain, or compressed with gzip or zstd: the OCI image specification has no other media types.

/// The first bytes of formats that people compress layers with, and how each is called.
const FORMATS: [(&[u8], &str); 12] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4 (its old form)"),
    (b"BZh", "bzip2"),
    (b"\x5d\0\0", "lzma"),
    (b"LZIP", "lzip"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"PK\x03\x04", "zip"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"hsqs", "squashfs"),
];

/// The format that bytes begin with, if it is one that layers do not have.
pub(super) fn format_of(start: &[u8]) -> Option<&'static str> {
    FORMATS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::{Archive, Error};
    use hull_tests::layer::Layer;

    #[test]
    fn what_is_not_a_tar_archive_is_called_by_its_name() {
        for (magic, name) in FORMATS {
            for length in [magic.len(), 100, 5000] {
                let mut bytes = magic.to_vec();
                bytes.resize(length, 7);
                let err = Archive::new(bytes.as_slice()).next().unwrap_err();
                assert_eq!(err.to_string(), format!("it is not a tar archive but {name}"));
                assert!(err.is_archives_fault() && err.hint().unwrap().contains("gzip or zstd"));
            }
        }
        // A name may begin so, and only what is first says how a layer is compressed.
        let tar = Layer::new().file("PK\u{3}\u{4}", 0o644, "x").file("BZh", 0o644, "x").tar();
        let mut archive = Archive::new(tar.as_slice());
        assert!(archive.next().unwrap().is_some() && archive.next().unwrap().is_some());
        let mut broken = tar;
        broken[1024..1027].copy_from_slice(b"BZx");
        let mut archive = Archive::new(broken.as_slice());
        archive.next().unwrap();
        assert!(matches!(archive.next(), Err(Error::Malformed { .. })));
        broken[1024..1027].copy_from_slice(b"7z\xbc");
        assert!(Archive::new(&broken[..1200]).next().is_ok());
    }
}
