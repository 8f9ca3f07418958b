// SPDX-License-Identifier: Apache-2.0
//! `make bench-pull`: what a pull costs the daemon: time, processor, bytes written, memory.
//!
//! It drives any CRI socket (`--endpoint`, several times to compare runtimes side by side) and reads the costs of
//! the process that listens there from /proc, so that all are measured by the same rule; children that
//! the process has waited for are counted in. Without an endpoint it starts a node of its own. The
//! images are made of files of this machine, compressed as builders do (gzip -6), and served by
//! `docker-registry` on loopback.
//!
//! Every pull is of an image of its own, and nothing is removed in between: ext4 does not give out inodes
//! again that went a minute ago, and looking for others costs more than the whole pull.

use hull_proto::cri as api;
use hull_tests::image::{Blob, Image, Packed, digest};
use hull_tests::layer::{Compression, Layer};
use hull_tests::registry::Registry;
use hull_tests::shell::say;
use hull_tests::{Cri, ExpectExt as _, Node};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const USAGE: &str = "\
bench_pull [--endpoint SOCKET]… [--node] [--runs N] [--percent N] [--images N] [--large MB]
  --endpoint  a CRI socket, may be given again
  --node      a node of its own, which is measured first; goes without saying if there is no endpoint
  --runs      pulls of each image (3); the median counts
  --percent   sizes of the images, unpacked, in percent of 650 and 318 MB (100)
  --images    images that are stored while lists are timed on that node (1000; 0 leaves it out)
  --large     pull one image of that size to that node instead: four layers, one file each";

/// Where files are taken from, in this order.
const SOURCES: [&str; 5] = ["/usr/lib", "/usr/local/go", "/usr/share", "/usr/bin", "/usr/include"];
/// Larger files would make layers uneven.
const FILE_BYTES_MAX: u64 = 24 << 20;
/// As builders have it.
const GZIP_LEVEL: u32 = 6;
/// Of the filesystem.
const BLOCK: u64 = 4096;
/// `USER_HZ`.
const TICKS_PER_S: f64 = 100.0;

struct Asked {
    endpoints: Vec<PathBuf>,
    node: bool,
    runs: usize,
    percent: u64,
    images: usize,
    large: u64,
}

fn asked() -> Asked {
    let (endpoints, node, large) = (Vec::new(), false, 0);
    let mut asked = Asked { endpoints, node, runs: 3, percent: 100, images: 1000, large };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().or_fail(format!("find a value after {arg}; {USAGE}"));
        match arg.as_str() {
            "--endpoint" => {
                asked.endpoints.push(value().trim_start_matches("unix://").into());
            }
            "--node" => asked.node = true,
            "--large" => asked.large = value().parse().or_fail("read --large"),
            "--runs" => asked.runs = value().parse().or_fail("read --runs"),
            "--percent" => asked.percent = value().parse().or_fail("read --percent"),
            "--images" => asked.images = value().parse().or_fail("read --images"),
            _ => panic!("{USAGE}"),
        }
    }
    asked
}

fn main() {
    let asked = asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_fail("make a runtime").block_on(async {
        let registry = Registry::start();
        let images = if asked.large == 0 {
            images(&asked, &registry)
        } else {
            vec![large(asked.large, &registry)]
        };
        if asked.node || asked.endpoints.is_empty() {
            let node = Node::start_with("").await;
            bench(&node.cri(), &node.socket(), &images).await;
            if asked.images > 0 {
                lists(&node.cri(), asked.images).await;
            }
        }
        for socket in &asked.endpoints {
            say(&format!("{}:", socket.display()));
            bench(&Cri::at(socket, Path::new("/nowhere")), socket, &images).await;
        }
    });
}

/// Images to pull: a title, and a reference for every run.
type Named = (String, Vec<String>);

fn images(asked: &Asked, registry: &Registry) -> Vec<Named> {
    let megabytes = |of: u64| of * 1_000_000 * asked.percent / 100;
    let of = [("eleven", 11, megabytes(650)), ("one", 1, megabytes(318))];
    of.map(|(name, layers, bytes)| {
        let (mut size, mut floor) = (0, 0);
        let push = |run: usize| {
            let (packed, least) = packed(layers, bytes, run);
            floor = least;
            size = packed.blobs.iter().map(|blob| blob.bytes.len()).sum();
            registry.push(name, &run.to_string(), &packed)
        };
        let references = (0..asked.runs).map(push).collect();
        let title = format!(
            "{layers} gzip layer(s), {} MB unpacked ({} MB of blocks), {} MB compressed",
            bytes / 1_000_000,
            floor / 1_000_000,
            size / 1_000_000
        );
        (title, references)
    })
    .to_vec()
}

/// An image that holds next to nothing back: hexadecimal digits of no pattern, which halve.
fn large(megabytes: u64, registry: &Registry) -> Named {
    const LAYERS: u64 = 4;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = usize::try_from(megabytes * 1_000_000 / LAYERS).or_fail("fit a layer into memory");
    let tars = (0..LAYERS).map(|number| {
        let mut state = number + 1;
        let content = std::iter::repeat_with(|| {
            // Xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            DIGITS[usize::from(state.to_le_bytes()[3] & 15)]
        });
        let content: Vec<u8> = content.take(bytes).collect();
        Layer::new().file(&format!("large-{number}"), 0o644, content).tar()
    });
    let packed = of_layers(tars.collect(), 1);
    let size: usize = packed.blobs.iter().map(|blob| blob.bytes.len()).sum();
    let title = format!("{LAYERS} layers, {megabytes} MB, {} MB compressed", size / 1_000_000);
    (title, vec![registry.push("large", "0", &packed)])
}

/// An image of files of this machine, `bytes` in all; each run has other layers. Gives the bytes of the blocks
/// that its files and directories take as well: nothing that unpacks it can write less.
fn packed(count: usize, bytes: u64, run: usize) -> (Packed, u64) {
    let mut files = Vec::new();
    for source in SOURCES {
        walk(Path::new(source), &mut files);
    }
    let mut files = files.into_iter();
    let each = bytes / count as u64;
    let (tars, blocks): (Vec<Vec<u8>>, Vec<u64>) =
        (0..count).map(|number| layer(run * count + number, each, &mut files)).unzip();
    (of_layers(tars, GZIP_LEVEL), blocks.iter().sum())
}

/// An image of these archives, each compressed.
fn of_layers(tars: Vec<Vec<u8>>, level: u32) -> Packed {
    let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
    let blobs: Vec<Blob> = std::thread::scope(|scope| {
        let pack = |tar| scope.spawn(move || gzip(tar, level));
        let running: Vec<_> = tars.into_iter().map(pack).collect();
        running.into_iter().map(|of| of.join().ok().or_fail("compress a layer")).collect()
    });
    let mut packed = Image::new(Vec::new(), json!({})).pack();
    let mut config: serde_json::Value =
        serde_json::from_slice(&packed.blobs[0].bytes).or_fail("read a config");
    config["rootfs"]["diff_ids"] = json!(diff_ids);
    packed.blobs[0].bytes = config.to_string().into_bytes();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&packed.manifest.bytes).or_fail("read a manifest");
    manifest["config"] = packed.blobs[0].descriptor();
    manifest["layers"] = blobs.iter().map(Blob::descriptor).collect();
    packed.manifest.bytes = manifest.to_string().into_bytes();
    packed.blobs.extend(blobs);
    packed
}

fn gzip(tar: Vec<u8>, level: u32) -> Blob {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    out.write_all(&tar).or_fail("compress a layer");
    let bytes = out.finish().or_fail("compress a layer");
    Blob { media_type: Compression::Gzip.media_type().into(), bytes }
}

/// A layer, and the bytes of the blocks that it takes unpacked.
fn layer(
    number: usize,
    bytes: u64,
    files: &mut impl Iterator<Item = (PathBuf, u64)>,
) -> (Vec<u8>, u64) {
    let mut layer = Layer::new().file("which", 0o644, number.to_string());
    let mut left = bytes;
    let (mut blocks, mut directories) = (BLOCK, BTreeSet::new());
    for (path, size) in files {
        let name = path.strip_prefix("/").or_fail("shorten a path").display().to_string();
        layer = layer.copy(&name, &path);
        blocks += size.next_multiple_of(BLOCK);
        directories.extend(path.ancestors().skip(1).map(Path::to_owned));
        left = left.saturating_sub(size);
        if left == 0 {
            break;
        }
    }
    assert!(left < bytes / 2, "this machine has too few files to make layers of");
    (layer.tar(), blocks + BLOCK * directories.len() as u64)
}

fn walk(dir: &Path, files: &mut Vec<(PathBuf, u64)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        if stat.is_dir() {
            walk(&path, files);
        } else if stat.is_file() && stat.len() <= FILE_BYTES_MAX {
            files.push((path, stat.len()));
        }
    }
}

/// The cost of a pull.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu_s: f64,
    written: u64,
    peak_kib: u64,
}

async fn bench(cri: &Cri, socket: &Path, images: &[Named]) {
    let pid = listener(socket);
    for (title, references) in images {
        let mut costs = Vec::new();
        for reference in references {
            costs.push(pull(cri, pid, reference).await);
        }
        costs.sort_by_key(|cost| cost.wall);
        let Cost { wall, cpu_s, written, peak_kib } = costs[costs.len() / 2];
        say(&format!(
            "{title}: {:.2} s, {cpu_s:.2} s CPU, {} MB written, peak RSS {} MiB; walls {:?}",
            wall.as_secs_f64(),
            written / 1_000_000,
            peak_kib >> 10,
            costs.iter().map(|cost| cost.wall.as_millis()).collect::<Vec<_>>(),
        ));
    }
}

/// Pulls the image once, and measures that.
async fn pull(cri: &Cri, pid: i32, reference: &str) -> Cost {
    // Resets the peak.
    let clear = format!("/proc/{pid}/clear_refs");
    fs::write(&clear, "5").or_fail(format!("write {clear}"));
    let (cpu, written, began) = (cpu_s(pid), written(pid), Instant::now());
    let _id = cri.pull(reference).await.or_fail(format!("pull {reference}"));
    let cost = Cost {
        wall: began.elapsed(),
        cpu_s: cpu_s(pid) - cpu,
        written: self::written(pid) - written,
        peak_kib: field(&format!("/proc/{pid}/status"), "VmHWM:"),
    };
    nix::unistd::sync();
    cost
}

/// Pid of the process that listens on a socket.
fn listener(socket: &Path) -> i32 {
    let stream = UnixStream::connect(socket).or_fail(format!("connect to {}", socket.display()));
    getsockopt(&stream, PeerCredentials).or_fail("ask who listens").pid()
}

/// Of the process and the children that it has waited for.
fn cpu_s(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).or_fail("read its times");
    let behind_name = stat.rsplit(')').next().or_fail("read its times");
    let ticks = |of: usize| behind_name.split_whitespace().nth(of).and_then(|of| of.parse().ok());
    (11..15).map(|of| ticks(of).unwrap_or(0.0)).sum::<f64>() / TICKS_PER_S
}

fn written(pid: i32) -> u64 {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).or_fail(format!("read {path}"));
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.or_fail(format!("find {name} in {path}"))
}

/// Times the lists that a kubelet asks for again and again, with many images stored.
async fn lists(cri: &Cri, count: usize) {
    let archive = many(count);
    let chunks: Vec<_> = archive
        .chunks(1 << 20)
        .map(|data| hull_proto::admin::ImportChunk { data: data.to_vec(), name: String::new() })
        .collect();
    let began = Instant::now();
    let request = futures_util::stream::iter(chunks);
    let _imported = cri.admin.clone().import(request).await.or_fail("import many images");
    say(&format!("import of {count} images: {:.2} s", began.elapsed().as_secs_f64()));
    let (mut list, mut info) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let began = Instant::now();
        let request = api::ListImagesRequest::default();
        let all = cri.image.clone().list_images(request).await.or_fail("list images");
        assert!(all.into_inner().images.len() >= count);
        list.push(began.elapsed());
        let began = Instant::now();
        let request = api::ImageFsInfoRequest::default();
        let _info =
            cri.image.clone().image_fs_info(request).await.or_fail("ask for the space taken");
        info.push(began.elapsed());
    }
    for (verb, times) in [("ListImages", &mut list), ("ImageFsInfo", &mut info)] {
        times.sort();
        say(&format!(
            "{verb}, {count} images: p50 {:.2} ms, p95 {:.2} ms",
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() * 95 / 100].as_secs_f64() * 1e3
        ));
    }
}

/// A `docker save` archive of many images that share a layer.
fn many(count: usize) -> Vec<u8> {
    let tar = Layer::new().file("same", 0o644, "in all").tar();
    let mut archive = Layer::new().file("layer.tar", 0o644, &tar);
    let mut manifest = Vec::new();
    for number in 0..count {
        let image = Image::new(vec![tar.clone()], json!({"Env": [format!("NUMBER={number}")]}));
        let config = format!("{number}.json");
        archive = archive.file(&config, 0o644, &image.pack().blobs[0].bytes);
        let name = format!("many.example.org/image-{number}:1");
        manifest.push(json!({"Config": config, "RepoTags": [name], "Layers": ["layer.tar"]}));
    }
    archive.file("manifest.json", 0o644, json!(manifest).to_string()).tar()
}
