// SPDX-License-Identifier: Apache-2.0
//! Options of other tools that a command of Hull does not have: the reason, and what to do instead. Without a table, the
//! error would only say that the option is unexpected.

pub(crate) use super::absent_run_flags::AbsentFlag;
use super::absent_run_flags::{ABSENT_RUN_FLAGS, absent};

/// Commands for containers or pods by name.
const NAMED: &[&str] = &[
    "exec", "attach", "logs", "inspect", "stop", "rm", "start", "restart", "kill", "pause",
    "unpause", "wait", "cp", "top", "port", "stats", "audit", "explain",
];
/// Commands that reach registries.
const REGISTRY: &[&str] = &["run", "create", "pull", "login", "logout"];
/// Of options before the command.
const ALL_COMMANDS: &[&str] = &[""];

/// The options that Hull does not have, by command; `""` is hull itself. Those of `hull run` have a table of their own.
const ABSENT_FLAGS: &[AbsentFlag] = &[
    absent(
        ALL_COMMANDS,
        &["-n", "--namespace"],
        "a namespace is an option of the commands that list pods and containers, and images have none",
        "use `hull ps -n NAMESPACE`, `hull pods -n NAMESPACE`, or the name NAMESPACE/POD/CONTAINER",
    ),
    absent(
        ALL_COMMANDS,
        &["-a", "--address", "-r", "--runtime-endpoint", "-i", "--image-endpoint", "--url"],
        "the daemon has one socket for everything",
        "use --socket PATH, or the variable HULL_SOCKET",
    ),
    absent(
        ALL_COMMANDS,
        &["-H", "--host", "-c", "--context", "--kubeconfig", "--connection"],
        "hull manages the node that it runs on",
        "use `ssh NODE hull …`, or --socket PATH for another daemon of this node",
    ),
    absent(
        ALL_COMMANDS,
        &["-D", "--debug", "-l", "--log-level"],
        "the daemon logs, and its clients do not",
        "use `hull serve --log-level debug`, and `journalctl -u hull`",
    ),
    absent(
        ALL_COMMANDS,
        &["-v"],
        "one letter for the version is -V",
        "use `hull version` for that of the daemon, too",
    ),
    absent(
        NAMED,
        &["-l", "--latest"],
        "the newest container is not an option of commands that take names",
        "use `$(hull ps -lq)`, as in `hull logs $(hull ps -lq)`",
    ),
    absent(
        &["stop", "restart", "kill", "pause", "unpause"],
        &["-a", "--all"],
        "containers are named, so that none of a kubelet is among them by mistake",
        "use `$(hull ps -q -n hull)`, as in `hull stop $(hull ps -q -n hull)`",
    ),
    absent(
        &[
            "cp", "stats", "inspect", "pause", "unpause", "kill", "wait", "start", "stop",
            "restart", "rm", "port",
        ],
        &["-c", "--container"],
        "a container of a pod is part of its name here",
        "use POD/CONTAINER, or NAMESPACE/POD/CONTAINER",
    ),
    absent(
        &["start"],
        &["-a", "--attach", "-i", "--interactive"],
        "a start returns at once",
        "use `hull start NAME && hull attach NAME`",
    ),
    absent(
        &["kill"],
        &["-1", "-2", "-3", "-9", "-15", "-H", "-I", "-K", "-T", "-U", "-Q"],
        "a signal is the value of -s",
        "use `hull kill -s 9 NAME` or `hull kill -s HUP NAME`",
    ),
    absent(
        &["stop", "restart"],
        &["-s", "--signal"],
        "the stop signal is part of the configuration of a container",
        "use `hull kill -s SIGNAL NAME`, or --stop-signal of `hull run`",
    ),
    absent(
        &["stop", "rm", "rmi", "wait", "rmp"],
        &["-i", "--ignore", "--ignore-not-found", "--cidfile", "--depend"],
        "a name that is not there is an error, as it is probably misspelt",
        "use `hull ps -aq --filter name=NAME` to find out first",
    ),
    absent(
        &["cp"],
        &["-r", "-R", "--recursive", "-q", "--quiet", "--overwrite"],
        "directories are copied whole, over what is there, and nothing is printed",
        "omit it",
    ),
    absent(
        &["wait"],
        &["--condition", "--for", "--interval"],
        "hull waits for the exit alone",
        "use `hull events`, or `hull ps --filter state=running`",
    ),
    absent(
        &["attach", "exec", "run"],
        &["--sig-proxy"],
        "signals to hull are for hull, and the keys of a terminal for the container",
        "use `hull kill -s SIGNAL NAME`",
    ),
    absent(
        &["exec"],
        &["-s", "--sync", "--preserve-fds", "--cidfile"],
        "an exec is awaited, and has the three standard streams",
        "omit it; --timeout SECONDS limits its time",
    ),
    absent(
        &["exec"],
        &["-u", "--user", "--privileged"],
        "an exec has the user and the rights of its container in CRI",
        "use `su USER -c COMMAND` or `setpriv` in the container, or `nsenter` as root on the node",
    ),
    absent(
        &["exec"],
        &["-e", "--env", "--env-file", "-w", "--workdir"],
        "an exec has the environment and the directory of its container in CRI",
        "use `hull exec CONTAINER sh -c 'cd DIR && KEY=VALUE exec COMMAND'`",
    ),
    absent(
        &["exec"],
        &["-d", "--detach"],
        "an exec ends with its client in CRI",
        "start it in the background of the container: `sh -c 'COMMAND >/dev/null 2>&1 &'`",
    ),
    absent(
        &["create", "play"],
        &["-f", "--filename"],
        "a manifest is an argument of `hull play kube`",
        "use `hull play kube FILE`, and `hull play kube --down FILE` to remove its pods",
    ),
    absent(
        &["play"],
        &["--configmap", "--network", "--publish", "--build", "--start", "--log-driver", "--force"],
        "a manifest says everything of its pods",
        "write it there: ConfigMaps as documents, ports as hostPort; --replace removes the pods first",
    ),
    absent(
        REGISTRY,
        &[
            "--tls-verify",
            "--insecure-registry",
            "--authfile",
            "--cert-dir",
            "--disable-content-trust",
            "--verify",
            "--decryption-key",
            "--signature-policy",
        ],
        "how a registry is reached is a matter of the node",
        "use `hull login`, and `image` in the configuration (`hull config default`)",
    ),
    absent(
        &["run", "create", "pull"],
        &["--arch", "--os", "--variant", "--all-platforms", "--unpack", "--snapshotter"],
        "a node has images of its own platform, unpacked",
        "omit it",
    ),
    absent(
        &["update"],
        &["--restart"],
        "the policy is part of the configuration of a container",
        "run it again with `hull run --replace --name NAME --restart POLICY …`",
    ),
    absent(
        &["rmi"],
        &["--no-prune"],
        "layers that no image has any more are always removed",
        "omit it",
    ),
    absent(
        &["rmi"],
        &["-f", "--force"],
        "an image that a container uses stays, as the container needs its files",
        "remove the container first with `hull rm -f`, or one name of the image with `hull rmi NAME:TAG`",
    ),
    absent(
        &["ps", "pods"],
        &["--name", "--state", "--label", "--image", "-s", "--size"],
        "lists are filtered by one option",
        "use --filter, as in --filter name=web, state=running, image=app:1 or label=KEY=VALUE; `hull stats -o wide` has sizes",
    ),
    absent(
        &["ps", "pods", "images"],
        &["-r", "--resolve-image-path", "--sort", "--sort-by", "--sync", "--tree", "--history"],
        "lists have one order: the newest first, images by name",
        "use -o json with `jq`, or `sort`",
    ),
    absent(
        &["ps", "pods"],
        &["-w", "--watch"],
        "a list is printed once",
        "use `hull events`, or `watch hull ps`",
    ),
    absent(
        &["ps", "pods"],
        &["-v", "--verbose", "--show-labels", "--id"],
        "tables have no labels",
        "use -o wide, -o json, or --filter id=ID",
    ),
    absent(
        &["pods"],
        &["-l", "--selector", "--latest", "--last"],
        "pods are selected by filters",
        "use --filter label=KEY=VALUE; the newest pod is the first line",
    ),
    absent(
        &["pods"],
        &["create", "exists", "clone"],
        "a pod is made with its containers",
        "use `hull run`, `hull play kube FILE`, or `hull runp FILE`",
    ),
    absent(
        &["stats", "statsp"],
        &[
            "-a",
            "--all",
            "-i",
            "--interval",
            "-s",
            "--seconds",
            "--id",
            "--pod",
            "--containers",
            "--no-reset",
        ],
        "pods and containers that run are shown once, those with names if any are given",
        "use --watch=SECONDS to repeat it, --over-ms for the time that is measured, or NAMEs",
    ),
    absent(
        &["inspect"],
        &["--type", "-s", "--size"],
        "a name is looked up among containers, pods and images, in this order",
        "use `hull inspectp` for a pod and `hull inspecti` for an image",
    ),
    absent(
        &["images"],
        &["--digests", "-v", "--verbose"],
        "the digest is a column of the wide table",
        "use -o wide",
    ),
    absent(
        &["pull"],
        &["--platform", "-a", "--all-tags"],
        "a node pulls the image of its own platform, one name at a time",
        "name the tag or the digest of the image",
    ),
    absent(
        &["inspectp", "inspecti"],
        &["-q", "--quiet", "--id", "--name"],
        "objects are arguments",
        "use `hull inspectp NAME`, and -o name for the names alone",
    ),
    absent(&["import", "export"], &["-q", "--quiet"], "no progress is printed", "omit it"),
    absent(
        &["import"],
        &["--platform", "--all-platforms", "-c", "--change", "-m", "--message"],
        "an archive has finished images, and all of this platform are imported",
        "omit it; `buildctl` or `podman build` make an image of a root filesystem",
    ),
    absent(
        &["export"],
        &["--platform", "--all-platforms", "--compress", "--multi-image-archive"],
        "an archive is an OCI image layout of this platform, which `docker load` reads, too",
        "omit it",
    ),
    absent(
        &["logout"],
        &["-a", "--all"],
        "credentials are removed registry by registry",
        "use `hull logout REGISTRY`",
    ),
    absent(
        &["rmp"],
        &["--grace-period", "--now"],
        "a pod that is removed is stopped at once",
        "use `hull stop -t SECONDS POD` first, or `hull rmp -f POD`",
    ),
    absent(
        &["df"],
        &["-v", "--verbose"],
        "the table has sums",
        "use `hull images` and `hull stats` for the objects one by one",
    ),
    absent(
        &["prune"],
        &["--volumes", "--filter", "--build", "--external"],
        "named volumes are kept, and unused objects are chosen by kind",
        "use --images or --all; volumes are directories in `<data_dir>/volumes`",
    ),
    absent(
        &["history"],
        &["-H", "--human"],
        "tables have sizes and times for people",
        "omit it; -o json is for programs",
    ),
    absent(
        &["version", "info"],
        &["--client", "--short"],
        "both sides are shown",
        "use `hull --version` for this binary alone",
    ),
    absent(
        &["logs"],
        &["--details", "--names", "--color"],
        "the log of a container has lines without attributes",
        "use --timestamps for the time of each line; several containers have their names before lines",
    ),
    absent(
        &["logs"],
        &[
            "--since-time",
            "--limit-bytes",
            "--prefix",
            "--selector",
            "--max-log-requests",
            "-r",
            "--reopen",
        ],
        "lines are selected by time and number",
        "use --since TIME, --tail LINES, or `| head -c BYTES`",
    ),
];

/// The entry of an option that a command does not have.
pub(crate) fn of(verb: &str, flag: &str) -> Option<&'static AbsentFlag> {
    let name = flag.split('=').next().unwrap_or(flag);
    all().find(|of| of.verbs.contains(&verb) && of.flags.contains(&name))
}

/// All entries, those of `hull run` first.
pub(crate) fn all() -> impl Iterator<Item = &'static AbsentFlag> {
    ABSENT_RUN_FLAGS.iter().chain(ABSENT_FLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_option_has_a_reason() {
        assert!(of("exec", "-u").is_some_and(|of| of.instead.contains("su USER")));
        assert!(of("run", "--log-driver=none").is_some());
        assert!(of("run", "--oom-score-adj").is_some_and(|of| of.instead.contains("runp")));
        assert!(of("", "-n").is_some_and(|of| of.instead.contains("hull ps -n")));
        assert!(of("kill", "-9").is_some_and(|of| of.instead.contains("-s 9")));
        assert!(of("ps", "-u").is_none() && of("run", "--unknown").is_none());
    }
}
