// SPDX-License-Identifier: Apache-2.0
//! Header blocks of SPDY/3: names and values behind their lengths, in one zlib stream per direction
//! that both ends begin with the same dictionary.
//!
//! Each block is bounded once inflated; the stream of a block that is refused cannot go on, so the
//! session ends with it.

use crate::session::Headers;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Longest block once inflated, in bytes: a handful of short headers is all that is ever sent.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;

/// The words that stand in the dictionary behind their lengths, then the text that follows them.
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

/// The dictionary that both ends know.
fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split(' ').map(|word| word.replace('_', " ")) {
        bytes.extend(u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(word.as_bytes());
    }
    bytes.extend(TEXT.as_bytes());
    bytes
}

/// The block cannot be understood; neither can any after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad;

/// Reads blocks.
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
    /// Takes one block apart.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, Bad> {
        parse(&self.inflated(block)?).ok_or(Bad)
    }

    fn inflated(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Bad> {
        let mut found = Vec::with_capacity(4096);
        let mut told = false;
        loop {
            let before = self.inflate.total_in();
            let room_before = found.len();
            let result = self.inflate.decompress_vec(block, &mut found, FlushDecompress::Sync);
            let read = usize::try_from(self.inflate.total_in() - before).map_err(|_| Bad)?;
            block = block.get(read..).ok_or(Bad)?;
            match result {
                Err(err) if err.needs_dictionary().is_some() && !told => {
                    told = true;
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| Bad)?;
                    continue;
                }
                Err(_) => return Err(Bad),
                Ok(_) => {}
            }
            if found.len() == found.capacity() {
                if found.len() >= BLOCK_BYTES_MAX {
                    return Err(Bad);
                }
                found.reserve(found.len());
            } else if block.is_empty() || (read == 0 && found.len() == room_before) {
                return if block.is_empty() { Ok(found) } else { Err(Bad) };
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

/// Writes blocks.
#[derive(Debug)]
pub struct Writer {
    deflate: Compress,
}

impl Writer {
    pub fn new() -> Result<Self, Bad> {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&dictionary()).map_err(|_| Bad)?;
        Ok(Self { deflate })
    }

    /// Makes one block.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, Bad> {
        let length = |text: &[u8]| u32::try_from(text.len()).map(u32::to_be_bytes).map_err(|_| Bad);
        let mut plain = u32::try_from(headers.len()).map_err(|_| Bad)?.to_be_bytes().to_vec();
        for (name, value) in headers {
            for text in [name, value] {
                plain.extend(length(text.as_bytes())?);
                plain.extend(text.as_bytes());
            }
        }
        // What cannot be made smaller grows by a few bytes, and the flush adds some.
        let mut block = Vec::with_capacity(plain.len() * 2 + 128);
        let before = self.deflate.total_in();
        self.deflate.compress_vec(&plain, &mut block, FlushCompress::Sync).map_err(|_| Bad)?;
        let read = usize::try_from(self.deflate.total_in() - before).map_err(|_| Bad)?;
        if read == plain.len() && block.len() < block.capacity() { Ok(block) } else { Err(Bad) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Its checksum is what zlib streams name it by.
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
        /// One after another, as they depend on what came before.
        #[test]
        fn blocks_come_back_as_they_were(
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
        fn noise_is_refused_or_read_but_never_a_panic(noise: Vec<u8>) {
            let _either = Reader::default().read(&noise);
            let _either = parse(&noise);
        }
    }

    #[test]
    fn a_block_that_swells_is_refused() {
        let long = "x".repeat(BLOCK_BYTES_MAX * 4);
        let block = Writer::new().unwrap().write(&[("a", &long)]).unwrap();
        assert!(block.len() < 4096);
        assert_eq!(Reader::default().read(&block), Err(Bad));
    }
}
