// SPDX-License-Identifier: Apache-2.0
//! A store of a test's own, and a registry that behaves as the test wants.
//!
//! [`Fake`] is a few lines of HTTP on a free port of loopback: what a real registry does only in bad
//! times (breaking connections, asking to come back later) it does at will.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod counted;

use hull_image::{Config, Image, Reference, Registry, Remote, Store};
use hull_tests::image::{Blob, Packed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// A store in a directory that goes away with it.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
    config: Config,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::with(Vec::new())
    }

    pub(crate) fn with(registries: Vec<Registry>) -> Self {
        Self::configured(|config| config.remote.registries = registries)
    }

    /// One with settings of the test's own.
    pub(crate) fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            root: dir.path().join("store"),
            remote: Remote {
                stall: Duration::from_secs(20),
                pause: Duration::from_millis(1),
                ..Default::default()
            },
            concurrent_layers: 4,
            pinned: vec!["pinned.example.org/one:1".into()],
            ..Default::default()
        };
        change(&mut config);
        Self { store: open(&config), dir, config }
    }

    /// Opens it once more, as a daemon that was started again.
    pub(crate) fn again(self) -> Self {
        let Self { store, dir, config } = self;
        drop(store);
        Self { store: open(&config), dir, config }
    }

    /// The same after a damage that the store has to find and set aside.
    #[allow(dead_code, reason = "not every test program damages a store")]
    pub(crate) fn again_damaged(self) -> Self {
        let Self { store, dir, config } = self;
        drop(store);
        let (store, problems) = Store::open(config.clone()).unwrap();
        assert!(!problems.is_empty(), "no damage was found");
        Self { store, dir, config }
    }

    /// A path in the store.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.config.root.join(path)
    }

    /// Names in a directory of the store.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        hull_tests::shell::names(&self.dir.path().join("store").join(directory))
    }

    pub(crate) async fn pull(&self, name: &str) -> Result<Arc<Image>, hull_image::Error> {
        self.store.pull(&Reference::parse(name).unwrap(), None, None).await
    }
}

fn open(config: &Config) -> Store {
    let (store, problems) = Store::open(config.clone()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    store
}

/// Whether kernel tests can run here: devices and owners need root.
pub(crate) fn can_run(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        hull_tests::paths::cannot_run(test, "root");
    }
    is_root
}

/// The error with its causes and its hint, as the daemon shows them.
pub(crate) fn told(error: &hull_image::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    format!("{text} (hint: {})", error.hint().unwrap_or_default())
}

/// A request that the server received.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// The response to a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection breaks after so many bytes of the body.
    pub(crate) cut_after: Option<usize>,
    /// Nothing more comes after so many bytes of the body, until the client has had enough.
    pub(crate) hangs_after: Option<usize>,
    /// Nothing comes at all, until the client has had enough.
    pub(crate) is_silent: bool,
    /// The connection ends before the head of the response: closed, or reset.
    pub(crate) ends: Option<End>,
    /// The announced length, instead of the body's own.
    pub(crate) length: Option<usize>,
    /// The body comes in chunks of so many bytes, and no length is announced.
    pub(crate) chunks_of: Option<usize>,
    /// The head comes a byte at a time, with so much time between, until the client has had enough.
    pub(crate) trickles: Option<Duration>,
}

impl Answer {
    pub(crate) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// How a connection ends without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// An HTTP server that runs until it is dropped.
pub(crate) struct Fake {
    /// `127.0.0.1:port`.
    pub(crate) host: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(0, handler)
    }

    /// The same on a port that is known before.
    pub(crate) fn start_at(
        port: u16,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::serve(port, None, Arc::new(handler))
    }

    pub(crate) fn start_tls(
        tls: rustls::ServerConfig,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::serve(0, Some(Arc::new(tls)), Arc::new(handler))
    }

    fn serve(port: u16, tls: Option<Arc<rustls::ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (list, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(stream), handler, list, tls) =
                    (stream, Arc::clone(&handler), Arc::clone(&list), tls.clone())
                else {
                    continue;
                };
                std::thread::spawn(move || match tls {
                    None => {
                        let socket = stream.try_clone().unwrap();
                        answer(stream, &socket, &*handler, &list);
                    }
                    Some(tls) => {
                        let socket = stream.try_clone().unwrap();
                        let connection = rustls::ServerConnection::new(tls).unwrap();
                        let stream = rustls::StreamOwned::new(connection, stream);
                        answer(stream, &socket, &*handler, &list);
                    }
                });
            }
        });
        Self { host: address.to_string(), asked, address, is_over, thread: Some(thread) }
    }

    /// The paths that were asked for so far, and with which credentials.
    pub(crate) fn log(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(
    stream: impl Read + Write,
    socket: &TcpStream,
    handler: &Handler,
    list: &Mutex<Vec<Asked>>,
) {
    let mut stream = BufReader::new(stream);
    let Some(asked) = read(&mut stream) else { return };
    list.lock().unwrap().push(asked.clone());
    let answer = handler(&asked);
    if answer.is_silent {
        let _gone = stream.read(&mut [0]);
        return;
    }
    if let Some(end) = answer.ends {
        if end == End::Reset {
            rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
        }
        return;
    }
    let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", answer.status);
    if answer.chunks_of.is_some() {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else {
        let length = answer.length.unwrap_or(answer.body.len());
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let stream = stream.get_mut();
    if let Some(pause) = answer.trickles {
        let slowly = head.bytes().all(|byte| {
            std::thread::park_timeout(pause);
            stream.write_all(&[byte]).and_then(|()| stream.flush()).is_ok()
        });
        if !slowly {
            return;
        }
        head.clear();
    }
    let end = answer.cut_after.or(answer.hangs_after).unwrap_or(answer.body.len());
    let end = end.min(answer.body.len());
    let mut body = answer.body[..end].to_vec();
    if let Some(bytes) = answer.chunks_of {
        body = body.chunks(bytes).flat_map(chunk).collect();
        // A body that is cut has no last chunk.
        body.extend_from_slice(if end < answer.body.len() { b"" } else { b"0\r\n\r\n" });
    }
    // The client may have left: its business.
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    let _gone = stream.flush();
    if answer.hangs_after.is_some() {
        let _gone = stream.read(&mut [0]);
    }
}

/// A chunk of a body: RFC 9112, 7.1.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn read(stream: &mut BufReader<impl Read>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Answers like a registry that has one image under `name:tag`.
pub(crate) fn serves(
    packed: &Packed,
    name: &str,
    tag: &str,
) -> impl Fn(&Asked) -> Answer + Send + Sync + Clone + use<> {
    let mut blobs: HashMap<String, Blob> = HashMap::new();
    for blob in &packed.blobs {
        blobs.insert(format!("/v2/{name}/blobs/{}", blob.digest()), blob.clone());
    }
    blobs.insert(format!("/v2/{name}/manifests/{tag}"), packed.manifest.clone());
    blobs.insert(
        format!("/v2/{name}/manifests/{}", packed.manifest.digest()),
        packed.manifest.clone(),
    );
    move |asked: &Asked| {
        let path = asked.path.split('?').next().unwrap_or_default();
        match blobs.get(path) {
            None => {
                Answer::of(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}"#)
            }
            Some(blob) => {
                Answer::of(200, blob.bytes.clone()).with("Content-Type", blob.media_type.clone())
            }
        }
    }
}

/// A CA and a certificate for 127.0.0.1 that it signed, made by openssl.
pub(crate) fn tls(dir: &Path) -> rustls::ServerConfig {
    let (certificate, key) = certificate(dir, "127.0.0.1", 2);
    rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

/// The same for another address or validity, with the key, for servers with settings of their own.
pub(crate) fn certificate(
    dir: &Path,
    address: &str,
    days: i32,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let script = r#"
set -e
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca \
    -addext basicConstraints=critical,CA:TRUE
openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=$1
printf "subjectAltName=IP:$1\nbasicConstraints=CA:FALSE\n" > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days $2 -extfile extensions
openssl x509 -in cert.pem -outform der -out cert.der
openssl pkcs8 -topk8 -nocrypt -in key.pem -outform der -out key.der
"#;
    let days = days.to_string();
    let arguments = ["-c", script, "sh", address, &days];
    let made = Command::new("sh").args(arguments).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    (read("cert.der").into(), PrivatePkcs8KeyDer::from(read("key.der")).into())
}
