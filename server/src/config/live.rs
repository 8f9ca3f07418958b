// SPDX-License-Identifier: Apache-2.0
//! The configuration in force: replaced as a whole when the daemon takes over changed settings.

use super::settings::Config;
use std::sync::{Arc, PoisonError, RwLock};

/// The configuration in force. Work takes it once, where it begins.
#[derive(Debug)]
pub(crate) struct LiveConfig(RwLock<Arc<Config>>);

impl LiveConfig {
    pub(crate) fn new(config: Config) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    /// The configuration for what begins now.
    pub(crate) fn current(&self) -> Arc<Config> {
        // The lock holds one pointer, which a panic leaves whole.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, config: Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}
