// SPDX-License-Identifier: Apache-2.0
//! The images of a run: the shapes of builders, Debian packages, and generated ones.

use super::generate;
use hull_tests::corpus::{self, Shape, Travels};
use hull_tests::fixture::{self, registry};
use hull_tests::image::{Image, digest};
use hull_tests::layer::Compression;
use hull_tests::random::Random;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// An image in the registry.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) diff_ids: Vec<String>,
    /// The entries of its layers, for the message of a failure.
    pub(super) notes: Vec<String>,
    /// Their traits that explain a difference.
    pub(super) traits: generate::Traits,
}

/// Packages whose files become an image of one layer: set-user-id, hard links, symlinks, many owners.
const PACKAGES: [&str; 8] =
    ["sudo", "passwd", "tzdata", "perl-base", "git", "mount", "login", "busybox-static"];

/// The shapes that registries have. They take seconds to make.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let shapes = corpus::all().into_iter();
    shapes.filter(|shape| matches!(shape.travels, Travels::Registry { .. })).collect()
});

/// The image of a number: first the shapes, then the packages, then generated ones.
pub(super) fn subject(random: &Random, number: u64) -> Subject {
    let index = usize::try_from(number).unwrap();
    let shapes = &*SHAPES;
    if let Some(shape) = shapes.get(index) {
        let Travels::Registry { top, manifests } = &shape.travels else { unreachable!() };
        let name = shape.builder.to_owned();
        let reference =
            registry().push_all(&format!("compare/{name}"), &shape.blobs, manifests, top);
        let diff_ids = shape.diff_ids.clone();
        return Subject {
            name,
            reference,
            diff_ids,
            notes: Vec::new(),
            traits: Default::default(),
        };
    }
    if let Some(package) = PACKAGES.get(index - shapes.len()) {
        let tar = packed(&hull_tests::debian::unpacked(package));
        let layers = vec![fixture::busybox_layer().tar(), tar];
        return pushed((*package).to_owned(), layers, Vec::new(), Default::default(), 0);
    }
    let made = generate::image(&mut random.fork(number));
    pushed(format!("generated-{number}"), made.layers, made.notes, made.traits, index)
}

fn pushed(
    name: String,
    layers: Vec<Vec<u8>>,
    notes: Vec<String>,
    traits: generate::Traits,
    turn: usize,
) -> Subject {
    let diff_ids = layers.iter().map(|tar| digest(tar)).collect();
    let mut image = Image::new(Vec::new(), json!({"Cmd": ["sh"]}));
    let ways = [Compression::Gzip, Compression::Zstd, Compression::Plain];
    image.layers =
        layers.into_iter().enumerate().map(|(at, tar)| (tar, ways[(at + turn) % 3])).collect();
    let reference = registry().push(&format!("compare/{name}"), "1", &image.pack());
    Subject { name, reference, diff_ids, notes, traits }
}

/// A directory of files as GNU tar packs it, with the set-user-id bits and links that it has.
fn packed(dir: &Path) -> Vec<u8> {
    let form = [
        "--format=posix",
        "--sort=name",
        "--xattrs",
        "--pax-option=delete=atime,delete=ctime",
        "-cf",
        "-",
        ".",
    ];
    let said = Command::new("tar").args(form).current_dir(dir).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}
