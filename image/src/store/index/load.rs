// SPDX-License-Identifier: Apache-2.0
//! Checks the records that are read when a store is opened.

use super::record::Record;
use crate::fs::files;
use crate::store::layout::Layout;
use crate::types::Problem;
use hull_records::{SetAside, Unusable};
use std::collections::BTreeSet;
use std::path::Path;

/// Checks that the layers of a record are there, and reads from each whether it hides those below: records of an earlier
/// Hull do not say so. The layer of directories may be missing, and is then added to
/// `missing`: an earlier Hull does not know it and removes it, and the next pull makes it again.
pub(super) fn check_layers(
    layout: &Layout,
    mut record: Record,
    missing: &mut BTreeSet<String>,
) -> Result<Record, Unusable> {
    if let Some(layer) = &record.directories
        && let Err(err) = files::open_dir(&layout.layer(&layer.name))
        && err.is_not_found()
    {
        missing.insert(layer.name.clone());
    }
    let all = record.layers.iter_mut().chain(&mut record.directories);
    for layer in all.filter(|layer| !missing.contains(&layer.name)) {
        match files::open_dir(&layout.layer(&layer.name)) {
            Ok(root) => layer.hides_below = files::hides_below(&root),
            Err(err) => {
                let why = format!("its layer {} cannot be opened: {err}", layer.name);
                return Err(Unusable::Content { why });
            }
        }
    }
    Ok(record)
}

/// Keeps a record that cannot be used under another name.
pub(super) fn set_aside(path: &Path, why: &Unusable, writable: bool) -> Problem {
    if !writable {
        return Problem { path: path.to_owned(), why: why.to_string() };
    }
    let mut aside = path.to_owned().into_os_string();
    aside.push(".bad");
    let SetAside { path, why } = hull_records::set_aside(path, Path::new(&aside), why);
    Problem { path, why }
}
