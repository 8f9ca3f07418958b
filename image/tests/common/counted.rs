// SPDX-License-Identifier: Apache-2.0
//! A registry with one image that wants a token of its own token server, and counts its requests by object.

use super::{Answer, Asked, Fake, serves};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::{Compression, Layer};
use serde_json::json;
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Mutex;

/// The objects of an image that a registry is asked for, by a part of their paths.
pub(crate) const OBJECTS: [&str; 4] = ["/token", "/manifests/", "config", "layer"];

/// An image whose layer does not compress: it is as large as it looks.
pub(crate) fn packed() -> Packed {
    let noise: Vec<u8> =
        (0_u32..300_000).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut image = Image::new(Vec::new(), json!({}));
    image.layers = vec![(Layer::new().file("noise", 0o644, noise).tar(), Compression::Plain)];
    image.pack()
}

/// Which of [`OBJECTS`] a request is for.
pub(crate) fn object(asked: &Asked, packed: &Packed) -> &'static str {
    let path = &asked.path;
    match () {
        () if path.starts_with("/token") => OBJECTS[0],
        () if path.contains("/manifests/") => OBJECTS[1],
        () if path.contains(&packed.blobs[0].digest()) => OBJECTS[2],
        () => OBJECTS[3],
    }
}

/// How often an object was asked for.
pub(crate) fn count(fake: &Fake, packed: &Packed, of: &str) -> usize {
    fake.log().iter().filter(|asked| object(asked, packed) == of).count()
}

/// A registry that wants a token of its own token server, whose responses `change` may replace. `number` is how often
/// that object was asked for before.
pub(crate) fn registry(
    packed: &Packed,
    change: impl Fn(&Asked, &'static str, usize) -> Option<Answer> + Send + Sync + 'static,
) -> Fake {
    let (serve, packed) = (serves(packed, "a/b", "1"), packed.clone());
    let asked_for: Mutex<HashMap<&'static str, usize>> = Mutex::default();
    Fake::start(move |asked| {
        let of = object(asked, &packed);
        if of != OBJECTS[0] && asked.header("authorization") != "Bearer T" {
            let realm = "Bearer realm=\"/token?of=x\",service=\"tests\"";
            return Answer::of(401, "").with("www-authenticate", realm);
        }
        let number = {
            let mut counts = asked_for.lock().unwrap();
            let count = counts.entry(of).or_default();
            *count += 1;
            *count - 1
        };
        let usual =
            || if of == OBJECTS[0] { Answer::of(200, r#"{"token":"T"}"#) } else { serve(asked) };
        change(asked, of, number).unwrap_or_else(usual)
    })
}

/// The same bytes, compressed.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
