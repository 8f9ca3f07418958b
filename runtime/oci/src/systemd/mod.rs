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

mod message;

use crate::error::{Error, Result};
use hull_cgroup::{CgroupFs, Limits, Version};
use hull_sys::ForkResult;
pub(crate) use message::Value;
use message::{Message, Writer, length, parse};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/systemd/private";
/// Longest total wait for one request. Under many starts at once it takes some seconds.
const ANSWER_MAX: Duration = Duration::from_secs(30);
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
    properties.extend(limit_properties(limits, version()));
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
    let properties = limit_properties(limits, version());
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

/// The properties in annotations (`org.systemd.property.NAME`), whose values have the text form of GVariant.
pub(crate) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        // What says whose processes they are, and where, is not the caller's.
        let is_own = matches!(name, "PIDs" | "Slice" | "Delegate" | "CollectMode");
        let Some(value) = value_of(text).filter(|_| !is_own) else {
            let what = format!("annotation {key}={text}");
            return Err(Error::NotSupported { what, hint: "leave this annotation out" });
        };
        properties.push((name.to_owned(), value));
    }
    Ok(properties)
}

fn value_of(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(number) = text.strip_prefix("uint64 ") {
        return number.trim().parse().ok().map(Value::Number);
    }
    for quote in ["'", "\""] {
        let inner = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner {
            return (!inner.contains(['\\', '\'', '"'])).then(|| Value::Text(inner.to_owned()));
        }
    }
    text.parse().ok().map(Value::Signed)
}

fn version() -> Version {
    CgroupFs::detect().map_or(Version::V2, |host| host.version())
}

/// The properties of `systemd.resource-control(5)` for what it writes into the files of a scope.
fn limit_properties(limits: &Limits, version: Version) -> Vec<(String, Value)> {
    let is_v2 = version == Version::V2;
    let mut properties = Vec::new();
    let mut add = |name: &str, value: u64| properties.push((name.to_owned(), Value::Number(value)));
    let most = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        if is_v2 {
            add("CPUWeight", hull_cgroup::cpu_weight(shares));
        } else {
            add("CPUShares", shares);
        }
    }
    if let Some(quota) = limits.cpu_quota_us.filter(|quota| *quota != 0) {
        let period = limits.cpu_period_us.filter(|period| *period != 0).unwrap_or(100_000);
        let per_second = u128::from(most(quota)) * 1_000_000 / u128::from(period);
        let per_second =
            if quota < 0 { u64::MAX } else { per_second.try_into().unwrap_or(u64::MAX) };
        add("CPUQuotaPerSecUSec", per_second);
        add("CPUQuotaPeriodUSec", period);
    }
    if let Some(bytes) = limits.memory_bytes.filter(|bytes| *bytes != 0) {
        add(if is_v2 { "MemoryMax" } else { "MemoryLimit" }, most(bytes));
    }
    if let (true, Some(both), Some(memory)) = (is_v2, limits.memory_swap_bytes, limits.memory_bytes)
        && both != 0
        && memory > 0
    {
        add("MemorySwapMax", if both < 0 { u64::MAX } else { most((both - memory).max(0)) });
    }
    if let Some(low) = limits.memory_reservation_bytes.filter(|low| *low > 0 && is_v2) {
        add("MemoryLow", most(low));
    }
    if let Some(pids) = limits.pids.filter(|pids| *pids != 0) {
        add("TasksMax", most(pids));
    }
    properties
}

/// A connection to systemd, for the requests about one unit.
struct Manager<'u> {
    unit: &'u str,
    socket: OwnedFd,
    /// Bytes that came, and were not read yet.
    rest: Vec<u8>,
    serial: u32,
    /// Jobs that have ended: path and result.
    jobs: Vec<(String, String)>,
    until: Instant,
}

impl<'u> Manager<'u> {
    fn connect(unit: &'u str) -> Result<Self> {
        let failed = |errno| Error::Systemd {
            unit: unit.to_owned(),
            why: format!("connect({SOCKET}): {}", hull_sys::name_of(errno)),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        connect(&socket, &SocketAddrUnix::new(SOCKET).map_err(failed)?).map_err(failed)?;
        let until = Instant::now() + ANSWER_MAX;
        let mut manager =
            Self { unit, socket, rest: Vec::new(), serial: 0, jobs: Vec::new(), until };
        manager.authenticate()?;
        Ok(manager)
    }

    fn failed(&self, why: impl Into<String>) -> Error {
        Error::Systemd { unit: self.unit.to_owned(), why: why.into() }
    }

    /// As the user that the kernel says we are: `EXTERNAL` with its number in hexadecimal digits of its text.
    fn authenticate(&mut self) -> Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid = data_encoding::HEXLOWER.encode(uid.as_bytes());
        self.send(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        let end = loop {
            if let Some(end) = self.rest.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            self.receive()?;
        };
        let line: Vec<u8> = self.rest.drain(..end + 2).collect();
        if line.starts_with(b"OK ") {
            return Ok(());
        }
        Err(self.failed(format!("authenticate: {}", String::from_utf8_lossy(&line[..end]))))
    }

    fn wait(&self, flags: PollFlags) -> Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.failed(format!("no answer in {} s", ANSWER_MAX.as_secs())));
        }
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let _woken = poll(&mut [PollFd::new(&self.socket, flags)], Some(&left));
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        use rustix::net::{SendFlags, send};
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                    self.wait(PollFlags::OUT)?
                }
                Err(errno) => {
                    return Err(self.failed(format!("send(): {}", hull_sys::name_of(errno))));
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        match rustix::io::read(&self.socket, &mut chunk) {
            Ok(0) => Err(self.failed("the connection was closed")),
            Ok(got) => {
                self.rest.extend_from_slice(&chunk[..got]);
                Ok(())
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => self.wait(PollFlags::IN),
            Err(errno) => Err(self.failed(format!("read(): {}", hull_sys::name_of(errno)))),
        }
    }

    fn next(&mut self) -> Result<Message> {
        loop {
            match length(&self.rest) {
                Some(Ok(all)) if all <= self.rest.len() => {
                    let bytes: Vec<u8> = self.rest.drain(..all).collect();
                    return parse(&bytes).ok_or_else(|| self.failed("a message cannot be read"));
                }
                Some(Err(())) => return Err(self.failed("a message cannot be read")),
                Some(Ok(_)) | None => self.receive()?,
            }
        }
    }

    /// Calls a method of the manager; the first text of its answer.
    fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<String> {
        self.call_at(message::MANAGER, message::INTERFACE, member, signature, body)
    }

    fn call_at(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<String> {
        self.serial += 1;
        let mine = self.serial;
        let call = body.into_call(mine, [path, interface, member], signature);
        self.send(&call)?;
        loop {
            match self.next()? {
                Message::Reply { serial, first } if serial == mine => return Ok(first),
                Message::Refusal { serial, name, text } if serial == mine => {
                    return Err(self.failed(format!("{member}: {text} ({name})")));
                }
                Message::JobRemoved { job, result } => self.jobs.push((job, result)),
                Message::Reply { .. } | Message::Refusal { .. } | Message::Other => {}
            }
        }
    }

    /// Calls a method that gives a job, and waits until that has ended.
    fn job(&mut self, member: &str, signature: &str, body: Writer) -> Result<()> {
        let mine = self.call(member, signature, body)?;
        loop {
            if let Some((_, result)) = self.jobs.iter().find(|(job, _)| *job == mine) {
                return match result.as_str() {
                    "done" => Ok(()),
                    result => Err(self.failed(format!("{member}: its job ended with `{result}`"))),
                };
            }
            if let Message::JobRemoved { job, result } = self.next()? {
                self.jobs.push((job, result));
            }
        }
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

    #[test]
    fn annotations_are_properties_or_refused_by_name() {
        let of = |name: &str, text: &str| {
            properties(&BTreeMap::from([(format!("org.systemd.property.{name}"), text.to_owned())]))
        };
        let one = |name: &str, value| vec![(name.to_owned(), value)];
        assert_eq!(
            of("TimeoutStopUSec", "uint64 7").unwrap(),
            one("TimeoutStopUSec", Value::Number(7))
        );
        assert_eq!(of("KillSignal", "15").unwrap(), one("KillSignal", Value::Signed(15)));
        for (name, text) in [("X", "[1]"), ("X", "'a\\'"), ("PIDs", "1"), ("X", "99999999999")] {
            assert!(of(name, text).unwrap_err().to_string().contains(name), "{name} {text}");
        }
    }

    #[test]
    fn limits_are_properties_of_each_version() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(1 << 20),
            memory_swap_bytes: Some(3 << 20),
            pids: Some(-1),
            ..Limits::default()
        };
        let of = |version| {
            let all = limit_properties(&limits, version).into_iter();
            let shown = all.map(|(name, value)| {
                let Value::Number(number) = value else { panic!("{name} is not a number") };
                format!("{name}={number}")
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        let v2 = of(Version::V2);
        assert!(v2.contains("CPUWeight=100 CPUQuotaPerSecUSec=500000"), "{v2}");
        assert!(v2.contains("MemoryMax=1048576 MemorySwapMax=2097152"), "{v2}");
        assert!(v2.ends_with(&format!("TasksMax={}", u64::MAX)), "{v2}");
        let v1 = of(Version::Hybrid);
        assert!(v1.contains("CPUShares=1024") && v1.contains("MemoryLimit=1048576"), "{v1}");
        assert!(!v1.contains("Swap"), "{v1}");
    }
}
