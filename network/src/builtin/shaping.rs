// SPDX-License-Identifier: Apache-2.0
//! How fast a pod may receive and send.
//!
//! ```text
//! to the pod     bridge ─▶ hull<11> with a token bucket ─▶ eth0
//! from the pod   eth0 ─▶ hull<11> ─ redirected ─▶ hulq<11> with a token bucket ─▶ back ─▶ bridge
//! ```
//!
//! The rule: both buckets are on the host. On eth0 inside, a process with CAP_NET_ADMIN in the pod
//! would take its limit away; a link sends at a rate but receives as it comes, so what a pod sends
//! takes the way round by a link of ours (`ifb`), which pods without such a limit do not have.
//! Packets wait there, where a policer would drop them: TCP comes close to the rate that way.
//!
//! The kernel keeps all of it while no daemon runs. The first bucket goes with the pod's link;
//! `hulq<11>` has the pod's id as its alias and is removed with [`remove`], whenever the pair is.

use super::links;
use crate::error::Error;
use crate::netlink::qdisc::{self, Rate};
use crate::netlink::{Socket, link};
use crate::types::Bandwidth;
use hull_sys as sys;
use rustix::io::Errno;

const PREFIX: &str = "hulq";
const KIND: &str = "ifb";
/// A bucket holds what goes in a hundredth of a second, a queue what goes in a tenth.
const BURSTS_PER_S: u64 = 100;
const QUEUES_PER_S: u64 = 10;
/// At slow rates they hold so many packets all the same: with fewer TCP does not get going.
const BURST_PACKETS: u64 = 16;
const QUEUE_PACKETS: u64 = 32;
/// What goes around a packet of the link's MTU: an Ethernet header with a VLAN's tag.
const FRAME_BYTES: u64 = 18;
/// As much as fits the kernel's numbers with room for a sum.
const BYTES_MAX: u64 = 1 << 30;

/// Limits the pod's link, just made and not yet used.
pub(crate) fn limit(
    socket: &Socket,
    id: &str,
    host_link: &str,
    bandwidth: Bandwidth,
    mtu: u32,
) -> Result<(), Error> {
    if bandwidth == Bandwidth::default() {
        return Ok(());
    }
    let failed = |source| Error::LimitRate { link: host_link.to_owned(), source };
    let index = index_of(socket, host_link).map_err(failed)?;
    if let Some(bits) = bandwidth.ingress_bits {
        let mut batch = socket.batch();
        qdisc::send_at(&mut batch, index, rate(bits, mtu), host_link);
        batch.run().map_err(failed)?;
    }
    if let Some(bits) = bandwidth.egress_bits {
        let through = name_beside(host_link);
        // One left behind with no lease: state was cleared away under a running pod.
        remove(socket, id, host_link)?;
        let mut batch = socket.batch();
        link::make_plain(&mut batch, &through, KIND, id, mtu);
        batch.run().map_err(failed)?;
        let through_index = index_of(socket, &through).map_err(failed)?;
        let mut batch = socket.batch();
        qdisc::send_at(&mut batch, through_index, rate(bits, mtu), &through);
        qdisc::lead_through(&mut batch, index, through_index, host_link);
        batch.run().map_err(failed)?;
    }
    Ok(())
}

/// Removes the link that what the pod sends goes through, if there is one and it is the pod's.
pub(crate) fn remove(socket: &Socket, id: &str, host_link: &str) -> Result<(), Error> {
    let name = name_beside(host_link);
    match links::find(socket, &name)? {
        Some(found)
            if found.kind.as_deref() == Some(KIND) && found.alias.as_deref() == Some(id) =>
        {
            link::remove(socket, &found).map_err(|source| Error::RemoveLink { link: name, source })
        }
        _ => Ok(()),
    }
}

/// The name of the link beside the pod's own, made of the same digits.
fn name_beside(host_link: &str) -> String {
    let digits = host_link.strip_prefix(links::LINK_PREFIX).unwrap_or(host_link);
    format!("{PREFIX}{digits}")
}

fn index_of(socket: &Socket, name: &str) -> sys::Result<u32> {
    let gone = || sys::Error::new(Errno::NODEV, format!("RTM_GETLINK({name})"));
    link::find(socket, name)?.map(|link| link.index).ok_or_else(gone)
}

fn rate(bits: u64, mtu: u32) -> Rate {
    let bytes_per_s = bits.div_ceil(8);
    let frame = u64::from(mtu) + FRAME_BYTES;
    let of = |parts_per_s: u64, packets: u64| {
        let bytes = (bytes_per_s / parts_per_s).max(packets * frame).min(BYTES_MAX);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    };
    Rate {
        bytes_per_s,
        burst_bytes: of(BURSTS_PER_S, BURST_PACKETS),
        queue_bytes: of(QUEUES_PER_S, QUEUE_PACKETS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_hundredth_of_a_second_and_packets_enough_at_least() {
        let slow = rate(1_000, 1500);
        assert_eq!((slow.bytes_per_s, slow.burst_bytes), (125, 16 * 1518));
        let fast = rate(8_000_000_000, 1500);
        assert_eq!((fast.burst_bytes, fast.queue_bytes), (10_000_000, 100_000_000));
        let huge = rate(1_000_000_000_000_000, 65_535);
        assert!(huge.burst_bytes.checked_add(huge.queue_bytes).is_some());
        assert_eq!(huge.bytes_per_s, 125_000_000_000_000);
        assert_eq!(rate(1_001, 1500).bytes_per_s, 126, "never slower than asked for");
    }

    #[test]
    fn the_link_beside_has_the_pods_digits_and_fits() {
        let name = name_beside(&links::link_name(&"a".repeat(64)).unwrap());
        assert_eq!(name, "hulqaaaaaaaaaaa");
        assert!(name.len() <= 15);
    }
}
