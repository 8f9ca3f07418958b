// SPDX-License-Identifier: Apache-2.0
//! Names of slices and scopes, and where their cgroups are. `systemd.slice(5)`.
//!
//! A slice's place is in its name: `a-b.slice` lies in `a.slice`. So the name alone gives the path,
//! and whatever stands before it in what a kubelet sends is not needed.

use hull_proto::id::PodId;

/// Longest name of a unit, in bytes (`UNIT_NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// The root of all slices.
const ROOT: &str = "-.slice";

/// The slice that a pod's parent means: `x.slice`, or a path that ends in one.
pub(crate) fn slice(parent: &str) -> Result<String, &'static str> {
    let name = parent.rsplit('/').next().unwrap_or_default();
    if name == ROOT {
        return Ok(name.into());
    }
    let Some(stem) = name.strip_suffix(".slice") else {
        return Err("it is not a slice of systemd");
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:\\@".contains(c);
    if name.len() > NAME_BYTES_MAX || !stem.chars().all(good) {
        return Err("it is not a name of a unit");
    }
    if stem.split('-').any(str::is_empty) {
        return Err("a slice's name has no empty part between dashes");
    }
    Ok(name.into())
}

/// A cgroup path as a slice, as the kubelet turns its own into slices: `/a/b-c` is `a-b_c.slice`.
pub(crate) fn slice_of_path(path: &str) -> Result<String, &'static str> {
    if path.ends_with(".slice") {
        return slice(path);
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Ok(ROOT.into());
    }
    slice(&format!("{}.slice", parts.join("/").replace('-', "_").replace('/', "-")))
}

/// Where a slice's cgroup is: `a-b.slice` at `/a.slice/a-b.slice`.
pub(crate) fn path(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if slice == ROOT {
        return String::new();
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("/{}.slice", &stem[..end])).collect()
}

/// The scope of a pod.
pub(crate) fn scope(pod: &PodId) -> String {
    format!("hull-{pod}.scope")
}

/// The pod of a scope, when it is one of ours.
pub(crate) fn pod_of(scope: &str) -> Option<PodId> {
    PodId::parse(scope.strip_prefix("hull-")?.strip_suffix(".scope")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_parents_are_slices_with_a_path() {
        let long = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        for given in [long, "kubepods-burstable-pod1_2.slice"] {
            let slice = slice(given).unwrap();
            assert_eq!(slice, "kubepods-burstable-pod1_2.slice");
            assert_eq!(path(&slice), long);
        }
        assert_eq!(path(&slice("-.slice").unwrap()), "");
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        for bad in ["", "/kubepods/burstable", "a--b.slice", "-a.slice", "a b.slice", ".slice"] {
            assert!(slice(bad).is_err(), "{bad}");
        }
        assert!(slice(&format!("{}.slice", "a".repeat(300))).is_err());
    }

    #[test]
    fn a_path_becomes_the_slice_that_the_kubelet_would_make_of_it() {
        assert_eq!(slice_of_path("/hull").unwrap(), "hull.slice");
        assert_eq!(slice_of_path("/a/b-c").unwrap(), "a-b_c.slice");
        assert_eq!(slice_of_path("system.slice").unwrap(), "system.slice");
        assert_eq!(slice_of_path("/").unwrap(), "-.slice");
    }

    #[test]
    fn a_scope_tells_its_pod() {
        let pod = PodId::from_random([7; 32]);
        assert_eq!(pod_of(&scope(&pod)), Some(pod));
        assert_eq!(pod_of("hull-x.scope"), None);
        assert_eq!(pod_of("session-1.scope"), None);
    }
}
