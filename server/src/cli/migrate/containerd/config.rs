// SPDX-License-Identifier: Apache-2.0
//! containerd's configuration: the file, then the files that it imports, and those that they import.
//!
//! As in containerd, a relative import is beside the file that names it, a pattern imports all files that it
//! matches, and a file is read once, by however many files it is imported. Each file is merged over those before.

use super::super::super::error::{Error, Result};
use super::super::findings::Findings;
use super::super::root::Root;
use super::super::toml_file::{merge, read, strings};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The file that containerd reads.
const FILE: &str = "/etc/containerd/config.toml";
/// Most files that are read.
const FILES_MAX: usize = 256;

/// The merged configuration; empty if the node has no file, which then has containerd's defaults.
///
/// # Errors
/// A file cannot be read or parsed, an import is missing, or there are too many.
pub(super) fn load(root: &Root, found: &mut Findings) -> Result<Table> {
    let mut pending: VecDeque<(PathBuf, PathBuf)> = VecDeque::from([(FILE.into(), FILE.into())]);
    let (mut merged, mut seen) = (Table::new(), Vec::new());
    while let Some((path, parent)) = pending.pop_front() {
        if seen.contains(&path) {
            let why = format!("{} imports it again; it is read once", parent.display());
            found.same(&format!("imports {}", path.display()), why);
            continue;
        }
        let Some(table) = read(root, &path)? else {
            if seen.is_empty() {
                return Ok(Table::new());
            }
            let why = format!("it is not there, and {} imports it", parent.display());
            return Err(root.unusable(&path, &why));
        };
        if seen.is_empty() {
            check_version(root, &table)?;
        }
        seen.push(path.clone());
        if seen.len() > FILES_MAX {
            return Err(root.unusable(&path, &format!("more than {FILES_MAX} files are imported")));
        }
        found.sources.push(path.display().to_string());
        for import in table.get("imports").map(strings).unwrap_or_default() {
            let resolved = resolve(root, &path, &import)?;
            pending.extend(resolved.into_iter().map(|of| (of, path.clone())));
        }
        merge(&mut merged, table);
    }
    Ok(merged)
}

fn check_version(root: &Root, table: &Table) -> Result<()> {
    let version = table.get("version").and_then(Value::as_integer).unwrap_or(1);
    if (2..=4).contains(&version) {
        return Ok(());
    }
    Err(Error::Peer {
        what: root.shown(Path::new(FILE)),
        why: format!("it has version {version} of containerd's schema"),
        hint: Some(
            "`containerd config migrate` prints it in the newest version, which hull reads".into(),
        ),
    })
}

/// The files that an import stands for.
fn resolve(root: &Root, parent: &Path, import: &str) -> Result<Vec<PathBuf>> {
    let beside = parent.parent().unwrap_or(Path::new("/"));
    let path = beside.join(import);
    let (directory, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
    let (Some(directory), Some(name)) = (directory, name) else {
        return Err(root.unusable(parent, &format!("it imports `{import}`, which is not a file")));
    };
    if directory.to_string_lossy().contains(['*', '?', '[']) || name.contains('[') {
        let why =
            format!("it imports `{import}`: `*` and `?` are read in the name of a file alone");
        return Err(root.unusable(parent, &why));
    }
    if !name.contains(['*', '?']) {
        return Ok(vec![path]);
    }
    let names = root.names(directory)?;
    let matching = names.iter().filter(|of| is_match(name, of));
    Ok(matching.map(|of| directory.join(of)).collect())
}

/// Whether a name matches a pattern with `*` and `?`.
fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Without recursion: the last `*` takes one character more whenever the rest does not fit.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[of] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((back, taken)) = star else { return false };
                star = Some((back, taken + 1));
                at = back + 1;
                of = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join("etc/containerd").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn loaded(files: &[(&str, &str)]) -> Result<(Table, Findings)> {
        let (_dir, root) = node(files);
        let mut found = Findings::default();
        load(&root, &mut found).map(|table| (table, found))
    }

    #[test]
    fn imports_are_merged_in_order_and_a_circle_is_read_once() {
        let (table, found) = loaded(&[
            ("config.toml", "version = 3\nimports = [\"conf.d/*.toml\"]\noom_score = 1\n"),
            ("conf.d/b.toml", "oom_score = 3\n[grpc]\nuid = 7\n"),
            ("conf.d/a.toml", "imports = [\"/etc/containerd/config.toml\"]\noom_score = 2\n"),
            ("conf.d/c.other", "oom_score = 4\n"),
        ])
        .unwrap();
        assert_eq!(table["oom_score"].as_integer(), Some(3));
        assert_eq!(found.sources.len(), 3, "{:?}", found.sources);
        assert!(found.same[0].why.contains("a.toml imports it again"), "{:?}", found.same);
    }

    #[test]
    fn odd_files_are_errors_that_name_them() {
        for (files, why) in [
            (&[("config.toml", "version = 3\nx = \n")][..], "config.toml: line 2"),
            (&[("config.toml", "oom_score = 1\n")][..], "version 1 of containerd's schema"),
            (&[("config.toml", "version = 9\n")][..], "version 9"),
            (
                &[("config.toml", "version = 2\nimports = [\"a\"]\n")][..],
                "containerd/a: it is not there",
            ),
            (&[("config.toml", "version = 2\nimports = [\"/a*/b\"]\n")][..], "imports `/a*/b`"),
            (
                &[("config.toml", "version = 2\nimports = [\"a\"]\n"), ("a", "[[[")][..],
                "etc/containerd/a: line 1",
            ),
        ] {
            let error = loaded(files).unwrap_err().lines();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml.old", false),
            ("a?c*", "abcd", true),
            ("*a*b", "xxaxxb", true),
            ("a", "b", false),
            ("*", "", true),
        ] {
            assert_eq!(is_match(pattern, name), matches, "{pattern} {name}");
        }
    }
}
