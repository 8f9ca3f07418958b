// SPDX-License-Identifier: Apache-2.0
//! The modules of a crate: which file each lies in, what it declares and imports, and which file a path such as
//! `crate::a::B` or `super::f` leads to, re-exports followed.
//!
//! Code that only tests compile (`#[cfg(test)]`) is left out. It trusts rustfmt: the brace that closes an item
//! stands in the item's column.

use crate::lexer;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Re-exports of re-exports that are followed.
const HOPS_MAX: usize = 16;

/// One module, by its index in [`Crate::modules`].
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// From the crate's `src`.
    pub(crate) file: PathBuf,
    pub(crate) parent: Option<usize>,
    /// Modules declared in it.
    pub(crate) children: BTreeMap<String, usize>,
    /// Names that `use` binds in it, each with the path behind it and whether others may see it (`pub`).
    pub(crate) imports: Vec<Import>,
    /// Paths in its code that name a module: `super::f`, `child::X`.
    pub(crate) paths: Vec<Vec<String>>,
    /// Types and traits that it has inherent `impl` blocks for, as paths.
    pub(crate) impls: Vec<Vec<String>>,
}

/// One name that a `use` binds; `*` for all names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) name: String,
    pub(crate) path: Vec<String>,
    pub(crate) public: bool,
}

/// All modules of one library or program; the first is its root.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    pub(crate) modules: Vec<Module>,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a module itself.
    Module(usize),
    /// To an item that this module declares.
    Item(usize),
    /// Out of the crate.
    Outside,
}

impl Crate {
    /// Reads the crate whose root is `src/root`.
    pub(crate) fn read(src: &Path, root: &str) -> Self {
        let mut read = Self::default();
        read.module(src, Path::new(root), None);
        read
    }

    fn module(&mut self, src: &Path, file: &Path, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(src.join(file)).unwrap_or_default();
        let code = without_tests(&lexer::split(&text).code);
        let at = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        self.fill(src, at, &code);
        at
    }

    /// Takes in the code of the module `at`; modules inside of it become its children.
    fn fill(&mut self, src: &Path, at: usize, code: &str) {
        let lines: Vec<&str> = code.lines().collect();
        let mut own = String::new();
        let mut number = 0;
        while number < lines.len() {
            let Some((name, inline)) = declared_module(lines[number]) else {
                own.push_str(lines[number]);
                own.push('\n');
                number += 1;
                continue;
            };
            if inline {
                let end = closing(&lines, number);
                let file = self.modules[at].file.clone();
                let child = self.modules.len();
                self.modules.push(Module { file, parent: Some(at), ..Module::default() });
                self.modules[at].children.insert(name, child);
                self.fill(src, child, &lines[number + 1..end].join("\n"));
                number = end + 1;
            } else {
                let found = self.file_of(src, at, &name);
                if let Some(file) = found {
                    let child = self.module(src, &file, Some(at));
                    self.modules[at].children.insert(name, child);
                }
                number += 1;
            }
        }
        let module = &mut self.modules[at];
        module.imports = imports(&own);
        module.paths = paths(&own);
        module.impls = impls(&own);
    }

    /// The file of the module `name` that the module `at` declares.
    fn file_of(&self, src: &Path, at: usize, name: &str) -> Option<PathBuf> {
        let file = &self.modules[at].file;
        let stem = file.file_stem()?.to_string_lossy();
        let dir = file.parent().unwrap_or(Path::new(""));
        let dir = if matches!(&*stem, "lib" | "main" | "mod") {
            dir.to_owned()
        } else {
            dir.join(&*stem)
        };
        let candidates = [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")];
        candidates.into_iter().find(|path| src.join(path).is_file())
    }

    /// Where `path` leads when it stands in the module `from`.
    pub(crate) fn resolve(&self, from: usize, path: &[String]) -> Target {
        self.follow(from, path, HOPS_MAX)
    }

    fn follow(&self, from: usize, path: &[String], hops: usize) -> Target {
        let Some(hops) = hops.checked_sub(1) else { return Target::Outside };
        let mut at = from;
        let mut rest = path;
        let mut anchored = false;
        while let Some((first, tail)) = rest.split_first() {
            match first.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => match self.modules[at].parent {
                    Some(parent) => at = parent,
                    None => return Target::Outside,
                },
                _ => break,
            }
            anchored = true;
            rest = tail;
        }
        let Some((first, tail)) = rest.split_first() else { return Target::Module(at) };
        match self.lookup(at, first, hops) {
            Some(Target::Module(module)) if tail.is_empty() => Target::Module(module),
            Some(Target::Module(module)) => {
                let path: Vec<String> = [vec!["self".to_owned()], tail.to_vec()].concat();
                self.follow(module, &path, hops)
            }
            Some(found) => found,
            None if anchored => Target::Item(at),
            None => Target::Outside,
        }
    }

    /// The target of `name` in the module `at`, when it is not an item of its own.
    fn lookup(&self, at: usize, name: &str, hops: usize) -> Option<Target> {
        let module = &self.modules[at];
        if let Some(child) = module.children.get(name) {
            return Some(Target::Module(*child));
        }
        let bound = module.imports.iter().find(|import| import.name == name);
        if let Some(import) = bound {
            // `use log;` and the like name a crate.
            if import.path.len() == 1 && import.path[0] == name {
                return Some(Target::Outside);
            }
            return Some(self.follow(at, &import.path, hops));
        }
        for glob in module.imports.iter().filter(|import| import.name == "*") {
            let hops = hops.checked_sub(1)?;
            if let Target::Module(other) = self.follow(at, &glob.path, hops)
                && other != at
                && let Some(found) = self.lookup(other, name, hops)
            {
                return Some(found);
            }
        }
        None
    }
}

/// The name of the module that a line declares, and whether its text follows.
fn declared_module(line: &str) -> Option<(String, bool)> {
    let code = line.trim();
    let rest = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => code,
    };
    let rest = rest.strip_prefix("mod ")?;
    let name = rest.trim_end_matches([';', '{', ' ']);
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| (name.to_owned(), rest.ends_with('{')))
}

/// The line that closes the block opened on line `from`.
fn closing(lines: &[&str], from: usize) -> usize {
    let indent = lines[from].len() - lines[from].trim_start().len();
    let closes = |line: &&str| line.trim_end().len() == indent + 1 && line.trim() == "}";
    lines[from..].iter().position(closes).map_or(lines.len() - 1, |at| from + at)
}

/// Blanks every item under `#[cfg(test)]`, or another condition with `test` in it.
pub(crate) fn without_tests(code: &str) -> String {
    let lines: Vec<&str> = code.lines().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim_start();
        if !(line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test")) {
            kept.push(lines[at]);
            at += 1;
            continue;
        }
        let mut item = at + 1;
        while lines.get(item).is_some_and(|line| line.trim_start().starts_with("#[")) {
            item += 1;
        }
        let opens = lines[item..].iter().position(|line| line.trim_end().ends_with('{'));
        let ends = lines[item..].iter().position(|line| line.trim_end().ends_with([';', '}']));
        at = match (opens, ends) {
            (Some(opens), Some(ends)) if ends < opens => item + ends + 1,
            (Some(_), _) => closing(&lines, item) + 1,
            (None, Some(ends)) => item + ends + 1,
            (None, None) => lines.len(),
        };
    }
    kept.join("\n")
}

/// The words of code: identifiers, `::`, and single characters.
fn words(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            found.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    found
}

fn imports(code: &str) -> Vec<Import> {
    let words = words(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let statement = words[at] == "use"
            && (at == 0 || matches!(words[at - 1], ";" | "}" | "{" | "]" | ")" | "pub"));
        if statement {
            let public = at > 0 && matches!(words[at - 1], "pub" | ")");
            let end =
                words[at..].iter().position(|word| *word == ";").map_or(words.len(), |n| at + n);
            let mut tree = &words[at + 1..end];
            use_tree(&mut tree, &[], public, &mut found);
            at = end;
        }
        at += 1;
    }
    found
}

/// Reads one tree of a `use` (`a::{b, c as d}`), up to the comma or brace behind it.
fn use_tree(words: &mut &[&str], before: &[String], public: bool, found: &mut Vec<Import>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut leaf = true;
    while let Some((first, rest)) = words.split_first() {
        if matches!(*first, "," | "}") {
            break;
        }
        *words = rest;
        match *first {
            "::" => {}
            "as" => {
                name = words.first().map(|word| (*word).to_owned());
                *words = words.get(1..).unwrap_or_default();
            }
            "{" => {
                leaf = false;
                while words.first().is_some_and(|word| *word != "}") {
                    use_tree(words, &path, public, found);
                    if words.first() == Some(&",") {
                        *words = &words[1..];
                    }
                }
                *words = words.get(1..).unwrap_or_default();
            }
            "self" if !path.is_empty() => {}
            "*" => name = Some("*".into()),
            segment => path.push(segment.to_owned()),
        }
    }
    if leaf {
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        found.push(Import { name, path, public });
    }
}

/// Paths of two segments and more, without those of `use`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let words = words(code);
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < words.len() {
        if words[at] == "use" {
            at += words[at..].iter().position(|word| *word == ";").unwrap_or(0) + 1;
            continue;
        }
        let path = path_at(&words[at..]);
        let inner = at > 0 && matches!(words[at - 1], "::" | ".");
        at += (path.len() * 2).saturating_sub(1).max(1);
        if path.len() > 1 && !inner {
            found.insert(path.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

/// The path at the beginning of `words`.
fn path_at<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let is_name = |word: &str| word.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    let mut path = Vec::new();
    let mut at = 0;
    while words.get(at).is_some_and(|word| is_name(word)) {
        path.push(words[at]);
        if words.get(at + 1) != Some(&"::") {
            break;
        }
        at += 2;
    }
    path
}

/// The types of inherent `impl` blocks.
fn impls(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in code.lines().filter(|line| line.starts_with("impl")) {
        if line.contains(" for ") {
            continue;
        }
        let mut depth = 0_i32;
        // Past the block's own generics.
        let after = line["impl".len()..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '<') - i32::from(*c == '>');
            depth == 0 && !matches!(c, '>' | '<')
        });
        let Some((at, _)) = after else { continue };
        let words = words(&line["impl".len() + at..]);
        let path: Vec<String> = path_at(&words).into_iter().map(str::to_owned).collect();
        if !path.is_empty() {
            found.push(path);
        }
    }
    found
}
