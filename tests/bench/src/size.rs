// SPDX-License-Identifier: Apache-2.0
//! How much of each work is done. The numbers of the full size are those of the published table.

/// Numbers of pods, execs, bytes and so on, for each work.
#[derive(Debug, Clone)]
pub struct Size {
    /// Times that every work is done for every target.
    pub rounds: usize,
    /// Lives of a pod per round, one after the other.
    pub lives: usize,
    /// Pods per round that are started and ended side by side.
    pub parallel: usize,
    /// Pods that are up while execs are measured.
    pub exec_pods: usize,
    /// Execs per round.
    pub execs: usize,
    /// Numbers of pods at which memory is measured.
    pub memory_at: Vec<usize>,
    /// Numbers of containers at which lists and statistics are asked for.
    pub lists_at: Vec<usize>,
    /// Times that each list is asked for.
    pub lists: usize,
    /// Numbers of pods with which the daemon is restarted.
    pub restart_at: Vec<usize>,
    /// Bytes that a container logs.
    pub log_bytes: u64,
    /// Bytes that an exec streams.
    pub stream_bytes: u64,
    /// Pods that are up while nothing is asked for.
    pub idle_pods: usize,
    /// For how long.
    pub idle_s: u64,
    /// Numbers of pods beside which the start of one more is timed.
    pub growth_at: Vec<usize>,
    /// How many are timed there.
    pub growth_lives: usize,
}

impl Size {
    /// The numbers of the published table.
    #[must_use]
    pub fn full() -> Self {
        Self {
            rounds: 3,
            lives: 20,
            parallel: 48,
            exec_pods: 50,
            execs: 100,
            memory_at: vec![1, 10, 50, 200],
            lists_at: vec![50, 500],
            lists: 20,
            restart_at: vec![50, 300],
            log_bytes: 1_000_000_000,
            stream_bytes: 2_000_000_000,
            idle_pods: 100,
            idle_s: 60,
            growth_at: vec![1, 100, 300, 1000],
            growth_lives: 10,
        }
    }

    /// A minute's look: everything once, with little of it. Its figures mean nothing.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            rounds: 1,
            lives: 2,
            parallel: 8,
            exec_pods: 2,
            execs: 8,
            memory_at: vec![1, 3],
            lists_at: vec![2, 12],
            lists: 2,
            restart_at: vec![2],
            log_bytes: 2_000_000,
            stream_bytes: 2_000_000,
            idle_pods: 2,
            idle_s: 1,
            growth_at: vec![1, 4],
            growth_lives: 2,
        }
    }
}
