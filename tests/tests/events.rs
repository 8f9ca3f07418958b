// SPDX-License-Identifier: Apache-2.0
//! GetContainerEvents: every change once, in order, also over a restart of the daemon.

use hull_proto::cri::{self as api, ContainerEventType as Kind, ContainerState, PodSandboxState};
use hull_tests::cri::{idle, shell};
use hull_tests::{Cri, ExpectExt as _, Node};
use std::time::Duration;
use tonic::Streaming;

/// Longest that an event may take.
const EVENT_MAX: Duration = Duration::from_secs(20);

async fn listen(cri: &Cri) -> Streaming<api::ContainerEventResponse> {
    let mut runtime = cri.runtime.clone();
    runtime
        .get_container_events(api::GetEventsRequest {})
        .await
        .or_fail("ask for events")
        .into_inner()
}

async fn next(events: &mut Streaming<api::ContainerEventResponse>) -> api::ContainerEventResponse {
    let next = tokio::time::timeout(
        hull_tests::eventually::with_long_timeout(EVENT_MAX),
        events.message(),
    )
    .await;
    next.or_fail("wait for an event")
        .or_fail("read an event")
        .or_fail("read an event before the end")
}

/// Kinds of the next `count` events, with the id of each.
async fn take(
    events: &mut Streaming<api::ContainerEventResponse>,
    count: usize,
) -> Vec<(String, Kind)> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let event = next(events).await;
        let kind = event.container_event_type();
        taken.push((event.container_id, kind));
    }
    taken
}

#[tokio::test]
async fn a_life_is_told_event_by_event_with_the_statuses_of_that_moment() {
    let node = Node::start().await;
    let cri = node.cri();
    let mut events = listen(&cri).await;
    let (cri, pod, image) = node.pod("web").await;
    let made =
        cri.create(&pod, shell("main", &image, "exit 7")).await.or_fail("create a container");
    cri.start(&made).await.or_fail("start it");
    let _ended = cri.ended(&made).await;
    cri.remove(&made).await.or_fail("remove it");
    cri.stop_pod(&pod).await.or_fail("stop the pod");
    cri.remove_pod(&pod).await.or_fail("remove the pod");

    let created = next(&mut events).await;
    assert_eq!(
        (created.container_id.as_str(), created.container_event_type()),
        (pod.as_str(), Kind::ContainerCreatedEvent)
    );
    let status = created.pod_sandbox_status.or_fail("read the pod's status");
    assert_eq!((status.id.as_str(), status.state()), (pod.as_str(), PodSandboxState::SandboxReady));
    assert_eq!(
        take(&mut events, 2).await,
        [(pod.clone(), Kind::ContainerStartedEvent), (made.clone(), Kind::ContainerCreatedEvent),]
    );
    let started = next(&mut events).await;
    assert_eq!(started.container_event_type(), Kind::ContainerStartedEvent);
    let stopped = next(&mut events).await;
    assert_eq!(stopped.container_event_type(), Kind::ContainerStoppedEvent);
    let ended = stopped.containers_statuses.first().or_fail("read the container's status");
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::ContainerExited, 7));
    assert!(stopped.created_at >= started.created_at);
    assert_eq!(
        take(&mut events, 3).await,
        [
            (made, Kind::ContainerDeletedEvent),
            (pod.clone(), Kind::ContainerStoppedEvent),
            (pod, Kind::ContainerDeletedEvent),
        ]
    );
}

#[tokio::test]
async fn what_ends_while_there_is_no_daemon_is_told_once_by_the_next() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let stays = cri.run_idle(&pod, "stays", &image).await;
    let ends = cri.run_idle(&pod, "ends", &image).await;
    let pid = cri.pid(&ends).await;
    let mut events = listen(&cri).await;
    assert_eq!(take(&mut events, 6).await.len(), 6, "two for the pod, two for each container");

    node.kill();
    let gone = events.message().await;
    assert!(!matches!(gone, Ok(Some(_))), "no event comes from a daemon that is gone: {gone:?}");
    let process = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).or_fail("end the container");
    hull_tests::eventually("its process is gone", || async {
        match std::path::Path::new(&format!("/proc/{pid}")).try_exists() {
            Ok(false) => Ok(()),
            there => Err(format!("{there:?}")),
        }
    })
    .await;
    node.start_again().await;

    let cri = node.cri();
    let mut events = listen(&cri).await;
    let first = next(&mut events).await;
    assert_eq!(
        (first.container_id.as_str(), first.container_event_type()),
        (ends.as_str(), Kind::ContainerStoppedEvent)
    );
    // The next is about what is done now: what ran on was not told again, and the end only once.
    cri.stop(&stays, 0).await.or_fail("stop the other");
    assert_eq!(take(&mut events, 1).await, [(stays, Kind::ContainerStoppedEvent)]);
}

#[tokio::test]
async fn two_readers_hear_the_same_and_a_container_that_never_ran_does_not_start() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut one = listen(&cri).await;
    assert_eq!(take(&mut one, 2).await.len(), 2);
    let mut two = listen(&cri).await;
    let mut config = idle("main", &image);
    config.command = vec!["/no/such/program".into()];
    let made = cri.create(&pod, config).await.or_fail("create a container");
    let _refused = cri.start(&made).await.unwrap_err();
    let wanted =
        [(made.clone(), Kind::ContainerCreatedEvent), (made.clone(), Kind::ContainerStoppedEvent)];
    assert_eq!(take(&mut one, 2).await, wanted);
    assert_eq!(take(&mut two, 2).await, wanted);
}
