// SPDX-License-Identifier: Apache-2.0
//! Whether a certificate may sign others: RFC 5280, 4.2.1.3 and 4.2.1.9.
//!
//! Pure. It reads as much of DER (X.690) as that needs. Signatures, names and times are the verifier's.

const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
/// The version, and the extensions, of a certificate.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
/// The bit `keyCertSign` in the first byte of a key usage.
const CERT_SIGN: u8 = 0x04;

/// Whether a certificate is that of a CA. One that is not in DER form is not.
///
/// One of version 1 has no extensions, and is a CA's if its owner says so, as for Go's clients. Without the extension
/// `basicConstraints`, one of version 3 is not a CA's.
pub(super) fn may_sign(certificate: &[u8]) -> bool {
    read(certificate).unwrap_or(false)
}

fn read(certificate: &[u8]) -> Option<bool> {
    let (mut certificate, _) = expect(certificate, SEQUENCE)?;
    let mut fields = take(&mut certificate, SEQUENCE)?;
    let has_version = fields.first() == Some(&VERSION);
    let (mut is_ca, mut may_use_key) = (!has_version, true);
    while !fields.is_empty() {
        let (tag, content) = next(&mut fields)?;
        if tag != EXTENSIONS {
            continue;
        }
        let (mut extensions, _) = expect(content, SEQUENCE)?;
        while !extensions.is_empty() {
            let mut extension = take(&mut extensions, SEQUENCE)?;
            let id = take(&mut extension, OBJECT)?;
            if extension.first() == Some(&BOOLEAN) {
                take(&mut extension, BOOLEAN)?;
            }
            let value = take(&mut extension, OCTET_STRING)?;
            if id == BASIC_CONSTRAINTS {
                let (mut constraints, _) = expect(value, SEQUENCE)?;
                // It is false where it is left out, and DER has one form of true.
                is_ca = constraints.first() == Some(&BOOLEAN)
                    && take(&mut constraints, BOOLEAN)? == [0xff];
            } else if id == KEY_USAGE {
                let (bits, _) = expect(value, BIT_STRING)?;
                may_use_key = bits.get(1).is_some_and(|byte| byte & CERT_SIGN != 0);
            }
        }
    }
    Some(is_ca && may_use_key)
}

/// The content of the value at the beginning, which has this tag, and what follows it.
fn expect(mut bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let content = take(&mut bytes, tag)?;
    Some((content, bytes))
}

/// Takes the next value, which has this tag.
fn take<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(bytes).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// Takes the next value: its tag and its content.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if *first >= 0x80 {
        let count = usize::from(first & 0x7f);
        let (digits, after) = rest.split_at_checked(count)?;
        // No certificate has 4 GiB, and one without a length is not DER.
        if !(1..=4).contains(&count) {
            return None;
        }
        length = digits.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    *bytes = after;
    Some((*tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let length = if length < 0x80 { vec![length] } else { vec![0x81, length] };
        [&[tag][..], &length, content].concat()
    }

    /// A certificate with these extensions: whether it is critical, the id, and the value.
    fn certificate(version: &[u8], extensions: &[(bool, [u8; 3], Vec<u8>)]) -> Vec<u8> {
        let extension = |(is_critical, id, of): &(bool, [u8; 3], Vec<u8>)| {
            let critical = if *is_critical { value(BOOLEAN, &[0xff]) } else { Vec::new() };
            let all = [value(OBJECT, id), critical, value(OCTET_STRING, of)].concat();
            value(SEQUENCE, &all)
        };
        let all: Vec<u8> = extensions.iter().flat_map(extension).collect();
        let all = if all.is_empty() { all } else { value(EXTENSIONS, &value(SEQUENCE, &all)) };
        let fields = [version, &value(0x02, &[1]), &value(SEQUENCE, &[]), &all].concat();
        value(SEQUENCE, &[value(SEQUENCE, &fields), value(BIT_STRING, &[0, 1])].concat())
    }

    #[test]
    fn only_a_certificate_of_a_ca_may_sign_others() {
        let third = value(VERSION, &value(0x02, &[2]));
        let constraints = |content: &[u8]| (true, BASIC_CONSTRAINTS, value(SEQUENCE, content));
        let ca = constraints(&value(BOOLEAN, &[0xff]));
        let usage = |bits: u8| (true, KEY_USAGE, value(BIT_STRING, &[1, bits]));
        for (extensions, wanted) in [
            (vec![], false),
            (vec![ca.clone()], true),
            (vec![constraints(&[])], false),
            (vec![constraints(&value(BOOLEAN, &[0]))], false),
            // A length of the path says nothing alone.
            (vec![constraints(&value(0x02, &[1]))], false),
            (vec![ca.clone(), usage(CERT_SIGN | 2)], true),
            (vec![usage(0xa0), ca.clone()], false),
            (vec![usage(CERT_SIGN)], false),
            // Not as the standard has them.
            (vec![(true, KEY_USAGE, value(BOOLEAN, &[0xff])), ca.clone()], false),
            (vec![ca.clone(), (true, KEY_USAGE, value(BIT_STRING, &[]))], false),
            (vec![constraints(&value(BOOLEAN, &[1]))], false),
            (vec![constraints(&value(BOOLEAN, &[]))], false),
            (vec![(true, BASIC_CONSTRAINTS, value(BOOLEAN, &[0xff]))], false),
            (vec![(false, [0x55, 0x1d, 0x11], value(SEQUENCE, &[])), ca], true),
        ] {
            assert_eq!(may_sign(&certificate(&third, &extensions)), wanted, "{extensions:?}");
        }
        assert!(may_sign(&certificate(&[], &[])), "of version 1");
        assert!(!may_sign(b"") && !may_sign(&certificate(&third, &[])[..9]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(
            bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, byte in any::<u8>(),
        ) {
            let _any = may_sign(&bytes);
            let third = value(VERSION, &value(0x02, &[2]));
            let mut of = certificate(&third, &[(true, KEY_USAGE, value(BIT_STRING, &[1, 4]))]);
            let length = of.len();
            of[at % length] = byte;
            let _any = may_sign(&of);
        }
    }
}
