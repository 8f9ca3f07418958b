// SPDX-License-Identifier: Apache-2.0
//! Terminals, and the console socket that receives their masters.

use crate::{refused, until};
use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt as _;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

/// The master of a terminal, as it comes over the console socket.
fn terminal(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().or_fail("accept on the console socket");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut name = [IoSliceMut::new(&mut name)];
    let _got = recvmsg(&stream, &mut name, &mut rights, RecvFlags::CMSG_CLOEXEC)
        .or_fail("take a terminal");
    let brought = rights.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut fds) = message else { return None };
        fds.next()
    });
    brought.or_fail("find a terminal in the message").into()
}

/// Reads the output of a terminal until nobody holds its other side.
fn all_of(mut terminal: File) -> String {
    let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(got) = terminal.read(&mut chunk)
        && got > 0
    {
        said.extend_from_slice(&chunk[..got]);
    }
    String::from_utf8_lossy(&said).replace("\r\n", "\n")
}

#[test]
fn a_terminal_is_handed_over_by_the_console_socket() {
    let bundle = Bundle::shell("test -t 0 && test -c /dev/console && tty && stty size");
    bundle.change(|config| {
        config["process"]["terminal"] = true.into();
        config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    });
    let path = bundle.scratch().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    refused(&bundle.create("one"), &["--console-socket"]);
    let path = path.display().to_string();
    let _said =
        bundle.oci(&["create", "-b", &bundle.path(), "--console-socket", &path, "one"]).good();
    let master = terminal(&listener);
    let _said = bundle.oci(&["start", "one"]).good();
    assert_eq!(all_of(master), "/dev/pts/0\n33 99\n");
    until(&bundle, "one", "stopped");
    let _said = bundle.oci(&["delete", "one"]).good();
    bundle.change(|config| {
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sleep", "100000"]);
    });
    bundle.up("two");
    let exec = ["exec", "-t", "-d", "--console-socket", &path, "two", "sh", "-c", "tty"];
    let _said = bundle.oci(&exec).good();
    assert_eq!(all_of(terminal(&listener)), "/dev/pts/0\n");
    // Without a socket the runtime stays and relays.
    let ran = bundle.oci(&["exec", "-t", "two", "sh", "-c", "test -t 1 && echo yes; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "yes\n"), "{ran:?}");
}
