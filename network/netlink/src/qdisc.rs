// SPDX-License-Identifier: Apache-2.0
//! Queueing disciplines: a token bucket on a link, and ingress redirection to another link.
//! `tc(8)`, `tc-tbf(8)`; RTM_NEWQDISC, RTM_NEWTFILTER.
//!
//! Numbers are from include/uapi/linux/pkt_sched.h, pkt_cls.h and tc_act/tc_mirred.h, in native byte order.

use crate::attributes::Attributes;
use crate::socket::Batch;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;
/// Attachment points: egress of the link (root), or ingress.
const ROOT: u32 = u32::MAX;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;

/// A rate limit, with its burst and queue sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub bytes_per_s: u64,
    /// Bytes that may be sent at once after a pause.
    pub burst_bytes: u32,
    /// Bytes that may queue; more are dropped, which is how TCP finds the rate.
    pub queue_bytes: u32,
}

/// Adds a request to limit the link's egress rate with a token bucket.
pub fn add_token_bucket(batch: &mut Batch<'_>, index: u32, rate: Rate, link: &str) {
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    let options = Attributes::default()
        .bytes(PARAMETERS, &parameters(rate))
        .bytes(RATE64, &rate.bytes_per_s.to_ne_bytes())
        .bytes(BURST, &rate.burst_bytes.to_ne_bytes());
    let attributes = Attributes::default().bytes(KIND, b"tbf\0").nested(OPTIONS, options);
    let call = format!("RTM_NEWQDISC({link}, tbf, {} B/s)", rate.bytes_per_s);
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    batch.push_raw(NEW_QDISC, flags, call, &body(index, 0, ROOT, 0, &attributes));
}

/// Adds requests to redirect the link's ingress traffic through another link's queue, from where it
/// continues as if it had just arrived.
pub fn redirect_ingress(batch: &mut Batch<'_>, index: u32, through: u32, link: &str) {
    /// Priority 1, for packets of all protocols (ETH_P_ALL).
    const FIRST_OF_ALL: u32 = 1 << 16 | 0x0003_u16.to_be() as u32;
    const SELECTOR: u16 = 5;
    const ACTIONS: u16 = 7;
    let queue = Attributes::default().bytes(KIND, b"ingress\0");
    batch.push_raw(
        NEW_QDISC,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        format!("RTM_NEWQDISC({link}, ingress)"),
        &body(index, INGRESS_HANDLE, INGRESS, 0, &queue),
    );
    let options = Attributes::default()
        .bytes(SELECTOR, &everything())
        .nested(ACTIONS, Attributes::default().nested(1, redirect(through)));
    let filter = Attributes::default().bytes(KIND, b"u32\0").nested(OPTIONS, options);
    batch.push_raw(
        NEW_FILTER,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        format!("RTM_NEWTFILTER({link}, redirect to [{through}])"),
        &body(index, 0, INGRESS_HANDLE, FIRST_OF_ALL, &filter),
    );
}

/// `struct tc_tbf_qopt`: rate and peak rate (`struct tc_ratespec`), limit, and two fields that the
/// attributes override or that apply only with a peak rate.
fn parameters(rate: Rate) -> Vec<u8> {
    const ETHERNET: u8 = 1;
    let limit = rate.queue_bytes.saturating_add(rate.burst_bytes);
    let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(u32::try_from(rate.bytes_per_s).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend([0, ETHERNET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(limit.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// `struct tc_u32_sel` with one key whose mask is zero, so it matches every packet.
fn everything() -> Vec<u8> {
    const TERMINAL: u8 = 1;
    const KEYS: u8 = 1;
    let mut bytes = vec![TERMINAL, 0, KEYS];
    bytes.resize(16 + 16, 0);
    bytes
}

/// One action: `struct tc_mirred`, redirecting packets to the egress of that link.
fn redirect(to: u32) -> Attributes {
    const PARAMETERS: u16 = 2;
    const STOLEN: u32 = 4;
    const OUT_BY: u32 = 1;
    let words = [0, 0, STOLEN, 0, 0, OUT_BY, to];
    let parameters: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let options = Attributes::default().bytes(PARAMETERS, &parameters);
    Attributes::default().bytes(KIND, b"mirred\0").nested(OPTIONS, options)
}

/// `struct tcmsg` followed by its attributes.
fn body(index: u32, handle: u32, parent: u32, info: u32, attributes: &Attributes) -> Vec<u8> {
    let words = [0, index, handle, parent, info];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(attributes.as_ref());
    bytes
}
