// SPDX-License-Identifier: Apache-2.0
//! Changes the limits of a cgroup in use: all of them, or none.
//!
//! Every file that may be written is read first. If the kernel rejects a value, all files are restored. Some
//! depend on each other (memory with and without swap, quota and period), so restoring them takes several
//! rounds instead of a computed order.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::{read_if_there, write};
use crate::limits::Limits;
use std::path::PathBuf;

/// Most rounds of restoring: two files that depend on each other need two.
const ROUNDS_MAX: usize = 3;

/// A file and its content before the update.
struct Kept {
    dir: PathBuf,
    file: String,
    text: String,
}

impl Cgroup {
    /// Sets the given limits. If one is rejected, restores the previous limits.
    ///
    /// # Errors
    /// The rejected limit, with file, value and errno; [`Error::HalfSet`] if the previous limits could not be
    /// restored.
    pub fn update(&self, limits: &Limits) -> Result<(), Error> {
        self.update_then(limits, || Ok::<(), Error>(()))?
    }

    /// As [`Cgroup::update`], and then calls `then`; if that fails, restores the previous limits too.
    ///
    /// # Errors
    /// Those of [`Cgroup::update`], and inside those of `then`.
    pub fn update_then<E>(
        &self,
        limits: &Limits,
        then: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let kept = self.keep(limits)?;
        let Err(refused) = self.apply(limits) else {
            let done = then();
            if done.is_err() {
                let _stuck = put_back(&kept);
            }
            return Ok(done);
        };
        let stuck = put_back(&kept);
        if stuck.is_empty() {
            return Err(refused);
        }
        Err(Error::HalfSet { files: stuck.join(", "), source: Box::new(refused) })
    }

    fn keep(&self, limits: &Limits) -> Result<Vec<Kept>, Error> {
        let places: Vec<(Option<PathBuf>, String)> = match (self.version(), self.unified()) {
            (Version::V2, Some(dir)) => {
                v2_files(limits).into_iter().map(|file| (Some(dir.clone()), file)).collect()
            }
            _ => {
                let of = v1_files(limits).into_iter();
                of.map(|(controller, file)| (self.v1(controller), file)).collect()
            }
        };
        let mut kept = Vec::new();
        for (dir, file) in places {
            let Some(dir) = dir else { continue };
            if let Some(text) = read_if_there(&dir, &file)? {
                let text = old_value(&file, &text);
                kept.push(Kept { dir, file, text });
            }
        }
        Ok(kept)
    }
}

/// Converts the content of a file into the value that restores it. An empty CPU list is an empty line.
fn old_value(file: &str, text: &str) -> String {
    let text = text.trim_end();
    if file == "memory.oom_control" {
        let on = crate::files::field(text, "oom_kill_disable") == Some(1);
        return if on { "1".into() } else { "0".into() };
    }
    if text.is_empty() { "\n".into() } else { text.to_owned() }
}

/// Restores all files; returns the paths of those that could not be restored.
fn put_back(kept: &[Kept]) -> Vec<String> {
    let mut stuck = Vec::new();
    for _ in 0..ROUNDS_MAX {
        stuck.clear();
        for Kept { dir, file, text } in kept {
            let now = read_if_there(dir, file).ok().flatten().unwrap_or_default();
            if old_value(file, &now) != *text && write(dir, file, text).is_err() {
                stuck.push(dir.join(file).display().to_string());
            }
        }
        if stuck.is_empty() {
            break;
        }
    }
    stuck
}

/// The files that `v1::apply` may write, except for devices, whose rules are additive.
fn v1_files(limits: &Limits) -> Vec<(&'static str, String)> {
    // Memory without a limit takes that of memory with swap away, too.
    let memsw =
        limits.memory_swap_bytes.is_some() || limits.memory_bytes.is_some_and(|bytes| bytes < 0);
    let fixed = [
        (limits.cpu_shares.is_some(), "cpu", "cpu.shares"),
        (limits.cpu_period_us.is_some(), "cpu", "cpu.cfs_period_us"),
        (limits.cpu_quota_us.is_some(), "cpu", "cpu.cfs_quota_us"),
        (limits.cpu_burst_us.is_some(), "cpu", "cpu.cfs_burst_us"),
        (limits.cpu_idle.is_some(), "cpu", "cpu.idle"),
        (limits.cpuset_cpus.is_some(), "cpuset", "cpuset.cpus"),
        (limits.cpuset_mems.is_some(), "cpuset", "cpuset.mems"),
        (limits.memory_bytes.is_some(), "memory", "memory.limit_in_bytes"),
        (memsw, "memory", "memory.memsw.limit_in_bytes"),
        (limits.memory_reservation_bytes.is_some(), "memory", "memory.soft_limit_in_bytes"),
        (limits.oom_kill_disable.is_some(), "memory", "memory.oom_control"),
        (limits.pids.is_some(), "pids", "pids.max"),
        (limits.io_weight.is_some(), "blkio", "blkio.weight"),
        (limits.io_weight.is_some(), "blkio", "blkio.bfq.weight"),
    ];
    let fixed = fixed.into_iter().filter(|(set, ..)| *set);
    let pages = limits.hugepages.iter();
    fixed
        .map(|(_, controller, file)| (controller, file.to_owned()))
        .chain(pages.map(|of| ("hugetlb", format!("hugetlb.{}.limit_in_bytes", of.page_size))))
        .collect()
}

/// The files that `v2::apply` may write; device rules are a BPF program and not a file.
fn v2_files(limits: &Limits) -> Vec<String> {
    let quota = limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some();
    let fixed = [
        (limits.cpu_shares.is_some(), "cpu.weight"),
        (limits.cpu_idle.is_some(), "cpu.idle"),
        (quota, "cpu.max"),
        (limits.cpu_burst_us.is_some(), "cpu.max.burst"),
        (limits.cpuset_cpus.is_some(), "cpuset.cpus"),
        (limits.cpuset_mems.is_some(), "cpuset.mems"),
        (limits.memory_bytes.is_some(), "memory.max"),
        (limits.memory_swap_bytes.is_some(), "memory.swap.max"),
        (limits.memory_reservation_bytes.is_some(), "memory.low"),
        (limits.pids.is_some(), "pids.max"),
        (limits.io_weight.is_some(), "io.weight"),
    ];
    let pages = limits
        .hugepages
        .iter()
        .flat_map(|of| ["max", "rsvd.max"].map(|end| format!("hugetlb.{}.{end}", of.page_size)));
    // Keys that could be paths are rejected when they are set.
    let unified = limits.unified.iter().map(|(key, _)| key.clone());
    let unified = unified.filter(|key| !key.contains('/') && !key.starts_with('.'));
    let fixed = fixed.into_iter().filter(|(set, _)| *set).map(|(_, file)| file.to_owned());
    fixed.chain(pages).chain(unified).collect()
}
