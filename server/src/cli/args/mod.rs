// SPDX-License-Identifier: Apache-2.0
//! The command line as clap sees it: names, help and examples. No logic: values are parsed in
//! [`parse`](super::parse) and in the commands.

pub(crate) mod containers;
pub(crate) mod diagnose;
pub(crate) mod images;
mod inspect;
mod logs;
pub(crate) mod migrate;
mod node;
pub(crate) mod place;
pub(crate) mod pods;
mod run;
pub(crate) mod run_parts;
mod session;

pub(crate) use containers::Containers;
pub(crate) use diagnose::Diagnose;
pub(crate) use images::Stored;
pub(crate) use inspect::{Document, Inspect};
pub(crate) use logs::Logs;
pub(crate) use node::{Check, Completion, ConfigArgs, ConfigWhat, Schema};
pub(crate) use pods::Pods;
pub(crate) use run::Run;
pub(crate) use session::{Attach, Exec};

use super::format::{ListArgs, OutputArgs};
use super::parse::number;
use super::{audit, containerd};
use clap::{Args, Parser, Subcommand};
use place::Place;
use std::path::PathBuf;

const ABOUT: &str = "A Kubernetes container runtime in one binary.

`hull serve` runs the daemon: set the kubelet's --container-runtime-endpoint to its socket. The other
commands are clients of the daemon on the same socket, as crictl is. `hull check` reports what this host
lacks; it needs no daemon.";

const EXAMPLES: &str = "\
Examples:
  hull check                                     can this host run pods?
  hull serve &                                   run the daemon with default settings
  hull run --rm docker.io/library/busybox echo hello
  hull run -d --name web -p 8080:80 docker.io/library/nginx
  hull logs -f web
  hull rm -f web

Files: /etc/hull/config.toml, /etc/hull/config.toml.d/*.toml (`hull config show`)";

/// The version with the commit, its date and the target, for `hull --version`.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("HULL_COMMIT"),
    "\ndate: ",
    env!("HULL_COMMIT_DATE"),
    "\ntarget: ",
    env!("HULL_TARGET")
);

/// Heading of the options that all commands have.
const GLOBAL: &str = "Options of all commands";

/// The options of all commands, and the commands.
#[derive(Debug, Parser)]
#[command(name = "hull", version, long_version = LONG_VERSION, about = "A Kubernetes container runtime in one binary", long_about = ABOUT,
    after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Unix socket of the daemon [default: `socket` in the configuration]
    #[arg(long, global = true, env = "HULL_SOCKET", value_name = "PATH", help_heading = GLOBAL)]
    pub(crate) socket: Option<PathBuf>,
    /// Configuration file, TOML [default: /etc/hull/config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon, which serves the Kubernetes container runtime interface (CRI v1)
    #[command(after_help = "\
Examples:
  hull serve
  hull serve --config /etc/hull/config.toml --set log.format=json
  kubelet --container-runtime-endpoint=unix:///run/hull/hull.sock …

Pods keep running when the daemon ends, even if it crashes. On SIGTERM it finishes open calls, then exits.")]
    Serve(Serve),
    /// Run only the OCI runtime, with runc's command line
    #[command(after_help = "\
Examples:
  hull oci --help
  hull oci create --bundle DIR web && hull oci start web
  ln -s $(command -v hull) /usr/local/bin/hull-oci     for containerd and podman, which want one path")]
    Oci {
        /// Options, command and arguments, as for runc
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<std::ffi::OsString>,
    },
    /// Run a command in a new pod with one container; pull the image if it is missing
    #[command(after_help = run::HELP)]
    Run(Box<Run>),
    /// List running containers, or all with --all
    #[command(
        after_help = "Examples:\n  hull ps\n  hull ps -a                        exited containers and empty pods, too\n  hull ps -n kube-system -o wide\n  hull ps --format '{{.names}} {{.state}}' --filter label=app=web"
    )]
    Ps(Ps),
    /// Print the output of a container
    #[command(after_help = "\
Examples:
  hull logs web
  hull logs -f --tail 20 web
  hull logs --timestamps web 2>errors.log >out.log
  hull logs -f --since 10m --all-containers kube-system/coredns-x7k2p
  hull logs -n shop -c setup web                 one container of a pod, also one that has ended
  hull logs --previous web                       what it wrote before it was started last

The stderr of the container goes to stderr. -f ends when the container exits.")]
    Logs(Logs),
    /// Run a command in a running container
    #[command(after_help = session::EXEC_HELP)]
    Exec(Exec),
    /// Connect to the input and output of a running container
    #[command(after_help = session::ATTACH_HELP)]
    Attach(Attach),
    /// Stop containers or pods: send the stop signal, and SIGKILL after a grace period
    #[command(
        after_help = "Example:\n  hull stop -t 2 web      SIGTERM (or the stop signal of the image), after 2 seconds SIGKILL"
    )]
    Stop(Stop),
    /// Remove containers or pods
    #[command(
        after_help = "Examples:\n  hull rm web\n  hull rm -f web          kill it first\n\nRemoving a pod also removes its containers, its address, and the logs of `hull run`."
    )]
    Rm(Rm),
    /// Pull images from their registries
    #[command(after_help = "\
Examples:
  hull pull docker.io/library/busybox:latest
  hull pull --user me:secret registry.example/app@sha256:…
  hull pull --user me --password-stdin registry.example/app < password")]
    Pull(Pull),
    /// List images, or verify their files
    #[command(after_help = "\
Examples:
  hull images
  hull images verify                             read and compare every file of every image
  hull images verify --repair registry.example/app:1")]
    Images(Images),
    /// Remove images, or names of images
    #[command(
        after_help = "Example:\n  hull rmi busybox:latest\n\nA tag removes only that name; an id removes the image with all its names."
    )]
    Rmi(Rmi),
    /// Import images from an archive of `docker save`, or from an OCI image layout
    #[command(after_help = "\
Examples:
  hull import app.tar
  docker save app:1 | hull import
  hull load < app.tar
  hull import --name registry.example/app:1 layout.tar.gz")]
    Import(Import),
    /// Export images as an archive: an OCI image layout that `docker load` also reads
    #[command(after_help = "\
Examples:
  hull export -o app.tar registry.example/app:1
  hull export app:1 sidecar:2 | ssh node hull import -")]
    Export(Export),
    /// Emulate `ctr` for tools that load images: `images import`, `export`, `list`, `tag`, `rm`
    #[command(after_help = "\
Example:
  hull ctr --namespace=k8s.io images import --all-platforms -

For tools that load images into a node with ctr: a link to hull named `ctr` does the same. Options for
namespaces and snapshotters have no meaning here and are ignored; `--address` names the daemon's socket.")]
    Ctr(Emulated),
    /// Emulate `containerd` for tools that set up nodes: the daemon, `config dump`
    #[command(after_help = containerd::HELP)]
    Containerd(Emulated),
    /// Show the full state of a container, pod or image, as JSON
    #[command(
        after_help = "Examples:\n  hull inspect web | jq .info.pid\n  hull inspect --format '{{.status.state}}' web\n  hull inspect -o yaml web db"
    )]
    Inspect(Inspect),
    /// Show CPU, memory and process counts of running pods and containers
    Stats(Stats),
    /// Audit the isolation of running containers, as the kernel enforces it
    #[command(after_help = audit::HELP)]
    Audit(audit::Audit),
    /// Check whether this host can run pods, and print hints for what is missing
    #[command(
        after_help = "The daemon need not run. The exit code is 1 if something is missing that every pod needs."
    )]
    Check(Check),
    /// Print the default or the current configuration
    Config(ConfigArgs),
    /// Take over the configuration and the images of containerd or CRI-O, and print the steps to change the node
    #[command(after_help = migrate::HELP)]
    Migrate(migrate::Migrate),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  hull completion bash > /etc/bash_completion.d/hull\n  hull completion zsh > /usr/local/share/zsh/site-functions/_hull\n  hull completion fish > ~/.config/fish/completions/hull.fish\n\nNames of containers, pods and images come from the daemon."
    )]
    Completion(Completion),
    /// Print the versions of this binary and of the daemon
    #[command(after_help = "Example:\n  hull version -o json")]
    Version(Document),
    /// Print the JSON schema of the output of a command
    #[command(after_help = "Example:\n  hull schema ps")]
    Schema(Schema),
    /// Print names that may follow these words
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words of the command line so far
        #[arg(last = true, value_name = "WORDS")]
        words: Vec<String>,
    },
    #[command(flatten)]
    Containers(Containers),
    #[command(flatten)]
    Pods(Pods),
    #[command(flatten)]
    Stored(Stored),
    #[command(flatten)]
    Diagnose(Diagnose),
}

/// Options of `hull serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Override a setting, as in `--set network.mtu=1450`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Directory of records and sockets [default: `state_dir` in the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Directory of images and writable layers [default: `data_dir` in the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Log level: off, error, warn, info, debug, trace [default: `log.level` in the configuration]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// Options of `hull ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also list exited containers and pods without containers
    #[arg(short, long)]
    pub(crate) all: bool,
    /// List only containers in pods of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// List pods of all namespaces, which is done in any case
    #[arg(short = 'A', long = "all-namespaces", hide = true, conflicts_with = "namespace")]
    _all_namespaces: bool,
    /// List only containers of this pod, by id, prefix of the id, or name
    #[arg(short, long, value_name = "POD")]
    pub(crate) pod: Option<String>,
    /// List only the newest COUNT containers, in any state
    #[arg(long, value_name = "COUNT")]
    pub(crate) last: Option<usize>,
    /// List only the newest container, whatever its state
    #[arg(short, long, conflicts_with = "last")]
    pub(crate) latest: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// Options of `hull stop`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Grace period in seconds, until SIGKILL [default: --stop-timeout of `hull run`, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = number("seconds", 0..=u32::MAX))]
    pub(crate) time: Option<u32>,
    /// Containers or pods, by id, prefix of the id, or name
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Kill running containers first, without a grace period
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove all pods of this node, including those of the kubelet
    #[arg(short, long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Remove volumes without a name as well, which is done in any case
    #[arg(short = 'v', long = "volumes", hide = true)]
    _volumes: bool,
    /// Containers or pods, by id, prefix of the id, or name
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// User name at the registry, and password
    #[arg(short, long, visible_alias = "creds", value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,
    /// Read the password from stdin, which keeps it out of process lists
    #[arg(long, requires = "user")]
    pub(crate) password_stdin: bool,
    /// Print only the id of the image
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print each step of the pull to stdout, one JSON object per line
    #[arg(long, conflicts_with_all = ["quiet", "output", "format"])]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Images to pull
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// Options of `hull images`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Images {
    #[command(subcommand)]
    pub(crate) what: Option<ImagesWhat>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// List all images, which is done in any case
    #[arg(short = 'a', long = "all", hide = true)]
    _all: bool,
    /// List only this image, by name or id, or else images with this part in one of their names
    #[arg(value_name = "IMAGE|PART")]
    pub(crate) image: Option<String>,
}

/// Commands of `hull images`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesWhat {
    /// Compare every file of the stored images with its digest; the exit code is 1 if any differs
    Verify(Verify),
}

/// Options of `hull images verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Pull broken layers again, and replace the files that differ
    #[arg(long)]
    pub(crate) repair: bool,
    /// User name at the registry, and password, for --repair
    #[arg(short, long, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "user")]
    pub(crate) password_stdin: bool,
    /// Verify only this image
    pub(crate) image: Option<String>,
}

/// Options of `hull export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File to write [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// Arguments of `hull ctr` and `hull containerd`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Emulated {
    /// Options and command, as for the emulated program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) words: Vec<String>,
}

/// Arguments of `hull rmi`.
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Remove all images that are not pinned
    #[arg(short, long, conflicts_with = "images")]
    pub(crate) all: bool,
    /// Remove all images that no container uses and that are not pinned
    #[arg(short = 'q', long, conflicts_with_all = ["images", "all"])]
    pub(crate) prune: bool,
    /// Names to take away; an image goes with its last tag, or by its id with all its names
    #[arg(required_unless_present_any = ["all", "prune"], value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// Options of `hull import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Archive to read, as `docker load` has it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) input: Option<PathBuf>,
    /// Name for the image, if the archive has one image without a name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Archive to read, plain or compressed with gzip or zstd; `-` is stdin [default: stdin, if it is not a terminal]
    pub(crate) file: Option<PathBuf>,
}

/// Options of `hull stats`.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// List only pods of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// List pods of all namespaces, which is done in any case
    #[arg(short = 'A', long = "all-namespaces", hide = true, conflicts_with = "namespace")]
    _all_namespaces: bool,
    /// Print again and again, every so many seconds, until interrupted [default: 2]
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = number("seconds", 1..=3600_u64)
    )]
    pub(crate) watch: Option<u64>,
    /// Print once, as without --watch
    #[arg(long = "no-stream", hide = true, conflicts_with = "watch")]
    _no_stream: bool,
    /// Time over which CPU use is measured, in milliseconds, 10 to 60000
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = number("milliseconds", 10..=60_000_u64))]
    pub(crate) over_ms: u64,
    /// Pods or containers, by id, prefix of the id, or name [default: all that run]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
}
