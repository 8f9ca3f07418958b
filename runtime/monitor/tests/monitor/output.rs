// SPDX-License-Identifier: Apache-2.0
//! Output of containers: logs that are reopened, a full disk, a terminal.

use crate::support::{PIPES, container_id, mount, shell, start};
use crate::{go, on_hold, pod, seq, support};
use hull_init::Plan;
use hull_proto::monitor::{Command, ExitHow, Failure, Response, Stdio, Streams};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

#[test]
fn reopening_the_log_under_a_writer_loses_and_splits_nothing() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let hold = on_hold(&pod, "go");
    pod.run(&mut daemon, &id, &format!("{hold} seq 1 300000; echo done >&2"));
    go(&pod, "go");
    let mut rotated = Vec::new();
    for number in 0.. {
        let old = pod.dir.path().join(format!("rotated.{number}"));
        fs::rename(pod.log_path(&id), &old).unwrap();
        rotated.push(old);
        let file = pod.log_file(&id);
        let reopen = Command::ReopenLog { container: id.clone() };
        assert_eq!(daemon.ask(reopen, &[file.as_fd()]), Ok(Response::Ok));
        if pod.raw_log(&id).ends_with(b"stderr F done\n") || number == 400 {
            break;
        }
    }
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(0));
    rotated.push(pod.log_path(&id));
    let parts: Vec<Vec<u8>> = rotated.iter().map(|path| fs::read(path).unwrap()).collect();
    let filled = parts.iter().filter(|part| !part.is_empty()).count();
    assert!(filled > 1, "the log was never reopened while there was output");
    // Every file for itself: a line that was split between two fails to parse.
    let all: Vec<u8> = parts.iter().flat_map(|part| support::output(part, "stdout")).collect();
    assert_eq!(all, seq(300_000));
}

#[test]
fn a_full_disk_does_not_block_a_container() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let plan = pod.plan(&id, "seq 1 300000; exit 6");
    let full = File::options().append(true).open("/dev/full").unwrap();
    daemon.ask(start(&id, &plan, PIPES), &[full.as_fd()]).unwrap();
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(6));
}

/// A container with a devpts of its own, for terminals.
fn with_devpts(mut plan: Plan) -> Plan {
    let pivot = plan.ops.len() - 1;
    plan.ops.splice(pivot..pivot, [mount("tmpfs", "/dev"), mount("devpts", "/dev/pts")]);
    plan
}

#[test]
fn a_terminal_is_one_stream() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let script =
        "test -t 0 && test -t 1 && test -c /dev/pts/0 && echo terminal; echo error >&2; exit 8";
    let plan = with_devpts(pod.plan(&id, script));
    pod.run_plan(&mut daemon, &id, &plan, Stdio { tty: true, ..PIPES });
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(8));
    assert_eq!(pod.output(&id, "stdout"), b"terminal\r\nerror\r\n");
}

#[test]
fn without_a_devpts_a_container_gets_no_terminal() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let plan = pod.plan(&id, "true");
    let log = File::options().append(true).open("/dev/null").unwrap();
    let stdio = Stdio { tty: true, ..PIPES };
    let failure = daemon.ask(start(&id, &plan, stdio), &[log.as_fd()]).unwrap_err();
    assert!(matches!(failure, Failure::Step(_)), "{failure:?}");
    assert!(daemon.hello().containers.is_empty());
}

#[test]
fn the_terminal_of_an_exec_is_sent_before_its_start_is_answered() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let plan = with_devpts(pod.plan(&id, "read -r _"));
    pod.run_plan(&mut daemon, &id, &plan, Stdio { stdin: true, ..PIPES });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut process = shell("test -c /dev/pts/0 && stty size; exit 5");
    process.terminal = Some((33, 99));
    let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let process = borsh::to_vec(&process).unwrap();
    let command = Command::Exec { container: id.clone(), exec: 7, process, streams };
    daemon.ask(command, &[theirs.as_fd()]).unwrap();
    let mut master = File::from(hull_sys::receive_master(ours.as_fd()).unwrap());
    assert_eq!(daemon.exec_exit(7).how, ExitHow::Code(5));
    let mut out = Vec::new();
    // The end of a terminal is EIO.
    let _end = master.read_to_end(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), "33 99\r\n");
}
