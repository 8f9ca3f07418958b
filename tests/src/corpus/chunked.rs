// SPDX-License-Identifier: Apache-2.0
//! Layers for lazy pulling: each content is a member of gzip or a frame of zstd of its own, and a table of contents
//! says where. For a reader that does not know of the table it is an ordinary layer.
//!
//! ```text
//! eStargz        members, a member with the table as the last entry of the archive, a footer of 51 bytes
//! zstd:chunked   frames; table, tar-split and footer in frames that decoders skip
//! ```

use super::archive::{Tar, Written};
use super::shape::{Draft, Made, OCI_GZIP, OCI_ZSTD, Shape, described, member, platform};
use crate::expect::ExpectExt as _;
use crate::image::digest;
use flate2::Compression as Level;
use serde_json::{Value, json};
use tar::EntryType;

const LANDMARK: &str = ".no.prefetch.landmark";
const TABLE: &str = "stargz.index.json";
const FOOTER_BYTES: usize = 51;
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
/// A run of zeros of this length is a chunk of its own in zstd:chunked.
const HOLE_BYTES: usize = 1024;

fn config() -> Value {
    json!({"config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}, "created": "2024-01-01T00:00:00Z"})
}

/// The entry of a table of contents. `offset` is where the content is in the compressed layer.
fn listed(of: &Written, tar: &[u8], offset: Option<usize>) -> Value {
    let kinds = [
        (EntryType::Directory, "dir"),
        (EntryType::Symlink, "symlink"),
        (EntryType::Link, "hardlink"),
    ];
    let kind = kinds.iter().find(|(kind, _)| *kind == of.kind).map_or("reg", |&(_, name)| name);
    let mut entry = json!({"name": of.name, "type": kind, "mode": of.mode, "modtime": "2024-01-01T00:00:00Z",
        "uid": 0, "gid": 0});
    if !of.link.is_empty() {
        entry["linkName"] = json!(of.link);
    }
    if let Some(offset) = offset {
        let content = digest(&tar[of.content.clone()]);
        entry["size"] = json!(of.content.len());
        entry["offset"] = json!(offset);
        entry["digest"] = json!(content);
        entry["chunkDigest"] = json!(content);
    }
    entry
}

/// The parts of a compressed layer whose contents begin a part each, and the entries of its table.
fn parts(tar: &Tar, archive: &[u8], pack: impl Fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<Value>) {
    let (mut bytes, mut entries, mut from) = (Vec::new(), Vec::new(), 0);
    for of in tar.entries() {
        let has_content = !of.content.is_empty();
        if has_content {
            bytes.extend(pack(&archive[from..of.content.start]));
            from = of.content.start;
        }
        entries.push(listed(of, archive, has_content.then_some(bytes.len())));
    }
    bytes.extend(pack(&archive[from..]));
    (bytes, entries)
}

/// An eStargz layer of an archive, which may have its end before the table.
fn estargz_layer(tar: &Tar, mut archive: Vec<u8>, level: Level) -> Made {
    let (mut bytes, entries) = parts(tar, &archive, |part| member(part, level));
    let table = serde_json::to_string_pretty(&json!({"version": 1, "entries": entries}));
    let table = table.or_fail("make a shape");
    let last = Tar::ustar().file(TABLE, 0, &table).end();
    let at = bytes.len();
    bytes.extend(member(&last, level));
    archive.extend(last);
    // An empty member, not compressed, whose extra field has the offset of the table.
    let mut footer: Vec<u8> = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0];
    footer.extend(b"SG\x16\0");
    footer.extend(format!("{at:016x}STARGZ").bytes());
    footer.extend([1, 0, 0, 0xff, 0xff]);
    footer.extend([0; 8]);
    assert_eq!(footer.len(), FOOTER_BYTES);
    bytes.extend(footer);
    let size = archive.len().to_string();
    let annotations = json!({TOC_DIGEST: digest(table.as_bytes()), UNCOMPRESSED_SIZE: size});
    Made::new(OCI_GZIP, archive, bytes).annotated(annotations)
}

/// eStargz by a converter: a landmark first, without mode and time; the end of the archive after the table.
pub(super) fn estargz() -> Shape {
    let tar = Tar::ustar()
        .file(LANDMARK, 0, "\x0f")
        .at(1_704_067_200)
        .dir("etc/", 0o755)
        .file("etc/made-by", 0o644, "estargz\n")
        .file("etc/empty", 0o644, "")
        .hard_link("etc/second", 0o644, "etc/made-by");
    let archive = tar.open_end().to_vec();
    let layers = vec![Made::base(OCI_GZIP), estargz_layer(&tar, archive, Level::best())];
    let (shape, _) = Draft::oci("estargz", layers, config()).pack();
    let script = "cat /etc/second; stat -c '%a %s' /.no.prefetch.landmark; grep -c made-by /stargz.index.json";
    shape.says(script, "estargz\n0 1\n2")
}

/// eStargz by BuildKit, which does not alter the archive: its end is before the table, which no reader of the archive
/// sees. With thousands of files the table is larger than a mebibyte.
pub(super) fn buildkit_estargz() -> Shape {
    let dirs = Tar::ustar().at(1_704_067_200).dir("opt/", 0o755).dir("opt/modules/", 0o755);
    let tar = (0..2600_u32).fold(dirs, |tar, number| {
        tar.file(&format!("opt/modules/{number}.js"), 0o644, format!("{number}\n"))
    });
    let mut archive = tar.open_end().to_vec();
    archive.extend([0; 1024]);
    let layers = vec![Made::base(OCI_GZIP), estargz_layer(&tar, archive, Level::default())];
    let (shape, _) = Draft::oci("buildkit-estargz", layers, config()).pack();
    let script =
        "ls /opt/modules | wc -l; cat /opt/modules/2599.js; ls /stargz.index.json 2> /dev/null";
    shape.says(script, "2600\n2599")
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).or_fail("make a shape")
}

/// Adds a frame that decoders skip, and gives the place of its content.
fn skipped(bytes: &mut Vec<u8>, content: &[u8]) -> usize {
    bytes.extend([0x50, 0x2a, 0x4d, 0x18]);
    bytes.extend(u32::try_from(content.len()).or_fail("make a shape").to_le_bytes());
    let place = bytes.len();
    bytes.extend_from_slice(content);
    place
}

/// The chunks of a content: long runs of zeros and what is between them.
fn chunks(content: &[u8]) -> Vec<&[u8]> {
    let (mut chunks, mut from, mut at) = (Vec::new(), 0, 0);
    while at < content.len() {
        let run = content[at..].iter().take_while(|byte| **byte == 0).count();
        if run >= HOLE_BYTES {
            chunks.extend([&content[from..at], &content[at..at + run]]);
            from = at + run;
        }
        at += run.max(1);
    }
    chunks.push(&content[from..]);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

/// The layer of zstd:chunked as containers/storage writes it: frames for headers and for each chunk; the table, what
/// tar-split needs (here without its content), and a footer of 64 bytes.
fn chunked_layer() -> Made {
    let with_hole = [vec![7; 3000], vec![0; 5000], vec![8; 2000]].concat();
    let tar = Tar::ustar()
        .at(1_704_067_200)
        .dir("etc/", 0o755)
        .file("etc/made-by", 0o644, "zstd:chunked\n")
        .file("etc/other", 0o644, with_hole);
    let archive = [tar.open_end(), &[0; 1024]].concat();
    let (mut bytes, mut entries, mut from) = (Vec::new(), Vec::new(), 0);
    for of in tar.entries() {
        if of.content.is_empty() {
            entries.push(listed(of, &archive, None));
            continue;
        }
        bytes.extend(frame(&archive[from..of.content.start]));
        let mut offset = 0;
        for chunk in chunks(&archive[of.content.clone()]) {
            let mut entry = listed(of, &archive, Some(bytes.len()));
            if offset > 0 {
                entry = json!({"type": "chunk", "name": of.name, "offset": bytes.len(), "chunkOffset": offset,
                    "chunkDigest": digest(chunk)});
            }
            entry["chunkSize"] = json!(chunk.len());
            if chunk.iter().all(|byte| *byte == 0) {
                entry["chunkType"] = json!("zeros");
            }
            entries.push(entry);
            bytes.extend(frame(chunk));
            offset += chunk.len();
        }
        from = of.content.end;
    }
    bytes.extend(frame(&archive[from..]));
    let split = br#"{"type":2,"payload":"","position":0}"#;
    let packed_split = frame(split);
    let table = json!({"version": 1, "entries": entries, "tarSplitDigest": digest(&packed_split)})
        .to_string();
    let packed = frame(table.as_bytes());
    let at = skipped(&mut bytes, &packed);
    let split_at = skipped(&mut bytes, &packed_split);
    let places = [at, packed.len(), table.len(), 1, split_at, packed_split.len(), split.len()];
    let mut footer: Vec<u8> = places.iter().flat_map(|of| (*of as u64).to_le_bytes()).collect();
    footer.extend(b"GNUlInUx");
    skipped(&mut bytes, &footer);
    let key = |of: &str| format!("io.github.containers.zstd-chunked.{of}");
    let annotations = json!({
        key("manifest-checksum"): digest(&packed),
        key("manifest-position"): format!("{at}:{}:{}:1", packed.len(), table.len()),
        key("tarsplit-position"): format!("{split_at}:{}:{}", packed_split.len(), split.len()),
    });
    Made::new(OCI_ZSTD, archive, bytes).annotated(annotations)
}

/// zstd:chunked by podman.
pub(super) fn zstd_chunked() -> Shape {
    let (shape, _) =
        Draft::oci("zstd-chunked", vec![Made::base(OCI_GZIP), chunked_layer()], config()).pack();
    shape.says("cat /etc/made-by; wc -c < /etc/other", "zstd:chunked\n10000")
}

/// Both of podman's forms under one name (`--add-compression`): an index with two images for one platform, which have
/// the same config; the one in zstd is annotated.
pub(super) fn both_compressions() -> Shape {
    let chunked = chunked_layer();
    let gzip = Made::gzip(OCI_GZIP, chunked.tar.clone(), Level::default());
    let (zstd_shape, zstd_manifest) =
        Draft::oci("both-compressions", vec![Made::base(OCI_GZIP), chunked], config()).pack();
    let (mut shape, manifest) =
        Draft::oci("both-compressions", vec![Made::base(OCI_GZIP), gzip], config()).pack();
    assert_eq!(shape.id, zstd_shape.id);
    shape.blobs.extend(zstd_shape.blobs.into_iter().filter(|of| of.media_type == OCI_ZSTD));
    let is_zstd = json!({"io.github.containers.compression.zstd": "true"});
    let entries = [
        described(&manifest, json!({"platform": platform()})),
        described(&zstd_manifest, json!({"platform": platform(), "annotations": is_zstd})),
    ];
    let shape = shape.indexed(&entries, json!({}), vec![manifest, zstd_manifest]);
    shape.says("cat /etc/made-by", "zstd:chunked")
}

/// zstd:chunked by stargz-snapshotter: the table of eStargz in a frame that decoders skip, a footer of 40 bytes with
/// another spelling of the magic, and an archive without an end.
pub(super) fn zstd_chunked_by_stargz() -> Shape {
    let tar = Tar::ustar().file(LANDMARK, 0, "\x0f").at(1_704_067_200).dir("etc/", 0o755).file(
        "etc/made-by",
        0o644,
        "stargz\n",
    );
    let archive = tar.open_end().to_vec();
    let (mut bytes, entries) = parts(&tar, &archive, frame);
    let table = serde_json::to_vec_pretty(&json!({"version": 1, "entries": entries}));
    let table = table.or_fail("make a shape");
    let packed = frame(&table);
    let at = skipped(&mut bytes, &packed);
    let places = [at, packed.len(), table.len(), 1];
    let mut footer: Vec<u8> = places.iter().flat_map(|of| (*of as u64).to_le_bytes()).collect();
    footer.extend(b"GnUlInUx");
    skipped(&mut bytes, &footer);
    let annotations = json!({
        TOC_DIGEST: digest(&table),
        "io.containers.zstd-chunked.manifest-checksum": digest(&packed),
        "io.containers.zstd-chunked.manifest-position": format!("{at}:{}:{}:1", packed.len(), table.len()),
    });
    let upper = Made::new(OCI_ZSTD, archive, bytes).annotated(annotations);
    let layers = vec![Made::base(OCI_GZIP), upper];
    let (shape, manifest) = Draft::oci("stargz-zstd-chunked", layers, config()).pack();
    let entry = described(&manifest, json!({"platform": platform()}));
    shape.indexed(&[entry], json!({}), vec![manifest]).says("cat /etc/made-by", "stargz")
}
