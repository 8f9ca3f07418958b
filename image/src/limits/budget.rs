// SPDX-License-Identifier: Apache-2.0
//! The table of limits.

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Counts bytes.
    Bytes,
    /// Counts items.
    Number,
    /// Counts seconds.
    Seconds,
}

/// One limit on what an image may cost.
#[derive(Debug, PartialEq, Eq)]
pub struct Budget {
    /// The name of the setting under `[image]`; for a fixed limit, its name in messages.
    pub name: &'static str,
    /// What is counted; reads after a number.
    pub what: &'static str,
    /// The default value of the limit.
    pub default: u64,
    /// The unit of the value.
    pub unit: Unit,
    /// Whether there is a setting.
    pub is_setting: bool,
    /// What happens when the limit is exceeded.
    pub beyond: &'static str,
}

const REFUSED: &str = "the image is refused, nothing of it stays";

const fn setting(name: &'static str, what: &'static str, default: u64, unit: Unit) -> Budget {
    Budget { name, what, default, unit, is_setting: true, beyond: REFUSED }
}

const fn fixed(name: &'static str, what: &'static str, default: u64, unit: Unit) -> Budget {
    Budget { name, what, default, unit, is_setting: false, beyond: REFUSED }
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
/// Values of JSON take many times their bytes.
pub static DOCUMENT_VALUES: Budget =
    fixed("document_values_max", "values of a manifest or config", 100_000, Unit::Number);

/// All limits, in the order of the table in the docs.
pub static BUDGETS: [&Budget; 11] = [
    &LAYER_BYTES,
    &LAYER_ENTRIES,
    &LAYER_APPARENT_BYTES,
    &LAYER_SECONDS,
    &HEADER_BYTES,
    &SPARSE_PIECES,
    &WAITING_LINKS,
    &LINKED_FILES,
    &ZSTD_WINDOW_BYTES,
    &DOCUMENT_VALUES,
    &ARCHIVE_BYTES,
];

impl Budget {
    /// The hint for an operator who trusts the image.
    pub(crate) fn hint(&self) -> String {
        if self.is_setting {
            format!("if you trust the image, raise `{}` under `[image]`", self.name)
        } else {
            "this limit has no setting: see \"Budgets\" in docs/security.md".into()
        }
    }

    fn shown_default(&self) -> String {
        let scales = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let is_whole = |(shift, _): &&(u32, &str)| self.default.trailing_zeros() >= *shift;
        match (self.unit, scales.iter().find(is_whole)) {
            (Unit::Bytes, Some((shift, unit))) => format!("{} {unit}", self.default >> shift),
            (Unit::Seconds, _) => format!("{} s", self.default),
            (Unit::Bytes | Unit::Number, _) => self.default.to_string(),
        }
    }
}

/// The table for docs/security.md.
#[must_use]
pub fn table() -> String {
    let mut table = String::from("| What | Limit | Default | Beyond it |\n|---|---|---|---|\n");
    for budget in BUDGETS {
        let fixed = if budget.is_setting { "`image.".to_owned() } else { "fixed, `".to_owned() };
        table.push_str(&format!(
            "| {} | {fixed}{}` | {} | {} |\n",
            budget.what,
            budget.name,
            budget.shown_default(),
            budget.beyond
        ));
    }
    table
}

/// The limits on a layer or an archive of images that have settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes of a layer.
    pub bytes: u64,
    /// Entries of a layer's archive, extended headers among them.
    pub entries: u64,
    /// The length of the sparse files of a layer, holes included.
    pub apparent_bytes: u64,
    /// Seconds of processor time that each thread may take for a layer.
    pub seconds: u64,
    /// Uncompressed bytes of an archive of images.
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
        assert!(docs.contains(&table()), "put this under \"Budgets\" in {path}:\n{}", table());
    }
}
