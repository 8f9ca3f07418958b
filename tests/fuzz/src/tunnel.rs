// SPDX-License-Identifier: Apache-2.0
//! SPDY in the messages of a WebSocket, as port-forward comes through proxies.

use crate::client::{KEEP_ALIVE, block_on, connection, serve};
use crate::input::Input;
use crate::{spdy, websocket};
use hull_streaming::websocket::tunnel::through;

const BINARY: u8 = 0x82;

/// Runs one case: well-formed messages around frames, cut at lengths that the input says; or frames
/// of WebSocket as the input decides.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let sent = if input.byte() % 2 == 0 {
        websocket::frames(&mut input)
    } else {
        let cut = usize::from(input.byte()) + 1;
        let mut sent = Vec::new();
        for piece in spdy::script(&mut input).chunks(cut) {
            websocket::frame(BINARY, piece.len() as u64, piece, &mut sent);
        }
        sent
    };
    let given = block_on(async {
        let (io, client) = connection();
        let last_activity = (io.last_activity(), KEEP_ALIVE);
        let (inner, carry) = through(io).await;
        let mut session = hull_streaming::spdy::open(inner, last_activity, std::future::pending());
        session.attach_task(carry);
        serve(session, client, &sent).await
    });
    assert!(given <= sent.len(), "{given} bytes were made of {}", sent.len());
}
