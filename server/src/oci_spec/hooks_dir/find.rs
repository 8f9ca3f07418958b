// SPDX-License-Identifier: Apache-2.0
//! Finds the hook files of all directories, in the order in which their hooks run: by name, in lower case. Of files with
//! one name, that of the last directory counts, and the others are not read.

use super::error::Error;
use super::file::File;
use crate::limits::HOOK_FILE_BYTES;
use crate::oci_spec::node_file;
use hull_sys::roots_alone;
use hull_sys::text::shown;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Most hook files of one directory.
const FILES_MAX: usize = 1024;
/// Longest reason that is shown, in bytes.
const WHY_BYTES: usize = 512;

/// All hook files. A directory that is missing is an error: its hooks may have been what confines containers.
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
    let resolved = roots_alone(dir).map_err(failed)?;
    let entries = std::fs::read_dir(resolved).map_err(|err| failed(err.to_string()))?;
    let mut found = Vec::new();
    for entry in entries {
        // By the name that the configuration has, not by where links of it lead.
        let path = dir.join(entry.map_err(|err| failed(err.to_string()))?.file_name());
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
    let opened = node_file::open(&roots_alone(path)?)?;
    let file = File::parse(&node_file::read(opened, HOOK_FILE_BYTES.default)?)?;
    let file = file.named(shown(path.as_os_str().as_encoded_bytes(), WHY_BYTES));
    match file.program_on_node() {
        Some(program) => check_program(program).map(|()| file),
        None => Ok(file),
    }
}

/// Checks a program that would run as root.
fn check_program(path: &Path) -> Result<(), String> {
    let failed = |why: String| format!("its program {}: {why}", path.display());
    let resolved = roots_alone(path).map_err(failed)?;
    let metadata = std::fs::metadata(resolved).map_err(|err| failed(err.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(failed("it is not an executable file".into()));
    }
    Ok(())
}
