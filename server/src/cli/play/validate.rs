// SPDX-License-Identifier: Apache-2.0
//! The rules of Kubernetes for names, paths and ids in a manifest, which an API server would enforce. Pure.

use super::manifest::{Container, Pod, Volume};
use std::collections::BTreeSet;
use std::path::{Component, Path};

/// Longest DNS label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS name, in bytes.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// The largest uid or gid of a manifest.
const ID_MAX: i64 = 2_147_483_647;

/// Checks everything of a pod that is wrong by itself, whatever else the file has.
///
/// # Errors
/// The sentence names what is wrong.
pub(super) fn pod(pod: &Pod) -> Result<(), String> {
    subdomain("the name of a pod", &pod.metadata.name)?;
    label("a namespace", pod.metadata.namespace())?;
    let spec = &pod.spec;
    if let Some(hostname) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        label("a hostname", hostname)?;
    }
    let security = &spec.security_context;
    id("runAsUser", security.run_as_user)?;
    id("runAsGroup", security.run_as_group)?;
    for group in &security.supplemental_groups {
        id("supplementalGroups", Some(*group))?;
    }
    let mut names = BTreeSet::new();
    for container in spec.init_containers.iter().chain(&spec.containers) {
        label("the name of a container", &container.name)?;
        if !names.insert(&container.name) {
            return Err(format!("there are two containers `{}`", container.name));
        }
        self::container(container)
            .map_err(|why| format!("container `{}`: {why}", container.name))?;
    }
    let mut names = BTreeSet::new();
    for Volume { name, .. } in &spec.volumes {
        label("the name of a volume", name)?;
        if !names.insert(name) {
            return Err(format!("there are two volumes `{name}`"));
        }
    }
    Ok(())
}

fn container(of: &Container) -> Result<(), String> {
    id("runAsUser", of.security_context.run_as_user)?;
    id("runAsGroup", of.security_context.run_as_group)?;
    let mut paths = BTreeSet::new();
    for path in of.volume_mounts.iter().map(|mount| mount.mount_path.as_str()) {
        let parsed = Path::new(path);
        if !parsed.is_absolute() {
            return Err(format!("mountPath `{path}` is not an absolute path"));
        }
        if parsed.components().any(|part| part == Component::ParentDir) {
            return Err(format!("mountPath `{path}` has a `..`"));
        }
        // Two paths are compared without what changes nothing, as a slash at the end.
        if !paths.insert(parsed.components().collect::<Vec<_>>()) {
            return Err(format!("there are two volumeMounts at `{path}`"));
        }
    }
    Ok(())
}

fn id(field: &str, id: Option<i64>) -> Result<(), String> {
    match id.filter(|id| !(0..=ID_MAX).contains(id)) {
        Some(id) => Err(format!("{field} {id} is not between 0 and {ID_MAX}")),
        None => Ok(()),
    }
}

/// Refuses a text that is not a DNS label: `what` names it in the sentence.
fn label(what: &str, text: &str) -> Result<(), String> {
    if is_label(text) && text.len() <= LABEL_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not {what}: up to {LABEL_BYTES_MAX} of a-z, 0-9 and `-`, with none of `-` at its ends"
    ))
}

/// Refuses a text that is not a DNS name, which is labels with dots between.
pub(super) fn subdomain(what: &str, text: &str) -> Result<(), String> {
    if text.split('.').all(is_label) && text.len() <= SUBDOMAIN_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not {what}: up to {SUBDOMAIN_BYTES_MAX} of a-z, 0-9, `-` and `.`, with a letter or digit at the \
         ends of each part"
    ))
}

fn is_label(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let has_ends = !text.starts_with('-') && !text.ends_with('-');
    !text.is_empty() && text.bytes().all(is_plain) && has_ends
}

#[cfg(test)]
mod tests {
    use super::super::super::documents;
    use super::*;

    fn checked(metadata: &str, spec: &str) -> Result<(), String> {
        let text =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n");
        pod(&documents::parse(&text).unwrap())
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        for name in ["web", "a.b-c.d", "0", "web-1"] {
            checked(&format!("name: '{name}'"), "containers: [{name: a, image: i}]").unwrap();
        }
        for name in ["UPPER_x", "../../evil", "", "-a", "a-", "a..b", ".a", &"a".repeat(254)] {
            let said = checked(&format!("name: '{name}'"), "containers: []").unwrap_err();
            assert!(said.contains("is not the name of a pod"), "{said}");
            let spec = format!("containers: [{{name: '{name}', image: i}}]");
            let said = checked("name: web", &spec).unwrap_err();
            assert!(said.contains("is not the name of a container"), "{said}");
            let spec = format!("containers: [], volumes: [{{name: '{name}', emptyDir: {{}}}}]");
            let said = checked("name: web", &spec).unwrap_err();
            assert!(said.contains("is not the name of a volume"), "{said}");
            if !name.is_empty() {
                let said = checked(&format!("name: web, namespace: '{name}'"), "containers: []");
                assert!(said.unwrap_err().contains("is not a namespace"), "{name}");
            }
        }
    }

    #[test]
    fn what_would_be_there_twice_or_elsewhere_is_refused() {
        let mounts =
            |paths: &str| format!("containers: [{{name: a, image: i, volumeMounts: [{paths}]}}]");
        for (spec, said) in [
            (
                "containers: [{name: a, image: i}, {name: a, image: i}]".to_owned(),
                "two containers `a`",
            ),
            (
                "initContainers: [{name: a, image: i}], containers: [{name: a, image: i}]"
                    .to_owned(),
                "two containers `a`",
            ),
            (
                "containers: [], volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]"
                    .to_owned(),
                "two volumes `v`",
            ),
            (
                mounts("{name: v, mountPath: /x}, {name: w, mountPath: /x/}"),
                "two volumeMounts at `/x/`",
            ),
            (mounts("{name: v, mountPath: /x/../etc}"), "mountPath `/x/../etc` has a `..`"),
            (mounts("{name: v, mountPath: x}"), "is not an absolute path"),
            ("containers: [], securityContext: {runAsUser: -1}".to_owned(), "runAsUser -1"),
            (
                "containers: [{name: a, image: i, securityContext: {runAsGroup: -5}}]".to_owned(),
                "container `a`: runAsGroup -5",
            ),
            (
                "containers: [], securityContext: {supplementalGroups: [2147483648]}".to_owned(),
                "2147483648",
            ),
            ("containers: [], hostname: A_b".to_owned(), "`A_b` is not a hostname"),
        ] {
            let why = checked("name: web", &spec).unwrap_err();
            assert!(why.contains(said), "{said}: {why}");
        }
        let spec = mounts(
            "{name: v, mountPath: /x}, {name: v, mountPath: /x/y}, {name: v, mountPath: /...}",
        );
        checked("name: web", &spec).unwrap();
    }
}
