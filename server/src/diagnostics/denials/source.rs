// SPDX-License-Identifier: Apache-2.0
//! Where the kernel tells what it denied: its log, and audit's multicast group. `netlink(7)`,
//! `capabilities(7)` (`CAP_AUDIT_READ`), `Documentation/ABI/testing/dev-kmsg` of Linux.
//!
//! The rule: only the kernel's own words count. Any process that may open the log can write to it, and audit
//! carries messages of processes; both mark what is not the kernel's.
//!
//! Neither is enough. Where auditd runs, nothing of audit is in the log; in a network namespace of one's
//! own (a node that is itself a container) the group is silent; and the log drops what comes too fast.
//! So both are read.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::netlink::{AUDIT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::io;

const LOG: &str = "/dev/kmsg";
/// Longest record of the kernel's log (`PRINTK_MESSAGE_MAX`), and of audit (`MAX_AUDIT_MESSAGE_LENGTH`, with header).
const RECORD_BYTES_MAX: usize = 9216;
/// `AUDIT_AVC`: what a security module has to say.
const AVC: u16 = 1400;
/// `AUDIT_SECCOMP`: what a seccomp filter killed, or was to log.
const SECCOMP: u16 = 1326;
/// `AUDIT_NLGRP_READLOG`, as a mask of groups.
const READ_LOG: u32 = 1;
/// `nlmsghdr`: length (4 bytes), type (2), flags (2), sequence (4), port (4).
const HEADER_BYTES: usize = 16;

/// The security module that reports a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    SecurityModule,
    Seccomp,
}

/// A report of one of them. The text begins with `audit(`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) speaker: Speaker,
    pub(super) text: String,
}

impl Record {
    fn of(kind: u16, text: &str) -> Option<Self> {
        let speaker = match kind {
            AVC => Speaker::SecurityModule,
            SECCOMP => Speaker::Seccomp,
            _ => return None,
        };
        text.starts_with("audit(").then(|| Self { speaker, text: text.to_owned() })
    }
}

/// One of the two.
#[derive(Debug)]
pub(super) enum Source {
    Log(OwnedFd),
    Audit(OwnedFd),
}

impl Source {
    /// The kernel's log, from its end on.
    pub(super) fn log() -> Result<Self, io::Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::open(LOG, flags, Mode::empty())?;
        rustix::fs::seek(&log, SeekFrom::End(0))?;
        Ok(Self::Log(log))
    }

    /// The multicast group of audit, which has the same records as auditd.
    pub(super) fn audit() -> Result<Self, io::Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(AUDIT))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, READ_LOG))?;
        Ok(Self::Audit(socket))
    }

    /// The descriptor, for another task that waits for it.
    pub(super) fn try_clone(&self) -> Result<OwnedFd, io::Error> {
        match self {
            Self::Log(file) | Self::Audit(file) => file.try_clone(),
        }
    }

    /// The next record; `None`: no more for now.
    pub(super) fn next(&mut self) -> Option<Record> {
        let mut record = [0; RECORD_BYTES_MAX];
        loop {
            let read = match self {
                Self::Log(log) => rustix::io::read(&*log, &mut record)
                    .map(|count| (count, of_log(&record[..count]))),
                Self::Audit(socket) => {
                    rustix::net::recvfrom(&*socket, record.as_mut_slice(), RecvFlags::empty()).map(
                        |(bytes, _, from)| {
                            let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                            let kernel = from.is_some_and(|from| from.pid() == 0);
                            (bytes, kernel.then(|| of_audit(&record[..bytes])).flatten())
                        },
                    )
                }
            };
            match read {
                Ok((0, _)) => return None,
                Ok((_, Some(record))) => return Some(record),
                // Somebody else's; or records were lost before we read them, and the next read goes on behind.
                Ok((_, None)) | Err(Errno::PIPE | Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Of a line like `5,1234,5678,-;audit: type=1400 audit(…`. A number of eight or more, and it is not the kernel's.
fn of_log(record: &[u8]) -> Option<Record> {
    let text = String::from_utf8_lossy(record);
    let (head, line) = text.lines().next()?.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let (kind, text) = line.strip_prefix("audit: type=")?.split_once(' ')?;
    if priority < 8 { Record::of(kind.parse().ok()?, text) } else { None }
}

/// Of a message of netlink. Its length is what was received: the kernel's own count differs between the ways it sends.
fn of_audit(message: &[u8]) -> Option<Record> {
    let (header, text) = message.split_at_checked(HEADER_BYTES)?;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let text = String::from_utf8_lossy(text);
    Record::of(kind, text.trim_end_matches(['\0', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "audit(1.2:3): apparmor=\"DENIED\"";

    fn record(speaker: Speaker) -> Option<Record> {
        Some(Record { speaker, text: SAID.into() })
    }

    #[test]
    fn the_log_counts_as_far_as_the_kernel_wrote_it() {
        let line =
            |priority, text: &str| of_log(format!("{priority},1,2,-;{text}\n X=y\n").as_bytes());
        let of = |kind| format!("audit: type={kind} {SAID}");
        assert_eq!(line(5, &of(1400)), record(Speaker::SecurityModule));
        assert_eq!(line(5, &of(1326)), record(Speaker::Seccomp));
        assert_eq!(line(13, &of(1400)), None, "written by a process");
        assert_eq!(line(5, &of(1107)), None, "a process's message");
        assert_eq!(line(6, "usb 1-1: new device"), None);
        assert_eq!(of_log(b"\xff\xfe"), None);
    }

    #[test]
    fn of_audit_only_what_was_denied() {
        let message = |kind: u16, text: &str| {
            let mut bytes = vec![0; HEADER_BYTES];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(text.as_bytes());
            of_audit(&bytes)
        };
        assert_eq!(message(AVC, SAID), record(Speaker::SecurityModule));
        assert_eq!(message(SECCOMP, &format!("{SAID}\0")), record(Speaker::Seccomp));
        assert_eq!(message(1107, SAID), None);
        assert_eq!(of_audit(&[0; 9]), None);
    }
}
