// SPDX-License-Identifier: Apache-2.0
//! One layer: compressed bytes in, a checked directory out, in one pass and on two threads.
//!
//! ```text
//! bytes → digest of the blob → inflate ──chunks──→ diff id → unpack, file list
//!         (a thread of its own)                    (the caller's)
//! ```
//!
//! The rule: a layer is complete only if every byte, also those after the archive's end, went through
//! both digests and both match.
//!
//! Two threads, because decompression takes about as long as all the rest: one layer alone keeps two
//! processors busy. The buffers between them are bounded and reused.

pub(crate) mod progress;
pub(crate) mod tee_reader;

use crate::digest::{Digest, Hashing};
use crate::error::Cause;
use crate::file_list::Writer;
use crate::limits::{Ended, ImpliedNames, Limits, Shift, Window, Work, ZSTD_WINDOW_BYTES};
use crate::unpack::{self, Unpacked};
use progress::LayerProgress;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const BUFFER_BYTES: usize = 128 << 10;
/// Chunks between the two threads.
const CHUNKS: usize = 8;

/// The digests that a layer must have.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The blob's digest and size, if known (`docker save` does not state them).
    pub(crate) blob: Option<(Digest, u64)>,
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
}

impl Expected {
    fn name(&self) -> String {
        self.blob.as_ref().map_or(&self.diff_id, |(digest, _)| digest).to_string()
    }
}

/// Unpacks `bytes` into the empty directory `root` and checks all of it.
pub(crate) fn unpack(
    bytes: impl Read + Send,
    expected: &Expected,
    root: OwnedFd,
    limits: Limits,
    file_list: &mut Writer,
    watch: &LayerProgress,
    work: &Work,
) -> Result<Unpacked, Cause> {
    let (full, inflated) = sync_channel(CHUNKS);
    let (back, empty) = sync_channel(CHUNKS);
    // Damage shows in many ways; the blob's digest says it best. So all of it is read then.
    let read_all = AtomicBool::new(false);
    let read = |source: io::Error| Cause::Layer {
        layer: expected.name(),
        source: unpack::Error::of_read(source),
    };
    let names = work.implied_names();
    let (unpacked, blob) = std::thread::scope(|scope| {
        let inflating =
            std::thread::Builder::new().name("inflate".into()).spawn_scoped(scope, || {
                let shift = work.shift(limits.seconds);
                inflate(bytes, expected, &full_into(full, empty), &read_all, &shift)
            });
        let shift = work.shift(limits.seconds);
        let inflated = Inflated { from: inflated, back, chunk: Vec::new(), at: 0, watch, shift };
        let unpacked = checked(inflated, expected, root, (limits, names), file_list, &read_all);
        let blob = inflating.and_then(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the inflating thread panicked")))
        });
        (unpacked, blob)
    });
    match unpacked {
        // A hostile layer, or a failure of this host, is reported as such.
        Err(cause) if !is_damage(&cause) => return Err(cause),
        Ok(_) | Err(_) => {}
    }
    let (size, digest) = blob.map_err(read)?;
    if let Some((want, want_size)) = &expected.blob {
        let what = || format!("layer {want}");
        if size != *want_size {
            return Err(Cause::WrongSize { what: what(), want: *want_size, got: Some(size) });
        }
        if digest != *want {
            return Err(Cause::WrongDigest {
                what: what(),
                want: want.to_string(),
                got: digest.to_string(),
            });
        }
    }
    unpacked
}

fn is_damage(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::WrongDiffId { .. }
            | Cause::Layer {
                source: unpack::Error::Malformed { .. }
                    | unpack::Error::Compression { .. }
                    | unpack::Error::Read { .. },
                ..
            }
    )
}

/// The unpacking side.
fn checked(
    inflated: Inflated<'_>,
    expected: &Expected,
    root: OwnedFd,
    within: (Limits, ImpliedNames),
    file_list: &mut Writer,
    read_all: &AtomicBool,
) -> Result<Unpacked, Cause> {
    let layer = |source| Cause::Layer { layer: expected.name(), source };
    let inflated = Hashing::new(inflated, expected.diff_id.hasher());
    let place = root.try_clone();
    let unpacked = unpack::unpack(inflated, root, within, file_list).map_err(layer);
    let unpacked = unpacked.map_err(|cause| match place {
        // Now, before the files of this layer are removed.
        Ok(place) if cause.is_no_space() && hull_sys::lacks_inodes(&place) => {
            Cause::NoInodes { what: format!("layer {}", expected.name()) }
        }
        Ok(_) | Err(_) => cause,
    });
    let unpacked = unpacked.and_then(|(unpacked, inflated)| {
        let read = |source| layer(unpack::Error::of_read(source));
        let (_, diff_id) = inflated.finish().map_err(read)?;
        if diff_id != expected.diff_id {
            return Err(Cause::WrongDiffId {
                layer: expected.name(),
                want: expected.diff_id.to_string(),
                got: diff_id.to_string(),
            });
        }
        Ok(unpacked)
    });
    if unpacked.as_ref().err().is_none_or(is_damage) {
        read_all.store(true, Ordering::SeqCst);
    }
    unpacked
}

/// Decompressed bytes, or the error that ended them.
type Chunk = io::Result<Vec<u8>>;

struct Chunks {
    full: SyncSender<Chunk>,
    empty: Receiver<Vec<u8>>,
}

fn full_into(full: SyncSender<Chunk>, empty: Receiver<Vec<u8>>) -> Chunks {
    Chunks { full, empty }
}

/// The decompressing side. Returns size and digest of the blob, as far as it was read.
fn inflate(
    bytes: impl Read,
    expected: &Expected,
    chunks: &Chunks,
    read_all: &AtomicBool,
    shift: &Shift,
) -> io::Result<(u64, Digest)> {
    let kind = expected.blob.as_ref().map_or(&expected.diff_id, |(digest, _)| digest);
    let mut blob = BufReader::with_capacity(BUFFER_BYTES, Hashing::new(bytes, kind.hasher()));
    let is_wanted = match send(&mut blob, chunks, shift) {
        Ok(is_wanted) => is_wanted,
        Err(err) => chunks.full.send(Err(err)).is_ok(),
    };
    // Nobody takes it any more: the flag was set before that.
    if !is_wanted && !read_all.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // What the buffer holds was counted already.
    blob.into_inner().finish()
}

/// Decompresses all of it; false if the other side no longer reads.
fn send(blob: &mut impl BufRead, chunks: &Chunks, shift: &Shift) -> io::Result<bool> {
    let mut inflated = decoder_within(blob, Some(shift.work()))?;
    loop {
        shift.check()?;
        let mut chunk = chunks.empty.try_recv().unwrap_or_default();
        chunk.resize(BUFFER_BYTES, 0);
        let mut filled = 0;
        while filled < chunk.len() {
            match inflated.read(&mut chunk[filled..])? {
                0 => break,
                got => filled += got,
            }
        }
        let is_last = filled < chunk.len();
        chunk.truncate(filled);
        if chunks.full.send(Ok(chunk)).is_err() {
            return Ok(false);
        }
        if is_last {
            return Ok(true);
        }
    }
}

/// Reads what the other thread decompresses.
struct Inflated<'a> {
    from: Receiver<Chunk>,
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    watch: &'a LayerProgress,
    shift: Shift,
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            self.shift.check()?;
            self.watch.unpacker_waits(true);
            let next = self.from.recv();
            self.watch.unpacker_waits(false);
            let Ok(next) = next else { return Ok(0) };
            let done = std::mem::replace(&mut self.chunk, next?);
            self.watch.inflates(self.chunk.len() as u64);
            self.at = 0;
            // When there are enough of them it is simply given up.
            drop(self.back.try_send(done));
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Decompresses gzip and zstd, detected by the first bytes: media types are often wrong.
pub(crate) fn decoder<'a>(bytes: &'a mut impl BufRead) -> io::Result<Box<dyn Read + 'a>> {
    decoder_within(bytes, None)
}

/// The same for a layer of `work`, whose zstd windows are limited together.
fn decoder_within<'a>(
    bytes: &'a mut impl BufRead,
    work: Option<&Work>,
) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(ZSTD_START_BYTES);
    bytes.by_ref().take(ZSTD_START_BYTES as u64).read_to_end(&mut start)?;
    let is_gzip = start.starts_with(&[0x1f, 0x8b]);
    let is_skippable =
        start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
    let is_zstd = start.starts_with(&ZSTD_MAGIC) || is_skippable;
    let window = zstd_window(&start);
    let all = io::Cursor::new(start).chain(bytes);
    if is_gzip {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(all)));
    }
    if is_zstd {
        let reserved = work.map(|work| work.window(window)).transpose()?;
        let mut decoder = zstd::stream::read::Decoder::with_buffer(all)?;
        decoder.window_log_max(window.ilog2())?;
        return Ok(Box::new(Reserved { decoder, _window: reserved }));
    }
    Ok(Box::new(all))
}

/// A decoder with the memory of its window.
struct Reserved<R> {
    decoder: R,
    _window: Option<Window>,
}

impl<R: Read> Read for Reserved<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| {
            // The library has one kind for all that it refuses.
            let is_decoders =
                error.kind() == io::ErrorKind::Other && error.raw_os_error().is_none();
            if is_decoders && Ended::of(&error).is_none() {
                return io::Error::new(io::ErrorKind::InvalidData, error);
            }
            error
        })
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The magic number, the frame header's descriptor, and the window's descriptor.
const ZSTD_START_BYTES: usize = 6;
/// The window in bytes that every decoder should support (RFC 8878, section 3.1.1.1.2).
const ZSTD_WINDOW_COMMON: u64 = 8 << 20;

/// The largest window that frames of this stream may have, in bytes, a power of two.
///
/// It is that of the first frame (RFC 8878, section 3.1.1.1), and at least what is common. If the first frame
/// states none (it is skippable, or as large as its content), later frames may have any that is allowed.
fn zstd_window(start: &[u8]) -> u64 {
    let most = ZSTD_WINDOW_BYTES.default;
    let [magic @ .., descriptor, window] = start else { return most };
    let is_single_segment = descriptor & 0b10_0000 != 0;
    if magic != ZSTD_MAGIC || is_single_segment {
        return most;
    }
    let base = 1_u64 << (10 + (window >> 3));
    let size = base + base / 8 * u64::from(window & 0b111);
    size.next_power_of_two().clamp(ZSTD_WINDOW_COMMON, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// A skippable frame: its magic number, its length, any content.
    fn skippable(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&[0x5e, 0x2a, 0x4d, 0x18], &length[..], bytes].concat()
    }

    fn inflated(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut inflated = Vec::new();
        decoder(&mut bytes)?.read_to_end(&mut inflated)?;
        Ok(inflated)
    }

    #[test]
    fn a_stream_has_the_window_of_its_first_frame() {
        let windowed = |log: u32| {
            let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
            out.window_log(log).unwrap();
            out.write_all(&vec![0; 40 << 20]).unwrap();
            out.finish().unwrap()
        };
        for (log, window) in [(10, 8 << 20), (23, 8 << 20), (24, 16 << 20), (25, 32 << 20)] {
            let packed = windowed(log);
            assert_eq!(zstd_window(&packed[..ZSTD_START_BYTES]), window, "{log}");
            assert_eq!(inflated(&packed).unwrap().len(), 40 << 20);
        }
        assert_eq!(zstd_window(&windowed(27)[..ZSTD_START_BYTES]), 32 << 20);
        inflated(&windowed(27)).unwrap_err();
        inflated(&[windowed(20), windowed(25)].concat()).unwrap_err();
        assert_eq!(zstd_window(&skippable(b"first")[..ZSTD_START_BYTES]), 32 << 20);
        assert_eq!(zstd_window(b""), 32 << 20);
    }

    #[test]
    fn layers_in_several_parts_are_inflated_whole() {
        let (one, two) = (vec![1; 70_000], b"two".to_vec());
        let both = [one.as_slice(), &two].concat();
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        for packed in [
            both.clone(),
            // Of parallel compressors, and of those that can be looked into (estargz).
            [gzip(&one), gzip(&two)].concat(),
            [gzip(&one), gzip(b""), gzip(&two)].concat(),
            [zstd(&one), zstd(&two)].concat(),
            // zstd:chunked: where each file begins stands in frames that others skip.
            [skippable(b"first"), zstd(&one), skippable(b"toc"), zstd(&two), skippable(b"footer")]
                .concat(),
        ] {
            assert!(inflated(&packed).unwrap() == both, "{:02x?}", &packed[..4]);
        }
        assert_eq!(inflated(b"").unwrap(), b"");
        let rest = b"TRAILING".as_slice();
        for broken in [
            [gzip(&one).as_slice(), rest].concat(),
            [zstd(&one).as_slice(), rest].concat(),
            gzip(&one)[..30].to_vec(),
            zstd(&one)[..20].to_vec(),
        ] {
            let hint = unpack::Error::of_read(inflated(&broken).unwrap_err()).hint();
            let says = |words: &str| hint.as_ref().is_some_and(|hint| hint.contains(words));
            assert!(says("truncated") && says("extra bytes"), "{hint:?}");
        }
        let of_disk = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        assert_eq!(unpack::Error::of_read(of_disk).hint(), None);
        assert!(inflated(&[gzip(&one), gzip(&two)[..8].to_vec()].concat()).is_err(), "cut");
        assert!(inflated(&zstd(&one)[..20]).is_err(), "cut");
    }
}
