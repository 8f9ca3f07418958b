// SPDX-License-Identifier: Apache-2.0
//! A command that took too long because its container was held back by its CPU limit.

use crate::error::Error;
use crate::node::Node;
use crate::pod::Pod;
use crate::storage::blocking;
use hull_cgroup::{Cgroup, Counters};
use hull_proto::id::ContainerId;
use std::sync::Arc;

/// A smaller share of throttled periods slows nothing down.
const PERCENT_MIN: u64 = 10;

/// The same error; of a command that ran out of time, with the share of the periods in which its container was
/// throttled since its start.
pub(super) async fn explain(
    node: &Arc<Node>,
    id: &ContainerId,
    pod: &Pod,
    failed: Arc<Error>,
) -> Arc<Error> {
    let Error::ExecTimeout { limit, .. } = *failed else { return failed };
    let view = pod.view();
    let Some(shown) = view.containers.get(id) else { return failed };
    let (node, cgroup) = (Arc::clone(node), shown.record.cgroup.clone());
    let read = move || Cgroup::at(&node.cgroups, &cgroup)?.counters();
    let throttled_percent = blocking(read).await.ok().and_then(|counters| percent(&counters));
    Arc::new(Error::ExecTimeout { limit, throttled_percent })
}

fn percent(counters: &Counters) -> Option<u64> {
    let (held_back, all) = (counters.cpu_throttled_periods?, counters.cpu_periods?);
    let percent = held_back.checked_mul(100)?.checked_div(all)?;
    (percent >= PERCENT_MIN).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_much_throttling_is_an_explanation() {
        let of = |held_back, all| Counters {
            cpu_throttled_periods: Some(held_back),
            cpu_periods: Some(all),
            ..Counters::default()
        };
        assert_eq!(percent(&of(95, 100)), Some(95));
        assert_eq!(percent(&of(5, 100)), None);
        assert_eq!(percent(&of(0, 0)), None);
        assert_eq!(percent(&Counters::default()), None);
        let error = Error::ExecTimeout {
            limit: std::time::Duration::from_secs(1),
            throttled_percent: Some(95),
        };
        assert!(
            error.to_string().ends_with("throttled by its CPU limit in 95 % of the periods"),
            "{error}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("CPU limit")));
    }
}
