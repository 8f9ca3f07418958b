// SPDX-License-Identifier: Apache-2.0
//! Devices: nodes that it can open, wherever they are, and rules by which it opens nodes of its making.

use super::finding::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::{DeviceRules, Facts};
use crate::audit::reach::Reach;
use crate::audit::status::{Rule, may_open};
use std::collections::BTreeMap;

/// Nodes that every container has: null, zero, full, random, urandom, tty, console, ptmx.
const STANDARD: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Major numbers of terminals in a devpts.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    nodes(facts, all);
    rules(facts, all);
}

/// How far a device leads that can be opened.
fn worth(kind: char, major: u32, minor: u32) -> Reach {
    match (kind, major, minor) {
        // Disks, memory, ports, and devices handed over whole (vfio).
        ('b', ..) | ('c', 1, 1 | 2 | 4) | ('c', 10, 196) => Reach::Host,
        // FUSE, kvm, tun, each of which has its own world.
        ('c', 10, 200 | 229 | 232) => Reach::None,
        // Disks as well, by SCSI commands and raw.
        ('c', 21, _) | ('c', 162, _) => Reach::Host,
        _ => Reach::Node,
    }
}

fn is_usual(kind: char, major: u32, minor: u32) -> bool {
    kind == 'c' && (STANDARD.contains(&(major, minor)) || TERMINALS.contains(&major))
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
        let may = facts.may(owned, 4, false) || facts.may(owned, 2, false);
        let (reach, but) =
            if may { (worth(kind, major, minor), "") } else { (Reach::None, ", shut by its mode") };
        by.entry(reach).or_default().push(format!("{} ({kind} {major}:{minor}{but})", node.path));
    }
    for (reach, list) in by.into_iter().rev() {
        let fix = if facts.looks_privileged() {
            NOT_PRIVILEGED.into()
        } else {
            "take away the device: the hostPath, or the device plugin's or CDI's claim".to_owned()
        };
        let what = format!("device nodes: {}", some_of(&list, 5));
        all.push(Finding { id: "devices", what, reach, fix });
    }
}

/// How far a rule lets somebody go who makes nodes of it; `None` when no farther than every container.
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

/// Rules matter without nodes as well: who may make nodes makes those that he wants, and one that was
/// made before may be anywhere.
fn rules(facts: &Facts, all: &mut Vec<Finding>) {
    let DeviceRules::V1(rules) = &facts.rules else { return };
    // mknod(2) of a device wants the capability in the host's user namespace.
    if facts.is_mapped() || !facts.within_reach().has("MKNOD") {
        return;
    }
    let parsed: Vec<Rule> = rules.iter().filter_map(|rule| Rule::parse(rule)).collect();
    let makes = |rule: &Rule| parsed.iter().any(|of| of.access.contains('m') && of.meets(rule));
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for text in rules {
        let Some(rule) = Rule::parse(text).filter(|rule| makes(rule)) else { continue };
        if let Some(reach) = worth_of(&rule) {
            by.entry(reach).or_default().push(text.clone());
        }
    }
    for (reach, list) in by.into_iter().rev() {
        let fix = if facts.looks_privileged() {
            NOT_PRIVILEGED
        } else {
            "take away the device, or securityContext.capabilities.drop: [MKNOD]"
        };
        all.push(Finding {
            id: "device-rules",
            what: format!(
                "device rules let it open nodes that it makes (CAP_MKNOD): {}",
                some_of(&list, 3)
            ),
            reach,
            fix: fix.into(),
        });
    }
}
