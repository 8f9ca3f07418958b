// SPDX-License-Identifier: Apache-2.0
//! Header blocks of SPDY/3: names and values, each after its length, in one zlib stream per direction that
//! begins with a fixed dictionary.
//!
//! The inflated size of a block is bounded. After a refused block the zlib stream cannot continue, so the
//! session ends.

use crate::session::Headers;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Longest inflated block, in bytes. Clients send a few short headers.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;

/// The words of the dictionary, each after its length, then the text after them.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match \
    if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url \
    public set-cookie keep-alive origin";
const TEXT: &str = "1001012012022052063003023033043053063074024054064074084094104114124134144154164\
    17502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request\
    401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Servi\
    ce UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri\
    , Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtm\
    l+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso\
    -8859-1,utf-,*,enq=0.";

/// The dictionary of both ends.
fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split(' ').map(|word| word.replace('_', " ")) {
        bytes.extend(u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(word.as_bytes());
    }
    bytes.extend(TEXT.as_bytes());
    bytes
}

/// An error: the block is invalid, and so is every later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidBlock;

/// Decodes the header blocks of one direction.
#[derive(Debug)]
pub struct Reader {
    inflate: Decompress,
}

impl Default for Reader {
    fn default() -> Self {
        Self { inflate: Decompress::new(true) }
    }
}

impl Reader {
    /// Decodes one block.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, InvalidBlock> {
        parse(&self.inflated(block)?).ok_or(InvalidBlock)
    }

    fn inflated(&mut self, mut block: &[u8]) -> Result<Vec<u8>, InvalidBlock> {
        let mut found = Vec::with_capacity(4096);
        let mut told = false;
        loop {
            let before = self.inflate.total_in();
            let room_before = found.len();
            let result = self.inflate.decompress_vec(block, &mut found, FlushDecompress::Sync);
            let read =
                usize::try_from(self.inflate.total_in() - before).map_err(|_| InvalidBlock)?;
            block = block.get(read..).ok_or(InvalidBlock)?;
            match result {
                Err(err) if err.needs_dictionary().is_some() && !told => {
                    told = true;
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| InvalidBlock)?;
                    continue;
                }
                Err(_) => return Err(InvalidBlock),
                Ok(_) => {}
            }
            if found.len() == found.capacity() {
                if found.len() >= BLOCK_BYTES_MAX {
                    return Err(InvalidBlock);
                }
                found.reserve(found.len());
            } else if block.is_empty() || (read == 0 && found.len() == room_before) {
                return if block.is_empty() { Ok(found) } else { Err(InvalidBlock) };
            }
        }
    }
}

fn parse(mut bytes: &[u8]) -> Option<Headers> {
    let count = number(&mut bytes)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut bytes)?.to_ascii_lowercase();
        let value = text(&mut bytes)?;
        if headers.insert(name, value).is_some() {
            return None;
        }
    }
    bytes.is_empty().then_some(headers)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*head))
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// Encodes the header blocks of one direction.
#[derive(Debug)]
pub struct Writer {
    deflate: Compress,
}

impl Writer {
    pub fn new() -> Result<Self, InvalidBlock> {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&dictionary()).map_err(|_| InvalidBlock)?;
        Ok(Self { deflate })
    }

    /// Encodes one block.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, InvalidBlock> {
        let length =
            |text: &[u8]| u32::try_from(text.len()).map(u32::to_be_bytes).map_err(|_| InvalidBlock);
        let mut plain =
            u32::try_from(headers.len()).map_err(|_| InvalidBlock)?.to_be_bytes().to_vec();
        for (name, value) in headers {
            for text in [name, value] {
                plain.extend(length(text.as_bytes())?);
                plain.extend(text.as_bytes());
            }
        }
        // Incompressible input grows by a few bytes, and the flush adds some.
        let mut block = Vec::with_capacity(plain.len() * 2 + 128);
        let before = self.deflate.total_in();
        self.deflate
            .compress_vec(&plain, &mut block, FlushCompress::Sync)
            .map_err(|_| InvalidBlock)?;
        let read = usize::try_from(self.deflate.total_in() - before).map_err(|_| InvalidBlock)?;
        if read == plain.len() && block.len() < block.capacity() {
            Ok(block)
        } else {
            Err(InvalidBlock)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A zlib stream identifies its dictionary by this checksum.
    #[test]
    fn the_dictionary_is_the_one_of_spdy_3() {
        let bytes = dictionary();
        assert_eq!(bytes.len(), 1423);
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &bytes {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    proptest! {
        /// Several blocks in order, because each depends on the earlier ones.
        #[test]
        fn blocks_are_decoded_as_they_were_encoded(
            blocks in proptest::collection::vec(
                proptest::collection::hash_map("[a-z-]{1,20}", ".{0,300}", 0..6), 1..6),
        ) {
            let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::default());
            for headers in blocks {
                let pairs: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let block = writer.write(&pairs).unwrap();
                prop_assert_eq!(reader.read(&block), Ok(headers));
            }
        }

        #[test]
        fn random_bytes_are_decoded_or_refused(noise: Vec<u8>) {
            let _either = Reader::default().read(&noise);
            let _either = parse(&noise);
        }
    }

    #[test]
    fn a_block_with_a_large_inflated_size_is_refused() {
        let long = "x".repeat(BLOCK_BYTES_MAX * 4);
        let block = Writer::new().unwrap().write(&[("a", &long)]).unwrap();
        assert!(block.len() < 4096);
        assert_eq!(Reader::default().read(&block), Err(InvalidBlock));
    }
}
