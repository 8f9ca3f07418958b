// SPDX-License-Identifier: Apache-2.0
//! Creates pods' cgroups as scopes of systemd, over D-Bus. `org.freedesktop.systemd1(5)`.
//!
//! ```text
//! kubepods-burstable-pod1.slice      the kubelet's
//!   hull-<pod-id>.scope              one per pod, delegated to Hull (Delegate=yes)
//!     <pod-id>, <container-id> …     created by the monitor, as with cgroupfs
//! ```
//!
//! The rule: one request to systemd per pod. Everything below the scope is Hull's, so no start, exec or exit of a
//! container needs D-Bus, and systemd removes the empty scope by itself.
//!
//! The next request after a broken connection opens a new one. No request waits longer than [`ANSWER_MAX`]. Not here:
//! limits. The kubelet sets those of pods on its slices; those of containers are written below the scope.

pub(crate) mod names;

use futures_util::StreamExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use zbus::{OwnedObjectPath, Variant};

/// Longest total wait for systemd for one pod. Under many starts at once it takes some seconds; the kubelet waits
/// for minutes.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Microseconds that a shutdown of the host waits for the processes of a running pod.
const STOP_MAX_US: u64 = 10_000_000;

/// systemd did not create a pod's scope. Texts read after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("connect to systemd over D-Bus")]
    Connect { source: zbus::Error },
    #[error("create {unit} by systemd: no answer in {} s", ANSWER_MAX.as_secs())]
    Timeout { unit: String },
    #[error("create {unit} by systemd")]
    Refused { unit: String, source: zbus::Error },
    #[error("create {unit} by systemd: its job ended with `{result}`")]
    Job { unit: String, result: String },
    #[error("create {unit} by systemd: the connection to D-Bus was lost")]
    Disconnected { unit: String },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Disconnected { .. } => Some(
                "see `systemctl status dbus` and `journalctl -u dbus`; the next attempt opens a new connection".into(),
            ),
            Self::Refused { unit, .. } | Self::Job { unit, .. } => {
                Some(format!("see `systemctl status {unit}` and `journalctl -b -u {unit}`"))
            }
        }
    }
}

/// The used methods of systemd.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;

    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        auxiliary: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: zbus::ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// A client of systemd, which connects at the first request.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    /// The connection, shared by concurrent requests.
    open: Mutex<Option<zbus::Connection>>,
}

impl Systemd {
    /// Moves the process `pid` into a new, delegated scope in `slice`.
    pub(crate) async fn start_scope(
        &self,
        unit: &str,
        slice: &str,
        description: &str,
        pid: i32,
    ) -> Result<(), Error> {
        let slow = |_| Error::Timeout { unit: unit.to_owned() };
        let pids = vec![pid.unsigned_abs()];
        let properties = [
            ("Description", Variant::from(description)),
            ("Slice", Variant::from(slice)),
            ("PIDs", Variant::from(pids)),
            ("Delegate", Variant::from(true)),
            // systemd removes the unit when the scope is empty, also after a failure.
            ("CollectMode", Variant::from("inactive-or-failed")),
            // The default is meant for login sessions. The kubelet sets the limits of pods.
            ("TasksMax", Variant::from(u64::MAX)),
            ("TimeoutStopUSec", Variant::from(STOP_MAX_US)),
        ];
        tokio::time::timeout(ANSWER_MAX, self.start(unit, &properties)).await.map_err(slow)?
    }

    async fn start(&self, unit: &str, properties: &[(&str, Variant<'_>)]) -> Result<(), Error> {
        let refused = |source| {
            if matches!(source, zbus::Error::InputOutput(_)) {
                return Error::Disconnected { unit: unit.to_owned() };
            }
            Error::Refused { unit: unit.to_owned(), source }
        };
        let manager = self.manager().await.map_err(|source| Error::Connect { source })?;
        // Subscribed before the job exists, so its end cannot be missed.
        let mut ends = manager.receive_job_removed().await.map_err(refused)?;
        let ended = async {
            while let Some(end) = ends.next().await {
                let end = end.args().map_err(refused)?;
                // The unit is named after the pod, so there is no other job for it.
                if *end.unit() == unit {
                    return Ok((*end.result()).to_owned());
                }
            }
            Err(Error::Disconnected { unit: unit.to_owned() })
        };
        // Concurrently: the reply arrives over the same connection as the signals for all jobs, and would wait behind
        // signals that are not received.
        let started = async {
            // `fail`: no other job of Hull is queued for this unit.
            let started = manager.start_transient_unit(unit, "fail", properties, &[]);
            started.await.map_err(refused)
        };
        let (_job, result) = tokio::try_join!(started, ended)?;
        match result.as_str() {
            "done" => Ok(()),
            _ => Err(Error::Job { unit: unit.to_owned(), result }),
        }
    }

    /// A proxy over the open connection, or over a new one.
    async fn manager(&self) -> zbus::Result<ManagerProxy<'static>> {
        let existing = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(open) = existing.filter(|open| !open.is_closed()) {
            return ManagerProxy::new(&open).await;
        }
        let connection = zbus::Connection::system().await?;
        let manager = ManagerProxy::new(&connection).await?;
        // systemd sends signals of jobs only to subscribers.
        manager.subscribe().await?;
        // If two connections were opened at once, the other one is closed after its last use.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).replace(connection);
        Ok(manager)
    }
}
