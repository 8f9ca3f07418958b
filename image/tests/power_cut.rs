// SPDX-License-Identifier: Apache-2.0
//! Power cuts in the midst of pulls and removals: an ext4 of the test's own is stopped by the kernel as
//! though the power had gone, mounted again, which replays its journal, and looked at.
//!
//! Not here: what a disk loses that it said to have. `make power-cuts` kills a whole machine.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Fake, TestStore, can_run, serves};
use hull_image::{Reference, Store};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::Layer;
use hull_tests::{eventually, shell};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The number of workers that run side by side.
const WORKERS: usize = 3;
/// Images of each worker's own. They share a layer with those of the others.
const IMAGES: usize = 3;

/// An ext4 in a file.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        fs::File::create_new(disk.file()).unwrap().set_len(256 << 20).unwrap();
        let _said = shell::run("mkfs.ext4", [Path::new("-q"), &disk.file()]).good();
        fs::create_dir(disk.at()).unwrap();
        disk
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn at(&self) -> PathBuf {
        self.dir.path().join("at")
    }

    fn mount(&self) {
        let loop_device = [Path::new("-o"), Path::new("loop"), &self.file(), &self.at()];
        let _said = shell::run("mount", loop_device).good();
    }

    async fn unmount(&self) {
        // Calls that were cut off return, and close their files.
        eventually("nobody has the disk open", || async {
            let said = shell::run("umount", [self.at()]);
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Mounted still, if the test has failed.
        let _not_mounted = rustix::mount::unmount(self.at(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn cut_power(at: &Path) {
    let root = fs::File::open(at).unwrap();
    hull_sys::cut_power(root.as_fd()).unwrap();
}

fn packed(number: usize) -> Packed {
    let shared = Layer::new().file("shared", 0o644, vec![9; 300_000]).tar();
    let own = (0..40).fold(Layer::new(), |layer, file| {
        let content = format!("{number} {file} ").repeat(file * 50);
        layer.file(&format!("etc/{number}/{file}"), 0o640, content)
    });
    let large = Layer::new().file("large", 0o755, vec![u8::try_from(number).unwrap(); 2 << 20]);
    Image::new(vec![shared, own.tar(), large.tar()], json!({"Env": [format!("N={number}")]})).pack()
}

/// Names of images whose pull was answered, and whose removal nobody has asked for.
type Stored = Arc<Mutex<BTreeSet<String>>>;

/// Pulls and removes until the disk is gone.
async fn work(store: Store, names: Vec<String>, stored: Stored) {
    for round in 0_usize.. {
        let name = &names[round % names.len()];
        let reference = Reference::parse(name).unwrap();
        if store.pull(&reference, None, None).await.is_err() {
            return;
        }
        stored.lock().unwrap().insert(name.clone());
        if round % 2 == 1 {
            let gone = &names[(round / 2) % names.len()];
            stored.lock().unwrap().remove(gone);
            if store.remove(gone, &|_| false).is_err() {
                return;
            }
        }
    }
}

/// Checks that listed images are whole, and that promised images are listed.
async fn look(store: &Store, stored: &Stored, when: &str) {
    for layer in store.verify(None).await.unwrap() {
        assert!(layer.is_whole(), "{when}: {layer:?}");
    }
    for name in stored.lock().unwrap().iter() {
        assert!(store.find(name).is_some(), "{when}: {name} was answered for and is gone");
    }
}

/// Runs itself again in a mount namespace of its own: a process that copies the host's mounts while the disk is
/// one of them, as every container's start does, would keep it busy after it was unmounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_all_that_was_answered_for_is_there_and_nothing_broken_is_listed() {
    const AGAIN: &str = "HULL_TEST_OWN_MOUNTS";
    let test = "after_a_power_cut_all_that_was_answered_for_is_there_and_nothing_broken_is_listed";
    if !can_run(test) {
        return;
    }
    if std::env::var_os(AGAIN).is_none() {
        let mut again = Command::new("unshare");
        again.arg("--mount").arg(std::env::current_exe().unwrap()).args(["--exact", test]);
        let ran = again.env(AGAIN, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let disk = Disk::new();
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let fake = {
        let (left, at) = (Arc::clone(&left), disk.at());
        let image = |number: usize| serves(&packed(number), &format!("power/{number}"), "1");
        let images: Vec<_> = (0..WORKERS * IMAGES).map(image).collect();
        Fake::start(move |asked| {
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                cut_power(&at);
            }
            let found = images.iter().map(|serve| serve(asked)).find(|of| of.status == 200);
            found.unwrap_or_else(|| Answer::of(404, ""))
        })
    };
    let stored = Stored::default();
    // Which request the cut comes with: whatever the others are about at that moment is cut as well.
    for request in (1..60).step_by(3) {
        let when = format!("before the life that ends with request {request}");
        disk.mount();
        let store = TestStore::configured(|config| config.root = disk.at().join("store"));
        look(&store.store, &stored, &when).await;
        left.store(request, Ordering::SeqCst);
        let workers = (0..WORKERS).map(|worker| {
            let own = worker * IMAGES..(worker + 1) * IMAGES;
            let names = own.map(|number| format!("{}/power/{number}:1", fake.host)).collect();
            tokio::spawn(work(store.store.clone(), names, Arc::clone(&stored)))
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        drop(store);
        disk.unmount().await;
    }
    // The moment of an answer is a moment, too.
    disk.mount();
    let store = TestStore::configured(|config| config.root = disk.at().join("store"));
    let name = format!("{}/power/0:1", fake.host);
    store.store.remove(&name, &|_| false).unwrap();
    left.store(usize::MAX, Ordering::SeqCst);
    store.pull(&name).await.unwrap();
    cut_power(&disk.at());
    stored.lock().unwrap().insert(name);
    drop(store);
    disk.unmount().await;
    disk.mount();
    let store = TestStore::configured(|config| config.root = disk.at().join("store"));
    look(&store.store, &stored, "after an answer").await;
    drop(store);
    disk.unmount().await;
}
