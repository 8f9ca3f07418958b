// SPDX-License-Identifier: Apache-2.0
//! The daemon's own directories on a file system whose writes hang: `data_dir` (images, layers) and `state_dir`
//! (records). Verbs that only read are answered for every pod. Verbs that write end at their caller's deadline,
//! hold up no other verb, and have done their work once the file system answers again.

use hull_proto::cri::{self as api, ContainerState, PodSandboxState};
use hull_tests::cri::idle;
use hull_tests::disk::Disk;
use hull_tests::eventually::with_long_timeout;
use hull_tests::{Cri, ExpectExt as _, Node, eventually};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Request, Response, Status};

/// Longest time of a verb that does not write: far more than it needs on a busy machine.
const READ_MAX: Duration = Duration::from_secs(5);
/// Deadline that callers of verbs that write give.
const WRITE_DEADLINE: Duration = Duration::from_secs(3);
/// More time than that deadline, for a busy machine.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_of_other_pods_go_on_while_data_dir_hangs() {
    run("data_dir that hangs", Node::data_dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_of_other_pods_go_on_while_state_dir_hangs() {
    run("state_dir that hangs", Node::state_dir).await;
}

async fn run(test: &str, directory: impl Fn(&Node) -> PathBuf) {
    let mut node = Node::start().await;
    node.terminate();
    let Some(disk) = Disk::mount(test, &directory(&node)) else {
        node.start_again().await;
        return;
    };
    node.start_again().await;
    node.take_baseline();
    let (cri, healthy, image) = node.pod("healthy").await;
    let main = cri.run_idle(&healthy, "main", &image).await;
    let mut victims = Vec::new();
    for verb in WRITES {
        victims.push(Victim::new(&cri, verb, &image).await);
    }

    let frozen = disk.freeze();
    reads(&cri, &healthy, &main, &image).await;
    let is_over = AtomicBool::new(false);
    let writes = async {
        let writes = victims.iter().map(|victim| victim.write_while_frozen(&cri, &image));
        futures_util::future::join_all(writes).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let others = async {
        while !is_over.load(Ordering::Relaxed) {
            reads(&cri, &healthy, &main, &image).await;
        }
        // The callers are gone, their work still hangs: reads of those pods are answered too.
        reads(&cri, &healthy, &main, &image).await;
        for victim in &victims {
            reads(&cri, &victim.pod, &victim.main, &image).await;
        }
    };
    let ((), ()) = tokio::join!(writes, others);
    drop(frozen);

    for victim in &victims {
        victim.is_done(&cri, &image).await;
    }
    node.restart().await;
    let ran = cri.exec_for(&main, &["echo", "on"], 20).await.or_fail("exec after the restart");
    assert_eq!(ran.stdout, "on\n");
    cri.remove_all_pods().await.or_fail("remove all pods");
    node.nothing_is_left().await;
    node.finish().await;
    drop(disk);
}

/// The verbs that write to a directory of the daemon.
const WRITES: [&str; 8] = [
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "UpdateContainerResources",
    "StopContainer",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
];

/// A pod that is changed while the file system hangs.
struct Victim {
    verb: &'static str,
    pod: String,
    /// A container that runs.
    main: String,
    /// A container that is created.
    next: String,
    /// The pod for RunPodSandbox.
    late: api::PodSandboxConfig,
}

/// A request whose caller gives it so much time.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(with_long_timeout(WRITE_DEADLINE));
    request
}

fn done<T>(answer: Result<Response<T>, Status>) -> Result<(), Status> {
    answer.map(drop)
}

impl Victim {
    async fn new(cri: &Cri, verb: &'static str, image: &str) -> Self {
        let name = format!("victim-{}", verb.to_lowercase());
        let pod = cri.run_pod(&name).await.or_fail("run a pod");
        let main = cri.run_idle(&pod, "main", image).await;
        let next = cri.make(&pod, idle("next", image)).await;
        Self { verb, pod, main, next, late: cri.pod_config(&format!("late-{name}")) }
    }

    async fn write_while_frozen(&self, cri: &Cri, image: &str) {
        let began = Instant::now();
        let answer = self.write(cri, image).await;
        let took = began.elapsed();
        println!("{}: {answer:?} after {took:?}", self.verb);
        let code = answer.err().map_or(Code::Ok, |refused| refused.code());
        // CANCELLED where the clock of the client itself is quicker than the daemon's.
        let in_time = matches!(code, Code::Ok | Code::DeadlineExceeded | Code::Cancelled);
        assert!(in_time, "{}: {code:?}", self.verb);
        assert!(took < with_long_timeout(WRITE_DEADLINE + SLACK), "{} took {took:?}", self.verb);
    }

    async fn write(&self, cri: &Cri, image: &str) -> Result<(), Status> {
        let mut runtime = cri.runtime.clone();
        let (pod_sandbox_id, container_id) = (self.pod.clone(), self.main.clone());
        match self.verb {
            "RunPodSandbox" => {
                let config = Some(self.late.clone());
                let request = api::RunPodSandboxRequest { config, ..Default::default() };
                done(runtime.run_pod_sandbox(timed(request)).await)
            }
            "CreateContainer" => {
                let request = api::CreateContainerRequest {
                    pod_sandbox_id,
                    config: Some(idle("late", image)),
                    sandbox_config: None,
                };
                done(runtime.create_container(timed(request)).await)
            }
            "StartContainer" => {
                let request = api::StartContainerRequest { container_id: self.next.clone() };
                done(runtime.start_container(timed(request)).await)
            }
            "UpdateContainerResources" => {
                let linux = api::LinuxContainerResources {
                    memory_limit_in_bytes: 96 << 20,
                    ..Default::default()
                };
                let request = api::UpdateContainerResourcesRequest {
                    container_id,
                    linux: Some(linux),
                    ..Default::default()
                };
                done(runtime.update_container_resources(timed(request)).await)
            }
            "StopContainer" => {
                let request = api::StopContainerRequest { container_id, timeout: 1 };
                done(runtime.stop_container(timed(request)).await)
            }
            "RemoveContainer" => {
                let request = api::RemoveContainerRequest { container_id: self.next.clone() };
                done(runtime.remove_container(timed(request)).await)
            }
            "StopPodSandbox" => {
                let request = api::StopPodSandboxRequest { pod_sandbox_id };
                done(runtime.stop_pod_sandbox(timed(request)).await)
            }
            "RemovePodSandbox" => {
                let request = api::RemovePodSandboxRequest { pod_sandbox_id };
                done(runtime.remove_pod_sandbox(timed(request)).await)
            }
            other => panic!("no case for {other}"),
        }
    }

    /// Waits until the verb has done its work: some do it without being called again, others join it.
    async fn is_done(&self, cri: &Cri, image: &str) {
        eventually(format!("{} has done its work", self.verb), || async {
            match self.verb {
                "RunPodSandbox" | "CreateContainer" | "UpdateContainerResources" => {
                    self.write(cri, image).await.map_err(|refused| refused.to_string())
                }
                "StartContainer" => {
                    let state = cri.status(&self.next).await.state();
                    expect(&state, &ContainerState::ContainerRunning)
                }
                "StopContainer" => {
                    let state = cri.status(&self.main).await.state();
                    expect(&state, &ContainerState::ContainerExited)
                }
                "RemoveContainer" => {
                    let code = cri.inspect(&self.next).await.err().map(|refused| refused.code());
                    expect(&code, &Some(Code::NotFound))
                }
                "StopPodSandbox" => {
                    let status =
                        cri.pod_status(&self.pod).await.or_fail("get a pod's status").status;
                    let state = status.map(|status| status.state());
                    expect(&state, &Some(PodSandboxState::SandboxNotready))
                }
                _ => {
                    let code = cri.pod_status(&self.pod).await.err().map(|refused| refused.code());
                    expect(&code, &Some(Code::NotFound))
                }
            }
        })
        .await;
    }
}

fn expect<T: PartialEq + Debug>(is: &T, wanted: &T) -> Result<(), String> {
    if is == wanted { Ok(()) } else { Err(format!("{is:?}, not {wanted:?}")) }
}

/// Every verb that only reads, for this container and for all: each is answered in time. The pod or container may
/// have been removed.
async fn reads(cri: &Cri, pod: &str, container: &str, image: &str) {
    let mut runtime = cri.runtime.clone();
    let (pod_sandbox_id, container_id) = (pod.to_owned(), container.to_owned());
    let pod_status = api::PodSandboxStatusRequest { pod_sandbox_id, verbose: true };
    in_time("PodSandboxStatus", runtime.pod_sandbox_status(pod_status)).await;
    let status = api::ContainerStatusRequest { container_id, verbose: true };
    in_time("ContainerStatus", runtime.container_status(status)).await;
    let stats = api::ContainerStatsRequest { container_id: container.to_owned() };
    in_time("ContainerStats", runtime.container_stats(stats)).await;
    let stats = api::PodSandboxStatsRequest { pod_sandbox_id: pod.to_owned() };
    in_time("PodSandboxStats", runtime.pod_sandbox_stats(stats)).await;
    let command = ["echo", "on"].map(String::from).to_vec();
    let exec = api::ExecSyncRequest {
        container_id: container.to_owned(),
        cmd: command.clone(),
        timeout: 10,
    };
    in_time("ExecSync", runtime.exec_sync(exec)).await;
    let exec = api::ExecRequest {
        container_id: container.to_owned(),
        cmd: command,
        stdout: true,
        ..Default::default()
    };
    in_time("Exec", runtime.exec(exec)).await;
    let attach = api::AttachRequest {
        container_id: container.to_owned(),
        stdout: true,
        ..Default::default()
    };
    in_time("Attach", runtime.attach(attach)).await;
    in_time("Version", runtime.version(api::VersionRequest::default())).await;
    in_time("Status", runtime.status(api::StatusRequest::default())).await;
    in_time("ListPodSandbox", runtime.list_pod_sandbox(api::ListPodSandboxRequest::default()))
        .await;
    in_time("ListContainers", runtime.list_containers(api::ListContainersRequest::default())).await;
    let all = api::ListContainerStatsRequest::default();
    in_time("ListContainerStats", runtime.list_container_stats(all)).await;
    let all = api::ListPodSandboxStatsRequest::default();
    in_time("ListPodSandboxStats", runtime.list_pod_sandbox_stats(all)).await;
    let mut images = cri.image.clone();
    in_time("ListImages", images.list_images(api::ListImagesRequest::default())).await;
    in_time("ImageFsInfo", images.image_fs_info(api::ImageFsInfoRequest::default())).await;
    let request =
        api::ImageStatusRequest { image: Some(hull_tests::cri::image(image)), verbose: false };
    in_time("ImageStatus", images.image_status(request)).await;
}

async fn in_time<T>(verb: &str, call: impl Future<Output = Result<Response<T>, Status>>) {
    let began = Instant::now();
    let answer = tokio::time::timeout(with_long_timeout(READ_MAX), call).await;
    let answer = answer.or_fail(format!("get an answer to {verb} within {READ_MAX:?}"));
    let code = answer.err().map(|refused| (refused.code(), refused.message().to_owned()));
    let is_gone = code
        .as_ref()
        .is_none_or(|(code, _)| matches!(code, Code::NotFound | Code::FailedPrecondition));
    assert!(is_gone, "{verb}: {code:?} after {:?}", began.elapsed());
}
