// SPDX-License-Identifier: Apache-2.0
//! Signatures as cosign makes them with a key: beside the image, under the tag `sha256-<digest>.sig`,
//! lies an artifact whose layers are small JSON documents, each with its signature in an annotation.
//!
//! ```text
//! tag → index or manifest, digest D ─┐
//!                                    ├ sha256-<D>.sig → payload says D, signature is of the payload
//! manifest for this machine, digest M┘                  by one of the keys
//! ```
//!
//! The rule: what counts is the digest within the signed payload; where the signature lay and what its
//! artifact is called proves nothing. Keys are ECDSA on P-256 (what `cosign generate-key-pair` makes)
//! or Ed25519, in PEM.
//!
//! Not here: certificates of Fulcio, the transparency log, and signatures that are only found by
//! the referrers API.

use crate::digest::Digest;
use crate::error::Cause;
use crate::manifest::{self, Descriptor};
use crate::registry::Session;
use data_encoding::BASE64;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use std::path::Path;

const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
const PAYLOAD_BYTES_MAX: u64 = 64 << 10;
/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 64;
const PAYLOAD_TYPE: &str = "cosign container image signature";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The bytes before the key in SubjectPublicKeyInfo, RFC 5480 and RFC 8410.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key whose signatures are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// Reads a public key; what is wrong is said in words.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: &str| format!("key {}: {why}", path.display());
        let pem = hull_sys::files::read(path, KEY_FILE_BYTES_MAX)
            .map_err(|err| wrong(&err.to_string()))?;
        Self::parse(&pem)
            .ok_or_else(|| wrong("it is not a public key in PEM (ECDSA on P-256, or Ed25519)"))
    }

    fn parse(pem: &[u8]) -> Option<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
        if let Some(point) = der.strip_prefix(P256).filter(|point| point.len() == 65) {
            return Some(Self::P256(point.to_vec()));
        }
        let key = der.strip_prefix(ED).filter(|key| key.len() == 32)?;
        Some(Self::Ed25519(key.to_vec()))
    }

    fn has_signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        let checked = match self {
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(payload, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(payload, signature),
        };
        checked.is_ok()
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: SignedImage,
    r#type: String,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Finds a signature of one of `digests` by one of `keys`; else why there is none that counts.
pub(crate) async fn signed(
    session: &Session,
    digests: &[Digest],
    keys: &[Key],
) -> Result<Result<(), String>, Cause> {
    let mut seen = Vec::new();
    for digest in digests {
        let tag = format!("{}.sig", digest.as_str().replacen(':', "-", 1));
        let check = |bytes: &[u8]| manifest::parse_signatures(bytes, ANNOTATION).map(drop);
        let received = match session.manifest(&tag, &check).await {
            Ok(received) => received,
            Err(cause) if cause.is_missing() => continue,
            Err(cause) => return Err(cause),
        };
        let layers = manifest::parse_signatures(&received.bytes, ANNOTATION)?;
        for (descriptor, signature) in layers.into_iter().take(SIGNATURES_MAX) {
            match one(session, &descriptor, &signature, digests, keys).await? {
                Ok(()) => return Ok(Ok(())),
                Err(why) => seen.push(why),
            }
        }
    }
    seen.sort_unstable();
    seen.dedup();
    Ok(Err(if seen.is_empty() {
        "it has no signature".into()
    } else {
        format!("no signature beside it counts: {}", seen.join("; "))
    }))
}

async fn one(
    session: &Session,
    descriptor: &Descriptor,
    signature: &str,
    digests: &[Digest],
    keys: &[Key],
) -> Result<Result<(), &'static str>, Cause> {
    let what = format!("signed payload {}", descriptor.digest);
    let payload = session.blob(descriptor, what, PAYLOAD_BYTES_MAX).await?;
    Ok(counts(&payload.bytes, signature, digests, keys))
}

/// Whether a payload and its signature count.
fn counts(
    payload: &[u8],
    signature: &str,
    digests: &[Digest],
    keys: &[Key],
) -> Result<(), &'static str> {
    let signature = BASE64.decode(signature.as_bytes()).map_err(|_| "one is not base64")?;
    if !keys.iter().any(|key| key.has_signed(payload, &signature)) {
        return Err("one is by none of the keys, or not of its payload");
    }
    // Only what was signed is read.
    let detail: Payload =
        serde_json::from_slice(payload).map_err(|_| "one is of something else")?;
    if detail.critical.r#type != PAYLOAD_TYPE {
        return Err("one is of something else");
    }
    if !digests.iter().any(|digest| digest.as_str() == detail.critical.image.digest) {
        return Err("one is of another image");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };

    fn pem(prefix: &[u8], key: &[u8]) -> Vec<u8> {
        let der = [prefix, key].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
            .into_bytes()
    }

    fn payload(digest: &Digest, kind: &str) -> Vec<u8> {
        serde_json::json!({"critical": {
            "identity": {"docker-reference": "x"}, "image": {"docker-manifest-digest": digest.as_str()},
            "type": kind}, "optional": null})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn only_a_signature_by_a_key_of_this_image_counts() {
        let random = SystemRandom::new();
        let pair = |()| {
            let der =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.as_ref(), &random)
                .unwrap()
        };
        let (mine, other) = (pair(()), pair(()));
        let key = Key::parse(&pem(P256, mine.public_key().as_ref())).unwrap();
        let (image, another) = (Digest::of(b"image"), Digest::of(b"another"));
        let sign = |by: &EcdsaKeyPair, payload: &[u8]| {
            BASE64.encode(by.sign(&random, payload).unwrap().as_ref())
        };
        let counts = |payload: &[u8], signature: &str| {
            super::counts(
                payload,
                signature,
                std::slice::from_ref(&image),
                std::slice::from_ref(&key),
            )
        };
        let good = payload(&image, PAYLOAD_TYPE);
        assert_eq!(counts(&good, &sign(&mine, &good)), Ok(()));
        for (payload, signature) in [
            (good.clone(), sign(&other, &good)),
            (payload(&another, PAYLOAD_TYPE), sign(&mine, &good)),
            (payload(&another, PAYLOAD_TYPE), sign(&mine, &payload(&another, PAYLOAD_TYPE))),
            (payload(&image, "attestation"), sign(&mine, &payload(&image, "attestation"))),
            (b"{}".to_vec(), sign(&mine, b"{}")),
            (good.clone(), "%".into()),
        ] {
            assert!(counts(&payload, &signature).is_err(), "{}", String::from_utf8_lossy(&payload));
        }
    }

    #[test]
    fn keys_of_both_kinds_are_read_and_others_refused() {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
        let key = Key::parse(&pem(ED, pair.public_key().as_ref())).unwrap();
        assert!(key.has_signed(b"x", pair.sign(b"x").as_ref()));
        assert!(!key.has_signed(b"y", pair.sign(b"x").as_ref()));
        assert!(Key::parse(&pem(P256, &[4; 64])).is_none());
        assert!(
            Key::parse(b"-----BEGIN PUBLIC KEY-----\n????\n-----END PUBLIC KEY-----\n").is_none()
        );
        assert!(Key::parse(b"").is_none());
    }
}
