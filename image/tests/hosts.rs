// SPDX-License-Identifier: Apache-2.0
//! Registries by the directory layout of containerd, and what becomes of credentials on the way.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Asked, Fake, TestStore, can_run, serves, told};
use hull_image::{Auth, Reference};
use hull_tests::image::{Image, Packed};
use hull_tests::layer::Layer;
use serde_json::json;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn packed() -> Packed {
    let layer = |name: &str| Layer::new().file(name, 0o644, name).tar();
    Image::new(vec![layer("one"), layer("two"), layer("three")], json!({})).pack()
}

/// A store whose `config_path` says `text` of `host`.
fn told_of(host: &str, text: &str) -> (TestStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(host)).unwrap();
    fs::write(dir.path().join(host).join("hosts.toml"), text).unwrap();
    let store =
        TestStore::configured(|config| config.remote.config_path = Some(dir.path().to_owned()));
    (store, dir)
}

fn alice() -> Auth {
    Auth::from_parts("alice", "secret", "", "", "").unwrap()
}

async fn pull(store: &TestStore, name: &str, auth: Option<&Auth>) -> Result<(), hull_image::Error> {
    let reference = Reference::parse(name).unwrap();
    store.store.pull(&reference, auth, None).await.map(drop)
}

#[tokio::test]
async fn mirrors_are_asked_in_order_for_what_they_can_and_with_their_headers() {
    if !can_run("mirrors_are_asked_in_order_for_what_they_can_and_with_their_headers") {
        return;
    }
    let packed = packed();
    let (blobs, tags) =
        (Fake::start(serves(&packed, "proxy/a/b", "1")), Fake::start(serves(&packed, "a/b", "1")));
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n\
         [host.\"http://{}/v2/proxy\"]\ncapabilities = [\"pull\"]\noverride_path = true\n\
         [host.\"http://{}/v2/proxy\".header]\nx-own = [\"1\", \"2\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n",
        blobs.host, blobs.host, tags.host
    );
    let (store, _dir) = told_of("registry.example.org", &text);
    pull(&store, "registry.example.org/a/b:1", Some(&alice())).await.unwrap();
    assert_eq!(tags.log().len(), 1, "only what the tag means");
    assert_eq!(blobs.log().len(), 4, "config and three layers");
    let is_own = |of: &Asked| of.header("x-own") == "2" && of.header("authorization").is_empty();
    assert!(blobs.log().iter().all(is_own));
    assert!(tags.log().iter().all(|of| of.header("x-own").is_empty()));
}

#[tokio::test]
async fn without_leave_nobody_else_is_asked() {
    let origin = Fake::start(serves(&packed(), "a/b", "1"));
    let text = "server = \"http://127.0.0.1:1\"";
    let (store, _dir) = told_of(&origin.host, text);
    let err = pull(&store, &format!("{}/a/b:1", origin.host), None).await.unwrap_err();
    assert!(
        told(&err).contains("127.0.0.1:1") && told(&err).contains("does not accept connections"),
        "{}",
        told(&err)
    );
    assert!(origin.log().is_empty());
}

#[tokio::test]
async fn what_is_wrong_in_a_file_is_told_with_its_line_and_read_again() {
    if !can_run("what_is_wrong_in_a_file_is_told_with_its_line_and_read_again") {
        return;
    }
    let origin = Fake::start(serves(&packed(), "a/b", "1"));
    let (store, dir) = told_of(&origin.host, "\nskip_verfy = true");
    let name = format!("{}/a/b:1", origin.host);
    let err = pull(&store, &name, None).await.unwrap_err();
    assert!(
        told(&err).contains("hosts.toml: line 2") && told(&err).contains("skip_verfy"),
        "{}",
        told(&err)
    );
    assert!(origin.log().is_empty());
    let file = dir.path().join(&origin.host).join("hosts.toml");
    fs::write(file, format!("server = \"http://{}\"", origin.host)).unwrap();
    pull(&store, &name, None).await.unwrap();
}

#[tokio::test]
async fn a_dead_mirror_is_asked_once_and_then_left_alone() {
    if !can_run("a_dead_mirror_is_asked_once_and_then_left_alone") {
        return;
    }
    let packed = packed();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // It takes connections and breaks them.
    let dead = Fake::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Answer { cut_after: Some(0), ..Answer::of(200, "never comes") }
    });
    let origin = Fake::start(serves(&packed, "a/b", "1"));
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{refused}\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
        origin.host, dead.host
    );
    let (store, _dir) = told_of("registry.example.org", &text);
    pull(&store, "registry.example.org/a/b:1", None).await.unwrap();
    let first = asked.load(Ordering::SeqCst);
    // One for the config and one per layer: it answers, so it does not count as dead.
    assert!((1..=4).contains(&first), "{first}");
    let err = pull(&store, "registry.example.org/a/none:1", None).await.unwrap_err();
    assert!(
        told(&err).contains("does not have"),
        "the last word is the registry's: {}",
        told(&err)
    );
}

#[tokio::test]
async fn what_one_host_has_broken_is_asked_of_the_next() {
    if !can_run("what_one_host_has_broken_is_asked_of_the_next") {
        return;
    }
    let packed = packed();
    let (good, broken) = (serves(&packed, "a/b", "1"), packed.blobs[2].digest());
    let mirror = Fake::start(move |asked| {
        let mut answer = good(asked);
        if asked.path.contains(&broken) {
            let last = answer.body.len() - 1;
            answer.body[last] ^= 1;
        }
        answer
    });
    let origin = Fake::start(serves(&packed, "a/b", "1"));
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.host, mirror.host);
    let (store, _dir) = told_of("registry.example.org", &text);
    pull(&store, "registry.example.org/a/b:1", None).await.unwrap();
    assert_eq!(origin.log().len(), 1);
}

/// A registry whose first answer with the layer is changed by `fail`.
fn fails_once(packed: &Packed, fail: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Fake {
    let (serve, of) = (serves(packed, "a/b", "1"), packed.blobs[1].digest());
    let times = AtomicUsize::new(0);
    Fake::start(move |asked| {
        let is_first = asked.path.contains(&of) && times.fetch_add(1, Ordering::SeqCst) == 0;
        if is_first { fail(serve(asked)) } else { serve(asked) }
    })
}

#[tokio::test]
async fn a_registry_that_stalls_is_found_out_by_progress() {
    if !can_run("a_registry_that_stalls_is_found_out_by_progress") {
        return;
    }
    let packed = packed();
    let fake = fails_once(&packed, |answer| Answer { hangs_after: Some(10), ..answer });
    let store = TestStore::configured(|config| {
        config.remote.stall = std::time::Duration::from_millis(300);
    });
    pull(&store, &format!("{}/a/b:1", fake.host), None).await.unwrap();
    let ranges: Vec<String> = fake
        .log()
        .iter()
        .filter(|of| of.path.contains(&packed.blobs[1].digest()))
        .map(|of| of.header("range").to_owned())
        .collect();
    assert_eq!(ranges, ["", "bytes=10-"]);
}

#[tokio::test]
async fn an_answer_whose_head_comes_a_byte_at_a_time_stalls() {
    if !can_run("an_answer_whose_head_comes_a_byte_at_a_time_stalls") {
        return;
    }
    let packed = packed();
    // Less than the limit between two bytes, and minutes for all of them.
    let trickles = Some(std::time::Duration::from_secs(1));
    let fake = fails_once(&packed, move |answer| Answer { trickles, ..answer });
    let store = TestStore::configured(|config| {
        config.remote.stall = std::time::Duration::from_secs(2);
    });
    let began = std::time::Instant::now();
    pull(&store, &format!("{}/a/b:1", fake.host), None).await.unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(40), "{:?}", began.elapsed());
    let layers = fake.log().iter().filter(|of| of.path.contains(&packed.blobs[1].digest())).count();
    assert_eq!(layers, 2);
}

#[tokio::test]
async fn a_registry_that_wants_more_patience_than_a_pull_has_is_told_of_at_once() {
    let fake = Fake::start(|_| Answer::of(429, "").with("Retry-After", "3600"));
    let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    assert!(told(&err).contains("asks to wait 3600 s"), "{}", told(&err));
    assert_eq!(fake.log().len(), 1);
}

/// Basic for everything, and layers elsewhere.
fn redirecting(packed: &Packed, to: String) -> Fake {
    let (serve, layer) = (serves(packed, "a/b", "1"), packed.blobs[1].digest());
    Fake::start(move |asked| {
        if asked.header("authorization").is_empty() {
            return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if asked.path.contains(&layer) {
            return Answer::of(307, "").with("Location", to.clone());
        }
        serve(asked)
    })
}

#[tokio::test]
async fn nothing_that_is_for_one_host_goes_to_another_by_redirect() {
    if !can_run("nothing_that_is_for_one_host_goes_to_another_by_redirect") {
        return;
    }
    let packed = packed();
    let body = packed.blobs[1].bytes.clone();
    let storage = Fake::start(move |_| Answer::of(200, body.clone()));
    // The same address under another name is another host.
    let port = storage.host.rsplit(':').next().unwrap().to_owned();
    let origin = redirecting(&packed, format!("http://localhost:{port}/x?signature=secret"));
    let text = format!(
        "server = \"http://{}\"\n[header]\nx-api-key = \"secret\"\ncookie = \"secret\"\n",
        origin.host
    );
    let (store, _dir) = told_of("registry.example.org", &text);
    pull(&store, "registry.example.org/a/b:1", Some(&alice())).await.unwrap();
    assert!(origin.log().iter().all(|of| of.header("x-api-key") == "secret"));
    let seen = storage.log();
    assert_eq!(seen.len(), 1);
    let leaked = seen[0].headers.iter().find(|(_, value)| value.contains("secret"));
    assert_eq!(leaked, None);
    assert_eq!(seen[0].header("authorization"), "");
}

#[tokio::test]
async fn redirects_in_a_circle_and_to_nowhere_are_errors() {
    let packed = packed();
    for (to, said) in [("/v2/a/b/manifests/1", "more than"), ("file:///etc/shadow", "not a URL")] {
        let to = to.to_owned();
        let fake = Fake::start(move |_| Answer::of(302, "").with("Location", to.clone()));
        let err = TestStore::new().pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
        assert!(told(&err).contains(said), "{}", told(&err));
    }
    drop(packed);
}

#[tokio::test]
async fn accounts_of_this_machine_are_used_when_a_pull_brings_none() {
    if !can_run("accounts_of_this_machine_are_used_when_a_pull_brings_none") {
        return;
    }
    let serve = serves(&packed(), "a/b", "1");
    let fake = Fake::start(move |asked| match asked.header("authorization") {
        "Basic YWxpY2U6c2VjcmV0" => serve(asked),
        _ => Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let text = json!({"auths": {(fake.host.clone()): {"auth": "YWxpY2U6c2VjcmV0"}}});
    fs::write(&path, text.to_string()).unwrap();
    let store = TestStore::configured(|config| config.remote.docker_config = Some(path.clone()));
    let name = format!("{}/a/b:1", fake.host);
    pull(&store, &name, None).await.unwrap();
    let mallory = Auth::from_parts("mallory", "guess", "", "", "").unwrap();
    assert!(pull(&store, &name, Some(&mallory)).await.is_err(), "nobody borrows them");
    fs::write(&path, "{").unwrap();
    let err = pull(&store, &name, None).await.unwrap_err();
    assert!(told(&err).contains("config.json"), "{}", told(&err));
}

/// Runs a test of this file again, with a proxy in its environment.
fn again_with_proxy(test: &str, proxy: &str) {
    let me = std::env::current_exe().unwrap();
    let ran = Command::new(me)
        .args(["--exact", test, "--nocapture"])
        .env("HTTP_PROXY", proxy)
        .env("http_proxy", proxy)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}{complaint}");
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_asked_but_not_for_this_machine() {
    if !can_run("a_proxy_of_the_environment_is_asked_but_not_for_this_machine") {
        return;
    }
    let packed = packed();
    if std::env::var_os("HTTP_PROXY").is_some() {
        let (store, _dir) =
            told_of("registry.example.org", "server = \"http://registry.example.org\"");
        pull(&store, "registry.example.org/a/b:1", None).await.unwrap();
        let here = Fake::start(serves(&packed, "a/b", "1"));
        pull(&store, &format!("{}/a/b:1", here.host), None).await.unwrap();
        assert_eq!(here.log().len(), 2, "manifest and config; the layers are here");
        return;
    }
    let serve = serves(&packed, "a/b", "1");
    let proxy = Fake::start(move |asked| {
        let path = asked.path.strip_prefix("http://registry.example.org").unwrap_or("elsewhere");
        serve(&Asked { path: path.to_owned(), ..asked.clone() })
    });
    again_with_proxy(
        "a_proxy_of_the_environment_is_asked_but_not_for_this_machine",
        &format!("http://{}", proxy.host),
    );
    assert_eq!(proxy.log().len(), 5, "manifest, config and three layers");
}
