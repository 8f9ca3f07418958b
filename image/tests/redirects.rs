// SPDX-License-Identifier: Apache-2.0
//! Credentials go to the origin that was asked, whatever a redirect or a challenge says; and text of a
//! registry cannot forge messages.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Asked, Fake, TestStore, can_run, serves, tls, told};
use hull_image::{Auth, Reference, Registry};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::Layer;
use serde_json::json;
use std::sync::Arc;

/// Secrets that only the registry may see.
const PASSWORD: &str = "pass-of-alice";
const IDENTITY: &str = "identity-of-alice";

fn packed() -> Packed {
    Image::new(vec![Layer::new().file("one", 0o644, "one").tar()], json!({})).pack()
}

fn by_password() -> Auth {
    Auth::from_parts("alice", PASSWORD, "", "", "").unwrap()
}

fn by_identity() -> Auth {
    Auth::from_parts("", "", "", IDENTITY, "").unwrap()
}

/// Every way to show who one is.
fn accounts() -> [Auth; 3] {
    [by_password(), by_identity(), Auth::from_parts("", "", "", "", IDENTITY).unwrap()]
}

async fn pull(store: &TestStore, host: &str, auth: &Auth) -> Result<(), String> {
    let reference = Reference::parse(&format!("{host}/a/b:1")).unwrap();
    store.store.pull(&reference, Some(auth), None).await.map(drop).map_err(|err| told(&err))
}

/// Fails if anything of an account is in what `fake` was asked.
#[track_caller]
fn has_seen_nothing(fake: &Fake) {
    for asked in fake.log() {
        let text = format!("{asked:?}");
        let leaked = [PASSWORD, IDENTITY, "YWxpY2U6"].iter().find(|secret| text.contains(**secret));
        assert_eq!((leaked, asked.header("authorization")), (None, ""), "{text}");
        assert!(!asked.path.starts_with("/token"), "its token server was asked: {text}");
    }
}

/// Wants to be shown credentials, in the way of `challenge`, where `HOST` is itself.
fn stranger(challenge: &'static str) -> Fake {
    Fake::start(move |asked| {
        if asked.path.starts_with("/token") {
            return Answer::of(200, r#"{"token":"gotcha"}"#);
        }
        let challenge = challenge.replace("HOST", asked.header("host"));
        Answer::of(401, "").with("WWW-Authenticate", challenge)
    })
}

/// Sends what is asked for by a path with `part` in it to `to`; everything else by Basic, or open.
fn sends_away(packed: &Packed, part: String, to: String, is_open: bool) -> Fake {
    let serve = serves(packed, "a/b", "1");
    Fake::start(move |asked| {
        if !is_open && asked.header("authorization").is_empty() {
            return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if asked.path.contains(&part) {
            return Answer::of(307, "").with("Location", format!("http://{to}/stolen"));
        }
        serve(asked)
    })
}

#[tokio::test]
async fn a_challenge_of_somebody_else_is_never_answered() {
    if !can_run("a_challenge_of_somebody_else_is_never_answered") {
        return;
    }
    let packed = packed();
    let parts = ["manifests".into(), packed.blobs[0].digest(), packed.blobs[1].digest()];
    for challenge in [
        "Basic realm=\"theirs\"",
        "Bearer realm=\"http://HOST/token\",service=\"s\"",
        "Bearer realm=\"http://HOST/token\", Basic realm=\"theirs\"",
    ] {
        for part in &parts {
            for is_open in [true, false] {
                let evil = stranger(challenge);
                let registry = sends_away(&packed, part.clone(), evil.host.clone(), is_open);
                for auth in accounts() {
                    let (store, before) = (TestStore::new(), evil.log().len());
                    let err = pull(&store, &registry.host, &auth).await.unwrap_err();
                    assert!(!err.contains(PASSWORD) && !err.contains(IDENTITY), "{err}");
                    has_seen_nothing(&evil);
                    let is_told = err.contains(&evil.host) && err.contains("not for the other");
                    // Without a password the registry itself refuses.
                    assert!(is_told || evil.log().len() == before, "{err}");
                }
                assert!(!evil.log().is_empty(), "nothing was redirected by {challenge}");
            }
        }
    }
}

/// The same machine at another port, or under another name, is another origin.
#[tokio::test]
async fn who_leads_us_back_does_not_ask_with_our_credentials() {
    if !can_run("who_leads_us_back_does_not_ask_with_our_credentials") {
        return;
    }
    let packed = packed();
    let layer = packed.blobs[1].clone();
    for is_open in [true, false] {
        let back = Fake::start(|asked| {
            let host = asked.path.split('/').nth(1).unwrap_or_default();
            Answer::of(302, "").with("Location", format!("http://{host}/back"))
        });
        let (serve, layer, through) =
            (serves(&packed, "a/b", "1"), layer.clone(), back.host.clone());
        let registry = Fake::start(move |asked| {
            if asked.path == "/back" && (is_open || !asked.header("authorization").is_empty()) {
                return Answer::of(200, layer.bytes.clone());
            }
            if asked.header("authorization").is_empty() {
                return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
            }
            if asked.path.contains(&layer.digest()) {
                let to = format!("http://{through}/{}", asked.header("host"));
                return Answer::of(307, "").with("Location", to);
            }
            serve(asked)
        });
        let store = TestStore::new();
        let pulled = pull(&store, &registry.host, &by_password()).await;
        assert_eq!(pulled.is_ok(), is_open, "{pulled:?}");
        has_seen_nothing(&back);
        let returned: Vec<Asked> =
            registry.log().into_iter().filter(|of| of.path == "/back").collect();
        assert!(!returned.is_empty());
        assert!(returned.iter().all(|of| of.header("authorization").is_empty()));
    }
}

#[tokio::test]
async fn a_redirect_within_the_registry_keeps_its_credentials() {
    if !can_run("a_redirect_within_the_registry_keeps_its_credentials") {
        return;
    }
    let packed = packed();
    let (serve, layer) = (serves(&packed, "a/b", "1"), packed.blobs[1].clone());
    let registry = Fake::start(move |asked| match asked.path.as_str() {
        "/moved" if asked.header("authorization").starts_with("Basic ") => {
            Answer::of(200, layer.bytes.clone())
        }
        "/moved" => Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        path if path.contains(&layer.digest()) => Answer::of(307, "").with("Location", "/moved"),
        _ => serve(asked),
    });
    pull(&TestStore::new(), &registry.host, &by_password()).await.unwrap();
}

/// A token server of another host is what registries have (Docker Hub), if the registry itself names it;
/// where that one redirects to gets nothing.
#[tokio::test]
async fn a_token_server_is_the_registrys_choice_and_nobody_elses() {
    if !can_run("a_token_server_is_the_registrys_choice_and_nobody_elses") {
        return;
    }
    let packed = packed();
    let registry_with = |realm: String| {
        let serve = serves(&packed, "a/b", "1");
        Fake::start(move |asked| {
            if asked.header("authorization") == "Bearer good" {
                return serve(asked);
            }
            Answer::of(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        })
    };
    let tokens = Fake::start(|asked| {
        let is_alice =
            asked.header("authorization").starts_with("Basic ") || asked.body.contains(IDENTITY);
        if is_alice { Answer::of(200, r#"{"token":"good"}"#) } else { Answer::of(401, "") }
    });
    for auth in [by_password(), by_identity()] {
        let registry = registry_with(format!("http://{}/of-another-host", tokens.host));
        pull(&TestStore::new(), &registry.host, &auth).await.unwrap();
    }
    for challenge in ["Basic realm=\"x\"", "Bearer realm=\"http://HOST/token\""] {
        let evil = stranger(challenge);
        let to = format!("http://{}/", evil.host);
        let lent = Fake::start(move |_| Answer::of(307, "").with("Location", to.clone()));
        for auth in [by_password(), by_identity()] {
            let registry = registry_with(format!("http://{}/t", lent.host));
            pull(&TestStore::new(), &registry.host, &auth).await.unwrap_err();
            has_seen_nothing(&evil);
        }
    }
    for (realm, said) in [
        ("http://auth.invalid/token".to_owned(), "without TLS"),
        (format!("http://u:p@{}/token", tokens.host), "credentials in it"),
        ("ftp://auth.invalid/token".to_owned(), "no token server"),
        (String::new(), "no token server"),
    ] {
        let before = tokens.log().len();
        let registry = registry_with(realm.clone());
        let err = pull(&TestStore::new(), &registry.host, &by_password()).await.unwrap_err();
        assert!(err.contains(said) && !err.contains("u:p"), "{realm}: {err}");
        assert_eq!(tokens.log().len(), before);
    }
}

#[tokio::test]
async fn from_tls_nothing_leads_to_plain_http() {
    if !can_run("from_tls_nothing_leads_to_plain_http") {
        return;
    }
    let (packed, dir) = (packed(), tempfile::tempdir().unwrap());
    let evil = stranger("Basic realm=\"theirs\"");
    let realm = format!("Bearer realm=\"http://{}/token\"", evil.host);
    let location = format!("http://{}/stolen", evil.host);
    let (serve, layer) = (serves(&packed, "a/b", "1"), packed.blobs[1].digest());
    type Handler = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;
    let by_realm: Handler =
        Box::new(move |_| Answer::of(401, "").with("WWW-Authenticate", realm.clone()));
    let by_redirect: Handler = Box::new(move |asked| {
        if asked.header("authorization").is_empty() {
            return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if asked.path.contains(&layer) {
            return Answer::of(307, "").with("Location", location.clone());
        }
        serve(asked)
    });
    for (handler, said) in [(by_realm, "without TLS"), (by_redirect, "from HTTPS to plain HTTP")] {
        let registry = Fake::start_tls(tls(dir.path()), handler);
        let settings = Registry {
            host: registry.host.clone(),
            ca_file: Some(dir.path().join("ca.pem")),
            ..Default::default()
        };
        for auth in [by_password(), by_identity()] {
            let store = TestStore::with(vec![settings.clone()]);
            let err = pull(&store, &registry.host, &auth).await.unwrap_err();
            // An identity token alone does not answer Basic.
            assert!(err.contains(said) || err.contains("denies"), "{err}");
            assert!(evil.log().is_empty(), "{:?}", evil.log());
        }
    }
}

/// As Go's clients do: they belong to the address, and ours do not go there.
#[tokio::test]
async fn credentials_in_a_redirect_are_for_its_address_alone() {
    let other = stranger("Basic realm=\"theirs\"");
    let to = other.host.clone();
    let registry = Fake::start(move |_| {
        Answer::of(302, "").with("Location", format!("http://mallory:theirs@{to}/"))
    });
    let err = pull(&TestStore::new(), &registry.host, &by_password()).await.unwrap_err();
    assert!(!err.contains("mallory") && !err.contains("theirs"), "{err}");
    let shown: Vec<String> =
        other.log().iter().map(|of| of.header("authorization").to_owned()).collect();
    assert_eq!(shown, ["Basic bWFsbG9yeTp0aGVpcnM="]);
}

/// Every text of a registry or a caller that gets into a message.
#[tokio::test]
async fn no_registry_writes_to_a_terminal_or_forges_a_line_of_the_log() {
    if !can_run("no_registry_writes_to_a_terminal_or_forges_a_line_of_the_log") {
        return;
    }
    const FORGED: &str = "x\n2026-11-29 INFO forged \u{1b}[2J\u{9b}31m\u{202e}\r";
    let long = format!("{FORGED}{}", "y".repeat(100_000));
    let manifest = |value: serde_json::Value| value.to_string().into_bytes();
    let config = |kind: &str| {
        json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": kind, "size": 1,
            "digest": hull_tests::image::digest(b"x")}})
    };
    let platform = json!({"os": long, "architecture": long});
    let mut index = config("");
    index["manifests"] = json!([{"mediaType": long, "size": 1, "platform": platform,
        "digest": hull_tests::image::digest(b"x")}]);
    for (status, body) in [
        (403, manifest(json!({"errors": [{"code": long, "message": long}]}))),
        (500, long.clone().into_bytes()),
        (418, FORGED.as_bytes().to_vec()),
        (401, FORGED.as_bytes().to_vec()),
        (200, manifest(json!({"schemaVersion": long}))),
        (200, manifest(json!({"schemaVersion": 2, "mediaType": long}))),
        (200, manifest(config(&long))),
        (200, manifest(json!({"config": {"digest": long, "size": 1}, "layers": []}))),
        (200, manifest(index)),
    ] {
        let answer = body.clone();
        let fake = Fake::start(move |_| Answer::of(status, answer.clone()));
        let err = pull(&TestStore::new(), &fake.host, &by_password()).await.unwrap_err();
        let is_hidden = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!err.contains(is_hidden) && err.len() < 3000, "{status} {err:?}");
    }
    let store = TestStore::new();
    for name in [FORGED, &long] {
        let shown = |err: &hull_image::Error| {
            let text = told(err);
            assert!(!text.contains(['\n', '\u{1b}', '\u{202e}']) && text.len() < 1500, "{text:?}");
        };
        shown(&Reference::parse(name).unwrap_err());
        shown(&store.store.verify(Some(name)).await.unwrap_err());
        shown(&store.store.repair(name, None).await.unwrap_err());
        shown(&store.store.tag(name, "app:1", false).unwrap_err());
        shown(&store.store.import(tempfile::tempfile().unwrap(), Some(name)).await.unwrap_err());
    }
}

/// An error of the host behind a redirect names that host.
#[tokio::test]
async fn what_a_stranger_answers_is_told_as_the_strangers() {
    let packed = packed();
    for (status, said) in [(404, "does not have"), (403, "HTTP 403"), (500, "HTTP 500")] {
        let storage = Fake::start(move |_| Answer::of(status, "their words"));
        let layer: Arc<str> = packed.blobs[0].digest().into();
        let registry = sends_away(&packed, layer.to_string(), storage.host.clone(), true);
        let err = pull(&TestStore::new(), &registry.host, &by_password()).await.unwrap_err();
        assert!(err.contains(&storage.host) && err.contains(said), "{err}");
        // Other credentials change nothing there.
        assert!(!err.contains("imagePullSecrets"), "{err}");
        assert_eq!(err.contains("check the clocks"), status == 403, "{err}");
    }
}

/// A storage behind the registry's own address: the answer does not say that another program gave it.
#[tokio::test]
async fn a_refusal_after_a_redirect_within_the_registry_says_so() {
    const XML: &str = "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>Request has \u{1b}expired\
                       </Message><StringToSign>secret</StringToSign></Error>";
    let packed = packed();
    let (serve, layer) = (serves(&packed, "a/b", "1"), packed.blobs[0].digest());
    let registry = Fake::start(move |asked| match asked.path.as_str() {
        path if path.starts_with("/storage") => Answer::of(403, XML),
        path if path.contains(&layer) => {
            Answer::of(307, "").with("Location", "/storage/x?sig=secret")
        }
        _ => serve(asked),
    });
    let err = pull(&TestStore::new(), &registry.host, &by_password()).await.unwrap_err();
    for words in ["after a redirect of its own", "AccessDenied, Request has", "check the clocks"] {
        assert!(err.contains(words), "no {words:?} in {err}");
    }
    assert!(!err.contains("secret") && !err.contains('\u{1b}'), "{err}");
}
