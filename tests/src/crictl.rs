// SPDX-License-Identifier: Apache-2.0
//! crictl against a node: any command of it, and ports that it forwards.

use crate::{ExpectExt as _, Node, paths};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// Both ways in which a client may carry its streams.
pub const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// crictl against this node, not started yet.
#[must_use]
pub fn crictl(node: &Node, args: &[&str]) -> Command {
    let endpoint = format!("unix://{}", node.socket().display());
    let mut command = Command::new(paths::crictl().or_fail("find crictl"));
    command.args(["--config", "/dev/null", "--runtime-endpoint", &endpoint]);
    command.args(args);
    command
}

/// Whether there is none, which is said.
#[must_use]
pub fn lacks_crictl(test: &str) -> bool {
    let lacks = paths::crictl().is_none();
    if lacks {
        paths::cannot_run(test, "crictl (`make tools`)");
    }
    lacks
}

/// crictl that forwards a port of the host to one of the pod's. Ended when dropped.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    /// The port of the host, on loopback.
    pub port: u16,
}

impl Forward {
    /// Starts it and waits until it listens.
    #[must_use]
    pub fn start(node: &Node, by: &str, pod: &str, to: u16) -> Self {
        // Free a moment ago, which is the best that crictl lets us do.
        let free = TcpListener::bind("127.0.0.1:0").or_fail("find a free port");
        let port = free.local_addr().or_fail("name the free port").port();
        drop(free);
        let ports = format!("{port}:{to}");
        let mut command = crictl(node, &["port-forward", "--transport", by, pod, &ports]);
        let mut child = command.stdout(Stdio::piped()).spawn().or_fail("start crictl");
        // A connection made only to see whether it listens would go through to the pod.
        let mut says = BufReader::new(child.stdout.take().or_fail("read what crictl says")).lines();
        let said = says.find(|line| !line.as_ref().is_ok_and(|line| !line.contains("Forwarding")));
        said.or_fail("hear that crictl listens").or_fail("read what crictl says");
        // It goes on to speak, and must not be stopped by a closed pipe.
        std::thread::spawn(move || says.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
