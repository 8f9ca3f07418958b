// SPDX-License-Identifier: Apache-2.0
//! Texts and numbers that are valid on the wire and that no field wants.

use hull_tests::random::Random;

const TEXTS: [&str; 40] = [
    "",
    " ",
    ".",
    "..",
    "/",
    "//",
    "./x",
    "a/../..",
    "../../../../nowhere-of-hull",
    "/proc/nowhere-of-hull/../x",
    "nul\0inside",
    "\x1b[31mred\x1b[0m",
    "line\nlevel=error forged",
    "\r\x07\x08",
    "\u{202e}txt.exe",
    "\u{feff}",
    "é",
    "日本語",
    "\u{1f980}",
    "e\u{301}",
    "%s%n%x",
    "${HOME}",
    "a=b",
    "=",
    ":",
    "@",
    "sha256:",
    "a b\tc",
    "-rf",
    "--help",
    "null",
    "true",
    "0",
    "-1",
    "18446744073709551616",
    "0-4294967295",
    "0x10",
    "max",
    "web",
    "kubernetes.io/name",
];

/// A random text, often an odd one.
pub(super) fn text(random: &mut Random) -> String {
    match random.below(12) {
        0 => "x".repeat(10_000),
        1 => "/x".repeat(*random.pick(&[60, 500, 2_000, 2_048, 5_000])),
        2 => "é".repeat(*random.pick(&[31, 63, 127, 128, 2_000])),
        3 => "n".repeat(*random.pick(&[63, 64, 65, 253, 254, 255, 256, 4_095, 4_096])),
        4 => format!("{}\0", random.pick(&TEXTS)),
        _ => (*random.pick(&TEXTS)).to_owned(),
    }
}

/// A random number, often an odd one.
pub(super) fn number(random: &mut Random) -> i64 {
    let numbers = [
        i64::MIN,
        i64::MIN + 1,
        i32::MIN.into(),
        -1001,
        -2,
        -1,
        0,
        1,
        2,
        3,
        1000,
        1001,
        65_535,
        65_536,
        i32::MAX.into(),
        i64::from(i32::MAX) + 1,
        u32::MAX.into(),
        i64::from(u32::MAX) + 1,
        i64::MAX - 1,
        i64::MAX,
    ];
    *random.pick(&numbers)
}
