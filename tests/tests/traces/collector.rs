// SPDX-License-Identifier: Apache-2.0
//! A collector that keeps the spans that come: plain, or by TLS for clients with a certificate.

use hull_tests::ExpectExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

/// The spans that have come, and the handshakes that were refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(scopes.flat_map(|of| of.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let served = tonic::transport::Server::builder().add_service(service).serve(address);
        tokio::spawn(served);
        collector
    }

    /// One with the certificate of the server in `dir`, for clients of its CA.
    pub(crate) async fn start_by_tls(address: SocketAddr, dir: &Path) -> Self {
        let collector = Self::default();
        let listener = TcpListener::bind(address).await.or_fail("listen for spans");
        let (acceptor, refused) = (acceptor(dir), Arc::clone(&collector.refused));
        let incoming = futures_util::stream::unfold(listener, move |listener| {
            let (acceptor, refused) = (acceptor.clone(), Arc::clone(&refused));
            async move {
                let connection = accept(&listener, &acceptor, &refused).await;
                Some((Ok::<_, io::Error>(connection), listener))
            }
        });
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        collector
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The reasons for which handshakes were refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The span of this name whose parent is `parent`.
    pub(crate) fn below(&self, parent: &[u8], name: &str) -> Result<Span, String> {
        let spans = self.spans();
        let names: Vec<_> = spans.iter().map(|of| of.name.clone()).collect();
        let found = spans.into_iter().find(|of| of.name == name && of.parent_span_id == parent);
        found.ok_or_else(|| format!("no span `{name}` there among {names:?}"))
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).or_fail("open the certificates").collect();
    found.or_fail("read the certificates")
}

fn acceptor(dir: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&dir.join("ca.pem")) {
        roots.add(certificate).or_fail("trust the CA");
    }
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).or_fail("read the key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail("choose the versions of TLS")
        .with_client_cert_verifier(clients.build().or_fail("verify clients"))
        .with_single_cert(certificates(&dir.join("server.pem")), key)
        .or_fail("use the certificate of the server");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The next connection whose handshake succeeds.
async fn accept(
    listener: &TcpListener,
    acceptor: &TlsAcceptor,
    refused: &Mutex<Vec<String>>,
) -> Tls {
    loop {
        let (stream, _) = listener.accept().await.or_fail("accept a connection");
        match acceptor.accept(stream).await {
            Ok(stream) => return Tls(stream),
            Err(err) => {
                refused.lock().unwrap_or_else(PoisonError::into_inner).push(err.to_string());
            }
        }
    }
}

/// A connection of TLS, as tonic takes it.
struct Tls(TlsStream<TcpStream>);

impl Connected for Tls {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
