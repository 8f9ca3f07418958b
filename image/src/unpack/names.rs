// SPDX-License-Identifier: Apache-2.0
//! Names in a layer: cleaned, and distinguished from whiteouts.
//!
//! Pure. The rule: a cleaned name has no `..`, no empty part and no leading slash. An entry's own name that
//! climbs above the root is refused; where a link leads stops at the root, as it does when the kernel
//! resolves it in a container (`path_resolution(7)`: `..` of the root is the root).

/// The last part of a name, by its function in a layer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryName<'a> {
    /// A file of this name.
    Entry,
    /// `.wh.name`: hides `name` of the layers below.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: hides this directory of the layers below.
    Opaque,
    /// Other markers of aufs, which are ignored.
    Ignored,
}

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

const PART_BYTES_MAX: usize = 255;
const NAME_BYTES_MAX: usize = 4096 - 256;

/// Cleans a name. The root itself is empty. A leading slash means the layer's root, as everywhere.
pub(crate) fn clean(name: &[u8]) -> Result<Vec<u8>, Refused> {
    cleaned(&[], name, || Err(Refused("the name climbs out of the layer")))
}

/// Resolves the target of a link in the directory `beside`, as text, and cleans it.
pub(crate) fn target(beside: &[u8], target: &[u8]) -> Result<Vec<u8>, Refused> {
    let beside = if target.starts_with(b"/") { b"" } else { beside };
    cleaned(beside, target, || Ok(()))
}

fn cleaned(
    beside: &[u8],
    name: &[u8],
    at_root: impl Fn() -> Result<(), Refused>,
) -> Result<Vec<u8>, Refused> {
    if name.contains(&0) {
        return Err(Refused("the name contains NUL"));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in beside.split(|b| *b == b'/').chain(name.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    at_root()?;
                }
            }
            _ if part.len() > PART_BYTES_MAX => {
                return Err(Refused("a part of the name is too long"));
            }
            _ => parts.push(part),
        }
    }
    let clean = parts.join(&b'/');
    if clean.len() > NAME_BYTES_MAX {
        return Err(Refused("the name is too long"));
    }
    Ok(clean)
}

/// Splits a cleaned name into directory and last part.
pub(crate) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (b"", name),
    }
}

/// Distinguishes whiteouts from names of files, by the last part of a cleaned name.
pub(crate) fn classify(last: &[u8]) -> Result<EntryName<'_>, Refused> {
    match last.strip_prefix(b".wh.") {
        None => Ok(EntryName::Entry),
        Some(b".wh..opq") => Ok(EntryName::Opaque),
        Some(mark) if mark.starts_with(b".wh.") => Ok(EntryName::Ignored),
        Some(b"" | b"." | b"..") => Err(Refused("it would remove the directory that it is in")),
        Some(name) => Ok(EntryName::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned_and_never_climb() {
        for (name, wanted) in
            [("./a//b/.", "a/b"), ("/a", "a"), ("a/../b", "b"), ("", ""), ("./", ""), ("a/..", "")]
        {
            assert_eq!(clean(name.as_bytes()).unwrap(), wanted.as_bytes(), "{name}");
        }
        for bad in ["..", "../a", "a/../../b", "/..", "./../x", "a\0b"] {
            assert!(clean(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(clean(&[b'a'; 256]).is_err());
        assert!(clean(&b"abcdefg/".repeat(600)).is_err());
    }

    #[test]
    fn where_links_lead_stops_at_the_root() {
        for (beside, link, wanted) in [
            ("", "../../etc/passwd", "etc/passwd"),
            ("a/b", "../c", "a/c"),
            ("a/b", "../../../../c/../d", "d"),
            ("a/b", "/../c", "c"),
            ("a", "..", ""),
            ("a", "/", ""),
            ("a/b", "", "a/b"),
        ] {
            let got = target(beside.as_bytes(), link.as_bytes()).unwrap();
            assert_eq!(got, wanted.as_bytes(), "{beside} {link}");
        }
        assert!(target(b"a", b"x\0y").is_err() && target(b"a", &[b'a'; 256]).is_err());
    }

    #[test]
    fn marks_are_told_apart() {
        assert_eq!(classify(b"file"), Ok(EntryName::Entry));
        assert_eq!(classify(b".wh.file"), Ok(EntryName::Whiteout(b"file")));
        assert_eq!(classify(b".wh..wh..opq"), Ok(EntryName::Opaque));
        assert_eq!(classify(b".wh..wh.plnk"), Ok(EntryName::Ignored));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(classify(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_cleaned_name_is_inside(name in "[a./]{0,30}") {
            for clean in clean(name.as_bytes()).into_iter().chain(target(b"a/a", name.as_bytes())) {
                let parts: Vec<&[u8]> = clean.split(|b| *b == b'/').collect();
                prop_assert!(clean.is_empty() || parts.iter().all(|part| !matches!(*part, b"" | b"." | b"..")));
            }
        }
    }
}
