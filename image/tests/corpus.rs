// SPDX-License-Identifier: Apache-2.0
//! Images that are small as they travel and would be dear to take: each is pulled in a process of its own, and
//! must end as it should, soon, with little memory and little on the disk.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Fake, TestStore, can_run, serves, told};
use hull_tests::image::{Blob, MANIFEST, Packed, this_arch};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tar::{Builder, EntryType, Header};

/// Of the process that pulls, in all: an idle one has 20 MB.
const MEMORY_BYTES_MAX: u64 = 150 << 20;
const SECONDS_MAX: u64 = 300;

/// What an image should come to.
#[derive(Clone, Copy)]
enum End {
    /// It is taken, is whole, and has less than so many bytes on the disk.
    Taken(u64),
    /// It is refused, with these words.
    Refused(&'static str),
}

/// Name, end, and the seconds of processor time that a layer may take.
const CORPUS: [(&str, End, u64); 12] = [
    ("headers before an entry that never comes", End::Refused("header_bytes_max"), 3600),
    ("large headers before every entry", End::Taken(16 << 20), 3600),
    ("links that wait", End::Taken(64 << 20), 3600),
    ("directories of long names, walked", End::Taken(400 << 20), 3600),
    ("links of long names, walked", End::Taken(400 << 20), 3600),
    ("a hole and a link to it", End::Taken(1 << 20), 3600),
    ("a hole that is walked", End::Taken(1 << 20), 3600),
    ("holes beyond measure", End::Refused("layer_apparent_bytes_max"), 3600),
    ("windows as large as they may be", End::Taken(140 << 20), 3600),
    ("a window that is larger", End::Refused("too much memory"), 3600),
    ("a config of nothing", End::Refused("document_values_max"), 3600),
    ("processor time", End::Refused("layer_seconds_max"), 1),
];

/// A layer, packed while it is written: none of it is in memory as it will be inflated.
struct Layer {
    tar: Builder<Hashed>,
}

struct Hashed {
    packed: zstd::Encoder<'static, Vec<u8>>,
    hasher: sha2::Sha256,
}

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(&mut self.hasher, bytes);
        self.packed.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.packed.flush()
    }
}

impl Layer {
    fn new() -> Self {
        Self::windowed(20)
    }

    fn windowed(log: u32) -> Self {
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packed.window_log(log).unwrap();
        Self { tar: Builder::new(Hashed { packed, hasher: sha2::Digest::new() }) }
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
        self.tar.append_data(&mut header, path, bytes).unwrap();
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(EntryType::Link, 0);
        self.tar.append_link(&mut header, path, target).unwrap();
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
            .unwrap();
        self.add(EntryType::Regular, path, b"x")
    }

    fn raw(mut self, kind: EntryType, bytes: &[u8]) -> Self {
        let mut header = Self::header(kind, bytes.len() as u64);
        header.set_path("raw").unwrap();
        header.set_cksum();
        self.tar.append(&header, bytes).unwrap();
        self
    }

    /// Itself packed, and its diff id.
    fn pack(self) -> (Blob, String) {
        let Hashed { packed, hasher } = self.tar.into_inner().unwrap();
        let media_type = "application/vnd.oci.image.layer.v1.tar+zstd".into();
        let hash = sha2::Digest::finalize(hasher);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        (Blob { media_type, bytes: packed.finish().unwrap() }, format!("sha256:{hex}"))
    }
}

fn packed(layers: Vec<Layer>, history: &Value) -> Packed {
    let (layers, diff_ids): (Vec<Blob>, Vec<String>) = layers.into_iter().map(Layer::pack).unzip();
    let config = json!({
        "architecture": this_arch(), "os": "linux", "config": {}, "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let media_type = "application/vnd.oci.image.config.v1+json".into();
    let config = Blob { media_type, bytes: config.to_string().into_bytes() };
    let described: Vec<Value> = layers.iter().map(Blob::descriptor).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": config.descriptor(), "layers": described,
    });
    let manifest = Blob { media_type: MANIFEST.into(), bytes: manifest.to_string().into_bytes() };
    Packed { blobs: [vec![config], layers].concat(), manifest, arch: this_arch().into() }
}

/// A directory as deep as a name may be long.
fn deep(top: &str) -> String {
    format!("{top}/{}", format!("{}/", "e".repeat(200)).repeat(18))
}

/// Replaces an entry: the layer is looked through when it is unpacked.
fn walked(layer: Layer) -> Layer {
    layer.add(EntryType::Regular, "end", b"").add(EntryType::Regular, "end", b"")
}

fn layers(name: &str) -> Vec<Layer> {
    let (file, directory) = (EntryType::Regular, EntryType::Directory);
    let numbered =
        |count: u32, add: &dyn Fn(Layer, u32) -> Layer| (0..count).fold(Layer::new(), add);
    let large = vec![b'a'; 1 << 20];
    let (from, to) = (deep("from"), deep("to"));
    match name {
        "headers before an entry that never comes" => {
            vec![numbered(300, &|layer, _| layer.raw(EntryType::XGlobalHeader, &large))]
        }
        "large headers before every entry" => vec![numbered(200, &|layer, number| {
            let layer = layer.raw(EntryType::XGlobalHeader, &large);
            let layer = layer.raw(EntryType::XGlobalHeader, &large[..900 << 10]);
            layer.add(file, &format!("f{number}"), b"x")
        })],
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
        "a hole and a link to it" => {
            vec![Layer::new().sparse("hole", 1 << 40), Layer::new().link("two", "hole")]
        }
        "a hole that is walked" => vec![walked(Layer::new().sparse("hole", 3 << 40))],
        "holes beyond measure" => {
            vec![Layer::new().sparse("one", 3 << 40).sparse("two", 3 << 40)]
        }
        "windows as large as they may be" => {
            let zeros = vec![0; 34 << 20];
            let layer = |of| Layer::windowed(25).add(file, &format!("zeros{of}"), &zeros);
            (0..4).map(layer).collect()
        }
        "a window that is larger" => {
            vec![Layer::windowed(27).add(file, "zeros", &vec![0; 130 << 20])]
        }
        "processor time" => vec![numbered(200_000, &|layer, number| {
            layer.add(directory, &format!("d{number}"), b"")
        })],
        _ => vec![Layer::new().add(file, "f", b"x")],
    }
}

/// Largest that this process was. `VmHWM` of proc_pid_status(5).
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Runs one test of this program in a process of its own, and gives what it says of its memory.
fn alone(test: &str, image: &str) -> u64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("HOSTILE_IMAGE", image)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{image}: {said}{}", String::from_utf8_lossy(&child.stderr));
    let peak = said.lines().find_map(|line| line.split_once("peak ")).unwrap().1;
    peak.trim().parse().unwrap()
}

/// What a process of its own does; by itself it pulls an image that means no harm.
#[test]
fn one_image_is_pulled_and_ends_as_it_should() {
    if !can_run("one_image_is_pulled_and_ends_as_it_should") {
        return;
    }
    let own = Fake::start(serves(&packed(layers("harmless"), &json!([])), "a/b", "1"));
    let told_to = std::env::var("HOSTILE_IMAGE").unwrap_or_else(|_| format!("{}|", own.host));
    let (host, name) = told_to.split_once('|').unwrap();
    let harmless = ("", End::Taken(1 << 20), 3600);
    let (_, end, seconds) = *CORPUS.iter().find(|of| of.0 == name).unwrap_or(&harmless);
    let store = TestStore::configured(|config| config.limits.seconds = seconds);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pulled = runtime.block_on(store.pull(&format!("{host}/a/b:1")));
    match (pulled, end) {
        (Ok(_), End::Taken(bytes)) => {
            let all = runtime.block_on(store.store.verify(None)).unwrap();
            assert!(all.iter().all(hull_image::Verified::is_whole), "{all:?}");
            let taken = on_disk(&store.at("layers"));
            assert!(taken <= bytes, "{taken} bytes on the disk");
        }
        (Err(err), End::Refused(words)) => {
            assert!(told(&err).contains(words), "{}", told(&err));
            assert!(store.names("tmp").is_empty() && store.names("layers").is_empty());
        }
        (Ok(_), End::Refused(words)) => panic!("taken, but should be refused: {words}"),
        (Err(err), End::Taken(_)) => panic!("{}", told(&err)),
    }
    println!("peak {}", peak_bytes());
}

/// Bytes that a tree takes, holes not counted.
fn on_disk(path: &Path) -> u64 {
    let du = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let said = String::from_utf8(du.stdout).unwrap();
    said.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn no_image_costs_more_than_it_may() {
    if !can_run("no_image_costs_more_than_it_may") {
        return;
    }
    let mut dear = Vec::new();
    for (name, ..) in CORPUS {
        let history = match name {
            "a config of nothing" => json!(vec![json!({}); 2_000_000]),
            _ => json!([]),
        };
        let packed = packed(layers(name), &history);
        let size: usize = packed.blobs.iter().map(|of| of.bytes.len()).sum();
        let fake = Fake::start(serves(&packed, "a/b", "1"));
        let began = Instant::now();
        let image = format!("{}|{name}", fake.host);
        let peak = alone("one_image_is_pulled_and_ends_as_it_should", &image);
        let took = began.elapsed().as_secs();
        println!("{name}: {size} bytes, peak {} MiB, {took} s", peak >> 20);
        if peak > MEMORY_BYTES_MAX || took > SECONDS_MAX {
            dear.push((name, peak, took));
        }
    }
    assert!(dear.is_empty(), "{dear:?}");
}

/// What a container writes is measured by walking it: by a daemon that other pods need.
#[test]
fn a_container_of_many_directories_is_measured_in_little_memory() {
    if !can_run("a_container_of_many_directories_is_measured_in_little_memory") {
        return;
    }
    const DIRECTORIES: u64 = 100_000;
    if std::env::var("HOSTILE_IMAGE").is_err() {
        let peak = alone("a_container_of_many_directories_is_measured_in_little_memory", "|");
        println!("measured with a peak of {} MiB", peak >> 20);
        assert!(peak < 64 << 20, "{peak}");
        return;
    }
    let fake = Fake::start(serves(&packed(layers("harmless"), &json!([])), "a/b", "1"));
    let store = TestStore::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let image = runtime.block_on(store.pull(&format!("{}/a/b:1", fake.host))).unwrap();
    let rootfs = store.store.create_rootfs("c", &image, &|uid, gid| (uid, gid)).unwrap();
    let before = store.store.rootfs_usage("c").unwrap().inodes;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(&rootfs.upper, flags, Mode::empty()).unwrap();
    for _ in 0..18 {
        let name = "e".repeat(200);
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    for number in 0..DIRECTORIES {
        mkdirat(&at, number.to_string(), Mode::RWXU).unwrap();
    }
    let inodes = store.store.rootfs_usage("c").unwrap().inodes;
    assert_eq!(inodes, before + 18 + DIRECTORIES);
    store.store.remove_rootfs("c").unwrap();
    println!("peak {}", peak_bytes());
}
