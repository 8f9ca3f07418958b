// SPDX-License-Identifier: Apache-2.0
//! The cost of a process, as the kernel counts it (proc(5)): processor time, memory, written bytes, descriptors.

use crate::eventually::eventually_within;
use crate::expect::ExpectExt;
use crate::shell::{self, say};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The kernel counts processor time in these, whatever the machine: `USER_HZ`.
const TICKS_PER_SECOND: u64 = 100;
/// How long a process may keep memory that it does not need any more.
const RETURN_MAX: Duration = Duration::from_secs(60);
/// By how much it may stay larger than it was, as a part of that.
const GROWN_PART: u64 = 5;
/// And what an allocator may keep of a peak besides: an idle monitor has less than this in all.
const KEPT_BYTES: u64 = 512 << 10;

/// A process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub i32);

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Its proportional set size: what it shares is divided by the number of those who share it.
    pub pss: u64,
    /// The part of it that does not come from files. The rest depends on how many processes run the same program.
    pub anonymous: u64,
}

impl Process {
    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn read(self, name: &str) -> String {
        let path = self.file(name);
        fs::read_to_string(&path).or_fail(format!("read {}", path.display()))
    }

    fn field(self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.or_fail(format!("read {name} in {}", self.file(file).display()))
    }

    /// Processor time of all its threads so far, without its children.
    #[must_use]
    pub fn processor_time(self) -> Duration {
        let stat = self.read("stat");
        let (_, rest) = stat.rsplit_once(") ").or_fail("read a process's times");
        // The state, which is field 3, is the first here: utime is field 14, then stime.
        let times = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// The most memory that it had since [`Process::forget_peak`], in bytes.
    #[must_use]
    pub fn peak_bytes(self) -> u64 {
        self.field("status", "VmHWM:") << 10
    }

    /// Has the kernel count the peak from here on.
    pub fn forget_peak(self) {
        fs::write(self.file("clear_refs"), "5").or_fail("reset a process's peak of memory");
    }

    /// Bytes that it had written to storage so far.
    #[must_use]
    pub fn written_bytes(self) -> u64 {
        self.field("io", "write_bytes:")
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn descriptors(self) -> usize {
        shell::names(&self.file("fd")).len()
    }

    /// Its memory now.
    #[must_use]
    pub fn memory(self) -> Memory {
        Memory {
            pss: self.field("smaps_rollup", "Pss:") << 10,
            anonymous: self.field("smaps_rollup", "Pss_Anon:") << 10,
        }
    }

    /// Waits until its memory is, but for a fifth, what it was, and prints both. Only memory that does not come from
    /// files is compared: the rest changes with every other process of the same program.
    pub async fn memory_returns(self, name: &str, before: Memory) {
        let most = before.anonymous + before.anonymous / GROWN_PART + KEPT_BYTES;
        let began = std::time::Instant::now();
        let at_once = self.memory();
        let after = eventually_within(RETURN_MAX, format!("{name} gives memory back"), || async {
            let now = self.memory();
            if now.anonymous <= most { Ok(now) } else { Err(format!("{before:?}, now {now:?}")) }
        })
        .await;
        let kib = |memory: Memory| format!("{} ({})", memory.pss >> 10, memory.anonymous >> 10);
        say(&format!(
            "{name}: PSS in KiB (without files): before {}, at once after {}, then {} after {:.1?}",
            kib(before),
            kib(at_once),
            kib(after),
            began.elapsed()
        ));
    }
}
