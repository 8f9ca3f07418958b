// SPDX-License-Identifier: Apache-2.0
//! Rate limits for the traffic to and from a pod.
//!
//! ```text
//! to the pod     bridge ─▶ hull<11> with a token bucket ─▶ eth0
//! from the pod   eth0 ─▶ hull<11> ─ redirected ─▶ hulq<11> with a token bucket ─▶ back ─▶ bridge
//! ```
//!
//! The rule: both buckets are on the host. On eth0 inside the pod, a process with CAP_NET_ADMIN could
//! remove its limit. A link can shape only the traffic that it sends, so the pod's outgoing traffic is
//! redirected through an `ifb` link, which pods without an egress limit do not have. Packets queue there,
//! where a policer would drop them, so TCP gets close to the configured rate.
//!
//! The kernel enforces the limits while no daemon runs. The first bucket disappears with the pod's link;
//! `hulq<11>` has the pod's id as its alias, and [`remove`] removes it together with the veth pair.

use super::links;
use crate::error::Error;
use crate::types::Bandwidth;
use hull_netlink::qdisc::{self, Rate};
use hull_netlink::{Socket, link};
use hull_sys as sys;
use rustix::io::Errno;

const PREFIX: &str = "hulq";
const KIND: &str = "ifb";
/// A bucket holds the traffic of a hundredth of a second, a queue that of a tenth.
const BURSTS_PER_S: u64 = 100;
const QUEUES_PER_S: u64 = 10;
/// Minimum number of packets at low rates: with fewer, TCP cannot reach the rate.
const BURST_PACKETS: u64 = 16;
const QUEUE_PACKETS: u64 = 32;
/// Overhead per packet: an Ethernet header with a VLAN tag.
const FRAME_BYTES: u64 = 18;
/// Largest size that can be added to another without overflowing the kernel's 32-bit fields.
const BYTES_MAX: u64 = 1 << 30;

/// Limits the rates of a newly created link that carries no traffic yet.
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
        qdisc::add_token_bucket(&mut batch, index, rate(bits, mtu), host_link);
        batch.run().map_err(failed)?;
    }
    if let Some(bits) = bandwidth.egress_bits {
        let through = ifb_name(host_link);
        // Remove a leftover without a lease: the state directory was cleared while the pod ran.
        remove(socket, id, host_link)?;
        let mut batch = socket.batch();
        link::make_plain(&mut batch, &through, KIND, id, mtu);
        batch.run().map_err(failed)?;
        let through_index = index_of(socket, &through).map_err(failed)?;
        let mut batch = socket.batch();
        qdisc::add_token_bucket(&mut batch, through_index, rate(bits, mtu), &through);
        qdisc::redirect_ingress(&mut batch, index, through_index, host_link);
        batch.run().map_err(failed)?;
    }
    Ok(())
}

/// Removes the pod's `ifb` link, if it exists and is the pod's.
pub(crate) fn remove(socket: &Socket, id: &str, host_link: &str) -> Result<(), Error> {
    let name = ifb_name(host_link);
    match links::find(socket, &name)? {
        Some(found)
            if found.kind.as_deref() == Some(KIND) && found.alias.as_deref() == Some(id) =>
        {
            link::remove(socket, &found).map_err(|source| Error::RemoveLink { link: name, source })
        }
        _ => Ok(()),
    }
}

/// The name of the pod's `ifb` link: the same digits as in its veth link's name.
fn ifb_name(host_link: &str) -> String {
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
        assert_eq!(rate(1_001, 1500).bytes_per_s, 126, "never slower than requested");
    }

    #[test]
    fn the_link_beside_has_the_pods_digits_and_fits() {
        let name = ifb_name(&links::link_name(&"a".repeat(64)).unwrap());
        assert_eq!(name, "hulqaaaaaaaaaaa");
        assert!(name.len() <= 15);
    }
}
