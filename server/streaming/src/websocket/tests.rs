// SPDX-License-Identifier: Apache-2.0
//! Tests: a session with a valid or invalid client over a pipe in memory.

use super::*;
use crate::session::TrackedIo;
use crate::terminal::{Sizes, TerminalResizer};
use proptest::prelude::*;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const REQUESTED: RequestedStreams =
    RequestedStreams { stdin: true, stdout: true, stderr: true, tty: false };
const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(5),
    silence_max: Duration::from_secs(20),
    blocked_max: Duration::from_secs(20),
};

/// A session with this subprotocol, and the client's end of the connection.
async fn session(
    name: &str,
    requested: RequestedStreams,
    keep_alive: KeepAlive,
) -> (Session, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(8 << 10);
    let io = TrackedIo::new(ours);
    let last_activity = (io.last_activity(), keep_alive);
    let never = std::future::pending();
    (open(io, Channels::of(name), requested, last_activity, never).await, theirs)
}

async fn client(io: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

async fn stream(session: &mut Session, name: &str) -> Stream {
    let stream = session.streams.recv().await.unwrap();
    assert_eq!(stream.headers["streamtype"], name);
    stream
}

fn binary(bytes: &[u8]) -> Message {
    Message::binary(bytes.to_vec())
}

/// The next message of a channel.
async fn next_message(client: &mut WebSocketStream<DuplexStream>) -> Message {
    loop {
        let message = client.next().await.unwrap().unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_input_ends_alone() {
    let (mut session, io) = session("v5.channel.k8s.io", REQUESTED, KEEP_ALIVE).await;
    let mut client = client(io).await;
    let mut stdin = stream(&mut session, "stdin").await;
    let stdout = stream(&mut session, "stdout").await;
    assert_eq!(next_message(&mut client).await, binary(&[1]), "the first message is empty");
    // Messages of unknown channels, or of the server's own, are ignored.
    for junk in [&[9, 1, 2][..], &[1, 7], &[4, 1], &[254], &[]] {
        client.send(binary(junk)).await.unwrap();
    }
    client.send(binary(b"\x00some")).await.unwrap();
    client.send(binary(b"\xff\x00")).await.unwrap();
    assert_eq!(stdin.input.next().await.unwrap(), "some");
    assert_eq!(stdin.input.next().await, None);
    stdout.output.write(Bytes::from_static(b"words")).await.unwrap();
    assert_eq!(next_message(&mut client).await, binary(b"\x01words"));
    let finish = session.finish();
    let closing = async {
        let Message::Close(Some(frame)) = next_message(&mut client).await else { panic!() };
        assert_eq!(frame.code, CloseCode::Normal);
        assert!(client.next().await.is_none());
    };
    tokio::join!(finish, closing);
}

#[tokio::test]
async fn text_clients_get_text() {
    let (mut session, io) = session("base64.channel.k8s.io", REQUESTED, KEEP_ALIVE).await;
    let mut client = client(io).await;
    let mut stdin = stream(&mut session, "stdin").await;
    let stdout = stream(&mut session, "stdout").await;
    assert_eq!(next_message(&mut client).await, Message::text("1"));
    client.send(Message::text("0Zm9vCgo=")).await.unwrap();
    assert_eq!(stdin.input.next().await.unwrap(), "foo\n\n");
    stdout.output.write(Bytes::from_static(b"\n")).await.unwrap();
    assert_eq!(next_message(&mut client).await, Message::text("1Cg=="));
}

/// The status code with which the server closes after the client has sent these bytes.
async fn close_code_after(sent: &[u8]) -> u16 {
    let (mut session, mut io) = session("v5.channel.k8s.io", REQUESTED, KEEP_ALIVE).await;
    // The server may close before it has read all of it.
    let _closed = io.write_all(sent).await;
    let mut client = client(io).await;
    let Message::Close(Some(frame)) = (loop {
        let message = next_message(&mut client).await;
        if message.is_close() {
            break message;
        }
    }) else {
        panic!("closed without a word")
    };
    drop(client);
    session.liveness.disconnected().await;
    frame.code.into()
}

/// A frame of a client with any content.
fn frame(first: u8, length: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => frame.push(0x80 | short),
        (_, Ok(long)) => {
            frame.push(0x80 | 126);
            frame.extend(long.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    // A mask of zeros leaves the bytes as they are.
    frame.extend([0; 4]);
    frame.extend(body);
    frame
}

#[tokio::test]
async fn a_protocol_violation_closes_with_a_status_code() {
    const BINARY: u8 = 0x82;
    let most = u64::try_from(MESSAGE_BYTES_MAX).unwrap();
    let unmasked = [BINARY, 2, 0, b'x'];
    assert_eq!(close_code_after(&unmasked).await, 1002);
    assert_eq!(
        close_code_after(&frame(BINARY | 0x40, 2, b"\0x")).await,
        1002,
        "a bit without a meaning"
    );
    assert_eq!(
        close_code_after(&frame(0x83, 2, b"\0x")).await,
        1002,
        "an opcode that there is not"
    );
    assert_eq!(close_code_after(&frame(0x80, 2, b"\0x")).await, 1002, "goes on with nothing");
    assert_eq!(close_code_after(&frame(0x89, 126, &[0; 126])).await, 1002, "a long ping");
    assert_eq!(
        close_code_after(&frame(BINARY, 1, b"\xff")).await,
        1002,
        "ends no channel in particular"
    );
    assert_eq!(close_code_after(&frame(0x81, 2, b"\0\xff")).await, 1007, "text that is none");
    // Refused by its head, before its body has arrived.
    assert_eq!(close_code_after(&frame(BINARY, most + 1, b"")).await, 1009);
    assert_eq!(close_code_after(&frame(BINARY, u64::MAX >> 1, b"")).await, 1009);
}

#[tokio::test]
async fn a_message_in_too_many_pieces_is_refused() {
    let (_session, mut io) = session("v5.channel.k8s.io", REQUESTED, KEEP_ALIVE).await;
    let piece = vec![0; 256 << 10];
    let length = u64::try_from(piece.len()).unwrap();
    // The message is never complete.
    io.write_all(&frame(0x02, length, &piece)).await.unwrap();
    for _ in 0..MESSAGE_BYTES_MAX / piece.len() {
        io.write_all(&frame(0x00, length, &piece)).await.unwrap();
    }
    let mut client = client(io).await;
    let closed = loop {
        let message = next_message(&mut client).await;
        if let Message::Close(Some(frame)) = message {
            break frame;
        }
    };
    assert_eq!(closed.code, CloseCode::Size);
}

#[tokio::test]
async fn a_client_gets_pings_and_pongs_while_its_input_waits() {
    let quick = KeepAlive { interval: Duration::from_millis(5), ..KEEP_ALIVE };
    let (mut session, io) = session("v5.channel.k8s.io", REQUESTED, quick).await;
    let mut client = client(io).await;
    let _stdin = stream(&mut session, "stdin").await;
    let (mut to, mut from) = (&mut client).split();
    // More than the queue holds, and it is not consumed.
    let full = async {
        loop {
            to.send(Message::binary(vec![0; CHUNK + 1])).await.unwrap();
        }
    };
    let mut pongs = 0;
    let pongs = async {
        while pongs < 20 {
            if matches!(from.next().await, Some(Ok(Message::Pong(_)))) {
                pongs += 1;
            }
        }
    };
    tokio::select! {
        () = full => {}
        () = pongs => {}
    }
    let mut liveness = session.liveness.clone();
    assert!(tokio::time::timeout(Duration::ZERO, liveness.disconnected()).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_answers_is_disconnected() {
    let quick = KeepAlive {
        interval: Duration::from_millis(10),
        silence_max: Duration::from_millis(200),
        blocked_max: Duration::from_millis(300),
    };
    // One client reads, the other does not.
    for takes in [true, false] {
        let (mut session, mut io) = session("v5.channel.k8s.io", REQUESTED, quick).await;
        let stdin = stream(&mut session, "stdin").await;
        let stdout = stream(&mut session, "stdout").await;
        let writes = async { while stdout.output.write(vec![0; CHUNK].into()).await.is_ok() {} };
        let reads = async {
            let mut away = vec![0; CHUNK];
            while takes && io.read(&mut away).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut liveness = session.liveness.clone();
        tokio::select! {
            () = writes => panic!("nobody ended it"),
            () = reads => {}
            () = liveness.disconnected() => {}
        }
        drop(stdin);
    }
}

#[tokio::test]
async fn invalid_sizes_change_nothing() {
    let requested = RequestedStreams { tty: true, ..REQUESTED };
    let (mut session, io) = session("v5.channel.k8s.io", requested, KEEP_ALIVE).await;
    let mut client = client(io).await;
    let _stdin = stream(&mut session, "stdin").await;
    let _stdout = stream(&mut session, "stdout").await;
    let resize = stream(&mut session, "resize").await;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    let resizer = TerminalResizer::new(master);
    let junk = [
        "\x04{\"Width\":70000,\"Height\":1}".to_owned(),
        format!("\x04{}", "[".repeat(100)),
        format!("\x04{}", "x".repeat(100_000)),
        "\x04{\"Width\":80,\"Height\":24}".to_owned(),
    ];
    let send = async {
        for junk in junk {
            client.send(binary(junk.as_bytes())).await.unwrap();
        }
    };
    // Decoding stops after a number of bytes without a size, so this ends by itself.
    tokio::join!(send, resizer.apply_all(Sizes::new(resize.input)));
    let size = rustix::termios::tcgetwinsize(&slave).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (0, 0));
}

/// Mostly valid frames with any content, so that random bytes follow after the first byte.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let any_frame = (any::<u8>(), proptest::option::of(any::<u64>()), any::<Vec<u8>>());
    let any_frame = any_frame.prop_map(|(first, length, body)| {
        let right = u64::try_from(body.len()).unwrap_or(0);
        frame(first & 0x8f, length.unwrap_or(right), &body)
    });
    proptest::collection::vec(any_frame, 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// For any bytes: the session and the input of every stream end when the client disconnects.
    #[test]
    fn a_session_ends_with_its_client(noise in prop_oneof![frames(), any::<Vec<u8>>()], base64: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let name = if base64 { "base64.channel.k8s.io" } else { "v5.channel.k8s.io" };
        let ended = runtime.block_on(async {
            let requested = RequestedStreams { tty: true, ..REQUESTED };
            let (mut session, mut io) = session(name, requested, KEEP_ALIVE).await;
            let mut stdin = stream(&mut session, "stdin").await;
            let take = async { while stdin.input.next().await.is_some() {} };
            let send = async {
                let _closed = io.write_all(&noise).await;
                drop(io);
            };
            let mut liveness = session.liveness.clone();
            let all = async { tokio::join!(take, send, liveness.disconnected()) };
            tokio::time::timeout(Duration::from_secs(10), all).await.is_ok()
        });
        prop_assert!(ended);
    }

    /// A tunnel does not change the bytes of SPDY, for any sizes of messages.
    #[test]
    fn a_tunnel_changes_no_byte(messages in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sent, back) = runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(4096);
            let (inner, carry) = tunnel::through(ours).await;
            let mut client = client(theirs).await;
            let (mut from, mut to) = tokio::io::split(inner);
            let echo = tokio::io::copy(&mut from, &mut to);
            let sent = messages.concat();
            let (mut to, mut from) = (&mut client).split();
            let send = async {
                for message in messages {
                    to.send(Message::binary(message)).await.unwrap();
                }
            };
            let mut back = Vec::new();
            let receive = async {
                while back.len() < sent.len() {
                    back.extend_from_slice(&from.next().await.unwrap().unwrap().into_data());
                }
            };
            tokio::select! {
                _ = async { tokio::join!(carry, echo) } => {}
                _ = async { tokio::join!(send, receive) } => {}
            }
            (sent, back)
        });
        prop_assert_eq!(sent, back);
    }
}
