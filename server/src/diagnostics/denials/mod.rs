// SPDX-License-Identifier: Apache-2.0
//! Denials to containers by AppArmor, SELinux and seccomp, read from the kernel's log and audit. `dmesg(1)`, `auditd(8)`.
//!
//! Of seccomp the kernel tells what it killed for, and what a profile with the flag
//! `SECCOMP_FILTER_FLAG_LOG` refused. `seccomp(2)`.
//!
//! ```text
//! /dev/kmsg ──┐
//!             ├─▶ parse ──▶ whose process? (its cgroup names the container) ──▶ the last few, kept once
//! audit     ──┘
//! ```
//!
//! The rule: everything there is to read is read before an exit is reported. Of a process that is gone
//! before we look, only the number is known; it counts for the container whose first process had that number.
//! The kernel hands records out by a thread of its own, so one of the very last moment can come later than the end.
//!
//! Not here: whether a denial was why something ended. It stands beside the exit code.

mod source;

use hull_proto::id::ContainerId;
use hull_sys::text::shown;
use rustix::fd::OwnedFd;
use source::{Record, Source, Speaker};
use std::collections::VecDeque;
use std::fs;
use std::sync::{Mutex, PoisonError};

/// Denials kept; a container that ends looks through them.
const KEPT: usize = 256;
/// Of one container, told in its message.
const REPORTED_MAX: usize = 3;
/// Longest name in a denial, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The part of the kernel that denied something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    AppArmor,
    SeLinux,
    Seccomp,
}

/// A denial, as the kernel reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Denial {
    module: Module,
    /// Time and number that the kernel gave the record: the same wherever it is read.
    stamp: String,
    pid: i32,
    container: Option<ContainerId>,
    /// `AppArmor profile hull-default denied open of /proc/kcore (r)`.
    what: String,
}

/// The last denials on this node.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// None where nothing may be read.
    sources: Vec<Source>,
    last: VecDeque<Denial>,
    counts: Counts,
}

/// How many denials there were, by whose process it was.
#[derive(Debug, Default)]
struct Counts {
    apparmor: Whose,
    selinux: Whose,
    seccomp: Whose,
}

#[derive(Debug, Default)]
struct Whose {
    container: u64,
    unknown: u64,
}

impl Counts {
    fn add(&mut self, module: Module, is_container: bool) {
        let whose = match module {
            Module::AppArmor => &mut self.apparmor,
            Module::SeLinux => &mut self.selinux,
            Module::Seccomp => &mut self.seccomp,
        };
        let count = if is_container { &mut whose.container } else { &mut whose.unknown };
        *count = count.saturating_add(1);
    }
}

impl Denials {
    /// Starts to read both sources, or the one that can be opened.
    ///
    /// # Errors
    /// The kernel log's, if neither can be opened.
    pub(crate) fn listen() -> Result<Self, std::io::Error> {
        let sources: Vec<Source> = match (Source::log(), Source::audit()) {
            (Err(err), Err(_)) => return Err(err),
            (log, audit) => log.into_iter().chain(audit).collect(),
        };
        Ok(Self { inner: Mutex::new(Inner { sources, ..Inner::default() }) })
    }

    /// The descriptors that become readable when the kernel reports a denial.
    pub(crate) fn sources(&self) -> Vec<OwnedFd> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.sources.iter().filter_map(|source| source.try_clone().ok()).collect()
    }

    /// Takes what there is by now. The processes it names are looked at while they are there.
    pub(crate) fn read_on(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).read_on();
    }

    /// The denials so far: the module, whose process it was, and how many.
    pub(crate) fn counts(&self) -> [(&'static str, &'static str, u64); 6] {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.read_on();
        let Counts { apparmor, selinux, seccomp } = &inner.counts;
        [
            ("apparmor", "container", apparmor.container),
            ("apparmor", "unknown", apparmor.unknown),
            ("selinux", "container", selinux.container),
            ("selinux", "unknown", selinux.unknown),
            ("seccomp", "container", seccomp.container),
            ("seccomp", "unknown", seccomp.unknown),
        ]
    }

    /// The denials to a container whose first process was `pid`, in words.
    pub(crate) fn of(&self, container: &ContainerId, pid: Option<i32>) -> Vec<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.read_on();
        let is_its = |denial: &&Denial| match &denial.container {
            Some(of) => of == container,
            None => pid == Some(denial.pid),
        };
        let mut reported: Vec<String> = Vec::new();
        for denial in inner.last.iter().rev().filter(is_its) {
            if !reported.contains(&denial.what) && reported.len() < REPORTED_MAX {
                reported.push(denial.what.clone());
            }
        }
        reported.reverse();
        reported
    }
}

impl Inner {
    fn read_on(&mut self) {
        for source in &mut self.sources {
            while let Some(record) = source.next() {
                let Some(mut denial) = parse(&record) else { continue };
                if self.last.iter().any(|known| known.stamp == denial.stamp) {
                    continue;
                }
                denial.container = container_of(denial.pid);
                self.counts.add(denial.module, denial.container.is_some());
                if self.last.len() == KEPT {
                    self.last.pop_front();
                }
                self.last.push_back(denial);
            }
        }
    }
}

/// A record, when it tells of a denial. Names in it are the container's own words.
fn parse(record: &Record) -> Option<Denial> {
    let (stamp, text) = record.text.split_once(": ")?;
    let (module, what) = match record.speaker {
        // Of the modules that may be on, only one says so in this form.
        Speaker::SecurityModule => of_apparmor(text)
            .map(|what| (Module::AppArmor, what))
            .or_else(|| of_selinux(text).map(|what| (Module::SeLinux, what)))?,
        Speaker::Seccomp => (Module::Seccomp, of_seccomp(text)?),
    };
    let pid = value(text, "pid")?.parse().ok()?;
    Some(Denial { module, stamp: stamp.to_owned(), pid, container: None, what })
}

fn of_apparmor(text: &str) -> Option<String> {
    if !text.starts_with("apparmor=\"DENIED\"") {
        return None;
    }
    let profile = shown(value(text, "profile")?, NAME_BYTES_MAX);
    let mut what = value(text, "operation").unwrap_or_else(|| "an operation".into());
    if let Some(name) = value(text, "name") {
        what = format!("{what} of {name}");
    }
    if let Some(mask) = value(text, "denied_mask") {
        what = format!("{what} ({mask})");
    }
    Some(format!("AppArmor profile {profile} denied {}", shown(what, NAME_BYTES_MAX)))
}

/// A record of SELinux, `avc:  denied  { read open } for  pid=1 comm="x" name="y" … scontext=… tcontext=… tclass=file
/// permissive=0`. Where it only records, nothing was denied.
fn of_selinux(text: &str) -> Option<String> {
    let rest = text.strip_prefix("avc:")?.trim_start().strip_prefix("denied")?;
    if value(text, "permissive").is_some_and(|of| of == "1") {
        return None;
    }
    let (_, permissions) = rest.split_once('{')?;
    let (permissions, rest) = permissions.split_once('}')?;
    let permissions: Vec<_> = permissions.split_whitespace().collect();
    let (domain, label) = (value(rest, "scontext")?, value(rest, "tcontext")?);
    let class = value(rest, "tclass")?;
    let name = value(rest, "path").or_else(|| value(rest, "name"));
    let object = name.map_or(String::new(), |name| format!(" of {name}"));
    let object = format!("{}{object} ({class} with the label {label})", permissions.join(", "));
    Some(format!(
        "SELinux domain {} denied {}",
        shown(domain, NAME_BYTES_MAX),
        shown(object, NAME_BYTES_MAX * 2)
    ))
}

fn of_seccomp(text: &str) -> Option<String> {
    let hex = |key| u32::from_str_radix(value(text, key)?.trim_start_matches("0x"), 16).ok();
    let number = value(text, "syscall")?.parse().ok()?;
    let call = hull_plan::seccomp::call_name(hex("arch")?, number)
        .unwrap_or_else(|| format!("number {number}"));
    // SECCOMP_RET_ACTION_FULL of what the filter said.
    Some(match hex("code")? & 0xffff_0000 {
        0x8000_0000 => format!("its seccomp profile kills for system call {call}"),
        0 => format!("its seccomp profile ends the thread for system call {call}"),
        0x0003_0000 | 0x0005_0000 => format!("its seccomp profile denied system call {call}"),
        _ => return None,
    })
}

/// The value of ` key=`: quoted, plain, or as hex where the kernel found it odd.
fn value(text: &str, key: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!(" {key}="))?;
    if let Some(quoted) = rest.strip_prefix('"') {
        return quoted.split_once('"').map(|(value, _)| value.to_owned());
    }
    let plain = rest.split(' ').next().unwrap_or_default();
    let may_be_hex = matches!(key, "name" | "path" | "profile");
    Some(unhex(plain).filter(|_| may_be_hex).unwrap_or(plain.to_owned()))
}

fn unhex(text: &str) -> Option<String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|of| !of.is_empty() && of.len().is_multiple_of(2))?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The container that a process is in: the last part of its cgroup's path that is an id.
fn container_of(pid: i32) -> Option<ContainerId> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.rsplit('/').find_map(|part| ContainerId::parse(part).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "audit(1764158888.123:45): apparmor=\"DENIED\" operation=\"open\" class=\"file\" profile=\"hull-default\" name=\"/proc/kcore\" pid=4242 comm=\"cat\" requested_mask=\"r\" denied_mask=\"r\" fsuid=0 ouid=0";
    const MKDIR: &str = "audit(1764158888.123:46): auid=4294967295 uid=0 gid=0 ses=4294967295 subj=unconfined pid=4242 comm=\"mkdir\" exe=\"/bin/busybox\" sig=31 arch=c000003e syscall=83 compat=0 ip=0x7f00 code=0x80000000";

    fn apparmor(text: &str) -> Option<Denial> {
        parse(&Record { speaker: Speaker::SecurityModule, text: text.into() })
    }

    fn seccomp(text: &str) -> Option<String> {
        Some(parse(&Record { speaker: Speaker::Seccomp, text: text.into() })?.what)
    }

    #[test]
    fn a_denial_is_what_the_kernel_says_it_is() {
        let denial = apparmor(OPEN).unwrap();
        assert_eq!((denial.pid, denial.stamp.as_str()), (4242, "audit(1764158888.123:45)"));
        assert_eq!(denial.what, "AppArmor profile hull-default denied open of /proc/kcore (r)");
        assert_eq!(apparmor(&OPEN.replace("DENIED", "ALLOWED")), None);
        assert_eq!(apparmor("audit(1.2:3): avc:  denied  { read } for  pid=1"), None);
    }

    const AVC: &str = "audit(1764158888.123:47): avc:  denied  { read open } for  pid=4242 comm=\"cat\" name=\"key\" dev=\"vda1\" ino=9 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:etc_t:s0 tclass=file permissive=0";

    #[test]
    fn a_denial_of_selinux_names_the_domain_the_object_and_its_label() {
        let denial = apparmor(AVC).unwrap();
        assert_eq!((denial.module, denial.pid), (Module::SeLinux, 4242));
        assert_eq!(
            denial.what,
            "SELinux domain system_u:system_r:container_t:s0:c1,c2 denied read, open of key \
             (file with the label system_u:object_r:etc_t:s0)"
        );
        let by_path = AVC.replace("name=\"key\"", "path=2F746D702F0A");
        assert!(apparmor(&by_path).unwrap().what.contains("open of /tmp/\\n (file"), "{by_path}");
        let nameless = AVC.replace("name=\"key\" ", "");
        assert!(apparmor(&nameless).unwrap().what.contains("denied read, open (file with"));
        assert_eq!(apparmor(&AVC.replace("permissive=0", "permissive=1")), None);
        assert_eq!(apparmor(&AVC.replace("denied", "granted")), None);
    }

    #[test]
    fn each_module_is_counted_by_itself() {
        let mut counts = Counts::default();
        for (text, is_container) in [(OPEN, true), (AVC, true), (AVC, false)] {
            counts.add(apparmor(text).unwrap().module, is_container);
        }
        let of = |of: &Whose| (of.container, of.unknown);
        assert_eq!(
            (of(&counts.apparmor), of(&counts.selinux), of(&counts.seccomp)),
            ((1, 0), (1, 1), (0, 0))
        );
    }

    #[test]
    fn a_system_call_has_its_name_and_what_became_of_it() {
        let kills = "its seccomp profile kills for system call mkdir";
        assert_eq!(seccomp(MKDIR).unwrap(), kills);
        let denied = MKDIR.replace("code=0x80000000", "code=0x50001");
        assert_eq!(seccomp(&denied).unwrap(), "its seccomp profile denied system call mkdir");
        let logged = MKDIR.replace("code=0x80000000", "code=0x7ffc0000");
        assert_eq!(seccomp(&logged), None, "it was let through");
        let unknown = MKDIR.replace("syscall=83", "syscall=9999");
        assert!(seccomp(&unknown).unwrap().ends_with("system call number 9999"));
        assert_eq!(seccomp("audit(1.2:3): pid=1 syscall=x"), None);
    }

    #[test]
    fn an_odd_name_comes_as_hex_and_is_shown_escaped() {
        let odd = OPEN.replace("\"/proc/kcore\"", "2F746D702F0A21");
        assert!(apparmor(&odd).unwrap().what.ends_with("denied open of /tmp/\\n! (r)"));
    }

    #[test]
    fn who_is_gone_is_known_by_its_number_and_nobody_elses_is_told() {
        let id = |byte| ContainerId::from_random([byte; 32]);
        let denial = |pid, container| Denial { pid, container, ..apparmor(OPEN).unwrap() };
        let last = [denial(1, None), denial(2, Some(id(2))), denial(1, None)].into();
        let denials = Denials { inner: Mutex::new(Inner { last, ..Inner::default() }) };
        assert_eq!(denials.of(&id(1), Some(1)).len(), 1, "the same is reported once");
        assert_eq!(denials.of(&id(2), Some(9)).len(), 1);
        assert_eq!(denials.of(&id(3), None), Vec::<String>::new());
    }
}
