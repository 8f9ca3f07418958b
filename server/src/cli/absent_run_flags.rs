// SPDX-License-Identifier: Apache-2.0
//! Options of `docker run` and its like that `hull run` does not have, and the form of all such entries; see
//! `absent_flags.rs` for the others.

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

pub(super) const fn absent(
    verbs: &'static [&'static str],
    flags: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> AbsentFlag {
    AbsentFlag { verbs, flags, why, instead }
}

const RUN: &[&str] = &["run", "create"];
const LIMITED: &[&str] = &["run", "create", "update"];

/// The options that `hull run` and `hull create` do not have, and limits that `hull update` does not have either.
pub(super) const ABSENT_RUN_FLAGS: &[AbsentFlag] = &[
    absent(
        RUN,
        &[
            "--link",
            "--link-local-ip",
            "--net-alias",
            "--network-alias",
            "--ip",
            "--ip6",
            "--mac-address",
        ],
        "addresses and names of pods are given by the network of the node",
        "publish a port with -p, or set --add-host NAME:IP",
    ),
    absent(
        RUN,
        &["--log-driver", "--log-opt"],
        "logs are files that `hull logs` reads",
        "set --log-dir to choose the directory; limits, rotation and journald are in `[logs]` of the configuration, lower limits in annotations, as in --annotation hull.run/log-rate-limit=1m",
    ),
    absent(
        RUN,
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-timeout",
            "--health-start-period",
            "--health-start-interval",
            "--health-startup-cmd",
            "--health-on-failure",
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
        &["-a", "--attach"],
        "the streams of a container are attached together",
        "omit it; -i passes on stdin, and -d attaches nothing",
    ),
    absent(
        RUN,
        &["-q", "--quiet"],
        "the progress of a pull is shown on a terminal alone",
        "use `hull pull -q IMAGE` first",
    ),
    absent(
        RUN,
        &["--image", "--port", "--dry-run", "--restart-policy", "--overrides"],
        "the image is an argument, and a pod of kubectl has a manifest",
        "use `hull run --name NAME -p PORT IMAGE`, or `hull play kube FILE`",
    ),
    absent(RUN, &["--domainname"], "the name of a host is one text", "use --hostname NAME.DOMAIN"),
    absent(
        RUN,
        &["--label-file", "--env-host", "--env-merge", "--unsetenv", "--unsetenv-all"],
        "labels and variables are given one by one, or variables by --env-file",
        "use --label KEY=VALUE, and -e KEY to pass one of your own",
    ),
    absent(
        RUN,
        &["--secret", "--image-volume", "--rootfs"],
        "files come from images and from directories of the host",
        "use -v PATH:PATH:ro, or `hull import` for an image",
    ),
    absent(
        RUN,
        &[
            "--tz",
            "--umask",
            "--timeout",
            "--pidfile",
            "--conmon-pidfile",
            "--passwd",
            "--hostuser",
        ],
        "hull changes nothing in a container that its image can",
        "use -e TZ=ZONE, `sh -c 'umask 77; exec COMMAND'`, `timeout SECONDS COMMAND`; `hull inspect` has the pid",
    ),
    absent(
        RUN,
        &["--systemd", "--sdnotify", "--read-only-tmpfs", "--init-path"],
        "hull guesses nothing from the command",
        "for systemd use --tmpfs /run --tmpfs /tmp --stop-signal RTMIN+3; --init reaps orphans",
    ),
    absent(
        RUN,
        &["--uidmap", "--gidmap", "--subuidname", "--subgidname"],
        "a user namespace is one range of ids",
        "use --userns auto, or --userns ID, a multiple of 65536",
    ),
    absent(
        RUN,
        &["--no-hosts", "--no-hostname", "--no-resolv-conf"],
        "these files are part of every pod",
        "mount another file there with -v FILE:/etc/hosts:ro",
    ),
    absent(
        LIMITED,
        &[
            "--cgroupns",
            "--memory-reservation",
            "--memory-swappiness",
            "--kernel-memory",
            "--oom-kill-disable",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "--device-cgroup-rule",
        ],
        "the limits of a container are those of CRI",
        "use --memory, --cpus, --cpu-shares, --pids-limit and --ulimit",
    ),
    absent(
        LIMITED,
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-write-bps",
            "--device-read-iops",
            "--device-write-iops",
            "--rdt-class",
        ],
        "limits of disks and caches are in classes of the node",
        "name a class of `runtime.blockio_config_file` by --annotation io.kubernetes.cri.blockio-class=CLASS, a group of \
         resctrl by --annotation io.kubernetes.cri.rdt-class=CLASS",
    ),
    absent(
        RUN,
        &["--cgroup-parent", "--oom-score-adj"],
        "only the messages of CRI have it",
        "set it in the files of `hull runp` and `hull create-container`, as `cgroup_parent` and `oom_score_adj`",
    ),
    absent(
        RUN,
        &["--pod", "--uts", "--cgroup-conf"],
        "`hull run` makes a pod for each container",
        "describe a pod with several containers for `hull play kube FILE`",
    ),
    absent(
        RUN,
        &["--preserve-fds", "--preserve-fd"],
        "a container has the three standard streams",
        "use -v PATH:PATH for a file or a socket",
    ),
];
