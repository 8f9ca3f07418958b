// SPDX-License-Identifier: Apache-2.0
//! The limits themselves, and their tables for the docs.

use hull_sys::budget::table;
use hull_sys::budget::{Budget, Unit};

const REFUSED: &str = "the image is refused, nothing of it stays";

const fn setting(name: &'static str, what: &'static str, default: u64, unit: Unit) -> Budget {
    Budget::setting("image", name, what, (default, unit), REFUSED)
}

const fn fixed(name: &'static str, what: &'static str, default: u64, unit: Unit) -> Budget {
    Budget::fixed(name, what, (default, unit), REFUSED)
}

/// Written bytes of a layer, which also bound the time for hashing.
pub static LAYER_BYTES: Budget = setting(
    "layer_bytes_max",
    "bytes of a layer, inflated, and copied for its hard links into layers below",
    128 << 30,
    Unit::Bytes,
);
/// Inodes of a layer, and the memory for each.
pub static LAYER_ENTRIES: Budget = setting(
    "layer_entries_max",
    "entries of a layer, extended headers among them",
    5_000_000,
    Unit::Number,
);
/// Holes take no disk space, but reading the files takes time.
pub static LAYER_APPARENT_BYTES: Budget = setting(
    "layer_apparent_bytes_max",
    "bytes that the sparse files of a layer are long, holes included",
    4 << 40,
    Unit::Bytes,
);
/// Everything else that is slow.
pub static LAYER_SECONDS: Budget = setting(
    "layer_seconds_max",
    "seconds of processor time of a thread for a layer",
    3600,
    Unit::Seconds,
);
/// Temporary disk space of an import.
pub static ARCHIVE_BYTES: Budget =
    setting("archive_bytes_max", "bytes of an archive of images, inflated", 256 << 30, Unit::Bytes);
/// Kept in memory until the entry is known.
pub static HEADER_BYTES: Budget = fixed(
    "header_bytes_max",
    "bytes of long names and extended headers before one entry of a layer",
    2 << 20,
    Unit::Bytes,
);
/// The map of a sparse file is in memory.
pub static SPARSE_PIECES: Budget =
    fixed("sparse_pieces_max", "pieces of one sparse file", 1 << 17, Unit::Number);
/// Kept in memory until all layers of the image are there.
pub static IMPLIED_NAME_BYTES: Budget = fixed(
    "implied_name_bytes_max",
    "bytes for the directories that the layers of an image imply but do not list: names, and 96 more for each",
    32 << 20,
    Unit::Bytes,
);
/// Their names are on the disk, a number of each is in memory.
pub static WAITING_LINKS: Budget = fixed(
    "waiting_links_max",
    "hard links of a layer to files of layers below",
    250_000,
    Unit::Number,
);
/// Files with several names, in a layer whose list is made after it was unpacked.
pub static LINKED_FILES: Budget = fixed(
    "linked_files_max",
    "files with hard links in a layer whose entries replace each other or link to layers below",
    500_000,
    Unit::Number,
);
/// The window of the decompressor is in memory, for each layer of a pull.
pub static ZSTD_WINDOW_BYTES: Budget =
    fixed("zstd_window_bytes_max", "bytes of the window of a zstd frame", 32 << 20, Unit::Bytes);
/// For all layers of a pull together.
pub static ZSTD_WINDOWS_BYTES: Budget = Budget::fixed(
    "zstd_windows_bytes_max",
    "bytes of the zstd windows of all layers of a pull at a time",
    (64 << 20, Unit::Bytes),
    "further layers wait for those",
);
/// The dictionary is in memory. That of `xz -9` has 64 MiB.
pub static XZ_MEMORY_BYTES: Budget = fixed(
    "xz_memory_bytes_max",
    "bytes of memory to decompress an archive of images that xz compressed",
    96 << 20,
    Unit::Bytes,
);
/// Values of JSON take many times their bytes.
pub static DOCUMENT_VALUES: Budget =
    fixed("document_values_max", "values of a manifest or config", 100_000, Unit::Number);

/// Each is a mount of every container of the image.
pub static IMAGE_VOLUMES: Budget =
    fixed("image_volumes_max", "volumes that an image defines (`VOLUME`)", 256, Unit::Number);

/// All limits of images, in the order of the table in the docs.
pub static BUDGETS: [&Budget; 15] = [
    &LAYER_BYTES,
    &LAYER_ENTRIES,
    &LAYER_APPARENT_BYTES,
    &LAYER_SECONDS,
    &HEADER_BYTES,
    &SPARSE_PIECES,
    &IMPLIED_NAME_BYTES,
    &WAITING_LINKS,
    &LINKED_FILES,
    &ZSTD_WINDOW_BYTES,
    &ZSTD_WINDOWS_BYTES,
    &XZ_MEMORY_BYTES,
    &DOCUMENT_VALUES,
    &IMAGE_VOLUMES,
    &ARCHIVE_BYTES,
];

const BY_NEXT: &str = "the next try, then the next host; then the pull fails";
const FAILS: &str = "the pull fails";

/// Applies to response heads, small responses and layers.
pub const STALL_S: Budget = Budget::setting(
    "image",
    "stall_s",
    "time in which a registry or its token server sends hardly a byte",
    (60, Unit::Seconds),
    BY_NEXT,
);
/// Where `dial_timeout` of hosts.toml does not say otherwise.
pub(crate) const CONNECT_S: Budget = Budget::fixed(
    "connect_s",
    "time for a connection to a registry, where no `dial_timeout` is set",
    (30, Unit::Seconds),
    BY_NEXT,
);
/// In a row, without a byte more.
pub(crate) const TRIES_WITHOUT_PROGRESS: Budget = Budget::fixed(
    "tries_without_progress",
    "tries for one object at one host that bring nothing, in a row",
    (6, Unit::Number),
    BY_NEXT,
);
/// The tries of all endpoints together.
pub(crate) const TRIES: Budget =
    Budget::fixed("tries_max", "tries for one layer in all", (100, Unit::Number), FAILS);
/// Hull follows each redirect itself.
pub(crate) const REDIRECTS: Budget =
    Budget::fixed("redirects_max", "redirects of one request", (10, Unit::Number), FAILS);
/// A manifest is held in memory.
pub(crate) const MANIFEST_BYTES: Budget = Budget::fixed(
    "manifest_bytes_max",
    "bytes of a manifest or index",
    (4 << 20, Unit::Bytes),
    REFUSED,
);
/// A config is held in memory.
pub(crate) const CONFIG_BYTES: Budget =
    Budget::fixed("config_bytes_max", "bytes of a config", (8 << 20, Unit::Bytes), REFUSED);
/// The number of layers that overlayfs can mount.
pub(crate) const LAYERS: Budget =
    Budget::fixed("layers_max", "layers of an image", (500, Unit::Number), REFUSED);
/// An answer is held in memory.
pub(crate) const TOKEN_BYTES: Budget = Budget::fixed(
    "token_bytes_max",
    "bytes of a token server's answer",
    (1 << 20, Unit::Bytes),
    BY_NEXT,
);
/// Read for its message.
pub(crate) const ERROR_BYTES: Budget = Budget::fixed(
    "error_bytes_max",
    "bytes of a registry's error",
    (16 << 10, Unit::Bytes),
    "the rest is not read",
);
/// A program of the operator.
pub(crate) const HELPER_S: Budget = Budget::fixed(
    "helper_s",
    "time of a credential helper",
    (60, Unit::Seconds),
    "it is killed, and the pull goes on without its credentials",
);

/// Limits for registries.
pub(crate) const REGISTRY: [&Budget; 11] = [
    &STALL_S,
    &CONNECT_S,
    &TRIES_WITHOUT_PROGRESS,
    &TRIES,
    &REDIRECTS,
    &MANIFEST_BYTES,
    &CONFIG_BYTES,
    &LAYERS,
    &TOKEN_BYTES,
    &ERROR_BYTES,
    &HELPER_S,
];

/// The hint for an operator who trusts the image.
pub(crate) fn hint(budget: &Budget) -> String {
    match budget.section {
        Some(section) => {
            format!("if you trust the image, raise `{}` under `[{section}]`", budget.name)
        }
        None => "this limit has no setting: see \"Budgets\" in docs/security.md".into(),
    }
}

/// The tables for docs/security.md: what an image may cost, and what a registry may.
#[must_use]
pub fn tables() -> [String; 2] {
    [table(&BUDGETS), table(&REGISTRY)]
}

/// The limits of a layer or an archive of images that have settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that a layer inflates to.
    pub bytes: u64,
    /// Entries of a layer's archive, extended headers among them.
    pub entries: u64,
    /// Bytes that the sparse files of a layer are long.
    pub apparent_bytes: u64,
    /// Seconds of processor time that each thread may take for a layer.
    pub seconds: u64,
    /// Bytes that an archive of images inflates to.
    pub archive_bytes: u64,
}

impl Limits {
    pub(crate) const NONE: Self = Self {
        bytes: u64::MAX,
        entries: u64::MAX,
        apparent_bytes: u64::MAX,
        seconds: u64::MAX,
        archive_bytes: u64::MAX,
    };
}

impl Default for Limits {
    /// Some times what the largest images have.
    fn default() -> Self {
        Self {
            bytes: LAYER_BYTES.default,
            entries: LAYER_ENTRIES.default,
            apparent_bytes: LAYER_APPARENT_BYTES.default,
            seconds: LAYER_SECONDS.default,
            archive_bytes: ARCHIVE_BYTES.default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_docs_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
        let docs = std::fs::read_to_string(path).unwrap();
        for table in tables() {
            assert!(docs.contains(&table), "put this under \"Budgets\" in {path}:\n{table}");
        }
    }
}
