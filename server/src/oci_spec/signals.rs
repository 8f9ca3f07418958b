// SPDX-License-Identifier: Apache-2.0
//! Stop signals: CRI numbers them its own way, images name them, the kernel has the last word.

use super::Error;
use ::oci_spec::image::ImageConfiguration;
use hull_proto::cri;

/// Kernel numbers of x86 and ARM, `signal(7)`.
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
    ("RTMIN", 34),
    ("RTMAX", 64),
];
const SIGTERM: i32 = 15;

/// The config's, else the image's, else SIGTERM.
pub(crate) fn stop_signal(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
) -> Result<i32, Error> {
    let asked = cri::Signal::try_from(config.stop_signal).unwrap_or(cri::Signal::RuntimeDefault);
    if asked != cri::Signal::RuntimeDefault {
        let name = asked.as_str_name();
        return number(name).ok_or_else(|| bad(name));
    }
    let of_image =
        image.config().as_ref().and_then(|of| of.stop_signal().clone()).unwrap_or_default();
    if of_image.is_empty() {
        return Ok(SIGTERM);
    }
    number(&of_image).ok_or_else(|| bad(&of_image))
}

fn bad(name: &str) -> Error {
    let value = name.chars().take(40).collect();
    Error::Bad { field: "the stop signal", value, why: "there is none of that name" }
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMINPLUS3`.
fn number(text: &str) -> Option<i32> {
    let text = text.to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    for (base, plus) in [("RTMIN", ["+", "PLUS"]), ("RTMAX", ["-", "MINUS"])] {
        let rest = name.strip_prefix(base).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { continue };
        let offset: i32 = plus.iter().find_map(|sign| rest.strip_prefix(sign))?.parse().ok()?;
        let number = if base == "RTMIN" { 34 + offset } else { 64 - offset };
        return (34..=64).contains(&number).then_some(number);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// How CRI numbers a kernel signal.
pub(crate) fn signal_of_kernel(signal: i32) -> cri::Signal {
    let name = match signal {
        34 => "SIGRTMIN".into(),
        64 => "SIGRTMAX".into(),
        35..=49 => format!("SIGRTMINPLUS{}", signal - 34),
        50..=63 => format!("SIGRTMAXMINUS{}", 64 - signal),
        _ => {
            let known = NAMES.iter().find(|(_, number)| *number == signal);
            format!("SIG{}", known.map_or("", |(name, _)| name))
        }
    };
    cri::Signal::from_str_name(&name).unwrap_or(cri::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_interface_has_a_kernel_number_and_back() {
        for number_of in 1..=65 {
            let signal = cri::Signal::try_from(number_of).unwrap();
            let kernel = number(signal.as_str_name()).unwrap_or_else(|| panic!("{signal:?}"));
            assert_eq!(number(signal_of_kernel(kernel).as_str_name()), Some(kernel), "{signal:?}");
        }
    }

    #[test]
    fn images_name_signals_in_many_ways() {
        for (text, wanted) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGNOPE", None),
            ("99", None),
        ] {
            assert_eq!(number(text), wanted, "{text}");
        }
    }
}
