// SPDX-License-Identifier: Apache-2.0
//! Each way in which TLS with a registry fails has the right name and hint.
//!
//! The servers are real: rustls with certificates made by openssl, or a socket that answers with the
//! bytes of one.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Fake, TestStore, can_run, certificate, tls, told};
use hull_image::{Cause, Error, Registry, Unreachable};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

/// How a pull from `host` fails whose only trusted CA is that in `dir`.
async fn failure(host: &str, dir: &Path) -> (Unreachable, String) {
    let ca_file = Some(dir.join("ca.pem"));
    let store =
        TestStore::with(vec![Registry { host: host.into(), ca_file, ..Default::default() }]);
    let error = store.pull(&format!("{host}/a/b:1")).await.unwrap_err();
    let Error::Pull { source: Cause::Unreachable { kind, .. }, .. } = &error else {
        panic!("it was reached: {}", told(&error))
    };
    (*kind, told(&error))
}

fn serve(config: ServerConfig) -> Fake {
    Fake::start_tls(config, |_| Answer::of(404, ""))
}

fn with_certificate(dir: &Path, address: &str, days: i32) -> ServerConfig {
    let (certificate, key) = certificate(dir, address, days);
    let config = ServerConfig::builder().with_no_client_auth();
    config.with_single_cert(vec![certificate], key).unwrap()
}

#[tokio::test]
async fn certificates_that_are_not_trusted_are_told_from_other_failures() {
    if !can_run("certificates_that_are_not_trusted_are_told_from_other_failures") {
        return;
    }
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(tls(other.path()));
    let (kind, text) = failure(&serve(tls(own.path())).host, other.path()).await;
    assert_eq!(kind, Unreachable::Certificate, "{text}");
    assert!(text.contains("ca_file"), "{text}");
    for (address, days, wanted, hint) in [
        ("127.0.0.2", 2, Unreachable::OtherName, "as its certificate does"),
        ("127.0.0.1", -1, Unreachable::Expired, "renew the certificate"),
    ] {
        let config = with_certificate(own.path(), address, days);
        let (kind, text) = failure(&serve(config).host, own.path()).await;
        assert_eq!(kind, wanted, "{text}");
        assert!(text.contains(hint) && !text.contains("ca_file"), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_fails_tls() {
    if !can_run("a_server_that_wants_a_client_certificate_fails_tls") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(dir.path(), "127.0.0.1", 2);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path().join("ca.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    // In TLS 1.3 the client has sent its request before the server refuses it.
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (kind, text) = failure(&serve(config).host, dir.path()).await;
    assert_eq!(kind, Unreachable::Tls, "{text}");
    assert!(text.contains("alert"), "{text}");
}

/// Reads a ClientHello, sends `answer` and closes the connection.
async fn failure_after(answer: Vec<u8>, dir: &Path) -> (Unreachable, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let failure = failure(&host, dir).await;
    server.join().unwrap();
    failure
}

#[tokio::test]
async fn what_is_not_tls_or_too_old_is_told_apart() {
    if !can_run("what_is_not_tls_or_too_old_is_told_apart") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(tls(dir.path()));
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (kind, text) = failure_after(http, dir.path()).await;
    assert_eq!(kind, Unreachable::PlainHttp, "{text}");
    // A ServerHello of TLS 1.0: version, random, no session, a cipher suite, no compression.
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let old = [&[0x16, 3, 1, 0, length + 4, 2, 0, 0, length][..], &body].concat();
    let (kind, text) = failure_after(old, dir.path()).await;
    assert_eq!(kind, Unreachable::Tls, "{text}");
    let (kind, text) = failure_after(Vec::new(), dir.path()).await;
    assert_eq!(kind, Unreachable::Tls, "closed in the handshake: {text}");
}

#[tokio::test]
async fn a_server_that_speaks_tls_and_is_asked_by_plain_http_is_told_apart() {
    let test = "a_server_that_speaks_tls_and_is_asked_by_plain_http_is_told_apart";
    if !can_run(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secure = serve(tls(dir.path()));
    let settings = Registry { host: secure.host.clone(), plain_http: true, ..Default::default() };
    let store = TestStore::with(vec![settings]);
    let text = told(&store.pull(&format!("{}/a/b:1", secure.host)).await.unwrap_err());
    assert!(text.contains("is not HTTP") && text.contains("remove `plain_http = true`"), "{text}");
    // The setting that helps is the one that names its CA, also where none says how to request it.
    let text = told(&TestStore::new().pull(&format!("{}/a/b:1", secure.host)).await.unwrap_err());
    let fix = format!("set `ca_file` under `[[image.registry]]` with host = \"{}\"", secure.host);
    assert!(text.contains(&fix), "{text}");
}

#[tokio::test]
async fn a_port_where_nothing_listens_refuses() {
    if !can_run("a_port_where_nothing_listens_refuses") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(tls(dir.path()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (kind, text) = failure(&host, dir.path()).await;
    assert_eq!(kind, Unreachable::Refused, "{text}");
}
