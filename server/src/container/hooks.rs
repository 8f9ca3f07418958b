// SPDX-License-Identifier: Apache-2.0
//! Hooks of containers, from the files of CDI devices, from NRI plugins and from the files of `runtime.hooks_dir`: what
//! they read, and what they are owed.
//!
//! ```text
//! <state_dir>/bundles/<container-id>/config.json   the OCI spec, for hooks: they get the directory as their bundle
//!                                    hooks         the hooks as the monitor gets them
//!                                    started       its start was requested
//!                                    poststop      from before that until the poststop hooks have run
//! ```
//!
//! The rule: a container whose start was requested has its poststop hooks run once for each run. The pod's monitor runs
//! them when the container has ended, whether a daemon is there or not. If the monitor was lost before that, the daemon
//! that removes the container, or starts it again, runs them; a lock of the file keeps both from doing it at a time.

use crate::error::Error;
use crate::limits::HOOK_S;
use crate::records;
use hull_plan::{HOOKS_FILE, HookKind, Hooks, OWED_FILE};
use hull_proto::id::ContainerId;
use hull_records::{Durability, Location, PRIVATE};
use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tracing::error;

/// Longest file that is read or written here, in bytes. Both are of what fits a call's message.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The file that says that a start was requested.
const STARTED_FILE: &str = "started";
/// The environment of a hook on the node that has none of its own.
const PATH_DEFAULT: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Kinds that run before a start is answered.
const OF_START: [HookKind; 5] = [
    HookKind::Prestart,
    HookKind::CreateRuntime,
    HookKind::CreateContainer,
    HookKind::StartContainer,
    HookKind::Poststart,
];
/// The hooks of all kinds.
pub(super) const ALL: [HookKind; 6] = [
    HookKind::Prestart,
    HookKind::CreateRuntime,
    HookKind::CreateContainer,
    HookKind::StartContainer,
    HookKind::Poststart,
    HookKind::Poststop,
];

/// The directory of bundles.
#[derive(Debug)]
pub(crate) struct Bundles {
    dir: PathBuf,
}

impl Bundles {
    /// Opens the directory, and makes it when missing.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, records::Error> {
        records::create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Keeps the hooks of a container, if its spec has any, and writes the bundle that they read. `root` is the path of
    /// the container's root in its own mount namespace before that is its root, and `files` are those of its last hooks.
    pub(crate) fn save(
        &self,
        id: &str,
        spec: &Spec,
        files: &[(HookKind, String)],
        root: &Path,
    ) -> Result<(), Error> {
        if spec.hooks().is_none() {
            return Ok(());
        }
        let dir = self.path(id);
        let mut hooks = planned(spec, id, &dir)?;
        hull_plan::name_files(&mut hooks, files);
        let failed = |source| Error::Store { source };
        let config = config(spec, root).map_err(|source| {
            failed(records::Error::Encode { path: dir.join("config.json"), source })
        })?;
        records::create_dir(&dir).map_err(failed)?;
        for (name, bytes) in
            [("config.json", config.into_bytes()), (HOOKS_FILE, hull_plan::encode(&hooks))]
        {
            if bytes.len() as u64 > FILE_BYTES_MAX {
                let why = format!("with its hooks it has more than {} MiB", FILE_BYTES_MAX >> 20);
                return Err(Error::Invalid { field: "config", why });
            }
            self.write(&dir, name, &bytes).map_err(failed)?;
        }
        Ok(())
    }

    fn write(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), records::Error> {
        let (path, scratch) = (dir.join(name), dir.join(format!("{name}.new")));
        let (file, scratch) = (Location::at(&path), Location::at(&scratch));
        hull_records::replace(file, scratch, bytes, PRIVATE, Durability::Process)
            .map_err(|source| records::Error::Write { path: path.clone(), source })
    }

    /// The hooks of a container as its spec had them when it was created; `None` without any.
    pub(crate) fn of_spec(&self, id: &str) -> Option<serde_json::Value> {
        let path = self.path(id).join("config.json");
        let bytes = Location::at(&path).read(FILE_BYTES_MAX).ok()?;
        let mut config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        Some(config["hooks"].take())
    }

    /// The hooks of a container; `None` without any.
    pub(crate) fn load(&self, id: &str) -> Result<Option<Hooks>, Error> {
        let path = self.path(id).join(HOOKS_FILE);
        let bytes = match Location::at(&path).read(FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(err) if err.is_not_found() => return Ok(None),
            Err(source) => {
                return Err(Error::Store {
                    source: records::Error::Read { path: path.clone(), source },
                });
            }
        };
        let hooks = hull_plan::decode_hooks(&bytes).ok_or_else(|| Error::Invalid {
            field: "hooks",
            why: format!(
                "{} is damaged, or of another release; create the container again",
                path.display()
            ),
        })?;
        Ok(Some(hooks))
    }

    /// The directory of a container that is about to be started, which says from now on that its poststop hooks have to
    /// run.
    pub(crate) fn begin(&self, id: &str, hooks: &Hooks) -> Result<OwnedFd, Error> {
        let failed = |source| Error::Store { source };
        // A second request for the start, by the next daemon, must not have them run twice.
        if hooks.has(&[HookKind::Poststop]) && !self.has(id, STARTED_FILE).map_err(failed)? {
            self.make(id, OWED_FILE).map_err(failed)?;
            self.make(id, STARTED_FILE).map_err(failed)?;
        }
        self.directory(id).map_err(|err| failed(self.unreadable(id, err.into())))
    }

    /// Ends the run of a container whose poststop hooks have run: its next start owes them again.
    pub(crate) fn end_run(&self, id: &str) -> Result<(), Error> {
        let path = self.path(id).join(STARTED_FILE);
        let removed = Location::at(&path).remove();
        removed.map_err(|source| Error::Store { source: records::Error::Remove { path, source } })
    }

    fn has(&self, id: &str, name: &str) -> Result<bool, records::Error> {
        self.path(id).join(name).try_exists().map_err(|err| self.unreadable(id, err))
    }

    /// Makes an empty file, if it is not there: others may have its lock.
    fn make(&self, id: &str, name: &str) -> Result<(), records::Error> {
        let path = self.path(id).join(name);
        let made = fs::File::options().append(true).create(true).mode(PRIVATE).open(&path);
        made.map(drop).map_err(|source| records::Error::CreateDir { path, source })
    }

    /// The directory of a container whose poststop hooks have not run; `None` if there is nothing to do.
    pub(crate) fn owed(&self, id: &str) -> Option<OwnedFd> {
        let dir = self.directory(id).ok()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, OWED_FILE, flags, Mode::empty()).ok()?;
        Some(dir)
    }

    fn directory(&self, id: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(self.path(id), flags, Mode::empty())
    }

    fn unreadable(&self, id: &str, source: std::io::Error) -> records::Error {
        records::Error::List { path: self.path(id), source }
    }

    /// Removes the bundle of a container; none counts as removed.
    pub(crate) fn remove(&self, id: &str) -> Result<(), records::Error> {
        let path = self.path(id);
        hull_sys::remove_tree(&path)
            .map_err(|source| records::Error::Remove { path: path.clone(), source })
    }

    /// The containers that have a bundle here.
    pub(crate) fn ids(&self) -> Vec<ContainerId> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(err) => {
                error!(dir = %self.dir.display(), error = %err, "bundles of hooks not listed");
                return Vec::new();
            }
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| ContainerId::parse(&name).ok()).collect()
    }

    /// The bundles of none of `containers`.
    pub(crate) fn left(&self, containers: &BTreeSet<String>) -> Vec<ContainerId> {
        let mut ids = self.ids();
        ids.retain(|id| !containers.contains(id.as_str()));
        ids
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }
}

/// The longest time that the hooks of a start may take.
pub(crate) fn start_max(hooks: &Hooks) -> std::time::Duration {
    hooks.time_max(&OF_START)
}

/// The hooks of a spec, each with a time limit, and the state that they get.
fn planned(spec: &Spec, id: &str, bundle: &Path) -> Result<Hooks, Error> {
    let state = json!({
        "ociVersion": spec.version(), "id": id, "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    });
    let mut state = state.to_string();
    state.pop();
    state.push(',');
    let mut hooks = hull_plan::hooks(spec, state).map_err(|source| Error::Plan { source })?;
    for hook in &mut hooks.list {
        hook.timeout_s.get_or_insert(u32::try_from(HOOK_S.default).unwrap_or(u32::MAX));
        // In the container that is the container's environment.
        if hook.env.is_empty() && hook.kind != HookKind::StartContainer {
            hook.env.push(PATH_DEFAULT.to_vec());
        }
    }
    Ok(hooks)
}

/// The spec as hooks read it.
fn config(spec: &Spec, root: &Path) -> serde_json::Result<String> {
    let mut config = serde_json::to_value(spec)?;
    config["root"]["path"] = json!(root);
    serde_json::to_string(&config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn spec() -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.2.1", "root": {"path": "rootfs"}, "annotations": {"a": "\"b"},
            "process": {"args": ["/x"], "cwd": "/", "user": {"uid": 7, "gid": 8}, "env": ["SECRET=s"]},
            "hooks": {"createContainer": [{"path": "/h"}], "poststop": [{"path": "/p", "timeout": 9}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_bundle_is_its_owners_alone_and_has_what_hooks_read() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(dir.path().join("bundles")).unwrap();
        let id = "a".repeat(64);
        let files = [(HookKind::Poststop, "/etc/hooks.d/p.json".to_owned())];
        bundles.save(&id, &spec(), &files, Path::new("/run/hull/rootfs")).unwrap();
        let bundle = bundles.path(&id);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&bundle), mode(&bundle.join("config.json"))), (0o700, 0o600));
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["root"]["path"], "/run/hull/rootfs");
        assert_eq!(config["hooks"]["poststop"][0]["path"], "/p");
        assert_eq!(bundles.of_spec(&id).unwrap(), config["hooks"]);

        assert!(bundles.owed(&id).is_none(), "before its start");
        let hooks = bundles.load(&id).unwrap().unwrap();
        let _dir = bundles.begin(&id, &hooks).unwrap();
        assert!(bundles.owed(&id).is_some());
        assert_eq!(
            hooks.list.iter().map(|of| of.timeout_s).collect::<Vec<_>>(),
            [Some(30), Some(9)]
        );
        assert!(hooks.list.iter().all(|of| of.env == [PATH_DEFAULT]), "{hooks:?}");
        assert_eq!(start_max(&hooks).as_secs(), 30);
        let of_files: Vec<_> = hooks.list.iter().map(|of| of.file.as_deref()).collect();
        assert_eq!(of_files, [None, Some("/etc/hooks.d/p.json")]);
        let state: serde_json::Value =
            serde_json::from_str(&format!("{}\"x\":1}}", hooks.state)).unwrap();
        assert_eq!((&state["bundle"], &state["annotations"]["a"]), (&json!(bundle), &json!("\"b")));

        assert_eq!(bundles.left(&BTreeSet::new()).len(), 1);
        fs::remove_file(bundle.join(OWED_FILE)).unwrap();
        let _dir = bundles.begin(&id, &hooks).unwrap();
        assert!(bundles.owed(&id).is_none(), "they have run");
        bundles.end_run(&id).unwrap();
        bundles.end_run(&id).unwrap();
        let _dir = bundles.begin(&id, &hooks).unwrap();
        assert!(bundles.owed(&id).is_some(), "the next run has its own");
        bundles.remove(&id).unwrap();
        bundles.remove(&id).unwrap();
        assert_eq!(bundles.load(&id).unwrap(), None);
    }

    #[test]
    fn hooks_without_files_are_those_of_earlier_releases() {
        let mut hooks = planned(&spec(), "x", Path::new("/b")).unwrap();
        let earlier = hull_plan::encode(&(hooks.state.clone(), hooks.list.clone()));
        assert_eq!(hull_plan::encode(&hooks), earlier);
        assert_eq!(hull_plan::decode_hooks(&earlier).unwrap(), hooks);
        hooks.list[0].file = Some("/etc/hooks.d/a.json".into());
        let bytes = hull_plan::encode(&hooks);
        assert_eq!(hull_plan::decode_hooks(&bytes).unwrap(), hooks);
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(hull_plan::decode_hooks(cut), None);
    }

    #[test]
    fn without_hooks_there_is_no_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(dir.path().to_owned()).unwrap();
        let mut plain = spec();
        plain.set_hooks(None);
        bundles.save("x", &plain, &[], Path::new("/r")).unwrap();
        assert!(bundles.load("x").unwrap().is_none() && bundles.owed("x").is_none());
        assert_eq!(bundles.of_spec("x"), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
