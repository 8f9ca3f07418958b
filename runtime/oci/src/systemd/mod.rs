// SPDX-License-Identifier: Apache-2.0
//! Cgroups of containers as scopes of systemd (`--systemd-cgroup`). `org.freedesktop.systemd1(5)`.
//!
//! ```text
//! cgroupsPath  SLICE:PREFIX:NAME  →  …/SLICE/PREFIX-NAME.scope, delegated (Delegate=yes)
//! ```
//!
//! systemd creates the scope around a process that only waits, as a scope needs one. The container's process is then
//! created in its cgroup, whose files have the limits; those that systemd writes itself are its properties too. Its private
//! socket needs no message bus, and sends the signals of all jobs.

mod manager;
mod message;
pub(crate) mod properties;

use crate::error::{Error, Result};
use hull_cgroup::Limits;
use hull_sys::ForkResult;
use manager::Manager;
pub(crate) use message::Value;
use message::Writer;
use rustix::event::poll;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::os::fd::{AsFd as _, OwnedFd};

const SLICE_DEFAULT: &str = "system.slice";

/// A scope, and its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) slice: String,
    pub(crate) unit: String,
    /// From the root of each hierarchy.
    pub(crate) cgroup: String,
}

impl Scope {
    /// The scope that a `cgroupsPath` names, or that of a container without one.
    pub(crate) fn named(path: Option<&str>, id: &str) -> Result<Self> {
        let own = format!(":hull-oci:{id}");
        let path = path.filter(|path| !path.is_empty()).unwrap_or(&own);
        let bad = |why| Error::BadValue { value: path.chars().take(200).collect(), what: why };
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(bad("linux.cgroupsPath with --systemd-cgroup, which is slice:prefix:name"));
        };
        let slice = if slice.is_empty() { SLICE_DEFAULT } else { slice };
        let unit = match (name.ends_with(".slice"), prefix) {
            (true, _) => return Err(bad("linux.cgroupsPath: a container's unit is a scope")),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        let is_name = |text: &str| {
            !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\0', ' '])
        };
        if !is_name(name) || !is_name(&unit) {
            return Err(bad("linux.cgroupsPath: its name is not one of a unit"));
        }
        let above = place_of_slice(slice).ok_or_else(|| bad("linux.cgroupsPath: no such slice"))?;
        let cgroup = format!("{above}/{unit}");
        Ok(Self { slice: slice.to_owned(), unit, cgroup })
    }
}

/// The cgroup of a slice, whose name has those above it: `a-b.slice` is `/a.slice/a-b.slice`. `systemd.slice(5)`.
fn place_of_slice(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let (mut place, mut so_far) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() || part.starts_with('.') || part.contains(['/', '\0', ' ']) {
            return None;
        }
        so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}-{part}") };
        place.push_str(&format!("/{so_far}.slice"));
    }
    Some(place)
}

/// The process that a new scope needs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Placeholder(OwnedFd);

impl Placeholder {
    fn start() -> Result<(Self, i32)> {
        let parent = rustix::process::getpid();
        match hull_sys::fork().map_err(Error::call)? {
            ForkResult::Parent { pid, pidfd } => Ok((Self(pidfd), pid)),
            ForkResult::Child => {
                // Nobody else would end it, also if its parent has ended already.
                let kill = Some(Signal::KILL);
                if rustix::process::set_parent_process_death_signal(kill).is_ok()
                    && rustix::process::getppid() == Some(parent)
                {
                    let _woken = poll(&mut [], None);
                }
                hull_sys::exit_now(0)
            }
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ended = pidfd_send_signal(&self.0, Signal::KILL);
        let _reaped = waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Creates the scope of a container. Its cgroup exists as long as the placeholder, or a process of the container.
pub(crate) fn start(
    scope: &Scope,
    id: &str,
    limits: &Limits,
    more: &[(String, Value)],
) -> Result<Placeholder> {
    let (placeholder, pid) = Placeholder::start()?;
    let mut properties = vec![
        ("Description".to_owned(), Value::Text(format!("hull oci container {id}"))),
        ("Slice".to_owned(), Value::Text(scope.slice.clone())),
        ("Delegate".to_owned(), Value::Bool(true)),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
        // Also one that has failed goes when it is empty.
        ("CollectMode".to_owned(), Value::Text("inactive-or-failed".to_owned())),
        ("PIDs".to_owned(), Value::Numbers(vec![pid.cast_unsigned()])),
    ];
    for controller in ["CPU", "Memory", "Tasks"] {
        properties.push((format!("{controller}Accounting"), Value::Bool(true)));
    }
    properties.extend(properties::of_limits(limits));
    properties.extend_from_slice(more);
    let mut manager = Manager::connect(&scope.unit)?;
    let request = |manager: &mut Manager<'_>| {
        let mut body = Writer::default();
        body.text(&scope.unit);
        body.text("replace");
        body.properties(&properties);
        body.no_units();
        manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
    };
    match request(&mut manager) {
        // One that failed stays until somebody resets it.
        Err(Error::Systemd { why, .. }) if why.contains("UnitExists") => {
            let mut body = Writer::default();
            body.text(&scope.unit);
            manager.call("ResetFailedUnit", "s", body)?;
            request(&mut manager)?;
        }
        other => other?,
    }
    Ok(placeholder)
}

/// Tells systemd the new limits of those that it writes itself.
pub(crate) fn update(unit: &str, limits: &Limits) -> Result<()> {
    let properties = properties::of_limits(limits);
    if properties.is_empty() {
        return Ok(());
    }
    let mut body = Writer::default();
    body.text(unit);
    // Until the next boot.
    body.bool(true);
    body.properties(&properties);
    Manager::connect(unit)?.call("SetUnitProperties", "sba(sv)", body).map(drop)
}

/// Whether the unit of this name is still the scope with this cgroup, and not one that somebody else has created since.
pub(crate) fn is_ours(unit: &str, cgroup: &str) -> Result<bool> {
    let mut manager = Manager::connect(unit)?;
    let mut body = Writer::default();
    body.text(unit);
    let path = match manager.call("GetUnit", "s", body) {
        Err(Error::Systemd { why, .. }) if why.contains("NoSuchUnit") => return Ok(false),
        other => other?,
    };
    let mut body = Writer::default();
    body.text("org.freedesktop.systemd1.Scope");
    body.text("ControlGroup");
    let place = manager.call_at(&path, "org.freedesktop.DBus.Properties", "Get", "ss", body)?;
    Ok(place == cgroup)
}

/// Stops a scope whose processes have ended, so that its name is free; one that is gone is none.
pub(crate) fn stop(unit: &str) -> Result<()> {
    let mut manager = Manager::connect(unit)?;
    let is_gone = |why: &str| why.contains("NoSuchUnit");
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    match manager.job("StopUnit", "ss", body) {
        Err(Error::Systemd { why, .. }) if is_gone(&why) => return Ok(()),
        other => other?,
    }
    let mut body = Writer::default();
    body.text(unit);
    match manager.call("ResetFailedUnit", "s", body) {
        Err(Error::Systemd { why, .. }) if is_gone(&why) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_slice_and_a_scope() {
        let scope = Scope::named(Some("user-a-b.slice:cri:x"), "x").unwrap();
        assert_eq!(scope.unit, "cri-x.scope");
        assert_eq!(scope.cgroup, "/user.slice/user-a.slice/user-a-b.slice/cri-x.scope");
        let own = Scope::named(None, "one").unwrap();
        assert_eq!(own.cgroup, "/system.slice/hull-oci-one.scope");
        assert_eq!(Scope::named(Some("-.slice::x"), "x").unwrap().cgroup, "/x.scope");
        for bad in [
            "/a/b",
            "a:b",
            "a::b",
            "a.slice::../b",
            "a.slice::x y",
            "..slice::x",
            "a.slice:p:x.slice",
        ] {
            Scope::named(Some(bad), "x").unwrap_err();
        }
    }
}
