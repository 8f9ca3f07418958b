// SPDX-License-Identifier: Apache-2.0
//! The CNI configurations of the node, which Hull uses where they are.

use super::super::error::Result;
use super::findings::Findings;
use super::root::Root;
use crate::config::Config;
use std::path::PathBuf;

/// Notes which network pods will have.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn note(root: &Root, found: &mut Findings) -> Result<()> {
    let own = found.text_of("network.cni.conf_dir").map(PathBuf::from);
    let directory = own.unwrap_or_else(|| Config::default().network.cni.conf_dir);
    let names = root.names(&directory)?;
    let is_config =
        |name: &&String| [".conflist", ".conf", ".json"].iter().any(|of| name.ends_with(of));
    let count = names.iter().filter(is_config).count();
    let shown = directory.display();
    if count == 0 {
        let why = format!(
            "there is no configuration in {shown}, so pods are on Hull's own network until there is one; with \
             `network.mode = \"cni\"` they wait for it"
        );
        found.lost("network of pods", why);
    } else {
        let why = format!("Hull calls the plugins of the {count} CNI configurations in {shown}");
        found.same("network of pods", why);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn configurations_are_counted_where_the_other_runtime_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.create(Path::new("/srv/cni/10-a.conflist"), "{}").unwrap();
        root.create(Path::new("/srv/cni/README"), "").unwrap();
        let mut found = Findings::default();
        note(&root, &mut found).unwrap();
        assert!(found.lost[0].why.contains("/etc/cni/net.d"), "{found:?}");
        found.set("conf_dir", "network.cni.conf_dir", &"/srv/cni".into());
        note(&root, &mut found).unwrap();
        assert!(found.same[0].why.contains("1 CNI configurations in /srv/cni"), "{found:?}");
    }
}
