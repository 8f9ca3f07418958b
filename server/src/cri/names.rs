// SPDX-License-Identifier: Apache-2.0
//! The check of names that requests bring.

use super::status;
use tonic::Status;

/// Longest name, namespace or uid, in bytes. Kubernetes' own limit for names is 253.
const NAME_BYTES_MAX: usize = crate::limits::NAME_BYTES.count();

/// Refuses a name that is too long, or that cannot be a part of a path and of a log line.
pub(super) fn check(field: &'static str, text: &str) -> Result<(), Status> {
    if text.len() > NAME_BYTES_MAX {
        let why = format!("it has {} bytes, at most {NAME_BYTES_MAX} are taken", text.len());
        return Err(status::invalid(field, why));
    }
    if text.contains('/') || text == ".." || text.chars().any(char::is_control) {
        let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
        return Err(status::invalid(
            field,
            format!("`{shown}` holds a slash or a control character"),
        ));
    }
    Ok(())
}
