// SPDX-License-Identifier: Apache-2.0
//! Locking a mutex that may be poisoned.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `lock`, even if a thread panicked while it held it: the data that this crate guards is
/// consistent between any two statements.
pub(crate) fn lock_unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
