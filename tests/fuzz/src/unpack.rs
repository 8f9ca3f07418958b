// SPDX-License-Identifier: Apache-2.0
//! A layer's archive, unpacked for real into memory, compared with its inventory, and rebuilt.
//!
//! It makes devices and gives files away, so it wants root; without it, most archives are refused early.

use crate::archive::summed;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Runs one case.
pub fn run(data: &[u8]) {
    hull_image::fuzz::unpack(&summed(data), scratch());
}

/// A directory of this process, in memory where there is such a place.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let own = above.join(format!("hull-fuzz-{}", std::process::id()));
        // What an earlier process of this number has left.
        let _gone = std::fs::remove_dir_all(&own);
        std::fs::create_dir(&own).unwrap_or_else(|err| panic!("{}: {err}", own.display()));
        own
    })
}
