// SPDX-License-Identifier: Apache-2.0
//! Stop signals: CRI numbers them its own way, images name them, the kernel has the last word.

use super::Error;
use ::oci_spec::image::ImageConfiguration;
use hull_plan::signals::{self, number};
use hull_proto::cri;

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

/// How CRI numbers a kernel signal.
pub(crate) fn signal_of_kernel(signal: i32) -> cri::Signal {
    let name = match signal {
        34 => "SIGRTMIN".into(),
        64 => "SIGRTMAX".into(),
        35..=49 => format!("SIGRTMINPLUS{}", signal - 34),
        50..=63 => format!("SIGRTMAXMINUS{}", 64 - signal),
        _ => {
            format!("SIG{}", signals::name(signal).unwrap_or_default())
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
