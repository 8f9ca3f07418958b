// SPDX-License-Identifier: Apache-2.0
//! Connections to the sockets of monitors, from a container that reaches their directory.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// How often each socket is connected to.
const CONNECTS: u32 = 50;

/// Sends `hello` to every monitor below a directory, again and again. Returns `connected to <count>`, or the first
/// answer of a monitor.
pub(crate) fn connect_all(dir: &str) -> String {
    let pods = fs::read_dir(dir).into_iter().flatten().flatten();
    let sockets = pods.map(|pod| pod.path().join("monitor.sock"));
    let (mut count, mut silent) = (0, Vec::new());
    for socket in sockets {
        count += 1;
        for _ in 0..CONNECTS {
            if let Err(why) = connect(&socket, &mut silent) {
                return why;
            }
        }
    }
    format!("connected to {count}")
}

/// Opens one connection that stays open and sends nothing, and another one that sends `hello`.
fn connect(socket: &Path, silent: &mut Vec<UnixStream>) -> Result<(), String> {
    let connect = || UnixStream::connect(socket).map_err(|err| format!("connect: {err}"));
    silent.push(connect()?);
    let mut stream = connect()?;
    // The monitor has most likely closed it already.
    let written = stream.write_all(b"hello\n");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(got) if got > 0 => Err(format!("answered {got} bytes ({written:?})")),
        Ok(_) | Err(_) => Ok(()),
    }
}
