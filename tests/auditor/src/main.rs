// SPDX-License-Identifier: Apache-2.0
//! Looks at its own isolation from inside a container, and tries to get out.
//!
//! ```text
//! auditor audit             one JSON document on stdout: everything that can be seen and reached
//! auditor wait              says `ready`, then waits until it is killed
//! auditor headless          ends its first thread and goes on in another
//! auditor say WORD …        prints the words: proof that a program ran
//! auditor hunt MARKER       looks for MARKER, a path of the host, through every new process, until killed
//! auditor tamper            changes mode, group and time of its standard streams' files
//! auditor key-add NAME      adds a key to the session keyring, then waits
//! auditor key-find NAME …   looks for keys
//! ```
//!
//! It is one static file and is put into images by `tests/escape`. It changes nothing but with `tamper`.

mod hunt;
mod kernel;
mod look;
mod mounts;
mod spoil;

use serde_json::json;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        ["audit"] => json!({
            "process": look::process(), "fds": look::descriptors(), "mounts": mounts::table(),
            "proc": mounts::proc_files(), "sys_writable": mounts::sys_writable(), "sys_guarded": mounts::sys_guarded(),
            "devices": look::devices(), "syscalls": kernel::calls(), "families": kernel::families(),
            "session_keyring": kernel::keyring(), "abstract_sockets": look::abstract_sockets(),
            "signals": look::signals(),
        })
        .to_string(),
        ["say", words @ ..] => words.join(" "),
        ["wait"] => {
            say("ready");
            forever()
        }
        ["headless"] => {
            std::thread::spawn(|| -> ! {
                say("ready");
                forever()
            });
            hull_sys::audit::end_this_thread()
        }
        ["hunt", marker] => hunt::run(marker),
        ["spoil"] => spoil::run(),
        ["knock", dir] => spoil::knock(dir),
        ["tamper"] => look::tamper().join("\n"),
        ["key-add", name] => {
            say(&kernel::add_key(name));
            forever()
        }
        ["key-find", names @ ..] => {
            names.iter().map(|name| kernel::find_key(name)).collect::<Vec<_>>().join("\n")
        }
        _ => return ExitCode::from(2),
    };
    say(&text);
    ExitCode::SUCCESS
}

/// Prints a line. A reader that has gone away is not a reason to fail.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    drop(written);
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}
