// SPDX-License-Identifier: Apache-2.0
//! systemd as the maker of pods' cgroups, over D-Bus. `org.freedesktop.systemd1(5)`.
//!
//! ```text
//! kubepods-burstable-pod1.slice      the kubelet's
//!   hull-<pod-id>.scope              one per pod, ours whole (Delegate=yes)
//!     <pod-id>, <container-id> …     made by the monitor, as with the other driver
//! ```
//!
//! The rule: systemd is asked once per pod. What is below the scope is ours, so no start, exec or end
//! of a container speaks D-Bus; and once the scope is empty systemd drops it by itself.
//!
//! A connection that has broken is made anew by the next who wants one; nobody waits longer than
//! [`ANSWER_MAX`]. Not here: limits. Those of pods the kubelet sets on its slices, those of containers
//! are written below the scope.

pub(crate) mod names;

use futures_util::StreamExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use zbus::{OwnedObjectPath, Variant};

/// Longest wait for systemd, in all, for one pod. Under a storm of starts it takes some seconds; the
/// kubelet waits for minutes.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a reboot waits for the processes of a pod that nobody stopped before.
const STOP_MAX_US: u64 = 10_000_000;

/// Why systemd did not make a pod's scope.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("reach systemd over D-Bus")]
    Connect { source: zbus::Error },
    #[error("have systemd make {unit}: no answer in {} s", ANSWER_MAX.as_secs())]
    Slow { unit: String },
    #[error("have systemd make {unit}")]
    Refused { unit: String, source: zbus::Error },
    #[error("have systemd make {unit}: its job ended with `{result}`")]
    Job { unit: String, result: String },
    #[error("have systemd make {unit}: the connection to D-Bus broke meanwhile")]
    Broke { unit: String },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { .. } | Self::Slow { .. } | Self::Broke { .. } => Some(
                "see `systemctl status dbus` and `journalctl -u dbus`; the next attempt connects anew".into(),
            ),
            Self::Refused { unit, .. } | Self::Job { unit, .. } => {
                Some(format!("see `systemctl status {unit}` and `journalctl -b -u {unit}`"))
            }
        }
    }
}

/// What is asked of systemd.
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

/// systemd, once it was asked for something.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    /// Shared by all who ask at the same time.
    open: Mutex<Option<zbus::Connection>>,
}

impl Systemd {
    /// Has the process `pid` put into a new scope in `slice`, which is then ours.
    pub(crate) async fn start_scope(
        &self,
        unit: &str,
        slice: &str,
        about: &str,
        pid: i32,
    ) -> Result<(), Error> {
        let slow = |_| Error::Slow { unit: unit.to_owned() };
        let pids = vec![pid.unsigned_abs()];
        let properties = [
            ("Description", Variant::from(about)),
            ("Slice", Variant::from(slice)),
            ("PIDs", Variant::from(pids)),
            ("Delegate", Variant::from(true)),
            // Nothing is left of it once it is empty, however it ended.
            ("CollectMode", Variant::from("inactive-or-failed")),
            // The default is made for sessions of people. Limits of pods are the kubelet's.
            ("TasksMax", Variant::from(u64::MAX)),
            ("TimeoutStopUSec", Variant::from(STOP_MAX_US)),
        ];
        tokio::time::timeout(ANSWER_MAX, self.start(unit, &properties)).await.map_err(slow)?
    }

    async fn start(&self, unit: &str, properties: &[(&str, Variant<'_>)]) -> Result<(), Error> {
        let refused = |source| {
            if matches!(source, zbus::Error::InputOutput(_)) {
                return Error::Broke { unit: unit.to_owned() };
            }
            Error::Refused { unit: unit.to_owned(), source }
        };
        let manager = self.manager().await.map_err(|source| Error::Connect { source })?;
        // Listened to before the job is there: its end cannot be missed.
        let mut ends = manager.receive_job_removed().await.map_err(refused)?;
        let ended = async {
            while let Some(end) = ends.next().await {
                let end = end.args().map_err(refused)?;
                // Named after the pod: there never is another job of that name.
                if *end.unit() == unit {
                    return Ok((*end.result()).to_owned());
                }
            }
            Err(Error::Broke { unit: unit.to_owned() })
        };
        // Side by side: the reply comes over the same connection as the ends of everybody's jobs, and
        // waits behind those that nobody takes.
        let started = async {
            // `fail`: nothing of ours is queued for this unit, so there is nothing to replace.
            let started = manager.start_transient_unit(unit, "fail", properties, &[]);
            started.await.map_err(refused)
        };
        let (_job, result) = tokio::try_join!(started, ended)?;
        match result.as_str() {
            "done" => Ok(()),
            _ => Err(Error::Job { unit: unit.to_owned(), result }),
        }
    }

    /// Speaks over the connection that is there, or makes one.
    async fn manager(&self) -> zbus::Result<ManagerProxy<'static>> {
        let there = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(open) = there.filter(|open| !open.is_closed()) {
            return ManagerProxy::new(&open).await;
        }
        let made = zbus::Connection::system().await?;
        let manager = ManagerProxy::new(&made).await?;
        // systemd tells of its jobs only those who have said so.
        manager.subscribe().await?;
        // When two made one at once, the other goes with the last who uses it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).replace(made);
        Ok(manager)
    }
}
