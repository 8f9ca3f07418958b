// SPDX-License-Identifier: Apache-2.0
//! The smallest programs that can be executed: ELF files of one segment and a few instructions. So the
//! floor does not depend on what a node has installed, and nothing of an exec is a loader's.

/// Where the segment is mapped.
const BASE: u64 = 0x40_0000;
/// Of the file's header and the one program header.
const HEADERS: u64 = 64 + 56;

/// Waits until it is killed.
#[cfg(target_arch = "x86_64")]
const WAIT: &[u8] = &[
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // again
];
/// Exits with 0.
#[cfg(target_arch = "x86_64")]
const EXIT: &[u8] = &[
    0x31, 0xff, // xor edi, edi
    0xb8, 60, 0, 0, 0, // mov eax, exit
    0x0f, 0x05, // syscall
];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

/// Waits until it is killed.
#[cfg(target_arch = "aarch64")]
const WAIT: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, // mov x0, 0; mov x1, 0
    0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, // mov x2, 0; mov x3, 0
    0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, // mov x8, ppoll; svc
    0xfa, 0xff, 0xff, 0x17, // again
];
/// Exits with 0.
#[cfg(target_arch = "aarch64")]
const EXIT: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, // mov x8, exit; svc
];
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A program that waits until it is killed.
pub(super) fn wait() -> Vec<u8> {
    elf(WAIT)
}

/// A program that exits with 0 at once.
pub(super) fn exit() -> Vec<u8> {
    elf(EXIT)
}

/// An executable of `code`; `elf(5)`.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let short = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    short(&mut file, 2); // executable
    short(&mut file, MACHINE);
    word(&mut file, 1);
    long(&mut file, BASE + HEADERS); // entry
    long(&mut file, 64); // program headers
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [64, 56, 1, 0, 0, 0] {
        short(&mut file, value);
    }
    let size = HEADERS + code.len() as u64;
    word(&mut file, 1); // to be loaded
    word(&mut file, 5); // readable, executable
    for value in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut file, value);
    }
    file.extend(code);
    file
}
