// SPDX-License-Identifier: Apache-2.0
//! A port of a machine's loopback that leads to an address of this process's network: the registry of the tests,
//! under the name that it has here.

use super::machine::Machine;
use crate::expect::ExpectExt;
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::JoinHandle;

/// A port that is forwarded as long as this lives.
#[derive(Debug)]
pub struct Forward {
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

impl Forward {
    /// Forwards connections to `address` (`127.0.0.1:port`) on the machine to the same address here.
    #[must_use]
    pub fn start(machine: &Machine, address: &str) -> Self {
        let port: Option<u16> = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port = port.or_fail(format!("read the port of {address}"));
        let listener = machine.in_network(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        let listener = listener.or_fail(format!("listen on port {port} of a machine"));
        let accepts = listener.try_clone().or_fail("share a listener");
        let to = address.to_owned();
        let accepting = std::thread::spawn(move || {
            // Ends when the listener is shut down.
            while let Ok((inner, _)) = accepts.accept() {
                if let Ok(outer) = TcpStream::connect(&to) {
                    drop(connect(&inner, &outer));
                }
            }
        });
        Self { listener, accepting: Some(accepting) }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = shutdown(&self.listener, Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

/// Copies each way on a thread of its own, until the way's end.
fn connect(one: &TcpStream, other: &TcpStream) -> io::Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(std::net::Shutdown::Write));
        });
    }
    Ok(())
}
