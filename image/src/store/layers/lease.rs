// SPDX-License-Identifier: Apache-2.0
//! Keeps a stored layer in its place while a pull, import or export uses it.

use crate::store::index::SharedIndex;
use crate::store::index::record::Layer;

/// A stored layer that cannot be removed while this value exists.
///
/// When a pull fails, its complete layers stay for the next try, until images change.
#[derive(Debug)]
pub(crate) struct Lease {
    index: SharedIndex,
    layer: Layer,
}

impl Lease {
    /// Takes over a lease that the index has counted for `layer`.
    pub(super) fn new(index: SharedIndex, layer: Layer) -> Self {
        Self { index, layer }
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.index.lock().release(&self.layer.name);
    }
}
