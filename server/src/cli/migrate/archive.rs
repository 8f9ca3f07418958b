// SPDX-License-Identifier: Apache-2.0
//! An archive of one image, made while it is read: the form in which `hull import` sends images to the daemon,
//! which verifies every digest.

use super::super::error::chain;
use super::root::Root;
use super::source_image::{Content, Import, Part, SourceImage};
use super::tar_split::Reassembled;
use serde_json::json;
use std::collections::{HashSet, VecDeque};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tar::{EntryType, Header};

/// Bytes of a block of an archive.
const BLOCK: usize = 512;

/// A piece of the archive that is still to be read.
enum Piece {
    Bytes(Vec<u8>),
    Stored(Part),
}

/// The archive. Each file is opened when its turn comes.
pub(crate) struct Archive {
    root: Arc<Root>,
    pieces: VecDeque<Piece>,
    current: Box<dyn Read + Send>,
}

impl Archive {
    /// The archive of one import of an image, without the layers in `sent`, which the daemon has.
    ///
    /// # Errors
    /// A name does not fit into the archive.
    pub(crate) fn of(
        root: &Arc<Root>,
        image: &SourceImage,
        import: &Import,
        sent: &HashSet<String>,
    ) -> io::Result<Self> {
        let mut archive = Self {
            root: Arc::clone(root),
            pieces: VecDeque::new(),
            current: Box::new(io::empty()),
        };
        match import {
            Import::Layout { target, name, documents } => {
                let mut target = target.clone();
                if let Some(name) = name {
                    target["annotations"] = json!({ "io.containerd.image.name": name });
                }
                let index = json!({ "schemaVersion": 2, "manifests": [target] });
                archive.push_bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
                archive.push_bytes("index.json", index.to_string().as_bytes())?;
                for part in documents {
                    archive.push_stored(part)?;
                }
            }
            Import::Saved { tags, config } => {
                let layers: Vec<&str> = image.layers.iter().map(|of| of.entry.as_str()).collect();
                let of = json!([{ "Config": config.entry, "RepoTags": tags, "Layers": layers }]);
                archive.push_bytes("manifest.json", of.to_string().as_bytes())?;
                archive.push_stored(config)?;
            }
        }
        let mut there = HashSet::new();
        for layer in &image.layers {
            if !sent.contains(&layer.entry) && there.insert(layer.entry.as_str()) {
                archive.push_stored(layer)?;
            }
        }
        // The end of an archive.
        archive.pieces.push_back(Piece::Bytes(vec![0; 2 * BLOCK]));
        Ok(archive)
    }

    fn push_bytes(&mut self, entry: &str, bytes: &[u8]) -> io::Result<()> {
        let mut whole = header(entry, bytes.len() as u64)?;
        whole.extend_from_slice(bytes);
        whole.resize(whole.len() + padding(bytes.len() as u64), 0);
        self.pieces.push_back(Piece::Bytes(whole));
        Ok(())
    }

    fn push_stored(&mut self, part: &Part) -> io::Result<()> {
        self.pieces.push_back(Piece::Bytes(header(&part.entry, part.size)?));
        self.pieces.push_back(Piece::Stored(part.clone()));
        self.pieces.push_back(Piece::Bytes(vec![0; padding(part.size)]));
        Ok(())
    }

    fn open(&self, piece: Piece) -> io::Result<Box<dyn Read + Send>> {
        match piece {
            Piece::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes))),
            Piece::Stored(Part { entry, size, content }) => {
                let bytes: Box<dyn Read + Send> = match content {
                    Content::File(path) => Box::new(file(&self.root, &path)?),
                    Content::Split { headers, directory } => {
                        let headers = file(&self.root, &headers)?;
                        Box::new(Reassembled::new(Arc::clone(&self.root), headers, directory))
                    }
                };
                Ok(Box::new(Exact { bytes, left: size, entry }))
            }
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.current.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            let Some(piece) = self.pieces.pop_front() else { return Ok(0) };
            self.current = self.open(piece)?;
        }
    }
}

/// Exactly as many bytes as the header of the entry says.
struct Exact {
    bytes: Box<dyn Read + Send>,
    left: u64,
    entry: String,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let wrong = |what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} has {what}", self.entry))
        };
        if self.left == 0 {
            // One byte more would shift everything behind it.
            return match self.bytes.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(wrong("more bytes than the store says")),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.bytes.read(&mut buffer[..most])?;
        if got == 0 {
            return Err(wrong(&format!("{} bytes less than the store says", self.left)));
        }
        self.left -= got as u64;
        Ok(got)
    }
}

fn file(root: &Root, path: &Path) -> io::Result<std::fs::File> {
    let opened = root.file(path).map_err(|err| io::Error::other(chain(&err)))?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, root.shown(path));
    opened.map(|(file, _)| file).ok_or_else(missing)
}

fn header(entry: &str, size: u64) -> io::Result<Vec<u8>> {
    let mut header = Header::new_ustar();
    header.set_path(entry)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

/// Bytes from the end of a file of this size to the next block.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(entry: &str, path: &str, size: u64) -> Part {
        Part { entry: entry.into(), size, content: Content::File(path.into()) }
    }

    fn image(layers: Vec<Part>) -> SourceImage {
        SourceImage { name: "a:1".into(), ids: Vec::new(), layers, imports: Vec::new() }
    }

    #[test]
    fn an_archive_has_the_documents_and_the_layers_that_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("doc"), "document").unwrap();
        std::fs::write(dir.path().join("layer"), vec![7; 1025]).unwrap();
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let layers =
            vec![part("blobs/sha256/1", "/layer", 1025), part("blobs/sha256/1", "/layer", 1025)];
        let image = image(layers);
        let import = Import::Layout {
            target: json!({ "digest": "sha256:0" }),
            name: Some("a:1".into()),
            documents: vec![part("blobs/sha256/0", "/doc", 8)],
        };
        let names = |sent: &HashSet<String>| {
            let archive = Archive::of(&root, &image, &import, sent).unwrap();
            let mut tar = tar::Archive::new(archive);
            let entries = tar.entries().unwrap().map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().display().to_string(), bytes.len())
            });
            entries.collect::<Vec<_>>()
        };
        let all = names(&HashSet::new());
        let shown: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(shown, ["oci-layout", "index.json", "blobs/sha256/0", "blobs/sha256/1"]);
        assert_eq!((all[2].1, all[3].1), (8, 1025));
        assert_eq!(names(&HashSet::from(["blobs/sha256/1".to_owned()])).len(), 3);
    }

    #[test]
    fn a_file_of_another_size_ends_the_archive_with_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("layer"), "12345").unwrap();
        let root = Arc::new(Root::open(dir.path()).unwrap());
        for (size, path, text) in
            [(4, "/layer", "more bytes"), (6, "/layer", "1 bytes less"), (1, "/nothing", "nothing")]
        {
            let image = image(vec![part("layers/1.tar", path, size)]);
            let config = part("config.json", "/layer", 5);
            let import = Import::Saved { tags: vec!["a:1".into()], config };
            let mut archive = Archive::of(&root, &image, &import, &HashSet::new()).unwrap();
            let error = archive.read_to_end(&mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
