// SPDX-License-Identifier: Apache-2.0
//! The options of `hull migrate`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Examples and the rules of `hull migrate`, for its help.
pub(crate) const HELP: &str = "\
Examples:
  hull migrate --from containerd --dry-run       what would be done, and the steps to change the node
  hull migrate --from crio                       write the configuration, take over images if the daemon runs
  hull migrate --from crio --only images         the images, after the other runtime was stopped
  hull migrate --from containerd --root /mnt     the files of a node that is not running

Settings go to /etc/hull/config.toml.d, registries to /etc/hull/certs.d, the kubelet's endpoint to
/etc/hull/kubelet.env. A file that is there already is not replaced: the new one is written beside it, and named.
The other runtime's files stay as they are. Settings without a counterpart are listed with the reason, and so are
images that have to be pulled again. Images are verified by their digests as they are imported.";

/// Options of `hull migrate`.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Runtime that the node has
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) from: Runtime,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do one part alone
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<Only>,
    /// Directory that stands for `/` of the node: all files are read and written below it
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
}

/// The runtimes that a node can change from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Containerd, with its configuration in version 2 or newer
    Containerd,
    /// CRI-O, with its images in containers/storage
    #[value(alias = "cri-o")]
    Crio,
}

impl Runtime {
    /// Its name, which is also that of its service.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "crio",
        }
    }
}

/// The parts of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// Write files, and import no images
    Config,
    /// Import images, and write no files
    Images,
}
