// SPDX-License-Identifier: Apache-2.0
//! Unwrapping with the operation named, for code whose caller is a test.

use std::error::Error;
use std::fmt::Display;

/// Values that a test needs to go on.
pub trait ExpectExt<T> {
    /// The value, or a panic that reads "cannot `what`: why". `what` is a verb with its object: `read the log`.
    #[track_caller]
    fn or_fail(self, what: impl Display) -> T;
}

impl<T, E: Error> ExpectExt<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, what: impl Display) -> T {
        match self {
            Ok(value) => value,
            Err(err) => {
                let mut text = format!("cannot {what}: {err}");
                let mut source = err.source();
                while let Some(err) = source {
                    text = format!("{text}: {err}");
                    source = err.source();
                }
                panic!("{text}")
            }
        }
    }
}

impl<T> ExpectExt<T> for Option<T> {
    #[track_caller]
    fn or_fail(self, what: impl Display) -> T {
        match self {
            Some(value) => value,
            None => panic!("cannot {what}: it is not there"),
        }
    }
}
