// SPDX-License-Identifier: Apache-2.0
//! Compiled seccomp filters, kept by the profile that they were made of.
//!
//! Compiling takes some 10 ms, ten times the rest of a container's start, and a node knows few
//! profiles. The directory is root's alone, a file is written whole and renamed. It is only a saving:
//! what cannot be read or written is compiled again.

use crate::error::{Error, Result};
use crate::store::make_root;
use data_encoding::HEXLOWER;
use hull_init::plan::Seccomp;
use hull_records::{Durability, Location, PRIVATE};
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Filters that are kept. Each has about 10 KiB.
const KEPT_MAX: usize = 64;
/// Longest filter that is read, in bytes.
const FILTER_BYTES_MAX: u64 = 1 << 20;
const DIRECTORY: &str = "filters@3";

/// The filter of a profile.
pub(crate) fn filter(root: &Path, profile: &LinuxSeccomp) -> Result<Seccomp> {
    let planned = |source| Error::PlanProcess { source };
    let compile = || hull_plan::seccomp::compiled(profile).map_err(planned);
    let Some(path) = path(root, profile) else { return compile() };
    let kept = Location::at(&path)
        .read(FILTER_BYTES_MAX)
        .ok()
        .and_then(|bytes| borsh::from_slice(&bytes).ok());
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let made = compile()?;
    // Only a saving.
    let _not_kept = keep(&path, &hull_plan::encode(&made));
    Ok(made)
}

fn path(root: &Path, profile: &LinuxSeccomp) -> Option<PathBuf> {
    let text = serde_json::to_vec(profile).ok()?;
    // The version of the program: another one may compile the profile differently.
    let digest = Sha256::new()
        .chain_update(env!("CARGO_PKG_VERSION"))
        .chain_update([0])
        .chain_update(text)
        .finalize();
    Some(root.join(DIRECTORY).join(HEXLOWER.encode(&digest)))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    let io =
        |err| Error::call(hull_sys::Error::of_io(|| format!("write({})", path.display()))(err));
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_root(directory)?;
    let have: Vec<_> = fs::read_dir(directory).map_err(io)?.flatten().collect();
    if have.len() >= KEPT_MAX {
        for old in have {
            let _gone = fs::remove_file(old.path());
        }
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let (file, scratch) = (Location::at(path), Location::at(&new));
    hull_records::replace(file, scratch, bytes, PRIVATE, Durability::Process).map_err(Error::call)
}
