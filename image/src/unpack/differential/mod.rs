// SPDX-License-Identifier: Apache-2.0
//! Thousands of generated archives, unpacked by Hull and by GNU tar: the same tree, or a refusal that names the
//! entry. Needs root and tar(1).
//!
//! `ADVERSARY_SEED` repeats a run, `ARCHIVES` sets the number of archives. Where GNU tar itself reports an error,
//! Hull may do so too; it must not panic.

mod generate;
mod header;
mod tree;

use super::tests::{can_run, temp};
use super::{Error, unpack};
use crate::file_list::Writer;
use crate::fs::files;
use crate::layer::decoder;
use crate::limits::{Limits, Work};
use generate::Generated;
use hull_tests::random::{Random, seed};
use hull_tests::shell::run;
use std::path::Path;

/// Archives of a run without `ARCHIVES`: ten seconds, half a minute on a busy machine.
const ARCHIVES: u64 = 1000;

/// The largest number of archives whose differences are shown.
const DIFFERING_MAX: usize = 12;

#[test]
fn an_archive_gives_the_tree_of_gnu_tar_or_a_refusal_that_names_the_entry() {
    const NAME: &str = "an_archive_gives_the_tree_of_gnu_tar_or_a_refusal_that_names_the_entry";
    if !can_run(NAME) {
        return;
    }
    let count = std::env::var("ARCHIVES").ok().and_then(|text| text.parse().ok());
    let random = Random::new(seed(NAME));
    let mut counts = Counts::default();
    let mut differing = Vec::new();
    for number in 0..count.unwrap_or(ARCHIVES) {
        let generated = generate::archive(&mut random.fork(number));
        let Err(why) = compare(&generated, &mut counts) else { continue };
        let path = std::env::temp_dir().join(format!("differs-{number}.tar"));
        std::fs::write(&path, &generated.bytes).unwrap();
        let notes = generated.notes.join("\n");
        differing.push(format!("archive {number}, kept as {}: {why}\n{notes}\n", path.display()));
        if differing.len() == DIFFERING_MAX {
            break;
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    println!("{counts:?}");
    // The test would be worth nothing if most archives were ones that nobody takes.
    assert!(counts.same * 2 > counts.archives(), "{counts:?}");
}

#[derive(Debug, Default)]
struct Counts {
    same: u64,
    refused: u64,
    /// GNU tar reported an error.
    bad: u64,
}

impl Counts {
    fn archives(&self) -> u64 {
        self.same + self.refused + self.bad
    }
}

fn compare(generated: &Generated, counts: &mut Counts) -> Result<(), String> {
    let dir = temp();
    let (archive, gnu, own) =
        (dir.path().join("archive"), dir.path().join("gnu"), dir.path().join("own"));
    std::fs::write(&archive, &generated.bytes).unwrap();
    std::fs::create_dir(&gnu).unwrap();
    let theirs = gnu_tar(&archive, &gnu);
    let ours = hull(&generated.bytes, &own);
    if let Err(why) = theirs {
        counts.bad += 1;
        // What both refuse is fine; so is what Hull reads and GNU tar does not.
        drop((why, ours));
        return Ok(());
    }
    match ours {
        Ok(()) => {
            counts.same += 1;
            tree::same(&gnu, &own, &generated.loose)
        }
        Err(err) => {
            counts.refused += 1;
            let text = said(&err);
            if !generated.is_odd {
                return Err(format!("GNU tar takes it, Hull says: {text}"));
            }
            let names = text.matches('`').count() >= 2;
            if names { Ok(()) } else { Err(format!("it names no entry: {text}")) }
        }
    }
}

fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

fn gnu_tar(archive: &Path, into: &Path) -> Result<(), String> {
    let (archive, into) = (archive.display().to_string(), into.display().to_string());
    let options = "-xp --numeric-owner --xattrs --xattrs-include=user.* -f";
    let args = ["LC_ALL=C", "tar"].into_iter().chain(options.split(' '));
    let ran = run("env", args.chain([archive.as_str(), "-C", into.as_str()]));
    if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
}

fn hull(mut archive: &[u8], into: &Path) -> Result<(), Error> {
    files::make_dir(into, 0o755).unwrap();
    let mut list = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    let plain = decoder(&mut archive).map_err(Error::of_read)?;
    let root = files::open_dir(into).unwrap();
    let within = (Limits::default(), Work::default().implied_names());
    let (unpacked, _) = unpack(plain, root, within, &mut list)?;
    match unpacked.links {
        None => Ok(()),
        // Nothing is below this layer.
        Some(_) => Err(Error::LinkToNothing { entry: "a".into(), target: "b".into() }),
    }
}
