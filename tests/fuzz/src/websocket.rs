// SPDX-License-Identifier: Apache-2.0
//! A whole WebSocket session of exec or attach: frames, messages, channels in both forms.

use crate::client::{KEEP_ALIVE, block_on, connection, serve};
use crate::input::Input;
use hull_streaming::remotecommand::RequestedStreams;
use hull_streaming::websocket::{Channels, open};

/// Runs one case: the first byte says in which form, with a terminal or not, and whether the rest is
/// what a client sends, or a script of frames.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let choice = usize::from(input.byte());
    let channels = Channels::of(Channels::NAMES[(choice >> 2) % Channels::NAMES.len()].0);
    let sent = if choice % 2 == 0 { input.0.to_vec() } else { frames(&mut input) };
    let requested =
        RequestedStreams { stdin: true, stdout: true, stderr: true, tty: choice & 2 != 0 };
    let given = block_on(async {
        let (io, client) = connection();
        let last_activity = (io.last_activity(), KEEP_ALIVE);
        let session = open(io, channels, requested, last_activity, std::future::pending()).await;
        serve(session, client, &sent).await
    });
    assert!(given <= sent.len(), "{given} bytes were made of {}", sent.len());
}

/// Frames with heads as the input decides, mostly of the right length.
#[must_use]
pub fn frames(input: &mut Input<'_>) -> Vec<u8> {
    let mut sent = Vec::new();
    while !input.is_empty() {
        let (first, more) = (input.byte(), input.byte());
        let body = input.run();
        let length =
            if more & 0x80 == 0 { body.len() as u64 } else { u64::from(input.word()) << 8 };
        frame(first, length, body, &mut sent);
    }
    sent
}

/// One frame; the mask is of zeros, which leaves the bytes as they are.
pub fn frame(first: u8, length: u64, body: &[u8], to: &mut Vec<u8>) {
    to.push(first);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => to.push(0x80 | short),
        (_, Ok(long)) => {
            to.push(0x80 | 126);
            to.extend(long.to_be_bytes());
        }
        _ => {
            to.push(0x80 | 127);
            to.extend(length.to_be_bytes());
        }
    }
    to.extend([0; 4]);
    to.extend(body);
}
