// SPDX-License-Identifier: Apache-2.0
//! The path of a pod's cgroup, and its creator: Hull or systemd.
//!
//! ```text
//! cgroupfs   /kubepods/burstable/pod1/<pod-id>               made by the monitor, on the way
//! systemd    …/kubepods-burstable-pod1.slice/hull-<pod-id>.scope/<pod-id>
//! ```
//!
//! A scope is born with a process in it, and lives while there is one. The pod's monitor lends itself:
//! it goes into the scope, from there into the pause process's own cgroup (what hands down
//! controllers may hold no process), and comes back once pause is there. So it is not charged to the
//! pod for longer than that.
//!
//! The rule: the kubelet and hull must use the same driver, or limits of pods mean nothing. A parent
//! in the other's form is refused by name.

use super::PodRecord;
use crate::config;
use crate::storage::blocking;
use crate::systemd::{self, Systemd, names};
use hull_cgroup::{Cgroup, CgroupFs, Version};
use hull_proto::id::PodId;
use std::path::{Path, PathBuf};

/// Is there when systemd is the init of this machine (sd_booted(3)).
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest parent, in bytes: with the mount before it and two ids and a file behind it, a path stays
/// below PATH_MAX (4096).
const PARENT_BYTES_MAX: usize = 2048;

/// Why a pod's cgroup could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use the systemd cgroup driver: {why}")]
    NoSystemd { why: &'static str },
    #[error("use `{parent}` as slice for pods that name none: {why}")]
    OwnParent { parent: String, why: &'static str },
    #[error("find out which cgroup this daemon is in")]
    Home { source: hull_cgroup::Error },
    #[error("make its scope")]
    Scope { source: systemd::Error },
    #[error("use its scope")]
    Inside { source: hull_cgroup::Error },
}

impl Error {
    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoSystemd { .. } => Some(
                "set `cgroup.driver = \"cgroupfs\"`; a kubelet asks hull for its driver and follows".into(),
            ),
            Self::OwnParent { .. } => {
                Some("name a slice in `cgroup.parent`, such as \"hull.slice\"".into())
            }
            Self::Scope { source } => source.hint(),
            Self::Home { source } | Self::Inside { source } => source.hint(),
        }
    }
}

/// The creator of pod cgroups.
#[derive(Debug)]
pub(crate) enum Driver {
    /// Hull creates them through files.
    Cgroupfs {
        parent: String,
        /// Why this node cannot have the other driver, if so.
        no_systemd: Option<&'static str>,
    },
    /// systemd makes one scope per pod, and hull what is in it.
    Systemd {
        bus: Systemd,
        /// The slice of pods that name none.
        slice: String,
        /// The daemon's own cgroup, where monitors belong.
        root_cgroup: PathBuf,
    },
}

impl Driver {
    /// The one that is set, or that fits this host.
    pub(crate) fn choose(config: &config::Cgroup, host: &CgroupFs) -> Result<Self, Error> {
        let v2 = host.version() == Version::V2;
        let no_systemd = if !Path::new(SYSTEMD_RUNS).is_dir() {
            Some("systemd is not the init of this machine")
        } else if !v2 {
            Some("it wants cgroup v2: in v1 nothing below a scope is handed over safely")
        } else {
            None
        };
        let systemd = match (config.driver, no_systemd) {
            (config::Driver::Cgroupfs, _) => false,
            (config::Driver::Auto, no_systemd) => no_systemd.is_none(),
            (config::Driver::Systemd, Some(why)) => return Err(Error::NoSystemd { why }),
            (config::Driver::Systemd, None) => true,
        };
        if !systemd {
            let parent = config.parent.trim_end_matches('/').to_owned();
            return Ok(Self::Cgroupfs { parent, no_systemd });
        }
        let slice = names::slice_of_path(&config.parent)
            .map_err(|why| Error::OwnParent { parent: config.parent.clone(), why })?;
        let root_cgroup = host.self_dir().map_err(|source| Error::Home { source })?;
        let root_cgroup =
            root_cgroup.ok_or(Error::NoSystemd { why: "this daemon is in no v2 cgroup" })?;
        Ok(Self::Systemd { bus: Systemd::default(), slice, root_cgroup })
    }

    pub(crate) fn is_systemd(&self) -> bool {
        matches!(self, Self::Systemd { .. })
    }

    /// The cgroup of a new pod whose creator named `parent`, and whether Hull removes it;
    /// or why that cannot be a parent for this driver.
    pub(crate) fn cgroup_path(&self, pod: &PodId, parent: &str) -> Result<(String, bool), String> {
        let shown = || parent.chars().take(200).flat_map(char::escape_default).collect::<String>();
        match self {
            Self::Cgroupfs { .. } if parent.is_empty() => Ok((self.default_path(pod), true)),
            Self::Cgroupfs { .. } if parent.starts_with('/') => {
                let path = plain(parent).ok_or_else(|| {
                    format!(
                        "`{}` is not an absolute path below the root, without `.` and `..`",
                        shown()
                    )
                })?;
                Ok((path, false))
            }
            Self::Cgroupfs { no_systemd, .. } if parent.ends_with(".slice") => {
                // A daemon with that setting would not start here.
                let advice = match no_systemd {
                    None => "set cgroup.driver = \"systemd\"".to_owned(),
                    Some(why) => format!(
                        "set `cgroupDriver: cgroupfs` for the kubelet; hull's systemd driver cannot be used here ({why})"
                    ),
                };
                Err(format!(
                    "`{}` is a slice of systemd, but hull makes cgroups itself here: {advice}",
                    shown()
                ))
            }
            Self::Cgroupfs { .. } => {
                Err(format!("`{}` is not an absolute path without `..`", shown()))
            }
            Self::Systemd { .. } if parent.is_empty() => Ok((self.default_path(pod), true)),
            Self::Systemd { .. } => {
                let slice = names::slice(parent).map_err(|why| {
                    format!("as parent cgroup under the systemd driver `{}` does not do: {why}; give the kubelet and hull the same driver (cgroup.driver = \"cgroupfs\" for this one)", shown())
                })?;
                Ok((format!("{}/{}", names::path(&slice), names::scope(pod)), true))
            }
        }
    }

    /// The cgroup of a pod whose creator names no parent.
    pub(crate) fn default_path(&self, pod: &PodId) -> String {
        match self {
            Self::Cgroupfs { parent, .. } => format!("{parent}/pod{pod}"),
            Self::Systemd { slice, .. } => format!("{}/{}", names::path(slice), names::scope(pod)),
        }
    }

    /// Where the cgroups of such pods are.
    pub(crate) fn default_parent(&self) -> String {
        match self {
            Self::Cgroupfs { parent, .. } => parent.clone(),
            Self::Systemd { slice, .. } => names::path(slice),
        }
    }

    /// The kubelet's own cgroup of a pod, where that is not the pod's itself.
    pub(crate) fn parent_cgroup<'r>(&self, pod: &'r PodRecord) -> Option<&'r str> {
        let named = pod.config.linux.as_ref().is_some_and(|of| !of.cgroup_parent.is_empty());
        match self {
            Self::Systemd { .. } if named => pod.cgroup.rsplit_once('/').map(|(above, _)| above),
            Self::Systemd { .. } | Self::Cgroupfs { .. } => None,
        }
    }

    /// The pod that a cgroup there belongs to, by its name.
    pub(crate) fn pod_of(&self, name: &str) -> Option<PodId> {
        match self {
            Self::Cgroupfs { .. } => PodId::parse(name.strip_prefix("pod")?).ok(),
            Self::Systemd { .. } => names::pod_of(name),
        }
    }

    /// Has the cgroup `path` of `pod` made where the monitor cannot do that itself. The monitor is in
    /// it then, until [`Driver::release`].
    pub(crate) async fn make(
        &self,
        host: &CgroupFs,
        pod: &PodId,
        path: &str,
        monitor: i32,
    ) -> Result<(), Error> {
        let Self::Systemd { bus, .. } = self else { return Ok(()) };
        let (above, scope) = path.rsplit_once('/').unwrap_or(("", path));
        let slice = above.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("-.slice");
        let about = format!("Pod {}", pod.short());
        let started = bus.start_scope(scope, slice, &about, monitor);
        started.await.map_err(|source| Error::Scope { source })?;
        let inside = |source| Error::Inside { source };
        let leaf = Cgroup::at(host, &format!("{path}/{pod}")).map_err(inside)?;
        blocking(move || leaf.make_leaf().and_then(|()| leaf.add(monitor, true)))
            .await
            .map_err(inside)
    }

    /// Takes the monitor out of its pod's cgroup again, once pause is in it.
    pub(crate) fn release(&self, monitor: i32) -> Result<(), Error> {
        let Self::Systemd { root_cgroup, .. } = self else { return Ok(()) };
        hull_cgroup::move_to(root_cgroup, monitor).map_err(|source| Error::Inside { source })
    }
}

/// An absolute path with one slash between its parts; `None` for the root of the tree, which is not one
/// pod's to limit and to clear, for a path with `.` or `..`, and for one that no file of the kernel's could
/// be reached by (PATH_MAX and NAME_MAX, `path_resolution(7)`).
fn plain(parent: &str) -> Option<String> {
    let parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    let climbs = parts.iter().any(|part| matches!(*part, "." | ".."));
    let too_long = parts.iter().any(|part| part.len() > NAME_BYTES_MAX);
    let path = format!("/{}", parts.join("/"));
    (!parts.is_empty() && !climbs && !too_long && path.len() <= PARENT_BYTES_MAX).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodId {
        PodId::from_random([7; 32])
    }

    fn systemd() -> Driver {
        Driver::Systemd {
            bus: Systemd::default(),
            slice: "hull.slice".into(),
            root_cgroup: PathBuf::from("/sys/fs/cgroup/system.slice/hull.service"),
        }
    }

    #[test]
    fn below_a_slice_the_pod_has_a_scope() {
        let (path, ours) = systemd().cgroup_path(&pod(), "kubepods-besteffort-pod1.slice").unwrap();
        let slices = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice";
        assert_eq!(path, format!("{slices}/hull-{}.scope", pod()));
        assert!(ours, "the scope belongs to Hull, even in the slice of the kubelet");
        let own = systemd().cgroup_path(&pod(), "").unwrap().0;
        assert_eq!(own, format!("/hull.slice/hull-{}.scope", pod()));
        let name = own.rsplit('/').next().unwrap();
        assert_eq!(systemd().pod_of(name), Some(pod()), "the sweep finds it again");
    }

    #[test]
    fn a_parent_in_the_other_drivers_form_is_refused_with_the_hint() {
        let why = systemd().cgroup_path(&pod(), "/kubepods/burstable/pod1").unwrap_err();
        assert!(why.contains("cgroup.driver = \"cgroupfs\""), "{why}");
        let ours = Driver::Cgroupfs { parent: "/hull".into(), no_systemd: None };
        let why = ours.cgroup_path(&pod(), "kubepods-pod1.slice").unwrap_err();
        assert!(why.contains("cgroup.driver = \"systemd\""), "{why}");
        let alone = Driver::Cgroupfs { parent: "/hull".into(), no_systemd: Some("no v2") };
        let why = alone.cgroup_path(&pod(), "kubepods-pod1.slice").unwrap_err();
        assert!(why.contains("cgroupDriver: cgroupfs") && why.contains("no v2"), "{why}");
        assert!(!why.contains("cgroup.driver"), "that keeps the daemon from starting: {why}");
        assert!(ours.cgroup_path(&pod(), "/a/../b").is_err());
        assert_eq!(ours.cgroup_path(&pod(), "/a/b").unwrap(), ("/a/b".into(), false));
        for root in ["/", "//", "/.", "/a/.", "/./a"] {
            assert!(
                ours.cgroup_path(&pod(), root).is_err(),
                "{root}: such a pod could never be cleared"
            );
        }
        for long in ["/x".repeat(2000), format!("/{}", "x".repeat(256))] {
            assert!(ours.cgroup_path(&pod(), &long).is_err(), "such a pod could never be cleared");
        }
        assert_eq!(ours.cgroup_path(&pod(), "//a///b/").unwrap().0, "/a/b");
    }
}
