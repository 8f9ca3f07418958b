// SPDX-License-Identifier: Apache-2.0
//! Names of signals and their numbers on x86 and ARM, `signal(7)`.

/// The highest number of a signal, SIGRTMAX.
pub const MAX: i32 = 64;
/// The first real-time signal that the C library leaves to programs, SIGRTMIN.
pub const RTMIN: i32 = 34;

/// Names without `SIG`. Of several names for one number the first is the usual one.
const NAMES: [(&str, i32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", RTMIN),
    ("RTMAX", MAX),
];

/// The number of a signal: `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3`, `SIGRTMINPLUS3`. `None` if there is no such
/// signal.
#[must_use]
pub fn number(text: &str) -> Option<i32> {
    let text = text.to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Ok(number) = name.parse::<i32>() {
        return (1..=MAX).contains(&number).then_some(number);
    }
    for (base, signs) in [("RTMIN", ["+", "PLUS"]), ("RTMAX", ["-", "MINUS"])] {
        let rest = name.strip_prefix(base).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { continue };
        let offset: i32 = signs.iter().find_map(|sign| rest.strip_prefix(sign))?.parse().ok()?;
        let number =
            if base == "RTMIN" { RTMIN.checked_add(offset)? } else { MAX.checked_sub(offset)? };
        return (RTMIN..=MAX).contains(&number).then_some(number);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The usual name of a signal, without `SIG`; `None` for a real-time signal without a name of its own.
#[must_use]
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sighup", 1),
            ("31", 31),
            ("SIGRTMIN+3", 37),
            ("SIGRTMINPLUS3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in ["", "0", "65", "SIGWRONG", "RTMIN-1", "-9", "RTMIN+2147483647", "RTMAX--9"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!((name(6), name(64), name(35)), (Some("ABRT"), Some("RTMAX"), None));
    }
}
