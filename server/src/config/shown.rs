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
}

/// An address whose account and password are hidden.
fn without_account(address: &str) -> String {
    let start = address.find("://").map_or(0, |at| at.saturating_add(3));
    let (scheme, rest) = address.split_at(start);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}[hidden]@{host}{path}"),
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
            ("https://mirror.example/a@b", "https://mirror.example/a@b"),
            ("mirror.example", "mirror.example"),
            ("", ""),
        ] {
            let mut config = Config::default();
            config.image.registry =
                vec![Registry { mirrors: vec![mirror.into()], ..Registry::default() }];
            assert_eq!(config.without_accounts().image.registry[0].mirrors, [wanted]);
        }
    }
}
