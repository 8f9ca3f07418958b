// SPDX-License-Identifier: Apache-2.0
//! Entry points for fuzzing: each takes untrusted input, and panics when an invariant is broken.
//!
//! Only for tests/fuzz, behind the feature `fuzz`.

use crate::file_list::{self, Reader, RebuiltArchive, Writer};
use crate::fs::files;
use crate::limits::{Limits, Work};
use crate::manifest;
use crate::manifest::platform::Machine;
use crate::reference::Reference;
use crate::registry;
use crate::unpack::{self, Archive};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

/// Small enough that no input fills a disk.
const LIMITS: Limits = Limits {
    bytes: 4 << 20,
    entries: 1000,
    apparent_bytes: 1 << 40,
    seconds: 60,
    archive_bytes: 4 << 20,
};

/// Reads an archive entry by entry. Whatever it is, it ends, and gives no more than there is.
pub fn archive(bytes: &[u8]) {
    let mut archive = Archive::new(bytes);
    let mut read = 0;
    while let Ok(Some(_)) = archive.next() {
        let copied = io::copy(&mut archive.data(), &mut io::sink());
        read += copied.unwrap_or(0);
    }
    assert!(read <= bytes.len() as u64, "more came out than went in");
}

/// Unpacks an archive into a new directory in `scratch`. The files match the file list, the archive can be
/// rebuilt from it if the list is exact, and nothing beside the directory has changed.
pub fn unpack(bytes: &[u8], scratch: &Path) {
    let (root, notes) = (scratch.join("layer"), scratch.join("inventory"));
    let clear = || {
        assert!(hull_sys::remove_tree(&root).is_ok(), "a layer that cannot be removed");
        assert!(files::unlink(&notes).is_ok(), "a file list that cannot be removed");
    };
    clear();
    if let Some((done, digest)) = unpacked(bytes, &root, &notes) {
        let items =
            || files::open_file(&notes).ok().and_then(|file| Reader::open(file, &digest).ok());
        let dir = files::open_dir(&root).ok();
        if let (false, Some(items_of), Some(dir)) = (done.replaced, items(), &dir) {
            let found = file_list::verify(dir.as_fd(), items_of, &Work::default());
            assert!(matches!(&found, Ok(found) if found.is_empty()), "{found:?}");
        }
        let exact = items().and_then(|items| file_list::length(items).ok()).flatten();
        if let (false, Some(length), Some(items), Some(dir)) = (done.replaced, exact, items(), dir)
        {
            let mut again = Vec::new();
            let read = RebuiltArchive::new(dir, items).read_to_end(&mut again);
            assert!(read.is_ok() && again.len() as u64 == length, "{read:?}");
            assert!(bytes.starts_with(&again), "another archive was rebuilt");
        }
    }
    clear();
    let left = files::names(scratch).unwrap_or_default();
    assert!(left.is_empty(), "made beside the layer: {left:?}");
}

fn unpacked(
    bytes: &[u8],
    root: &Path,
    notes: &Path,
) -> Option<(unpack::Unpacked, crate::digest::Digest)> {
    files::make_dir(root, 0o755).ok()?;
    let file: File = files::create(notes).ok()?;
    let mut notes = Writer::new(file).ok()?;
    let within = (LIMITS, Work::default().implied_names());
    let (done, _) = unpack::unpack(bytes, files::open_dir(root).ok()?, within, &mut notes).ok()?;
    Some((done, notes.finish().ok()?))
}

/// Reads a manifest or index, a layout, a config, and signatures.
pub fn documents(bytes: &[u8]) {
    let machine = Machine::this();
    let _either = manifest::parse(bytes, "it", &machine);
    let _either = manifest::parse_layout(bytes);
    let _either = manifest::parse_config(bytes, &machine, false);
    let _either = manifest::parse_signatures(bytes, "key");
}

/// Parses a name. What is good says itself in full, and that is the same name.
pub fn reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        let again = Reference::parse(&reference.to_string());
        assert!(again.as_ref().is_ok_and(|again| *again == reference), "{text}: {again:?}");
        let familiar = Reference::parse(&reference.familiar());
        assert!(familiar.is_ok_and(|again| again == reference), "{text}");
    }
}

/// Reads the settings of a registry.
pub fn hosts(text: &str) {
    if let Ok(hosts) = registry::parse_hosts(text, "https://registry.example.org", Path::new("/x"))
    {
        assert!(!hosts.is_empty(), "nobody to ask");
        for host in hosts {
            assert!(host.api.starts_with("http"), "{}", host.api);
        }
    }
}

/// Parses the challenges of a registry.
pub fn challenge(header: &str) {
    let _any = registry::parse_challenge(header);
}

/// Reads responses of registries and token servers, and credentials of callers.
pub fn responses(text: &str) {
    registry::parse_response(text);
    let _either = crate::Auth::from_parts("", "", text, "", "");
}

/// Parses entries of a file list.
pub fn items(bytes: &[u8]) {
    file_list::read_items(bytes);
}
