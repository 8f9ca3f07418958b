// SPDX-License-Identifier: Apache-2.0
//! `hull top`: the processes in the cgroup of a container, from the host's /proc.
//!
//! A process that ends meanwhile is left out. A pid may be reused between two reads; so all of a process is read
//! beneath one descriptor of its directory, which never refers to another process.

use super::args::containers::Top as Args;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Kind, Kinds, Row};
use super::names::{Objects, container_name};
use super::process;
use super::ps::row;
use hull_cgroup::{Cgroup, CgroupFs};
use hull_proto::cri as api;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::json;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Longest file of a process that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Ticks per second of the times in `stat`: USER_HZ, which is 100 on every architecture that Hull runs on.
const TICKS_PER_S: u64 = 100;

/// The fields of processes.
pub(crate) const PROCESSES: Kinds = Kinds {
    verb: "top",
    fields: &[
        Field::always("container", "CONTAINER", Kind::Text, "Name of the container."),
        Field::always("pid", "PID", Kind::Number, "Process id on the host."),
        Field::wide("inside", "PID INSIDE", Kind::Number, "Process id in the container."),
        Field::always("parent", "PPID", Kind::Number, "Process id of the parent on the host."),
        Field::always("user", "UID", Kind::Number, "Effective user id on the host."),
        Field::always("state", "STATE", Kind::Word, "State, a letter as in proc_pid_stat(5)."),
        Field::always("threads", "THREADS", Kind::Number, "Number of threads."),
        Field::always("memory", "RSS", Kind::Bytes, "Resident memory in bytes."),
        Field::always("cpuSeconds", "CPU S", Kind::Decimal, "CPU time so far, in seconds."),
        Field::always(
            "command",
            "COMMAND",
            Kind::Text,
            "Command line; in brackets the name, if it has none.",
        ),
    ],
    id: "pid",
    name: "pid",
};

/// Lists the processes of containers.
pub(crate) async fn top(mut client: Client, args: &Args) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let container = args.in_pod.container.as_deref();
    let containers: Vec<&api::Container> = args
        .names
        .iter()
        .map(|name| objects.find_running(name, container))
        .collect::<Result<_>>()?;
    let host = CgroupFs::detect().map_err(cgroup_error)?;
    let mut rows = Vec::new();
    for container in containers {
        let name = container_name(container);
        let first = process::running(&mut client, container, "list the processes of").await?;
        let mut pids = Cgroup::at(&host, &first.cgroup)
            .and_then(|cgroup| cgroup.procs())
            .map_err(cgroup_error)?;
        pids.sort_unstable();
        rows.extend(pids.into_iter().filter_map(|pid| process(name, pid)));
    }
    format::list(&PROCESSES, rows, &args.list)
}

fn cgroup_error(source: hull_cgroup::Error) -> Error {
    let text = super::error::chain(&source);
    Error::io("read the cgroup of the container")(std::io::Error::other(text))
}

/// One process; none if it has ended.
fn process(container: &str, pid: i32) -> Option<Row> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir: OwnedFd = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
    let status = read(dir.as_fd(), "status")?;
    let stat = read(dir.as_fd(), "stat")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |name: &str| {
        let words = field(name).map(|text| text.split_whitespace().collect::<Vec<_>>());
        words
            .unwrap_or_default()
            .into_iter()
            .map(|word| word.parse::<i64>().ok())
            .collect::<Vec<_>>()
    };
    let command = read(dir.as_fd(), "cmdline")?;
    let command = command.trim_end_matches('\0').replace('\0', " ");
    let command = if command.is_empty() {
        format!("[{}]", field("Name:").unwrap_or_default().trim())
    } else {
        command
    };
    Some(row(json!({
        "container": container,
        "pid": pid,
        "inside": numbers("NSpid:").last().copied().flatten(),
        "parent": numbers("PPid:").first().copied().flatten(),
        "user": numbers("Uid:").get(1).copied().flatten(),
        "state": field("State:").and_then(|text| text.trim().chars().next()).unwrap_or('?').to_string(),
        "threads": numbers("Threads:").first().copied().flatten(),
        "memory": numbers("VmRSS:").first().copied().flatten().unwrap_or(0).saturating_mul(1024),
        "cpuSeconds": cpu_s(&stat),
        "command": command,
    })))
}

/// CPU time in seconds: fields 14 and 15, counted after the name, which may contain anything.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    Some(ticks(11)?.saturating_add(ticks(12)?) as f64 / TICKS_PER_S as f64)
}

fn read(dir: BorrowedFd<'_>, name: &str) -> Option<String> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        let row = process("x", own).unwrap();
        assert_eq!(row["pid"], own);
        assert!(row["memory"].as_u64().unwrap() > 0 && row["cpuSeconds"].is_number(), "{row:?}");
        assert!(process("x", i32::MAX).is_none());
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat = "1 (a) S 9) R 0 0 0 0 0 0 0 0 0 0 150 50 0 0";
        assert_eq!(cpu_s(stat), Some(2.0));
    }
}
