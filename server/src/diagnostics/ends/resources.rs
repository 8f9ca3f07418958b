// SPDX-License-Identifier: Apache-2.0
//! Errors that the kernel gives for several resources (pure): ENOSPC is also a limit of watches, ENOMEM one of locked
//! memory. The words of the line say which resource it was.

use super::clues::Clue;
use super::inference::{Inference, likely};
use super::memory::size;
use super::phrases::Phrase;
use crate::container::state::FullLayer;
use hull_plan::{Certainty, Diagnosis, Layer};

/// A resource: the phrases that its limit gives, words of lines about it, kind, layer, cause, and fix.
type Resource =
    (&'static [Phrase], &'static [&'static str], &'static str, Layer, &'static str, &'static str);

const RESOURCES: [Resource; 9] = [
    (
        &[Phrase::NoSpace, Phrase::TooManyFiles],
        &[
            "inotify",
            "inotify_add_watch",
            "inotify_init",
            "inotify_init1",
            "inotify_add_watch()",
            "fsnotify",
            "watcher",
            "watchers",
            "watches",
            "watch",
        ],
        "inotify-limit",
        Layer::Process,
        "all containers of the node's user share `fs.inotify.max_user_watches` and `max_user_instances`; no disk is \
         full",
        "raise both with sysctl on the node",
    ),
    (
        &[Phrase::NoSpace],
        &["semget", "semaphore", "semaphores", "shmget", "msgget", "mq_open", "sem_init"],
        "ipc-limit",
        Layer::Namespace,
        "a limit of the pod's System V IPC or message queues is reached; no disk is full",
        "raise `kernel.sem`, `kernel.shmmni`, `kernel.msgmni` or `fs.mqueue.*` with `securityContext.sysctls` of the pod, \
         or remove objects that leak (ipcs, ipcrm)",
    ),
    (
        &[Phrase::NoSpace],
        &["epoll_ctl", "epoll"],
        "epoll-limit",
        Layer::Process,
        "`fs.epoll.max_user_watches` of the node is reached; no disk is full",
        "raise it with sysctl on the node, or close connections that leak",
    ),
    (
        &[Phrase::NoSpace],
        &["unshare", "clone3", "bwrap", "newuidmap"],
        "namespace-limit",
        Layer::Namespace,
        "a limit of namespaces (`user.max_user_namespaces` and others) is reached; no disk is full",
        "raise `user.max_user_namespaces` with sysctl on the node",
    ),
    (
        &[Phrase::QuotaExceeded],
        &["keyctl", "add_key", "request_key", "keyring"],
        "key-limit",
        Layer::Process,
        "the user's quota of kernel keys is used up (`kernel.keys.maxkeys`, `maxbytes`); no disk is full",
        "raise both with sysctl on the node, or let programs revoke keys that they no longer need",
    ),
    (
        &[Phrase::OutOfMemory],
        &["mlock", "mlockall", "mlock2", "memlock"],
        "locked-memory",
        Layer::Process,
        "its limit of locked memory (RLIMIT_MEMLOCK) is reached",
        "raise `memlock` in `ulimit -l` or `runtime.default_ulimits`, or add IPC_LOCK to `capabilities.add`",
    ),
    (
        &[Phrase::OutOfMemory],
        &["shmget"],
        "ipc-limit",
        Layer::Namespace,
        "the pod's limit of shared memory (`kernel.shmall`) is reached",
        "raise `kernel.shmall` with `securityContext.sysctls` of the pod",
    ),
    (
        &[Phrase::NoDevice],
        &["/dev/tty", "tty", "tcsetattr", "tcgetattr"],
        "no-terminal",
        Layer::Process,
        "it has no terminal",
        "set `tty: true` and `stdin: true`, or have the program do without one",
    ),
    (
        &[Phrase::NoDevice],
        &[
            "siocgifindex",
            "siocgifaddr",
            "siocgifflags",
            "siocgifhwaddr",
            "siocsifaddr",
            "so_bindtodevice",
            "rtnetlink",
            "netlink",
            "interface",
            "ifconfig",
            "ip",
            "tcpdump",
        ],
        "interface-missing",
        Layer::Namespace,
        "the pod does not have the network interface that it uses",
        "check the name of the pod's interface (`ip link` in the pod), or use `hostNetwork` for one of the node",
    ),
];

/// The resource that a line is about, if it is another one than its error is mostly about.
pub(super) fn other(clue: &Clue) -> Option<Inference> {
    let line = clue.line();
    if clue.phrase == Phrase::NoSpace
        && clue.paths().any(|path| path.starts_with("/sys/fs/cgroup/"))
    {
        return Some(likely(
            "cgroup-limit",
            Layer::Cgroup,
            "its cgroup allows no further cgroups, or its cpuset has no processor; no disk is full",
            "raise `cgroup.max.descendants` and `cgroup.max.depth`, or set `cpuset.cpus` before processes move there",
        ));
    }
    if clue.phrase == Phrase::TooManyFiles
        && (line.contains("open files in system") || line.contains("enfile"))
    {
        return Some(likely(
            "open-files-node",
            Layer::Process,
            "the node's limit of open files, of all its processes together, is reached (`fs.file-max`)",
            "raise `fs.file-max` with sysctl on the node, and find which process leaks files",
        ));
    }
    let is_mount = clue.is_about("mount") || clue.is_about("mount.nfs");
    if is_mount && clue.phrase == Phrase::NoDevice {
        return Some(likely(
            "filesystem-unknown",
            Layer::Filesystem,
            "the node's kernel has no file system of this type, or its module is not loaded",
            "load the module on the node (modprobe)",
        ));
    }
    if is_mount && clue.phrase == Phrase::NoSpace {
        return Some(likely(
            "mount-limit",
            Layer::Namespace,
            "the limit of mounts of a mount namespace (`fs.mount-max`) is reached; no disk is full",
            "raise `fs.mount-max` with sysctl on the node, or find what mounts so much",
        ));
    }
    let has = |word: &str| {
        let is_break = |c: char| c.is_whitespace() || "()[]{}:,;'\"`=".contains(c);
        let mut tokens = line.split(is_break).filter(|token| !token.is_empty()).enumerate();
        // At the start it is the name of the program.
        let is_name_too = matches!(word, "watch" | "watcher" | "watchers");
        tokens.any(|(index, token)| token == word && !(is_name_too && index == 0))
    };
    let found = RESOURCES.iter().find(|(phrases, words, ..)| {
        phrases.contains(&clue.phrase) && words.iter().any(|word| has(word))
    });
    found.map(|(.., kind, layer, cause, fix)| likely(kind, *layer, *cause, *fix))
}

/// The causes of the table.
#[cfg(test)]
pub(super) fn causes() -> impl Iterator<Item = &'static str> {
    RESOURCES.iter().map(|(.., cause, _)| *cause)
}

/// An end with a writable layer that had reached its limit.
pub(crate) fn full_layer(what: String, full: FullLayer) -> Diagnosis {
    let FullLayer { used_bytes, limit_bytes } = full;
    Diagnosis {
        kind: "writable-layer-full".into(),
        layer: Layer::Filesystem,
        what: format!(
            "{what}; its writable layer is full: it uses {} of its limit of {}",
            size(used_bytes),
            size(limit_bytes)
        ),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(
            "write to a volume, or raise the annotation `hull.run/writable-layer-size`, or \
             `runtime.writable_layer_size` of the node if that is the limit"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_layer_is_named_with_its_use_its_limit_and_what_to_raise() {
        let full = FullLayer { used_bytes: 5 << 20, limit_bytes: 5 << 20 };
        let of = full_layer("exited with code 1".into(), full);
        assert!(of.what.ends_with("is full: it uses 5 MiB of its limit of 5 MiB"), "{}", of.what);
        assert!(of.fix.unwrap().contains("runtime.writable_layer_size"));
    }
}
