// SPDX-License-Identifier: Apache-2.0
//! The files of configMap, secret, downwardAPI and projected volumes. They are written once, before the pod runs, and
//! mounted read-only, as a kubelet does; there is no cluster in which they could change later.

use super::super::error::{Error, Result};
use super::data::{Data, DataKind};
use super::fields::PodFacts;
use super::manifest::{DownwardItem, KeyToPath, Mode, Volume};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path};

/// Permissions of files without others, as in a cluster.
const MODE: u32 = 0o644;
/// Permissions of directories.
const DIRECTORY_MODE: u32 = 0o755;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeFile {
    mode: u32,
    content: Vec<u8>,
}

/// The files of a volume, by their path in it.
pub(super) type Files = BTreeMap<String, VolumeFile>;

/// The files of a volume; none if it is of another kind.
///
/// # Errors
/// The sentence says which part of it is not valid, or not there.
pub(super) fn of(
    volume: &Volume,
    facts: &PodFacts<'_>,
    data: &Data,
) -> Result<Option<Files>, String> {
    let mut files = Files::new();
    let mut to = Collector { files: &mut files, facts, data, mode: MODE };
    let bad = |why| format!("volume `{}`: {why}", volume.name);
    if let Some(of) = &volume.config_map {
        to.mode = mode(of.default_mode.as_ref(), MODE).map_err(bad)?;
        to.keys(DataKind::ConfigMap, (&of.name, of.optional), of.items.as_deref()).map_err(bad)?;
    } else if let Some(of) = &volume.secret {
        to.mode = mode(of.default_mode.as_ref(), MODE).map_err(bad)?;
        to.keys(DataKind::Secret, (&of.secret_name, of.optional), of.items.as_deref())
            .map_err(bad)?;
    } else if let Some(of) = &volume.downward_api {
        to.mode = mode(of.default_mode.as_ref(), MODE).map_err(bad)?;
        to.fields(&of.items).map_err(bad)?;
    } else if let Some(of) = &volume.projected {
        to.mode = mode(of.default_mode.as_ref(), MODE).map_err(bad)?;
        for source in &of.sources {
            to.source(source).map_err(bad)?;
        }
    } else {
        return Ok(None);
    }
    let is_file = |path: &&Path| path.to_str().is_some_and(|path| files.contains_key(path));
    for path in files.keys() {
        if let Some(above) = Path::new(path).ancestors().skip(1).find(is_file) {
            let why = format!("`{}` is a file, and the directory of `{path}`", above.display());
            return Err(bad(why));
        }
    }
    Ok(Some(files))
}

/// Collects the files of one volume.
struct Collector<'a> {
    files: &'a mut Files,
    facts: &'a PodFacts<'a>,
    data: &'a Data,
    mode: u32,
}

impl Collector<'_> {
    fn source(&mut self, of: &super::manifest::Projection) -> Result<(), String> {
        match (&of.config_map, &of.secret, &of.downward_api) {
            (Some(of), None, None) => {
                self.keys(DataKind::ConfigMap, (&of.name, of.optional), of.items.as_deref())
            }
            (None, Some(of), None) => {
                self.keys(DataKind::Secret, (&of.name, of.optional), of.items.as_deref())
            }
            (None, None, Some(of)) => self.fields(&of.items),
            _ => {
                Err("a source of projected is not one of configMap, secret and downwardAPI".into())
            }
        }
    }

    /// Adds values: all of them by their keys, or those of `items`.
    fn keys(
        &mut self,
        kind: DataKind,
        (name, optional): (&str, bool),
        items: Option<&[KeyToPath]>,
    ) -> Result<(), String> {
        let at = (self.facts.pod.metadata.namespace(), name);
        let (data, mode) = (self.data, self.mode);
        let Some(items) = items else {
            for (key, value) in data.find(kind, at, optional)?.into_iter().flatten() {
                self.files.insert(key.clone(), VolumeFile { mode, content: value.clone() });
            }
            return Ok(());
        };
        for item in items {
            let Some(value) = data.value(kind, at, &item.key, optional)? else { continue };
            self.add(&item.path, item.mode.as_ref(), value.to_vec())?;
        }
        Ok(())
    }

    /// Adds facts of the pod.
    fn fields(&mut self, items: &[DownwardItem]) -> Result<(), String> {
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), None) => self.facts.of_file(&field.field_path)?,
                (None, Some(field)) => self.facts.resource(field, None)?,
                _ => {
                    let path = &item.path;
                    return Err(format!("`{path}` has not one of fieldRef and resourceFieldRef"));
                }
            };
            self.add(&item.path, item.mode.as_ref(), value.into_bytes())?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, own: Option<&Mode>, content: Vec<u8>) -> Result<(), String> {
        let Some(path) = relative(path) else {
            return Err(format!("`{path}` is not a path in the volume"));
        };
        // The kubelet's own names, as an API server has it.
        if path.starts_with("..") {
            return Err(format!("`{path}` begins with `..`"));
        }
        let mode = mode(own, self.mode)?;
        self.files.insert(path, VolumeFile { mode, content });
        Ok(())
    }
}

/// A path below a volume's directory, without `.`; none if it leads elsewhere.
pub(super) fn relative(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty() && !path.contains('\0')).then(|| parts.join("/"))
}

fn mode(of: Option<&Mode>, default: u32) -> Result<u32, String> {
    of.map_or(Ok(default), |of| {
        of.bits().ok_or_else(|| {
            format!(
                "mode `{of}` is not between 0 and 0777, in octal with a leading zero or in decimal"
            )
        })
    })
}

/// Writes the files below a directory that is there and empty.
pub(super) fn write(directory: &Path, files: &Files) -> Result<()> {
    for (path, file) in files {
        let path = directory.join(path);
        let failed = || Error::io(format!("write {}", path.display()));
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(parent)
                .map_err(failed())?;
        }
        // Closed to others until it has its own mode.
        let to = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let mut to = to.map_err(failed())?;
        to.write_all(&file.content).map_err(failed())?;
        to.set_permissions(Permissions::from_mode(file.mode)).map_err(failed())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::documents;
    use super::super::fields::NodeFacts;
    use super::super::manifest::Pod;
    use super::*;

    fn files(volume: &str) -> Result<Option<Files>, String> {
        let mut data = Data::default();
        let config =
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: conf}, data: {a: one, b: two}}";
        data.add(DataKind::ConfigMap, config).unwrap();
        let secret = "{apiVersion: v1, kind: Secret, metadata: {name: key}, stringData: {p: s}}";
        data.add(DataKind::Secret, secret).unwrap();
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, labels: {{app: x}}}}, \
             spec: {{containers: [{{name: app, image: i}}], volumes: [{{name: v, {volume}}}]}}}}"
        );
        let pod: Pod = documents::parse(&text)?;
        let node = NodeFacts::default();
        let facts = PodFacts { pod: &pod, uid: "u", node: &node, ips: &[] };
        of(&pod.spec.volumes[0], &facts, &data)
    }

    #[test]
    fn volumes_have_the_files_of_their_sources() {
        let all = files("configMap: {name: conf, defaultMode: 256}").unwrap().unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((all["a"].mode, all["a"].content.as_slice()), (0o400, &b"one"[..]));
        let some = files("secret: {secretName: key, items: [{key: p, path: x/./p, mode: 0600}]}");
        let some = some.unwrap().unwrap();
        assert_eq!((some.len(), some["x/p"].mode), (1, 0o600));
        let projected = "projected: {sources: [{configMap: {name: conf, items: [{key: a, path: a}]}}, \
                         {secret: {name: key}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}";
        let all = files(projected).unwrap().unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "l", "p"]);
        assert_eq!(all["l"].content, b"app=\"x\"");
        assert_eq!(files("emptyDir: {}").unwrap(), None);
        let absent = files("configMap: {name: none, optional: true}").unwrap().unwrap();
        assert!(absent.is_empty());
    }

    #[test]
    fn no_file_is_outside_of_its_volume_and_what_is_wrong_is_named() {
        for (volume, name) in [
            ("configMap: {name: none}", "no ConfigMap `none`"),
            ("configMap: {name: conf, items: [{key: c, path: c}]}", "no key `c`"),
            ("configMap: {name: conf, items: [{key: a, path: ../c}]}", "`../c` is not a path"),
            ("configMap: {name: conf, items: [{key: a, path: /c}]}", "`/c` is not a path"),
            ("configMap: {name: conf, items: [{key: a, path: ..c}]}", "`..c` begins with `..`"),
            (
                "configMap: {name: conf, items: [{key: a, path: x/y}, {key: a, path: x}]}",
                "`x` is a file, and the directory of `x/y`",
            ),
            ("configMap: {name: conf, defaultMode: 644}", "mode `644`"),
            ("secret: {secretName: key, defaultMode: 0999}", "mode `0999`"),
            ("projected: {sources: [{}]}", "not one of"),
            ("projected: {sources: [{serviceAccountToken: {path: t}}]}", "serviceAccountToken"),
            ("downwardAPI: {items: [{path: x}]}", "`x` has not one of"),
        ] {
            let said = files(volume).unwrap_err();
            assert!(said.contains(name), "{name}: {said}");
        }
    }

    #[test]
    fn files_are_written_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let all = files("secret: {secretName: key, items: [{key: p, path: x/p, mode: 0400}]}");
        write(dir.path(), &all.unwrap().unwrap()).unwrap();
        let path = dir.path().join("x/p");
        assert_eq!(std::fs::read(&path).unwrap(), b"s");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    }
}
