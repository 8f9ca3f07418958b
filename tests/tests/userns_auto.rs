// SPDX-License-Identifier: Apache-2.0
//! User namespaces that Hull assigns (`runtime.userns`): whose ids a pod has, and that no other pod has them.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{idle, mount, pod_namespaces, pod_security, security, shell};
use hull_tests::shell::{Ran, run};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, node, paths};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use tonic::Code;

/// Where the ids of users begin, and those of groups: not the same, so that a test sees which is which.
const USERS: u32 = 1_879_048_192;
const GROUPS: u32 = 1_946_157_056;
const IDS: u32 = 65_536;

/// A node, and the files of its ids.
struct Mapped {
    node: Node,
    dir: tempfile::TempDir,
}

impl Mapped {
    async fn start(policy: &str, pods: u32) -> Self {
        let dir = tempfile::tempdir().or_fail("make a directory");
        let file = |name: &str| dir.path().join(name);
        let settings = format!(
            "[runtime]\nuserns = {policy:?}\nsubuid_file = {:?}\nsubgid_file = {:?}\n",
            file("subuid"),
            file("subgid")
        );
        let node = Node::start_with(&settings).await;
        let mapped = Self { node, dir };
        mapped.write("subuid", &format!("web:100000:65536\nhull:{USERS}:{}\n", pods * IDS));
        mapped.write("subgid", &format!("hull:{GROUPS}:{}\n", pods * IDS));
        mapped
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).or_fail("write a file of ids");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn checked(&self) -> Ran {
        let config = self.node.names().root.join("hull.toml").display().to_string();
        run(paths::hull(), ["--config", config.as_str(), "check"])
    }
}

/// The maps of users and groups that a container of the pod sees: the first id of the host, and the number.
async fn maps(cri: &Cri, pod: &str, image: &str) -> [(u32, u32); 2] {
    let script = "cat /proc/self/uid_map /proc/self/gid_map";
    let said = cri.output(pod, shell("maps", image, script)).await.stdout;
    let mut numbers = said.split_whitespace().map(|text| text.parse::<u32>().or_fail("read an id"));
    let mut map = || {
        assert_eq!(numbers.next(), Some(0), "{said}");
        (numbers.next().or_fail("first id"), numbers.next().or_fail("number of ids"))
    };
    [map(), map()]
}

fn ids(slot: u32) -> [(u32, u32); 2] {
    [(USERS + slot * IDS, IDS), (GROUPS + slot * IDS, IDS)]
}

fn userns(mode: NamespaceMode, first: u32) -> api::UserNamespace {
    let map = api::IdMapping { host_id: first, container_id: 0, length: IDS };
    let maps = if first == 0 { Vec::new() } else { vec![map] };
    api::UserNamespace { mode: mode.into(), uids: maps.clone(), gids: maps }
}

fn named(cri: &Cri, name: &str, userns: api::UserNamespace) -> api::PodSandboxConfig {
    let mut config = cri.pod_config(name);
    pod_namespaces(&mut config).userns_options = Some(userns);
    config
}

#[tokio::test]
async fn pods_have_ids_of_their_own_and_volumes_those_of_the_host() {
    let mapped = Mapped::start("auto", 3).await;
    let (node, cri, image) = (&mapped.node, mapped.node.cri(), fixture::busybox());
    let one = cri.run_pod("one").await.or_fail("run a pod");
    // A client that leaves it to the runtime, of the pod and of its container.
    let default = userns(NamespaceMode::Pod, 0);
    let two = cri.run_pod_with(named(&cri, "two", default.clone())).await.or_fail("run a pod");
    assert_eq!(maps(&cri, &one, &image).await, ids(0));
    let mut silent = shell("default", &image, "cat /proc/self/uid_map | tr -s ' '");
    security(&mut silent).namespace_options.get_or_insert_default().userns_options = Some(default);
    let said = cri.output(&two, silent).await.stdout;
    assert_eq!(said, format!(" 0 {} {IDS}\n", USERS + IDS));

    let dir = node.host_dir();
    let old = node::write(&dir, "old", "");
    std::os::unix::fs::chown(&old, Some(7), Some(8)).or_fail("change an owner");
    let script = "id -u; stat -c '%u:%g' /vol /vol/old /etc/hosts /bin/busybox; \
                  echo new > /vol/new; echo done; sleep 1000";
    let mut main = shell("main", &image, script);
    main.mounts = vec![mount(&dir, "/vol")];
    let main = cri.run(&one, main).await;
    cri.prints(&main, "done").await;
    let status = fs::read_to_string(format!("/proc/{}/status", cri.pid(&main).await));
    let status = status.or_fail("read its status");
    assert!(status.contains(&format!("Uid:\t{USERS}\t")), "{status}");
    assert!(status.contains(&format!("Gid:\t{GROUPS}\t")), "{status}");
    let owner = |name: &str| {
        let found = fs::metadata(dir.join(name)).or_fail("look at a file of the volume");
        (found.uid(), found.gid())
    };
    assert_eq!(owner("new"), (0, 0));
    let said = hull_tests::cri::text(&cri.logs(&main).await, "stdout");
    assert_eq!(said, "0\n0:0\n7:8\n0:0\n0:0\ndone\n");

    // Pods that ask for the host's, or share something else with it.
    let host = cri.run_pod_with(named(&cri, "host", userns(NamespaceMode::Node, 0))).await;
    let whole = [(0, u32::MAX), (0, u32::MAX)];
    assert_eq!(maps(&cri, &host.or_fail("run a pod"), &image).await, whole);
    let mut config = cri.pod_config("network");
    pod_namespaces(&mut config).network = NamespaceMode::Node.into();
    let network = cri.run_pod_with(config).await.or_fail("run a pod on the host's network");
    assert_eq!(maps(&cri, &network, &image).await, whole);
    let mut config = cri.pod_config("privileged");
    pod_security(&mut config).privileged = true;
    let privileged = cri.run_pod_with(config).await.or_fail("run a privileged pod");
    assert_eq!(maps(&cri, &privileged, &image).await, whole);

    // A container cannot leave the user namespace of its pod.
    let mut outside = idle("outside", &image);
    security(&mut outside).namespace_options.get_or_insert_default().userns_options =
        Some(userns(NamespaceMode::Node, 0));
    let refused = cri.create(&one, outside).await.unwrap_err();
    assert!(refused.message().contains("userns_options"), "{refused}");

    // A range is free again once its pod is gone.
    cri.remove_pod(&one).await.or_fail("remove a pod");
    let next = cri.run_pod("next").await.or_fail("run a pod");
    assert_eq!(maps(&cri, &next, &image).await, ids(0));
    cri.remove_all_pods().await.or_fail("remove all pods");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_restarted_daemon_knows_whose_ids_are_used() {
    let mut mapped = Mapped::start("auto", 3).await;
    let image = fixture::busybox();
    let cri = mapped.node.cri();
    let one = cri.run_pod("one").await.or_fail("run a pod");
    let held = cri.run_idle(&one, "main", &image).await;
    // A kubelet's pod with the ids of the second range.
    let second = named(&cri, "second", userns(NamespaceMode::Pod, USERS + IDS));
    let _second = cri.run_pod_with(second).await.or_fail("run a pod of a kubelet");
    mapped.node.kill();
    mapped.node.start_again().await;
    let cri = mapped.node.cri();
    let said = cri.exec(&held, &["cat", "/proc/self/uid_map"]).await.or_fail("run a command");
    assert!(said.stdout.contains(&USERS.to_string()), "{said:?}");
    assert_eq!(maps(&cri, &one, &image).await, ids(0), "of a new container");
    let third = cri.run_pod("third").await.or_fail("run a pod");
    let [users, groups] = maps(&cri, &third, &image).await;
    assert_eq!(users, (USERS + 2 * IDS, IDS));
    assert_eq!(groups, (GROUPS + IDS, IDS));
    // Nor has a client ids of a pod to which Hull gave them.
    for first in [USERS, USERS - 1, USERS + IDS - 1, GROUPS + IDS + 5] {
        let config = named(&cri, "overlapping", userns(NamespaceMode::Pod, first));
        let refused = cri.run_pod_with(config).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("has ids of them (hint: "), "{refused}");
    }
    cri.remove_all_pods().await.or_fail("remove all pods");
    mapped.node.nothing_is_left().await;
}

#[tokio::test]
async fn ranges_run_out_and_no_two_pods_that_start_together_have_one() {
    let mapped = Mapped::start("auto", 2).await;
    let (cri, image) = (mapped.node.cri(), fixture::busybox());
    let (a, b, c) = tokio::join!(cri.run_pod("a"), cri.run_pod("b"), cri.run_pod("c"));
    let (started, refused): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(Result::is_ok);
    let [Err(refused)] = &refused[..] else { panic!("one is refused: {refused:?}") };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let says = "pods have all 2 ranges of user `hull` (hint: remove pods";
    assert!(refused.message().contains(says), "{refused}");
    let mut found = Vec::new();
    let mut pods = Vec::new();
    for pod in started {
        let pod = pod.or_fail("it was started");
        found.push(maps(&cri, &pod, &image).await);
        pods.push(pod);
    }
    found.sort_unstable();
    assert_eq!(found, [ids(0), ids(1)]);
    // A stopped pod keeps its ids, which own files of its containers.
    cri.stop_pod(&pods[0]).await.or_fail("stop a pod");
    let refused = cri.run_pod("d").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    cri.remove_pod(&pods[0]).await.or_fail("remove a pod");
    let _last = cri.run_pod("d").await.or_fail("run a pod with the ids of the removed one");
    cri.remove_all_pods().await.or_fail("remove all pods");
    mapped.node.nothing_is_left().await;
}

#[tokio::test]
async fn no_annotation_names_ids_and_no_lie_in_a_file_is_believed() {
    let mapped = Mapped::start("always", 2).await;
    let (cri, image) = (mapped.node.cri(), fixture::busybox());
    let annotated = |mode: &str| {
        let mut config = named(&cri, "web", userns(NamespaceMode::Node, 0));
        config.annotations.insert("io.kubernetes.cri-o.userns-mode".into(), mode.into());
        config
    };
    let modes =
        ["host", "private:uidmapping=0:0:65536", "auto:uidmapping=0:0:1", "auto:size=65537"];
    for mode in modes {
        let refused = cri.run_pod_with(annotated(mode)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("io.kubernetes.cri-o.userns-mode"), "{refused}");
    }
    assert!(cri.pods().await.is_empty());
    let small = cri.run_pod_with(annotated("auto:size=1000")).await.or_fail("run a small pod");
    assert_eq!(maps(&cri, &small, &image).await, [(USERS, 1000), (GROUPS, 1000)]);
    // As a kubelet since 1.33 asks for where the pod says nothing. The ids that the small pod does not map are not free.
    let always = named(&cri, "always", userns(NamespaceMode::Node, 0));
    let always = cri.run_pod_with(always).await.or_fail("run a pod");
    let mut main = shell("main", &image, "cat /proc/self/uid_map | tr -s ' '");
    security(&mut main).namespace_options.get_or_insert_default().userns_options =
        Some(userns(NamespaceMode::Node, 0));
    let said = cri.output(&always, main).await.stdout;
    assert_eq!(said, format!(" 0 {} {IDS}\n", USERS + IDS));
    cri.remove_all_pods().await.or_fail("remove all pods");

    assert!(mapped.checked().stdout.contains("for 2 pods, of user hull"), "{:?}", mapped.checked());
    for (text, says) in [
        ("hull:1879048192:65535\n", "the longest has 65535"),
        ("hull:1879048192:65536\nweb:1879048200:1\n", "have the same ids"),
        ("hull:1879048192:65536\ngarbage\n", "`garbage`, is not NAME:FIRST:COUNT"),
        ("hull:1000:65536\n", "the host's own users"),
        ("web:100000:65536\n", "it has no line of user `hull` or user `containers`"),
    ] {
        mapped.write("subgid", text);
        let refused = cri.run_pod("lied-to").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let message = refused.message();
        assert!(message.contains(says) && message.contains("subgid"), "{says:?} in {message}");
        let checked = mapped.checked();
        assert!(checked.stdout.contains(says), "{says:?} in {checked:?}");
        assert_ne!(checked.code, 0, "{checked:?}");
    }
    fs::remove_file(mapped.file("subgid")).or_fail("remove the file");
    let refused = cri.run_pod("lied-to").await.unwrap_err();
    assert!(refused.message().contains("No such file"), "{refused}");
    // Without a restart.
    mapped.write("subgid", &format!("containers:{GROUPS}:{IDS}\n"));
    let pod = cri.run_pod("web").await.or_fail("run a pod");
    assert_eq!(maps(&cri, &pod, &image).await, ids(0));
    cri.remove_all_pods().await.or_fail("remove all pods");
    mapped.node.nothing_is_left().await;
}

#[tokio::test]
async fn hull_run_asks_for_ids_where_the_node_assigns_none() {
    let mapped = Mapped::start("off", 1).await;
    let (node, image) = (&mapped.node, fixture::busybox());
    let ran = |flags: &[&str], command: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.push(&image);
        args.extend(command);
        node.hull(&args)
    };
    let map = ["cat", "/proc/self/uid_map"];
    let said = ran(&["--userns", "auto"], &map).good();
    assert!(said.split_whitespace().eq(["0", &USERS.to_string(), "65536"]), "{said}");
    let said = ran(&["--userns", "auto:size=7"], &map).good();
    assert!(said.split_whitespace().eq(["0", &USERS.to_string(), "7"]), "{said}");
    let said = ran(&[], &map).good();
    assert!(said.split_whitespace().eq(["0", "0", "4294967295"]), "{said}");
    let refused = ran(&["--userns", "auto", "--network", "host"], &["true"]);
    assert!(refused.code != 0 && refused.stderr.contains("host's network"), "{refused:?}");
    let refused = ran(&["--userns", "auto:uidmapping=0:0:1"], &["true"]);
    assert!(refused.code != 0 && refused.stderr.contains("--userns"), "{refused:?}");

    // A stopped container's owners exist nowhere; to copy from it is refused.
    let _id = node.hull(&["run", "-d", "--name", "web", "--userns", "auto", &image, "true"]).good();
    let _code = node.hull(&["wait", "web"]);
    let to = node.host_dir().display().to_string();
    let refused = node.hull(&["cp", "web:/etc/passwd", &to]);
    assert!(refused.stderr.contains("user namespace"), "{refused:?}");
    let _named = node.hull(&["rm", "-f", "web"]).good();
    node.nothing_is_left().await;
}
