// SPDX-License-Identifier: Apache-2.0
//! Which processes a runtime has, and how much memory they use.
//!
//! A pod's helpers are found by descent: from each process of a pod upwards to the daemon, or to what
//! adopted the helper; everything below that top is the runtime's but for the workload. So no list of
//! names is needed, and an unexpected helper is counted as well.
//!
//! Not here: memory of the kernel, and files in the page cache that no process maps.

use crate::error::verb;
use crate::target::Target;
use crate::{Error, Result};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hull_tests::shell::names;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Requests under way at once.
const AT_ONCE: usize = 8;

/// Memory of some processes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Proportional set size: a page that several processes map counts in part for each.
    pub pss_kib: u64,
    /// Private pages, which would be free without these processes.
    pub private_kib: u64,
}

/// Pid of the process that listens on `socket`.
///
/// # Errors
/// No process accepts connections there.
pub async fn daemon_pid(socket: &Path) -> Result<i32> {
    let failed = |source| Error::Daemon { socket: socket.to_owned(), source };
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(failed)?;
    let pid = stream.peer_cred().map_err(failed)?.pid();
    pid.ok_or_else(|| failed(std::io::Error::other("the socket does not report its process")))
}

/// Pids of the helpers of all pods of the benchmark.
///
/// # Errors
/// The runtime does not report the process ids.
pub async fn helper_pids(target: &Target) -> Result<Vec<i32>> {
    let daemon = daemon_pid(&target.endpoint.socket).await?;
    let pods = target.pods().await?;
    let of_pods: Vec<Seeds> = stream::iter(pods)
        .map(|pod| seeds(target, pod.id))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let workload: BTreeSet<i32> = of_pods.iter().flat_map(|seeds| seeds.workload.clone()).collect();
    let pause = of_pods.iter().flat_map(|seeds| seeds.pause);
    Ok(descend(&parents(), daemon, &workload, pause))
}

/// Processes of one pod that the runtime reports.
struct Seeds {
    workload: Vec<i32>,
    pause: Option<i32>,
}

async fn seeds(target: &Target, pod: String) -> Result<Seeds> {
    let status = target.cri.pod_status(&pod).await.map_err(verb("PodSandboxStatus"))?;
    let mut workload = Vec::new();
    for container in target.containers(&pod).await? {
        let status = target.cri.inspect(&container).await.map_err(verb("ContainerStatus"))?;
        let what = "the process id (`info.info.pid`)";
        let missing = Error::Answer { verb: "ContainerStatus", what };
        workload.push(pid_in_info(&status.info).ok_or(missing)?);
    }
    Ok(Seeds { workload, pause: pid_in_info(&status.info) })
}

/// The process id in a verbose answer, by the name that crictl's users read.
pub(crate) fn pid_in_info(info: &HashMap<String, String>) -> Option<i32> {
    let info: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    i32::try_from(info["pid"].as_i64()?).ok().filter(|pid| *pid > 0)
}

/// The parent of each process.
fn parents() -> BTreeMap<i32, i32> {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let pids = names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// All processes of the trees that the pods' processes belong to, without the workload and the daemon.
fn descend(
    parents: &BTreeMap<i32, i32>,
    daemon: i32,
    workload: &BTreeSet<i32>,
    pause: impl Iterator<Item = i32>,
) -> Vec<i32> {
    let is_above = |pid: i32| pid <= 1 || pid == daemon;
    let top_of = |mut pid: i32| {
        loop {
            match parents.get(&pid) {
                Some(&parent) if !is_above(parent) => pid = parent,
                _ => return pid,
            }
        }
    };
    let tops: BTreeSet<i32> = workload.iter().copied().chain(pause).map(top_of).collect();
    let ours = |mut pid: i32| {
        loop {
            if workload.contains(&pid) || is_above(pid) {
                return false;
            }
            if tops.contains(&pid) {
                return true;
            }
            match parents.get(&pid) {
                Some(&parent) => pid = parent,
                None => return false,
            }
        }
    };
    parents.keys().copied().filter(|pid| ours(*pid)).collect()
}

/// Memory of these processes together. A process that has ended meanwhile counts as nothing.
///
/// # Errors
/// The kernel refuses to show the memory of a process.
pub fn measure(pids: &[i32]) -> Result<MemoryUse> {
    let mut all = MemoryUse::default();
    for pid in pids {
        let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            Err(err) if err.raw_os_error() == Some(nix::libc::ESRCH) => continue,
            Err(source) => return Err(Error::File { act: "read", path, source }),
        };
        let value = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        let found = || Error::Content { what: "Pss and Private_*".into(), path: path.clone() };
        all.pss_kib += value("Pss:").ok_or_else(found)?;
        all.private_kib += value("Private_Dirty:").ok_or_else(found)?;
        all.private_kib += value("Private_Clean:").ok_or_else(found)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 is the daemon. 10: a shim with a pause and a workload that has a child. 20: a monitor below
    /// the daemon. 30: somebody else.
    #[test]
    fn helpers_are_the_processes_above_and_beside_the_workload() {
        let parents = BTreeMap::from([
            (5, 1),
            (6, 5),
            (10, 1),
            (11, 10),
            (12, 10),
            (13, 12),
            (20, 5),
            (21, 20),
            (22, 20),
            (30, 1),
        ]);
        let workload = BTreeSet::from([12, 22]);
        let found = descend(&parents, 5, &workload, [11, 21].into_iter());
        assert_eq!(found, [10, 11, 20, 21]);
    }

    #[test]
    fn a_pause_alone_has_helpers_too() {
        let parents = BTreeMap::from([(5, 1), (10, 1), (11, 10)]);
        assert_eq!(descend(&parents, 5, &BTreeSet::new(), [11].into_iter()), [10, 11]);
    }
}
