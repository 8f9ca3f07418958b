// SPDX-License-Identifier: Apache-2.0
//! The configuration as it may be shown: without accounts and passwords in addresses. Pure.

use super::settings::Config;

impl Config {
    /// The configuration without the accounts that its addresses have.
    pub(crate) fn without_accounts(&self) -> Self {
        let mut config = self.clone();
        let mirrors = config.image.registry.iter_mut().flat_map(|registry| &mut registry.mirrors);
        for mirror in mirrors {
            *mirror = without_account(mirror);
        }
        config
    }

    /// The configuration as TOML, without the accounts that its addresses have.
    pub(crate) fn shown_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.without_accounts())
    }
}

/// An address whose account and password are hidden.
pub(super) fn without_account(address: &str) -> String {
    // Also behind more slashes than two, which are one beginning of the host for readers of URLs.
    let start = address.split_once(":/").filter(|(scheme, _)| !scheme.contains('@'));
    let start = start.map_or(0, |(scheme, _)| scheme.len().saturating_add(1));
    let (scheme, rest) = address.split_at(start);
    let host = rest.trim_start_matches('/');
    let (slashes, rest) = rest.split_at(rest.len().saturating_sub(host.len()));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{slashes}[hidden]@{host}{path}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Registry;

    #[test]
    fn accounts_in_addresses_are_hidden() {
        for (mirror, wanted) in [
            ("https://me:hunter2@mirror.example/v2", "https://[hidden]@mirror.example/v2"),
            ("me:hunter2@mirror.example:5000", "[hidden]@mirror.example:5000"),
            ("https:///me:hunter2@mirror.example", "https:///[hidden]@mirror.example"),
            ("me:hunter2@mirror.example:/v2", "[hidden]@mirror.example:/v2"),
            ("https://mirror.example/a@b", "https://mirror.example/a@b"),
            ("mirror.example", "mirror.example"),
            ("", ""),
        ] {
            let mut config = Config::default();
            config.image.registry =
                vec![Registry { mirrors: vec![mirror.into()], ..Registry::default() }];
            assert_eq!(config.without_accounts().image.registry[0].mirrors, [wanted]);
            assert!(!config.shown_toml().unwrap().contains("hunter2"));
        }
    }
}
