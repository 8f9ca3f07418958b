// SPDX-License-Identifier: Apache-2.0
//! What AppArmor has denied to containers, as the kernel tells it in its log. `dmesg(1)`.
//!
//! ```text
//! /dev/kmsg ──▶ parse ──▶ whose process? (its cgroup names the container) ──▶ the last few, kept
//! ```
//!
//! The rule: the log is read on before anybody is told of an end, so what was denied to a container's
//! first process is never missed. Of a process that is gone before we look, only the number is known;
//! it counts for the container whose first process had that number.
//!
//! Not here: whether a denial was why something ended. It stands beside the exit code.

use hull_proto::id::ContainerId;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, PoisonError};

const LOG: &str = "/dev/kmsg";
/// Longest record of the kernel's log (`PRINTK_MESSAGE_MAX`).
const RECORD_BYTES_MAX: usize = 8192;
/// Denials kept; a container that ends looks through them.
const KEPT: usize = 256;
/// Of one container, told in its message.
const TOLD_MAX: usize = 3;

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Denial {
    pid: i32,
    container: Option<ContainerId>,
    /// `open of /proc/kcore (r)`.
    what: String,
    profile: String,
}

/// The last denials on this node.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` where there is no AppArmor, or the log may not be read.
    log: Option<File>,
    last: VecDeque<Denial>,
}

impl Denials {
    /// Listens from now on. Where the log cannot be read, hears nothing.
    pub(crate) fn listen() -> Result<Self, std::io::Error> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut log = File::options().read(true).custom_flags(nonblocking).open(LOG)?;
        let _at = log.seek(SeekFrom::End(0))?;
        Ok(Self { inner: Mutex::new(Inner { log: Some(log), last: VecDeque::new() }) })
    }

    /// The log, to be waited for.
    pub(crate) fn log(&self) -> Option<File> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).log.as_ref()?.try_clone().ok()
    }

    /// Takes what the log has by now. The processes it names are looked at while they are there.
    pub(crate) fn read_on(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).read_on();
    }

    /// What was denied to a container whose first process was `pid`, in words.
    pub(crate) fn of(&self, container: &ContainerId, pid: Option<i32>) -> Vec<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.read_on();
        let is_its = |denial: &&Denial| match &denial.container {
            Some(of) => of == container,
            None => pid == Some(denial.pid),
        };
        let mut told: Vec<String> = Vec::new();
        for denial in inner.last.iter().rev().filter(is_its) {
            let text = format!("AppArmor profile {} denied {}", denial.profile, denial.what);
            if !told.contains(&text) && told.len() < TOLD_MAX {
                told.push(text);
            }
        }
        told.reverse();
        told
    }
}

impl Inner {
    fn read_on(&mut self) {
        let Some(log) = &mut self.log else { return };
        let mut record = vec![0; RECORD_BYTES_MAX];
        loop {
            match log.read(&mut record) {
                Ok(0) => return,
                Ok(count) => {
                    let text = String::from_utf8_lossy(&record[..count]);
                    let Some(mut denial) = parse(&text) else { continue };
                    denial.container = container_of(denial.pid);
                    if self.last.len() == KEPT {
                        self.last.pop_front();
                    }
                    self.last.push_back(denial);
                }
                // EPIPE: it was overwritten before we read it; the next read goes on behind that.
                Err(err) if err.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
                // Nothing more for now.
                Err(_) => return,
            }
        }
    }
}

/// A record of the log, when it tells of a denial. Names in it are the container's own words.
fn parse(record: &str) -> Option<Denial> {
    let text = record.lines().next()?;
    if !text.contains("apparmor=\"DENIED\"") {
        return None;
    }
    let profile = value(text, "profile")?;
    let operation = value(text, "operation").unwrap_or_else(|| "an operation".into());
    let mut what = operation;
    if let Some(name) = value(text, "name") {
        what = format!("{what} of {name}");
    }
    if let Some(mask) = value(text, "denied_mask") {
        what = format!("{what} ({mask})");
    }
    let shown = |text: String| text.chars().take(200).flat_map(char::escape_default).collect();
    Some(Denial {
        pid: value(text, "pid")?.parse().ok()?,
        container: None,
        what: shown(what),
        profile: shown(profile),
    })
}

/// The value of ` key=`: quoted, plain, or as hex where the kernel found it odd.
fn value(text: &str, key: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!(" {key}="))?;
    if let Some(quoted) = rest.strip_prefix('"') {
        return quoted.split_once('"').map(|(value, _)| value.to_owned());
    }
    let plain = rest.split(' ').next().unwrap_or_default();
    Some(unhex(plain).filter(|_| key == "name" || key == "profile").unwrap_or(plain.to_owned()))
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

    const RECORD: &str = "5,1234,5678,-;audit: type=1400 audit(1764158888.123:45): apparmor=\"DENIED\" operation=\"open\" class=\"file\" profile=\"hull-default\" name=\"/proc/kcore\" pid=4242 comm=\"cat\" requested_mask=\"r\" denied_mask=\"r\" fsuid=0 ouid=0\n SUBSYSTEM=x\n";

    #[test]
    fn a_denial_is_read_from_the_kernels_log() {
        let denial = parse(RECORD).unwrap();
        assert_eq!((denial.pid, denial.profile.as_str()), (4242, "hull-default"));
        assert_eq!(denial.what, "open of /proc/kcore (r)");
        assert_eq!(parse(&RECORD.replace("DENIED", "ALLOWED")), None);
        assert_eq!(parse("6,1,2,-;usb 1-1: new device\n"), None);
    }

    #[test]
    fn an_odd_name_comes_as_hex_and_is_shown_escaped() {
        let odd = RECORD.replace("\"/proc/kcore\"", "2F746D702F0A21");
        assert_eq!(parse(&odd).unwrap().what, "open of /tmp/\\n! (r)");
    }

    #[test]
    fn who_is_gone_is_known_by_its_number_and_nobody_elses_is_told() {
        let id = |byte| ContainerId::from_random([byte; 32]);
        let denial = |pid, container| Denial { pid, container, ..parse(RECORD).unwrap() };
        let last = [denial(1, None), denial(2, Some(id(2))), denial(1, None)].into();
        let denials = Denials { inner: Mutex::new(Inner { log: None, last }) };
        assert_eq!(denials.of(&id(1), Some(1)).len(), 1, "the same is told once");
        assert_eq!(denials.of(&id(2), Some(9)).len(), 1);
        assert_eq!(denials.of(&id(3), None), Vec::<String>::new());
    }
}
