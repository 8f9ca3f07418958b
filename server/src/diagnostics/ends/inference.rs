// SPDX-License-Identifier: Apache-2.0
//! The result of an inference: a cause with its fix.

use hull_plan::{Certainty, Layer};

/// A cause with its fix, in the parts of a diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inference {
    pub(super) kind: &'static str,
    pub(super) layer: Layer,
    pub(super) cause: String,
    pub(super) certainty: Certainty,
    pub(super) fix: String,
}

/// A cause that follows from the spec, but was not observed.
pub(super) fn likely(
    kind: &'static str,
    layer: Layer,
    cause: impl Into<String>,
    fix: impl Into<String>,
) -> Inference {
    Inference { kind, layer, cause: cause.into(), certainty: Certainty::Likely, fix: fix.into() }
}
