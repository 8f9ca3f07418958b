// SPDX-License-Identifier: Apache-2.0
//! `hull-monitor POD`: started by the daemon, one per pod, with its listening socket as descriptor
//! 3 and the pause program as descriptor 4.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let pod = std::env::args().nth(1).unwrap_or_default();
    match hull_monitor::run(&pod) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The daemon's log; with nobody reading there is nobody to tell.
            let _gone = writeln!(std::io::stderr(), "hull-monitor: pod {pod}: cannot {why}");
            ExitCode::FAILURE
        }
    }
}
