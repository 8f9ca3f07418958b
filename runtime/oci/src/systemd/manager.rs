// SPDX-License-Identifier: Apache-2.0
//! The connection to systemd's manager: authentication, calls and their answers, the ends of jobs.

use super::message::{self, Message, Writer, length, parse};
use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/systemd/private";
/// Longest total wait for one request. Under many starts at once it takes some seconds.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A connection to systemd, for the requests about one unit.
pub(super) struct Manager<'u> {
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
    pub(super) fn connect(unit: &'u str) -> Result<Self> {
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
    pub(super) fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<String> {
        self.call_at(message::MANAGER, message::INTERFACE, member, signature, body)
    }

    pub(super) fn call_at(
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
    pub(super) fn job(&mut self, member: &str, signature: &str, body: Writer) -> Result<()> {
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
