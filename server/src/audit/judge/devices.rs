// SPDX-License-Identifier: Apache-2.0
//! Devices: nodes that the container can open, wherever they are, and rules that allow nodes it creates itself.

use super::finding::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::{DeviceRules, Facts};
use crate::audit::reach::Reach;
use crate::audit::status::{Rule, may_open};
use hull_plan::defaults;
use std::collections::BTreeMap;

/// Major numbers of terminals in a devpts.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    nodes(facts, all);
    rules(facts, all);
}

/// How far an attacker gets with an open device.
fn worth(kind: char, major: u32, minor: u32) -> Reach {
    match (kind, major, minor) {
        // Disks, memory, ports, and devices passed through as a whole (vfio).
        ('b', ..) | ('c', 1, 1 | 2 | 4) | ('c', 10, 196) => Reach::Host,
        // FUSE, kvm, tun: each open has a separate instance.
        ('c', 10, 200 | 229 | 232) => Reach::None,
        // Disks, too, by SCSI commands and as raw devices.
        ('c', 21, _) | ('c', 162, _) => Reach::Host,
        _ => Reach::Node,
    }
}

fn is_usual(kind: char, major: u32, minor: u32) -> bool {
    kind == 'c'
        && (defaults::OPENABLE.contains(&(major, Some(minor))) || TERMINALS.contains(&major))
}

fn nodes(facts: &Facts, all: &mut Vec<Finding>) {
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for node in &facts.nodes {
        let (kind, major, minor) = (node.kind, node.major, node.minor);
        let opens = match &facts.rules {
            DeviceRules::V1(rules) => may_open(rules, kind, major, minor),
            DeviceRules::Ebpf => true,
        };
        if is_usual(kind, major, minor) || !opens {
            continue;
        }
        let owned = node.owned();
        let may = facts.may_access(owned, 4, false) || facts.may_access(owned, 2, false);
        let (reach, but) = if may {
            (worth(kind, major, minor), "")
        } else {
            (Reach::None, ", closed by its mode")
        };
        by.entry(reach).or_default().push(format!("{} ({kind} {major}:{minor}{but})", node.path));
    }
    for (reach, list) in by.into_iter().rev() {
        let hint = if facts.looks_privileged() {
            NOT_PRIVILEGED.into()
        } else {
            "remove the device: the hostPath volume, or the request for a plugin's or CDI device"
                .to_owned()
        };
        let what = format!("device nodes: {}", some_of(&list, 5));
        all.push(Finding { id: "devices", what, reach, hint });
    }
}

/// How far an attacker gets who creates nodes that a rule allows; `None` if no farther than in every container.
fn worth_of(rule: &Rule) -> Option<Reach> {
    if !rule.access.contains(['r', 'w']) {
        return None;
    }
    let reach = match (rule.kind, rule.major, rule.minor) {
        ('c', Some(major), Some(minor)) if is_usual('c', major, minor) => Reach::None,
        ('c', Some(major), _) if TERMINALS.contains(&major) => Reach::None,
        ('c', Some(major), Some(minor)) => worth('c', major, minor),
        // Memory and vfio are among them.
        ('c', None | Some(1 | 10), _) => Reach::Host,
        ('c', Some(major), None) => worth('c', major, 0),
        _ => Reach::Host,
    };
    (reach > Reach::None).then_some(reach)
}

/// Rules matter without nodes, too: a process with CAP_MKNOD creates the nodes it wants, and existing nodes may be
/// anywhere.
fn rules(facts: &Facts, all: &mut Vec<Finding>) {
    let DeviceRules::V1(rules) = &facts.rules else { return };
    // mknod(2) of a device requires the capability in the user namespace of the host.
    if facts.is_mapped() || !facts.acquirable_capabilities().has("MKNOD") {
        return;
    }
    let parsed: Vec<Rule> = rules.iter().filter_map(|rule| Rule::parse(rule)).collect();
    let makes = |rule: &Rule| parsed.iter().any(|of| of.access.contains('m') && of.overlaps(rule));
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for text in rules {
        let Some(rule) = Rule::parse(text).filter(|rule| makes(rule)) else { continue };
        if let Some(reach) = worth_of(&rule) {
            by.entry(reach).or_default().push(text.clone());
        }
    }
    for (reach, list) in by.into_iter().rev() {
        let hint = if facts.looks_privileged() {
            NOT_PRIVILEGED
        } else {
            "remove the device, or securityContext.capabilities.drop: [MKNOD]"
        };
        all.push(Finding {
            id: "device-rules",
            what: format!(
                "device rules allow nodes that it creates itself (CAP_MKNOD): {}",
                some_of(&list, 3)
            ),
            reach,
            hint: hint.into(),
        });
    }
}
