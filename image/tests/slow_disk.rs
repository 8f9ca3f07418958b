// SPDX-License-Identifier: Apache-2.0
//! A store whose disk does not answer: what is known of the images is known at once. And one without free inodes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{TestStore, can_run, told};
use hull_tests::disk::Disk;
use hull_tests::eventually::{blocking, deadline, with_long_timeout};
use hull_tests::image::{Image, docker_archive};
use hull_tests::layer::{Compression, Layer};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Far more than a look at the index takes on a busy machine.
const READ_MAX: Duration = Duration::from_secs(5);

const NAME: &str = "example.org/app:1";
const OTHER: &str = "example.org/other:1";

async fn import(store: &TestStore, name: &str, content: &str) {
    let mut image = Image::new(Vec::new(), json!({"Cmd": ["/x"]}));
    image.layers = vec![(Layer::new().file("x", 0o755, content).tar(), Compression::Plain)];
    let mut spool = store.store.spool().unwrap();
    spool.write_all(&docker_archive(&image, name)).unwrap();
    assert_eq!(store.store.import(spool, None).await.unwrap().images.len(), 1);
}

/// Waits until so many threads of this process wait in the kernel for a disk: proc_pid_stat(5), state D.
fn wait_for_disk(threads: usize) {
    let waiting = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        stats.filter(|stat| stat.rsplit(") ").next().is_some_and(|at| at.starts_with('D'))).count()
    };
    let all = || if waiting() >= threads { Ok(()) } else { Err(format!("{} wait", waiting())) };
    blocking(deadline(), all).unwrap();
}

#[tokio::test]
async fn a_disk_that_does_not_answer_delays_changes_of_images_and_no_reader() {
    let test = "a_disk_that_does_not_answer_delays_changes_of_images_and_no_reader";
    if !can_run(test) {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let mount = at.path().join("disk");
    fs::create_dir(&mount).unwrap();
    let Some(disk) = Disk::mount(test, &mount) else { return };
    let store = TestStore::configured(|config| config.root = mount.join("store"));
    import(&store, NAME, "one").await;
    import(&store, OTHER, "two").await;

    let frozen = disk.freeze();
    let changes = [
        thread::spawn({
            let store = store.store.clone();
            move || store.tag(NAME, "example.org/app:2", false).map(drop)
        }),
        thread::spawn({
            let store = store.store.clone();
            move || store.remove(OTHER, &|_| false)
        }),
    ];
    // One changes a file, the other one waits for it or changes a file too.
    wait_for_disk(1);
    let (answer, read) = mpsc::channel();
    let reader = thread::spawn({
        let store = store.store.clone();
        move || {
            let found = store.find(NAME).is_some();
            // The receiver has given up.
            let _late = answer.send((found, store.list().len(), store.usage().is_ok()));
        }
    });
    let read = read.recv_timeout(with_long_timeout(READ_MAX));
    drop(frozen);
    let (found, images, is_counted) = read.expect("the index answers while the disk does not");
    assert!(found && is_counted && (1..=2).contains(&images), "{images} images");

    reader.join().unwrap();
    for change in changes {
        change.join().unwrap().unwrap();
    }
    let store = store.again();
    assert!(store.store.find("example.org/app:2").is_some());
    assert!(store.store.find(OTHER).is_none());
    drop(store);
}

/// A small tmpfs, until it is dropped.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        hull_tests::shell::run("umount", ["-l", &self.0.display().to_string()]);
    }
}

#[tokio::test]
async fn a_disk_without_free_inodes_is_not_called_full() {
    if !can_run("a_disk_without_free_inodes_is_not_called_full") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let mount = at.path().display().to_string();
    let options = "size=64m,nr_inodes=200";
    let mounted = hull_tests::shell::run("mount", ["-t", "tmpfs", "-o", options, "small", &mount]);
    assert_eq!(mounted.code, 0, "{}", mounted.stderr);
    let _small = Small(at.path().to_owned());
    let store = TestStore::configured(|config| config.root = at.path().join("store"));
    let mut image = Image::new(Vec::new(), json!({"Cmd": ["/x"]}));
    let files =
        (0..400).fold(Layer::new(), |layer, number| layer.file(&format!("f{number}"), 0o644, "x"));
    image.layers = vec![(files.tar(), Compression::Plain)];
    let mut spool = store.store.spool().unwrap();
    spool.write_all(&docker_archive(&image, NAME)).unwrap();
    let err = store.store.import(spool, None).await.unwrap_err();
    let text = told(&err);
    assert!(text.contains("no free inodes") && text.contains("df -i"), "{text}");
    assert!(!text.contains("free space"), "{text}");
}
