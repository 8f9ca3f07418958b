// SPDX-License-Identifier: Apache-2.0
//! Lists sent in parts: for nodes whose list would not fit into one message.
//!
//! The rule: the list is taken at one moment and each of its items is sent once. A reader that is
//! slow holds nothing but its own list.

use futures_util::stream;
use tonic::codegen::BoxStream;
use tonic::{Response, Status};

/// Items of one message. Of the largest, an image or a container with many labels, this many stay
/// well below the 4 MiB that a gRPC client takes unless told otherwise.
const BATCH: usize = 100;

/// Sends `items` in messages made by `wrap`. Nothing to send is a stream without a message.
pub(super) fn batched<T, M>(items: Vec<T>, wrap: fn(Vec<T>) -> M) -> Response<BoxStream<M>>
where
    T: Send + 'static,
    M: Send + 'static,
{
    let messages = stream::unfold(items.into_iter(), move |mut items| async move {
        let batch: Vec<T> = items.by_ref().take(BATCH).collect();
        (!batch.is_empty()).then(|| (Ok::<M, Status>(wrap(batch)), items))
    });
    Response::new(Box::pin(messages))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;
    use futures_util::StreamExt as _;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_item_is_sent_once_and_in_order(count in 0_usize..5 * BATCH) {
            let items: Vec<usize> = (0..count).collect();
            let sent = batched(items.clone(), |batch| batch).into_inner();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let batches: Vec<_> = runtime.block_on(sent.map(Result::unwrap).collect());
            prop_assert!(batches.iter().all(|batch| (1..=BATCH).contains(&batch.len())));
            prop_assert_eq!(batches.concat(), items);
        }
    }
}
