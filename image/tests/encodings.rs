// SPDX-License-Identifier: Apache-2.0
//! Responses that a proxy in between has compressed, although nobody asked for that.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::counted::{OBJECTS, count, gzip, registry};
use common::{Answer, Fake, TestStore, can_run, serves, told};
use hull_image::Registry;
use hull_tests::image::{Image, Packed};
use hull_tests::layer::{Compression, Layer};
use serde_json::json;

/// An image with a layer that is not compressed by itself, and large enough to be cut.
fn plain() -> Packed {
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let layer = Layer::new().file("numbers", 0o644, text);
    let mut image = Image::new(Vec::new(), json!({}));
    image.layers.push((layer.tar(), Compression::Plain));
    image.pack()
}

#[tokio::test]
async fn what_is_compressed_on_the_way_is_what_it_was() {
    if !can_run("what_is_compressed_on_the_way_is_what_it_was") {
        return;
    }
    let of_gzip = Image::new(vec![Layer::new().file("x", 0o644, "x").tar()], json!({})).pack();
    for packed in [of_gzip, plain()] {
        for header in ["gzip", "X-Gzip", "identity, gzip", "identity"] {
            let serve = serves(&packed, "a/b", "1");
            let fake = Fake::start(move |asked| {
                assert_eq!(asked.header("accept-encoding"), "identity");
                let of = serve(asked);
                let is_gzip = header != "identity" && of.status == 200;
                let body = if is_gzip { gzip(&of.body) } else { of.body.clone() };
                Answer { body, ..of }.with("Content-Encoding", header)
            });
            let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
            let image = pulled.unwrap_or_else(|err| panic!("{header}: {}", told(&err)));
            assert_eq!(image.id, packed.id());
        }
    }
}

/// Where a compressed body was cut is not where the layer continues.
#[tokio::test]
async fn a_compressed_layer_that_is_cut_is_requested_whole() {
    if !can_run("a_compressed_layer_that_is_cut_is_requested_whole") {
        return;
    }
    let packed = plain();
    let bytes = packed.blobs[1].bytes.clone();
    let fake = registry(&packed, move |asked, is, number| {
        let body = gzip(&bytes);
        let range = asked.header("range").to_owned();
        let answer = Answer::of(200, body.clone()).with("Content-Encoding", "gzip");
        match range.strip_prefix("bytes=").and_then(|of| of.trim_end_matches('-').parse().ok()) {
            _ if is != "layer" => None,
            // A part of the compressed bytes, at a place of the others.
            Some(start) if body.get(start).is_some() => {
                let all = body.len();
                let part = Answer { status: 206, body: body[start..].to_vec(), ..answer };
                Some(part.with("Content-Range", format!("bytes {start}-{}/{all}", all - 1)))
            }
            Some(_) => Some(Answer::of(416, "")),
            None if number < 3 => Some(Answer { cut_after: Some(body.len() / 2), ..answer }),
            None => Some(answer),
        }
    });
    let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
    pulled.unwrap_or_else(|err| panic!("{}", told(&err)));
    assert!(count(&fake, &packed, "layer") >= 3);
}

#[tokio::test]
async fn an_encoding_that_is_not_known_is_named_and_a_mirror_with_it_is_passed_over() {
    if !can_run("an_encoding_that_is_not_known_is_named_and_a_mirror_with_it_is_passed_over") {
        return;
    }
    let packed = plain();
    for of in OBJECTS.into_iter().filter(|of| *of != "/token") {
        let odd = move |_: &common::Asked, is: &'static str, _: usize| {
            (is == of).then(|| Answer::of(200, "odd").with("Content-Encoding", "br"))
        };
        let fake = registry(&packed, odd);
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        assert!(told(&err).contains("Content-Encoding is `br`"), "{of}: {}", told(&err));
        let (mirror, whole) = (registry(&packed, odd), Fake::start(serves(&packed, "a/b", "1")));
        let mirrors = vec![format!("http://{}", mirror.host)];
        let settings = Registry { host: whole.host.clone(), mirrors, ..Default::default() };
        let pulled = TestStore::with(vec![settings]).pull(&format!("{}/a/b:1", whole.host)).await;
        pulled.unwrap_or_else(|err| panic!("{of}: {}", told(&err)));
    }
}

/// A body in chunks has no length, so its header may tell of the transfer or of the layer.
#[tokio::test]
async fn an_encoded_layer_in_chunks_is_what_it_was() {
    if !can_run("an_encoded_layer_in_chunks_is_what_it_was") {
        return;
    }
    let of_gzip = Image::new(vec![Layer::new().file("x", 0o644, "x").tar()], json!({})).pack();
    for packed in [of_gzip, plain()] {
        let is_gzip = packed.blobs[1].media_type.contains("gzip");
        let bytes = packed.blobs[1].bytes.clone();
        for (what, body) in [("as it is", bytes.clone()), ("compressed", gzip(&bytes))] {
            if what == "as it is" && !is_gzip {
                continue;
            }
            for is_cut in [false, true] {
                let body = body.clone();
                let fake = registry(&packed, move |_, is, number| {
                    let cut_after = (is_cut && number == 0).then_some(body.len() / 2);
                    let of =
                        Answer { cut_after, chunks_of: Some(700), ..Answer::of(200, body.clone()) };
                    (is == "layer").then(|| of.with("Content-Encoding", "gzip"))
                });
                let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
                let image = pulled.unwrap_or_else(|err| panic!("{what} {is_cut}: {}", told(&err)));
                assert_eq!(image.id, packed.id(), "{what} {is_cut}");
            }
        }
    }
}

/// A part that a storage calls encoded is one of the layer, if it says so by the size of the whole.
#[tokio::test]
async fn a_part_of_a_layer_that_is_called_encoded_continues_it() {
    if !can_run("a_part_of_a_layer_that_is_called_encoded_continues_it") {
        return;
    }
    let noise: String =
        (0..50_000_u32).map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9))).collect();
    let layer = Layer::new().file("noise", 0o644, noise).tar();
    let packed = Image::new(vec![layer], json!({})).pack();
    let bytes = packed.blobs[1].bytes.clone();
    let fake = registry(&packed, move |asked, is, number| {
        let range = asked.header("range").to_owned();
        let start =
            range.strip_prefix("bytes=").and_then(|of| of.trim_end_matches('-').parse().ok());
        let (start, all) = (start.unwrap_or(0), bytes.len());
        let cut_after = (number == 0).then_some(all / 2);
        let status = if start > 0 { 206 } else { 200 };
        let answer = Answer { status, cut_after, ..Answer::of(200, &bytes[start..]) };
        let answer = if start == 0 {
            answer
        } else {
            answer.with("Content-Range", format!("bytes {start}-{}/{all}", all - 1))
        };
        (is == "layer").then(|| answer.with("Content-Encoding", "gzip"))
    });
    let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
    pulled.unwrap_or_else(|err| panic!("{}", told(&err)));
    assert_eq!(count(&fake, &packed, "layer"), 2, "the second request is for the rest");
}

/// Size and digest are those of the layer, whatever the transfer was.
#[tokio::test]
async fn an_encoded_layer_that_is_not_the_one_named_is_refused() {
    if !can_run("an_encoded_layer_that_is_not_the_one_named_is_refused") {
        return;
    }
    let packed = plain();
    let bytes = packed.blobs[1].bytes.clone();
    let mut altered = bytes.clone();
    altered[600] ^= 1;
    let longer = [bytes.as_slice(), &[0; 512]].concat();
    // Gzip of nothing, again and again: its output never ends the layer.
    let nothing = gzip(b"").repeat(400_000);
    for (what, body, words) in [
        ("altered", gzip(&altered), "should have digest"),
        ("longer", gzip(&longer), "bytes but has more than"),
        ("shorter", gzip(&bytes[..bytes.len() - 512]), "of 1"),
        ("a bomb", gzip(&vec![0; 100 << 20]), "bytes but has more than"),
        ("nothing", nothing, "is larger than"),
        ("not gzip", b"something else".to_vec(), "not gzip"),
    ] {
        for chunks_of in [Some(60_000), None] {
            let body = body.clone();
            let fake = registry(&packed, move |_, is, _| {
                let of = Answer { chunks_of, ..Answer::of(200, body.clone()) };
                (is == "layer").then(|| of.with("Content-Encoding", "gzip"))
            });
            let store = TestStore::new();
            let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
            assert!(told(&err).contains(words), "{what} {chunks_of:?}: {}", told(&err));
            assert!(store.names("layers").is_empty() && store.names("tmp").is_empty(), "{what}");
        }
    }
}
