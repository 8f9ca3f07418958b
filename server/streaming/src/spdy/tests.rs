// SPDX-License-Identifier: Apache-2.0
//! A whole session with a client over a pipe in memory, well-behaved or not.

use super::*;
use crate::session::Watched;
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::DuplexStream;

const PATIENCE: Patience = Patience {
    beat: Duration::from_secs(5),
    silent: Duration::from_secs(20),
    full: Duration::from_secs(20),
};

fn session(patience: Patience) -> (Session, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(8 << 10);
    let io = Watched::new(ours);
    let pulse = (io.pulse(), patience);
    (open(io, pulse, std::future::pending()), theirs)
}

/// A frame as a client sends it: SYN_STREAM (1) and what it has besides.
fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x80, 3, 0, kind, 0, length[1], length[2], length[3]], body].concat()
}

fn opens(headers: &mut headers::Writer, stream: u32, kind: &str) -> Vec<u8> {
    let block = headers.write(&[("streamtype", kind)]).unwrap();
    control(1, &[&stream.to_be_bytes()[..], &[0; 6], &block].concat())
}

#[tokio::test]
async fn a_client_is_asked_and_its_answer_is_heard() {
    let beat = Duration::from_millis(10);
    let silent = Duration::from_millis(500);
    let (mut session, mut io) = session(Patience { beat, silent, full: silent });
    let answers = async {
        let mut last = 0;
        // Longer than the patience would last without an answer.
        let began = std::time::Instant::now();
        while began.elapsed() < silent * 2 {
            let mut ping = [0; 12];
            io.read_exact(&mut ping).await.unwrap();
            let id = u32::from_be_bytes([ping[8], ping[9], ping[10], ping[11]]);
            assert_eq!((ping[3], id % 2, id > last), (6, 0, true), "{ping:?}");
            last = id;
            io.write_all(&ping).await.unwrap();
        }
    };
    tokio::select! {
        () = answers => {}
        () = session.alive.gone() => panic!("it answered"),
    }
    // From here on it says nothing.
    session.alive.gone().await;
}

/// Mostly frames that are well-formed, so that noise gets past the first head.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        (0..12_u8, any::<Vec<u8>>()).prop_map(|(kind, body)| control(kind, &body)),
        (1..8_u32, any::<bool>(), any::<Vec<u8>>()).prop_map(|(stream, fin, body)| {
            [&frame::data_head(stream, fin, body.len())[..], &body].concat()
        }),
        (1..8_u32, any::<u32>()).prop_map(|(stream, bytes)| frame::credit(stream, bytes)),
        (1..8_u32).prop_map(|stream| frame::reset(stream, 5)),
    ];
    proptest::collection::vec(one, 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever a client sends behind its first streams: the session ends when it goes, and so does
    /// the input of every stream.
    #[test]
    fn noise_ends_with_its_client(noise in prop_oneof![frames(), any::<Vec<u8>>()]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            let (mut session, mut io) = session(PATIENCE);
            let mut headers = headers::Writer::new().unwrap();
            let begin = [opens(&mut headers, 1, "stdin"), opens(&mut headers, 3, "error")].concat();
            let mut alive = session.alive.clone();
            let take = async {
                let mut inputs = tokio::task::JoinSet::new();
                while let Some(mut stream) = session.streams.recv().await {
                    inputs.spawn(async move {
                        while stream.input.next().await.is_some() {}
                    });
                }
                inputs.join_all().await;
            };
            let send = async {
                io.write_all(&begin).await.unwrap();
                let _closed = io.write_all(&noise).await;
                drop(io);
            };
            let all = async { tokio::join!(take, send, alive.gone()) };
            tokio::time::timeout(Duration::from_secs(10), all).await.is_ok()
        });
        prop_assert!(ended);
    }
}
