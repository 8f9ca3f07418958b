// SPDX-License-Identifier: Apache-2.0
//! A registry that lies: redirects that ask for passwords, headers without an end, sizes and digests that
//! are not true, documents that are none. The pull fails, says why in one clean line, and the daemon
//! lives on with its memory.

use hull_proto::cri as api;
use hull_tests::image::{INDEX, MANIFEST, digest};
use hull_tests::{ExpectExt as _, Node};
use std::io::{BufRead as _, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tonic::{Code, Status};

/// More than the daemon may ever hold of what a registry sends, in KiB.
const MEMORY_KIB_MAX: u64 = 400 << 10;
/// How much an answer without an end sends at most: the client must have left long before.
const ENDLESS_BYTES: u64 = 2 << 30;

/// A request: its path, and all of its head.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    head: String,
}

/// Answers by writing raw bytes: what a server library would not let out.
type Script = dyn Fn(&Asked, &mut dyn Write) -> std::io::Result<()> + Send + Sync;

/// A server on loopback that does what its script does, until it is dropped.
pub(crate) struct Liar {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    pub(crate) fn start(
        script: impl Fn(&Asked, &mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").or_fail("listen on loopback");
        let address = listener.local_addr().or_fail("read an address");
        let (asked, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (list, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let script: Arc<Script> = Arc::new(script);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (list, script) = (Arc::clone(&list), Arc::clone(&script));
                // A client that leaves in the middle is what most of these are about.
                std::thread::spawn(move || drop(answer(stream, &list, &*script)));
            }
        });
        Self { address, asked, is_over, thread: Some(thread) }
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.address)
    }

    fn log(&self) -> Vec<Asked> {
        self.asked.lock().or_fail("read what was asked").clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(stream: TcpStream, list: &Mutex<Vec<Asked>>, script: &Script) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let asked = Asked { path, head };
    list.lock().or_fail("note what was asked").push(asked.clone());
    script(&asked, stream.get_mut())?;
    stream.get_mut().flush()
}

/// A whole answer.
pub(crate) fn say(
    to: &mut dyn Write,
    status: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<()> {
    let length = body.len();
    write!(
        to,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    )?;
    to.write_all(body)
}

/// The same bytes again and again, until the client leaves.
fn endless(to: &mut dyn Write, piece: &[u8]) -> std::io::Result<()> {
    let many = piece.repeat((64 << 10) / piece.len().max(1));
    let mut sent = 0;
    while sent < ENDLESS_BYTES {
        to.write_all(&many)?;
        sent += many.len() as u64;
    }
    Ok(())
}

pub(crate) fn manifest(config: &str, layers: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]}}"#
    )
}

pub(crate) fn descriptor(kind: &str, of: &str, size: &str) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{of}","size":{size}}}"#)
}

pub(crate) fn typed(kind: &str) -> String {
    format!("Content-Type: {kind}\r\n")
}

/// The lie of the image `name`: its manifest, its blobs, or how the answer itself is made.
fn lie(asked: &Asked, to: &mut dyn Write) -> std::io::Result<()> {
    let name = asked.path.trim_start_matches("/v2/").split('/').next().unwrap_or_default();
    if asked.path == "/v2/" {
        return say(to, "200 OK", "", b"{}");
    }
    if asked.path.contains("/manifests/")
        && let Some((kind, text)) = document(name)
    {
        return say(to, "200 OK", &typed(kind), text.as_bytes());
    }
    if asked.path.ends_with(&digest(b"{}")) {
        return say(to, "200 OK", "", b"{}");
    }
    match name {
        "html" => say(to, "200 OK", &typed("text/html"), b"<html><body>Sign in</body></html>"),
        "bad-blob" => say(to, "200 OK", "", b"lie.."),
        "short-blob" => say(to, "200 OK", "", b"lay"),
        "long-blob" => {
            write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            endless(to, b"layer")
        }
        _ => odd_answer(name, asked, to),
    }
}

/// Type and text of a manifest that is none, or is not true.
fn document(name: &str) -> Option<(&'static str, String)> {
    let (config, nothing) = (digest(b"{}"), "x".repeat(64));
    let config = |size: &str| descriptor("config.v1+json", &config, size);
    let layer = |of: &str, size: &str| descriptor("layer.v1.tar+gzip", of, size);
    let x = digest(b"x");
    let text = match name {
        "html-as-manifest" => "<html>\x1b[31mSign in\r\n</html>".into(),
        "empty" => String::new(),
        "null" => "null".into(),
        "deep" => "[".repeat(1 << 20),
        "deep-object" => r#"{"a":"#.repeat(200_000),
        "no-digest" => manifest(&config("2").replace("sha256:", "md5:"), ""),
        "odd-digest" => manifest(&config("2"), &layer(&format!("sha256:../../{nothing}"), "1")),
        "negative" => manifest(&config("-2"), &layer(&x, "-1")),
        "immense" => manifest(&config("2"), &layer(&x, "18446744073709551615")),
        "float" => manifest(&config("1e30"), &layer(&x, "1e30")),
        "many-layers" => manifest(&config("2"), &vec![layer(&x, "1"); 20_000].join(",")),
        "bad-blob" | "long-blob" | "short-blob" => {
            manifest(&config("2"), &layer(&digest(b"layer"), "5"))
        }
        "self-index" => return Some((INDEX, self_index())),
        _ => return None,
    };
    Some((MANIFEST, text))
}

/// An index of one image, which is an index again, by a digest that it does not have.
fn self_index() -> String {
    let (own, arch) = (digest(b"index"), hull_tests::image::this_arch());
    let platform = format!(r#"{{"os":"linux","architecture":"{arch}"}}"#);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{INDEX}","digest":"{own}","size":5,"platform":{platform}}}]}}"#
    )
}

/// Writes an answer whose form is odd, not its content.
fn odd_answer(name: &str, asked: &Asked, to: &mut dyn Write) -> std::io::Result<()> {
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\n{more}");
    // The beginning of an answer without an end, and what follows for ever.
    let forever: Option<(String, &[u8])> = match name {
        "endless-headers" => Some((head(""), b"X-More: and more and more and more\r\n")),
        "endless-header" => Some((head("X-Long: "), b"and more ")),
        "endless-manifest" => Some((head("Connection: close\r\n\r\n"), b"            ")),
        "immense-manifest" => Some((head("Content-Length: 99999999999\r\n\r\n"), b"            ")),
        "chunks" => {
            let chunk = head("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n");
            Some((chunk, b"            "))
        }
        _ => None,
    };
    if let Some((begin, piece)) = forever {
        to.write_all(begin.as_bytes())?;
        return endless(to, piece);
    }
    let challenge = |text: &str| format!("WWW-Authenticate: {text}\r\n");
    match name {
        "two-lengths" => {
            to.write_all(head("Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello").as_bytes())
        }
        "no-http" => to.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "loop" => {
            let headers = format!("Location: {}\r\n", asked.path);
            say(to, "307 Temporary Redirect", &headers, b"")
        }
        "to-file" => say(to, "307 Temporary Redirect", "Location: file:///etc/shadow\r\n", b""),
        "escape-codes" => {
            let text = "{\"errors\":[{\"code\":\"\\u001b[31mRED\",\"message\":\"first\\nlevel=error forged\\r\\u0007\"}]}";
            say(to, "404 Not Found", &typed("application/json"), text.as_bytes())
        }
        "escape-codes-raw" => say(to, "500 \x1b[2J", "", b"\x1b]0;title\x07\nforged line\n"),
        "basic-forever" => say(to, "401 Unauthorized", &challenge("Basic realm=\"\x1b[31m\""), b""),
        "bearer-to-file" => {
            let text = "Bearer realm=\"file:///etc/shadow\",service=\"x\"";
            say(to, "401 Unauthorized", &challenge(text), b"")
        }
        "retry-forever" => say(to, "429 Too Many Requests", "Retry-After: 99999999999\r\n", b""),
        _ => say(to, "404 Not Found", "", b""),
    }
}

const LIES: [&str; 31] = [
    "html",
    "html-as-manifest",
    "empty",
    "null",
    "deep",
    "deep-object",
    "no-digest",
    "odd-digest",
    "negative",
    "immense",
    "float",
    "many-layers",
    "self-index",
    "endless-headers",
    "endless-header",
    "endless-manifest",
    "immense-manifest",
    "chunks",
    "two-lengths",
    "no-http",
    "loop",
    "to-file",
    "escape-codes",
    "escape-codes-raw",
    "bad-blob",
    "long-blob",
    "short-blob",
    "basic-forever",
    "bearer-to-file",
    "retry-forever",
    "nothing",
];

/// The faults of a refusal: it is not one clean line, or blames Hull.
pub(crate) fn faults(name: &str, refused: &Status) -> Vec<String> {
    let mut found = Vec::new();
    let message = refused.message();
    if let Some(control) = message.chars().find(|c| c.is_control()) {
        found.push(format!("{name}: the message has {control:?}: {message:?}"));
    }
    if message.len() > 8192 {
        found.push(format!("{name}: a message of {} bytes", message.len()));
    }
    if refused.code() == Code::Internal {
        found.push(format!("{name}: called internal: {message:?}"));
    }
    found
}

/// Highest memory of the daemon so far, in KiB.
fn memory_kib(node: &Node) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", node.daemon_pid()));
    let text = text.or_fail("read the daemon's status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.or_fail("read the daemon's memory")
}

/// Fails unless the daemon lives, has not panicked, and writes no control characters to its log.
pub(crate) async fn lives_on(node: &Node) {
    let version = api::VersionRequest::default();
    node.cri().runtime.clone().version(version).await.or_fail("ask the daemon for its version");
    let log = node.daemon_log();
    assert!(!log.contains("panicked"), "the daemon panicked: {log}");
    let odd = log.lines().find(|line| line.chars().any(|c| c.is_control() && c != '\t'));
    assert!(odd.is_none(), "a control character in the daemon's log: {odd:?}");
    let forged = log
        .lines()
        .find(|line| line.starts_with("level=error forged") || line.starts_with("forged"));
    assert!(forged.is_none(), "a line of the log was forged: {forged:?}");
}

#[tokio::test]
async fn a_registry_that_lies_is_refused_in_one_clean_line() {
    let node = Node::start().await;
    let (cri, liar, mut wrong) = (node.cri(), Liar::start(lie), Vec::new());
    for name in LIES {
        match cri.pull(&liar.image(name)).await {
            Ok(pulled) => wrong.push(format!("{name}: it was pulled: {pulled}")),
            Err(refused) => wrong.extend(faults(name, &refused)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let kib = memory_kib(&node);
    assert!(kib < MEMORY_KIB_MAX, "the daemon took {kib} KiB");
    let listed = cri.image.clone().list_images(api::ListImagesRequest::default()).await.unwrap();
    assert!(listed.into_inner().images.is_empty());
    assert_eq!(hull_tests::shell::names(&node.data_dir().join("tmp")), [""; 0]);
    lives_on(&node).await;
}

#[tokio::test]
async fn credentials_go_to_nobody_but_the_registry_that_they_are_for() {
    let node = Node::start().await;
    let cri = node.cri();
    let challenges = [
        "Basic realm=\"files\"".to_owned(),
        "Bearer realm=\"http://ORIGIN/token\",service=\"files\",scope=\"repository:x:pull\""
            .to_owned(),
        "Bearer realm=\"file:///token\", Basic realm=\"x\"".to_owned(),
    ];
    for challenge in challenges {
        let of_thief = challenge.clone();
        let own = Arc::new(Mutex::new(String::new()));
        let own_address = Arc::clone(&own);
        // Wherever the redirect leads, it wants a password.
        let thief = Liar::start(move |_, to| {
            let address = own_address.lock().or_fail("read an address").clone();
            let header = format!("WWW-Authenticate: {}\r\n", of_thief.replace("ORIGIN", &address));
            say(to, "401 Unauthorized", &header, b"")
        });
        thief.address.to_string().clone_into(&mut own.lock().or_fail("note an address"));
        let target = thief.address.to_string();
        let registry = Liar::start(move |asked, to| {
            if asked.path == "/v2/" {
                return say(to, "200 OK", "", b"{}");
            }
            let header = format!("Location: http://{target}{}\r\n", asked.path);
            say(to, "307 Temporary Redirect", &header, b"")
        });
        let address = registry.address.to_string();
        for auth in [
            api::AuthConfig {
                username: "tenant".into(),
                password: "secret".into(),
                server_address: address.clone(),
                ..Default::default()
            },
            api::AuthConfig { identity_token: "identity-secret".into(), ..Default::default() },
            api::AuthConfig { registry_token: "registry-secret".into(), ..Default::default() },
        ] {
            let refused = cri.pull_as(&registry.image("private"), Some(auth)).await.unwrap_err();
            assert_eq!(faults(&challenge, &refused), Vec::<String>::new());
        }
        // tenant:secret in base64, and the tokens.
        let secrets = ["dGVuYW50OnNlY3JldA", "identity-secret", "registry-secret", "secret"];
        for asked in thief.log() {
            let stolen = secrets.iter().find(|secret| asked.head.contains(**secret));
            assert!(
                stolen.is_none(),
                "{challenge}: a redirect's host was given {stolen:?}: {asked:?}"
            );
        }
        assert!(!thief.log().is_empty(), "the redirect was not followed, so nothing was tried");
    }
    lives_on(&node).await;
}
