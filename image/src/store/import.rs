// SPDX-License-Identifier: Apache-2.0
//! Importing: images from an archive, an OCI layout or what `docker save` writes.
//!
//! The archive is read twice: once to see what is where, then from place to place. So it must be a
//! file; a compressed one is inflated into another first. Nothing of it is unpacked but layers, which
//! go the same way as those of a pull.
//!
//! The rule: everything that grows with the archive has a limit: what it inflates to on the disk, what is
//! remembered of its entries and what is read of its documents in memory.

use super::layers::Made;
use super::pull::{Ready, blocking};
use super::record;
use super::{Image, Inner, Store};
use crate::digest::Digest;
use crate::document::{self, CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX};
use crate::error::{Cause, Error, NAME_MAX, shown};
use crate::layer::{Expected, decoder};
use crate::limits::{LAYER_ENTRIES, Limits, Work};
use crate::reference::Reference;
use crate::unpack::{Archive, clean, split, target};
use crate::watch::Watch;
use hull_sys as sys;
use serde::Deserialize;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

const BUFFER_BYTES: usize = 128 << 10;
const LINKS_MAX: usize = 8;
/// Most entries of an archive of images. One with a thousand images of a dozen layers has fewer.
const ARCHIVE_ENTRIES_MAX: u64 = 100_000;
/// Most bytes of the names of all its entries, and of all its documents: both are in memory at once.
const ARCHIVE_NAME_BYTES_MAX: u64 = 16 << 20;
const ARCHIVE_DOCUMENT_BYTES_MAX: u64 = 128 << 20;

/// An image that came out of an archive.
#[derive(Debug, Clone)]
pub struct Imported {
    /// It.
    pub image: Arc<Image>,
    /// The names that the archive, or the caller, gave it.
    pub names: Vec<String>,
}

impl Store {
    /// Imports all images of an archive that are for this machine. `name` is given to an image that
    /// has none in the archive, and replaces the names of the only one.
    ///
    /// It is read from its start, wherever it stands.
    pub async fn import(
        &self,
        archive: impl Into<File>,
        name: Option<&str>,
    ) -> Result<Vec<Imported>, Error> {
        let name = name.map(Reference::parse).transpose()?;
        self.check_writable()?;
        let archive = archive.into();
        let inner = Arc::clone(&self.inner);
        // Who gives up waiting gives up the import, until it is being listed.
        let (work, _guard) = Work::guarded();
        blocking(move || inner.import(archive, name.as_ref(), &work))
            .await
            .map_err(|source| Error::Import { source })
    }
}

/// What an archive has, by cleaned name.
struct Contents {
    file: Arc<File>,
    places: HashMap<Vec<u8>, Place>,
    /// How many bytes of documents were read.
    read: Cell<u64>,
}

enum Place {
    Bytes { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// A part of a file. Several may be read at a time.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// A layer's blob, if the archive says, and its path.
type LayerAt = (Option<(Digest, u64)>, Vec<u8>);

/// An image in an archive.
struct Found {
    config: Vec<u8>,
    layers: Vec<LayerAt>,
    names: Vec<Reference>,
    digest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn no_archive(why: impl Into<String>) -> Cause {
    Cause::Archive { why: why.into() }
}

fn spooled(source: sys::Error) -> Cause {
    Cause::Keep { what: "the archive".into(), source }
}

impl Inner {
    fn import(
        self: &Arc<Self>,
        archive: File,
        name: Option<&Reference>,
        work: &Work,
    ) -> Result<Vec<Imported>, Cause> {
        let contents = Contents::read(self.plain(archive, work)?, work)?;
        let mut found = if contents.places.contains_key(b"index.json".as_slice()) {
            self.of_layout(&contents)?
        } else if contents.places.contains_key(b"manifest.json".as_slice()) {
            of_saved(&contents)?
        } else {
            return Err(no_archive("neither index.json nor manifest.json is in it"));
        };
        if found.is_empty() {
            return Err(no_archive("there is no image in it"));
        }
        let is_only = found.len() == 1;
        let mut ready = Vec::new();
        for of in &mut found {
            match name {
                Some(name) if is_only || of.names.is_empty() => of.names = vec![name.clone()],
                _ => {}
            }
            ready.push(self.take(&contents, of, work)?);
        }
        let names: Vec<Vec<String>> = ready.iter().map(|of| of.tags.clone()).collect();
        // All at once: one wait for the disk, and all of the archive or nothing.
        let images = self.record(ready, work)?;
        let imported = |(image, names)| Imported { image, names };
        Ok(images.into_iter().zip(names).map(imported).collect())
    }

    /// The archive without compression.
    fn plain(&self, archive: File, work: &Work) -> Result<File, Cause> {
        let failed = |err: io::Error| no_archive(err.to_string());
        let mut start = [0; 4];
        let got = archive.read_at(&mut start, 0).map_err(failed)?;
        let is_compressed =
            start[..got].starts_with(&[0x1f, 0x8b]) || start[..got] == [0x28, 0xb5, 0x2f, 0xfd];
        if !is_compressed {
            return Ok(archive);
        }
        let mut spool = self.spool().map_err(spooled)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, archive);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut plain = decoder(&mut reader).map_err(failed)?;
        let max = self.config.limits.archive_bytes;
        let (mut buffer, mut written) = (vec![0; BUFFER_BYTES], 0);
        loop {
            work.check().map_err(failed)?;
            let got = plain.read(&mut buffer).map_err(failed)?;
            if got == 0 {
                return Ok(spool);
            }
            written += got as u64;
            if written > max {
                return Err(Cause::ArchiveTooLarge { what: "bytes", max });
            }
            spool
                .write_all(&buffer[..got])
                .map_err(sys::Error::of_io(|| "write(the inflated archive)"))
                .map_err(spooled)?;
        }
    }

    fn of_layout(&self, contents: &Contents) -> Result<Vec<Found>, Cause> {
        let index = contents.whole(b"index.json", MANIFEST_BYTES_MAX)?;
        let (mut found, mut refused) = (Vec::new(), None);
        for descriptor in document::parse_layout(&index)? {
            match self.of_descriptor(contents, &descriptor) {
                Ok(of) => found.push(of),
                // Others may be for this machine.
                Err(cause @ Cause::Platform { .. }) => refused = Some(cause),
                Err(cause) => return Err(cause),
            }
        }
        match refused {
            Some(cause) if found.is_empty() => Err(cause),
            _ => Ok(found),
        }
    }

    fn of_descriptor(&self, contents: &Contents, descriptor: &Descriptor) -> Result<Found, Cause> {
        let mut at = descriptor.clone();
        for _ in 0..=document::INDEX_DEPTH_MAX {
            let bytes = contents.blob(&at, MANIFEST_BYTES_MAX)?;
            let what = format!("manifest {}", at.digest);
            match document::parse(&bytes, &what, &self.machine)? {
                Document::Index(chosen) => at = chosen,
                Document::Manifest(manifest) => {
                    let config = contents.blob(&manifest.config, CONFIG_BYTES_MAX)?;
                    // Tells early that it is for another machine.
                    document::parse_config(&config, &self.machine)?;
                    let layers = manifest.layers.iter().map(|layer| {
                        (Some((layer.digest.clone(), layer.size)), blob_path(&layer.digest))
                    });
                    return Ok(Found {
                        config,
                        layers: layers.collect(),
                        names: names_of(&descriptor.names),
                        digest: Some(descriptor.digest.clone()),
                    });
                }
            }
        }
        Err(no_archive("there are too many indexes in indexes"))
    }

    /// Makes the layers of an image that are not here yet.
    fn take(
        self: &Arc<Self>,
        contents: &Contents,
        found: &Found,
        work: &Work,
    ) -> Result<Ready, Cause> {
        if let Some(policy) = &self.policy {
            policy.check_import(&found.names)?;
        }
        let id = Digest::of(&found.config);
        let (text, config) = record::checked_config(&found.config, &self.machine)?;
        if config.diff_ids.len() != found.layers.len() {
            return Err(no_archive(
                "the image's config has another number of layers than its manifest",
            ));
        }
        let mut made = Vec::new();
        for ((blob, path), diff_id) in found.layers.iter().zip(config.diff_ids) {
            let layer = match self.present(&diff_id) {
                Some(layer) => Made::Placed(layer),
                None => {
                    let expected = Expected { blob: blob.clone(), diff_id: diff_id.clone() };
                    let watch = Watch::default();
                    // A pull may be unpacking the same one.
                    let turn = self.unpacking.wait(diff_id.hex());
                    let _turn = tokio::runtime::Handle::current().block_on(turn);
                    match self.present(&diff_id) {
                        Some(layer) => Made::Placed(layer),
                        None => self.make_layer(contents.part(path)?, &expected, &watch, work)?,
                    }
                }
            };
            made.push((Expected { blob: blob.clone(), diff_id }, layer));
        }
        let tags: Vec<String> = found.names.iter().filter_map(Reference::tagged).collect();
        // Without any name the image is still found by its id.
        let digest = found.digest.as_ref().zip(found.names.first());
        let digest = digest.map(|(digest, name)| name.digested(digest));
        Ok(Ready { id, config: text, made, tags, digest })
    }
}

fn of_saved(contents: &Contents) -> Result<Vec<Found>, Cause> {
    let bytes = contents.whole(b"manifest.json", MANIFEST_BYTES_MAX)?;
    document::few_values(&bytes, "manifest.json")?;
    let saved: Vec<Saved> = serde_json::from_slice(&bytes)
        .map_err(|err| Cause::Document { what: "manifest.json".into(), why: err.to_string() })?;
    let path = |text: &str| {
        clean(text.as_bytes()).map_err(|_| no_archive("a path in it climbs out of it"))
    };
    let mut found = Vec::new();
    for of in saved {
        let layers: Result<Vec<_>, Cause> =
            of.layers.iter().map(|layer| Ok((None, path(layer)?))).collect();
        found.push(Found {
            config: contents.whole(&path(&of.config)?, CONFIG_BYTES_MAX)?,
            layers: layers?,
            names: names_of(&of.repo_tags.unwrap_or_default()),
            digest: None,
        });
    }
    Ok(found)
}

/// The names that an image is found by. Some tools write a tag alone, which is none.
fn names_of(texts: &[String]) -> Vec<Reference> {
    let is_name = |text: &&String| text.contains(['/', ':']);
    let mut names: Vec<Reference> = Vec::new();
    for name in texts.iter().filter(is_name).filter_map(|text| Reference::parse(text).ok()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn blob_path(digest: &Digest) -> Vec<u8> {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1)).into_bytes()
}

impl Contents {
    fn read(file: File, work: &Work) -> Result<Self, Cause> {
        let failed = |err: io::Error| no_archive(err.to_string());
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let (mut places, mut name_bytes) = (HashMap::new(), 0);
        let limits = Limits { entries: ARCHIVE_ENTRIES_MAX, ..Limits::NONE };
        let mut archive = Archive::within(reader, limits);
        while let Some(entry) = archive.next().map_err(no_more)? {
            work.check().map_err(failed)?;
            use crate::unpack::Kind;
            let Ok(path) = clean(&entry.path) else {
                return Err(no_archive("a path in it climbs out of it"));
            };
            let link = |beside: &[u8], to: &[u8]| {
                target(beside, to).map_err(|_| no_archive("a link in it leads to no path"))
            };
            let place = match entry.kind {
                Kind::File => Place::Bytes { offset: entry.offset, size: entry.size },
                Kind::Link(to) => Place::Link(link(b"", &to)?),
                Kind::Symlink(to) => Place::Link(link(split(&path).0, &to)?),
                Kind::Sparse { .. }
                | Kind::Directory
                | Kind::Char(..)
                | Kind::Block(..)
                | Kind::Fifo => continue,
            };
            let of_link = if let Place::Link(to) = &place { to.len() } else { 0 };
            name_bytes += (path.len() + of_link) as u64;
            if name_bytes > ARCHIVE_NAME_BYTES_MAX {
                let what = "bytes of names";
                return Err(Cause::ArchiveTooLarge { what, max: ARCHIVE_NAME_BYTES_MAX });
            }
            places.insert(path, place);
        }
        let file = Arc::new(archive.into_inner().into_inner());
        Ok(Self { file, places, read: Cell::new(0) })
    }

    fn part(&self, path: &[u8]) -> Result<Part, Cause> {
        let mut at = path.to_vec();
        for _ in 0..LINKS_MAX {
            match self.places.get(&at) {
                Some(Place::Bytes { offset, size }) => {
                    return Ok(Part {
                        file: Arc::clone(&self.file),
                        at: *offset,
                        end: offset + size,
                    });
                }
                Some(Place::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(no_archive(format!("{} is not in it", shown(path, NAME_MAX))))
    }

    fn whole(&self, path: &[u8], max: u64) -> Result<Vec<u8>, Cause> {
        let mut part = self.part(path)?;
        if part.end - part.at > max {
            return Err(Cause::TooLarge { what: shown(path, NAME_MAX), max });
        }
        // The same document may be named again and again.
        self.read.set(self.read.get() + (part.end - part.at));
        if self.read.get() > ARCHIVE_DOCUMENT_BYTES_MAX {
            let what = "bytes of documents";
            return Err(Cause::ArchiveTooLarge { what, max: ARCHIVE_DOCUMENT_BYTES_MAX });
        }
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes).map_err(|err| no_archive(err.to_string()))?;
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, Cause> {
        let bytes = self.whole(&blob_path(&descriptor.digest), max)?;
        let got = descriptor.digest.same_kind_of(&bytes);
        if got != descriptor.digest {
            return Err(Cause::WrongDigest {
                what: format!("blob {}", descriptor.digest),
                want: descriptor.digest.to_string(),
                got: got.to_string(),
            });
        }
        Ok(bytes)
    }
}

/// Why there are no more entries.
fn no_more(error: crate::unpack::Error) -> Cause {
    if let crate::unpack::Error::Limit { budget, max } = error
        && *budget == LAYER_ENTRIES
    {
        return Cause::ArchiveTooLarge { what: "entries", max };
    }
    no_archive(error.to_string())
}
