// SPDX-License-Identifier: Apache-2.0
//! Digests: `sha256:…` and `sha512:…`, and readers and writers that compute them.
//!
//! The rule: a [`Digest`] is well formed, so its hexadecimal part may be a file name.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::io::{self, Read, Write};

/// A well-formed digest of a kind that we can check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    text: String,
    colon: usize,
}

impl Digest {
    /// Takes `algorithm:hex` with an algorithm and length that we can check.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return None,
        };
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != length || !hex.bytes().all(lower) {
            return None;
        }
        Some(Self { text: text.to_owned(), colon: algorithm.len() })
    }

    /// The SHA-256 digest of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::sha256(&HEXLOWER.encode(&Sha256::digest(bytes)))
    }

    fn sha256(hex: &str) -> Self {
        Self { text: format!("sha256:{hex}"), colon: 6 }
    }

    /// Without the algorithm.
    pub(crate) fn hex(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The whole digest: `algorithm:hex`.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// A hasher of the same algorithm.
    pub(crate) fn hasher(&self) -> Hasher {
        if self.text.starts_with("sha512") {
            Hasher::Sha512(Box::new(Sha512::new()))
        } else {
            Hasher::Sha256(Sha256::new())
        }
    }

    /// The digest of `bytes`, of the same kind as this one.
    pub(crate) fn same_kind_of(&self, bytes: &[u8]) -> Self {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A running computation of a digest.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// A SHA-256 hasher.
    pub(crate) fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// The first 32 bytes of the digest: all of SHA-256.
    pub(crate) fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        match self {
            Self::Sha256(hasher) => bytes.copy_from_slice(&hasher.finalize()),
            Self::Sha512(hasher) => bytes.copy_from_slice(&hasher.finalize()[..32]),
        }
        bytes
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::sha256(&HEXLOWER.encode(&hasher.finalize())),
            Self::Sha512(hasher) => {
                Digest { text: format!("sha512:{}", HEXLOWER.encode(&hasher.finalize())), colon: 6 }
            }
        }
    }
}

/// Reads from `inner`, counting and hashing what passes.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R, hasher: Hasher) -> Self {
        Self { inner, hasher, count: 0 }
    }

    /// Reads what is left and gives count and digest of everything.
    pub(crate) fn finish(mut self) -> io::Result<(u64, Digest)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.count, self.hasher.finish()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        self.count += got as u64;
        Ok(got)
    }
}

/// Writes to `inner`, hashing what passes.
pub(crate) struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Hashed<W> {
    pub(crate) fn new(inner: W, hasher: Hasher) -> Self {
        Self { inner, hasher }
    }

    /// The inner writer and the digest of everything.
    pub(crate) fn finish(self) -> (W, Digest) {
        (self.inner, self.hasher.finish())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest of these bytes in its written form, `sha256:…`.
pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_that_can_be_checked_are_taken() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&good).map(|digest| digest.hex().len()), Some(64));
        assert!(Digest::parse(&format!("sha512:{}", "0a".repeat(64))).is_some());
        for bad in [
            "".to_owned(),
            "sha256:".into(),
            "sha256:../../../etc/passwd".into(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("md5:{}", "0a".repeat(16)),
        ] {
            assert_eq!(Digest::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_digest_is_of_all_bytes_also_those_nobody_read() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        let mut reader = Hashing::new(&b"hello"[..], Digest::of(b"").hasher());
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        assert_eq!(reader.finish().unwrap(), (5, Digest::of(b"hello")));
    }
}
