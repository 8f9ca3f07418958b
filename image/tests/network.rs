// SPDX-License-Identifier: Apache-2.0
//! Registries that fail or stall, and the bounds that hold then.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Asked, Fake, TestStore, can_run, serves, tls, told};
use hull_image::{Auth, ErrorKind, Reference, Registry};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::{Compression, Layer};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn packed() -> Packed {
    // Does not compress: the layer is as large as it looks.
    let noise: Vec<u8> =
        (0_u32..300_000).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut image = Image::new(Vec::new(), json!({}));
    image.layers = vec![(Layer::new().file("noise", 0o644, noise).tar(), Compression::Plain)];
    image.pack()
}

fn is_layer(asked: &Asked, packed: &Packed) -> bool {
    asked.path.contains(&packed.blobs[1].digest())
}

fn ranged(asked: &Asked, answer: Answer) -> Answer {
    let start = asked
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.trim_end_matches('-').parse().ok());
    let Some(start) = start else { return answer };
    let start: usize = start;
    let range = format!("bytes {start}-{}/{}", answer.body.len() - 1, answer.body.len());
    Answer { status: 206, body: answer.body[start..].to_vec(), ..answer }
        .with("Content-Range", range)
}

#[tokio::test]
async fn a_layer_is_resumed_where_the_connection_broke() {
    if !can_run("a_layer_is_resumed_where_the_connection_broke") {
        return;
    }
    for knows_ranges in [true, false] {
        let packed = packed();
        let (serve, of) = (serves(&packed, "a/b", "1"), packed.clone());
        let times = AtomicUsize::new(0);
        let fake = Fake::start(move |asked| {
            let answer = serve(asked);
            if !is_layer(asked, &of) {
                return answer;
            }
            let answer = if knows_ranges { ranged(asked, answer) } else { answer };
            let cut = 100_000 * (1 + if knows_ranges { 0 } else { times.load(Ordering::SeqCst) });
            let is_cut = times.fetch_add(1, Ordering::SeqCst) < 2;
            Answer { cut_after: is_cut.then_some(cut), ..answer }
        });
        let store = TestStore::new();
        store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap();
        let log = fake.log();
        let ranges: Vec<&str> =
            log.iter().filter(|of| is_layer(of, &packed)).map(|of| of.header("range")).collect();
        assert_eq!((ranges.len(), ranges[0]), (3, ""));
        // What the kernel had not given out when the connection broke is asked for again.
        let from = |range: &str| range[6..range.len() - 1].parse::<usize>().unwrap();
        assert!(from(ranges[1]) <= 100_000 && from(ranges[2]) > from(ranges[1]), "{ranges:?}");
    }
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_given_up_with_the_reason() {
    if !can_run("a_connection_that_always_breaks_is_given_up_with_the_reason") {
        return;
    }
    let packed = packed();
    let (serve, of) = (serves(&packed, "a/b", "1"), packed.clone());
    let fake = Fake::start(move |asked| {
        let answer = serve(asked);
        Answer { cut_after: is_layer(asked, &of).then_some(0), ..answer }
    });
    let store = TestStore::new();
    let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unreachable, "{}", told(&err));
    assert_eq!(fake.log().iter().filter(|of| is_layer(of, &packed)).count(), 6);
    assert!(store.names("tmp").is_empty() && store.names("layers").is_empty());
}

#[tokio::test]
async fn who_asks_us_to_come_back_later_is_obeyed_a_few_times() {
    if !can_run("who_asks_us_to_come_back_later_is_obeyed_a_few_times") {
        return;
    }
    let serve = serves(&packed(), "a/b", "1");
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let fake = Fake::start(move |asked| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::of(429, "slow down").with("Retry-After", "0"),
        1 => Answer::of(503, "").with("Retry-After", "0"),
        _ => serve(asked),
    });
    let store = TestStore::new();
    store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap();
    let busy = Fake::start(|_| {
        Answer::of(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many"}]}"#)
            .with("Retry-After", "0")
    });
    let err = store.pull(&format!("{}/a/b:1", busy.host)).await.unwrap_err();
    assert!(told(&err).contains("HTTP 429") && told(&err).contains("too many"), "{}", told(&err));
    assert_eq!(busy.log().len(), 6);
}

/// A registry that wants tokens, and the server that gives them: by name and password, or for an
/// identity token. A token names its user, and is all that the registry looks at.
fn token_registry(packed: &Packed) -> Fake {
    let serve = serves(packed, "a/b", "1");
    let host: Arc<Mutex<String>> = Arc::default();
    let known = Arc::clone(&host);
    let fake = Fake::start(move |asked| {
        if asked.path.starts_with("/token") {
            let by_password = asked.method == "GET"
                && asked.path.contains("scope=repository%3Aa%2Fb%3Apull")
                && asked.header("authorization") == "Basic YWxpY2U6c2VjcmV0";
            let by_identity = asked.method == "POST"
                && asked.body.contains("refresh_token=identity-of-alice")
                && asked.body.contains("service=tests");
            return if by_password || by_identity {
                Answer::of(200, r#"{"access_token":"for-alice","expires_in":300}"#)
            } else {
                Answer::of(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#)
            };
        }
        if asked.header("authorization") == "Bearer for-alice"
            || asked.header("authorization") == "Bearer ready-made"
        {
            return serve(asked);
        }
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="tests",scope="repository:a/b:pull""#,
            known.lock().unwrap()
        );
        Answer::of(401, "").with("WWW-Authenticate", challenge)
    });
    *host.lock().unwrap() = fake.host.clone();
    fake
}

#[tokio::test]
async fn tokens_are_got_kept_and_never_lent() {
    if !can_run("tokens_are_got_kept_and_never_lent") {
        return;
    }
    let fake = token_registry(&packed());
    let reference = Reference::parse(&format!("{}/a/b:1", fake.host)).unwrap();
    let store = TestStore::new();
    let pull = async |auth: Option<&Auth>| store.store.pull(&reference, auth, None).await;
    let alice = Auth::from_parts("alice", "secret", "", "", "").unwrap();
    pull(Some(&alice)).await.unwrap();
    let asked = |path: &str| fake.log().iter().filter(|of| of.path.starts_with(path)).count();
    assert_eq!(asked("/token"), 1, "one token for manifest, config and layer");
    pull(Some(&alice)).await.unwrap();
    assert_eq!(asked("/token"), 1, "and for the next pull");
    let mallory = Auth::from_parts("mallory", "guess", "", "", "").unwrap();
    for auth in [None, Some(&mallory)] {
        let err = pull(auth).await.unwrap_err();
        let text = told(&err);
        assert_eq!(err.kind(), ErrorKind::Denied, "{text}");
        assert!(
            text.contains("who are you") && !text.contains("guess") && !text.contains("token?"),
            "{text}"
        );
    }
    pull(Some(&Auth::from_parts("", "", "", "identity-of-alice", "").unwrap())).await.unwrap();
    pull(Some(&Auth::from_parts("", "", "", "", "ready-made").unwrap())).await.unwrap();
    assert_eq!(asked("/token"), 4);
}

#[tokio::test]
async fn a_redirect_elsewhere_does_not_carry_credentials() {
    if !can_run("a_redirect_elsewhere_does_not_carry_credentials") {
        return;
    }
    let packed = packed();
    let storage = Fake::start(serves(&packed, "a/b", "1"));
    let (serve, of, elsewhere) =
        (serves(&packed, "a/b", "1"), packed.clone(), storage.host.clone());
    let fake = Fake::start(move |asked| {
        if asked.header("authorization").is_empty() {
            return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if is_layer(asked, &of) {
            let to = format!("http://{elsewhere}{}?signature=secret-query", asked.path);
            return Answer::of(307, "").with("Location", to);
        }
        serve(asked)
    });
    let store = TestStore::new();
    let reference = Reference::parse(&format!("{}/a/b:1", fake.host)).unwrap();
    let auth = Auth::from_parts("alice", "secret", "", "", "").unwrap();
    store.store.pull(&reference, Some(&auth), None).await.unwrap();
    let log = storage.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].header("authorization"), "");

    drop(storage);
    let store = TestStore::new();
    let err = store.store.pull(&reference, Some(&auth), None).await.unwrap_err();
    assert!(!told(&err).contains("secret"), "the query of an address is in {}", told(&err));
}

#[tokio::test]
async fn addresses_in_a_manifest_are_not_followed() {
    if !can_run("addresses_in_a_manifest_are_not_followed") {
        return;
    }
    let mut packed = packed();
    let trap = Fake::start(|_| Answer::of(200, "gotcha"));
    let mut manifest: serde_json::Value = serde_json::from_slice(&packed.manifest.bytes).unwrap();
    manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", trap.host)]);
    packed.manifest.bytes = manifest.to_string().into_bytes();
    let fake = Fake::start(serves(&packed, "a/b", "1"));
    TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap();
    assert!(trap.log().is_empty());
}

#[tokio::test]
async fn documents_that_are_too_large_or_other_than_announced_are_refused() {
    let packed = packed();
    let fake = Fake::start(|_| Answer::of(200, vec![b' '; (4 << 20) + 1]));
    let store = TestStore::new();
    let err = store.pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    assert!(told(&err).contains("larger than"), "{}", told(&err));
    let fake = Fake::start(serves(&packed, "a/b", "1"));
    let digest = hull_tests::image::digest(b"another");
    let manifest = packed.manifest.clone();
    let liar = Fake::start(move |_| Answer::of(200, manifest.bytes.clone()));
    let err = store.pull(&format!("{}/a/b@{digest}", liar.host)).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Corrupt, "{}", told(&err));
    let err = store.pull(&format!("{}/a/b@{digest}", fake.host)).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound, "{}", told(&err));
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_without_credentials_and_may_fail() {
    if !can_run("a_mirror_is_asked_first_and_without_credentials_and_may_fail") {
        return;
    }
    let packed = packed();
    let mirror = Fake::start(serves(&packed, "a/b", "1"));
    let origin = Fake::start(serves(&packed, "a/b", "2"));
    let settings = |host: &str, mirrors: &[&Fake]| Registry {
        host: host.into(),
        mirrors: mirrors.iter().map(|of| format!("http://{}", of.host)).collect(),
        ..Default::default()
    };
    let store = TestStore::with(vec![
        settings("registry.k8s.io", &[&mirror]),
        settings(&origin.host, &[&mirror]),
    ]);
    let auth = Auth::from_parts("alice", "secret", "", "", "").unwrap();
    let reference = Reference::parse("registry.k8s.io/a/b:1").unwrap();
    let image = store.store.pull(&reference, Some(&auth), None).await.unwrap();
    assert_eq!(image.repo_tags, ["registry.k8s.io/a/b:1"]);
    assert!(mirror.log().iter().all(
        |of| of.path.ends_with("?ns=registry.k8s.io") && of.header("authorization").is_empty()
    ));
    store.pull(&format!("{}/a/b:2", origin.host)).await.unwrap();
    assert!(origin.log().iter().any(|of| of.path == "/v2/a/b/manifests/2"));
}

#[tokio::test]
async fn tls_is_checked_and_each_failure_has_its_hint() {
    if !can_run("tls_is_checked_and_each_failure_has_its_hint") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let packed = packed();
    let secure = Fake::start_tls(tls(dir.path()), serves(&packed, "a/b", "1"));
    let plain = hull_tests::registry::Registry::start();
    let closing = Fake::start(serves(&packed, "a/b", "1"));
    let ca_file = Some(dir.path().join("ca.pem"));
    let settings = |host: &str| Registry { host: host.into(), ..Default::default() };
    let trusting =
        TestStore::with(vec![Registry { ca_file: ca_file.clone(), ..settings(&secure.host) }]);
    trusting.pull(&format!("{}/a/b:1", secure.host)).await.unwrap();
    let careless = TestStore::with(vec![Registry { skip_verify: true, ..settings(&secure.host) }]);
    careless.pull(&format!("{}/a/b:1", secure.host)).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    drop(tls(other.path()));
    let strict = TestStore::with(vec![
        Registry { ca_file: Some(other.path().join("ca.pem")), ..settings(&secure.host) },
        Registry { ca_file: ca_file.clone(), ..settings(&plain.host) },
        Registry { ca_file, ..settings(&closing.host) },
    ]);
    let err = strict.pull(&format!("{}/a/b:1", secure.host)).await.unwrap_err();
    assert!(told(&err).contains("not trusted") && told(&err).contains("ca_file"), "{}", told(&err));
    let err = strict.pull(&format!("{}/a/b:1", plain.host)).await.unwrap_err();
    assert!(told(&err).contains("plain_http = true"), "{}", told(&err));
    let err = strict.pull(&format!("{}/a/b:1", closing.host)).await.unwrap_err();
    assert!(told(&err).contains("TLS failed"), "{}", told(&err));
    let err = TestStore::new().pull(&format!("{}/a/b:1", secure.host)).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unreachable, "plain HTTP to a TLS port: {}", told(&err));
}
