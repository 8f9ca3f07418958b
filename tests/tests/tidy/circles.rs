// SPDX-License-Identifier: Apache-2.0
//! Circles of files inside a crate: files each of which uses items of the next, and the last of the first. None
//! of them can be understood, tested or moved without all others.
//!
//! An arrow goes from a file to the one that declares what it uses, re-exports followed. A parent's `mod x;` is
//! not an arrow, nor are its re-exports (`pub use`): unless the child goes on with an `impl` block of a type of
//! the parent, which makes one unit of both.

use crate::allowed::{self, Counts};
use crate::modules::{Crate, Target};
use crate::report;
use crate::sources::{Source, sources};
use hull_tests::paths;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The list of circles that are still there.
const LIST: &str = "circles.txt";

type Arrows = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// The circles of the crate with this `src` folder, each as the sorted names of its files.
pub(crate) fn of_crate(src: &Path) -> Vec<Vec<String>> {
    let mut arrows = Arrows::new();
    for root in ["lib.rs", "main.rs"] {
        if src.join(root).is_file() {
            collect(&Crate::read(src, root), &mut arrows);
        }
    }
    strongly_connected(&arrows)
}

fn collect(read: &Crate, arrows: &mut Arrows) {
    for (at, module) in read.modules.iter().enumerate() {
        let uses = module.imports.iter().filter(|import| !import.public || !is_root(&module.file));
        let uses = uses.map(|import| (&import.path, import.name == "*"));
        let paths = module.paths.iter().map(|path| (path, false));
        for (path, whole) in uses.chain(paths) {
            let to = match read.resolve(at, path) {
                Target::Item(to) => to,
                Target::Module(to) if whole => to,
                Target::Module(_) | Target::Outside => continue,
            };
            add(arrows, &module.file, &read.modules[to].file);
        }
        for path in &module.impls {
            if let Target::Item(owner) = read.resolve(at, path)
                && module.parent == Some(owner)
            {
                add(arrows, &read.modules[owner].file, &module.file);
                add(arrows, &module.file, &read.modules[owner].file);
            }
        }
    }
}

/// A file whose re-exports are the face of what lies below it.
fn is_root(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "lib.rs" || name == "mod.rs" || name == "main.rs")
}

fn add(arrows: &mut Arrows, from: &Path, to: &Path) {
    if from != to {
        arrows.entry(from.to_owned()).or_default().insert(to.to_owned());
    }
}

/// The groups of files that reach each other.
fn strongly_connected(arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
        arrows.keys().map(|file| (file, reachable(arrows, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, there) in &reached {
        let mut circle: Vec<String> = there
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)))
            .map(|other| other.display().to_string())
            .collect();
        circle.sort();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reachable<'a>(arrows: &'a Arrows, from: &'a PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        for to in arrows.get(file).into_iter().flatten() {
            if found.insert(to) {
                next.push(to);
            }
        }
    }
    found
}

/// The folders with sources of a crate, as lines of the list begin.
fn crates() -> BTreeSet<String> {
    let sources = sources();
    let dir = |source: &Source| {
        let parts: Vec<_> = source.path.iter().map(|part| part.to_string_lossy()).collect();
        let src = parts.iter().position(|part| part == "src")?;
        Some(parts[..=src].join("/"))
    };
    sources.iter().filter_map(dir).collect()
}

/// Per crate: files that are in a circle.
fn counts(lines: &[String]) -> Counts {
    let mut counts = Counts::new();
    for (name, files) in lines.iter().filter_map(|line| line.split_once(": ")) {
        *counts.entry(name.to_owned()).or_default() += files.split(' ').count();
    }
    counts
}

#[test]
fn no_files_of_a_crate_go_in_a_circle() {
    let mut now = Vec::new();
    for src in crates() {
        let circles = of_crate(&paths::root().join(&src));
        now.extend(circles.into_iter().map(|files| format!("{src}: {}", files.join(" "))));
    }
    let listed = allowed::read(LIST);
    if now == listed || allowed::lower(LIST, &now, &counts(&listed), &counts(&now)) {
        return;
    }
    let new = now.iter().filter(|line| !listed.contains(line)).map(|line| {
        format!(
            "a circle: {line}\n    move what both ends need into a file below them, or pass it in"
        )
    });
    let gone = listed.iter().filter(|line| !now.contains(line));
    let gone = gone.map(|line| format!("gone, or another: take it out of allowed/{LIST}: {line}"));
    let mut wrong: Vec<String> = new.chain(gone).collect();
    wrong.push(format!(
        "(in all {:?} files; `HULL_BLESS=1` rewrites allowed/{LIST} when none of these grew)",
        counts(&now)
    ));
    report(&wrong);
}

#[test]
fn arrows_go_to_the_file_that_declares_an_item() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "lib.rs",
        "mod a;\nmod b;\nmod deep;\npub use a::Alpha;\n\n#[cfg(test)]\nmod tests {\n    use super::a;\n}\n",
    );
    // To a by the root's re-export, and back: a circle. The root is not in it.
    write("a.rs", "pub struct Alpha;\npub fn run() {\n    crate::b::run()\n}\n");
    write("b.rs", "use crate::Alpha;\npub fn run() -> Alpha {\n    todo()\n}\n");
    // A child that uses its parent's item, with a parent that only re-exports it: none.
    write("deep/mod.rs", "mod child;\nmod part;\npub use child::Child;\npub struct Parent;\n");
    write("deep/child.rs", "use super::Parent;\npub struct Child(Parent);\n");
    assert_eq!(of_crate(dir.path()), [["a.rs", "b.rs"]]);
    // A child that goes on with the parent's type is one with it; a comment or a string is not code.
    write(
        "deep/part.rs",
        "impl super::Parent {\n    // crate::a::run\n    fn more() -> &'static str {\n        \"crate::a::run\"\n    }\n}\n",
    );
    assert_eq!(of_crate(dir.path()), [["a.rs", "b.rs"], ["deep/mod.rs", "deep/part.rs"]]);
    // A parent that calls its child, which uses the parent's item.
    write("deep/part.rs", "");
    write(
        "deep/mod.rs",
        "mod child;\nmod part;\npub struct Parent;\nfn f() {\n    child::g();\n}\n",
    );
    assert_eq!(of_crate(dir.path()), [["a.rs", "b.rs"], ["deep/child.rs", "deep/mod.rs"]]);
}
