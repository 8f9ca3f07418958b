// SPDX-License-Identifier: Apache-2.0
//! The report of a migration, as lines on stdout.

use super::super::args::migrate::Runtime;
use super::super::error::Result;
use super::super::output;
use super::findings::{Findings, NewFile, Noted};
use super::placement::Placement;
use super::root::Root;
use super::source_image::SourceImage;

/// Prints what becomes of each setting.
///
/// # Errors
/// Nobody reads.
pub(crate) fn settings(found: &Findings, from: Runtime) -> Result<()> {
    if found.sources.is_empty() {
        let name = from.name();
        output::line(&format!("There is no configuration of {name}, so it has its defaults."))?;
    } else {
        output::line(&format!("Read: {}", found.sources.join(", ")))?;
    }
    if !found.settings.is_empty() {
        output::line("")?;
        output::line("Taken over:")?;
    }
    for (key, setting) in &found.settings {
        output::line(&format!("  {key} = {}    from {}", setting.value, setting.from))?;
    }
    list("Without a counterpart in Hull:", &found.lost)?;
    list("Nothing to be done for:", &found.same)
}

/// The line about a file.
pub(crate) fn placement(
    root: &Root,
    file: &NewFile,
    placement: &Placement,
    dry_run: bool,
) -> String {
    let path = root.shown(placement.path());
    match placement {
        Placement::Create(_) if dry_run => format!("  {path}:"),
        Placement::Create(_) => format!("  {path}: written"),
        Placement::There(_) => format!("  {path}: has this text already"),
        Placement::Beside(_) => {
            let verb = if dry_run { "would be written" } else { "written" };
            let there = root.shown(&file.path);
            format!("  {path}: {verb} beside {there}, which has another text: compare them")
        }
    }
}

/// Prints the images that can be imported.
///
/// # Errors
/// Nobody reads.
pub(crate) fn images_to_import(images: &[SourceImage]) -> Result<()> {
    output::line("Images that can be taken over:")?;
    for image in images {
        output::line(&format!("  {}: {}", image.name, output::bytes(image.bytes())))?;
    }
    if images.is_empty() {
        output::line("  none")?;
    }
    Ok(())
}

/// Prints the images that have to be pulled again.
///
/// # Errors
/// Nobody reads.
pub(crate) fn to_pull(images: &[Noted]) -> Result<()> {
    list("Images to be pulled again:", images)
}

fn list(title: &str, all: &[Noted]) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::line(title)?;
    for of in all {
        output::line(&format!("  {}: {}", of.name, of.why))?;
    }
    Ok(())
}
