// SPDX-License-Identifier: Apache-2.0
//! Files out of Debian packages: downloaded by apt, unpacked, never installed.
//!
//! ```text
//! <target>/fixtures/debian/<package>/   the package's files
//! ```
//!
//! A package is unpacked beside its place and renamed, so a run that was cut short leaves nothing
//! half made. Other programs' libraries are found by what their ELF headers ask for.

use crate::expect::ExpectExt;
use crate::{paths, shell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The folder with the files of `package`.
#[must_use]
pub fn unpacked(package: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let place = paths::fixtures().join("debian").join(package);
    if place.is_dir() {
        return place;
    }
    let scratch = place.with_extension(format!("new-{}", std::process::id()));
    let files = scratch.join("files");
    fs::create_dir_all(&files).or_fail(format!("make {}", files.display()));
    let mut download = Command::new("apt-get");
    download.args(["-q", "download", package]).current_dir(&scratch);
    let _said = shell::finish(&mut download).good();
    let name = shell::names(&scratch).into_iter().find(|name| name.ends_with(".deb"));
    let archive =
        scratch.join(name.or_fail(format!("find the package {package} that apt downloaded")));
    let _said =
        shell::run("dpkg-deb", ["-x".as_ref(), archive.as_os_str(), files.as_os_str()]).good();
    match fs::rename(&files, &place) {
        // Another process was faster.
        Err(_) if place.is_dir() => {}
        renamed => renamed.or_fail(format!("put {} in place", place.display())),
    }
    fs::remove_dir_all(&scratch).or_fail(format!("remove {}", scratch.display()));
    place
}

/// A program with its loader and all libraries: path in the image → file here.
#[derive(Debug, Default)]
pub struct Closure {
    /// Path in the image, without the leading slash → file here.
    pub files: BTreeMap<String, PathBuf>,
}

/// Finds what `programs` (paths in the packages, such as `usr/sbin/nginx`) need, in `packages`.
#[must_use]
pub fn closure(programs: &[&str], packages: &[&str]) -> Closure {
    let roots: Vec<PathBuf> = packages.iter().map(|package| unpacked(package)).collect();
    let mut found = Closure::default();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<String> = programs.iter().map(|&path| path.to_owned()).collect();
    while let Some(path) = todo.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let file =
            in_roots(&roots, &path).or_fail(format!("find {path} in the packages {packages:?}"));
        for library in needed(&file) {
            let at = library_path(&roots, &library)
                .or_fail(format!("find library {library} of {path} in the packages {packages:?}"));
            todo.push(at);
        }
        found.files.insert(path, file);
    }
    found
}

fn in_roots(roots: &[PathBuf], path: &str) -> Option<PathBuf> {
    roots.iter().map(|root| root.join(path)).find(|file| file.is_file())
}

/// Where a library lies in the packages. A name with a slash is the loader.
fn library_path(roots: &[PathBuf], library: &str) -> Option<String> {
    if let Some(loader) = library.strip_prefix('/') {
        return Some(loader.to_owned());
    }
    for root in roots {
        for base in ["lib", "usr/lib"] {
            let mut folders = vec![base.to_owned()];
            folders
                .extend(shell::names(&root.join(base)).iter().map(|name| format!("{base}/{name}")));
            let mut paths = folders.iter().map(|folder| format!("{folder}/{library}"));
            if let Some(path) = paths.find(|path| root.join(path).is_file()) {
                return Some(path);
            }
        }
    }
    None
}

/// The loader (as an absolute path) and the libraries that an ELF file asks for.
fn needed(file: &Path) -> Vec<String> {
    let said =
        shell::run("readelf", ["-W".as_ref(), "-l".as_ref(), "-d".as_ref(), file.as_os_str()]);
    let text = said.good();
    let mut wanted = Vec::new();
    for line in text.lines() {
        let value = |after: &str| {
            let (_, rest) = line.split_once(after)?;
            rest.split_once(']').map(|(value, _)| value.trim().to_owned())
        };
        if line.contains("(NEEDED)") {
            wanted.extend(value("["));
        } else {
            wanted.extend(value("[Requesting program interpreter:"));
        }
    }
    wanted
}
