// SPDX-License-Identifier: Apache-2.0
//! The addresses of a link, read so that another link can get the same ones. `rtnetlink(7)`, RTM_*ADDR.

use crate::attributes::Attributes;
use crate::socket::{Batch, LIST, Response, Socket};
use hull_sys::Result;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NlasIterator};

const NEW: u16 = 20;
const GET: u16 = 22;
/// Size of `struct ifaddrmsg`: family, prefix length, flags and scope of one byte each, and the link's index.
const HEADER: usize = 8;
const FLAGS: u16 = 8;
/// The address, the local one, the broadcast address, and the metric of its routes.
const KEPT: [u16; 4] = [1, 2, 4, 9];
const PERMANENT: u32 = 0x80;
/// Without duplicate address detection: the address was in use until now.
const NODAD: u32 = 0x02;
/// The kernel makes no route to the subnet.
const NO_PREFIX_ROUTE: u32 = 0x200;

/// An address of a link, as the kernel encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The permanent addresses of the link that are valid beyond it (scope `global`).
pub fn global(socket: &Socket, index: u32) -> Result<Vec<Address>> {
    let mut batch = socket.batch();
    batch.push_raw(GET, LIST, "RTM_GETADDR(all)", &[0; HEADER]);
    Ok(batch.dump()?.iter().filter_map(|response| read(response, index)).collect())
}

/// Adds a request to assign the address to another link.
pub fn add(batch: &mut Batch<'_>, index: u32, address: &Address, link: &str) {
    let mut body = vec![address.family, address.prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let attributes = address.attributes.iter();
    let attributes =
        attributes.fold(Attributes::default(), |all, (kind, value)| all.bytes(*kind, value));
    body.extend(attributes.bytes(FLAGS, &address.flags.to_ne_bytes()).as_ref());
    batch.push_raw(
        NEW,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        format!("RTM_NEWADDR({link})"),
        &body,
    );
}

fn read(response: &Response, wanted: u32) -> Option<Address> {
    let header: &[u8; HEADER] = response.body.first_chunk()?;
    let [family, prefix, flags, scope, index @ ..] = *header;
    if response.kind != NEW || scope != 0 || u32::from_ne_bytes(index) != wanted {
        return None;
    }
    let (mut flags, mut attributes) = (u32::from(flags), Vec::new());
    for one in NlasIterator::new(response.body.get(HEADER..)?).map_while(|one| one.ok()) {
        match one.kind() {
            FLAGS => flags = u32::from_ne_bytes(*one.value().first_chunk()?),
            kind if KEPT.contains(&kind) => attributes.push((kind, one.value().to_vec())),
            _ => {}
        }
    }
    let kept = flags & NO_PREFIX_ROUTE | NODAD;
    (flags & PERMANENT != 0).then_some(Address { family, prefix, flags: kept, attributes })
}
