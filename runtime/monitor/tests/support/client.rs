// SPDX-License-Identifier: Apache-2.0
//! The daemon's side of the protocol, blocking and bounded: ask, get the answer, keep the events.

use super::WAIT;
use hull_proto::id::ContainerId;
use hull_proto::monitor::frame::FrameDecoder;
use hull_proto::monitor::{
    Command, Event, Exit, Failure, HelloReply, Message, Request, Response, Streams, VERSION,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to a monitor.
#[derive(Debug)]
pub struct Client {
    pub stream: UnixStream,
    frames: FrameDecoder,
    pub next: u64,
    events: Vec<Event>,
    /// Answers that nobody has waited for yet, by their request.
    pub strays: Vec<(u64, Result<Response, Failure>)>,
}

impl Client {
    /// Connects as a daemon does, which says hello first.
    pub fn connect(socket: &Path) -> Self {
        let mut client = Self::stranger(socket);
        client.hello();
        client
    }

    /// Connects, and says nothing.
    pub fn stranger(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        Self {
            stream,
            frames: FrameDecoder::default(),
            next: 1,
            events: Vec::new(),
            strays: Vec::new(),
        }
    }

    /// Sends a request and gives its number.
    pub fn send(&mut self, command: Command, fds: &[BorrowedFd<'_>]) -> u64 {
        let id = self.next;
        self.next += 1;
        let bytes = frame(&Request { id, command });
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let sent =
            sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
                .unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
        id
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, command: Command, fds: &[BorrowedFd<'_>]) -> Result<Response, Failure> {
        let asked = self.send(command, fds);
        self.answer(asked)
    }

    /// Waits for the answer to a request.
    pub fn answer(&mut self, asked: u64) -> Result<Response, Failure> {
        if let Some(at) = self.strays.iter().position(|(id, _)| *id == asked) {
            return self.strays.remove(at).1;
        }
        loop {
            match self.message().expect("the monitor closed the connection") {
                Message::Reply { id, result } if id == asked => return result,
                Message::Reply { id, result } => self.strays.push((id, result)),
                Message::Event(event) => self.events.push(event),
            }
        }
    }

    /// The next message, `None` at the end of the connection.
    pub fn message(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.frames.take().unwrap() {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(got) => self.frames.feed(&bytes[..got]),
                Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(err) => panic!("nothing more came from the monitor: {err}"),
            }
        }
    }

    /// Waits for an event that `wanted` takes.
    pub fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(at) = self.events.iter().position(|event| wanted(event).is_some()) {
                return wanted(&self.events.remove(at)).unwrap();
            }
            match self.message().expect("the monitor closed the connection") {
                Message::Event(event) => self.events.push(event),
                Message::Reply { id, result } => self.strays.push((id, result)),
            }
        }
    }

    /// Waits for a container's end.
    pub fn exit(&mut self, id: &ContainerId) -> Exit {
        self.event(|event| match event {
            Event::ContainerExited(of, exit) if of == id => Some(*exit),
            _ => None,
        })
    }

    /// Waits for an exec's end.
    pub fn exec_exit(&mut self, exec: u64) -> Exit {
        self.event(|event| match event {
            Event::ExecExited(of, exit) if *of == exec => Some(*exit),
            _ => None,
        })
    }

    pub fn hello(&mut self) -> HelloReply {
        match self.ask(Command::Hello { version: VERSION }, &[]).unwrap() {
            Response::Hello(hello) => hello,
            other => panic!("hello was answered with {other:?}"),
        }
    }

    /// Asks for a further process.
    pub fn exec(
        &mut self,
        container: &ContainerId,
        exec: u64,
        process: &hull_init::Process,
        stdout: Option<BorrowedFd<'_>>,
    ) -> Result<Response, Failure> {
        let streams = Streams { stdin: false, stdout: stdout.is_some(), stderr: false, tty: false };
        let process = borsh::to_vec(process).unwrap();
        let command = Command::Exec { container: container.clone(), exec, process, streams };
        self.ask(command, stdout.as_slice())
    }
}

/// A request as it goes over the socket.
pub fn frame(request: &Request) -> Vec<u8> {
    let body = borsh::to_vec(request).unwrap();
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}
