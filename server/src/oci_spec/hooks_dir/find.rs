// SPDX-License-Identifier: Apache-2.0
//! Finds the hook files of all directories, in the order in which their hooks run: by name, in lower case. Of files with
//! one name, that of the last directory counts, and the others are not read.

use super::error::Error;
use super::file::File;
use crate::limits::HOOK_FILE_BYTES;
use crate::oci_spec::node_file;
use hull_sys::text::shown;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Most hook files of one directory.
const FILES_MAX: usize = 1024;
/// Longest reason that is shown, in bytes.
const WHY_BYTES: usize = 512;
/// Bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// All hook files. Missing directories have none.
pub(crate) fn files(dirs: &[PathBuf]) -> Result<Vec<File>, Error> {
    let mut paths = BTreeMap::new();
    for dir in dirs {
        for (name, path) in names(dir)? {
            drop(paths.insert((name.to_lowercase(), name), path));
        }
    }
    paths.into_values().map(|path| read(&path).map_err(|why| of_file(&path, &why))).collect()
}

/// The files of one directory, by name.
fn names(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |why: String| Error::Directory {
        path: dir.display().to_string(),
        why: shown(why, WHY_BYTES),
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(failed(err.to_string())),
    };
    let metadata = std::fs::metadata(dir).map_err(|err| failed(err.to_string()))?;
    only_roots(&metadata).map_err(failed)?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|err| failed(err.to_string()))?.path();
        if path.extension().is_none_or(|of| of != "json") {
            continue;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(of_file(&path, "its name is not UTF-8"));
        };
        found.push((name.to_owned(), path.clone()));
        if found.len() > FILES_MAX {
            return Err(failed(format!("it has more than {FILES_MAX} files")));
        }
    }
    Ok(found)
}

fn of_file(path: &Path, why: &str) -> Error {
    let path = shown(path.as_os_str().as_encoded_bytes(), WHY_BYTES);
    Error::File { path, why: shown(why, WHY_BYTES) }
}

fn read(path: &Path) -> Result<File, String> {
    let opened = node_file::open(path)?;
    only_roots(&opened.metadata().map_err(|err| err.to_string())?)?;
    let file = File::parse(&node_file::read(opened, HOOK_FILE_BYTES.default)?)?;
    match file.program_on_node() {
        Some(program) => check_program(program).map(|()| file),
        None => Ok(file),
    }
}

/// Checks a program that would run as root.
fn check_program(path: &Path) -> Result<(), String> {
    let failed = |why: String| format!("its program {}: {why}", path.display());
    let metadata = std::fs::metadata(path).map_err(|err| failed(err.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(failed("it is not an executable file".into()));
    }
    only_roots(&metadata).map_err(failed)
}

/// Refuses what others than root can change.
fn only_roots(metadata: &Metadata) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.permissions().mode() & 0o7777);
    if owner != 0 {
        return Err(format!("it belongs to user {owner}, not to root"));
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("its mode {mode:o} lets others than root change it"));
    }
    Ok(())
}
