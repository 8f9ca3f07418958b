// SPDX-License-Identifier: Apache-2.0
//! One layer: compressed bytes in, a checked directory out, in one pass.
//!
//! ```text
//! bytes → digest of the blob → inflate → diff id → unpack
//! ```
//!
//! The rule: a layer is good only if every byte, also those behind the archive's end, went through
//! both digests and both are right.

use crate::digest::{Digest, Hashing};
use crate::error::{Cause, SharedIo};
use crate::unpack::{self, Unpacked};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

const BUFFER_BYTES: usize = 128 << 10;
/// Most bytes that unpacking may look back at within a zstd frame.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What a layer must turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The blob's digest and size, where they are known (an old archive does not say them).
    pub(crate) blob: Option<(Digest, u64)>,
    /// The digest of what it inflates to.
    pub(crate) diff_id: Digest,
}

impl Expected {
    fn name(&self) -> String {
        self.blob.as_ref().map_or(&self.diff_id, |(digest, _)| digest).to_string()
    }
}

/// Unpacks `bytes` into the empty directory `root` and checks all of it.
pub(crate) fn unpack(
    bytes: impl Read,
    expected: &Expected,
    root: OwnedFd,
) -> Result<Unpacked, Cause> {
    let kind = expected.blob.as_ref().map_or(&expected.diff_id, |(digest, _)| digest);
    let mut blob = BufReader::with_capacity(BUFFER_BYTES, Hashing::new(bytes, kind.hasher()));
    let inner = inflated(&mut blob, expected, root);
    let failed = match inner {
        // What is hostile, or our own trouble, is told as such.
        Err(cause) if !is_damage(&cause) => return Err(cause),
        other => other,
    };
    // Damage shows in many ways; the blob's digest says it best. So all of it is read.
    let read = |source: io::Error| Cause::Layer {
        layer: expected.name(),
        source: unpack::Error::Read { source: SharedIo::new(source) },
    };
    // What the buffer holds was counted already.
    let (size, digest) = blob.into_inner().finish().map_err(read)?;
    if let Some((want, want_size)) = &expected.blob {
        let what = || format!("layer {want}");
        if size != *want_size {
            return Err(Cause::WrongSize { what: what(), want: *want_size, got: size });
        }
        if digest != *want {
            return Err(Cause::WrongDigest {
                what: what(),
                want: want.to_string(),
                got: digest.to_string(),
            });
        }
    }
    failed
}

fn is_damage(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::WrongDiffId { .. }
            | Cause::Layer {
                source: unpack::Error::Malformed { .. } | unpack::Error::Read { .. },
                ..
            }
    )
}

fn inflated(
    blob: &mut impl BufRead,
    expected: &Expected,
    root: OwnedFd,
) -> Result<Unpacked, Cause> {
    let layer = |source| Cause::Layer { layer: expected.name(), source };
    let read = |source| layer(unpack::Error::Read { source: SharedIo::new(source) });
    let plain = decoder(blob).map_err(read)?;
    let plain = Hashing::new(plain, expected.diff_id.hasher());
    let (unpacked, plain) = unpack::unpack(plain, root).map_err(layer)?;
    let (_, diff_id) = plain.finish().map_err(read)?;
    if diff_id != expected.diff_id {
        return Err(Cause::WrongDiffId {
            layer: expected.name(),
            want: expected.diff_id.to_string(),
            got: diff_id.to_string(),
        });
    }
    Ok(unpacked)
}

/// Inflates what is compressed. The bytes tell, not the media type: registries mix them up.
pub(crate) fn decoder<'a>(bytes: &'a mut impl BufRead) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(4);
    bytes.by_ref().take(4).read_to_end(&mut start)?;
    let is_gzip = start.starts_with(&[0x1f, 0x8b]);
    let is_zstd = start == [0x28, 0xb5, 0x2f, 0xfd]
        || (start.len() == 4 && start[0] & 0xf0 == 0x50 && start[1..] == [0x2a, 0x4d, 0x18]);
    let all = io::Cursor::new(start).chain(bytes);
    if is_gzip {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(all)));
    }
    if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(all)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(all))
}
