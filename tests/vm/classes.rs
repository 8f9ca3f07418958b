// SPDX-License-Identifier: Apache-2.0
//! On cgroup v2 alone: classes of block I/O, cgroups that a container may divide, swap and huge pages as kubelets set
//! them.

use hull_proto::cri as api;
use hull_tests::cri::{idle, mount, resources, shell};
use hull_tests::{ExpectExt as _, Node, fixture};
use std::fs;
use std::path::PathBuf;

/// The directory of a container's cgroup on the node.
async fn dir_of(cri: &hull_tests::Cri, container: &str) -> PathBuf {
    // Its first process may be in a cgroup of its own below.
    let path = super::cgroup_of(cri.pid(container).await);
    let at = path.find(container).or_fail("find the container in its cgroup's path");
    let end = at + container.len();
    PathBuf::from(format!("/sys/fs/cgroup{}", &path[..end]))
}

#[tokio::test]
async fn a_class_of_block_io_is_in_the_files_of_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Classes:\n  slow:\n    - Weight: 55\n    - Devices: ['/dev/vd[ab]']\n      ThrottleReadBps: 1Mi\n      \
                ThrottleWriteIOPS: 77\n";
    let file = hull_tests::node::write(dir.path(), "blockio.yaml", text);
    let node = Node::start_with(&format!("[runtime]\nblockio_config_file = {file:?}\n")).await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.unwrap();
    let mut config = cri.pod_config("web");
    let class =
        ("blockio.resources.beta.kubernetes.io/container.main".to_owned(), "slow".to_owned());
    config.annotations.extend([class]);
    let pod = cri.run_pod_with(config).await.unwrap();
    let made = cri.run(&pod, idle("main", &image)).await;
    let dir = dir_of(&cri, &made).await;
    let limits = fs::read_to_string(dir.join("io.max")).unwrap();
    assert_eq!(limits.lines().count(), 2, "both disks: {limits}");
    for line in limits.lines() {
        assert!(line.ends_with("rbps=1048576 wbps=max riops=max wiops=77"), "{limits}");
    }
    let weight = fs::read_to_string(dir.join("io.weight")).unwrap();
    assert!(weight.starts_with("default 455"), "55 of 1000 as 455 of 10000: {weight}");
    let free = cri.run(&pod, idle("free", &image)).await;
    let dir = dir_of(&cri, &free).await;
    assert_eq!(
        fs::read_to_string(dir.join("io.max")).unwrap(),
        "",
        "another container has no class"
    );
}

/// Every file of its own cgroup by which it could lift a limit, or act on its neighbours.
const LIMITS: &str = "memory.max=max memory.high=max memory.swap.max=max memory.min=1048576 memory.low=1048576 \
                      pids.max=max cpu.max=max cpu.weight=10000 cpuset.cpus=0 io.weight=10000 \
                      cgroup.max.descendants=max cgroup.max.depth=max cgroup.freeze=0 cgroup.kill=1";

#[tokio::test]
async fn a_container_that_divides_its_cgroup_reaches_no_limit_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids");
    fs::write(&ids, "hull:1879048192:131072\n").unwrap();
    let settings = format!("userns = \"always\"\nsubuid_file = {ids:?}\nsubgid_file = {ids:?}\n");
    let node = Node::start_with(&format!("[runtime]\n{settings}")).await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.unwrap();
    let mut config = cri.pod_config("web");
    config.annotations.insert("hull.run/cgroup-writable".into(), "true".into());
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = format!(
        "cd /sys/fs/cgroup; for pair in {LIMITS}; do file=${{pair%%=*}}; [ -e $file ] || continue; \
         (echo ${{pair#*=}} > $file) 2> /dev/null && echo lifted $file; done; \
         mkdir own && echo $$ > own/cgroup.procs && echo +memory +pids > cgroup.subtree_control && \
         echo 2000000 > own/memory.max && cat /proc/self/cgroup own/memory.max; \
         deep=own; i=0; while mkdir $deep 2> /dev/null || [ -d $deep ]; do deep=$deep/x; i=$((i+1)); \
         [ $i -lt 99 ] || break; done; echo $i; exec sleep 600"
    );
    let mut config = shell("main", &image, &script);
    *resources(&mut config) = api::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        unified: [("pids.max".to_owned(), "50".to_owned())].into(),
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    hull_tests::eventually("it has divided its cgroup", || async {
        let said = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
        // Pages are whole; its root is at depth 0.
        if said == "0::/own\n1998848\n32\n" { Ok(()) } else { Err(said) }
    })
    .await;
    let said = cri.exec(&made, &["cat", "/proc/self/cgroup"]).await.unwrap();
    assert_eq!(said.stdout, "0::/own\n", "an exec goes where the first process is: {said:?}");
    let dir = dir_of(&cri, &made).await;
    for (file, value) in [
        ("memory.max", "67108864"),
        ("pids.max", "50"),
        ("cpu.max", "50000 100000"),
        ("cgroup.max.descendants", "1024"),
        ("cgroup.max.depth", "32"),
    ] {
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap().trim(), value, "{file}");
    }
    let report = node.hull(&["audit", "-o", "json", "main"]).good();
    assert!(!report.contains("cgroup-writable"), "{report}");
    // A limit of its own cgroup still ends a process in the cgroup that it has made.
    let hungry = "x=a; while true; do x=$x$x$x$x; done";
    let said = cri.exec(&made, &["sh", "-c", hungry]).await.unwrap();
    assert_ne!(said.code, 0, "{said:?}");

    let mut config = cri.pod_config("plain");
    config.annotations.insert("hull.run/cgroup-writable".into(), "false".into());
    let plain = cri.run_pod_with(config).await.unwrap();
    let said =
        cri.output(&plain, shell("main", &image, "mkdir /sys/fs/cgroup/x || echo refused")).await;
    assert_eq!(said.stdout, "refused\n", "{said:?}");
}

#[tokio::test]
async fn swap_is_limited_as_kubelets_ask_for_it() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    *resources(&mut config) = api::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        unified: [("memory.swap.max".to_owned(), "0".to_owned())].into(),
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    let file = dir_of(&cri, &made).await.join("memory.swap.max");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "0", "NoSwap");
    let linux = api::LinuxContainerResources {
        unified: [("memory.swap.max".to_owned(), "8388608".to_owned())].into(),
        ..Default::default()
    };
    let request = api::UpdateContainerResourcesRequest {
        container_id: made,
        linux: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "8388608", "LimitedSwap");
}

/// Pages of 2 MiB that the node has for the time of a test, in a file system.
struct HugePages(PathBuf);

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    fn new(at: PathBuf) -> Self {
        fs::create_dir_all(&at).or_fail("make a mount point");
        fs::write(POOL, "8").or_fail("reserve huge pages");
        let _said = super::said("mount", &["-t", "hugetlbfs", "none", &at.display().to_string()]);
        Self(at)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _said = super::said("umount", &[&self.0.display().to_string()]);
        fs::write(POOL, "0").or_fail("give the huge pages back");
        fs::remove_dir(&self.0).or_fail("remove the mount point");
    }
}

#[tokio::test]
async fn a_container_has_the_huge_pages_of_its_limit() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let pages = HugePages::new(node.host_dir().join("pages"));
    assert_eq!(fs::read_to_string(POOL).unwrap().trim(), "8");
    let script = "fallocate -l 2097152 /pages/one && echo one; fallocate -l 2097152 /pages/two || echo refused; \
                  rm -f /pages/one /pages/two";
    let mut config = shell("main", &image, script);
    config.mounts = vec![mount(&pages.0, "/pages")];
    resources(&mut config).hugepage_limits =
        vec![api::HugepageLimit { page_size: "2MB".into(), limit: 2 << 20 }];
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "one\nrefused\n", "{said:?}");
    cri.remove_all_pods().await.unwrap();
    drop(pages);
}
