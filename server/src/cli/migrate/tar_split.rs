// SPDX-License-Identifier: Apache-2.0
//! A layer as containers/storage keeps it, put together again: its headers and padding in tar-split's form (a
//! JSON object per line, compressed by gzip), the content of its files in a directory.
//!
//! The result is the archive to the byte, or its digest is wrong, which the daemon finds out.

use super::root::Root;
use data_encoding::BASE64;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Longest line: the padding behind an archive is one entry.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The number of an entry that stands for the content of a file.
const FILE: u32 = 1;
/// The number of an entry that has its bytes in itself.
const SEGMENT: u32 = 2;

/// One line of the list.
#[derive(Deserialize)]
struct Entry {
    r#type: u32,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

/// The archive of the layer.
pub(crate) struct Reassembled {
    root: Arc<Root>,
    lines: BufReader<MultiGzDecoder<File>>,
    directory: PathBuf,
    current: Box<dyn Read + Send>,
}

impl Reassembled {
    /// Begins with the compressed lines in `headers`, and the files of the layer in `directory`.
    pub(crate) fn new(root: Arc<Root>, headers: File, directory: PathBuf) -> Self {
        let lines = BufReader::new(MultiGzDecoder::new(headers));
        Self { root, lines, directory, current: Box::new(io::empty()) }
    }

    /// The bytes of the next entry; `None` at the end.
    fn next_entry(&mut self) -> io::Result<Option<Box<dyn Read + Send>>> {
        let mut line = Vec::new();
        let got = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if got == 0 {
            return Ok(None);
        }
        if got as u64 == LINE_BYTES_MAX {
            return Err(malformed("a line is too long"));
        }
        let entry: Entry =
            serde_json::from_slice(&line).map_err(|err| malformed(&err.to_string()))?;
        match entry.r#type {
            SEGMENT => {
                let bytes = BASE64.decode(entry.payload.unwrap_or_default().as_bytes());
                let bytes = bytes.map_err(|err| malformed(&err.to_string()))?;
                Ok(Some(Box::new(io::Cursor::new(bytes))))
            }
            // Links, devices and directories have no content.
            FILE if entry.size == 0 => Ok(Some(Box::new(io::empty()))),
            FILE => {
                let path = self.directory.join(relative(&name(&entry)?)?);
                let opened = self.root.file(&path);
                let opened = opened.map_err(|err| io::Error::other(err.to_string()))?;
                let (file, size) = opened.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, self.root.shown(&path))
                })?;
                if size != entry.size {
                    let why = format!("{} was changed", self.root.shown(&path));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Ok(Some(Box::new(file.take(size))))
            }
            other => Err(malformed(&format!("it has an entry of type {other}"))),
        }
    }
}

impl Read for Reassembled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.current.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            match self.next_entry()? {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
    }
}

/// The name of a file, whose bytes need not be UTF-8.
fn name(entry: &Entry) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    match (&entry.name_raw, &entry.name) {
        (Some(raw), _) => {
            let bytes = BASE64.decode(raw.as_bytes());
            let bytes = bytes.map_err(|err| malformed(&err.to_string()))?;
            Ok(std::ffi::OsString::from_vec(bytes).into())
        }
        (None, Some(name)) => Ok(name.into()),
        (None, None) => Err(malformed("a file has no name")),
    }
}

/// The name below the directory of the layer.
fn relative(name: &Path) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(malformed("a name leads out of the layer"));
            }
        }
    }
    Ok(path)
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the list of the layer's headers: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read(lines: &str, files: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("diff/d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join("diff").join(name), text).unwrap();
        }
        let path = dir.path().join("split.gz");
        let mut gzip = flate2::write::GzEncoder::new(
            File::options().write(true).create_new(true).open(&path).unwrap(),
            flate2::Compression::fast(),
        );
        gzip.write_all(lines.as_bytes()).unwrap();
        gzip.finish().unwrap();
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let headers = File::open(&path).unwrap();
        let mut bytes = Vec::new();
        Reassembled::new(root, headers, "/diff".into()).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn segments_and_files_become_the_archive_again() {
        let lines = "{\"type\":2,\"payload\":\"aGVhZA==\",\"position\":0}\n\
            {\"type\":1,\"name\":\"./d/file\",\"size\":3,\"payload\":\"AAAAAAAAAAA=\",\"position\":1}\n\
            {\"type\":2,\"payload\":\"AAA=\",\"position\":2}\n\
            {\"type\":1,\"name\":\"d/\",\"payload\":null,\"position\":3}\n\
            {\"type\":1,\"name_raw\":\"/2Y=\",\"size\":1,\"position\":4}\n";
        let first: String = lines.lines().take(4).map(|line| format!("{line}\n")).collect();
        assert_eq!(read(&first, &[("d/file", "abc")]).unwrap(), b"headabc\0\0");
        let missing = read(lines, &[("d/file", "abc")]).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn odd_lines_are_errors() {
        for (line, why) in [
            ("{\"type\":1,\"name\":\"../x\",\"size\":1}", "leads out"),
            ("{\"type\":1,\"name\":\"d/file\",\"size\":9}", "was changed"),
            ("{\"type\":1,\"size\":1}", "no name"),
            ("{\"type\":7}", "type 7"),
            ("{\"type\":2,\"payload\":\"%\"}", "headers"),
            ("no json", "headers"),
        ] {
            let error = read(line, &[("d/file", "abc")]).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
