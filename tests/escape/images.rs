// SPDX-License-Identifier: Apache-2.0
//! Hostile images, pulled over a real registry and imported: each ends as it should, and costs the daemon no more
//! processor time, disk and memory than it may. An import ends with its caller.

use crate::registry::{Liar, descriptor, lives_on, manifest, say, typed};
use crate::scaled;
use hull_proto::cri as api;
use hull_proto::cri::image_service_client::ImageServiceClient;
use hull_tests::cri::channel_for;
use hull_tests::eventually::eventually_within;
use hull_tests::hostile::{BOMB_BYTES_MAX, BOMBS, CORPUS, End, Hostile, harmless};
use hull_tests::image::{MANIFEST, digest, oci_archive, this_arch};
use hull_tests::process::Process;
use hull_tests::shell::{self, run};
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tonic::transport::Channel;

/// Most memory that an image may cost the daemon, above that of an idle daemon: four layers at a time, each with the
/// largest window that a zstd frame may have.
const MEMORY_BYTES_MAX: u64 = 150 << 20;
/// Of the daemon, for one image, in a build without optimisation.
const PROCESSOR_MAX: Duration = Duration::from_secs(240);
/// Most bytes that may be written beside those that stay: records, names of links that wait, the archive while it is imported.
const WRITTEN_BYTES_MAX: u64 = 256 << 20;
/// Processor time that work may still take once its caller has left.
const WORK_LEFT_MAX: Duration = Duration::from_secs(5);
/// How long it may take to remove what was unpacked, on a busy machine.
const REMOVED_MAX: Duration = Duration::from_secs(240);
/// Those that the short form takes.
const SHORT: [&str; 5] = [
    "headers before an entry that never comes",
    "a hole and a link to it",
    "a hole that is walked",
    "a manifest of notes",
    "a bomb in gzip",
];

fn corpus() -> Vec<Hostile> {
    // What needs other settings is the image store's own to test.
    let all = CORPUS.into_iter().chain(BOMBS).filter(|of| of.seconds > 1);
    let in_full = scaled(0, 1) > 0;
    all.filter(|of| in_full || SHORT.contains(&of.name)).collect()
}

async fn node(more: &str) -> Node {
    Node::start_with(&format!("[image]\nlayer_bytes_max = {BOMB_BYTES_MAX}\n{more}")).await
}

/// Bytes that the daemon's data takes, holes not counted.
fn on_disk(node: &Node) -> u64 {
    let dir = node.data_dir().display().to_string();
    let said = run("du", ["-s", "--block-size=1", &dir]).good();
    said.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).or_fail("read du's answer")
}

/// Cost so far.
struct Cost {
    memory: u64,
    processor: Duration,
    written: u64,
    disk: u64,
}

impl Cost {
    fn now(node: &Node) -> Self {
        let daemon = Process(node.daemon_pid());
        let (processor, written) = (daemon.processor_time(), daemon.written_bytes());
        daemon.forget_peak();
        Self { memory: daemon.peak_bytes(), processor, written, disk: on_disk(node) }
    }
}

/// Judges one pull or import: the faults of the answer and of its cost.
fn judge(
    node: &Node,
    (what, image): (&str, &Hostile),
    before: &Cost,
    answer: &Result<(), String>,
) -> Vec<String> {
    let peak = Process(node.daemon_pid()).peak_bytes();
    let after = Cost::now(node);
    let processor = after.processor.saturating_sub(before.processor);
    let written = after.written.saturating_sub(before.written);
    let disk = after.disk.saturating_sub(before.disk);
    shell::say(&format!(
        "images: {}, {what}: {processor:.1?} of processor time, {} MiB written, {} MiB on the disk, {} MiB at most in memory",
        image.name,
        written >> 20,
        disk >> 20,
        peak >> 20,
    ));
    let mut wrong = Vec::new();
    let mut holds = |is_true: bool, text: String| {
        if !is_true {
            wrong.push(format!("{}, {what}: {text}", image.name));
        }
    };
    let most = match image.end {
        End::Taken(bytes) => {
            holds(answer.is_ok(), format!("refused: {answer:?}"));
            bytes
        }
        End::Refused(words) => {
            let refused = answer.as_ref().err();
            let is_so = refused.is_some_and(|text| text.contains(words));
            holds(is_so, format!("not refused with {words:?}: {answer:?}"));
            1 << 20
        }
    };
    // A layer that is refused for its size was written up to it.
    let on_the_way = if image.end == End::Refused("layer_bytes_max") { BOMB_BYTES_MAX } else { 0 };
    holds(disk <= most, format!("{disk} bytes stay on the disk"));
    let may = most + on_the_way + WRITTEN_BYTES_MAX;
    holds(written <= may, format!("{written} bytes were written"));
    holds(peak <= before.memory + MEMORY_BYTES_MAX, format!("{peak} bytes of memory"));
    holds(processor <= PROCESSOR_MAX, format!("{processor:?} of processor time"));
    wrong
}

/// A client with so much time that the limits are the daemon's.
fn client(node: &Node) -> ImageServiceClient<Channel> {
    ImageServiceClient::new(channel_for(&node.socket(), 2 * PROCESSOR_MAX))
}

async fn pulled(client: &ImageServiceClient<Channel>, reference: &str) -> Result<(), String> {
    let spec = Some(hull_tests::cri::image(reference));
    let request = api::PullImageRequest { image: spec, ..Default::default() };
    let answer = client.clone().pull_image(request).await;
    answer.map(drop).map_err(|status| status.message().to_owned())
}

async fn removed(client: &ImageServiceClient<Channel>, reference: &str) {
    let request = api::RemoveImageRequest { image: Some(hull_tests::cri::image(reference)) };
    client.clone().remove_image(request).await.or_fail("remove an image");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_images_cost_the_daemon_no_more_than_they_may() {
    let node = node("").await;
    let (client, daemon) = (client(&node), Process(node.daemon_pid()));
    let first = fixture::registry().push("hostile/harmless", "1", &harmless());
    pulled(&client, &first).await.expect_done("pull the image that means no harm");
    let before = daemon.memory();
    let mut wrong = Vec::new();
    for (number, image) in corpus().into_iter().enumerate() {
        let packed = image.pack();
        let name = format!("hostile/{number}");
        let reference = fixture::registry().push(&name, "1", &packed);
        let cost = Cost::now(&node);
        let answer = pulled(&client, &reference).await;
        wrong.extend(judge(&node, ("pulled", &image), &cost, &answer));
        removed(&client, &reference).await;
        let archive = node.host_dir().join("archive.tar");
        let imported = format!("hostile.example/{number}:1");
        fs::write(&archive, oci_archive(&packed, &imported)).or_fail("write an archive");
        let cost = Cost::now(&node);
        let ran = node.hull(&["import", &archive.display().to_string()]);
        let answer = if ran.code == 0 { Ok(()) } else { Err(ran.stderr) };
        wrong.extend(judge(&node, ("imported", &image), &cost, &answer));
        removed(&client, &imported).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    lives_on(&node).await;
    daemon.memory_returns("images: daemon", before).await;
}

/// Panics with a text that is not an error of Rust's.
trait ExpectDone {
    fn expect_done(self, what: &str);
}

impl ExpectDone for Result<(), String> {
    #[track_caller]
    fn expect_done(self, what: &str) {
        if let Err(text) = self {
            panic!("cannot {what}: {text}");
        }
    }
}

/// Waits until nothing of an image is on its way any more, and gives the processor time that it took until then.
async fn work_ends(node: &Node) -> Duration {
    let daemon = Process(node.daemon_pid());
    let began = daemon.processor_time();
    let tmp = node.data_dir().join("tmp");
    // What was unpacked is removed first, file by file.
    eventually_within(REMOVED_MAX, "nothing of the image is on its way", || async {
        let left = shell::names(&tmp);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    daemon.processor_time().saturating_sub(began)
}

/// A pull goes on when its caller leaves, for the next caller: that is the store's rule. An import is its caller's alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_import_of_a_hostile_image_ends_when_its_caller_leaves() {
    let node = node("").await;
    let daemon = Process(node.daemon_pid());
    let long = ["directories of long names, walked", "links of long names, walked"];
    let short = ["a hundred thousand files of one byte"];
    let names: Vec<&str> =
        if scaled(0, 1) > 0 { [&long[..], &short].concat() } else { short.to_vec() };
    for image in CORPUS.iter().filter(|of| names.contains(&of.name)) {
        let packed = image.pack();
        let archive = node.host_dir().join("archive.tar");
        fs::write(&archive, oci_archive(&packed, "hostile.example/left:1"))
            .or_fail("write an archive");
        let began = daemon.processor_time();
        let mut import = node.hull_command(&["import", &archive.display().to_string()]);
        let mut import = import.spawn().or_fail("import an archive");
        eventually("the daemon works on it", || async {
            let spent = daemon.processor_time().saturating_sub(began);
            if spent > Duration::from_millis(500) { Ok(()) } else { Err(format!("{spent:?}")) }
        })
        .await;
        assert!(import.try_wait().or_fail("look after the import").is_none(), "it ended too soon");
        import.kill().or_fail("end the import");
        import.wait().or_fail("wait for the import");
        let left = work_ends(&node).await;
        shell::say(&format!("images: {}: {left:?} after its caller had left", image.name));
        assert!(left <= WORK_LEFT_MAX, "{}: {left:?} of processor time", image.name);
    }
    lives_on(&node).await;
}

/// A registry that sends a layer a byte at a time, until its client leaves; `sending` counts them.
fn slow(sending: Arc<AtomicU32>) -> Liar {
    let layer = digest(b"layer");
    let config_text = json!({
        "architecture": this_arch(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [&layer]},
    })
    .to_string();
    Liar::start(move |asked, to: &mut dyn Write| {
        if asked.path.contains("/manifests/") {
            let (of, size) = (digest(config_text.as_bytes()), config_text.len().to_string());
            let config = descriptor("config.v1+json", &of, &size);
            let text = manifest(&config, &descriptor("layer.v1.tar+gzip", &layer, "1000000"));
            return say(to, "200 OK", &typed(MANIFEST), text.as_bytes());
        }
        if !asked.path.ends_with(&layer) {
            return say(to, "200 OK", "", config_text.as_bytes());
        }
        sending.fetch_add(1, Ordering::SeqCst);
        let sent = trickle(to);
        sending.fetch_sub(1, Ordering::SeqCst);
        sent
    })
}

fn trickle(to: &mut dyn Write) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
    loop {
        to.write_all(b"x")?;
        to.flush()?;
        // As slow as one that is far away: this is the registry, not the test.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pulls_from_a_slow_registry_cost_little_and_end() {
    let node = node("stall_s = 1\n").await;
    let (client, daemon) = (client(&node), Process(node.daemon_pid()));
    // What the first pull loads is there for good: certificates, and the client.
    let first = fixture::registry().push("hostile/harmless", "1", &harmless());
    pulled(&client, &first).await.expect_done("pull the image that means no harm");
    let before = daemon.memory();
    let sending = Arc::new(AtomicU32::new(0));
    let registry = slow(Arc::clone(&sending));
    daemon.forget_peak();
    let pulls: Vec<_> = (0..scaled(20, 100))
        .map(|number| {
            let (client, reference) = (client.clone(), registry.image(&format!("slow-{number}")));
            tokio::spawn(async move { pulled(&client, &reference).await })
        })
        .collect();
    eventually("the registry is asked for a layer", || async {
        let now = sending.load(Ordering::SeqCst);
        if now > 0 { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    // Others are served meanwhile.
    let quick = fixture::registry().push("hostile/quick", "1", &harmless());
    pulled(&client, &quick).await.expect_done("pull beside slow ones");
    for pull in pulls {
        let refused = pull.await.or_fail("wait for a pull");
        assert!(refused.is_err(), "a byte at a time is too slow");
    }
    eventually("the daemon has left the registry", || async {
        let now = sending.load(Ordering::SeqCst);
        if now == 0 { Ok(()) } else { Err(format!("{now} layers are being sent")) }
    })
    .await;
    let peak = daemon.peak_bytes();
    assert!(peak <= before.pss + MEMORY_BYTES_MAX, "{peak} bytes of memory");
    lives_on(&node).await;
    daemon.memory_returns("slow registry: daemon", before).await;
}
