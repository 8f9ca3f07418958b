// SPDX-License-Identifier: Apache-2.0
//! Huffman's code of HPACK: RFC 7541, Appendix B. It is canonical, so the lengths of the codes say all.

/// The length of each byte's code in bits, and last that of the end of a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The shortest code and the longest one.
const SHORTEST: u8 = 5;
const LONGEST: u8 = 30;
/// The symbol that no string contains.
const END: u16 = 256;

/// The code: symbols in the order of their codes, and for each length the first code and that one's place.
#[derive(Debug)]
struct Code {
    symbols: [u16; 257],
    first: [(u32, u16); 32],
}

static CODE: Code = code();

const fn code() -> Code {
    let (mut symbols, mut first) = ([0; 257], [(0, 0); 32]);
    let (mut next, mut place) = (0_u32, 0_u16);
    let mut length = SHORTEST;
    while length <= LONGEST {
        next <<= 1;
        first[length as usize] = (next, place);
        let mut symbol = 0_u16;
        while symbol <= END {
            if LENGTHS[symbol as usize] == length {
                symbols[place as usize] = symbol;
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    // One place behind the last code of the last length.
    first[LONGEST as usize + 1] = (next, place);
    Code { symbols, first }
}

/// Calls `each` with every symbol, and the bits that it has: where they begin, and how many they are. `None` for what is
/// not in the code.
fn walk(bytes: &[u8], mut each: impl FnMut(u8, usize, u8)) -> Option<()> {
    let bits = bytes.len().checked_mul(8)?;
    let (mut code, mut length, mut start) = (0_u32, 0_u8, 0);
    for at in 0..bits {
        code = code << 1 | u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
        length += 1;
        if length > LONGEST {
            return None;
        }
        if let Some(symbol) = symbol(code, length) {
            each(u8::try_from(symbol).ok()?, start, length);
            (code, length, start) = (0, 0, at + 1);
        }
    }
    // Less than a byte of ones is left.
    let is_padding = length < 8 && code == (1 << length) - 1;
    is_padding.then_some(())
}

fn symbol(code: u32, length: u8) -> Option<u16> {
    let (first, place) = *CODE.first.get(usize::from(length))?;
    let behind = CODE.symbols.len();
    let next =
        CODE.first.get(usize::from(length) + 1).map_or(behind, |(_, next)| usize::from(*next));
    let at = usize::from(place).checked_add(usize::try_from(code.checked_sub(first)?).ok()?)?;
    if length < SHORTEST || at >= next {
        return None;
    }
    CODE.symbols.get(at).copied()
}

/// The bytes that a string stands for; `None` if it is malformed.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    walk(bytes, |byte, _, _| out.push(byte))?;
    Some(out)
}

/// Replaces those bytes of a string for which `is_bad` holds by one that a name of a host may have, with a code of the
/// same length. Those that have no such one stay.
pub(super) fn replace(bytes: &mut [u8], is_bad: impl Fn(u8) -> bool) {
    let mut found = Vec::new();
    let whole = walk(bytes, |byte, start, length| {
        if is_bad(byte)
            && let Some(other) = in_place_of(length)
        {
            found.push((start, other, length));
        }
    });
    if whole.is_none() {
        return;
    }
    for (start, other, length) in found {
        let Some(code) = code_of(other) else { continue };
        for bit in 0..usize::from(length) {
            let at = start + bit;
            let one = code >> (usize::from(length) - 1 - bit) & 1 == 1;
            let mask = 0x80 >> (at % 8);
            if one { bytes[at / 8] |= mask } else { bytes[at / 8] &= !mask }
        }
    }
}

/// A harmless byte whose code is so long.
fn in_place_of(length: u8) -> Option<u8> {
    let known = [(6, b'-'), (7, b'x'), (8, b'X'), (10, b'!'), (11, b'+'), (13, b'~')];
    known.into_iter().find(|(of, _)| *of == length).map(|(_, byte)| byte)
}

fn code_of(byte: u8) -> Option<u32> {
    let (first, place) = *CODE.first.get(usize::from(LENGTHS[usize::from(byte)]))?;
    let at = CODE.symbols.iter().position(|symbol| *symbol == u16::from(byte))?;
    u32::try_from(at.checked_sub(usize::from(place))?).ok()?.checked_add(first)
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut out, mut bits) = (Vec::new(), 0);
    let mut put = |one: bool| {
        if bits % 8 == 0 {
            out.push(0);
        }
        if let (true, Some(last)) = (one, out.last_mut()) {
            *last |= 0x80 >> (bits % 8);
        }
        bits += 1;
        bits % 8
    };
    let mut free = 0;
    for byte in text {
        let (code, length) = (code_of(*byte).unwrap(), LENGTHS[usize::from(*byte)]);
        for bit in (0..length).rev() {
            free = put(code >> bit & 1 == 1);
        }
    }
    while free != 0 {
        free = put(true);
    }
    out
}
