// SPDX-License-Identifier: Apache-2.0
//! Rows of the live view, from two readings. Pure.

use super::super::format::Row;
use super::super::ps::row;
use crate::observe::load::{ContainerLoad, Load};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The rows: containers by CPU use, the busiest first, then pulls.
pub(super) fn rows(before: &Load, after: &Load) -> Vec<Row> {
    let earlier: HashMap<&str, &ContainerLoad> =
        before.containers.iter().map(|of| (of.id.as_str(), of)).collect();
    let elapsed_ns = u64::try_from(after.at_ns.saturating_sub(before.at_ns)).unwrap_or(0);
    let of =
        |now: &ContainerLoad| container(earlier.get(now.id.as_str()).copied(), now, elapsed_ns);
    let mut rows: Vec<Row> = after.containers.iter().map(of).collect();
    let busy = |row: &Row| row.get("cpuPercent").and_then(Value::as_f64).unwrap_or(0.0);
    rows.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
    rows.extend(after.pulls.iter().map(|pull| {
        let seconds = after.at_ns.saturating_sub(pull.began_ns).max(0) / 1_000_000_000;
        row(json!({
            "kind": "pull",
            "namespace": pull.namespace,
            "pod": pull.pod,
            "container": format!("pulling {}", pull.image),
            "cpuPercent": null,
            "throttledPercent": null,
            "memory": null,
            "limit": null,
            "cpuPressure": null,
            "memoryPressure": null,
            "ioPressure": null,
            "oomKills": null,
            "restarts": null,
            "execsPerSecond": null,
            "seconds": seconds,
            "id": "",
            "names": pull.image,
        }))
    }));
    rows
}

fn container(before: Option<&ContainerLoad>, now: &ContainerLoad, elapsed_ns: u64) -> Row {
    let since =
        |of: fn(&ContainerLoad) -> u64| before.map(|before| of(now).saturating_sub(of(before)));
    let cpu = since(|of| of.cpu_ns).and_then(|used| tenths(used, 1000, elapsed_ns));
    let execs = since(|of| of.execs);
    let execs = execs.and_then(|ran| tenths(ran, 10_000_000_000, elapsed_ns));
    let periods = since(|of| of.cpu_periods.unwrap_or(0));
    let throttled = since(|of| of.cpu_throttled_periods.unwrap_or(0));
    let throttled = match (periods, throttled) {
        (Some(periods), Some(throttled)) => tenths(throttled, 1000, periods),
        (None, _) | (_, None) => None,
    };
    row(json!({
        "kind": "container",
        "namespace": now.namespace,
        "pod": now.pod,
        "container": now.container,
        "cpuPercent": cpu,
        "throttledPercent": throttled,
        "memory": now.memory_bytes,
        "limit": now.memory_limit_bytes,
        "cpuPressure": now.cpu_pressure,
        "memoryPressure": now.memory_pressure,
        "ioPressure": now.io_pressure,
        "oomKills": now.oom_kills,
        "restarts": now.attempt,
        "execsPerSecond": execs,
        "seconds": null,
        "id": now.id,
        "names": format!("{}/{}/{}", now.namespace, now.pod, now.container),
    }))
}

/// `part` times `scale` by `whole`, where `scale` has a factor of 10 for the one decimal.
fn tenths(part: u64, scale: u64, whole: u64) -> Option<f64> {
    let tenths = (u128::from(part) * u128::from(scale)).checked_div(u128::from(whole))?;
    u32::try_from(tenths).ok().map(|tenths| f64::from(tenths) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::load::Pull;

    fn load(at_ns: i64, cpu_ns: u64, execs: u64) -> Load {
        let container = ContainerLoad {
            id: "c".into(),
            container: "app".into(),
            cpu_ns,
            execs,
            cpu_periods: Some(cpu_ns / 100_000_000),
            cpu_throttled_periods: Some(cpu_ns / 200_000_000),
            ..ContainerLoad::default()
        };
        let idle =
            ContainerLoad { id: "i".into(), container: "idle".into(), ..ContainerLoad::default() };
        let pull = Pull { image: "app:1".into(), began_ns: 1, ..Pull::default() };
        Load { at_ns, containers: vec![idle, container], pulls: vec![pull] }
    }

    #[test]
    fn rates_are_the_difference_of_two_readings() {
        let rows = rows(&load(0, 0, 4), &load(2_000_000_000, 1_000_000_000, 7));
        assert_eq!((&rows[0]["container"], &rows[0]["cpuPercent"]), (&json!("app"), &json!(50.0)));
        assert_eq!(rows[0]["execsPerSecond"], json!(1.5));
        assert_eq!(rows[0]["throttledPercent"], json!(50.0));
        assert_eq!(
            (&rows[1]["container"], &rows[1]["throttledPercent"]),
            (&json!("idle"), &Value::Null)
        );
        assert_eq!(
            (&rows[2]["container"], &rows[2]["seconds"]),
            (&json!("pulling app:1"), &json!(1))
        );
    }

    #[test]
    fn what_was_not_there_before_or_counts_backwards_has_no_rate() {
        let first = rows(&Load::default(), &load(1, u64::MAX, u64::MAX));
        assert!(first.iter().all(|row| row["cpuPercent"].is_null()), "{first:?}");
        let back = rows(&load(5, 9, 9), &load(5, 0, 0));
        assert!(back[0]["execsPerSecond"].is_null(), "no time has passed: {back:?}");
    }
}
