// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses, in the form of runc's events; again and again, with its out-of-memory kills, until
//! it ends.

use crate::args::{Events, Global};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::Dir;
use hull_cgroup::{Cgroup, Counters, Psi, PsiLine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// One event, its fields in runc's order.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

pub(crate) fn events(global: &Global, args: &Events) -> Result<()> {
    let dir = Dir::open(&global.root, &args.id)?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: args.id.clone() })?;
    let (status, first) = status::of(&dir, &record)?;
    let first = match first {
        Some(first) if status != Status::Stopped => first,
        _ => return Err(Error::NotRunning { action: "read the use of", id: args.id.clone() }),
    };
    let cgroup = status::cgroup(&record)?;
    show_stats(&record, &cgroup)?;
    if args.stats { Ok(()) } else { follow(args, &record, &cgroup, &first) }
}

/// Until the first process has ended.
fn follow(args: &Events, record: &Record, cgroup: &Cgroup, first: &OwnedFd) -> Result<()> {
    let mut kills = cgroup.oom_events().map_err(failed(&record.id))?;
    let mut next = Instant::now() + args.interval;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = vec![PollFd::new(first, PollFlags::IN)];
        if let Some(kills) = &kills {
            fds.push(PollFd::new(kills, kills.flags()));
        }
        // Interrupted or not: all is looked at below.
        let _woken = poll(&mut fds, Some(&wait));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_due = Instant::now() >= next;
        // cgroup v1 announces a kill before it counts it: the counter is read at every interval and at the end, too.
        if let Some(kills) = &mut kills
            && (is_due || ready.contains(&true))
        {
            // A cgroup that was removed meanwhile has counted none.
            for _ in 0..kills.take(cgroup).unwrap_or(0) {
                show(&Event { kind: "oom", id: &record.id, data: None })?;
            }
        }
        if ready[0] {
            return Ok(());
        }
        if is_due {
            next += args.interval;
            show_stats(record, cgroup)?;
        }
    }
}

fn show(event: &Event<'_>) -> Result<()> {
    let text = serde_json::to_string(event).unwrap_or_default();
    std::io::stdout()
        .write_all(format!("{text}\n").as_bytes())
        .map_err(|err| Error::call(hull_sys::Error::of_io(|| "write(stdout)")(err)))
}

fn show_stats(record: &Record, cgroup: &Cgroup) -> Result<()> {
    let data = stats(cgroup).map_err(failed(&record.id))?;
    show(&Event { kind: "stats", id: &record.id, data: Some(data) })
}

fn stats(cgroup: &Cgroup) -> std::result::Result<Value, hull_cgroup::Error> {
    let (stats, more) = (cgroup.stats()?, cgroup.counters()?);
    let memory = |usage: u64, limit: Option<u64>| json!({"usage": usage, "limit": limit.unwrap_or(u64::MAX)});
    let swap = stats.swap_usage_bytes.map(|used| memory(used, stats.swap_limit_bytes));
    Ok(json!({
        "cpu": {
            "usage": {
                "total": stats.cpu_usage_ns, "user": more.cpu_user_ns, "kernel": more.cpu_system_ns,
            },
            "throttling": {
                "periods": more.cpu_periods, "throttledPeriods": more.cpu_throttled_periods,
                "throttledTime": more.cpu_throttled_ns,
            },
            "psi": stats.psi_cpu.as_ref().map(pressure),
        },
        "memory": {
            "usage": memory(stats.memory_usage_bytes, stats.memory_limit_bytes),
            "swap": swap, "cache": more.memory_cache_bytes, "max": more.memory_peak_bytes,
            "failcnt": more.memory_limit_hits, "psi": stats.psi_memory.as_ref().map(pressure),
        },
        "pids": {"current": stats.pids, "limit": more.pids_max},
        "blkio": blkio(&more, stats.psi_io.as_ref()),
        "hugetlb": hugetlb(&more),
    }))
}

fn pressure(psi: &Psi) -> Value {
    let line = |of: &PsiLine| json!({"avg10": of.avg10, "avg60": of.avg60, "avg300": of.avg300, "total": of.total_us});
    json!({"some": line(&psi.some), "full": line(&psi.full)})
}

fn blkio(more: &Counters, psi: Option<&Psi>) -> Value {
    let entries = |of: fn(&hull_cgroup::Io) -> [u64; 2]| -> Vec<Value> {
        let mut list = Vec::new();
        for (device, io) in &more.io {
            let (major, minor) = device.split_once(':').unwrap_or_default();
            let number = |text: &str| text.parse::<u64>().unwrap_or(0);
            for (op, value) in ["Read", "Write"].into_iter().zip(of(io)) {
                list.push(json!({"major": number(major), "minor": number(minor), "op": op, "value": value}));
            }
        }
        list
    };
    json!({
        "ioServiceBytesRecursive": entries(|io| [io.read_bytes, io.written_bytes]),
        "ioServicedRecursive": entries(|io| [io.reads, io.writes]),
        "psi": psi.map(pressure),
    })
}

fn hugetlb(more: &Counters) -> Value {
    let of = more.huge_pages.iter().map(|(size, pages)| {
        (size.clone(), json!({"usage": pages.usage_bytes, "max": pages.peak_bytes}))
    });
    Value::Object(of.collect())
}
