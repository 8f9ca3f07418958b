// SPDX-License-Identifier: Apache-2.0
//! Images that are small as they travel and would cost a lot to take: what each should come to, and how it is
//! made. The image store's own tests pull them in a process each; `tests/escape` has a daemon pull and import them.
//!
//! Layers are packed while they are written: none of them is in memory as large as it inflates to.

use crate::expect::ExpectExt;
use crate::image::{Blob, MANIFEST, Packed, this_arch};
use crate::layer::Compression;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::io::Write;
use tar::{Builder, EntryType, Header};

/// The expected result of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is taken, is whole, and has less than so many bytes on the disk.
    Taken(u64),
    /// It is refused, with these words.
    Refused(&'static str),
}

/// A hostile image.
#[derive(Debug, Clone, Copy)]
pub struct Hostile {
    /// By which [`Hostile::pack`] knows it.
    pub name: &'static str,
    /// The expected result.
    pub end: End,
    /// Seconds of processor time that one of its layers may take: the setting `image.layer_seconds_max`.
    pub seconds: u64,
}

const fn hostile(name: &'static str, end: End) -> Hostile {
    Hostile { name, end, seconds: 3600 }
}

/// The largest layer that those may have who pull [`BOMBS`]: the setting `image.layer_bytes_max`.
pub const BOMB_BYTES_MAX: u64 = 256 << 20;

/// Images that are refused or unpacked as expected with the default limits.
pub const CORPUS: [Hostile; 14] = [
    hostile("headers before an entry that never comes", End::Refused("header_bytes_max")),
    hostile("large headers before every entry", End::Taken(16 << 20)),
    hostile("links that wait", End::Taken(64 << 20)),
    hostile("directories of long names, walked", End::Taken(400 << 20)),
    hostile("links of long names, walked", End::Taken(400 << 20)),
    hostile("a hole and a link to it", End::Taken(1 << 20)),
    hostile("a hole that is walked", End::Taken(1 << 20)),
    hostile("holes beyond measure", End::Refused("layer_apparent_bytes_max")),
    hostile("windows as large as they may be", End::Taken(140 << 20)),
    hostile("a window that is larger", End::Refused("too much memory")),
    hostile("a config of nothing", End::Refused("document_values_max")),
    hostile("a manifest of notes", End::Refused("document_values_max")),
    hostile("a hundred thousand files of one byte", End::Taken(500 << 20)),
    Hostile { name: "processor time", end: End::Refused("layer_seconds_max"), seconds: 1 },
];

/// Images that inflate to far more than their compressed size, for tests that set [`BOMB_BYTES_MAX`].
pub const BOMBS: [Hostile; 2] = [
    hostile("a bomb in gzip", End::Refused("layer_bytes_max")),
    hostile("a bomb in zstd", End::Refused("layer_bytes_max")),
];

/// How a layer is packed while it is written.
enum Packer {
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Zstd(Box<zstd::Encoder<'static, Vec<u8>>>),
}

struct Hashed {
    packer: Packer,
    hasher: sha2::Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hasher.update(bytes);
        match &mut self.packer {
            Packer::Gzip(packer) => packer.write_all(bytes)?,
            Packer::Zstd(packer) => packer.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A layer being packed.
struct Layer {
    tar: Builder<Hashed>,
}

impl Layer {
    fn new() -> Self {
        Self::windowed(20)
    }

    fn windowed(log: u32) -> Self {
        let mut packer = zstd::Encoder::new(Vec::new(), 1).or_fail("pack a layer");
        packer.window_log(log).or_fail("set the window of a zstd frame");
        Self::packed_by(Packer::Zstd(Box::new(packer)))
    }

    fn gzip() -> Self {
        let level = flate2::Compression::fast();
        Self::packed_by(Packer::Gzip(Box::new(flate2::write::GzEncoder::new(Vec::new(), level))))
    }

    fn packed_by(packer: Packer) -> Self {
        Self { tar: Builder::new(Hashed { packer, hasher: sha2::Sha256::new() }) }
    }

    fn header(kind: EntryType, bytes: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header
    }

    fn add(mut self, kind: EntryType, path: &str, bytes: &[u8]) -> Self {
        let mut header = Self::header(kind, bytes.len() as u64);
        self.tar.append_data(&mut header, path, bytes).or_fail("add an entry to a layer");
        self
    }

    /// A file of zeros.
    fn zeros(mut self, path: &str, bytes: u64) -> Self {
        let mut header = Self::header(EntryType::Regular, bytes);
        let zeros = std::io::Read::take(std::io::repeat(0), bytes);
        self.tar.append_data(&mut header, path, zeros).or_fail("add zeros to a layer");
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(EntryType::Link, 0);
        self.tar.append_link(&mut header, path, target).or_fail("add a link to a layer");
        self
    }

    /// A file that is hole but for its last byte.
    fn sparse(mut self, path: &str, length: u64) -> Self {
        let map = format!("{},1", length - 1);
        let length = length.to_string();
        self.tar
            .append_pax_extensions([
                ("GNU.sparse.size", length.as_bytes()),
                ("GNU.sparse.numblocks", b"1"),
                ("GNU.sparse.map", map.as_bytes()),
            ])
            .or_fail("describe a sparse file in a layer");
        self.add(EntryType::Regular, path, b"x")
    }

    fn raw(mut self, kind: EntryType, bytes: &[u8]) -> Self {
        let mut header = Self::header(kind, bytes.len() as u64);
        header.set_path("raw").or_fail("name an entry");
        header.set_cksum();
        self.tar.append(&header, bytes).or_fail("add an entry to a layer");
        self
    }

    /// The packed layer, and its diff id.
    fn pack(self) -> (Blob, String) {
        let Hashed { packer, hasher } = self.tar.into_inner().or_fail("end a layer");
        let (bytes, compression) = match packer {
            Packer::Gzip(packer) => (packer.finish(), Compression::Gzip),
            Packer::Zstd(packer) => (packer.finish(), Compression::Zstd),
        };
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = bytes.or_fail("end the packing of a layer");
        (Blob { media_type: compression.media_type().into(), bytes }, format!("sha256:{hex}"))
    }
}

impl Hostile {
    /// The image, as it travels.
    #[must_use]
    pub fn pack(&self) -> Packed {
        let packed: Vec<(Blob, String)> = layers(self.name).into_iter().map(Layer::pack).collect();
        let diff_ids: Vec<&String> = packed.iter().map(|(_, diff_id)| diff_id).collect();
        let empty = if self.name == "a config of nothing" { 2_000_000 } else { 0 };
        let config = json!({
            "architecture": this_arch(), "os": "linux", "config": {},
            "history": vec![json!({}); empty],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let media_type = "application/vnd.oci.image.config.v1+json".into();
        let config = Blob { media_type, bytes: config.to_string().into_bytes() };
        let described: Vec<Value> = packed.iter().map(|(of, _)| of.descriptor()).collect();
        let notes = if self.name == "a manifest of notes" { 150_000 } else { 0 };
        let notes: serde_json::Map<String, Value> =
            (0..notes).map(|number| (number.to_string(), json!("x"))).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "annotations": notes,
            "config": config.descriptor(), "layers": described,
        });
        let manifest =
            Blob { media_type: MANIFEST.into(), bytes: manifest.to_string().into_bytes() };
        let blobs = std::iter::once(config).chain(packed.into_iter().map(|(of, _)| of)).collect();
        Packed { blobs, manifest, arch: this_arch().into() }
    }
}

/// The image that means no harm.
#[must_use]
pub fn harmless() -> Packed {
    hostile("harmless", End::Taken(1 << 20)).pack()
}

/// A directory as deep as a name may be long.
fn deep(top: &str) -> String {
    format!("{top}/{}", format!("{}/", "e".repeat(200)).repeat(18))
}

/// Replaces an entry: the layer is looked through when it is unpacked.
fn walked(layer: Layer) -> Layer {
    layer.add(EntryType::Regular, "end", b"").add(EntryType::Regular, "end", b"")
}

fn numbered(count: u32, add: &dyn Fn(Layer, u32) -> Layer) -> Layer {
    (0..count).fold(Layer::new(), add)
}

fn layers(name: &str) -> Vec<Layer> {
    let (file, directory) = (EntryType::Regular, EntryType::Directory);
    let (from, to) = (deep("from"), deep("to"));
    match name {
        "links that wait" => {
            let target = format!("{to}file");
            let base = Layer::new().add(file, &target, b"x");
            vec![base, numbered(30_000, &|layer, of| layer.link(&format!("{from}{of}"), &target))]
        }
        "directories of long names, walked" => vec![walked(numbered(40_000, &|layer, number| {
            layer.add(directory, &format!("{to}{number}/"), b"")
        }))],
        "links of long names, walked" => vec![walked(numbered(30_000, &|layer, number| {
            let path = format!("{to}{number}");
            layer.add(file, &path, b"").link(&format!("{path}b"), &path)
        }))],
        "processor time" => vec![numbered(200_000, &|layer, number| {
            layer.add(directory, &format!("d{number}"), b"")
        })],
        "a hundred thousand files of one byte" => {
            vec![numbered(100_000, &|layer, number| layer.add(file, &format!("f{number}"), b"x"))]
        }
        other => sized(other),
    }
}

/// Images that cost by the size of what is in them.
/// An extended header of so many bytes: one comment. `pax(1)`.
fn pax_comment(bytes: usize) -> Vec<u8> {
    let mut record = format!("{bytes} comment=").into_bytes();
    record.resize(bytes - 1, b'a');
    record.push(b'\n');
    record
}

fn sized(name: &str) -> Vec<Layer> {
    let file = EntryType::Regular;
    let large = pax_comment(1 << 20);
    match name {
        "headers before an entry that never comes" => {
            vec![numbered(300, &|layer, _| layer.raw(EntryType::XGlobalHeader, &large))]
        }
        "large headers before every entry" => vec![numbered(200, &|layer, number| {
            let layer = layer.raw(EntryType::XGlobalHeader, &large);
            let layer = layer.raw(EntryType::XGlobalHeader, &pax_comment(900 << 10));
            layer.add(file, &format!("f{number}"), b"x")
        })],
        "a hole and a link to it" => {
            vec![Layer::new().sparse("hole", 1 << 40), Layer::new().link("two", "hole")]
        }
        "a hole that is walked" => vec![walked(Layer::new().sparse("hole", 3 << 40))],
        "holes beyond measure" => {
            vec![Layer::new().sparse("one", 3 << 40).sparse("two", 3 << 40)]
        }
        "windows as large as they may be" => {
            let layer = |of| Layer::windowed(25).zeros(&format!("zeros{of}"), 34 << 20);
            (0..4).map(layer).collect()
        }
        "a window that is larger" => vec![Layer::windowed(27).zeros("zeros", 130 << 20)],
        "a bomb in gzip" => vec![Layer::gzip().zeros("zeros", 512 << 20)],
        "a bomb in zstd" => vec![Layer::new().zeros("zeros", 1 << 30)],
        _ => vec![Layer::new().add(file, "f", b"x")],
    }
}
