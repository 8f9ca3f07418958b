// SPDX-License-Identifier: Apache-2.0
//! Rules for logs: limits, rotation, journald. What is missing in a log is said in it, and to the daemon.

#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test wants one case and passes over the rest"
)]

mod support;

use hull_proto::id::ContainerId;
use hull_proto::monitor::{
    Command, Event, ExitHow, LogDropped, LogPolicy, LogRate, LogRotation, Logging, Request,
    Response, VERSION_LOGGING,
};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::{Client, PIPES, Pod, container_id, eventually, frame, output};

fn pod() -> Option<Pod> {
    Pod::start(Path::new(env!("CARGO_BIN_EXE_hull-monitor")))
}

/// Starts a container whose log has these rules. `fds` are those that the rules name.
fn run(
    (pod, daemon): (&Pod, &mut Client),
    id: &ContainerId,
    script: &str,
    logging: Logging,
    fds: &[BorrowedFd<'_>],
) -> i32 {
    let plan = borsh::to_vec(&pod.plan(id, script)).unwrap();
    let log = pod.log_file(id);
    let container = id.clone();
    let command = Command::StartWithLogging { container, plan, stdio: PIPES, hooks: None, logging };
    let fds: Vec<_> = [log.as_fd()].into_iter().chain(fds.iter().copied()).collect();
    let Response::Started(started) = daemon.ask(command, &fds).unwrap() else {
        panic!("a start was answered with something else")
    };
    pod.must_end(started.pid);
    started.pid
}

/// A fifo that the container has as `/shared/go`.
fn fifo(pod: &Pod) -> PathBuf {
    let go = pod.shared().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    go
}

/// Ends a `read` of the container from that fifo.
fn go_on(go: &Path) {
    File::options().write(true).open(go).unwrap().write_all(b"go\n").unwrap();
}

/// Whole lines of a log.
fn lines_of(log: &[u8]) -> usize {
    log.iter().filter(|byte| **byte == b'\n').count()
}

fn rate(bytes_per_s: u64, burst_bytes: u64, policy: LogPolicy) -> Logging {
    let rate = Some(LogRate { bytes_per_s, burst_bytes, policy });
    Logging { rate, ..Logging::default() }
}

/// All that was dropped, which comes before the end.
fn dropped(daemon: &mut Client, id: &ContainerId) -> LogDropped {
    let mut last = LogDropped::default();
    loop {
        match daemon.event(|event| Some(event.clone())) {
            Event::LogDropped { container, dropped } if container == *id => last = dropped,
            Event::ContainerExited(of, exit) if of == *id => {
                assert_eq!(exit.how, ExitHow::Code(0));
                return last;
            }
            _ => {}
        }
    }
}

/// The numbers of the notices in a log: bytes and lines.
fn told(log: &str) -> (u64, u64) {
    let mut all = (0, 0);
    for notice in log.lines().filter_map(|line| line.split_once("[hull: dropped ")) {
        let words: Vec<&str> = notice.1.split(' ').collect();
        all.0 += words[0].parse::<u64>().unwrap();
        all.1 += words[5].parse::<u64>().unwrap();
    }
    all
}

#[test]
fn what_exceeds_the_rate_is_dropped_counted_and_told_in_its_place() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let rules = rate(64 << 10, 64 << 10, LogPolicy::Drop);
    run((&pod, &mut daemon), &id, "seq 1 300000; sleep 0.7; echo end", rules, &[]);
    let dropped = dropped(&mut daemon, &id);
    assert!(dropped.lines > 200_000, "{dropped:?}");
    let log = String::from_utf8(pod.raw_log(&id)).unwrap();
    // A burst, some seconds of the rate, and nothing beyond.
    assert!(log.len() < 1 << 20, "{} bytes", log.len());
    assert_eq!(told(&log), (dropped.bytes, dropped.lines));
    let kept = pod.output(&id, "stdout");
    let kept_lines = kept.iter().filter(|byte| **byte == b'\n').count();
    let all: usize = (1..=300_000).map(|number: u32| number.to_string().len() + 1).sum();
    assert_eq!(kept_lines + usize::try_from(dropped.lines).unwrap(), 300_001);
    assert_eq!(kept.len() + usize::try_from(dropped.bytes).unwrap(), all + "end\n".len());
    assert!(kept.ends_with(b"\nend\n"), "what comes later is there");
}

#[test]
fn a_container_can_wait_for_its_rate_and_then_nothing_is_lost() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let go = fifo(&pod);
    let rules = rate(1 << 20, 64 << 10, LogPolicy::Wait);
    let began = Instant::now();
    run((&pod, &mut daemon), &id, "seq 1 40000; read go < /shared/go", rules, &[]);
    eventually("all of it is in the log", || (lines_of(&pod.raw_log(&id)) == 40_000).then_some(()));
    let took = began.elapsed();
    go_on(&go);
    assert_eq!(dropped(&mut daemon, &id), LogDropped::default());
    let log = pod.raw_log(&id);
    let all: Vec<u8> =
        (1..=40_000).flat_map(|number: u32| format!("{number}\n").into_bytes()).collect();
    assert_eq!(output(&log, "stdout"), all);
    // All but the burst came at the rate.
    assert!(log.len() > 1_700_000, "{} bytes", log.len());
    assert!(took > Duration::from_millis(1500), "it took {took:?}");
}

/// Each of its empty lines is 41 bytes of log, and its pipe is as large as one can be.
#[test]
fn no_output_passes_the_rate_that_a_container_waits_for() {
    const ALL: usize = 1_000_000;
    const PIPE: usize = 1 << 20;
    const BURST: usize = 32 << 10;
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let go = fifo(&pod);
    let rules = rate(1 << 10, 32 << 10, LogPolicy::Wait);
    let script = "read go < /shared/go; yes '' | head -c 1000000; echo end; read go < /shared/go";
    let began = Instant::now();
    let pid = run((&pod, &mut daemon), &id, script, rules, &[]);
    let pipe = File::options().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    assert_eq!(rustix::pipe::fcntl_setpipe_size(&pipe, PIPE).unwrap(), PIPE);
    drop(pipe);
    go_on(&go);
    let allowed = || BURST + (1 << 10) * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
    let running = eventually("the burst is in the log", || {
        Some(pod.raw_log(&id).len()).filter(|len| *len > 28_000)
    });
    assert!(running <= allowed(), "{running} bytes while it runs");
    go_on(&go);
    let dropped = dropped(&mut daemon, &id);
    let log = pod.raw_log(&id);
    // What it left passes as far as one burst more; the notice comes on top.
    assert!((running + 30_000..=allowed() + BURST + 200).contains(&log.len()), "{}", log.len());
    assert_eq!(told(&String::from_utf8(log).unwrap()), (dropped.bytes, dropped.lines));
    let kept = pod.output(&id, "stdout");
    assert_eq!(kept.len() + usize::try_from(dropped.bytes).unwrap(), ALL + "end\n".len());
    assert_eq!(lines_of(&kept) + usize::try_from(dropped.lines).unwrap(), ALL + 1);
}

/// A reader of the log would take it for the whole line.
#[test]
fn a_long_line_that_is_cut_says_so_and_time_never_goes_back() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let rules = rate(64 << 10, 64 << 10, LogPolicy::Drop);
    let script = "yes '' | head -c 200000 | tr '\\n' x; echo; sleep 1.5; echo end";
    run((&pod, &mut daemon), &id, script, rules, &[]);
    let dropped = dropped(&mut daemon, &id);
    assert_eq!(dropped.lines, 1, "{dropped:?}");
    let log = String::from_utf8(pod.raw_log(&id)).unwrap();
    let lines: Vec<_> = log.lines().map(|line| line.split_at(31)).collect();
    assert!(lines.is_sorted_by_key(|(time, _)| *time), "{log}");
    let whole = "stdout F [hull: the rest of this line is dropped]";
    let after: Vec<_> = lines.iter().skip_while(|(_, rest)| *rest != whole).collect();
    assert!(lines.len() > after.len(), "its first pieces are there");
    assert!(lines[..lines.len() - after.len()].iter().all(|(_, of)| of.starts_with("stdout P x")));
    assert_eq!(after.len(), 3, "the mark, the notice, and what comes later");
    assert!(after[1].1.starts_with("stderr F [hull: dropped "), "{}", after[1].1);
    assert_eq!(after[2].1, "stdout F end");
}

#[test]
fn a_file_that_is_full_takes_no_more_until_it_is_reopened() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let go = fifo(&pod);
    let rules = Logging { size_max: Some(10_000), ..Logging::default() };
    let script = "seq 1 10000; read go < /shared/go; echo again";
    run((&pod, &mut daemon), &id, script, rules, &[]);
    let full = "reached its limit of 10000 bytes; what follows is dropped]\n";
    eventually("the log says that it is full", || {
        String::from_utf8(pod.raw_log(&id)).unwrap().ends_with(full).then_some(())
    });
    let first = pod.raw_log(&id);
    assert!((9000..10_200).contains(&first.len()), "{} bytes", first.len());
    fs::rename(pod.log_path(&id), pod.dir.path().join("rotated")).unwrap();
    let file = pod.log_file(&id);
    daemon.ask(Command::ReopenLog { container: id.clone() }, &[file.as_fd()]).unwrap();
    go_on(&go);
    let dropped = dropped(&mut daemon, &id);
    let second = String::from_utf8(pod.raw_log(&id)).unwrap();
    assert!(second.ends_with("stdout F again\n"), "{second}");
    assert_eq!(told(&second), (dropped.bytes, dropped.lines));
}

#[test]
fn a_rotated_log_is_whole_in_all_of_its_files() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let name = pod.log_path(&id).file_name().unwrap().to_str().unwrap().to_owned();
    let size = 256 << 10;
    let rotate = Some(LogRotation { name: name.clone(), size, files: 1000 });
    let dir: OwnedFd = File::open(pod.dir.path()).unwrap().into();
    let rules = Logging { rotate, ..Logging::default() };
    run((&pod, &mut daemon), &id, "seq 1 300000", rules, &[dir.as_fd()]);
    assert_eq!(dropped(&mut daemon, &id), LogDropped::default());
    let path = |number: u32| pod.dir.path().join(format!("{name}.{number}"));
    let rotated: Vec<_> = (1..).map(path).take_while(|path| path.is_file()).collect();
    assert!(rotated.len() > 30, "{} files", rotated.len());
    let current = pod.log_path(&id);
    let files = rotated.iter().rev().chain([&current]).map(|path| fs::read(path).unwrap());
    let files: Vec<_> = files.collect();
    assert!(files.iter().all(|file| u64::try_from(file.len()).unwrap() <= size));
    let all: Vec<u8> = files.iter().flat_map(|file| output(file, "stdout")).collect();
    let wanted: Vec<u8> =
        (1..=300_000).flat_map(|number: u32| format!("{number}\n").into_bytes()).collect();
    assert!(all == wanted, "lines are missing or out of order");
}

#[test]
fn a_rotation_that_fails_is_told_and_loses_nothing() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let name = pod.log_path(&id).file_name().unwrap().to_str().unwrap().to_owned();
    fs::create_dir(pod.dir.path().join(format!("{name}.1"))).unwrap();
    let rotate = Some(LogRotation { name, size: 256 << 10, files: 1 });
    let dir: OwnedFd = File::open(pod.dir.path()).unwrap().into();
    let rules = Logging { rotate, ..Logging::default() };
    run((&pod, &mut daemon), &id, "seq 1 100000", rules, &[dir.as_fd()]);
    let dropped = dropped(&mut daemon, &id);
    assert_eq!(dropped.rotation_errno, Some(rustix::io::Errno::ISDIR.raw_os_error()));
    assert!(pod.output(&id, "stdout").ends_with(b"99999\n100000\n"));
    assert_eq!(lines_of(&pod.output(&id, "stdout")), 100_000);
}

#[test]
fn journald_gets_every_line_and_is_never_waited_for() {
    let Some(pod) = pod() else { return };
    let mut daemon = pod.connect();
    let path = pod.dir.path().join("journal.sock");
    let journald = UnixDatagram::bind(&path).unwrap();
    journald.set_read_timeout(Some(support::WAIT)).unwrap();
    let connected = || {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(&path).unwrap();
        OwnedFd::from(socket)
    };
    let rules = Logging { journal: Some(b"CONTAINER_NAME=web\n".to_vec()), ..Logging::default() };
    let id = container_id();
    let socket = connected();
    let script = "echo one; echo two >&2";
    run((&pod, &mut daemon), &id, script, rules.clone(), &[socket.as_fd()]);
    assert_eq!(dropped(&mut daemon, &id), LogDropped::default());
    let mut entries: Vec<_> = (0..2)
        .map(|_| {
            let mut bytes = [0; 4096];
            let got = journald.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..got].to_vec()).unwrap()
        })
        .collect();
    entries.sort();
    let wanted = ["PRIORITY=3\nMESSAGE=two\n", "PRIORITY=6\nMESSAGE=one\n"];
    assert_eq!(entries, wanted.map(|end| format!("CONTAINER_NAME=web\n{end}")));
    // Nobody reads any more: the container ends all the same, and its file has everything.
    let (id, socket) = (container_id(), connected());
    run((&pod, &mut daemon), &id, "seq 1 100000", rules, &[socket.as_fd()]);
    let dropped = dropped(&mut daemon, &id);
    assert!(dropped.journal_lines > 90_000 && dropped.lines == 0, "{dropped:?}");
    assert_eq!(lines_of(&pod.output(&id, "stdout")), 100_000);
}

/// It could not read what comes behind a message that it does not know.
#[test]
fn a_daemon_of_an_earlier_release_gets_no_report_of_it() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let go = fifo(&pod);
    let rules = rate(64 << 10, 64 << 10, LogPolicy::Drop);
    let script = "read go < /shared/go; seq 1 100000";
    run((&pod, &mut daemon), &id, script, rules, &[]);
    let mut older = pod.stranger();
    let hello = Request { id: 1000, command: Command::Hello { version: VERSION_LOGGING - 1 } };
    older.stream.write_all(&frame(&hello)).unwrap();
    older.answer(1000).unwrap();
    go_on(&go);
    loop {
        match older.event(|event| Some(event.clone())) {
            Event::LogDropped { .. } => panic!("it does not know that"),
            Event::ContainerExited(..) => break,
            _ => {}
        }
    }
    let mut newer = pod.connect();
    let (container, told) = newer.event(|event| match event {
        Event::LogDropped { container, dropped } => Some((container.clone(), *dropped)),
        _ => None,
    });
    assert!(container == id && told.lines > 0, "{told:?}");
}
