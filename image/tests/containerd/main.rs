// SPDX-License-Identifier: Apache-2.0
//! The same images pulled by Hull and by containerd: their trees are the same, or differ as docs/differences.md says.
//!
//! It needs containerd and its client, which `make baselines` builds, so it runs only by its name. `IMAGES` is the number
//! of images; `make compare-images` sets it to 300, prints what differs and why, and the times of the pulls.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod generate;
mod images;
mod peer;
mod reasons;
mod tree;

use hull_image::{Config, Image, Reference, Remote, Store, view};
use hull_tests::random;
use hull_tests::shell::say;
use images::Subject;
use peer::Containerd;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tree::Tree;

/// Images of one run, if `IMAGES` says nothing else.
const IMAGES: u64 = 24;
/// Differences without a reason that are printed.
const PRINTED_MAX: usize = 20;

/// Both runtimes, and an empty directory that lies below all layers, since an overlay needs two.
struct Both {
    store: Store,
    containerd: Containerd,
    empty: PathBuf,
}

/// The results of all images.
#[derive(Default)]
struct Summary {
    same: usize,
    /// Reasons, with the number of images that they explain.
    reasons: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
    paths: usize,
    hull: Duration,
    containerd: Duration,
}

#[tokio::test]
async fn images_have_the_tree_that_containerd_makes_of_them() {
    let test = "images_have_the_tree_that_containerd_makes_of_them";
    if !rustix::process::geteuid().is_root() {
        return hull_tests::paths::cannot_run(test, "root");
    }
    let Some(programs) = peer::programs() else {
        return hull_tests::paths::cannot_run(test, "containerd and ctr: run `make baselines`");
    };
    let seed = random::seed(test);
    let wanted = std::env::var("IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(IMAGES);
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let remote = Remote { pause: Duration::from_millis(1), ..Default::default() };
    let config = Config {
        root: dir.path().join("store"),
        remote,
        concurrent_layers: 4,
        ..Default::default()
    };
    let store = Store::open(config).unwrap().0;
    let both = Both { store, containerd: Containerd::start(&programs, dir.path()), empty };
    let mut summary = Summary::default();
    for number in 0..wanted {
        let subject = images::subject(&random::Random::new(seed), number);
        compare(&both, &subject, &mut summary).await;
    }
    summary.report(wanted);
}

async fn compare(both: &Both, subject: &Subject, summary: &mut Summary) {
    let began = Instant::now();
    let reference = Reference::parse(&subject.reference).unwrap();
    let hull = both.store.pull(&reference, None, None).await;
    summary.hull += began.elapsed();
    let began = Instant::now();
    let containerd = both.containerd.pull(&subject.reference);
    summary.containerd += began.elapsed();
    let hull = hull.map(|image| both.tree_of_hull(&image)).map_err(|err| told(&err));
    let containerd = containerd.map(|()| both.tree_of_containerd(subject));
    let mut reasons: BTreeMap<&'static str, ()> = BTreeMap::new();
    let mut unexplained = String::new();
    match (&hull, &containerd) {
        (Ok(one), Ok(other)) => {
            summary.paths += one.nodes.len();
            for (path, differences) in tree::differences(one, other) {
                for difference in differences {
                    match reasons::of_path(subject, &path, &difference, (one, other)) {
                        Some(reason) => drop(reasons.insert(reason, ())),
                        None => writeln!(unexplained, "  {path:?}: {difference}").unwrap(),
                    }
                }
            }
        }
        (one, other) => {
            let words = |of: &Result<Tree, String>| of.as_ref().err().cloned().unwrap_or_default();
            let (one, other) = (words(one), words(other));
            match reasons::of_failure(&one, &other) {
                Some(reason) => drop(reasons.insert(reason, ())),
                None => writeln!(unexplained, "  Hull: {one}\n  containerd: {other}").unwrap(),
            }
        }
    }
    if reasons.is_empty() && unexplained.is_empty() {
        summary.same += 1;
    }
    for reason in reasons.into_keys() {
        *summary.reasons.entry(reason).or_default() += 1;
    }
    if !unexplained.is_empty() {
        let notes = subject.notes.join("\n    ");
        summary.unexplained.push(format!("{}:\n{unexplained}    {notes}", subject.name));
    }
}

impl Both {
    fn tree_of_hull(&self, image: &Image) -> Tree {
        let mut layers = self.store.volume_layers(image);
        // The mount points of every container, which are not the image's.
        layers.pop();
        self.stacked(layers)
    }

    fn tree_of_containerd(&self, subject: &Subject) -> Tree {
        self.stacked(self.containerd.layers(&subject.diff_ids))
    }

    fn stacked(&self, mut layers: Vec<PathBuf>) -> Tree {
        layers.push(self.empty.clone());
        let tree: OwnedFd = view(&layers).unwrap();
        tree::read(Path::new(&format!("/proc/self/fd/{}", tree.as_raw_fd())))
    }
}

/// The error with its causes.
fn told(error: &hull_image::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl Summary {
    fn report(&self, images: u64) {
        say(&format!(
            "{} of {images} images have the same tree in Hull and in containerd ({} paths in all)",
            self.same, self.paths
        ));
        for (reason, count) in &self.reasons {
            say(&format!("{count} differ: {reason}"));
        }
        say(&format!(
            "pulls: Hull {:.1} s, containerd {:.1} s with its client",
            self.hull.as_secs_f64(),
            self.containerd.as_secs_f64()
        ));
        assert!(self.paths > 0 && self.same > 0, "no image was compared");
        let count = self.unexplained.len();
        let some: Vec<&String> = self.unexplained.iter().take(PRINTED_MAX).collect();
        let text = some.into_iter().fold(String::new(), |all, one| format!("{all}\n{one}"));
        assert!(count == 0, "{count} images differ without a reason:{text}");
    }
}
