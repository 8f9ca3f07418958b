// SPDX-License-Identifier: Apache-2.0
//! `[nri]`: plugins of the node resource interface.

use super::SOCKET_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[nri]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Nri {
    pub(crate) enable: bool,
    pub(crate) socket: PathBuf,
    pub(crate) disable_connections: bool,
    pub(crate) plugin_path: PathBuf,
    pub(crate) plugin_config_path: PathBuf,
    pub(crate) registration_timeout_ms: u64,
    pub(crate) request_timeout_ms: u64,
}

impl Default for Nri {
    fn default() -> Self {
        Self {
            enable: true,
            socket: "/var/run/nri/nri.sock".into(),
            disable_connections: false,
            plugin_path: "/opt/nri/plugins".into(),
            plugin_config_path: "/etc/nri/conf.d".into(),
            registration_timeout_ms: hull_nri::limits::REGISTRATION_TIMEOUT_MS.default,
            request_timeout_ms: hull_nri::limits::REQUEST_TIMEOUT_MS.default,
        }
    }
}

impl Nri {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let absolute = [
            ("nri.socket", &self.socket),
            ("nri.plugin_path", &self.plugin_path),
            ("nri.plugin_config_path", &self.plugin_config_path),
        ];
        for (key, path) in absolute {
            if !path.is_absolute() {
                return Err((key, format!("`{}` is no absolute path", path.display())));
            }
        }
        if self.socket.as_os_str().len() > SOCKET_BYTES_MAX {
            let why =
                format!("it has more than {SOCKET_BYTES_MAX} bytes: it would not fit (unix(7))");
            return Err(("nri.socket", why));
        }
        // A plugin has all pods of the node wait for it: not for longer than anybody would.
        let times = [
            ("nri.registration_timeout_ms", self.registration_timeout_ms),
            ("nri.request_timeout_ms", self.request_timeout_ms),
        ];
        match times.into_iter().find(|(_, value)| !(1..=600_000).contains(value)) {
            Some((key, value)) => Err((key, format!("{value} is not within 1 to 600000"))),
            None => Ok(()),
        }
    }
}
