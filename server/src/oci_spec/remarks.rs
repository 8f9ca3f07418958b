// SPDX-License-Identifier: Apache-2.0
//! Parts of a container's config that are accepted and have no effect, in sentences. Pure.
//!
//! Such a config is accepted, because other runtimes accept it; so it must not be accepted without a word.

use hull_plan::clean;
use hull_proto::cri;

/// The remarks on a config.
pub(crate) fn remarks(config: &cri::ContainerConfig) -> Vec<String> {
    let mut remarks = Vec::new();
    for (number, mount) in config.mounts.iter().enumerate() {
        let path = clean(&mount.container_path);
        let later = config.mounts.iter().skip(number + 1);
        if let Some(later) = later.rev().find(|later| clean(&later.container_path) == path) {
            let (source, covering) = (source(mount), source(later));
            remarks.push(format!(
                "two volumes are mounted at `{path}`: {covering} covers {source}, which is not visible"
            ));
        }
    }
    remarks
}

fn source(mount: &cri::Mount) -> String {
    match &mount.image {
        Some(image) => format!("image `{}`", image.image),
        None => format!("`{}`", mount.host_path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_another_one_covers_is_named() {
        let mount = |host: &str, at: &str| cri::Mount {
            host_path: host.into(),
            container_path: at.into(),
            ..Default::default()
        };
        let config = cri::ContainerConfig {
            mounts: vec![mount("/a", "/data"), mount("/b", "/data/x"), mount("/c", "/data/./")],
            ..Default::default()
        };
        let remarks = remarks(&config);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].contains("`/c` covers `/a`"), "{remarks:?}");
    }
}
