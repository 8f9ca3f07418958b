// SPDX-License-Identifier: Apache-2.0
//! `hull migrate`: takes over the configuration and the images of another runtime.
//!
//! ```text
//! containerd ┐
//! crio ──────┼→ findings ─→ report, files (placement), images (archive → the daemon's import), steps
//! kubelet ───┘
//! ```
//!
//! The rule: the other runtime's files are only read, no file is replaced, every setting is in the report, and
//! every byte of an image is verified by the daemon.
//!
//! Not here: stopping runtimes and changing the kubelet. Those steps are printed, because they drain the node.

mod archive;
mod bolt;
mod containerd;
mod crio;
mod documents;
mod findings;
mod hosts;
mod images;
mod kubelet;
mod network;
mod placement;
mod report;
mod root;
mod rules;
mod source_image;
mod steps;
mod tar_split;
mod toml_file;

use super::args::migrate::{Migrate, Only, Runtime};
use super::client::Client;
use super::error::{Error, Result};
use super::output;
use findings::{Findings, NewFile};
use placement::Placement;
use root::Root;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steps::Steps;

/// The directory of Hull's drop-in files.
const DROP_INS: &str = "/etc/hull/config.toml.d";

/// Runs the command. `connected` connects to the daemon, `socket` is the one that the kubelet is pointed at.
pub(crate) async fn migrate(
    connected: impl AsyncFnOnce() -> Result<Client>,
    socket: &Path,
    args: &Migrate,
) -> Result<()> {
    let root = Arc::new(Root::open(&args.root)?);
    let mut found = match args.from {
        Runtime::Containerd => containerd::read(&root)?,
        Runtime::Crio => crio::read(&root)?,
    };
    network::note(&root, &mut found)?;
    let kubelet = kubelet::read(&root)?;
    kubelet.apply(&root, socket, &mut found)?;
    if let Some(text) = found.config_text(args.from.name()) {
        let path = Path::new(DROP_INS).join(format!("50-from-{}.toml", args.from.name()));
        found.files.insert(0, NewFile { path, text });
    }
    let mut placed = Vec::new();
    if args.only != Some(Only::Images) {
        report::settings(&found, args.from)?;
        placed = files(&root, &found, args.dry_run)?;
    }
    let mut has_images = false;
    if args.only != Some(Only::Config) {
        has_images = take_images(connected, &root, &found, args.dry_run).await?;
    }
    if args.only == Some(Only::Images) {
        return Ok(());
    }
    let peer = found.socket.as_deref();
    let steps =
        Steps { runtime: args.from, peer, kubelet: &kubelet, socket, placed: &placed, has_images };
    output::print(&steps.text())
}

/// Writes the files, or says where they would be written. Returns each wanted path with the one that it got.
fn files(root: &Root, found: &Findings, dry_run: bool) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut placed = Vec::new();
    output::line("")?;
    output::line(if dry_run { "Files that would be written:" } else { "Files:" })?;
    for file in &found.files {
        let placement = placement::of(root, file)?;
        if !dry_run {
            placement.carry_out(root, &file.text)?;
        }
        output::line(&report::placement(root, file, &placement, dry_run))?;
        if dry_run && !matches!(placement, Placement::There(_)) {
            for line in file.text.lines() {
                output::line(&format!("      {line}"))?;
            }
        }
        placed.push((file.path.clone(), placement.path().to_owned()));
    }
    Ok(placed)
}

/// Imports the images, and lists them. True if none is left that could be imported later.
async fn take_images(
    connected: impl AsyncFnOnce() -> Result<Client>,
    root: &Arc<Root>,
    found: &Findings,
    dry_run: bool,
) -> Result<bool> {
    let mut to_pull = found.to_pull.clone();
    let mut has_all = true;
    output::line("")?;
    if dry_run {
        report::images_to_import(&found.images)?;
        has_all = false;
    } else if !found.images.is_empty() {
        match connected().await {
            Ok(client) => {
                output::line("Images that were taken over:")?;
                to_pull.extend(images::take_over(client, root, &found.images).await?);
            }
            Err(err @ Error::Connect { .. }) => {
                report::images_to_import(&found.images)?;
                output::line(&format!("  not imported yet: {err}"))?;
                has_all = false;
            }
            Err(other) => return Err(other),
        }
    }
    report::to_pull(&to_pull)?;
    Ok(has_all)
}
