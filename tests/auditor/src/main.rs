// SPDX-License-Identifier: Apache-2.0
//! Reports its own isolation from inside a container, and tries to get out.
//!
//! ```text
//! auditor audit                 one JSON document on stdout: everything that can be seen and reached
//! auditor wait                  prints `ready`, then waits until it is killed
//! auditor end-main-thread       ends its first thread and goes on in another
//! auditor say WORD …            prints the words: proof that a program ran
//! auditor find-file PATH        looks for PATH, a file of the host, through every new process, until killed
//! auditor change-programs       tries to change the programs of all other processes, until killed
//! auditor connect-monitors DIR  connects to every monitor's socket below DIR
//! auditor tamper                changes mode, group and time of its standard streams' files
//! auditor key-add NAME          adds a key to the session keyring, then waits
//! auditor key-find NAME …       looks for keys
//! ```
//!
//! It is one static file, which `tests/escape` puts into images. Only `tamper` and `change-programs` change anything.

mod find_file;
mod kernel;
mod monitor_sockets;
mod mounts;
mod new_processes;
mod output;
mod process;
mod programs;

use output::print_line;
use serde_json::json;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        ["audit"] => json!({
            "process": process::process(), "fds": process::descriptors(), "mounts": mounts::table(),
            "proc": mounts::proc_files(), "sys_writable": mounts::sys_writable(), "sys_guarded": mounts::sys_guarded(),
            "devices": process::devices(), "syscalls": kernel::calls(), "families": kernel::families(),
            "session_keyring": kernel::keyring(), "abstract_sockets": process::abstract_sockets(),
            "signals": process::signals(),
        })
        .to_string(),
        ["say", words @ ..] => words.join(" "),
        ["wait"] => {
            print_line("ready");
            wait_forever()
        }
        ["end-main-thread"] => {
            std::thread::spawn(|| -> ! {
                print_line("ready");
                wait_forever()
            });
            hull_sys::audit::end_this_thread()
        }
        ["find-file", path] => find_file::run(path),
        ["change-programs"] => programs::change_all(),
        ["connect-monitors", dir] => monitor_sockets::connect_all(dir),
        ["tamper"] => process::tamper().join("\n"),
        ["key-add", name] => {
            print_line(&kernel::add_key(name));
            wait_forever()
        }
        ["key-find", names @ ..] => {
            names.iter().map(|name| kernel::find_key(name)).collect::<Vec<_>>().join("\n")
        }
        _ => return ExitCode::from(2),
    };
    print_line(&text);
    ExitCode::SUCCESS
}

fn wait_forever() -> ! {
    loop {
        std::thread::park();
    }
}
