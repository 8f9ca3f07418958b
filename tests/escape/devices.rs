// SPDX-License-Identifier: Apache-2.0
//! Device nodes: those that images bring, those at a volume that lies at /dev, the host's own, and the
//! ones behind the standard streams. Whatever a container does, nothing of the host changes.

use crate::auditor::{self, AUDITOR, Report, image_with};
use crate::shapes::{add_capability, default_seccomp, mapped, processes_of, share_processes};
use hull_proto::cri::NamespaceMode;
use hull_tests::cri::{mount, security, shell};
use hull_tests::layer::Layer;
use hull_tests::{ExpectExt as _, Node, fixture, session};
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Mode, owner, size and content's time of a file.
fn state(path: &Path) -> (u32, u32, u32, i64, i64) {
    let is: Metadata = fs::metadata(path).or_fail(format!("look at {}", path.display()));
    (is.mode(), is.uid(), is.gid(), is.mtime(), is.mtime_nsec())
}

/// The host's /dev/null, put back as it was whatever a test did to it.
struct Null {
    before: (u32, u32, u32, i64, i64),
}

impl Null {
    const PATH: &str = "/dev/null";

    fn watched() -> Self {
        Self { before: state(Path::new(Self::PATH)) }
    }

    /// The difference in mode and owner since then, if any. Times change by use.
    fn change(&self) -> Option<String> {
        let now = state(Path::new(Self::PATH));
        let same = (now.0, now.1, now.2) == (self.before.0, self.before.1, self.before.2);
        (!same).then(|| format!("the host's /dev/null was {:?} and is {now:?}", self.before))
    }

    fn put_back(&self) {
        let (mode, uid, gid, seconds, _) = self.before;
        chown(Self::PATH, Some(uid), Some(gid)).or_fail("give /dev/null back");
        let mode = Permissions::from_mode(mode & 0o7777);
        fs::set_permissions(Self::PATH, mode).or_fail("put the mode of /dev/null back");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.unsigned_abs());
        let null = fs::File::open(Self::PATH).or_fail("open /dev/null");
        null.set_modified(time).or_fail("put the time of /dev/null back");
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        if self.change().is_some() {
            self.put_back();
        }
    }
}

/// A step that may have changed /dev/null: what it changed, with the step named.
fn after(null: &Null, step: &str, wrong: &mut Vec<String>) {
    if let Some(change) = null.change() {
        null.put_back();
        wrong.push(format!("{step}: {change}"));
    }
}

#[tokio::test]
async fn the_files_behind_the_standard_streams_are_not_the_hosts() {
    let node = Node::start().await;
    let (cri, image, null) = (node.cri(), auditor::image(), Null::watched());
    let (host, mut wrong) = (fs::metadata(Null::PATH).unwrap(), Vec::new());
    let mut shared = cri.pod_config("shared");
    share_processes(&mut shared);
    for config in [cri.pod_config("plain"), mapped(&cri, "mapped"), shared] {
        let name = config.hostname.clone();
        let pod = cri.run_pod_with(config).await.unwrap();
        let mode = if name == "shared" { NamespaceMode::Pod } else { NamespaceMode::Container };
        for tty in [false, true] {
            let mut config = auditor::container(&format!("tty-{tty}"), &image, &["tamper"]);
            config.tty = tty;
            processes_of(&mut config, mode);
            let said = cri.output(&pod, config).await;
            assert!(said.stdout.contains("chmod 0"), "{said:?}");
            after(&null, &format!("{name}, tty {tty}"), &mut wrong);
        }
        let mut main = auditor::container("main", &image, &["wait"]);
        processes_of(&mut main, mode);
        // Sees into pause, where that is the first process.
        add_capability(&mut main, "SYS_PTRACE");
        let main = cri.run(&pod, main).await;
        for command in
            [&[AUDITOR, "tamper"][..], &["sh", "-c", "chmod 0667 /proc/1/fd/* /proc/[0-9]*/fd/0"]]
        {
            let _said = cri.exec(&main, command).await.unwrap();
            after(&null, &format!("{name}, {command:?}"), &mut wrong);
            for tty in [false, true] {
                let (_to, mut from) = session::exec(&cri, &main, command, tty).await;
                let _heard = from.rest().await;
                after(&null, &format!("{name}, session with tty {tty}, {command:?}"), &mut wrong);
            }
        }
        let ran = cri.exec(&main, &[AUDITOR, "audit"]).await.unwrap();
        let seen = Report::read(&ran.stdout, &name);
        for descriptor in seen.0["fds"].as_array().into_iter().flatten() {
            let file = (descriptor["device"].as_u64(), descriptor["inode"].as_u64());
            // Root of a user namespace may use the host's node, but owns it not.
            if name != "mapped" && file == (Some(host.dev()), Some(host.ino())) {
                wrong.push(format!("{name}: an exec has the host's /dev/null: {descriptor}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A file and a directory of the host, which nobody may change.
fn prey(node: &Node) -> (PathBuf, PathBuf) {
    let file = hull_tests::node::write(&node.host_dir(), "file", "of the host");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).or_fail("set a mode");
    let dir = node.host_dir().join("dir");
    fs::create_dir(&dir).or_fail("make a directory");
    (file, dir)
}

#[tokio::test]
async fn links_planted_in_a_volume_at_dev_change_nothing_of_the_host() {
    let node = Node::start().await;
    let (cri, (file, dir)) = (node.cri(), prey(&node));
    let at = |path: &Path| path.display().to_string();
    let inside = at(&file).trim_start_matches('/').to_owned();
    // The image has at the host's path what the container is to have at /dev/null: a check that
    // follows links inside finds the right device, and a change that follows them outside hits the file.
    let image = image_with(&format!("planted-{}", node.names().bridge), |layer| {
        let mut layer = layer.dirs(&["dev", "proc", "sys"]);
        let parts: Vec<&str> = inside.split('/').collect();
        for depth in 1..parts.len() {
            layer = layer.dir(&parts[..depth].join("/"), 0o755);
        }
        layer.char_device(&inside, 1, 3)
    });
    cri.pull(&image).await.unwrap();
    let pod = cri.run_pod("web").await.unwrap();
    let before = state(&file);
    for name in [
        "null", "zero", "tty", "full", "console", "ptmx", "pts", "shm", "mqueue", "core", "fd",
        "stdin",
    ] {
        for target in [&file, &dir] {
            let volume = node.host_dir().join(format!("volume-{name}-{}", target.ends_with("dir")));
            fs::create_dir(&volume).unwrap();
            // As a first container would plant it.
            let mut plant =
                shell("plant", &fixture::busybox(), &format!("ln -s {} /v/{name}", at(target)));
            plant.mounts = vec![mount(&volume, "/v")];
            let planter = cri.run(&pod, plant).await;
            assert_eq!(cri.ended(&planter).await.exit_code, 0);
            cri.remove(&planter).await.unwrap();
            let planted = fs::read_link(volume.join(name)).unwrap();
            let mut main = auditor::container("main", &image, &["say", "started"]);
            main.mounts = vec![mount(&volume, "/dev")];
            let made = cri.create(&pod, main).await;
            if let Ok(made) = &made {
                drop(cri.start(made).await);
                cri.stop(made, 0).await.unwrap();
                cri.remove(made).await.unwrap();
            }
            assert_eq!(state(&file), before, "/dev/{name} -> {}", target.display());
            assert_eq!(
                hull_tests::shell::names(&dir),
                [""; 0],
                "/dev/{name} -> {}",
                target.display()
            );
            assert_eq!(fs::read_link(volume.join(name)).unwrap(), planted, "it was replaced");
            let names = hull_tests::shell::names(&volume);
            assert_eq!(names, [name], "something was made in the volume at /dev");
        }
    }
}

#[tokio::test]
async fn the_hosts_dev_at_dev_starts_and_stays_as_it_was() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    let list = || -> Vec<(String, u32)> {
        let names = hull_tests::shell::names(Path::new("/dev"));
        let mode = |name: &String| {
            fs::symlink_metadata(Path::new("/dev").join(name)).map_or(0, |is| is.mode())
        };
        names.into_iter().map(|name| (name.clone(), mode(&name))).collect()
    };
    let before = list();
    for privileged in [false, true] {
        let mut config =
            auditor::container(&format!("privileged-{privileged}"), &image, &["say", "started"]);
        security(&mut config).privileged = privileged;
        config.mounts = vec![mount(Path::new("/dev"), "/dev")];
        let made = cri.make(&pod, config).await;
        let started = cri.start(&made).await;
        let now = list();
        for (name, _) in now.iter().filter(|one| !before.contains(one)) {
            // Only what was made just now, and only links: the host is not to keep them.
            let path = Path::new("/dev").join(name);
            if path.is_symlink() && !before.iter().any(|(old, _)| old == name) {
                fs::remove_file(path).or_fail("take a link out of /dev again");
            }
        }
        assert_eq!(now, before, "privileged {privileged}: /dev of the host is not as it was");
        started.or_fail(format!("start with the host's /dev, privileged {privileged}"));
        assert_eq!(cri.ended(&made).await.exit_code, 0);
    }
}

/// Nodes of the host's memory, log, disks: none may open.
fn with_nodes(layer: Layer) -> Layer {
    layer
        .dirs(&["dev", "proc", "sys", "nodes"])
        .char_device("nodes/mem", 1, 1)
        .char_device("nodes/kmsg", 1, 11)
        .char_device("nodes/loop-control", 10, 237)
        .char_device("nodes/fuse", 10, 229)
        .block_device("nodes/sda", 8, 0)
        .block_device("nodes/vda", 254, 0)
        .block_device("nodes/loop0", 7, 0)
}

#[tokio::test]
async fn device_nodes_that_an_image_brings_do_not_open() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), image_with("nodes", with_nodes));
    cri.pull(&image).await.unwrap();
    let plain = cri.run_pod("plain").await.unwrap();
    let mapped = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    for (pod, name, privileged) in
        [(&plain, "plain", false), (&mapped, "mapped", false), (&mapped, "mapped-privileged", true)]
    {
        let mut config = auditor::container(name, &image, &["audit"]);
        security(&mut config).privileged = privileged;
        if !privileged {
            default_seccomp(&mut config);
        }
        let seen = auditor::audit(&cri, pod, config).await;
        let nodes = seen.0["devices"].as_array().cloned().unwrap_or_default();
        let brought = nodes
            .iter()
            .filter(|node| node["path"].as_str().is_some_and(|path| path.starts_with("/nodes/")));
        let brought: Vec<_> = brought.collect();
        assert_eq!(brought.len(), 7, "{name}: {nodes:#?}");
        for node in brought {
            assert_ne!(node["opens"], "ok", "{name}: {node}");
        }
    }
}

#[tokio::test]
async fn a_privileged_container_of_a_user_namespace_does_not_own_the_hosts_devices() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    let mut config = auditor::container("main", &image, &["audit"]);
    security(&mut config).privileged = true;
    let seen = auditor::audit(&cri, &pod, config).await;
    for node in seen.0["devices"].as_array().into_iter().flatten() {
        let path = node["path"].as_str().unwrap_or_default();
        let host = fs::metadata(path).map(|is| (is.mode() & 0o6, is.rdev()));
        let Ok((for_all, number)) = host else { continue };
        let major = node["number"][0].as_u64().unwrap_or_default();
        // Its own terminals, and what the host lets everybody use.
        if for_all == 0 && major != 136 && major != 5 && number != 0 {
            assert_ne!(node["opens"], "ok", "a device of the host: {node}");
            assert_ne!(node["uid"], 0, "root inside owns a device of the host: {node}");
        }
    }
}
