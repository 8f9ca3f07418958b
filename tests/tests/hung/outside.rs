// SPDX-License-Identifier: Apache-2.0
//! Programs and servers of others that hang: network plugins, NRI plugins, registries and token servers. The verbs that
//! need them end within the bounds of docs/security.md, and no other pod waits.

use crate::table;
use hull_proto::cri as api;
use hull_tests::cri::idle;
use hull_tests::eventually::with_long_timeout;
use hull_tests::host::Names;
use hull_tests::plugin::{Plugin, program};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, paths};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic::{Code, Status};

/// The value of each time limit in the settings of these nodes.
const EACH: Duration = Duration::from_secs(2);
/// On top of each bound, for a machine that is busy.
const SLACK: Duration = Duration::from_secs(10);

/// Holds the answer of `verb`, which began then, against the table.
fn judge(part: &str, verb: &str, began: Instant, answer: &Result<(), Status>) {
    let bound = table::of(part).into_iter().find(|of| of.verb == verb);
    let bound = bound.or_fail(format!("find {verb} while the {part} hangs in docs/security.md"));
    let (took, most) = (began.elapsed(), with_long_timeout(bound.with(EACH) + SLACK));
    println!("{part}, {verb}: {answer:?} after {took:?}");
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    assert!(bound.allows(code), "{verb} while the {part} hangs: {answer:?}, not {}", bound.reads);
    assert!(took < most, "{verb} while the {part} hangs: {took:?}, at most {most:?}");
}

/// The whole life of a pod that has nothing to do with what hangs.
async fn lives(cri: &Cri, image: &str, name: &str) {
    let pod = cri.run_pod(name).await.or_fail("run another pod");
    let made = cri.run_idle(&pod, "main", image).await;
    let ran = cri.exec_for(&made, &["echo", "on"], 20).await.or_fail("exec in another pod");
    assert_eq!(ran.stdout, "on\n");
    cri.stop(&made, 5).await.or_fail("stop a container of another pod");
    cri.stop_pod(&pod).await.or_fail("stop another pod");
    cri.remove_pod(&pod).await.or_fail("remove another pod");
}

/// How a server answers.
#[derive(Debug, Clone)]
enum Server {
    /// It accepts, and is silent.
    Silent,
    /// A byte of a head, every second.
    Drips,
    /// It sends its clients to a token server at this address.
    Token(String),
}

/// Serves for as long as the test runs; its address.
async fn serve(how: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.or_fail("listen on loopback");
    let address = listener.local_addr().or_fail("ask for the address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let how = how.clone();
            tokio::spawn(async move {
                let _head = stream.read(&mut [0; 4096]).await;
                match how {
                    Server::Silent => std::future::pending().await,
                    Server::Drips => {
                        let mut tick = tokio::time::interval(Duration::from_secs(1));
                        for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x'))
                        {
                            tick.tick().await;
                            if stream.write_all(&[*byte]).await.is_err() {
                                return;
                            }
                        }
                    }
                    Server::Token(at) => {
                        let text = format!(
                            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{at}/token\",service=\"s\"\r\n\
                             Content-Length: 0\r\nConnection: close\r\n\r\n"
                        );
                        let _gone = stream.write_all(text.as_bytes()).await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_hangs_ends_its_own_pulls_alone() {
    const PART: &str = "registry or token server";
    let node = Node::start_with("[image]\nstall_s = 2\n").await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let _id = cri.pull(&image).await.or_fail("pull busybox");
    let token = serve(Server::Silent).await;
    let hosts = [
        serve(Server::Silent).await,
        serve(Server::Drips).await,
        serve(Server::Token(token)).await,
    ];
    let pulls = hosts.iter().map(|host| {
        let cri = cri.clone();
        async move {
            let began = Instant::now();
            let answer = cri.pull(&format!("{host}/tests/hangs:1")).await.map(drop);
            judge(PART, "PullImage", began, &answer);
        }
    });
    let others = async {
        let began = Instant::now();
        let answer = cri.image_status(&image).await.map(drop);
        judge(PART, "ImageStatus", began, &answer);
        let began = Instant::now();
        let request = api::ListImagesRequest::default();
        let answer = cri.image.clone().list_images(request).await.map(drop);
        judge(PART, "ListImages", began, &answer);
        let began = Instant::now();
        let answer = cri.runtime.clone().status(api::StatusRequest::default()).await.map(drop);
        judge(PART, "Status", began, &answer);
        lives(&cri, &image, "neighbour").await;
    };
    let _done = tokio::join!(futures_util::future::join_all(pulls), others);
    node.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nri_plugin_that_hangs_is_let_go_and_the_verb_goes_on() {
    const PART: &str = "NRI plugin";
    if program().is_none() {
        paths::cannot_run("NRI plugins that hang", "the plugin for tests (`make tools`)");
        return;
    }
    let node = Node::start_with("[nri]\nrequest_timeout_ms = 2000\n").await;
    let (cri, mut pod, image) = node.pod("web").await;
    let mut main = String::new();
    for verb in [
        "CreateContainer",
        "StartContainer",
        "UpdateContainerResources",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
        "RunPodSandbox",
    ] {
        let hang = if verb == "UpdateContainerResources" { "UpdateContainer" } else { verb };
        let plugin = Plugin::start(&node, "10-hangs", &json!({"hang": hang})).await;
        let began = Instant::now();
        let answer = match verb {
            "CreateContainer" => {
                cri.create(&pod, idle("main", &image)).await.map(|made| main = made)
            }
            "StartContainer" => cri.start(&main).await,
            "UpdateContainerResources" => {
                let linux = api::LinuxContainerResources {
                    memory_limit_in_bytes: 96 << 20,
                    ..Default::default()
                };
                let request = api::UpdateContainerResourcesRequest {
                    container_id: main.clone(),
                    linux: Some(linux),
                    ..Default::default()
                };
                cri.runtime.clone().update_container_resources(request).await.map(drop)
            }
            "StopContainer" => cri.stop(&main, 0).await,
            "RemoveContainer" => cri.remove(&main).await,
            "StopPodSandbox" => cri.stop_pod(&pod).await,
            "RemovePodSandbox" => cri.remove_pod(&pod).await,
            _ => cri.run_pod("again").await.map(|made| pod = made),
        };
        judge(PART, verb, began, &answer);
        drop(plugin);
    }
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    node.nothing_is_left().await;
}

/// A network plugin that gives an address and makes nothing, and hangs where a file beside it says so: in a call
/// that is about no pod, or about one whose name begins with `hung`.
const NETWORK: &str = r#"#!/bin/sh
here=$(dirname "$0")
if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}'
    exit 0
fi
case "$CNI_ARGS;" in
    *K8S_POD_NAME=hung*|";") [ -e "$here/hang.$CNI_COMMAND" ] && exec sleep 1000 ;;
esac
[ "$CNI_COMMAND" = ADD ] && cat << END
{"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "$CNI_NETNS"}],
 "ips": [{"interface": 0, "address": "192.0.2.7/24"}]}
END
exit 0
"#;

fn settings(names: &Names) -> String {
    let at = names.root.join("host");
    format!(
        "mode = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{:?}]\nnetns_dir = {:?}\nplugin_timeout_s = 2\n",
        at.join("net.d").display().to_string(),
        at.join("bin").display().to_string(),
        names.root.join("state/netns").display().to_string(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_plugin_that_hangs_ends_the_verbs_of_its_pod_alone() {
    let mut node = Node::start_on_network(settings).await;
    let host = node.host_dir();
    let (bin, net) = (host.join("bin"), host.join("net.d"));
    fs::create_dir_all(&bin).or_fail("make a directory");
    fs::create_dir_all(&net).or_fail("make a directory");
    fs::write(bin.join("network"), NETWORK).or_fail("write the plugin");
    fs::set_permissions(bin.join("network"), fs::Permissions::from_mode(0o755))
        .or_fail("make it a program");
    let conf = r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "network"}]}"#;
    fs::write(net.join("10-pods.conflist"), conf).or_fail("configure the network");
    let (cri, image) = (node.cri(), fixture::busybox());
    let _id = cri.pull(&image).await.or_fail("pull busybox");
    let hang = |verb: &str| bin.join(format!("hang.{verb}"));
    let victim = cri.run_pod("hung").await.or_fail("run a pod");

    fs::write(hang("ADD"), "").or_fail("have ADD hang");
    let began = Instant::now();
    let (answer, ()) = tokio::join!(cri.run_pod("hung2"), lives(&cri, &image, "neighbour"));
    judge("network plugin in ADD", "RunPodSandbox", began, &answer.map(drop));

    for verb in ["DEL", "STATUS", "CHECK", "GC"] {
        fs::write(hang(verb), "").or_fail("have more hang");
    }
    let began = Instant::now();
    let asked = api::StatusRequest::default();
    let mut runtime = cri.runtime.clone();
    let (status, ()) = tokio::join!(runtime.status(asked), lives(&cri, &image, "neighbour"));
    judge("network plugin in STATUS", "Status", began, &status.map(drop));
    for verb in ["StopPodSandbox", "RemovePodSandbox"] {
        let began = Instant::now();
        let stop = async {
            if verb == "StopPodSandbox" {
                cri.stop_pod(&victim).await
            } else {
                cri.remove_pod(&victim).await
            }
        };
        let (answer, ()) = tokio::join!(stop, lives(&cri, &image, "neighbour"));
        judge("network plugin in DEL", verb, began, &answer);
    }
    // A new daemon finds it half taken down, and serves.
    node.kill();
    node.start_again().await;
    lives(&cri, &image, "neighbour").await;
    for verb in ["ADD", "DEL", "STATUS", "CHECK", "GC"] {
        fs::remove_file(hang(verb)).or_fail("have it go on");
    }
    eventually("the pod is removed once its plugin goes on", || async {
        cri.remove_pod(&victim).await.map_err(|refused| refused.to_string())
    })
    .await;
    node.nothing_is_left().await;
}
