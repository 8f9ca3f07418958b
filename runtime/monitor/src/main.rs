// SPDX-License-Identifier: Apache-2.0
//! `hull-monitor POD`: started by the daemon, one per pod, with its listening socket as descriptor
//! 3 and the pause program as descriptor 4.

use hull_proto::monitor::{RUN_POSTSTOP, TRY_USER_NAMESPACES};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::io::Write as _;
use std::process::ExitCode;

/// musl's own returns a page to the kernel as soon as the last allocation in it is freed, and maps it
/// again for the next one: 70 times in the life of a pod, and once more in every child after its fork.
///
/// Wiped, because every new process is a copy of this one until its exec, and a container that may
/// trace (CAP_SYS_PTRACE) must not read another one's environment in it.
#[global_allocator]
static ALLOCATOR: hull_sys::Wiping<dlmalloc::GlobalDlmalloc> =
    hull_sys::Wiping(dlmalloc::GlobalDlmalloc);

fn main() -> ExitCode {
    hull_sys::give_back_pages(true);
    let mut args = std::env::args().skip(1);
    let pod = args.next().unwrap_or_default();
    let done = if pod == TRY_USER_NAMESPACES {
        hull_monitor::try_user_namespaces(&args.collect::<Vec<_>>())
    } else if pod == RUN_POSTSTOP {
        hull_monitor::run_poststop()
    } else {
        hull_monitor::run(&pod)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Into the daemon's log, if it still reads.
            let text = shown(format!("pod {pod}: cannot {why}"), MESSAGE_BYTES_MAX);
            let _gone = writeln!(std::io::stderr(), "hull-monitor: {text}");
            ExitCode::FAILURE
        }
    }
}
