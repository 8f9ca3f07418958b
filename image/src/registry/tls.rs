// SPDX-License-Identifier: Apache-2.0
//! TLS with a registry that has CA files of its own.
//!
//! The rule: a certificate in such a file is also trusted as the registry's own, if the server shows exactly these
//! bytes. So one may be a CA's, as `openssl req -x509` makes it, or have an issuer that is not known here, as in Go's
//! clients. Its name and its time are checked as for any other. Only a CA's may sign others: who has the key of one
//! server is not trusted for other names.

use super::certificate::may_sign;
use crate::error::Cause;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;

pub(super) const NOT_A_CLIENT_CERTIFICATE: &str =
    "it is not a client certificate with its key, in PEM form";

/// A file that is not as it should be.
pub(super) fn wrong(path: &Path, why: &str) -> Cause {
    Cause::Document { what: path.display().to_string(), why: why.into() }
}

/// The certificates of a CA file.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok().filter(|all| !all.is_empty());
    certificates.ok_or_else(|| wrong(path, "it has no CA certificate in PEM form"))
}

/// The TLS settings of a client that trusts `own` besides the certificates of the machine. `identity` is a client
/// certificate with its key, in PEM form, and the file to blame for it.
pub(super) fn config(
    own: Vec<CertificateDer<'static>>,
    identity: Option<(&Path, &[u8])>,
) -> Result<ClientConfig, Cause> {
    let failed =
        |err: Error| Cause::Document { what: "the TLS settings".into(), why: err.to_string() };
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.ok_or_else(|| failed(Error::General("no cryptography".into())))?;
    let any = verifier(&own, &provider).map_err(failed)?;
    let verifier = OwnCertificates { any, own };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some((path, pem)) => {
            let wrong = || wrong(path, NOT_A_CLIENT_CERTIFICATE);
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong())?;
            let chain = chain.ok().filter(|all| !all.is_empty()).ok_or_else(wrong)?;
            config.with_client_auth_cert(chain, key).map_err(|_| wrong())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Verifies by the CA certificates of the machine and those in `own`.
fn verifier(
    own: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let (anchors, others): (Vec<_>, Vec<_>) = own.iter().cloned().partition(|of| may_sign(of));
    // What is not a certificate at all is a wrong setting.
    others.iter().try_for_each(|of| ParsedCertificate::try_from(of).map(drop))?;
    let has_none = anchors.is_empty();
    match rustls_platform_verifier::Verifier::new_with_extra_roots(anchors, Arc::clone(provider)) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        // The machine has none either. A verifier without any cannot be made, so it has one that signs nothing.
        Err(Error::General(_)) if has_none && !own.is_empty() => {
            let nobody = TrustAnchor {
                subject: Vec::new().into(),
                subject_public_key_info: Vec::new().into(),
                name_constraints: None,
            };
            let roots = Arc::new(RootCertStore { roots: vec![nobody] });
            let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            let verifier = built.build().map_err(|err| Error::General(err.to_string()))?;
            Ok(verifier)
        }
        Err(err) => Err(err),
    }
}

/// Verifies as usual, and trusts a server that shows one of its registry's own certificates.
#[derive(Debug)]
struct OwnCertificates {
    any: Arc<dyn ServerCertVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for OwnCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.any.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The time was checked before; a test holds that.
            Err(err) if is_about_issuer(&err) && self.own.iter().any(|own| own == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}

/// Whether a certificate is refused for who signed it, and for nothing else.
fn is_about_issuer(error: &Error) -> bool {
    let Error::InvalidCertificate(wrong) = error else { return false };
    if let CertificateError::Other(other) = wrong {
        return matches!(
            other.0.downcast_ref::<webpki::Error>(),
            Some(webpki::Error::CaUsedAsEndEntity)
        );
    }
    // The second, if a CA has the name of the issuer, but another key.
    matches!(wrong, CertificateError::UnknownIssuer | CertificateError::BadSignature)
}
