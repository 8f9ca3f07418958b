// SPDX-License-Identifier: Apache-2.0
//! Only 0, 1, 2 and the status pipe are open when the kernel resolves a program's path.
//!
//! Every way in which Hull makes a process is stopped there (see `trace`), and every descriptor that a
//! command could name is tried as the beginning of a path that leads to a program of the host.

use crate::auditor::{self, AUDITOR};
use crate::shapes::{mapped, share_processes};
use crate::trace::{self, Descriptor, Moment, Tracer};
use hull_proto::cri::ContainerConfig;
use hull_tests::bundle::Bundle;
use hull_tests::cri::idle;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, host, session};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Descriptors that commands name: more than a monitor ever has open.
const NUMBERS: std::ops::Range<u32> = 0..64;

/// Device and inode of a path of the host.
fn file(path: &str) -> (u64, u64) {
    let is = fs::metadata(path).or_fail(format!("look at {path}"));
    (is.dev(), is.ino())
}

/// Descriptors that are open beyond standard streams, the status pipe and, for pause and inits, their program. An init has
/// another pipe, the end of which its child waits for.
fn open_too_much(moment: &Moment) -> Vec<String> {
    let (mut found, mut pipes, mut streams) = (Vec::new(), 0, 0);
    let by_descriptor = moment.program.is_empty();
    for descriptor in &moment.descriptors {
        let is_pause = by_descriptor && descriptor.target == "/pause";
        let mut wrong = |why: &str| {
            let Descriptor { number, target, .. } = descriptor;
            found.push(format!("{} has {number} open, {why}: {target}", moment.name()));
        };
        if descriptor.is_directory {
            wrong("a directory");
        } else if descriptor.number <= 2 {
            streams += 1;
        } else if !descriptor.closes_at_exec {
            wrong("also in the program");
        } else if descriptor.is_pipe {
            pipes += 1;
        } else if !is_pause {
            wrong("not a pipe");
        }
    }
    if pipes > 1 + usize::from(by_descriptor) {
        found.push(format!(
            "{} has {pipes} pipes open, one of which is for the status",
            moment.name()
        ));
    }
    if streams != 3 {
        found.push(format!("{} has {streams} standard streams", moment.name()));
    }
    found
}

/// Which of root, working directory and streams belong to the host.
fn of_the_host(moment: &Moment) -> Vec<String> {
    let mut found = Vec::new();
    if moment.root == file("/") {
        found.push(format!("the root of {} is the host's", moment.name()));
    }
    if moment.above_cwd == file("/") {
        found.push(format!("the directory of {} leads to the host's root", moment.name()));
    }
    // In a user namespace nobody can change the host's nodes: root there does not own them.
    let null = file("/dev/null");
    let streams = moment.descriptors.iter().filter(|one| one.number <= 2);
    let streams = streams.filter(|one| !moment.is_mapped() && one.file == null);
    for descriptor in streams {
        found.push(format!("{} of {} is the host's /dev/null", descriptor.number, moment.name()));
    }
    found
}

/// Fails unless each of these was seen at its execve in a container: else nothing was looked at.
#[track_caller]
fn were_seen(moments: &[Moment], programs: &[&str]) {
    for program in programs {
        let seen = moments.iter().any(|one| one.is_inside() && one.program.ends_with(program));
        assert!(seen, "`{program}` was not seen at execve: {moments:#?}");
    }
}

#[track_caller]
fn nothing_is_wrong(findings: impl Iterator<Item = String>) {
    let all: Vec<String> = findings.collect();
    let first: Vec<&String> = all.iter().take(25).collect();
    assert!(all.is_empty(), "{} findings at execve, of which the first: {first:#?}", all.len());
}

/// Findings about processes in containers.
fn inside(moments: &[Moment]) -> impl Iterator<Item = String> {
    let inside = moments.iter().filter(|moment| moment.is_inside());
    inside.flat_map(|moment| [open_too_much(moment), of_the_host(moment)].concat())
}

async fn start_and_exec(cri: &Cri, pod: &str, image: &str) {
    let main = cri.run_idle(pod, "main", image).await;
    // The second by PATH, where several places are tried.
    for program in [AUDITOR, "auditor"] {
        let ran = cri.exec(&main, &[program, "say", "hello"]).await.or_fail("run an exec");
        assert_eq!(ran.stdout, "hello\n", "{ran:?}");
    }
    for tty in [false, true] {
        let (_to, mut from) = session::exec(cri, &main, &[AUDITOR, "say", "stream"], tty).await;
        let heard = from.rest().await;
        assert_eq!(String::from_utf8_lossy(&heard.stdout).trim(), "stream", "{heard:?}");
    }
    for init in ["false", "true"] {
        let mut terminal = auditor::container(&format!("terminal-{init}"), image, &["say", "tty"]);
        terminal.annotations.insert("hull.run/init".into(), init.into());
        terminal.tty = true;
        terminal.stdin = true;
        let made = cri.run(pod, terminal).await;
        assert_eq!(cri.ended(&made).await.exit_code, 0);
    }
}

#[tokio::test]
async fn whatever_a_pod_runs_has_three_descriptors_and_the_status_pipe_at_execve() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    cri.pull(&image).await.unwrap();
    let tracer = Tracer::of_process(node.daemon_pid());
    let mut shared = cri.pod_config("shared");
    share_processes(&mut shared);
    for config in [cri.pod_config("plain"), mapped(&cri, "mapped"), shared] {
        let name = config.hostname.clone();
        let pod = cri.run_pod_with(config).await.unwrap();
        start_and_exec(&cri, &pod, &image).await;
        cri.stop_pod(&pod).await.or_fail(format!("stop the pod {name}"));
    }
    let moments = tracer.moments();
    // Pause and inits are executed by their descriptor, without a path.
    let pauses = moments.iter().filter(|moment| moment.is_inside() && moment.program.is_empty());
    assert_eq!(pauses.count(), 6, "{moments:#?}");
    were_seen(&moments, &["/bin/sh", AUDITOR, "/usr/local/bin/auditor"]);
    nothing_is_wrong(inside(&moments));
}

/// Hooks of every kind: a program of the host, which for `startContainer` lies in the container.
fn hooks(outside: &str) -> Value {
    let hook = |path: &str| json!([{"path": path, "args": ["auditor", "say", "hook"]}]);
    json!({
        "prestart": hook(outside), "createRuntime": hook(outside), "createContainer": hook(outside),
        "startContainer": hook(AUDITOR), "poststart": hook(outside), "poststop": hook(outside),
    })
}

/// A bundle with the auditor in its root.
fn bundle() -> Bundle {
    let bundle = Bundle::new();
    let path = std::path::Path::new(&bundle.path()).join("rootfs/bin/auditor");
    fs::rename(auditor::on_host(&bundle.scratch()), &path).or_fail("put the auditor in a bundle");
    bundle
}

fn traced(bundle: &Bundle, words: &[&str]) -> Vec<Moment> {
    let (moments, code) = trace::run(&bundle.command(words));
    assert_eq!(code, 0, "{words:?}: {moments:#?}");
    moments
}

#[test]
fn whatever_hull_oci_runs_has_three_descriptors_and_the_status_pipe_at_execve() {
    let bundle = bundle();
    let outside = auditor::on_host(&bundle.scratch()).display().to_string();
    for is_mapped in [false, true] {
        bundle.change(|config| {
            config["hooks"] = hooks(&outside);
            if is_mapped {
                let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
                let linux = &mut config["linux"];
                linux["uidMappings"] = map.clone();
                linux["gidMappings"] = map;
                let kinds = linux["namespaces"].as_array_mut().or_fail("find the namespaces");
                kinds.push(json!({"type": "user"}));
            }
        });
        if is_mapped {
            let own = fs::metadata(bundle.path() + "/rootfs");
            let chown = hull_tests::shell::run("chown", ["-R", "200000:200000", &bundle.path()]);
            assert_eq!(chown.code, 0, "{own:?}: {chown:?}");
        }
        let mut moments = traced(&bundle, &["create", "-b", &bundle.path(), "one"]);
        let pid = bundle.state("one")["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let waiting = Tracer::of_waiting(pid.or_fail("find the container's process"));
        moments.extend(traced(&bundle, &["start", "one"]));
        moments.extend(waiting.moments());
        moments.extend(traced(&bundle, &["exec", "one", AUDITOR, "say", "exec"]));
        moments.extend(traced(&bundle, &["delete", "--force", "one"]));
        // Hooks of the host see the host: of them, descriptors alone count.
        let (of_host, others): (Vec<Moment>, Vec<Moment>) =
            moments.into_iter().partition(|moment| moment.program == outside);
        assert!(of_host.len() >= 5, "{} hooks of the host: {of_host:#?}", of_host.len());
        were_seen(&others, &["/sleep", AUDITOR]);
        nothing_is_wrong(of_host.iter().flat_map(open_too_much).chain(inside(&others)));
    }
}

/// The command that would be a program of the host, if descriptor `number` were a directory of it.
fn through(number: u32, outside: &str) -> String {
    format!("/proc/self/fd/{number}/../../../../../../../../../..{outside}")
}

/// Runs it, which must not go through; and if it does, it must not be the host's program.
async fn must_not_run(cri: &Cri, pod: &str, config: ContainerConfig) {
    let command = config.command.clone();
    let Ok(made) = cri.create(pod, config).await else { return };
    let started = cri.start(&made).await;
    if started.is_ok() {
        let status = cri.ended(&made).await;
        panic!("{command:?} started: {status:?}, {:?}", cri.logs(&made).await);
    }
    cri.remove(&made).await.or_fail("remove a container that did not start");
}

#[tokio::test]
async fn no_descriptor_leads_a_containers_command_to_a_program_of_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let outside = auditor::on_host(&node.host_dir()).display().to_string();
    let mapped = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    for number in NUMBERS {
        let command = through(number, &outside);
        for pod in [&pod, &mapped] {
            let config = hull_tests::cri::container("try", &image, &[&command, "say", "OUTSIDE"]);
            must_not_run(&cri, pod, config).await;
        }
        // The directory to start in goes the same way.
        let mut config = idle("try", &image);
        config.working_dir = through(number, &node.host_dir().display().to_string());
        must_not_run(&cri, &pod, config).await;
    }
}

#[tokio::test]
async fn no_descriptor_leads_an_exec_to_a_program_of_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let outside = auditor::on_host(&node.host_dir()).display().to_string();
    let mapped = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    for pod in [&pod, &mapped] {
        let main = cri.run_idle(pod, "main", &image).await;
        for number in NUMBERS {
            let ran = cri.exec(&main, &[&through(number, &outside), "say", "OUTSIDE"]).await;
            if let Ok(ran) = ran {
                assert_ne!(ran.code, 0, "descriptor {number}: {ran:?}");
                assert!(!ran.stdout.contains("OUTSIDE"), "descriptor {number}: {ran:?}");
            }
        }
    }
}

#[test]
fn no_descriptor_leads_hull_oci_to_a_program_of_the_host() {
    let bundle = bundle();
    let outside = auditor::on_host(&bundle.scratch()).display().to_string();
    bundle.up("one");
    for number in NUMBERS {
        let command = through(number, &outside);
        let ran = bundle.oci(&["exec", "one", &command, "say", "OUTSIDE"]);
        assert!(ran.code != 0 && !ran.stdout.contains("OUTSIDE"), "descriptor {number}: {ran:?}");
        bundle.change(|config| config["process"]["args"] = json!([command, "say", "OUTSIDE"]));
        let ran = bundle.oci(&["run", "-b", &bundle.path(), "two"]);
        assert!(ran.code != 0 && !ran.stdout.contains("OUTSIDE"), "descriptor {number}: {ran:?}");
    }
}

/// A start in progress has a page into which the kernel writes the number of its process. Another
/// process with that page could be made to write there by a tracer, and the monitor would take another process, also one
/// of the host, for the container's.
#[tokio::test]
async fn nobody_has_the_page_of_another_start() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    cri.pull(&image).await.unwrap();
    let pod = cri.run_pod("shares").await.unwrap();
    let hanging = cri.make(&pod, hull_tests::cri::idle("hanging", &image)).await;
    let other = cri.run_idle(&pod, "other", &image).await;
    let group = host::freezer_group(&node.names().cgroup, &pod).join(&hanging);
    // Frozen before it starts: its process waits on the way.
    fs::create_dir(&group).or_fail("make the container's cgroup");
    let (file, on, off) = host::freezer_of(&group);
    fs::write(&file, on).or_fail("freeze a container");
    let starting = tokio::spawn({
        let (cri, target) = (cri.clone(), hanging.clone());
        async move { cri.start(&target).await }
    });
    eventually("the start is on its way", || async {
        let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        if procs.is_empty() { Err("no process in its cgroup".to_owned()) } else { Ok(()) }
    })
    .await;
    let tracer = Tracer::of_process(host::monitor_of(&pod).as_raw());
    let ran = cri.exec(&other, &[AUDITOR, "say", "hello"]).await.or_fail("run an exec");
    assert_eq!(ran.stdout, "hello\n");
    let moments = tracer.moments();
    fs::write(&file, off).or_fail("thaw a container");
    starting.await.unwrap().or_fail("start the late container");
    were_seen(&moments, &[AUDITOR]);
    let inside = moments.iter().filter(|moment| moment.is_inside());
    nothing_is_wrong(inside.flat_map(|moment| {
        let name = moment.name();
        moment.shared_memory.iter().map(move |line| format!("{name} shares memory: {line}"))
    }));
}
