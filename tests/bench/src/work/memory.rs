// SPDX-License-Identifier: Apache-2.0
//! Memory of all that the runtime adds to the node, with few and with many pods: the daemon's own, and
//! that of its helpers (shims, monitors, pause processes), per pod. The workload is left out.

use crate::Result;
use crate::memory::{MemoryUse, daemon_pid, helper_pids, measure};
use crate::samples::{Sink, Unit};
use crate::size::Size;
use crate::target::Target;

#[expect(clippy::cast_precision_loss, reason = "kibibytes of one node")]
pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let of_daemon = measure(&[daemon_pid(&target.endpoint.socket).await?])?;
    sink.add("PSS of the daemon, 0 pods", Unit::Kib, of_daemon.pss_kib as f64);
    let mut pods = Vec::new();
    for &count in &size.memory_at {
        target.fill(&mut pods, count).await?;
        let helpers = measure(&helper_pids(target).await?)?;
        let of_daemon = measure(&[daemon_pid(&target.endpoint.socket).await?])?;
        let per_pod = |kib: u64| kib as f64 / count as f64;
        let MemoryUse { pss_kib, private_kib } = helpers;
        sink.add(&format!("PSS per pod, {count} pods"), Unit::Kib, per_pod(pss_kib));
        sink.add(&format!("private per pod, {count} pods"), Unit::Kib, per_pod(private_kib));
        let of_daemon_kib = of_daemon.pss_kib as f64;
        sink.add(&format!("PSS of the daemon, {count} pods"), Unit::Kib, of_daemon_kib);
        sink.add(
            &format!("PSS in all, {count} pods"),
            Unit::Kib,
            (of_daemon.pss_kib + pss_kib) as f64,
        );
    }
    Ok(())
}
