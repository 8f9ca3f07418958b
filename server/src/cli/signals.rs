// SPDX-License-Identifier: Apache-2.0
//! The signals that end a command: SIGINT, SIGTERM, SIGHUP and SIGQUIT.
//!
//! The rule: once a command listens for them, the kernel's default actions are off until it exits, so from then on
//! every wait of the command also waits for [`EndSignals::next`]. Signals that were ignored when hull was started, by
//! nohup(1) or by a shell for a job in the background, stay ignored.

use super::error::{Error, Result};
use super::exit_codes::exit_code;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are listened for, with their exit codes.
#[derive(Debug)]
pub(crate) struct EndSignals(Vec<(Signal, u8)>);

impl EndSignals {
    /// Listens for the signals from now on, except for those that are ignored.
    ///
    /// # Errors
    /// `sigaction(2)` fails.
    pub(crate) fn new() -> Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let ignored = ignored();
        let heard = kinds.into_iter().filter(|kind| !has(ignored, *kind));
        heard.map(listen).collect::<Result<_>>().map(Self)
    }

    /// One signal alone, which no other test sends.
    #[cfg(test)]
    pub(crate) fn only(kind: SignalKind) -> Result<Self> {
        listen(kind).map(|one| Self(vec![one]))
    }

    /// No signals, for a wait beside another one that has them.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Waits for the next signal, and returns its exit code: 128 and its number. Cancel safe.
    pub(crate) async fn next(&mut self) -> u8 {
        std::future::poll_fn(|context| {
            for (signal, code) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*code);
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn listen(kind: SignalKind) -> Result<(Signal, u8)> {
    let code = exit_code(128_i32.saturating_add(kind.as_raw_value()));
    Ok((signal(kind).map_err(Error::io("listen for signals"))?, code))
}

/// The mask of the signals that this process ignores: `SigIgn` of proc_pid_status(5). Empty where procfs is missing.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    mask(&status, "SigIgn:").unwrap_or_default()
}

fn mask(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

fn has(mask: u64, kind: SignalKind) -> bool {
    // Bit 0 is signal 1.
    let bit = u32::try_from(kind.as_raw_value()).ok().and_then(|number| number.checked_sub(1));
    bit.and_then(|bit| mask.checked_shr(bit)).is_some_and(|rest| rest & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};

    #[tokio::test]
    async fn each_signal_has_its_own_exit_code() {
        let before = ignored();
        let mut signals = EndSignals::new().unwrap();
        for (sent, kind, code) in [
            (Number::INT, SignalKind::interrupt(), 130),
            (Number::TERM, SignalKind::terminate(), 143),
            (Number::HUP, SignalKind::hangup(), 129),
            (Number::QUIT, SignalKind::quit(), 131),
        ] {
            // As when the tests run in the background of a script.
            if has(before, kind) {
                continue;
            }
            kill_process(getpid(), sent).unwrap();
            assert_eq!(signals.next().await, code);
        }
    }

    #[test]
    fn ignored_signals_are_read_from_procfs() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0\n";
        let found = mask(status, "SigIgn:").unwrap();
        for (kind, is_ignored) in [
            (SignalKind::hangup(), true),
            (SignalKind::interrupt(), true),
            (SignalKind::quit(), false),
            (SignalKind::terminate(), false),
        ] {
            assert_eq!(has(found, kind), is_ignored, "{kind:?}");
        }
        assert_eq!(mask("", "SigIgn:"), None);
    }
}
