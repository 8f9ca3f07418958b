// SPDX-License-Identifier: Apache-2.0
//! TLS of the metrics server: its certificate, and those that clients must have.
//!
//! The files are read at every connection: who renews certificates need not restart the daemon. There is a connection
//! every few seconds at most, and reading three small files costs less than its handshake.

use crate::config::Metrics;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Largest file of certificates, in bytes: all authorities of a distribution are a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why TLS cannot be used. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read {} (`{key}`)", path.display())]
    Read { key: &'static str, path: PathBuf, source: pem::Error },
    #[error("use {} (`{key}`): it has no certificate", path.display())]
    Empty { key: &'static str, path: PathBuf },
    #[error("use {} (`metrics.client_ca`) for the certificates of clients", path.display())]
    ClientCa { path: PathBuf, source: VerifierBuilderError },
    #[error("trust a certificate of {} (`metrics.client_ca`)", path.display())]
    Root { path: PathBuf, source: rustls::Error },
    #[error("serve metrics with the certificate of {} (`metrics.tls_cert`)", path.display())]
    Certificate { path: PathBuf, source: rustls::Error },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Read { source: pem::Error::Io(_), .. } => {
                "check that the file is there, that root can read it, and that it is a regular file of at most 1 MiB".into()
            }
            Self::Read { key: "metrics.tls_key", .. } => {
                "the file must be PEM and have one private key without a password".into()
            }
            Self::Read { .. } | Self::Empty { .. } | Self::Root { .. } | Self::ClientCa { .. } => {
                "the file must be PEM, with certificates as `openssl x509` prints them".into()
            }
            Self::Certificate { .. } => {
                "`metrics.tls_cert` must begin with the certificate that belongs to `metrics.tls_key`".into()
            }
        }
    }
}

/// The files of TLS.
#[derive(Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
}

impl Files {
    /// The configured files; `None` without TLS.
    pub(super) fn of(settings: &Metrics) -> Option<Self> {
        Some(Self {
            certificate: settings.tls_cert.clone()?,
            key: settings.tls_key.clone()?,
            client_ca: settings.client_ca.clone()?,
        })
    }

    /// Reads the files. Blocks.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let own = certificates("metrics.tls_cert", &self.certificate)?;
        let of_key =
            |source| Error::Read { key: "metrics.tls_key", path: self.key.clone(), source };
        let key = read(&self.key).and_then(|pem| PrivateKeyDer::from_pem_slice(&pem));
        let key = key.map_err(of_key)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates("metrics.client_ca", &self.client_ca)? {
            let added = roots.add(certificate);
            added.map_err(|source| Error::Root { path: self.client_ca.clone(), source })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|source| Error::ClientCa { path: self.client_ca.clone(), source })?;
        let refused = |source| Error::Certificate { path: self.certificate.clone(), source };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_client_cert_verifier(clients)
            .with_single_cert(own, key)
            .map_err(refused)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, pem::Error> {
    hull_sys::files::read(path, FILE_BYTES_MAX).map_err(pem::Error::Io)
}

/// The certificates of a file, at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::Read { key, path: path.to_owned(), source };
    let pem = read(path).map_err(failed)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(failed)?;
    if found.is_empty() {
        return Err(Error::Empty { key, path: path.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = Files { certificate: path("c"), key: path("k"), client_ca: path("a") };
        let failed = || files.acceptor().map(drop).unwrap_err();
        let missing = failed();
        assert!(missing.to_string().contains("`metrics.tls_cert`"), "{missing}");
        assert!(missing.hint().contains("is there"), "{}", missing.hint());
        std::os::unix::fs::symlink("/dev/zero", path("c")).unwrap();
        let endless = crate::error::Chain(&failed()).to_string();
        assert!(endless.contains("it is not a regular file"), "{endless}");
        fs::remove_file(path("c")).unwrap();
        fs::write(path("c"), "nonsense").unwrap();
        assert!(failed().to_string().contains("has no certificate"), "{}", failed());
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        fs::write(path("c"), broken).unwrap();
        assert!(failed().hint().contains("PEM"), "{}", failed().hint());
    }
}
