// SPDX-License-Identifier: Apache-2.0
//! Frames between daemon and monitor, of which one may be older or newer than the other: however they
//! are cut they are read alike, and what is read is what its bytes say.

use crate::input::Input;
use borsh::{BorshDeserialize, BorshSerialize};
use hull_monitor::Frames;
use hull_proto::monitor::{Message, Request, Verb};
use std::fmt::Debug;

/// Runs one case: the first byte says which side's frames these are, the second where they are cut.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (side, cut) = (input.byte(), usize::from(input.byte()) + 1);
    if side % 2 == 0 {
        for request in taken::<Request>(input.0, cut) {
            payload(&request.verb);
        }
    } else {
        drop(taken::<Message>(input.0, cut));
    }
}

fn taken<T: BorshSerialize + BorshDeserialize + Debug + PartialEq>(
    data: &[u8],
    cut: usize,
) -> Vec<T> {
    let whole: Vec<T> = all(std::iter::once(data));
    assert_eq!(all::<T>(data.chunks(cut)), whole, "cut into pieces of {cut}");
    let mut at = 0;
    for message in &whole {
        // A length, then exactly these bytes: there is no second way to say the same.
        let bytes = borsh::to_vec(message).unwrap_or_default();
        at += 4;
        assert!(data[at..].starts_with(&bytes), "{message:?}");
        at += bytes.len();
    }
    whole
}

fn all<'a, T: BorshDeserialize>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<T> {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for piece in pieces {
        frames.feed(piece);
        loop {
            match frames.take::<T>() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

/// Decodes the payload of a request that carries a plan.
fn payload(verb: &Verb) {
    match verb {
        Verb::StartPause { plan, .. } => drop(borsh::from_slice::<hull_init::PausePlan>(plan)),
        Verb::StartContainer { plan, .. } => drop(borsh::from_slice::<hull_init::Plan>(plan)),
        Verb::Exec { process, .. } => drop(borsh::from_slice::<hull_init::Process>(process)),
        Verb::Hello { .. }
        | Verb::Signal { .. }
        | Verb::Update { .. }
        | Verb::ReopenLog { .. }
        | Verb::Forget { .. }
        | Verb::Shutdown
        | Verb::Attach { .. } => {}
    }
}
