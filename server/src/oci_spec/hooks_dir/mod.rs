// SPDX-License-Identifier: Apache-2.0
//! Hooks of the node's administrator for the containers that their files choose: oci-hooks(5), version 1.0.0, as other
//! runtimes read it.
//!
//! ```text
//! files of `runtime.hooks_dir` ──▶ those whose `when` matches the container ──▶ hooks of its spec
//! ```
//!
//! The rule: a hook runs as root on the node, so directories, files and programs, and what lies on the way to
//! them, must be root's alone: when a container is created, and programs again whenever they run. A file that cannot
//! be used refuses containers instead of leaving its hook out: the hook may be what confines them. Files are read for each
//! container that is created, so a new file needs no restart.

mod error;
mod file;
mod find;

pub(crate) use error::Error;
pub(crate) use find::files;

use file::{File, Stage, Traits};
use hull_plan::HookKind;
use hull_proto::cri;
use oci_spec::runtime::{Hook, Spec};
use std::collections::HashMap;
use std::path::PathBuf;

#[cfg(test)]
mod tests;

/// The annotations of a container and of its pod; of two with one key, that of the pod.
fn annotations<'a>(
    config: &'a cri::ContainerConfig,
    pod: &'a cri::PodSandboxConfig,
) -> HashMap<&'a str, &'a str> {
    let both = config.annotations.iter().chain(&pod.annotations);
    both.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Adds the hooks that the files in `dirs` have for this container, behind those that its spec has. Returns the file of
/// each.
pub(crate) fn inject(
    spec: &mut Spec,
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
    dirs: &[PathBuf],
) -> Result<Vec<(HookKind, String)>, Error> {
    if dirs.is_empty() {
        return Ok(Vec::new());
    }
    let files = files(dirs)?;
    let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
    let command = args.and_then(|args| args.first()).cloned().unwrap_or_default();
    let traits = Traits {
        annotations: annotations(config, pod),
        command: &command,
        has_bind_mounts: !config.mounts.is_empty(),
    };
    let mut added = Vec::new();
    for file in files.iter().filter(|file| file.matches(&traits)) {
        add(spec, file);
        added.extend(file.stages().iter().map(|stage| (stage.kind(), file.path().to_owned())));
    }
    Ok(added)
}

fn add(spec: &mut Spec, file: &File) {
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    let hook = file.hook();
    for stage in file.stages() {
        #[allow(deprecated, reason = "files may still name prestart")]
        let list: &mut Option<Vec<Hook>> = match stage {
            Stage::Prestart => hooks.prestart_mut(),
            Stage::CreateRuntime => hooks.create_runtime_mut(),
            Stage::CreateContainer => hooks.create_container_mut(),
            Stage::StartContainer => hooks.start_container_mut(),
            Stage::Poststart => hooks.poststart_mut(),
            Stage::Poststop => hooks.poststop_mut(),
        };
        list.get_or_insert_default().push(hook.clone());
    }
    spec.set_hooks(Some(hooks));
}
