// SPDX-License-Identifier: Apache-2.0
//! One life of a machine between two power cuts. Runs in the VM, which is killed at any moment
//! (`make power-cuts`): first looks at what the last cut left, then makes work until the next.
//!
//! Its lines begin with `power:`. `stored IMAGE` is said once a pull was answered, `dropping IMAGE` before
//! its removal is asked for; the script that cuts the power keeps count and hands the list of what must be
//! there to the next life, in `$1`. `at WORKER VERB` is what is under way, to know what a cut
//! hit. `wrong …` is a finding, `looked` says that there is no more.

use hull_proto::cri as api;
use hull_tests::cri::{idle, shell};
use hull_tests::image::{Image, digest};
use hull_tests::layer::Layer;
use hull_tests::registry::Registry;
use hull_tests::shell::{names, say};
use hull_tests::{Cri, ExpectExt as _, eventually, fixture, paths};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Images that are pulled and dropped again.
const IMAGES: u32 = 6;
/// Number of workers that run side by side.
const WORKERS: u32 = 3;
const ROOT: &str = "/var/lib/power";

fn main() {
    let stored = std::env::args().nth(1).or_fail("read the path of the list of stored images");
    let stored = fs::read_to_string(stored).unwrap_or_default();
    let stored: BTreeSet<String> = stored.lines().map(str::to_owned).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.or_fail("make a runtime").block_on(live(stored));
}

async fn live(stored: BTreeSet<String>) {
    let registry = Registry::start();
    for number in 0..IMAGES {
        registry.push(&format!("power/{number}"), "1", &image(number).pack());
    }
    let root = Path::new(ROOT);
    fs::create_dir_all(root.join("logs")).or_fail("make the daemon's directories");
    let config = root.join("hull.toml");
    let text = format!(
        "state_dir = \"{ROOT}/state\"\ndata_dir = \"{ROOT}/data\"\nsocket = \"/run/power.sock\"\n\
         [[image.registry]]\nhost = \"registry.test\"\nmirrors = [\"http://{}/v2\"]\n",
        registry.host
    );
    fs::write(&config, text).or_fail("write the daemon's config");
    let log = fs::File::options().create(true).append(true).open("/job/out/hull.log");
    let log = log.or_fail("open the daemon's log");
    let mut daemon = Command::new(paths::hull())
        .args(["serve", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .or_fail("start the daemon");
    let cri = Cri::at(Path::new("/run/power.sock"), &root.join("logs"));
    eventually("the daemon answers", || {
        let ended = daemon.try_wait().or_fail("look after the daemon");
        let mut runtime = cri.runtime.clone();
        async move {
            if let Some(status) = ended {
                let log = fs::read_to_string("/job/out/hull.log").unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                say(&format!("power: wrong the daemon does not start: {status}: {last}"));
            }
            let asked = runtime.version(api::VersionRequest::default()).await;
            asked.map(drop).map_err(|status| status.to_string())
        }
    })
    .await;
    look(&cri, &stored).await;
    say("power: looked");
    let workers = (0..WORKERS).map(|worker| tokio::spawn(work(cri.clone(), worker)));
    for worker in workers.collect::<Vec<_>>() {
        worker.await.or_fail("let a worker go on");
    }
}

/// An image that can tell whether it is whole, in layers that take a while.
fn image(number: u32) -> Image {
    let mut layers = vec![fixture::busybox_layer().tar()];
    let mut sums = String::new();
    for part in 0..3 {
        // Nothing that compresses well, and the same in every life.
        let mut seed = u64::from(number * 31 + part + 1);
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33).to_le_bytes()
        })
        .flatten()
        .take(400_000)
        .collect();
        let path = format!("data-{part}");
        let sum = digest(&bytes);
        sums.push_str(&format!("{}  /{path}\n", sum.trim_start_matches("sha256:")));
        layers.push(Layer::new().file(&path, 0o644, bytes).tar());
    }
    layers.push(Layer::new().file("sums", 0o644, sums).tar());
    Image::new(layers, json!({"Cmd": ["sh"]}))
}

fn name(number: u32) -> String {
    format!("registry.test/power/{number}:1")
}

/// Checks what the cut left: nothing that runs, nothing half made, and every image whole that is listed.
async fn look(cri: &Cri, stored: &BTreeSet<String>) {
    let wrong = |what: String| say(&format!("power: wrong {what}"));
    // As a kubelet does after a reboot: what is listed has a status, does not run, and can be taken away.
    let request = api::ListContainersRequest::default();
    let listed = cri.runtime.clone().list_containers(request).await;
    for container in listed.or_fail("list the containers").into_inner().containers {
        let status =
            cri.inspect(&container.id).await.map(|answer| answer.status.unwrap_or_default());
        match status.as_ref().map(api::ContainerStatus::state) {
            Ok(api::ContainerState::ContainerExited | api::ContainerState::ContainerCreated) => {}
            _ => wrong(format!("container {} is {status:?} after a reboot", container.id)),
        }
    }
    for pod in cri.pods().await {
        if let Err(status) = cri.pod_status(&pod.id).await {
            wrong(format!("pod {} is listed and has no status: {status}", pod.id));
        }
        if pod.state() != api::PodSandboxState::SandboxNotready {
            wrong(format!("pod {} is ready after a reboot", pod.id));
        }
        for verb in ["stop", "remove"] {
            let done = match verb {
                "stop" => cri.stop_pod(&pod.id).await,
                _ => cri.remove_pod(&pod.id).await,
            };
            if let Err(status) = done {
                wrong(format!("cannot {verb} pod {}: {status}", pod.id));
            }
        }
    }
    for dir in ["data/containers", "state/run", "state/pods", "state/containers", "state/network"] {
        let left = names(&Path::new(ROOT).join(dir));
        let left: Vec<_> =
            left.iter().filter(|name| name.len() == 64 || name.len() == 69).collect();
        if !left.is_empty() {
            wrong(format!("{dir} still has {left:?}"));
        }
    }
    let request = api::ListImagesRequest::default();
    let listed = cri.image.clone().list_images(request).await;
    let listed = listed.or_fail("list the images").into_inner().images;
    let tags: BTreeSet<String> = listed.iter().flat_map(|image| image.repo_tags.clone()).collect();
    for missing in stored.difference(&tags) {
        wrong(format!("{missing} was stored and is not listed"));
    }
    if tags.is_empty() {
        return;
    }
    let pod = cri.run_pod("look").await.or_fail("run a pod after the cut");
    for tag in &tags {
        let said = cri
            .output(&pod, shell(&digest(tag.as_bytes())[7..15], tag, "sha256sum -c /sums"))
            .await;
        if said.code != 0 {
            wrong(format!("{tag} is listed and not whole: {said:?}"));
        }
    }
    cri.remove_pod(&pod).await.or_fail("remove the pod after the cut");
}

/// Pulls, runs, stops, drops, over and over. An error is not a finding here: two workers may meet.
async fn work(cri: Cri, worker: u32) {
    for turn in 0u32.. {
        let at = |verb: &str| say(&format!("power: at {worker} {verb}"));
        let tag = name((turn * WORKERS + worker) % IMAGES);
        at("pull");
        if cri.pull(&tag).await.is_err() {
            continue;
        }
        say(&format!("power: stored {tag}"));
        at("run");
        if let Ok(pod) = cri.run_pod(&format!("pod-{worker}-{turn}")).await {
            at("start");
            if let Ok(made) = cri.create(&pod, idle("main", &tag)).await {
                let started = cri.start(&made).await.is_ok();
                if started {
                    at("exec");
                    let write = ["sh", "-c", "head -c 300000 /data-0 > /written; rm /data-1"];
                    let _ended = cri.exec(&made, &write).await;
                }
                at("stop");
                let _stopped = cri.stop(&made, 0).await;
            }
            if turn % 2 == 0 {
                at("remove");
                let _removed = cri.remove_pod(&pod).await;
            }
        }
        if turn % 3 == worker {
            at("drop");
            say(&format!("power: dropping {tag}"));
            let image = Some(hull_tests::cri::image(&tag));
            let request = api::RemoveImageRequest { image };
            let _removed = cri.image.clone().remove_image(request).await;
        }
    }
}
