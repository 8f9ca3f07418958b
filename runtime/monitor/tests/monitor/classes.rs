// SPDX-License-Identifier: Apache-2.0
//! Containers with classes of resources: limits beyond the plan, and a group of resctrl, for which a file stands in.

use crate::support::{PIPES, container_id, shell};
use crate::{pod, step_of};
use hull_cgroup::{DeviceLimit, DeviceLimitKind, FurtherLimits};
use hull_proto::monitor::{Command, ExitHow, Failure, Response};
use std::fs::{self, File};
use std::os::fd::AsFd as _;

/// A command that starts a container with these limits, and with a group if `resctrl`.
fn start(
    id: &hull_proto::id::ContainerId,
    plan: &hull_init::Plan,
    limits: &FurtherLimits,
    resctrl: bool,
) -> Command {
    Command::StartWithClasses {
        container: id.clone(),
        plan: borsh::to_vec(plan).unwrap(),
        stdio: PIPES,
        hooks: None,
        logging: None,
        limits: borsh::to_vec(limits).unwrap(),
        resctrl,
    }
}

#[test]
fn every_process_of_a_container_enters_its_group_before_its_program_runs() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let tasks = pod.shared().join("tasks");
    let file = File::create_new(&tasks).unwrap();
    let plan = pod.plan(&id, "cat /shared/tasks; while :; do sleep 100; done");
    let log = pod.log_file(&id);
    let command = start(&id, &plan, &FurtherLimits::default(), true);
    let Response::Started(started) = daemon.ask(command, &[log.as_fd(), file.as_fd()]).unwrap()
    else {
        panic!("a start was answered with something else")
    };
    pod.must_end(started.pid);
    crate::support::eventually("the program has read the file", || {
        (pod.output(&id, "stdout") == b"0\n").then_some(())
    });
    daemon.exec(&id, 7, &shell("exit 3"), None).unwrap();
    assert_eq!(daemon.exec_exit(7).how, ExitHow::Code(3));
    assert_eq!(fs::read_to_string(&tasks).unwrap(), "0\n0\n", "an exec enters it as well");
    let missing = start(&container_id(), &plan, &FurtherLimits::default(), true);
    let refused = daemon.ask(missing, &[log.as_fd()]).unwrap_err();
    assert!(matches!(refused, Failure::BadRequest(_)), "{refused:?}");
}

#[test]
fn a_group_that_cannot_be_entered_ends_the_start() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (plan, log) = (pod.plan(&id, "exit 0"), pod.log_file(&id));
    let command = start(&id, &plan, &FurtherLimits::default(), true);
    let failed = step_of(daemon.ask(command, &[log.as_fd(), full.as_fd()]).unwrap_err());
    assert_eq!(failed.step, hull_init::Step::Cgroup);
    assert!(failed.call.contains("resctrl"), "{failed:?}");
}

#[test]
fn limits_that_cannot_be_set_end_the_start_and_are_named() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    // The kernel has no disk with this number.
    let limit = DeviceLimit { major: 4000, minor: 0, kind: DeviceLimitKind::ReadBytes, value: 77 };
    let limits = FurtherLimits { io_devices: vec![limit], ..FurtherLimits::default() };
    let (plan, log) = (pod.plan(&id, "exit 0"), pod.log_file(&id));
    let failed = daemon.ask(start(&id, &plan, &limits, false), &[log.as_fd()]).unwrap_err();
    let failed = step_of(failed);
    assert_eq!(failed.step, hull_init::Step::Cgroup);
    assert!(failed.call.contains("4000:0") || failed.call.contains("77"), "{failed:?}");
}
