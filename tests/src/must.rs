// SPDX-License-Identifier: Apache-2.0
//! Unwrapping with the operation named, for code whose caller is a test.

use std::error::Error;
use std::fmt::Display;

/// What must be there for the test to go on.
pub trait Must<T> {
    /// The value, or a panic that reads "cannot `what`: why".
    #[track_caller]
    fn must(self, what: impl Display) -> T;
}

impl<T, E: Error> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, what: impl Display) -> T {
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

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, what: impl Display) -> T {
        match self {
            Some(value) => value,
            None => panic!("cannot {what}: it is not there"),
        }
    }
}
