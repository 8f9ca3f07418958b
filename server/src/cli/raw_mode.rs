// SPDX-License-Identifier: Apache-2.0
//! Our own terminal during a session: raw while the container has one. termios(3).

use super::error::{Error, Result};
use hull_streaming::terminal::Size;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::AsFd as _;

/// Stdin in raw mode: every key is passed on, none means anything here. On drop, its settings are restored.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Sets the terminal at stdin to raw mode.
    ///
    /// # Errors
    /// Stdin is not a terminal, with the hint to omit -t.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = io::stdin();
        if !isatty(stdin.as_fd()) {
            return Err(Error::NotATerminal);
        }
        let failed = |source| Error::Kernel { operation: "set the terminal to raw mode", source };
        let before = tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Fails if the terminal is gone. `Drain`: what was printed is printed with the settings of before.
        let _gone = tcsetattr(io::stdin().as_fd(), OptionalActions::Drain, &self.before);
    }
}

/// The size of our terminal, at whichever of the standard streams it is; `None` without one.
pub(crate) fn size() -> Option<Size> {
    let of = tcgetwinsize(io::stdin().as_fd())
        .or_else(|_| tcgetwinsize(io::stdout().as_fd()))
        .or_else(|_| tcgetwinsize(io::stderr().as_fd()))
        .ok()?;
    // A serial line has no size.
    (of.ws_col > 0 && of.ws_row > 0).then_some(Size { width: of.ws_col, height: of.ws_row })
}
