// SPDX-License-Identifier: Apache-2.0
//! Frames between daemon and monitor, of which one may be older or newer than the other: the result does not depend
//! on how they are cut, and every message encodes to the bytes that it was read from.

use crate::input::Input;
use borsh::{BorshDeserialize, BorshSerialize};
use hull_proto::monitor::frame::FrameDecoder;
use hull_proto::monitor::{Command, Message, Request};
use std::fmt::Debug;

/// Runs one case: the first byte says which side's frames these are, the second where they are cut.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (side, cut) = (input.byte(), usize::from(input.byte()) + 1);
    if side % 2 == 0 {
        for request in taken::<Request>(input.0, cut) {
            payload(&request.command);
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
    let (mut frames, mut found) = (FrameDecoder::default(), Vec::new());
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
fn payload(command: &Command) {
    match command {
        Command::StartPause { plan, .. } => drop(borsh::from_slice::<hull_init::PausePlan>(plan)),
        Command::StartContainer { plan, .. } => drop(borsh::from_slice::<hull_init::Plan>(plan)),
        Command::StartWithHooks { plan, hooks, .. } => {
            drop(borsh::from_slice::<hull_init::Plan>(plan));
            drop(borsh::from_slice::<hull_init::Hooks>(hooks));
        }
        Command::StartWithLogging { plan, hooks, .. } => {
            drop(borsh::from_slice::<hull_init::Plan>(plan));
            drop(hooks.as_deref().map(borsh::from_slice::<hull_init::Hooks>));
        }
        Command::StartWithClasses { plan, hooks, limits, .. } => {
            drop(borsh::from_slice::<hull_init::Plan>(plan));
            drop(hooks.as_deref().map(borsh::from_slice::<hull_init::Hooks>));
            drop(borsh::from_slice::<hull_cgroup::FurtherLimits>(limits));
        }
        Command::Exec { process, .. } => drop(borsh::from_slice::<hull_init::Process>(process)),
        Command::Hello { .. }
        | Command::Signal { .. }
        | Command::Update { .. }
        | Command::ReopenLog { .. }
        | Command::Delete { .. }
        | Command::Shutdown
        | Command::Attach { .. }
        | Command::LastOutput { .. } => {}
    }
}
