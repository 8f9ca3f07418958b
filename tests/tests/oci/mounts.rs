// SPDX-License-Identifier: Apache-2.0
//! Mounts with the options of the runtime spec, as runc makes them.

use crate::refused;
use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt as _;
use hull_tests::shell;
use serde_json::{Value, json};
use std::fs;

/// Adds mounts to the bundle.
fn add(bundle: &Bundle, mounts: &[Value]) {
    bundle.change(|config| {
        config["mounts"].as_array_mut().or_fail("find the mounts").extend_from_slice(mounts);
    });
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A directory of the test with a file system of its own, and another below it, until it is dropped.
struct Tree(String);

impl Tree {
    fn mounted(bundle: &Bundle, options: &str) -> Self {
        let top = bundle.scratch().join("tree").display().to_string();
        fs::create_dir_all(&top).or_fail("make a directory");
        let _said = shell::run("mount", ["-t", "tmpfs", "none", &top]).good();
        let tree = Self(top);
        let below = format!("{}/below", tree.0);
        fs::create_dir(&below).or_fail("make a directory");
        let _said = shell::run("mount", ["-t", "tmpfs", "none", &below]).good();
        let _said = shell::run("mount", ["-o", &format!("remount,bind,{options}"), &tree.0]).good();
        tree
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _said = shell::run("umount", ["-R", &self.0]);
    }
}

/// Options of the mount at `path`, as its processes see them.
fn seen(bundle: &Bundle, id: &str, path: &str) -> Vec<String> {
    let table = bundle.oci(&["exec", id, "cat", "/proc/self/mountinfo"]).good();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(path));
    let line = line.unwrap_or_else(|| panic!("no {path} in {table}"));
    line.split(' ').nth(5).unwrap_or_default().split(',').map(str::to_owned).collect()
}

#[test]
fn recursive_options_reach_the_mounts_below() {
    let bundle = Bundle::new();
    let tree = Tree::mounted(&bundle, "noatime");
    add(
        &bundle,
        &[
            bind(&tree.0, "/ro", &["rbind", "ro"]),
            bind(&tree.0, "/rro", &["rbind", "rro", "rnosuid"]),
            bind(&tree.0, "/times", &["rbind", "ratime"]),
        ],
    );
    bundle.up("one");
    let has = |path: &str, option: &str| seen(&bundle, "one", path).iter().any(|of| of == option);
    assert!(has("/ro", "ro") && has("/ro/below", "rw"));
    assert!(has("/rro", "ro") && has("/rro/below", "ro") && has("/rro/below", "nosuid"));
    assert!(has("/times", "relatime") && !has("/times", "noatime"));
}

#[test]
fn a_bind_mount_with_an_option_has_no_others_of_its_source() {
    let bundle = Bundle::new();
    let tree = Tree::mounted(&bundle, "ro,nosuid,noexec,noatime");
    add(
        &bundle,
        &[
            bind(&tree.0, "/same", &["bind", "rprivate"]),
            bind(&tree.0, "/dev-only", &["bind", "dev"]),
            bind(&tree.0, "/strict", &["bind", "strictatime", "async", "silent"]),
        ],
    );
    bundle.up("one");
    let same = seen(&bundle, "one", "/same").join(",");
    for option in ["ro", "nosuid", "noexec", "noatime"] {
        assert!(same.split(',').any(|of| of == option), "{option} in {same}");
    }
    assert_eq!(seen(&bundle, "one", "/dev-only"), ["rw", "noatime"]);
    assert_eq!(seen(&bundle, "one", "/strict"), ["rw"]);
}

/// A destination may name the root itself, and a source what an earlier mount brought there.
#[test]
fn a_source_in_the_root_is_what_earlier_mounts_brought() {
    let bundle = Bundle::shell("cat /final/below/file; cat /final/below/again/file");
    let source = bundle.scratch().join("source");
    fs::create_dir_all(source.join("again")).unwrap();
    fs::write(source.join("file"), "brought\n").unwrap();
    let root = format!("{}/rootfs", bundle.path());
    add(
        &bundle,
        &[
            json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}),
            bind(&source.display().to_string(), "/mnt/below", &["bind"]),
            bind(&format!("{root}/mnt/below"), &format!("{root}/mnt/below/again"), &["rbind"]),
            bind("rootfs/mnt", "/final", &["rbind"]),
        ],
    );
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!(ran.stdout, "brought\nbrought\n", "{ran:?}");
}

/// A copy of the kernel's file systems would show what is masked.
#[test]
fn a_source_in_the_roots_proc_is_refused() {
    let bundle = Bundle::new();
    add(&bundle, &[bind("rootfs/proc", "/copy", &["rbind"])]);
    refused(&bundle.create("one"), &["/proc", "/copy"]);
    // Nor by a link of the image, nor with what is mounted below.
    std::os::unix::fs::symlink("/", format!("{}/rootfs/data", bundle.path())).unwrap();
    let original = |config: &mut Value, source: &str| {
        let mounts = config["mounts"].as_array_mut().or_fail("find the mounts");
        let last = mounts.last_mut().or_fail("find the last mount");
        last["source"] = source.into();
    };
    bundle.change(|config| original(config, "rootfs/data"));
    refused(&bundle.create("one"), &["/data", "/copy"]);
    bundle.change(|config| {
        original(config, "rootfs/outer");
        let own = json!({"destination": "/outer/proc", "type": "proc", "source": "proc"});
        let mounts = config["mounts"].as_array_mut().or_fail("find the mounts");
        mounts.insert(1, own);
    });
    refused(&bundle.create("one"), &["/outer", "/copy"]);
    assert_eq!(bundle.left(), Vec::<String>::new());
}

#[test]
fn only_files_that_lxcfs_replaces_are_mounted_in_proc() {
    let bundle = Bundle::shell("cat /proc/meminfo");
    let source = bundle.scratch().join("meminfo");
    fs::write(&source, "MemTotal: 7 kB\n").unwrap();
    let source = source.display().to_string();
    add(&bundle, &[bind(&source, "/proc/meminfo", &["bind", "ro"])]);
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert_eq!(ran.stdout, "MemTotal: 7 kB\n", "{ran:?}");
    for (place, kind) in [("/proc/sys", "tmpfs"), ("/proc/irq", "bind"), ("/proc/1/../2", "bind")] {
        bundle.change(|config| {
            let mounts = config["mounts"].as_array_mut().or_fail("find the mounts");
            let last = mounts.last_mut().or_fail("find the last mount");
            *last = json!({"destination": place, "type": kind, "source": source});
        });
        refused(&bundle.create("two"), &["procfs", "/proc/uptime"]);
    }
    assert_eq!(bundle.left(), Vec::<String>::new());
}

#[test]
fn ids_are_mapped_with_the_mounts_below_only_if_asked() {
    let bundle = Bundle::new();
    let tree = Tree::mounted(&bundle, "relatime");
    let below = format!("{}/below", tree.0);
    for file in [format!("{}/file", tree.0), format!("{below}/file")] {
        fs::write(&file, "").unwrap();
        let _said = shell::run("chown", ["5:5", &file]).good();
    }
    let maps = json!([{"containerID": 5, "hostID": 7000, "size": 1}]);
    let mapped = |destination: &str, options: &[&str]| {
        let mut mount = bind(&tree.0, destination, options);
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps.clone();
        mount
    };
    add(
        &bundle,
        &[
            mapped("/plain", &["rbind"]),
            mapped("/idmap", &["rbind", "idmap"]),
            mapped("/ridmap", &["rbind", "ridmap"]),
        ],
    );
    bundle.up("one");
    let owner = |path: &str| {
        bundle.oci(&["exec", "one", "stat", "-c", "%u", path]).good().trim_end().to_owned()
    };
    for (place, below) in [("/plain", "5"), ("/idmap", "5"), ("/ridmap", "7000")] {
        let owners = [owner(&format!("{place}/file")), owner(&format!("{place}/below/file"))];
        assert_eq!(owners, ["7000", below], "{place}");
    }
    // Without a user namespace there are no maps to take.
    add(&bundle, &[bind(&tree.0, "/none", &["bind", "idmap"])]);
    refused(&bundle.create("two"), &["uidMappings"]);
}

/// In a user namespace, where only who started the container may map ids of the host's file systems.
#[test]
fn ids_of_a_source_in_the_root_are_mapped_in_a_user_namespace() {
    let bundle = Bundle::new();
    let tree = Tree::mounted(&bundle, "relatime");
    for file in [format!("{}/file", tree.0), format!("{}/below/file", tree.0)] {
        fs::write(&file, "").unwrap();
        let _said = shell::run("chown", ["5:5", &file]).good();
    }
    // The container's root may make nothing in the bundle's.
    for place in ["mnt", "plain", "idmap", "ridmap", "none"] {
        fs::create_dir(format!("{}/rootfs/{place}", bundle.path())).unwrap();
    }
    let maps = json!([{"containerID": 5, "hostID": 500_007, "size": 1}]);
    let mapped = |destination: &str, options: &[&str]| {
        let mut mount = bind("rootfs/mnt", destination, options);
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps.clone();
        mount
    };
    let id = json!([{"containerID": 0, "hostID": 500_000, "size": 65536}]);
    bundle.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = id.clone();
        config["linux"]["gidMappings"] = id;
        // Message queues cannot be mounted there.
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/mqueue");
    });
    add(
        &bundle,
        &[
            bind(&tree.0, "/mnt", &["rbind"]),
            bind("rootfs/mnt", "/plain", &["rbind"]),
            mapped("/idmap", &["rbind", "idmap"]),
            mapped("/ridmap", &["rbind", "ridmap", "ro"]),
        ],
    );
    bundle.up("one");
    let owner = |path: &str| {
        bundle.oci(&["exec", "one", "stat", "-c", "%u:%g", path]).good().trim_end().to_owned()
    };
    for (place, top, below) in [
        ("/plain", "65534:65534", "65534:65534"),
        ("/idmap", "7:7", "65534:65534"),
        ("/ridmap", "7:7", "7:7"),
    ] {
        let owners = [owner(&format!("{place}/file")), owner(&format!("{place}/below/file"))];
        assert_eq!(owners, [top, below], "{place}");
    }
    assert!(seen(&bundle, "one", "/ridmap").iter().any(|option| option == "ro"));
    let _said = bundle.oci(&["delete", "--force", "one"]).good();
    // What the parent cannot map is the error of that mount.
    add(&bundle, &[mapped("/none", &["rbind", "idmap"]), mapped("/none", &["rbind", "idmap"])]);
    bundle.change(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let again = mounts.last_mut().unwrap();
        again["source"] = "rootfs/none".into();
    });
    refused(&bundle.create("two"), &["/none", "set 0x100000"]);
    drop(tree);
    assert_eq!(bundle.left(), Vec::<String>::new());
}

#[test]
fn a_file_system_has_its_own_flags() {
    let bundle = Bundle::shell("grep ' /own ' /proc/mounts");
    let options = ["sync", "dirsync", "lazytime", "mand", "iversion", "loud", "size=64k"];
    add(
        &bundle,
        &[json!({"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": options})],
    );
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    for option in ["sync", "dirsync", "lazytime", "size=64k"] {
        assert!(ran.stdout.contains(option), "{option}: {ran:?}");
    }
    add(&bundle, &[json!({"destination": "/x", "type": "tmpfs", "options": ["remount"]})]);
    refused(&bundle.create("two"), &["remount"]);
}
