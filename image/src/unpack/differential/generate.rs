// SPDX-License-Identifier: Apache-2.0
//! Makes an archive: a few entries of every type, form and spelling.

use super::header::{Fields, Form, padded, record, seal};
use flate2::{Compression, write::GzEncoder};
use hull_tests::random::Random;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A generated archive.
pub(super) struct Generated {
    pub(super) bytes: Vec<u8>,
    /// Its entries, for the message of a failure.
    pub(super) notes: Vec<String>,
    /// Whether an entry is of a form that GNU tar, Go and Python read in different ways: Hull may refuse it.
    pub(super) is_odd: bool,
    /// The names of directories that come again: GNU tar sets the metadata of the first one last, even on a file that
    /// has replaced it; Go sets that of the last one.
    pub(super) loose: BTreeSet<PathBuf>,
}

/// Most entries of an archive.
const ENTRIES_MAX: usize = 9;

struct Maker<'a> {
    random: &'a mut Random,
    made: Generated,
    /// Names that are taken, with the types of their entries.
    taken: Vec<(Vec<u8>, u8)>,
}

/// Makes an archive.
pub(super) fn archive(random: &mut Random) -> Generated {
    let (bytes, notes, loose) = Default::default();
    let made = Generated { bytes, notes, is_odd: false, loose };
    let mut maker = Maker { random, made, taken: Vec::new() };
    if maker.random.once_in(10) {
        maker.global();
    }
    for _ in 0..=maker.random.below(ENTRIES_MAX) {
        maker.entry();
    }
    maker.end();
    for (name, kind) in &maker.taken {
        let is_again = maker.taken.iter().filter(|(other, _)| other == name).count() > 1;
        if is_again && matches!(kind, b'5' | b'D') {
            maker.made.loose.insert(PathBuf::from(OsString::from_vec(name.clone())));
        }
    }
    if maker.random.once_in(6) {
        maker.compress();
    }
    maker.made
}

impl Maker<'_> {
    fn put(&mut self, fields: &Fields) {
        let mut block = fields.block(self.random);
        seal(self.random, &mut block);
        self.made.bytes.extend_from_slice(&block);
    }

    fn extension(&mut self, kind: u8, body: &[u8]) {
        let form = if kind.is_ascii_uppercase() && kind != b'X' { Form::Gnu } else { Form::Ustar };
        let name: &[u8] = if form == Form::Gnu { b"././@LongLink" } else { b"PaxHeaders.0/x" };
        let mut fields = Fields::new(form, kind, name);
        fields.size = i64::try_from(body.len()).unwrap();
        self.put(&fields);
        self.made.bytes.extend(padded(body));
    }

    fn global(&mut self) {
        let body = match self.random.below(3) {
            0 => record("comment", b"of the whole archive"),
            1 => [record("mtime", b"77.25"), record("uid", b"12")].concat(),
            _ => record("gid", b"3000000"),
        };
        self.made.notes.push(format!("global {}", body.escape_ascii()));
        self.extension(b'g', &body);
    }

    /// A name: one that exists at times, beneath directories that exist at times.
    fn name(&mut self) -> Vec<u8> {
        if self.random.once_in(5) && !self.taken.is_empty() {
            return self.random.pick(&self.taken).0.clone();
        }
        let parts: [&[u8]; 9] = [
            b"a",
            b"b",
            b"c",
            b"d e",
            b"\xff\xfe",
            b"with\\slash",
            b"%41=x",
            b"new\nline",
            b"caf\xc3\xa9",
        ];
        let long = [b'n'; 120];
        let mut name = Vec::new();
        for depth in 0..=self.random.below(3) {
            if depth > 0 {
                name.push(b'/');
            }
            if self.random.once_in(12) {
                name.extend_from_slice(&long[..60 + self.random.below(60)]);
            } else {
                name.extend_from_slice(parts[self.random.below(parts.len())]);
            }
        }
        name
    }

    /// The name as it is written: with dots, slashes, or from the root.
    fn decorated(&mut self, name: &[u8], is_directory: bool) -> Vec<u8> {
        let mut written = match self.random.below(10) {
            0 => [b"./", name].concat(),
            1 => [b"/", name].concat(),
            2 => [b".//", name].concat(),
            _ => name.to_vec(),
        };
        if is_directory && !self.random.once_in(3) {
            written.push(b'/');
        }
        written
    }

    fn entry(&mut self) {
        let kinds = b"0000000000\0\x007755555222111634SSSpqrVDZ";
        let kind = *self.random.pick(&kinds[..]);
        let form = *self.random.pick(&[Form::V7, Form::Ustar, Form::Ustar, Form::Gnu]);
        // `p`, `q` and `r` stand for the three forms of sparse files in extended headers.
        let form = match kind {
            b'S' | b'D' | b'V' => Form::Gnu,
            b'p' | b'q' | b'r' => Form::Ustar,
            _ => form,
        };
        let is_directory = matches!(kind, b'5' | b'D') || (kind == 0 && self.random.once_in(4));
        let name = self.name();
        let written = self.decorated(&name, is_directory);
        let is_directory = is_directory && (kind != 0 || written.ends_with(b"/"));
        let mut fields = Fields::new(form, kind, b"");
        fields.mode = i64::try_from(self.random.below(0o10000)).unwrap();
        if self.random.once_in(6) {
            fields.mode |= 0o100_000;
        }
        fields.uid = *self.random.pick(&[0, 1, 1000, 65_534, 3_000_000, 4_000_000_000]);
        fields.gid = *self.random.pick(&[0, 5, 2000, 2_097_152]);
        fields.mtime = *self.random.pick(&[0, 1, 1_500_000_000, -1, -86_400, 9_000_000_000]);
        let mut records = self.records(&mut fields);
        let mut data = Vec::new();
        match kind {
            b'1' | b'2' => {
                let target = self.target(kind);
                self.link(&mut fields, &mut records, &target);
            }
            b'3' | b'4' => {
                let device = |random: &mut Random| i64::try_from(1 + random.below(200)).unwrap();
                fields.device = (device(self.random), device(self.random));
            }
            b'S' | b'p' | b'q' | b'r' => {
                self.sparse(kind, &written, fields, &records);
                self.taken.push((name, b'0'));
                return;
            }
            b'D' => data = b"Yfile\0Nother\0\0".to_vec(),
            b'Z' => {
                self.made.is_odd = true;
                data = b"of an unknown type".to_vec();
            }
            b'0' | 0 | b'7' if !is_directory => {
                let size = *self.random.pick(&[0, 1, 511, 512, 513, 5000]);
                data = (0..size).map(|_| u8::try_from(self.random.below(256)).unwrap()).collect();
            }
            _ => {}
        }
        fields.size = i64::try_from(data.len()).unwrap();
        let has_no_content = matches!(kind, b'1'..=b'6') || (kind == 0 && is_directory);
        if has_no_content && self.random.once_in(3) {
            let size = *self.random.pick(&[1, 512, 700, 4096]);
            if self.random.once_in(3) && form != Form::V7 {
                records.extend(record("size", size.to_string().as_bytes()));
            } else {
                fields.size = size;
            }
        } else if !data.is_empty() && self.random.once_in(12) && form == Form::Ustar {
            records.extend(record("size", data.len().to_string().as_bytes()));
            fields.size = 0;
        }
        self.named(&mut fields, &written, records);
        self.note(&fields, &written);
        self.put(&fields);
        self.made.bytes.extend(padded(&data));
        if kind != b'V' {
            self.taken.push((name, if is_directory { b'5' } else { kind }));
        }
    }

    fn note(&mut self, fields: &Fields, written: &[u8]) {
        // A device without numbers, as V7 has it, is a mark of overlayfs, to which nothing can be linked.
        self.made.is_odd |= fields.form == Form::V7 && matches!(fields.kind, b'3' | b'4');
        let note = format!("{} {}", written.escape_ascii(), fields.shown());
        self.made.notes.push(note);
    }

    /// Records of an extended header, which replace fields.
    fn records(&mut self, fields: &mut Fields) -> Vec<u8> {
        let mut records = Vec::new();
        if fields.form == Form::V7 || !self.random.once_in(3) {
            return records;
        }
        for _ in 0..self.random.below(4) {
            let (key, value): (&str, &[u8]) = match self.random.below(9) {
                0 => ("mtime", b"1234567890.123456789"),
                1 => ("mtime", b"-5.75"),
                2 => ("mtime", b"77"),
                3 => ("uid", b"4294967294"),
                4 => ("gid", b"70000"),
                5 => ("comment", b""),
                6 => ("uname", b"\xff"),
                7 => ("SCHILY.xattr.user.one", b"value\n\0with anything"),
                _ => ("atime", b"1.5"),
            };
            if key.contains("xattr") && !matches!(fields.kind, b'0' | b'5') {
                continue;
            }
            records.extend(record(key, value));
        }
        records
    }

    /// The target of a link: for a hard link mostly a file of this archive.
    fn target(&mut self, kind: u8) -> Vec<u8> {
        let files: Vec<Vec<u8>> = self
            .taken
            .iter()
            .filter(|(_, kind)| matches!(kind, b'0' | 0 | b'7' | b'6'))
            .map(|(name, _)| name.clone())
            .collect();
        if kind == b'1' && !files.is_empty() {
            let name = self.random.pick(&files).clone();
            return match self.random.below(4) {
                0 => [b"./", name.as_slice()].concat(),
                1 => [b"/", name.as_slice()].concat(),
                _ => name,
            };
        }
        let long = "t".repeat(101 + self.random.below(200));
        match self.random.below(6) {
            0 => long.into_bytes(),
            1 => b"to \xff\n".to_vec(),
            2 => [b'x'; 100].to_vec(),
            _ => self.name(),
        }
    }

    fn link(&mut self, fields: &mut Fields, records: &mut Vec<u8>, target: &[u8]) {
        if target.len() <= 100 && !self.random.once_in(6) {
            fields.link = target.to_vec();
        } else if fields.form == Form::Ustar {
            fields.link = target[..target.len().min(50)].to_vec();
            records.extend(record("linkpath", target));
        } else {
            let mut body = target.to_vec();
            body.push(0);
            self.extension(b'K', &body);
            fields.link = b"elsewhere".to_vec();
        }
    }

    /// Puts the extended header and the name: as a whole, in two parts, in a header of GNU's, or in a record.
    fn named(&mut self, fields: &mut Fields, written: &[u8], mut records: Vec<u8>) {
        let split = written.iter().rposition(|byte| *byte == b'/').filter(|at| {
            (1..=155).contains(at) && written.len() - at - 1 <= 100 && written.len() > at + 1
        });
        let is_short = written.len() <= 100;
        match (fields.form, split) {
            (Form::Ustar, Some(at)) if !is_short || self.random.once_in(4) => {
                fields.prefix = written[..at].to_vec();
                fields.name = written[at + 1..].to_vec();
            }
            _ if is_short && !self.random.once_in(6) => fields.name = written.to_vec(),
            (Form::Ustar, _) => {
                fields.name = b"short".to_vec();
                records.extend(record("path", written));
            }
            (Form::Gnu | Form::V7, _) => {
                let mut body = written.to_vec();
                if !self.random.once_in(4) {
                    body.push(0);
                }
                self.extension(b'L', &body);
                fields.name = written[..written.len().min(60)].to_vec();
            }
        }
        if !records.is_empty() {
            let kind = if self.random.once_in(12) { b'X' } else { b'x' };
            self.made.notes.push(format!("extended {}", records.escape_ascii()));
            self.extension(kind, &records);
        }
    }

    /// A sparse file, in GNU's form or in one of the three of extended headers.
    fn sparse(&mut self, kind: u8, written: &[u8], mut fields: Fields, records: &[u8]) {
        let mut map: Vec<(u64, u64)> = Vec::new();
        let (mut at, mut data) = (0_u64, Vec::new());
        for _ in 0..self.random.below(30) {
            at += 512 * u64::try_from(self.random.below(5)).unwrap();
            let bytes = 512 * u64::try_from(1 + self.random.below(3)).unwrap();
            map.push((at, bytes));
            at += bytes;
            let fill = u8::try_from(1 + self.random.below(255)).unwrap();
            data.extend(std::iter::repeat_n(fill, usize::try_from(bytes).unwrap()));
        }
        let length = at + 512 * u64::try_from(self.random.below(4)).unwrap();
        if length > at || map.is_empty() {
            // GNU tar ends a map with an empty piece where the file ends in a hole.
            map.push((length, 0));
        }
        let (mut body, mut records) = (Vec::new(), records.to_vec());
        fields.kind = if kind == b'S' { b'S' } else { b'0' };
        let text = |number: u64| number.to_string().into_bytes();
        match kind {
            b'p' => {
                records.extend(record("GNU.sparse.size", &text(length)));
                records.extend(record("GNU.sparse.numblocks", &text(map.len() as u64)));
                for (offset, bytes) in &map {
                    records.extend(record("GNU.sparse.offset", &text(*offset)));
                    records.extend(record("GNU.sparse.numbytes", &text(*bytes)));
                }
            }
            b'q' => {
                records.extend(record("GNU.sparse.size", &text(length)));
                records.extend(record("GNU.sparse.numblocks", &text(map.len() as u64)));
                records.extend(record("GNU.sparse.name", written));
                let numbers: Vec<String> =
                    map.iter().map(|(offset, bytes)| format!("{offset},{bytes}")).collect();
                records.extend(record("GNU.sparse.map", numbers.join(",").as_bytes()));
            }
            b'r' => {
                records.extend(record("GNU.sparse.major", b"1"));
                records.extend(record("GNU.sparse.minor", b"0"));
                records.extend(record("GNU.sparse.name", written));
                records.extend(record("GNU.sparse.realsize", &text(length)));
                let mut lines = format!("{}\n", map.len());
                for (offset, bytes) in &map {
                    lines += &format!("{offset}\n{bytes}\n");
                }
                body = padded(lines.as_bytes());
            }
            _ => {}
        }
        let size = body.len() + data.len();
        fields.size = i64::try_from(size).unwrap();
        let short =
            if matches!(kind, b'q' | b'r') { b"GNUSparseFile.0/f".as_slice() } else { written };
        self.named(&mut fields, short, records);
        self.note(&fields, written);
        self.made.notes.push(format!("sparse `{}` {map:?} of {length}", char::from(kind)));
        if kind == b'S' {
            self.old_sparse(&fields, &map, length);
        } else {
            self.put(&fields);
        }
        self.made.bytes.extend(body);
        self.made.bytes.extend(padded(&data));
    }

    /// The header with four pieces, and blocks with 21 each.
    fn old_sparse(&mut self, fields: &Fields, map: &[(u64, u64)], length: u64) {
        let pieces = |block: &mut [u8], at: usize, map: &[(u64, u64)]| {
            for (number, (offset, bytes)) in map.iter().enumerate() {
                let place = at + number * 24;
                block[place..place + 12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
                block[place + 12..place + 24].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
            }
        };
        let (first, mut rest) = map.split_at(map.len().min(4));
        let mut block = fields.block(self.random);
        block[345..512].fill(0);
        pieces(&mut block, 386, first);
        block[482] = u8::from(!rest.is_empty());
        block[483..495].copy_from_slice(format!("{length:011o}\0").as_bytes());
        seal(self.random, &mut block);
        self.made.bytes.extend_from_slice(&block);
        while !rest.is_empty() {
            let (these, more) = rest.split_at(rest.len().min(21));
            let mut block = [0; 512];
            pieces(&mut block, 0, these);
            block[504] = u8::from(!more.is_empty());
            self.made.bytes.extend_from_slice(&block);
            rest = more;
        }
    }

    fn end(&mut self) {
        let how = self.random.below(10);
        let bytes = &mut self.made.bytes;
        match how {
            0 => {}
            1 => bytes.extend([0; 512]),
            2 => {
                bytes.extend([0; 1024]);
                bytes.extend(b"what follows the end ".repeat(100));
            }
            3 => bytes.extend([0; 10_240]),
            _ => bytes.extend([0; 1024]),
        }
        self.made.notes.push(format!("end {how}"));
    }

    /// Several members of gzip, one after the other.
    fn compress(&mut self) {
        let members = 1 + self.random.below(4);
        let size = self.made.bytes.len() / members + 1;
        let mut packed = Vec::new();
        for part in self.made.bytes.chunks(size) {
            let mut out = GzEncoder::new(Vec::new(), Compression::fast());
            out.write_all(part).unwrap();
            packed.extend(out.finish().unwrap());
        }
        self.made.bytes = packed;
        self.made.notes.push(format!("gzip of {members} members"));
    }
}
