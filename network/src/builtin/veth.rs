// SPDX-License-Identifier: Apache-2.0
//! A pod's veth pair: creating it, waiting for it, removing it.
//!
//! A link name has room for only part of a pod id, so the link's alias holds the whole id. A link with the
//! name but another alias belongs to something else and is left alone.

use super::{links, shaping, sysctl};
use crate::error::Error;
use hull_netlink::{Socket, link};
use rustix::io::Errno;
use std::thread;
use std::time::Duration;
use tracing::{debug, warn};

/// How often, and at which interval, a new link's operational state is polled.
const OPERATIONAL_TRIES: u32 = 50;
const OPERATIONAL_PAUSE: Duration = Duration::from_millis(1);

/// Creates both ends.
///
/// IPv6 is disabled on the host end: a bridge port needs no address. Otherwise the host would have routes
/// for each port, in lists that the kernel walks whenever a pod starts or stops, and every pod would
/// receive the announcements of every port.
pub(crate) fn make(socket: &Socket, pair: &link::VethPair<'_>) -> Result<(), Error> {
    let attempt = || {
        let mut batch = socket.batch();
        link::make_pair(&mut batch, pair);
        batch.run()
    };
    let finish = || {
        // If the setting cannot be changed, everything still works, but is slower with many pods.
        if let Err(err) = sysctl::set_if_present(&["ipv6", "conf", pair.host, "disable_ipv6"], "1")
        {
            debug!(link = pair.host, error = %err, "cannot disable IPv6 on the pod's bridge port");
        }
        let mut batch = socket.batch();
        link::finish_pair(&mut batch, pair);
        batch.run()
    };
    let link = || pair.host.to_owned();
    let failed = |source| Error::MakeLink { link: link(), source };
    let made = match attempt() {
        Err(err) if err.errno() == Errno::EXIST => match links::find(socket, pair.host)? {
            None => Err(Error::InsideTaken),
            // A leftover without a lease: the state directory was cleared while the pod ran.
            Some(found) if is_of(&found, pair.alias) => {
                link::remove(socket, &found).map_err(failed)?;
                attempt().map_err(failed)
            }
            Some(_) => Err(Error::LinkTaken { link: link() }),
        },
        other => other.map_err(failed),
    };
    made.and_then(|()| finish().map_err(failed))
}

/// Waits until the link is operational. The kernel brings the far end up first and this end a moment
/// later, and drops the pod's first packets until then; they would be resent only after a second. Linux
/// 6.8 and later bring both up at once.
pub(crate) fn wait_operational(socket: &Socket, name: &str) -> Result<(), Error> {
    for _ in 0..OPERATIONAL_TRIES {
        match links::find(socket, name)? {
            Some(link) if !link.operational => thread::sleep(OPERATIONAL_PAUSE),
            _ => return Ok(()),
        }
    }
    warn!(link = name, "link is not operational yet; the pod's first packets may be lost");
    Ok(())
}

/// Removes the pod's link and its rate limits, if they exist and are the pod's.
pub(crate) fn remove(socket: &Socket, id: &str, name: &str) -> Result<(), Error> {
    if let Some(found) = find(socket, id, name)? {
        let failed = |source| Error::RemoveLink { link: name.to_owned(), source };
        link::remove(socket, &found).map_err(failed)?;
    }
    shaping::remove(socket, id, name)
}

/// The host end of the pod's link, if it exists.
pub(crate) fn find(socket: &Socket, id: &str, name: &str) -> Result<Option<link::Link>, Error> {
    let Some(found) = links::find(socket, name)? else { return Ok(None) };
    if is_of(&found, id) {
        return Ok(Some(found));
    }
    debug!(
        pod = id,
        link = name,
        "a link with the pod's link name is not this pod's; leaving it alone"
    );
    Ok(None)
}

fn is_of(link: &link::Link, id: &str) -> bool {
    link.kind.as_deref() == Some("veth") && link.alias.as_deref() == Some(id)
}
