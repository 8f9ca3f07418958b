// SPDX-License-Identifier: Apache-2.0
//! The options of `hull run`.

use super::super::detach::{DEFAULT_DETACH_KEYS, DetachKeys, detach_keys};
use super::run_parts::{Isolation, Life, Limits, Networking, Storage};
use clap::Args;
use std::path::PathBuf;

/// Examples, and what ends it.
pub(super) const HELP: &str = "\
Examples:
  hull run --rm docker.io/library/busybox echo hello
  hull run -d --name web -p 127.0.0.1:8080:80 -v /srv/www:/usr/share/nginx/html:ro docker.io/library/nginx
  hull run --rm --memory 64m --cpus 0.5 --user 1000:1000 --read-only busybox id
  hull run --rm -it busybox sh
  hull run --rm -i busybox sha256sum < file
  hull run -d --name db --restart always -v data:/data registry.example/db
  hull run --rm --net host --cap-add NET_ADMIN busybox ip addr

Without -d, hull prints the output until the container exits. SIGINT or SIGTERM stops the container; a
second one kills it; with -it, all keys go to the container. The exit code is that of the container (128 + N if signal N killed it); 125 means
that hull itself failed, 126 that the command cannot be executed, 127 that it was not found.";

/// Options of `hull run`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "independent flags of a command line")]
pub(crate) struct Run {
    /// Name of the pod and its container [default: generated]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Remove the pod when the command has exited, failed or was interrupted; with -d, the daemon removes it
    #[arg(long)]
    pub(crate) rm: bool,
    /// Run in the background, and print the id of the container
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Publish a port of the container, or a range, on a host port or a free one; tcp, udp or sctp; may be repeated
    #[arg(short, long = "publish", value_name = "[[IP:][HOST]:]CONTAINER[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Mount a host path or a named volume; options: ro, rro (recursively), rw, rprivate, rslave, rshared; may be repeated
    #[arg(short, long = "volume", value_name = "[SRC|NAME:]DST[:OPTION,…]")]
    pub(crate) volume: Vec<String>,
    /// Set an environment variable; KEY alone passes the value that hull has; may be repeated
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// User and group to run as, by name or number [default: those of the image]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory in the container [default: that of the image]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Grant all capabilities and devices, without seccomp and AppArmor
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Add a capability, or ALL; may be repeated
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability, or ALL; may be repeated
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Mount the root filesystem read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Program to run instead of the entrypoint of the image; '' runs CMD itself
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Host name in the pod [default: the name of the pod]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Directory for the log of the container [default: in `data_dir`, removed with the pod]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Pass on stdin, or with -d keep it open for `hull attach`; without it, the container's stdin is empty
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Keys that leave the container running and end hull, with -it
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = detach_keys)]
    pub(crate) detach_keys: DetachKeys,
    #[command(flatten, next_help_heading = "Limits")]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) networking: Networking,
    #[command(flatten)]
    pub(crate) storage: Storage,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
    #[command(flatten)]
    pub(crate) life: Life,
    /// Image to run, by name or id
    pub(crate) image: String,
    /// Arguments of the entrypoint, or the command if the image has no entrypoint
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}
