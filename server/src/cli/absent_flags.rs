// SPDX-License-Identifier: Apache-2.0
//! Options of other tools that a command of Hull does not have: the reason, and what to do instead. Without a table, the
//! error would only say that the option is unexpected.

/// Options that one or several commands do not have.
#[derive(Debug)]
pub(crate) struct AbsentFlag {
    pub(crate) verbs: &'static [&'static str],
    pub(crate) flags: &'static [&'static str],
    /// The reason, a sentence.
    pub(crate) why: &'static str,
    /// The way to do it in Hull, a sentence.
    pub(crate) instead: &'static str,
}

const fn absent(
    verbs: &'static [&'static str],
    flags: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> AbsentFlag {
    AbsentFlag { verbs, flags, why, instead }
}

const RUN: &[&str] = &["run", "create"];

/// The options that Hull does not have, by command.
pub(crate) const ABSENT_FLAGS: &[AbsentFlag] = &[
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
        RUN,
        &["--link", "--net-alias", "--network-alias", "--ip", "--ip6", "--mac-address"],
        "addresses and names of pods are given by the network of the node",
        "publish a port with -p, or set --add-host NAME:IP",
    ),
    absent(
        RUN,
        &["--log-driver", "--log-opt"],
        "logs are files that `hull logs` reads",
        "set --log-dir to choose the directory, and collect the files from there",
    ),
    absent(
        RUN,
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-timeout",
            "--no-healthcheck",
        ],
        "probes are the work of a kubelet",
        "use `hull exec` from a timer, or a static pod with a livenessProbe",
    ),
    absent(
        RUN,
        &["--volumes-from", "--volume-driver"],
        "volumes are directories of the host",
        "name the same directory or volume with -v for both",
    ),
    absent(
        RUN,
        &["--expose"],
        "every port of a pod can be reached from its network",
        "publish it on the host with -p PORT",
    ),
    absent(
        RUN,
        &[
            "--cgroupns",
            "--memory-reservation",
            "--oom-kill-disable",
            "--blkio-weight",
            "--device-read-bps",
            "--device-write-bps",
            "--storage-opt",
        ],
        "the limits of a container are those of CRI",
        "use --memory, --cpus, --cpu-shares, --pids-limit and --ulimit",
    ),
    absent(
        RUN,
        &["--cgroup-parent", "--oom-score-adj"],
        "`hull run` has no option for this",
        "set it in the files of `hull runp` and `hull create-container`, as `cgroup_parent` and `oom_score_adj`",
    ),
    absent(
        RUN,
        &["--pod", "--uts", "--cgroup-conf"],
        "`hull run` makes a pod for each container",
        "describe a pod with several containers for `hull play kube FILE`",
    ),
    absent(
        &["update"],
        &["--restart"],
        "the policy is part of the configuration of a container",
        "run it again with `hull run --replace --name NAME --restart POLICY …`",
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
        &["logs"],
        &["--details"],
        "the log of a container has lines without attributes",
        "use --timestamps for the time of each line",
    ),
];

/// The entry of an option that a command does not have.
pub(crate) fn of(verb: &str, flag: &str) -> Option<&'static AbsentFlag> {
    let name = flag.split('=').next().unwrap_or(flag);
    ABSENT_FLAGS.iter().find(|of| of.verbs.contains(&verb) && of.flags.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_option_has_a_reason() {
        assert!(of("exec", "-u").is_some_and(|of| of.instead.contains("su USER")));
        assert!(of("run", "--log-driver=none").is_some());
        assert!(of("run", "--oom-score-adj").is_some_and(|of| of.instead.contains("runp")));
        assert!(of("ps", "-u").is_none() && of("run", "--unknown").is_none());
    }
}
