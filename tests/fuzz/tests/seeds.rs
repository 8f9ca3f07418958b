// SPDX-License-Identifier: Apache-2.0
//! Every target over what is kept for it: seeds, and what was found.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_target_holds_on_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, run) in hull_fuzz::TARGETS {
        run(&[]);
        let own = seeds.join(name);
        for seed in names(&own) {
            println!("{name}/{seed}");
            run(&fs::read(own.join(&seed)).unwrap());
        }
    }
}

#[test]
fn every_target_has_its_program_and_its_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets: BTreeSet<_> =
        hull_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&root.join("seeds")), targets);
    let programs = names(&root.join("bins"));
    let programs: BTreeSet<_> =
        programs.iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(programs, targets);
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "add [[bin]] {name} to Cargo.toml"
        );
    }
}
