// SPDX-License-Identifier: Apache-2.0
//! Limits and usage of a container: `update`, `pause`, `resume`, `events --stats`.

use crate::args::{Global, Update};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::{self, Dir};
use hull_plan::Limits;
use oci_spec::runtime::LinuxResources;
use serde_json::json;
use std::io::Read as _;
use std::time::Duration;

/// How long processes may take to stand still.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Largest document of limits that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

fn open(global: &Global, id: &str) -> Result<(Dir, Record)> {
    let dir = Dir::open(&global.root, id)?;
    dir.lock()?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: id.into() })?;
    Ok((dir, record))
}

pub(crate) fn update(global: &Global, args: &Update) -> Result<()> {
    let (dir, record) = open(global, &args.id)?;
    if status::of(&dir, &record)?.0 == Status::Stopped {
        return Err(Error::NotRunning { action: "update", id: args.id.clone() });
    }
    let cgroup = status::cgroup(&record)?;
    let mut all = Limits::default();
    if let Some(path) = &args.file {
        let text = if path.as_os_str() == "-" {
            let mut text = Vec::new();
            let read = std::io::stdin().take(BYTES_MAX).read_to_end(&mut text);
            read.map_err(hull_sys::Error::of_io(|| "read(stdin)")).map_err(Error::call)?;
            text
        } else {
            store::read_bounded(path)?
        };
        let resources: LinuxResources = serde_json::from_slice(&text)
            .map_err(|source| Error::Document { path: path.clone(), source })?;
        let planned = |source| Error::Plan { id: args.id.clone(), source };
        let mut limits = hull_plan::limits(&resources).map_err(planned)?;
        // Rules come in addition to those that are there: an update is not for them.
        limits.devices.clear();
        all.overlay(limits);
    }
    all.overlay(args.limits.clone());
    // All of them or none.
    cgroup.update(&all).map_err(failed(&args.id))
}

pub(crate) fn pause(global: &Global, id: &str) -> Result<()> {
    let (dir, record) = open(global, id)?;
    match status::of(&dir, &record)?.0 {
        Status::Created | Status::Running => {}
        status @ (Status::Creating | Status::Paused | Status::Stopped) => {
            return Err(Error::WrongState { action: "pause", id: id.into(), status });
        }
    }
    status::cgroup(&record)?.freeze(FREEZE_LIMIT).map_err(failed(id))
}

pub(crate) fn resume(global: &Global, id: &str) -> Result<()> {
    let (dir, record) = open(global, id)?;
    let cgroup = status::cgroup(&record)?;
    if !cgroup.is_frozen().map_err(failed(id))? {
        let (status, _) = status::of(&dir, &record)?;
        return Err(Error::WrongState { action: "resume", id: id.into(), status });
    }
    cgroup.thaw().map_err(failed(id))
}

/// One reading, in the form of runc's events.
pub(crate) fn stats(global: &Global, id: &str) -> Result<String> {
    let dir = Dir::open(&global.root, id)?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: id.into() })?;
    if status::of(&dir, &record)?.0 == Status::Stopped {
        return Err(Error::NotRunning { action: "read the use of", id: id.into() });
    }
    let cgroup = status::cgroup(&record)?;
    let stats = cgroup.stats().map_err(failed(id))?;
    let more = cgroup.counters().map_err(failed(id))?;
    let memory = |usage: u64, limit: Option<u64>| json!({"usage": usage, "limit": limit.unwrap_or(u64::MAX)});
    let of = json!({
        "type": "stats", "id": id,
        "data": {
            "cpu": {
                "usage": {
                    "total": stats.cpu_usage_ns, "user": more.cpu_user_ns, "kernel": more.cpu_system_ns,
                },
                "throttling": {
                    "periods": more.cpu_periods, "throttledPeriods": more.cpu_throttled_periods,
                    "throttledTime": more.cpu_throttled_ns,
                },
            },
            "memory": {
                "usage": memory(stats.memory_usage_bytes, stats.memory_limit_bytes),
                "cache": more.memory_cache_bytes, "max": more.memory_peak_bytes,
            },
            "pids": {"current": stats.pids, "limit": more.pids_max},
        },
    });
    Ok(format!("{of}\n"))
}
