// SPDX-License-Identifier: Apache-2.0
//! Mirrors that fail, or whose responses only look right, and errors that name every host.
//!
//! No test measures time: requests are counted, and a pause that must not happen would last an hour.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::counted::{count, gzip, object, packed, registry};
use common::{Answer, End, Fake, TestStore, can_run, serves, told};
use hull_image::{ErrorKind, Registry};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::Layer;
use serde_json::json;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn mirrored(registry: &Fake, mirrors: &[&Fake]) -> TestStore {
    let settings = Registry {
        host: registry.host.clone(),
        mirrors: mirrors.iter().map(|of| format!("http://{}", of.host)).collect(),
        ..Default::default()
    };
    // A pull that waits for a mirror does not end.
    TestStore::configured(|config| {
        config.remote.registries = vec![settings];
        config.remote.pause = HOUR;
    })
}

/// Responses of a mirror with status 200 that are none.
fn wrong_documents(other: &Packed) -> Vec<(&'static str, Answer)> {
    let chart = json!({"schemaVersion": 2, "layers": [], "config": {"size": 2,
        "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": hull_tests::image::digest(b"{}")}});
    let html = "<!DOCTYPE html><html>log in</html>";
    vec![
        ("a page", Answer::of(200, html).with("Content-Type", "text/html; charset=utf-8")),
        (
            "a page that says that it is a manifest",
            Answer::of(200, html)
                .with("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
        ),
        (
            "a page, compressed",
            Answer::of(200, gzip(html.as_bytes())).with("Content-Encoding", "gzip"),
        ),
        ("nothing", Answer::of(200, "")),
        ("no content", Answer::of(204, "")),
        ("spaces", Answer::of(200, "  \n")),
        ("an error", Answer::of(200, r#"{"errors":[{"code":"DENIED"}]}"#)),
        ("null", Answer::of(200, "null")),
        ("a list", Answer::of(200, "[]")),
        ("a chart", Answer::of(200, chart.to_string())),
        ("the first format", Answer::of(200, r#"{"schemaVersion":1,"fsLayers":[]}"#)),
        ("half of one", Answer::of(200, other.manifest.bytes[..20].to_vec())),
        ("not gzip", Answer::of(200, "{}").with("Content-Encoding", "gzip")),
        ("a redirect to nowhere", Answer::of(302, "")),
    ]
}

#[tokio::test]
async fn a_mirror_whose_answer_is_none_is_passed_over() {
    if !can_run("a_mirror_whose_answer_is_none_is_passed_over") {
        return;
    }
    let packed = packed();
    let other = Image::new(vec![Layer::new().file("x", 0o644, "x").tar()], json!({})).pack();
    let by_digest = packed.manifest.digest();
    for selector in [":1".to_owned(), format!("@{by_digest}")] {
        let mut answers = wrong_documents(&other);
        if selector.starts_with('@') {
            answers.push(("another manifest", Answer::of(200, other.manifest.bytes.clone())));
        }
        for of in ["/manifests/", "config", "layer"] {
            for (name, answer) in answers.clone() {
                let (is, serve) = (packed.clone(), serves(&packed, "a/b", "1"));
                let mirror = Fake::start(move |asked| {
                    if object(asked, &is) == of { answer.clone() } else { serve(asked) }
                });
                let registry = Fake::start(serves(&packed, "a/b", "1"));
                let store = mirrored(&registry, &[&mirror]);
                let pulled = store.pull(&format!("{}/a/b{selector}", registry.host)).await;
                pulled.unwrap_or_else(|err| panic!("{of} is {name}: {}", told(&err)));
                assert_eq!(count(&mirror, &packed, of), 1, "{of} is {name}");
                assert_eq!(count(&registry, &packed, of), 1, "{of} is {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_mirror_that_always_fails_costs_a_request_now_and_then() {
    if !can_run("a_mirror_that_always_fails_costs_a_request_now_and_then") {
        return;
    }
    let layers = (0..6).map(|number| Layer::new().file(&format!("{number}"), 0o644, "x").tar());
    let packed = Image::new(layers.collect(), json!({})).pack();
    let closed = Answer { ends: Some(End::Closed), ..Answer::default() };
    for failure in [
        Answer::of(502, ""),
        Answer::of(503, "").with("Retry-After", "30"),
        Answer::of(429, "").with("Retry-After", "3600"),
        Answer::of(500, "<html>"),
        closed,
    ] {
        let (answer, status) = (failure.clone(), failure.status);
        let (is, serve) = (packed.clone(), serves(&packed, "a/b", "1"));
        // Manifests are served, as by a cache whose storage is away.
        let mirror = Fake::start(move |asked| {
            if object(asked, &is) == "/manifests/" { serve(asked) } else { answer.clone() }
        });
        let registry = Fake::start(serves(&packed, "a/b", "1"));
        let store = mirrored(&registry, &[&mirror]);
        let name = format!("{}/a/b:1", registry.host);
        store.pull(&name).await.unwrap();
        assert_eq!(mirror.log().len(), 2, "{status}: the manifest, and the config once");
        assert_eq!(count(&registry, &packed, "layer"), 6);
        store.store.remove(&name, &|_| false).unwrap();
        store.pull(&name).await.unwrap();
        assert_eq!(mirror.log().len(), 2, "{status}: the next pull begins elsewhere");
    }
}

/// Without the registry a mirror is all there is, so its failure of a moment is waited for.
#[tokio::test]
async fn a_mirror_is_tried_again_when_the_registry_fails_too() {
    if !can_run("a_mirror_is_tried_again_when_the_registry_fails_too") {
        return;
    }
    let packed = packed();
    for of in ["/manifests/", "config", "layer"] {
        let mirror = registry(&packed, move |_, is, number| {
            (is == of && number == 0).then(|| Answer::of(503, "").with("Retry-After", "0"))
        });
        let gone = Registry {
            host: "127.0.0.1:1".into(),
            mirrors: vec![format!("http://{}", mirror.host)],
            ..Default::default()
        };
        let store = TestStore::with(vec![gone]);
        let pulled = store.pull("127.0.0.1:1/a/b:1").await;
        pulled.unwrap_or_else(|err| panic!("{of}: {}", told(&err)));
    }
}

#[tokio::test]
async fn where_all_fail_each_answer_is_told() {
    let packed = packed();
    let denies =
        Fake::start(|_| Answer::of(403, r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#));
    let page = Fake::start(|_| Answer::of(200, "<html>"));
    let empty = Fake::start(serves(&packed, "c/d", "1"));
    let store = mirrored(&empty, &[&denies, &page]);
    let err = store.pull(&format!("{}/a/b:1", empty.host)).await.unwrap_err();
    let text = told(&err);
    assert_eq!(err.kind(), ErrorKind::NotFound, "{text}");
    for part in [
        format!("{} does not have a/b:1", empty.host),
        format!("mirror {}: ", denies.host),
        "not you".into(),
        format!("mirror {}: ", page.host),
        "with an HTML page".into(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    // The registry is out of reach, as on a node without a way out: the mirror is what to look at.
    let gone = Registry {
        host: "127.0.0.1:1".into(),
        mirrors: vec![format!("http://{}", empty.host)],
        ..Default::default()
    };
    let err = TestStore::with(vec![gone]).pull("127.0.0.1:1/a/b:1").await.unwrap_err();
    let hint = err.hint().unwrap();
    assert!(hint.contains(&empty.host) && hint.contains("check repository and tag"), "{hint}");
}
