// SPDX-License-Identifier: Apache-2.0
//! Tests: a session with a valid or invalid client over a pipe in memory.

use super::*;
use crate::session::TrackedIo;
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::DuplexStream;

const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(5),
    silence_max: Duration::from_secs(20),
    blocked_max: Duration::from_secs(20),
};

fn session(keep_alive: KeepAlive) -> (Session, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(8 << 10);
    let io = TrackedIo::new(ours);
    let last_activity = (io.last_activity(), keep_alive);
    (open(io, last_activity, std::future::pending()), theirs)
}

/// A control frame of a client, such as SYN_STREAM (1).
fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x80, 3, 0, kind, 0, length[1], length[2], length[3]], body].concat()
}

fn opens(headers: &mut headers::Writer, stream: u32, kind: &str) -> Vec<u8> {
    let block = headers.write(&[("streamtype", kind)]).unwrap();
    control(1, &[&stream.to_be_bytes()[..], &[0; 6], &block].concat())
}

#[tokio::test]
async fn a_client_gets_pings_and_its_answers_keep_it_alive() {
    let (interval, silence_max) = (Duration::from_millis(10), Duration::from_millis(500));
    let keep_alive = KeepAlive { interval, silence_max, blocked_max: silence_max };
    let (mut session, mut io) = session(keep_alive);
    let answers = async {
        let mut last = 0;
        // Longer than the limit of silence without an answer.
        let began = std::time::Instant::now();
        while began.elapsed() < silence_max * 2 {
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
        () = session.liveness.disconnected() => panic!("it answered"),
    }
    // From here on it sends nothing.
    session.liveness.disconnected().await;
}

/// Mostly valid frames, so that random bytes follow after the first head.
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

    /// For any bytes after the first streams: the session and the input of every stream end when the client
    /// disconnects.
    #[test]
    fn a_session_ends_with_its_client(noise in prop_oneof![frames(), any::<Vec<u8>>()]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            let (mut session, mut io) = session(KEEP_ALIVE);
            let mut headers = headers::Writer::new().unwrap();
            let begin = [opens(&mut headers, 1, "stdin"), opens(&mut headers, 3, "error")].concat();
            let mut liveness = session.liveness.clone();
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
            let all = async { tokio::join!(take, send, liveness.disconnected()) };
            tokio::time::timeout(Duration::from_secs(10), all).await.is_ok()
        });
        prop_assert!(ended);
    }
}
