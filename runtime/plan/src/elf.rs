// SPDX-License-Identifier: Apache-2.0
//! The file type of a program, to say why it could not be executed: `elf(5)`, `execve(2)`.
//!
//! The bytes come from an image, so nothing in them is trusted: every offset is checked, and only
//! the beginning of a file is read.

use crate::Process;
use hull_sys::arch::{ELF_MACHINE, ELF_MACHINE_32};

/// Reads files inside a container's root, at most their beginning.
pub trait Files {
    /// The beginning of the file at `path`; `None` when there is none.
    fn read(&self, path: &str) -> Option<Vec<u8>>;
}

/// The reason why a program could not be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The sentence that says it.
    pub what: String,
    /// The change that fixes it.
    pub hint: Option<String>,
    /// Observations that support it.
    pub evidence: Vec<String>,
}

/// The type of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The file is empty.
    Empty,
    /// A program: machine, and the interpreter it wants.
    Elf {
        /// `e_machine`.
        machine: u16,
        /// `PT_INTERP`.
        interpreter: Option<String>,
    },
    /// A `#!` line: its interpreter, and whether the line ends as on DOS.
    Script {
        /// The first word.
        interpreter: String,
        /// A carriage return at its end.
        dos: bool,
    },
    /// Any other content.
    Other,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PT_INTERP: u64 = 3;
/// Most program headers that are read.
const HEADERS_MAX: u64 = 64;

/// Explains why a program could not be executed; `None` if its file shows no reason.
pub fn explain(process: &Process, files: &dyn Files) -> Option<Found> {
    let program = String::from_utf8_lossy(process.args.first()?).into_owned();
    let (path, bytes) = find(&program, process, files)?;
    match kind(&bytes) {
        Kind::Empty => found(
            format!("`{path}` is an empty file"),
            "the image was built or unpacked wrongly: build it again, or `hull rmi` and `hull pull` it",
        ),
        Kind::Elf { machine, .. } if machine != ELF_MACHINE && machine != ELF_MACHINE_32 => found(
            format!(
                "`{path}` is a program for {}, this node is {}",
                name(machine),
                name(ELF_MACHINE)
            ),
            "build the program for this node's architecture (GOARCH, `docker build --platform`), or use an image for it",
        ),
        Kind::Elf { interpreter: Some(interpreter), .. } if files.read(&interpreter).is_none() => {
            found(
                format!(
                    "`{path}` is there, but its ELF interpreter `{interpreter}` is not in the image"
                ),
                "use a base image with that C library, or link the program statically",
            )
        }
        Kind::Script { interpreter, dos: true } => found(
            format!(
                "`{path}` begins with `#!{interpreter}\\r`, which ends with a carriage return, so its interpreter is not found"
            ),
            "save the script with Unix line ends (dos2unix)",
        ),
        Kind::Script { interpreter, .. } if files.read(&interpreter).is_none() => found(
            format!("`{path}` is there, but its interpreter `{interpreter}` is not in the image"),
            "install the interpreter in the image, or correct the script's first line",
        ),
        Kind::Other => found(
            format!("`{path}` is not a program: it has neither an ELF header nor a `#!` line"),
            "begin a script with `#!/bin/sh`",
        ),
        Kind::Elf { .. } | Kind::Script { .. } => None,
    }
}

fn found(what: String, hint: &str) -> Option<Found> {
    Some(Found { what, hint: Some(hint.into()), evidence: Vec::new() })
}

fn find(program: &str, process: &Process, files: &dyn Files) -> Option<(String, Vec<u8>)> {
    if program.starts_with('/') {
        return Some((program.to_owned(), files.read(program)?));
    }
    if program.contains('/') {
        let path = format!("{}/{program}", process.cwd.trim_end_matches('/'));
        let bytes = files.read(&path)?;
        return Some((path, bytes));
    }
    let path = process.env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path =
        path.map_or(DEFAULT_PATH.to_owned(), |path| String::from_utf8_lossy(path).into_owned());
    path.split(':').find_map(|dir| {
        let path = format!("{dir}/{program}");
        let bytes = files.read(&path)?;
        Some((path, bytes))
    })
}

/// The type of a file, by its beginning.
#[must_use]
pub fn kind(bytes: &[u8]) -> Kind {
    if bytes.is_empty() {
        return Kind::Empty;
    }
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let dos = line.ends_with(b"\r");
        let text = String::from_utf8_lossy(&line[..line.len().min(255)]);
        let interpreter = text.trim().split([' ', '\t']).next().unwrap_or_default();
        return Kind::Script { interpreter: interpreter.to_owned(), dos };
    }
    if bytes.starts_with(b"\x7fELF") { elf(bytes).unwrap_or(Kind::Other) } else { Kind::Other }
}

fn elf(bytes: &[u8]) -> Option<Kind> {
    let wide = *bytes.get(4)? == 2;
    let big = *bytes.get(5)? == 2;
    let number = |at: u64, size: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let raw = bytes.get(at..at.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if big { raw.iter().fold(0, fold) } else { raw.iter().rev().fold(0, fold) })
    };
    let machine = u16::try_from(number(18, 2)?).ok()?;
    let (word, offset_at, size_at) = if wide { (8, 32, 54) } else { (4, 28, 42) };
    let (headers, size, count) =
        (number(offset_at, word)?, number(size_at, 2)?, number(size_at + 2, 2)?);
    for at in 0..count.min(HEADERS_MAX) {
        let header = headers.checked_add(at.checked_mul(size)?)?;
        let Some(PT_INTERP) = number(header, 4) else { continue };
        let (offset_at, length_at) = if wide { (8, 32) } else { (4, 16) };
        let offset = number(header.checked_add(offset_at)?, word)?;
        let length = number(header.checked_add(length_at)?, word)?.min(255);
        let begin = usize::try_from(offset).ok()?;
        let raw = bytes.get(begin..begin.checked_add(usize::try_from(length).ok()?)?)?;
        let text = raw.split(|byte| *byte == 0).next().unwrap_or_default();
        let interpreter = Some(String::from_utf8_lossy(text).into_owned());
        return Some(Kind::Elf { machine, interpreter });
    }
    Some(Kind::Elf { machine, interpreter: None })
}

fn name(machine: u16) -> String {
    match machine {
        3 => "x86".into(),
        8 => "MIPS".into(),
        21 => "PowerPC64".into(),
        22 => "s390x".into(),
        40 => "ARM".into(),
        62 => "x86-64".into(),
        183 => "ARM64".into(),
        243 => "RISC-V".into(),
        other => format!("machine {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scripts_are_told_by_their_first_line() {
        let script = |interpreter: &str, dos| Kind::Script { interpreter: interpreter.into(), dos };
        assert_eq!(kind(b"#!/bin/sh -e\necho"), script("/bin/sh", false));
        assert_eq!(kind(b"#! /usr/bin/env python\r\n"), script("/usr/bin/env", true));
        assert_eq!(kind(b""), Kind::Empty);
        assert_eq!(kind(b"echo hello\n"), Kind::Other);
    }

    #[test]
    fn our_own_program_is_one() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let Kind::Elf { machine, .. } = kind(&bytes[..4096.min(bytes.len())]) else {
            panic!("no ELF")
        };
        assert_eq!(machine, ELF_MACHINE);
    }

    proptest! {
        #[test]
        fn nothing_in_a_file_can_hurt(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), elf: bool) {
            if elf {
                bytes.splice(0..0, *b"\x7fELF\x02\x01");
            }
            let _kind = kind(&bytes);
        }
    }
}
