// SPDX-License-Identifier: Apache-2.0
//! The command line as clap sees it: names, help and examples. No logic; what a flag means is
//! worked out in [`parse`](super::parse) and in the commands.

use super::audit;
use super::parse::number;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const ABOUT: &str = "A Kubernetes container runtime in one binary.

`hull serve` is the daemon: point the kubelet's --container-runtime-endpoint at its socket. The other
commands talk to it over the same socket, as crictl does. `hull check` tells what this host lacks,
without a daemon.";

const EXAMPLES: &str = "\
Examples:
  hull check                                     is this host ready?
  hull serve &                                   the daemon, with embedded defaults
  hull run --rm docker.io/library/busybox echo hello
  hull run -d --name web -p 8080:80 docker.io/library/nginx
  hull logs -f web
  hull rm -f web

Files: /etc/hull/config.toml, /etc/hull/config.toml.d/*.toml (`hull config show`)";

/// All commands, and what holds for each of them.
#[derive(Debug, Parser)]
#[command(name = "hull", version, about = "A Kubernetes container runtime in one binary", long_about = ABOUT,
    after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// The daemon's socket [default: `socket` of the configuration]
    #[arg(long, global = true, env = "HULL_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Configuration file [default: /etc/hull/config.toml, when there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve CRI: the daemon
    #[command(after_help = "\
Examples:
  hull serve
  hull serve --config /etc/hull/config.toml --set log.format=json
  kubelet --container-runtime-endpoint=unix:///run/hull/hull.sock …

Pods keep running when the daemon ends, however it ends. SIGTERM finishes the calls under way first.")]
    Serve(Serve),
    /// The OCI runtime alone, with runc's command line
    #[command(after_help = "\
Examples:
  hull oci --help
  hull oci create --bundle DIR web && hull oci start web
  ln -s $(command -v hull) /usr/local/bin/hull-oci     as containerd and podman want it: one path")]
    Oci {
        /// Options, command and operands, as runc has them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<std::ffi::OsString>,
    },
    /// Run a command in a new pod with one container
    #[command(after_help = RUN_HELP)]
    Run(Box<Run>),
    /// List containers
    #[command(
        after_help = "Examples:\n  hull ps\n  hull ps -a        exited containers and empty pods too"
    )]
    Ps(Ps),
    /// Print what a container wrote
    #[command(after_help = "\
Examples:
  hull logs web
  hull logs -f --tail 20 web
  hull logs --timestamps web 2>errors.log >out.log

What the container wrote to stderr goes to stderr. -f ends when the container does.")]
    Logs(Logs),
    /// Run a command in a running container
    #[command(after_help = "\
Examples:
  hull exec web cat /etc/hostname
  hull exec --timeout 5 web sh -c 'wget -qO- localhost'

Output comes when the command has ended. The exit code is the command's; 126 and 127 mean that it
could not be executed or was not found, 125 that hull itself failed.")]
    Exec(Exec),
    /// Stop containers or pods
    #[command(
        after_help = "Example:\n  hull stop -t 2 web      SIGTERM (or the image's stop signal), 2 seconds later SIGKILL"
    )]
    Stop(Stop),
    /// Remove containers or pods
    #[command(
        after_help = "Examples:\n  hull rm web\n  hull rm -f web          stop it first\n\nRemoving a pod takes its containers, address and logs of `hull run` along."
    )]
    Rm(Rm),
    /// Fetch images
    #[command(after_help = "\
Examples:
  hull pull docker.io/library/busybox:latest
  hull pull --user me:secret registry.example/app@sha256:…
  hull pull --user me --password-stdin registry.example/app < password")]
    Pull(Pull),
    /// List images, or compare them with what was stored
    #[command(after_help = "\
Examples:
  hull images
  hull images verify                             reads every file of every image
  hull images verify --repair registry.example/app:1")]
    Images(Images),
    /// Remove images
    #[command(
        after_help = "Example:\n  hull rmi busybox:latest\n\nA tag takes only that name away; an id takes the image with all its names."
    )]
    Rmi(Rmi),
    /// Take in an archive made by `docker save`, or an OCI layout
    #[command(after_help = "\
Examples:
  hull import app.tar
  docker save app:1 | hull import -
  hull import --name registry.example/app:1 layout.tar.gz")]
    Import(Import),
    /// Write images as an archive: an OCI layout that `docker load` takes too
    #[command(after_help = "\
Examples:
  hull export -o app.tar registry.example/app:1
  hull export app:1 sidecar:2 | ssh node hull import -")]
    Export(Export),
    /// Understand what tools call `ctr` for: `images import`, `list`, `tag`, `rm`
    #[command(after_help = "\
Example:
  hull ctr --namespace=k8s.io images import --all-platforms -

For tools that load images into a node by way of ctr: a link named `ctr` to hull does the same.
Namespaces and snapshotters mean nothing here and are not looked at.")]
    Ctr(Ctr),
    /// Show all that is known of a container, pod or image, as JSON
    #[command(after_help = "Example:\n  hull inspect web | jq .info.pid")]
    Inspect(Inspect),
    /// Show what running pods and containers use
    Stats(Stats),
    /// Show how a running container is isolated, as the kernel has it, and what would close it
    #[command(after_help = audit::HELP)]
    Audit(audit::Audit),
    /// Tell what this host lacks for running pods, and how to fix it
    #[command(
        after_help = "The daemon need not run. Ends with 1 when something is missing that pods cannot do without."
    )]
    Check(Check),
    /// Show the default or the current configuration
    Config(ConfigArgs),
    /// Print a completion script
    #[command(after_help = "Example:\n  hull completion bash > /etc/bash_completion.d/hull")]
    Completion(Completion),
    /// Print the versions of this program and of the daemon
    Version,
}

const RUN_HELP: &str = "\
Examples:
  hull run --rm docker.io/library/busybox echo hello
  hull run -d --name web -p 127.0.0.1:8080:80 -v /srv/www:/usr/share/nginx/html:ro docker.io/library/nginx
  hull run --rm --memory 64m --cpus 0.5 --user 1000:1000 --read-only busybox id
  hull run --rm --net host --cap-add NET_ADMIN busybox ip addr

The image is fetched when it is not here. Without -d the output is followed and SIGINT or SIGTERM stops
the container; pressed twice, at once. The exit code is the container's (128 + N when signal N killed
it); 125 means that hull itself failed, 126 that the command cannot be executed, 127 that it was not
found.";

/// `hull serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Set any setting for this run, as in `--set network.mtu=1450`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Directory of records and sockets (`state_dir`)
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Directory of images and writable layers (`data_dir`)
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What is logged (`log.level`)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// `hull run`
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "independent flags of a command line")]
pub(crate) struct Run {
    /// Name of the pod, of its container and, unless --hostname says otherwise, of its host
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Remove the pod when the command has ended, was interrupted or failed
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// Print the container's id and leave it running
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Host port to reach a container port by
    #[arg(short, long = "publish", value_name = "[IP:]HOST:CONTAINER[/tcp|udp|sctp]")]
    pub(crate) publish: Vec<String>,
    /// Host path to mount; options: ro, rro, rw, rprivate, rslave, rshared
    #[arg(short, long = "volume", value_name = "SRC:DST[:OPTION,…]")]
    pub(crate) volume: Vec<String>,
    /// Environment variable; KEY alone passes on your own
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The pod's own network, or the host's
    #[arg(long, value_enum, default_value_t = Net::Pod)]
    pub(crate) net: Net,
    /// User to run as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Most memory, as in 64m or 1.5g
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Most processor time, as in 0.5
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpus: Option<String>,
    /// All capabilities and devices, no confinement
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Capability to add; ALL for all of them
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Capability to drop; ALL for all of them
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Root filesystem that cannot be written
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Program to run instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Host name [default: the pod's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Directory of the container's log [default: under `data_dir`, removed with the pod]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Not there yet: keep stdin open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Not there yet: a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Image to run
    pub(crate) image: String,
    /// Arguments of the image's entrypoint, or the command when it has none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// Which network a pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    Pod,
    Host,
}

/// `hull ps`
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Containers that do not run and pods without containers too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Whole ids and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `hull logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on printing until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES", value_parser = number("lines", 0..=usize::MAX))]
    pub(crate) tail: Option<usize>,
    /// The time of each line before it
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Container by id, start of its id, name, or POD/NAME
    pub(crate) container: String,
}

/// `hull exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Not there yet: pass stdin on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Not there yet: a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Kill the command after so many seconds [default: never]
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true, value_parser = number("seconds", 0..=u32::MAX))]
    pub(crate) timeout: u32,
    /// Container by id, start of its id, name, or POD/NAME
    pub(crate) container: String,
    /// Command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}

/// `hull stop`
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds until SIGKILL
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10, value_parser = number("seconds", 0..=u32::MAX))]
    pub(crate) time: u32,
    /// Containers or pods by id, start of the id, or name
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// `hull rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Stop what runs first
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Every pod on this node, the kubelet's too
    #[arg(short, long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Containers or pods by id, start of the id, or name
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// `hull pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Account at the registry
    #[arg(short, long, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,
    /// Read the password from stdin, so that it stands in no process list
    #[arg(long, requires = "user")]
    pub(crate) password_stdin: bool,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print every step as a line of JSON, to stdout
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Images to fetch
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// `hull images`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Images {
    #[command(subcommand)]
    pub(crate) what: Option<ImagesWhat>,
    /// Whole ids and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only this one
    pub(crate) image: Option<String>,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesWhat {
    /// Compare every file with what was stored; ends with 1 when something is not as it should be
    Verify(Verify),
}

/// `hull images verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Fetch again what is broken, and replace it file by file
    #[arg(long)]
    pub(crate) repair: bool,
    /// Account at the registry, for --repair
    #[arg(short, long, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "user")]
    pub(crate) password_stdin: bool,
    /// Only this one
    pub(crate) image: Option<String>,
}

/// `hull export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Where to write it [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Images by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// `hull ctr`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Ctr {
    /// As for ctr
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) words: Vec<String>,
}

/// `hull rmi`
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Images by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// `hull import`
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Name for an archive that holds one image without a name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Archive, plain or compressed with gzip or zstd; `-` is stdin
    pub(crate) file: PathBuf,
}

/// `hull inspect`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Container, pod or image, by id, start of the id, or name
    pub(crate) name: String,
}

/// `hull stats`
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Over how many milliseconds processor use is measured
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = number("milliseconds", 10..=60_000_u64))]
    pub(crate) over_ms: u64,
}

/// `hull check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only what is missing
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `hull config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) what: ConfigWhat,
}

/// Which configuration.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigWhat {
    /// Every setting at its default, with what it is for
    Default,
    /// What holds after all files are merged, with where each value came from
    Show {
        /// What the running daemon was started with
        #[arg(long)]
        daemon: bool,
    },
}

/// `hull completion`
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// For which shell
    pub(crate) shell: clap_complete::Shell,
}
