// SPDX-License-Identifier: Apache-2.0
//! Check of the ids for user namespaces that Hull assigns.

use super::finding::Finding;
use crate::config::{Handler, Runtime, UserNamespaces, Userns};
use crate::pod::user_namespace;

/// Whether the files of ids can be used; nothing where no pod gets ids of them.
pub(super) fn findings(runtime: &Runtime) -> Option<Finding> {
    const SUBJECT: &str = "ids of pods";
    let is_always = |of: &Handler| of.user_namespaces == UserNamespaces::Always;
    if runtime.userns == Userns::Off && !runtime.handlers.values().any(is_always) {
        return None;
    }
    Some(match user_namespace::files(runtime).read() {
        Ok((users, groups)) => {
            let count = users.count().min(groups.count());
            Finding::good(SUBJECT, format!("for {count} pods, of user {}", users.user()))
        }
        Err(err) => Finding::missing(SUBJECT, format!("cannot {err}"), err.hint()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_at_where_pods_need_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut runtime = crate::config::Config::default().runtime;
        runtime.subuid_file = dir.path().join("subuid");
        runtime.subgid_file = dir.path().join("subgid");
        assert_eq!(findings(&runtime), None);
        let line = |of: Option<Finding>| of.map(|of| of.line(None)).unwrap_or_default();
        let always = Handler { user_namespaces: UserNamespaces::Always, ..Handler::default() };
        runtime.handlers.insert("mapped".into(), always);
        assert!(line(findings(&runtime)).contains("MISSING"));
        runtime.handlers.clear();
        runtime.userns = Userns::Auto;
        let missing = line(findings(&runtime));
        assert!(missing.contains("MISSING") && missing.contains("hint:"), "{missing}");
        std::fs::write(&runtime.subuid_file, "hull:1048576:131072\n").unwrap();
        std::fs::write(&runtime.subgid_file, "hull:1048576:65536\n").unwrap();
        if rustix::process::geteuid().is_root() {
            let good = line(findings(&runtime));
            assert!(good.contains("for 1 pods, of user hull"), "{good}");
        }
        std::fs::write(&runtime.subgid_file, "hull:1048576:65536\nx:1048576:1\n").unwrap();
        let lying = line(findings(&runtime));
        assert!(lying.contains("MISSING") && lying.contains("have the same ids"), "{lying}");
    }
}
