// SPDX-License-Identifier: Apache-2.0
//! Images that only the bed needs: a pause image for runtimes that want one, and images to pull cold.

use crate::args::Args;
use crate::floor;
use hull_tests::image::Image;
use hull_tests::layer::Layer;
use hull_tests::registry::Registry;
use serde_json::json;

/// Files of a layer to be pulled.
const FILE_BYTES: usize = 1 << 20;
/// Layers of the large image, and the size of each in files.
const MANY: (usize, usize) = (11, 20);
/// The same for the image of one layer.
const ONE: (usize, usize) = (1, 120);

/// The smallest pause there can be: it waits. Runtimes are not charged for a larger one.
pub(super) fn pause() -> Image {
    let layer = Layer::new().file("pause", 0o755, floor::waiting_program());
    Image::new(vec![layer.tar()], json!({"Entrypoint": ["/pause"]}))
}

/// Makes and pushes images for every round of pulls, and gives their references.
pub(super) fn to_pull(args: &Args, registry: &Registry) -> Vec<String> {
    let divisor = if args.quick { 20 } else { 1 };
    let mut references = Vec::new();
    for round in 0..args.size().rounds {
        for (name, (layers, files)) in [("one-layer", ONE), ("eleven-layers", MANY)] {
            // Layers differ from round to round, or the second pull would find them.
            let mut words = Words(0x9e37_79b9_7f4a_7c15 ^ (round as u64 + 1));
            let layer = |number: usize| {
                let files = 0..(files / divisor).max(1);
                let add = |layer: Layer, file: usize| {
                    layer.file(&format!("data-{number}-{file}"), 0o644, words.bytes(FILE_BYTES))
                };
                files.fold(Layer::new(), add).tar()
            };
            let image = Image::new((0..layers).map(layer).collect(), json!({"Cmd": ["/none"]}));
            let tag = format!("round-{round}");
            references.push(registry.push(&format!("bench/{name}"), &tag, &image.pack()));
        }
    }
    references
}

/// Makes text that packs about as well as programs do: to a third.
struct Words(u64);

impl Words {
    /// The next number of Marsaglia's xorshift64 generator.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            // Eight bytes that pack badly, then some that were there before.
            bytes.extend(self.next().to_le_bytes());
            let back = 64 + usize::try_from(self.next() % 4096).unwrap_or_default();
            let from = bytes.len().saturating_sub(back);
            let again: Vec<u8> = bytes[from..].iter().copied().take(24).collect();
            bytes.extend(again);
        }
        bytes.truncate(length);
        bytes
    }
}
