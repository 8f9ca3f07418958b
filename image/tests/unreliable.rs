// SPDX-License-Identifier: Apache-2.0
//! Registries and token servers that fail for a moment or for ever, and responses that are odd but good.
//!
//! No test measures time: requests are counted.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::counted::{OBJECTS, count, gzip, object, packed, registry};
use common::{Answer, Asked, End, Fake, TestStore, can_run, serves, told};
use hull_image::{ErrorKind, Registry};
use std::time::Duration;

/// Every status that may be another one a moment later.
const TRANSIENT: [u16; 11] = [408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524];

#[tokio::test]
async fn every_failure_of_a_moment_is_tried_again() {
    if !can_run("every_failure_of_a_moment_is_tried_again") {
        return;
    }
    let packed = packed();
    let mut failures: Vec<(String, Answer)> = TRANSIENT
        .iter()
        .map(|status| (status.to_string(), Answer::of(*status, "not now").with("retry-after", "0")))
        .collect();
    failures.push(("no Retry-After".into(), Answer::of(503, "<html>busy</html>")));
    let date = Answer::of(429, "").with("Date", "Tue, 29 Feb 2028 00:00:00 GMT");
    let date = date.with("Retry-After", "Tue, 29 Feb 2028 00:00:00 GMT");
    failures.push(("a date".into(), date));
    for end in [End::Closed, End::Reset] {
        failures.push((format!("{end:?}"), Answer { ends: Some(end), ..Answer::default() }));
    }
    let cut = Answer { cut_after: Some(10), ..Answer::of(200, "0123456789abcdef") };
    failures.push(("cut".into(), cut));
    for (name, failure) in &failures {
        for of in OBJECTS {
            // The layer's first bytes would be wrong.
            if name == "cut" && of == "layer" {
                continue;
            }
            let failure = failure.clone();
            let fake = registry(&packed, move |_, is, number| {
                (is == of && number < 2).then(|| failure.clone())
            });
            let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
            pulled.unwrap_or_else(|err| panic!("{of} failed with {name}: {}", told(&err)));
            // Each object is asked for once without a token, but not the token.
            assert!(count(&fake, &packed, of) >= 3, "{of} with {name}");
        }
    }
}

#[tokio::test]
async fn a_failure_that_stays_ends_the_pull_after_some_tries_and_names_the_object() {
    if !can_run("a_failure_that_stays_ends_the_pull_after_some_tries_and_names_the_object") {
        return;
    }
    let packed = packed();
    let closed = Answer { ends: Some(End::Closed), ..Answer::default() };
    for failure in [Answer::of(503, "later").with("Retry-After", "0"), closed] {
        for (of, name) in
            OBJECTS.into_iter().zip(["token", "a/b:1", "config sha256", "layer sha256"])
        {
            let failed = failure.clone();
            let fake = registry(&packed, move |_, is, _| (is == of).then(|| failed.clone()));
            let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
            assert_eq!(err.kind(), ErrorKind::Unreachable, "{}", told(&err));
            assert!(told(&err).contains(name) && told(&err).contains(&fake.host), "{}", told(&err));
            // It has answered by plain HTTP before.
            assert!(!told(&err).contains("TLS"), "{}", told(&err));
            let tries = count(&fake, &packed, of);
            assert!((6..=7).contains(&tries), "{tries} requests for {of}");
        }
    }
}

#[tokio::test]
async fn only_a_server_that_has_not_answered_by_plain_http_may_speak_tls() {
    if !can_run("only_a_server_that_has_not_answered_by_plain_http_may_speak_tls") {
        return;
    }
    let packed = packed();
    let closed = Answer { ends: Some(End::Closed), ..Answer::default() };
    let silent = closed.clone();
    let fake = Fake::start(move |_| silent.clone());
    let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    let text = told(&err);
    assert!(text.contains("broke before a response"), "{text}");
    assert!(text.contains("if it speaks TLS") && text.contains("ca_file"), "{text}");
    // A layer that breaks, before its head and in the middle of it.
    let cut = Answer { cut_after: Some(10), ..Answer::of(200, "0123456789abcdef") };
    for failure in [closed, cut] {
        let fake = registry(&packed, move |_, is, _| (is == "layer").then(|| failure.clone()));
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        let text = told(&err);
        assert!(text.contains(&fake.host) && !text.contains("TLS"), "{text}");
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_wait_too_long_ends_the_pull_at_once() {
    let packed = packed();
    for wait in ["3600", "99999999999999999999999", "18446744073709551615"] {
        let fake =
            registry(&packed, move |_, _, _| Some(Answer::of(429, "").with("Retry-After", wait)));
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        assert!(told(&err).contains("429") && told(&err).contains("wait"), "{}", told(&err));
        assert_eq!(count(&fake, &packed, "/token"), 1);
    }
}

/// The ways in which servers do not serve parts, seen with registries, storage services and CDNs.
fn ways_without_parts(body: &[u8], start: usize) -> Vec<(&'static str, Answer)> {
    let whole = body.len();
    let rest = || body[start..].to_vec();
    let xml = "<?xml version=\"1.0\"?><Error><Code>InvalidArgument</Code></Error>";
    let range = |text: String| Answer::of(206, rest()).with("Content-Range", text);
    let mut ways: Vec<(&'static str, Answer)> = [400, 403, 404, 405, 412, 416, 418, 500, 501, 503]
        .into_iter()
        .map(|status| ("a status", Answer::of(status, xml).with("Retry-After", "0")))
        .collect();
    ways.extend([
        ("no Content-Range", Answer::of(206, rest())),
        ("no Content-Range, the whole", Answer::of(206, body)),
        (
            "a later part",
            Answer::of(206, body[start + 10..].to_vec())
                .with("Content-Range", format!("bytes {}-{}/{whole}", start + 10, whole - 1)),
        ),
        ("another size", range(format!("bytes {start}-{}/{}", whole - 1, whole + 5))),
        ("another unit", range(format!("items {start}-{}/{whole}", whole - 1))),
        ("numbers too large", range("bytes 99999999999999999999-99999999999999999999/*".into())),
        ("several parts", Answer::of(206, "--x\r\n").with("Content-Type", "multipart/byteranges")),
        ("200 with the rest", Answer::of(200, rest())),
        (
            "200 with the rest and its range",
            Answer::of(200, rest())
                .with("Content-Range", format!("bytes {start}-{}/{whole}", whole - 1)),
        ),
        ("204", Answer::of(204, "")),
        ("200 with the whole", Answer::of(200, body)),
        // These serve parts.
        (
            "lower case, size unknown",
            Answer::of(206, rest()).with("content-range", format!("Bytes {start}-{}/*", whole - 1)),
        ),
        (
            "an earlier part",
            Answer::of(206, body[start - 5..].to_vec())
                .with("Content-Range", format!("bytes {}-{}/{whole}", start - 5, whole - 1)),
        ),
    ]);
    ways
}

#[tokio::test]
async fn a_part_that_is_refused_or_wrong_is_replaced_by_the_whole() {
    if !can_run("a_part_that_is_refused_or_wrong_is_replaced_by_the_whole") {
        return;
    }
    let packed = packed();
    let body = packed.blobs[1].bytes.clone();
    for number in 0..ways_without_parts(&body, 5).len() {
        let layer = body.clone();
        let fake = registry(&packed, move |asked, is, tries| {
            let start = asked.header("range").strip_prefix("bytes=");
            let start = start.map(|of| of.trim_end_matches('-').parse::<usize>().unwrap());
            match start {
                Some(start) => Some(ways_without_parts(&layer, start).remove(number).1),
                None if is == "layer" && tries == 0 => {
                    Some(Answer { cut_after: Some(100_000), ..Answer::of(200, layer.clone()) })
                }
                None => None,
            }
        });
        let (name, answer) = ways_without_parts(&body, 5).remove(number);
        let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
        pulled.unwrap_or_else(|err| panic!("{name}, {}: {}", answer.status, told(&err)));
        let parts = fake.log().iter().filter(|of| !of.header("range").is_empty()).count();
        assert_eq!(parts, 1, "{name}: a host that refuses a part is not asked for another");
        assert!(count(&fake, &packed, "layer") <= 4, "{name}");
    }
}

/// A registry that is restarted amid a layer accepts no connections for a while.
#[tokio::test]
async fn a_layer_survives_a_registry_that_is_restarted() {
    if !can_run("a_layer_survives_a_registry_that_is_restarted") {
        return;
    }
    let packed = packed();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (serve, is) = (serves(&packed, "a/b", "1"), packed.clone());
    let before = Fake::start_at(port, move |asked| {
        let answer = serve(asked);
        let cut_after = (object(asked, &is) == "layer").then_some(100_000);
        Answer { cut_after, ..answer }
    });
    let name = format!("{}/a/b:1", before.host);
    let store = TestStore::configured(|config| config.remote.pause = Duration::from_millis(300));
    let pull =
        tokio::spawn(async move { store.pull(&name).await.map(drop).map_err(|err| told(&err)) });
    hull_tests::eventually("the layer breaks off", || async {
        match count(&before, &packed, "layer") {
            0 => Err("it was not asked for".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    drop(before);
    let after = Fake::start_at(port, serves(&packed, "a/b", "1"));
    pull.await.unwrap().unwrap();
    assert!(!after.log().is_empty());
}

/// Also a TLS handshake that nobody answers.
#[tokio::test]
async fn a_registry_that_never_answers_ends_the_pull() {
    if !can_run("a_registry_that_never_answers_ends_the_pull") {
        return;
    }
    let packed = packed();
    let silent = Answer { is_silent: true, ..Answer::default() };
    for (of, most) in [("/token", 1), ("/manifests/", 2), ("config", 1), ("layer", 2)] {
        let answer = silent.clone();
        let fake = registry(&packed, move |_, is, _| (is == of).then(|| answer.clone()));
        let store = TestStore::configured(|config| {
            config.remote.stall = Duration::from_millis(300);
            config.remote.pause = Duration::from_millis(1);
        });
        let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        let text = told(&err);
        assert_eq!(err.kind(), ErrorKind::Unreachable, "{text}");
        assert!(text.contains("stalled") && text.contains("stall_s"), "{text}");
        assert!(count(&fake, &packed, of) <= most, "{of}: {}", count(&fake, &packed, of));
    }
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = deaf.local_addr().unwrap().to_string();
    let settings = Registry { host: host.clone(), skip_verify: true, ..Default::default() };
    let store = TestStore::configured(|config| {
        config.remote.registries = vec![settings];
        config.remote.stall = Duration::from_millis(300);
    });
    let err = store.pull(&format!("{host}/a/b:1")).await.unwrap_err();
    assert!(told(&err).contains("stalled") && told(&err).contains(&host), "{}", told(&err));
}

#[tokio::test]
async fn tokens_of_every_form_are_taken() {
    if !can_run("tokens_of_every_form_are_taken") {
        return;
    }
    let packed = packed();
    for token in [
        r#"{"token":"T","expires_in":18446744073709551615}"#,
        r#"{"token":"T","expires_in":99999999999999999999}"#,
        r#"{"token":"T","expires_in":1e999}"#,
        r#"{"token":"T","expires_in":-1}"#,
        r#"{"token":"T","expires_in":300.5,"issued_at":7}"#,
        r#"{"token":"T","expires_in":"300"}"#,
        r#"{"token":"T","expires_in":null,"issued_at":"never"}"#,
        r#"{"token":"","access_token":"T"}"#,
        r#"{"token":null,"access_token":"T"}"#,
    ] {
        let fake =
            registry(&packed, move |_, is, _| (is == "/token").then(|| Answer::of(200, token)));
        let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
        pulled.unwrap_or_else(|err| panic!("{token}: {}", told(&err)));
        assert_eq!(count(&fake, &packed, "/token"), 1, "{token}: it is kept");
    }
    let html = registry(&packed, |_, is, _| (is == "/token").then(|| Answer::of(403, "<html>")));
    let err = TestStore::new().pull(&format!("{}/a/b:1", html.host)).await.unwrap_err();
    assert!(
        told(&err).contains("HTML page") && !told(&err).contains("imagePullSecrets"),
        "{}",
        told(&err)
    );
}

/// A realm may be a path, or lack only the scheme.
#[tokio::test]
async fn a_token_server_may_be_named_by_a_path() {
    if !can_run("a_token_server_may_be_named_by_a_path") {
        return;
    }
    let packed = packed();
    let elsewhere = Fake::start(|_| Answer::of(200, r#"{"token":"T"}"#));
    let realms = ["/token", "../../../../token", &format!("//{}/token", elsewhere.host)];
    for realm in realms {
        let (serve, challenge) = (serves(&packed, "a/b", "1"), format!("Bearer realm=\"{realm}\""));
        let fake = Fake::start(move |asked| match asked.header("authorization") {
            _ if asked.path.starts_with("/token?") => Answer::of(200, r#"{"token":"T"}"#),
            "Bearer T" => serve(asked),
            _ => Answer::of(401, "").with("WWW-Authenticate", challenge.clone()),
        });
        let pulled = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await;
        pulled.unwrap_or_else(|err| panic!("{realm}: {}", told(&err)));
    }
    assert_eq!(elsewhere.log().len(), 1);
}

/// Odd but harmless: headers in lower case, parameters, no or wrong digests and lengths, compression, relative
/// addresses, and servers that do not know HEAD.
#[tokio::test]
async fn odd_headers_of_good_responses_do_not_matter() {
    if !can_run("odd_headers_of_good_responses_do_not_matter") {
        return;
    }
    let packed = packed();
    let digest = packed.manifest.digest();
    type Change = fn(Answer) -> Answer;
    let changes: [(&str, Change); 7] = [
        ("another digest", |of| {
            of.with("docker-content-digest", hull_tests::image::digest(b"other"))
        }),
        ("no digest", |of| of.with("docker-content-digest", "nonsense")),
        ("a type with parameters", |of| of.with("content-type", "application/json; charset=utf-8")),
        ("another type", |of| of.with("content-type", "text/plain")),
        ("compressed", |of| {
            let body = gzip(&of.body);
            Answer { body, ..of }.with("content-encoding", "GZIP")
        }),
        ("a length that is too large", |of| Answer { length: Some(of.body.len() + 7), ..of }),
        ("not compressed", |of| of.with("content-encoding", "gzip")),
    ];
    for (name, change) in changes {
        for of in ["/manifests/", "config", "layer"] {
            let (serve, is) = (serves(&packed, "a/b", "1"), packed.clone());
            let fake = Fake::start(move |asked| {
                if asked.method != "GET" {
                    return Answer::of(405, "");
                }
                let moved = asked.path.strip_prefix("/moved");
                if moved.is_none() && asked.path.contains("/blobs/") {
                    let to = asked.path.rsplit('/').next().unwrap();
                    return Answer::of(307, "")
                        .with("location", format!("../../../../moved/v2/a/b/blobs/{to}"));
                }
                let asked =
                    Asked { path: moved.unwrap_or(&asked.path).to_owned(), ..asked.clone() };
                let answer = serve(&asked);
                if object(&asked, &is) == of { change(answer) } else { answer }
            });
            let pulled = TestStore::new().pull(&format!("{}/a/b@{digest}", fake.host)).await;
            pulled.unwrap_or_else(|err| panic!("{of} with {name}: {}", told(&err)));
            assert!(fake.log().iter().all(|of| of.method == "GET"));
        }
    }
}

#[tokio::test]
async fn what_a_registry_lacks_decides_about_the_hint() {
    if !can_run("what_a_registry_lacks_decides_about_the_hint") {
        return;
    }
    let packed = packed();
    for (of, status, hint) in [
        ("/manifests/", 404, "check repository and tag"),
        ("config", 404, "push the image again"),
        ("layer", 404, "push the image again"),
        ("/token", 404, "as its token server"),
        ("layer", 429, "limits requests"),
        ("/manifests/", 503, "the proxy in front of it"),
    ] {
        let fake = registry(&packed, move |_, is, _| {
            (is == of).then(|| Answer::of(status, "").with("Retry-After", "0"))
        });
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        assert!(err.hint().unwrap().contains(hint), "{of} {status}: {}", told(&err));
    }
    // A 403 that no registry wrote may be of a gateway: credentials alone are not the answer.
    let errors = r#"{"errors":[{"code":"DENIED","message":"no access"}]}"#;
    for (status, body, kind, hint) in [
        (403, "<html>blocked</html>", ErrorKind::Unreachable, "a firewall"),
        (403, "blocked by policy 7", ErrorKind::Denied, "a proxy or firewall in front of"),
        (403, errors, ErrorKind::Denied, "it requires credentials"),
        (
            400,
            "<html>The plain HTTP request was sent to HTTPS port</html>",
            ErrorKind::Unreachable,
            "remove `plain_http = true`",
        ),
        (418, "", ErrorKind::Other, "check that 127.0.0.1"),
    ] {
        let fake = registry(&packed, move |_, is, _| {
            (is == "/manifests/").then(|| Answer::of(status, body))
        });
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        assert_eq!(err.kind(), kind, "{}", told(&err));
        assert!(err.hint().unwrap().contains(hint), "{}", told(&err));
    }
}

#[tokio::test]
async fn a_token_server_that_gives_no_token_is_named_with_its_port() {
    if !can_run("a_token_server_that_gives_no_token_is_named_with_its_port") {
        return;
    }
    let packed = packed();
    for (body, said) in
        [("<html>log in</html>", "HTML page"), ("nothing", "is not JSON"), ("{}", "has no token")]
    {
        let fake =
            registry(&packed, move |_, is, _| (is == "/token").then(|| Answer::of(200, body)));
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        let text = told(&err);
        assert!(text.contains(said) && text.contains(&fake.host), "{text}");
        assert!(!text.contains("imagePullSecrets") && !text.contains("username"), "{text}");
    }
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let realm = format!("Bearer realm=\"http://{gone}/token\"");
    let fake = Fake::start(move |_| Answer::of(401, "").with("www-authenticate", realm.clone()));
    let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    let text = told(&err);
    let role = format!("{gone} (the token server of {})", fake.host);
    assert!(text.contains(&role) && text.contains("does not accept connections"), "{text}");
}
