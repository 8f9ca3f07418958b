// SPDX-License-Identifier: Apache-2.0
//! Events from snapshots, slow readers, and times without a reader.
#![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]

use super::*;
use crate::container::state::{ExitDetails, ExitReason};
use crate::container::{ContainerRecord, ContainerSnapshot};
use crate::pod::{PodRecord, State as PodState};
use hull_proto::id::{ContainerId, PodId};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn view(ready: bool, containers: &[(u8, ContainerState)], gone: bool) -> Arc<PodSnapshot> {
    let id = PodId::from_random([1; 32]);
    let state =
        if ready { PodState::Ready { pause_pid: 1, ips: vec![] } } else { PodState::Stopped };
    let record = PodRecord {
        id: id.to_string(),
        config: hull_proto::cri::PodSandboxConfig::default(),
        assigned_userns: None,
        handler: String::new(),
        handler_settings: None,
        created_ns: 0,
        cgroup: String::new(),
        cgroup_is_ours: true,
        state,
        last_ready: None,
        restarts_cancelled: std::collections::BTreeSet::new(),
    };
    let containers = containers.iter().map(|(number, state)| {
        let id = ContainerId::from_random([*number; 32]);
        let view = ContainerSnapshot {
            id: id.clone(),
            pod: PodId::from_random([1; 32]),
            record: held(&id, state),
            execs: Arc::default(),
            restarting: false,
        };
        (id, Arc::new(view))
    });
    let containers: BTreeMap<_, _> = containers.collect();
    Arc::new(PodSnapshot {
        id,
        record: Arc::new(record),
        containers,
        images: std::collections::BTreeSet::new(),
        failure: None,
        client: None,
        gone,
    })
}

fn held(id: &ContainerId, state: &ContainerState) -> Arc<ContainerRecord> {
    Arc::new(ContainerRecord {
        id: id.to_string(),
        pod: String::new(),
        config: hull_proto::cri::ContainerConfig::default(),
        image_id: String::new(),
        image_volumes: Vec::new(),
        image_ref: String::new(),
        created_ns: 0,
        cgroup: String::new(),
        log_path: String::new(),
        adjust: None,
        user: None,
        stop_signal: 15,
        stop_requested: false,
        stop_signal_ns: None,
        signal_requested: None,
        signal_requested_ns: None,
        previous: None,
        log_loss: crate::container::log_loss::LogLoss::default(),
        remarks: Vec::new(),
        classes: crate::oci_spec::classes::Classes::default(),
        state: state.clone(),
    })
}

fn exited(ran: bool) -> ContainerState {
    let how = ExitReason::Code { code: 0, details: ExitDetails::default() };
    ContainerState::Exited { how, since_ns: ran.then_some(1), at_ns: 2 }
}

fn kinds(before: &PodSnapshot, now: &PodSnapshot) -> Vec<Kind> {
    between(before, now).into_iter().map(|(_, kind)| kind).collect()
}

use Kind::{
    ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted,
    ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
};

#[test]
fn a_life_is_told_in_order() {
    let running = ContainerState::Running { pid: 9, since_ns: 1 };
    let life = [
        view(false, &[], false),
        view(true, &[], false),
        view(true, &[(1, ContainerState::Creating)], false),
        view(true, &[(1, ContainerState::Created)], false),
        view(true, &[(1, running)], false),
        view(true, &[(1, exited(true))], false),
        view(true, &[(1, ContainerState::Removing)], false),
        view(true, &[], false),
        view(false, &[], false),
        view(false, &[], true),
    ];
    let sent: Vec<Kind> = life.windows(2).flat_map(|pair| kinds(&pair[0], &pair[1])).collect();
    assert_eq!(sent, [Created, Started, Created, Started, Stopped, Deleted, Stopped, Deleted]);
}

#[test]
fn stages_between_two_views_are_told_all_the_same() {
    let before = view(true, &[(1, ContainerState::Created)], false);
    assert_eq!(kinds(&before, &view(true, &[(1, exited(true))], false)), [Started, Stopped]);
    // One that never ran did not start.
    assert_eq!(kinds(&before, &view(true, &[(1, exited(false))], false)), [Stopped]);
    // One that was never shown has not gone.
    let making = view(true, &[(1, ContainerState::Creating)], false);
    assert_eq!(kinds(&making, &view(true, &[], false)), []);
}

fn states() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Creating),
        Just(ContainerState::Created),
        Just(ContainerState::Running { pid: 3, since_ns: 1 }),
        Just(exited(true)),
        Just(ContainerState::Removing),
    ]
}

proptest! {
    /// Publishing the same view again tells nothing.
    #[test]
    fn no_change_is_no_event(ready: bool, states in proptest::collection::vec(states(), 0..5)) {
        let numbered: Vec<_> = (0_u8..).zip(states).collect();
        let one = view(ready, &numbered, false);
        prop_assert_eq!(kinds(&one, &one), []);
    }
}

fn ended(count: usize) -> impl Iterator<Item = (Arc<PodSnapshot>, Arc<PodSnapshot>)> {
    (0..count).map(|_| (view(true, &[], false), view(false, &[], false)))
}

#[tokio::test]
async fn what_happens_while_nobody_reads_is_kept_for_the_first_who_comes() {
    let events = Events::default();
    events.publish(&view(false, &[], false), &view(true, &[], false));
    let mut first = events.read();
    events.publish(&view(true, &[], false), &view(false, &[], false));
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(first.next().await.unwrap().unwrap().kind);
    }
    assert_eq!(sent, [Created, Started, Stopped]);
    drop(first);
    // Nobody reads again: kept again, once.
    events.publish(&view(false, &[], false), &view(false, &[], true));
    assert_eq!(events.read().next().await.unwrap().unwrap().kind, Deleted);
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_and_holds_up_nobody() {
    let events = Events::default();
    let (mut slow, mut quick) = (events.read(), events.read());
    let mut seen = 0;
    for (before, now) in ended(QUEUE + 5) {
        events.publish(&before, &now);
        seen += usize::from(quick.next().await.unwrap().is_ok());
    }
    assert_eq!(seen, QUEUE + 5);
    let mut had = 0;
    while let Some(Ok(_)) = slow.next().await {
        had += 1;
    }
    assert_eq!(had, QUEUE, "all before the gap, then that there is one");
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn a_new_reader_gets_the_newest_that_are_kept_and_no_error() {
    let events = Events::default();
    for (before, now) in ended(KEPT_MAX + 1) {
        events.publish(&before, &now);
    }
    events.publish(&view(false, &[], false), &view(false, &[], true));
    let mut reading = events.read();
    let mut kinds = Vec::new();
    for _ in 0..KEPT_MAX {
        kinds.push(reading.next().await.unwrap().unwrap().kind);
    }
    assert_eq!((kinds.first(), kinds.last()), (Some(&Stopped), Some(&Deleted)));
    assert!(tokio::time::timeout(std::time::Duration::ZERO, reading.next()).await.is_err());
}
