// SPDX-License-Identifier: Apache-2.0
//! A pod's pair of links: its name on the host, made, waited for, taken away.
//!
//! The name has room for a part of the pod's id only, so the whole id is the link's alias: a link that
//! only happens to have the name is left alone.

use super::{links, shaping, sysctl};
use crate::error::Error;
use crate::netlink::{Socket, link};
use rustix::io::Errno;
use std::thread;
use std::time::Duration;
use tracing::{debug, warn};

/// How often a link just made is asked whether packets go through, and how long is waited between.
const SETTLE_TRIES: u32 = 50;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// Makes both ends.
///
/// The end on the host has no IPv6 of its own: it is a port, and needs no address. With one the host
/// would have routes for each, in lists that the kernel goes through whenever a pod comes or goes, and
/// every pod would hear each of them announce itself.
pub(crate) fn make(socket: &Socket, pair: &link::Pair<'_>) -> Result<(), Error> {
    let attempt = || {
        let mut batch = socket.batch();
        link::make_pair(&mut batch, pair);
        batch.run()
    };
    let finish = || {
        // A host that lets nobody set it works all the same, with many pods slower.
        if let Err(err) = sysctl::set_if_known(&["ipv6", "conf", pair.host, "disable_ipv6"], "1") {
            debug!(link = pair.host, error = %err, "the pod's port keeps IPv6");
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
            // Left behind, with no lease: state was cleared away under a running pod.
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

/// Waits until packets go through the link: the kernel switches the far end on first and this one a
/// moment later, and until then would drop the pod's first packets, which are repeated only after a
/// second. Newer kernels (6.8) do it at once when asked.
pub(crate) fn settle(socket: &Socket, name: &str) -> Result<(), Error> {
    for _ in 0..SETTLE_TRIES {
        match links::find(socket, name)? {
            Some(link) if !link.passing => thread::sleep(SETTLE_PAUSE),
            _ => return Ok(()),
        }
    }
    warn!(link = name, "link is slow to let packets through");
    Ok(())
}

/// Removes the pod's link, if there is one and it is the pod's, and what limited its rate.
pub(crate) fn remove(socket: &Socket, id: &str, name: &str) -> Result<(), Error> {
    if let Some(found) = find(socket, id, name)? {
        let failed = |source| Error::RemoveLink { link: name.to_owned(), source };
        link::remove(socket, &found).map_err(failed)?;
    }
    shaping::remove(socket, id, name)
}

/// The pod's link on the host, if there is one.
pub(crate) fn find(socket: &Socket, id: &str, name: &str) -> Result<Option<link::Link>, Error> {
    let Some(found) = links::find(socket, name)? else { return Ok(None) };
    if is_of(&found, id) {
        return Ok(Some(found));
    }
    debug!(pod = id, link = name, "link of that name is not this pod's; left alone");
    Ok(None)
}

fn is_of(link: &link::Link, id: &str) -> bool {
    link.kind.as_deref() == Some("veth") && link.alias.as_deref() == Some(id)
}
