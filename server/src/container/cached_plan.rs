// SPDX-License-Identifier: Apache-2.0
//! Parts of a container's plan that stay in memory, so that later verbs do not read or build them again.

use std::sync::{Arc, OnceLock};

/// The plan that CreateContainer made, cached so that StartContainer does not read it back from [`plans`].
#[derive(Debug, Default)]
pub(crate) struct CachedPlan(Option<Box<hull_plan::Plan>>);

impl CachedPlan {
    pub(crate) fn of(plan: hull_plan::Plan) -> Self {
        Self(Some(Box::new(plan)))
    }

    /// The plan, once.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    pub(crate) fn into_plan(self) -> Option<hull_plan::Plan> {
        self.0.map(|plan| *plan)
    }
}

/// The part of the plan that all execs of a container share, built by the first exec. A change of the container's
/// limits replaces it with an empty one.
pub(crate) type ExecTemplate = Arc<OnceLock<hull_plan::Template>>;
