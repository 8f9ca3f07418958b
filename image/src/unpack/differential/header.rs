// SPDX-License-Identifier: Apache-2.0
//! Headers of archives in every spelling that writers use.

use hull_tests::random::Random;

/// The form of an archive, by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V7,
    Ustar,
    Gnu,
}

impl Form {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::V7 => b"\0\0\0\0\0\0\0\0",
            Self::Ustar => b"ustar\x0000",
            Self::Gnu => b"ustar  \0",
        }
    }
}

/// The fields of a header.
#[derive(Clone)]
pub(super) struct Fields {
    pub(super) form: Form,
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) prefix: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
}

impl Fields {
    pub(super) fn new(form: Form, kind: u8, name: &[u8]) -> Self {
        let (prefix, link) = Default::default();
        Self {
            form,
            kind,
            name: name.to_vec(),
            prefix,
            link,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 1_000_000_000,
            device: (0, 0),
        }
    }

    /// The fields, for the message of a failure.
    pub(super) fn shown(&self) -> String {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        format!(
            "`{}` {:?} name {} prefix {} link {} mode {:o} owner {}:{} size {} time {} device {:?}",
            char::from(self.kind).escape_default(),
            self.form,
            text(&self.name),
            text(&self.prefix),
            text(&self.link),
            self.mode,
            self.uid,
            self.gid,
            self.size,
            self.mtime,
            self.device,
        )
    }

    /// The header, without its checksum.
    pub(super) fn block(&self, random: &mut Random) -> [u8; 512] {
        let mut block = [0_u8; 512];
        block[..self.name.len()].copy_from_slice(&self.name);
        number(random, &mut block[100..108], self.mode);
        number(random, &mut block[108..116], self.uid);
        number(random, &mut block[116..124], self.gid);
        number(random, &mut block[124..136], self.size);
        number(random, &mut block[136..148], self.mtime);
        block[156] = self.kind;
        block[157..157 + self.link.len()].copy_from_slice(&self.link);
        block[257..265].copy_from_slice(self.form.magic());
        if self.form != Form::V7 {
            // Names are not looked up: they are of the machine that wrote the archive.
            block[265..269].copy_from_slice(b"user");
            block[297..302].copy_from_slice(b"group");
            number(random, &mut block[329..337], self.device.0);
            number(random, &mut block[337..345], self.device.1);
            block[345..345 + self.prefix.len()].copy_from_slice(&self.prefix);
        }
        block
    }
}

/// Writes the checksum, at times that of writers with signed bytes.
pub(super) fn seal(random: &mut Random, block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let unsigned: i64 = block.iter().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = block.iter().map(|byte| i64::from(byte.cast_signed())).sum();
    let sum = if random.once_in(8) && signed > 0 { signed } else { unsigned };
    let text = match random.below(3) {
        0 => format!("{sum:06o}\0 "),
        1 => format!("{sum:07o}\0"),
        _ => format!("{sum:6o} \0"),
    };
    block[148..156].copy_from_slice(text.as_bytes());
}

/// Writes a number: octal with zeros or blanks before it and a NUL, a blank or nothing after it, or of base 256.
fn number(random: &mut Random, field: &mut [u8], value: i64) {
    let width = field.len();
    let fits = value >= 0 && format!("{value:o}").len() < width;
    if !fits || random.once_in(10) {
        let bytes = i128::from(value).to_be_bytes();
        field.copy_from_slice(&bytes[16 - width..]);
        field[0] = if value < 0 { 0xff } else { 0x80 };
        return;
    }
    let text = match random.below(5) {
        0 => format!("{value:>width$o}\0", width = width - 1),
        1 => format!("{value:0width$o} ", width = width - 1),
        2 if format!("{value:o}").len() + 2 <= width => {
            let mut text = format!("{value:o} \0");
            text.extend(std::iter::repeat_n('\0', width - text.len()));
            text
        }
        _ => format!("{value:0width$o}\0", width = width - 1),
    };
    field.copy_from_slice(text.as_bytes());
}

/// A record of an extended header.
pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Content with the padding after it.
pub(super) fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}
