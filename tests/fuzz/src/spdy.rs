// SPDX-License-Identifier: Apache-2.0
//! A whole SPDY session: heads, control frames, header blocks, windows, streams.

use crate::client::{KEEP_ALIVE, block_on, connection, serve};
use crate::input::Input;
use hull_streaming::spdy::{frame, headers, open};

const KINDS: [&str; 6] = ["stdin", "stdout", "stderr", "error", "resize", "data"];

/// Runs one case: the first byte says whether the rest is what a client sends, or a script of mostly
/// well-formed frames.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let sent = if input.byte() % 2 == 0 { input.0.to_vec() } else { script(&mut input) };
    let given = block_on(async {
        let (io, client) = connection();
        let last_activity = (io.last_activity(), KEEP_ALIVE);
        serve(open(io, last_activity, std::future::pending()), client, &sent).await
    });
    assert!(given <= sent.len(), "{given} bytes were made of {}", sent.len());
}

/// Frames as the input decides.
#[must_use]
pub fn script(input: &mut Input<'_>) -> Vec<u8> {
    let mut sent = Vec::new();
    let Ok(mut writer) = headers::Writer::new() else { return sent };
    let mut next = 1_u32;
    while !input.is_empty() {
        // Mostly the next one, and sometimes any other.
        let choice = input.byte();
        let stream = if choice & 0x80 == 0 { next } else { u32::from(input.byte()) };
        match choice % 9 {
            0 | 1 => {
                let kind = KINDS[usize::from(input.byte()) % KINDS.len()];
                let value = String::from_utf8_lossy(input.run()).into_owned();
                let pairs = [("streamType", kind), ("port", &value), ("requestid", "1")];
                let Ok(block) = writer.write(&pairs[..usize::from(choice >> 4) % 4]) else { break };
                sent.extend(syn_stream(stream, choice & 8 != 0, &block));
                next = stream.wrapping_add(2) | 1;
            }
            2 | 3 => {
                let stream = if choice & 0x80 == 0 { next.wrapping_sub(2) } else { stream };
                let body = input.run();
                sent.extend(frame::data_head(stream, choice & 8 != 0, body.len()));
                sent.extend(body);
            }
            4 => sent.extend(frame::credit(stream, input.word())),
            5 => sent.extend(frame::reset(stream, input.word())),
            6 => sent.extend(control(choice >> 4, input.run())),
            7 => sent.extend(syn_stream(stream, false, input.run())),
            _ => sent.extend(input.run()),
        }
    }
    sent
}

fn syn_stream(stream: u32, fin: bool, block: &[u8]) -> Vec<u8> {
    let mut frame = control(1, &[&stream.to_be_bytes()[..], &[0; 6], block].concat());
    frame[4] = u8::from(fin);
    frame
}

fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    [&[0x80, 3, 0, kind, 0, a, b, c], body].concat()
}
