// SPDX-License-Identifier: Apache-2.0
//! The fields of printed objects.

use super::super::table::Content;
use serde_json::{Map, Value};

/// One object: its fields by key.
pub(crate) type Row = Map<String, Value>;

/// A kind of objects that a command prints.
#[derive(Debug)]
pub(crate) struct Kinds {
    /// The command that prints them.
    pub(crate) verb: &'static str,
    /// Their fields, in the order of the columns.
    pub(crate) fields: &'static [Field],
    /// The key of the field that `-q` prints.
    pub(crate) id: &'static str,
    /// The key of the field that `-o name` prints.
    pub(crate) name: &'static str,
}

/// The type of a field, in JSON and on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string, shown unchanged.
    Text,
    /// A string, one of a few words as for a state; no table cuts it.
    Word,
    /// A string of hex digits, maybe after `sha256:`; tables show the first 12.
    Id,
    /// A string, RFC 3339 in UTC; empty if it is not known. Tables show the time since then.
    Time,
    /// A number of bytes; tables show a unit of 1024.
    Bytes,
    /// A whole number.
    Number,
    /// A number with a fraction.
    Decimal,
    /// `true` or `false`; tables show `yes` or nothing.
    Flag,
    /// An array of strings.
    List,
    /// An object whose values are strings.
    Map,
    /// An object or an array of objects, as CRI or OCI defines it.
    Object,
}

impl Kind {
    /// The content of a column with such values.
    pub(crate) const fn content(self) -> Content {
        match self {
            Self::Text | Self::List | Self::Map | Self::Object => Content::Names,
            Self::Word | Self::Id => Content::Words,
            Self::Time | Self::Bytes | Self::Number | Self::Decimal | Self::Flag => {
                Content::Figures
            }
        }
    }

    /// Its name in the documentation.
    #[cfg(test)]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text | Self::Word | Self::Id => "string",
            Self::Time => "time",
            Self::Bytes => "bytes",
            Self::Number => "integer",
            Self::Decimal => "number",
            Self::Flag => "boolean",
            Self::List => "array",
            Self::Map | Self::Object => "object",
        }
    }
}

/// When a table has the field as a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Never,
    Wide,
    Always,
}

/// One field of a kind of objects.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) key: &'static str,
    /// Heading of the column.
    pub(crate) heading: &'static str,
    pub(crate) kind: Kind,
    pub(crate) show: Show,
    /// Description, one sentence.
    pub(crate) doc: &'static str,
}

impl Field {
    /// A field with a column in every table.
    pub(crate) const fn always(
        key: &'static str,
        heading: &'static str,
        kind: Kind,
        doc: &'static str,
    ) -> Self {
        Self { key, heading, kind, show: Show::Always, doc }
    }

    /// A field with a column in wide tables.
    pub(crate) const fn wide(
        key: &'static str,
        heading: &'static str,
        kind: Kind,
        doc: &'static str,
    ) -> Self {
        Self { key, heading, kind, show: Show::Wide, doc }
    }

    /// A field without a column.
    pub(crate) const fn never(key: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { key, heading: "", kind, show: Show::Never, doc }
    }
}
