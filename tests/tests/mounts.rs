// SPDX-License-Identifier: Apache-2.0
//! Mounts of a container: what it sees of the host and what the host sees of it.

use hull_proto::cri::{self as api, MountPropagation};
use hull_tests::cri::{mount, security, shell};
use hull_tests::image::Image;
use hull_tests::{ExpectExt as _, Node, eventually, fixture, node};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A directory on the host that is a shared mount of its own, taken away on drop.
struct Shared(PathBuf);

impl Shared {
    fn at(path: PathBuf) -> Self {
        fs::create_dir_all(&path).or_fail("make a directory");
        let at = path.display().to_string();
        let _said = hull_tests::shell::run("mount", ["--bind", &at, &at]).good();
        let _said = hull_tests::shell::run("mount", ["--make-shared", &at]).good();
        Self(path)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(hull_tests::shell::run("umount", ["-R", "-l", &self.0.display().to_string()]));
    }
}

fn mount_tmpfs(at: &Path) {
    fs::create_dir_all(at).or_fail("make a directory");
    let _said =
        hull_tests::shell::run("mount", ["-t", "tmpfs", "none", &at.display().to_string()]).good();
}

async fn says(cri: &hull_tests::Cri, container: &str, command: &str, expected: &str) {
    eventually(format!("`{command}` prints {expected:?}"), || async {
        let ran =
            cri.exec(container, &["sh", "-c", command]).await.or_fail("exec in the container");
        if ran.stdout == expected { Ok(()) } else { Err(format!("{ran:?}")) }
    })
    .await;
}

const WAIT: &str = "trap 'exit 0' TERM; while true; do sleep 1000 & wait; done";

#[tokio::test]
async fn files_and_directories_of_the_host_are_there() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let dir = node.host_dir();
    let file = node::write(&dir, "one.txt", "one\n");
    let mut config = shell(
        "probe",
        &image,
        "cat /one /dir/one.txt; echo two > /dir/two.txt; echo x >> /ro/one.txt; echo $?",
    );
    let mut read_only = mount(&dir, "/ro");
    read_only.readonly = true;
    config.mounts = vec![mount(&file, "/one"), mount(&dir, "/dir"), read_only];
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "one\none\n1\n", "{said:?}");
    assert_eq!(fs::read_to_string(dir.join("two.txt")).unwrap(), "two\n");
    assert!(said.stderr.contains("Read-only"), "{said:?}");
}

/// Kubernetes 1.37 has options of a volume; a kubelet asks whether the runtime knows them.
#[tokio::test]
async fn options_of_a_volume_take_rights_away() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let features = cri.runtime.clone().status(api::StatusRequest::default()).await.unwrap();
    assert!(features.into_inner().features.unwrap().mount_options);
    let dir = node.host_dir();
    let script = node::write(&dir, "script", "#!/bin/sh\necho ran\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let narrow = api::Mount {
        mount_options: ["noexec", "nosuid", "nodev"].map(String::from).to_vec(),
        ..mount(&dir, "/narrow")
    };
    let mut config = shell(
        "probe",
        &image,
        "/plain/script; /narrow/script 2>&1 || echo refused; echo x > /narrow/written; grep -o 'nosuid,nodev,noexec' /proc/mounts | tail -1",
    );
    config.mounts = vec![mount(&dir, "/plain"), narrow.clone()];
    let said = cri.output(&pod, config.clone()).await;
    assert!(said.stdout.starts_with("ran\n"), "{said:?}");
    assert!(said.stdout.ends_with("refused\nnosuid,nodev,noexec\n"), "{said:?}");
    assert!(dir.join("written").try_exists().unwrap());

    config.metadata.get_or_insert_default().name = "wide".into();
    config.mounts = vec![api::Mount { mount_options: vec!["suid".into()], ..narrow }];
    let refused = cri.create(&pod, config).await.unwrap_err();
    assert!(
        refused.message().contains("`suid`") && refused.message().contains("noexec"),
        "{refused}"
    );
}

#[tokio::test]
async fn mounts_come_parents_first_whatever_their_order() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let (outer, inner) = (node.host_dir().join("outer"), node.host_dir().join("inner"));
    for (dir, name) in [(&outer, "outer"), (&inner, "inner")] {
        fs::create_dir_all(dir).unwrap();
        let _path = node::write(dir, name, "");
    }
    fs::create_dir_all(outer.join("sub")).unwrap();
    let mut config = shell("probe", &image, "ls /data /data/sub");
    config.mounts = vec![mount(&inner, "/data/sub"), mount(&outer, "/data")];
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "/data:\nouter\nsub\n\n/data/sub:\ninner\n", "{said:?}");
}

#[tokio::test]
async fn a_file_of_the_pod_can_be_mounted_over() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let hosts = node::write(&node.host_dir(), "hosts", "127.0.0.1 mine\n");
    let mut config = shell("probe", &image, "cat /etc/hosts");
    config.mounts = vec![mount(&hosts, "/etc/hosts")];
    assert_eq!(cri.output(&pod, config).await.stdout, "127.0.0.1 mine\n");
}

#[tokio::test]
async fn a_later_mount_of_the_host_arrives_only_with_propagation() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let shared = Shared::at(node.host_dir().join("shared"));
    let mut config = shell("main", &image, WAIT);
    let mut slave = mount(&shared.0, "/slave");
    slave.propagation = MountPropagation::PropagationHostToContainer.into();
    config.mounts = vec![slave, mount(&shared.0, "/private")];
    let made = cri.run(&pod, config).await;
    mount_tmpfs(&shared.0.join("later"));
    let _path = node::write(&shared.0.join("later"), "file", "");
    says(&cri, &made, "ls /slave/later", "file\n").await;
    says(&cri, &made, "ls /private/later", "").await;
    cri.stop(&made, 5).await.unwrap();
}

#[tokio::test]
async fn a_mount_made_inside_reaches_the_host_only_when_bidirectional() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let mut config = cri.pod_config("web");
    hull_tests::cri::pod_security(&mut config).privileged = true;
    let pod = cri.run_pod_with(config).await.unwrap();
    let shared = Shared::at(node.host_dir().join("shared"));
    let mut config = shell("main", &image, WAIT);
    hull_tests::cri::security(&mut config).privileged = true;
    let mut both = mount(&shared.0, "/both");
    both.propagation = MountPropagation::PropagationBidirectional.into();
    config.mounts = vec![both];
    let made = cri.run(&pod, config).await;
    let script = "mkdir /both/inner && mount -t tmpfs none /both/inner && touch /both/inner/file";
    let ran = cri.exec(&made, &["sh", "-c", script]).await.unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(shared.0.join("inner/file").is_file(), "the host does not see it");
    let ran = cri.exec(&made, &["umount", "/both/inner"]).await.unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    cri.stop(&made, 5).await.unwrap();
}

#[tokio::test]
async fn recursive_read_only_covers_the_mounts_below() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let shared = Shared::at(node.host_dir().join("shared"));
    mount_tmpfs(&shared.0.join("below"));
    let script = "touch /plain/below/a && echo plain; touch /all/below/b || echo refused";
    let mut config = shell("probe", &image, script);
    let read_only = |to, recursive| api::Mount {
        readonly: true,
        recursive_read_only: recursive,
        ..mount(&shared.0, to)
    };
    config.mounts = vec![read_only("/plain", false), read_only("/all", true)];
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "plain\nrefused\n", "{said:?}");
    // Kubelets ask for it only where the status reports it.
    let status = cri.runtime.clone().status(api::StatusRequest::default()).await.unwrap();
    for handler in status.into_inner().runtime_handlers {
        assert!(handler.features.unwrap().recursive_read_only_mounts, "{}", handler.name);
    }
}

#[tokio::test]
async fn the_kernels_filesystems_are_mounted_as_the_field_does() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let said = cri.output(&pod, shell("probe", &image, "cat /proc/self/mountinfo")).await.stdout;
    let find = |at: &str| {
        let line = said.lines().find(|line| line.split(' ').nth(4) == Some(at));
        line.unwrap_or_else(|| panic!("{at} is not a mount in {said}")).to_owned()
    };
    for (at, kind) in [
        ("/", "overlay"),
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert!(find(at).contains(&format!(" - {kind} ")), "{at}: {}", find(at));
    }
    assert!(find("/sys").contains(" ro,"), "{}", find("/sys"));
    assert!(
        said.lines().any(|line| line.contains("/sys/fs/cgroup") && line.contains(" ro,")),
        "{said}"
    );
    assert!(!said.contains("shared:"), "nothing of a container is shared by default: {said}");
}

#[tokio::test]
async fn what_every_container_has_mounted_leaves_nothing_in_its_own_layer() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let seen = cri.exec(&made, &["sh", "-c", "cat /etc/hosts; ls /dev/null /proc/1 /sys/class"]);
    let seen = seen.await.unwrap();
    assert_eq!(seen.code, 0, "{seen:?}");
    assert!(seen.stdout.contains("localhost"), "{seen:?}");
    let layer = node.data_dir().join("containers").join(&made).join("upper");
    let names: Vec<_> = fs::read_dir(&layer).unwrap().map(|of| of.unwrap().path()).collect();
    assert!(names.is_empty(), "made in {}: {names:?}", layer.display());
}

/// Name, kind, mode, owner and device number of all in the host's /dev, but for terminals that come and go.
fn devices_of_the_host() -> Vec<String> {
    let mut found: Vec<_> = fs::read_dir("/dev")
        .or_fail("list /dev")
        .map(|entry| entry.or_fail("list /dev"))
        .filter(|entry| entry.file_name() != "pts")
        .map(|entry| {
            let of = fs::symlink_metadata(entry.path()).or_fail("look at a device");
            format!(
                "{:?} {:o} {}:{} {:x}",
                entry.file_name(),
                of.mode(),
                of.uid(),
                of.gid(),
                of.rdev()
            )
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn the_hosts_dev_is_there_as_it_is_and_stays_so() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let mut config = cri.pod_config("web");
    hull_tests::cri::pod_security(&mut config).privileged = true;
    let pod = cri.run_pod_with(config).await.unwrap();
    let before = devices_of_the_host();
    for (name, privileged) in [("plain", false), ("privileged", true)] {
        let script = "ls -a /dev | sort; echo x > /dev/null; head -c 2 /dev/zero | wc -c";
        let mut config = shell(name, &image, script);
        security(&mut config).privileged = privileged;
        config.mounts = vec![mount(Path::new("/dev"), "/dev")];
        let said = cri.output(&pod, config).await;
        assert_eq!(said.code, 0, "{name}: {said:?}");
        assert!(said.stdout.ends_with("\n2\n"), "{name}: {said:?}");
        for entry in fs::read_dir("/dev").unwrap() {
            let entry = entry.unwrap().file_name().into_string().unwrap();
            assert!(said.stdout.lines().any(|line| line == entry), "{name}: {entry}: {said:?}");
        }
        assert_eq!(devices_of_the_host(), before, "{name}");
    }
    // One file, and one directory below it; the rest is the container's own.
    let mut config = shell(
        "one",
        &image,
        "readlink /dev/core; readlink /dev/ptmx; echo x > /dev/null; ls /dev/net",
    );
    config.mounts =
        vec![mount(Path::new("/dev/null"), "/dev/null"), mount(&node.host_dir(), "/dev/net")];
    let _file = node::write(&node.host_dir(), "mine", "");
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "/proc/kcore\npts/ptmx\nmine\n", "{said:?}");
    assert_eq!(devices_of_the_host(), before);
}

#[tokio::test]
async fn nothing_is_made_in_a_volume_at_dev_or_below() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for at in ["/dev", "/dev/", "/dev/shm", "/dev/pts", "/dev/mqueue", "/dev/./pts/"] {
        let dir = node.host_dir().join(format!("volume{}", at.replace(['/', '.'], "-")));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let _file = node::write(&dir, "mine", "");
        // With what is masked, which takes a null device, of the container's own here.
        let mut config = shell("probe", &image, &format!("ls {at}"));
        config.mounts = vec![mount(&dir, at)];
        if at.trim_end_matches('/') == "/dev" {
            // A volume that has none of it.
            config.mounts.push(mount(Path::new("/dev/null"), "/dev/null"));
            let _null = node::write(&dir, "null", "");
        }
        let said = cri.output(&pod, config).await;
        assert_eq!(said.code, 0, "{at}: {said:?}");
        let mut have: Vec<_> = hull_tests::shell::names(&dir);
        have.retain(|name| name != "null");
        assert_eq!(have, ["mine"], "{at}");
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{at}");
        let all = cri.runtime.clone().list_containers(api::ListContainersRequest::default()).await;
        for one in all.unwrap().into_inner().containers {
            cri.remove(&one.id).await.unwrap();
        }
    }
}

/// As monitoring agents mount them. What is masked is masked in the volume, too; what the volume lacks is passed over.
#[tokio::test]
async fn the_hosts_sys_and_proc_can_hide_the_containers() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for (name, read_only) in [("rw", false), ("ro", true)] {
        let mut config = shell(name, &image, "exec sleep 1000");
        for path in ["/sys", "/proc"] {
            let readonly = read_only;
            config.mounts.push(api::Mount { readonly, ..mount(Path::new(path), path) });
        }
        let made = cri.run(&pod, config).await;
        says(&cri, &made, "ls -A /sys/firmware; cat /proc/keys", "").await;
        let ran = cri.exec(&made, &["sh", "-c", "echo x > /proc/sys/kernel/domainname"]).await;
        assert!(ran.unwrap().stderr.contains("Read-only file system"));
    }
    let empty = node.host_dir().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut config = shell("empty", &image, "ls -A /sys");
    config.mounts = vec![mount(&empty, "/sys")];
    assert_eq!(cri.output(&pod, config).await.stdout, "");
    let mut config = shell("false", &image, "true");
    config.mounts = vec![mount(&empty, "/proc")];
    let made = cri.create(&pod, config).await.unwrap();
    let refused = cri.start(&made).await.unwrap_err();
    assert!(refused.message().contains("is not a procfs"), "{refused}");
    for (name, place) in [("sys", "/proc/sys"), ("irq", "/proc/irq"), ("one", "/proc/1")] {
        let mut config = shell(name, &image, "true");
        config.mounts = vec![mount(&empty, place)];
        let refused = cri.create(&pod, config).await.unwrap_err();
        let said = refused.message();
        assert!(said.contains(place) && said.contains("outside of /proc"), "{said}");
    }
}

/// The destination of a volume does not name /proc, but the image leads it there.
#[tokio::test]
async fn an_image_leads_no_volume_into_the_containers_proc() {
    let image = fixture::pushed("links-into-proc", || {
        let layer = fixture::busybox_layer()
            .symlink("data", "/proc/sys")
            .symlink("deep", "data/kernel")
            .symlink("file", "../proc/./version");
        Image::new(vec![layer.tar()], json!({"Cmd": ["sh"]}))
    });
    let node = Node::start().await;
    let (cri, pod, _) = node.pod("web").await;
    let _id = cri.pull(&image).await.unwrap();
    let dir = node.host_dir().join("empty");
    fs::create_dir(&dir).unwrap();
    let file = node::write(&node.host_dir(), "one.txt", "one\n");
    for (name, source, place) in [
        ("whole", &dir, "/data"),
        ("below", &dir, "/data/kernel"),
        ("twice", &dir, "/deep"),
        ("file", &file, "/file"),
    ] {
        let mut config = shell(name, &image, "true");
        config.mounts = vec![mount(source, place)];
        let made = cri.create(&pod, config).await.unwrap();
        let refused = cri.start(&made).await.unwrap_err();
        let said = refused.message();
        assert!(said.contains("leads into a procfs") && said.contains("hint:"), "{name}: {said}");
        assert!(said.contains(place) && said.contains("correct the image"), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_mount_path_with_dots_is_where_they_lead() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let from = node.host_dir().join("volume");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("inner"), "inner\n").unwrap();
    for (number, path) in
        ["/usr/../opt/x", "/../opt/x", "/opt/./x", "//opt//x/", "/a/../../opt/y/../x"]
            .iter()
            .enumerate()
    {
        let mut config = shell(&format!("main-{number}"), &image, "cat /opt/x/inner");
        config.mounts = vec![mount(&from, path)];
        let said = cri.output(&pod, config).await;
        assert_eq!((said.code, said.stdout.as_str()), (0, "inner\n"), "{path}: {said:?}");
    }
    let mut config = shell("root", &image, "true");
    config.mounts = vec![mount(&from, "/opt/..")];
    let refused = match cri.create(&pod, config).await {
        Ok(made) => cri.start(&made).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(refused.message().contains("the root itself"), "{refused}");
}
