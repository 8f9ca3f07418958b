// SPDX-License-Identifier: Apache-2.0
//! Descriptors that go to others: listeners of seccomp filters, and pidfds.

use crate::refused;
use hull_tests::bundle::Bundle;
use hull_tests::expect::ExpectExt as _;
use serde_json::{Value, json};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// The bytes of one connection, and the descriptor along with them.
fn received(connection: &UnixStream) -> (Vec<u8>, OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut bytes = vec![0; 64 << 10];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [rustix::io::IoSliceMut::new(&mut bytes)];
    let got = recvmsg(connection, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .or_fail("receive a descriptor");
    let fd = ancillary.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut fds) = message else { return None };
        fds.next()
    });
    bytes.truncate(got.bytes);
    (bytes, fd.or_fail("receive a descriptor"))
}

/// The next connection. None in half a minute is a failure, and no test that waits for ever.
fn accepted(listener: &UnixListener) -> UnixStream {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "somebody connects");
    listener.accept().or_fail("accept a connection").0
}

/// Accepts `count` connections, and lets go of their descriptors: what nobody decides fails with ENOSYS.
fn agent(socket: &Path, count: usize) -> thread::JoinHandle<Vec<Value>> {
    let listener = UnixListener::bind(socket).or_fail("receive a descriptor");
    thread::spawn(move || {
        let connections = (0..count).map(|_| accepted(&listener));
        let states = connections.map(|connection| {
            let (text, _let_go_of) = received(&connection);
            serde_json::from_slice(&text).or_fail("receive a descriptor")
        });
        states.collect()
    })
}

fn notify(bundle: &Bundle, socket: &str, calls: &[&str]) {
    bundle.change(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "for the test",
            "syscalls": [{"names": calls, "action": "SCMP_ACT_NOTIFY"}],
        });
    });
}

#[test]
fn the_agent_gets_the_listener_of_a_container_and_of_its_execs() {
    let bundle = Bundle::new();
    let socket = bundle.scratch().join("agent");
    notify(&bundle, &socket.display().to_string(), &["mkdir", "mkdirat"]);
    for no_new_privileges in [true, false] {
        let agent = agent(&socket, 2);
        bundle.change(|config| config["process"]["noNewPrivileges"] = no_new_privileges.into());
        bundle.up("one");
        let pid = bundle.state("one")["pid"].clone();
        let file = bundle.scratch().join("pid");
        let script = "ls /proc/self/fd; mkdir /tmp/x";
        let words = ["exec", "--pid-file", &file.display().to_string(), "one", "sh", "-c", script];
        let ran = bundle.oci(&words);
        assert!(ran.stderr.contains("Function not implemented"), "{ran:?}");
        assert_eq!(ran.stdout.lines().count(), 4, "no further descriptor: {ran:?}");
        let states = agent.join().unwrap();
        for (state, status) in states.iter().zip(["creating", "running"]) {
            assert_eq!(
                (&state["fds"][0], &state["metadata"]),
                (&json!("seccompFd"), &json!("for the test"))
            );
            assert_eq!(
                (&state["state"]["id"], &state["state"]["status"]),
                (&json!("one"), &json!(status))
            );
            assert_eq!(state["state"]["pid"], pid, "{state}");
        }
        // The program's own process, and not the one that creates it in the container's pid namespace.
        let of_exec: i64 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        assert_eq!(states[1]["pid"], of_exec);
        assert_eq!(states[0]["pid"], pid);
        let _said = bundle.oci(&["delete", "-f", "one"]).good();
        std::fs::remove_file(&socket).unwrap();
    }
}

#[test]
fn a_listener_without_anybody_is_an_error_and_without_notifications_nothing() {
    let bundle = Bundle::new();
    let socket = bundle.scratch().join("agent").display().to_string();
    notify(&bundle, &socket, &["mkdir"]);
    refused(&bundle.create("one"), &["seccomp agent", &socket, "hint:"]);
    notify(&bundle, "", &["mkdir"]);
    refused(&bundle.create("one"), &["listenerPath"]);
    notify(&bundle, &socket, &["sendmsg"]);
    refused(&bundle.create("one"), &["sendmsg"]);
    assert_eq!(bundle.left(), Vec::<String>::new());
    bundle.change(|config| config["linux"]["seccomp"]["syscalls"] = json!([]));
    bundle.up("one");
}

#[test]
fn a_pidfd_goes_to_its_socket() {
    let bundle = Bundle::new();
    let socket = bundle.scratch().join("pidfd");
    let path = socket.display().to_string();
    let listener = UnixListener::bind(&socket).unwrap();
    let created = bundle.oci(&["create", "--pidfd-socket", &path, "-b", &bundle.path(), "one"]);
    let _said = created.good();
    let (_, pidfd) = received(&accepted(&listener));
    let _said = bundle.oci(&["exec", "-d", "--pidfd-socket", &path, "one", "sleep", "1000"]).good();
    let (_, of_exec) = received(&accepted(&listener));
    for process in [of_exec, pidfd] {
        rustix::process::pidfd_send_signal(process.as_fd(), rustix::process::Signal::KILL).unwrap();
    }
    crate::until(&bundle, "one", "stopped");
}
