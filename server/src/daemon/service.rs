// SPDX-License-Identifier: Apache-2.0
//! The daemon as a service of systemd: takes the socket that it is passed, reports when it is ready, and
//! regularly that it works. `sd_listen_fds(3)`, `sd_notify(3)`, `sd_watchdog_enabled(3)`.
//!
//! The rule: the sign of life is an answer to a real call, made over the socket as a kubelet would.
//! A daemon that still runs but answers no call gives none, and systemd restarts it; pods run on.

use crate::cli::client::Client;
use crate::error::Chain;
use hull_proto::cri;
use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::Duration;
use tracing::warn;

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST_FD: i32 = 3;

/// The socket that systemd listened on for us, so that callers wait while no daemon runs.
pub(crate) fn handed_listener() -> Option<UnixListener> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    // Meant for this process, and not for one that passed its environment on.
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS") != Some(1) {
        return None;
    }
    hull_sys::inherited(FIRST_FD).map(UnixListener::from)
}

/// systemd, as one of its services sees it. Without one, all of this does nothing.
#[derive(Debug, Default)]
pub(crate) struct Service {
    notify: Option<(UnixDatagram, SocketAddr)>,
}

impl Service {
    /// The notification socket of systemd, if there is one.
    pub(crate) fn find() -> Self {
        let notify = env::var("NOTIFY_SOCKET").ok().and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&path),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        Self { notify }
    }

    /// Says one thing, such as `READY=1`.
    pub(crate) fn say(&self, what: &str) {
        let Some((from, to)) = &self.notify else { return };
        if let Err(err) = from.send_to_addr(what.as_bytes(), to) {
            warn!(error = %err, what, "systemd was not notified");
        }
    }

    /// How often it wants a sign of life; `None` when it wants none of this process.
    fn wants_signs(&self) -> Option<Duration> {
        self.notify.as_ref()?;
        let meant = env::var("WATCHDOG_PID");
        if meant.is_ok_and(|pid| pid != std::process::id().to_string()) {
            return None;
        }
        let most: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        Some(Duration::from_micros(most)).filter(|most| !most.is_zero())
    }

    /// Gives signs of life, each after a call that was answered, until the daemon ends.
    pub(crate) async fn live(self, socket: PathBuf) {
        let Some(most) = self.wants_signs() else { return };
        // Three chances within the time, each with a third of it.
        let turn = most / 3;
        let mut turns = tokio::time::interval(turn);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match tokio::time::timeout(turn, call(&socket)).await {
                Ok(Ok(())) => self.say("WATCHDOG=1"),
                Ok(Err(why)) => warn!(why, "the daemon's own call failed; no sign of life"),
                Err(_) => {
                    warn!(
                        waited_s = turn.as_secs(),
                        "the daemon's own call was not answered; no sign of life"
                    )
                }
            }
        }
    }
}

/// Makes a call that kubelets make all the time.
async fn call(socket: &std::path::Path) -> Result<(), String> {
    let mut client = Client::connect(socket).await.map_err(|err| Chain(&err).to_string())?;
    let status = |err: tonic::Status| err.message().to_owned();
    client.runtime.status(cri::StatusRequest::default()).await.map_err(status)?;
    let list = cri::ListPodSandboxRequest::default();
    client.runtime.list_pod_sandbox(list).await.map(drop).map_err(status)
}
