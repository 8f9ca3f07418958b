// SPDX-License-Identifier: Apache-2.0
//! Checks of the host: privileges, disk space, filesystems that overlay can write to, a free socket, the
//! cgroup driver.

use super::finding::Finding;
use crate::config::{Config, Size};
use crate::container::checkpoint::{self, Program};
use crate::error::Chain;
use crate::oci_spec::{classes, hooks_dir};
use crate::pod::driver::Driver;
use crate::pod::host_dns::PodDns;
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long CRIU may take to try the kernel.
const CRIU_MAX: Duration = Duration::from_secs(10);
/// With fewer free bytes, pulls are likely to fail.
const FREE_BYTES: u64 = 2 << 30;
/// Filesystems that cannot hold the writable layer of an overlay (statfs(2)).
const NO_UPPER: [(u64, &str); 3] =
    [(0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0x6573_5546, "FUSE")];
/// The capabilities(7) that the daemon and its pods use: number, name, whether pods run without.
const CAPABILITIES: [(u32, &str, bool); 16] = [
    (0, "CHOWN", false),
    (1, "DAC_OVERRIDE", false),
    (3, "FOWNER", false),
    (4, "FSETID", false),
    (5, "KILL", false),
    (6, "SETGID", false),
    (7, "SETUID", false),
    (8, "SETPCAP", false),
    (12, "NET_ADMIN", false),
    (18, "SYS_CHROOT", false),
    (19, "SYS_PTRACE", true),
    (21, "SYS_ADMIN", false),
    (23, "SYS_NICE", true),
    (24, "SYS_RESOURCE", true),
    (27, "MKNOD", false),
    (31, "SETFCAP", false),
];

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![root()];
    findings.extend(capabilities());
    findings.extend([
        upper(&config.data_dir),
        quotas(&config.data_dir, config.runtime.writable_layer_size),
        disk_space(&config.data_dir),
        socket(&config.socket),
        driver(config),
        dns(&PodDns::read()),
    ]);
    findings.extend(hooks(&config.runtime.hooks_dir));
    findings.extend(config.runtime.blockio_config_file.as_deref().map(block_io));
    findings.push(criu(config.runtime.criu.as_deref()));
    findings
}

fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::good("root", "yes");
    }
    Finding::missing("root", "no", "run it as root: sudo hull check")
}

/// Whether the hook files can be used, where there may be some: one that cannot refuses every container.
fn hooks(dirs: &[PathBuf]) -> Option<Finding> {
    const SUBJECT: &str = "hook files";
    if dirs.is_empty() {
        return None;
    }
    Some(match hooks_dir::files(dirs) {
        Ok(files) => Finding::good(SUBJECT, format!("{}, all valid", files.len())),
        Err(err) => Finding::missing(SUBJECT, format!("cannot {err}"), err.hint()),
    })
}

/// Whether the file of classes of block I/O can be used.
fn block_io(file: &Path) -> Finding {
    const SUBJECT: &str = "block I/O classes";
    match classes::check_file(file) {
        Ok(names) => Finding::good(SUBJECT, format!("{}, all valid", names.len())),
        Err(err) => {
            Finding::warning(SUBJECT, format!("cannot {err}"), err.hint().unwrap_or_default())
        }
    }
}

/// Whether containers can be checkpointed, which no pod needs.
fn criu(path: Option<&Path>) -> Finding {
    const SUBJECT: &str = "CRIU";
    let checked = Program::find(path).and_then(|program| {
        let scratch = std::env::temp_dir().join(format!("hull-check-{}", std::process::id()));
        let version = program.check(&scratch, CRIU_MAX)?;
        Ok(format!("{version}, {}", program.path.display()))
    });
    match checked {
        Ok(found) => Finding::good(SUBJECT, found),
        Err(checkpoint::Error::NoProgram) => {
            Finding::good(SUBJECT, "not installed; containers cannot be checkpointed")
        }
        Err(err) => Finding::warning(
            SUBJECT,
            format!("{}; containers cannot be checkpointed", Chain(&err)),
            err.hint().unwrap_or_default(),
        ),
    }
}

fn capabilities() -> Option<Finding> {
    const SUBJECT: &str = "capabilities";
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = held(&status)?;
    let lacks = |optional: bool| -> Vec<&str> {
        let all = CAPABILITIES
            .iter()
            .filter(|(number, _, is)| *is == optional && held >> number & 1 == 0);
        all.map(|(_, name, _)| *name).collect()
    };
    let (required, optional) = (lacks(false), lacks(true));
    if !required.is_empty() {
        let hint = "start Hull outside of containers, or with all capabilities";
        return Some(Finding::missing(SUBJECT, format!("without {}", required.join(", ")), hint));
    }
    if !optional.is_empty() {
        let hint = "pods run without: OOM scores are not lowered, hard limits not raised, schedulers of other processes not set";
        return Some(Finding::warning(SUBJECT, format!("without {}", optional.join(", ")), hint));
    }
    Some(Finding::good(SUBJECT, "all that pods need"))
}

/// The effective capabilities in a `/proc/<pid>/status`.
fn held(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The directory itself, or its nearest ancestor that exists.
fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|above| fs::metadata(above).is_ok());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// Whether names can be resolved in pods without a DNS config, such as those of `hull run`.
fn dns(of_pods: &PodDns) -> Finding {
    const SUBJECT: &str = "DNS of pods";
    match of_pods {
        PodDns::Own(text) if !text.contains("nameserver") => Finding::warning(
            SUBJECT,
            "/etc/resolv.conf of the host names no server",
            "name one there; pods of a kubelet get the servers of the cluster",
        ),
        PodDns::Own(_) => Finding::good(SUBJECT, "the servers of the host's /etc/resolv.conf"),
        PodDns::WithoutLoopback(_) => Finding::good(
            SUBJECT,
            "the servers of the host's /etc/resolv.conf that are not on loopback",
        ),
        PodDns::Upstream(_) => Finding::good(
            SUBJECT,
            "the upstream servers of systemd-resolved: its own at 127.0.0.53 answers only the host",
        ),
        PodDns::Unreachable(_) => Finding::warning(
            SUBJECT,
            "all servers of the host's /etc/resolv.conf are on loopback, where pods do not reach them",
            "name other servers there, or start systemd-resolved; pods of a kubelet get the servers of the cluster",
        ),
    }
}

fn upper(data_dir: &Path) -> Finding {
    const SUBJECT: &str = "data_dir";
    let at = existing(data_dir);
    let shown = data_dir.display();
    let hint = "put data_dir on ext4, xfs or btrfs (`data_dir` in the configuration)";
    let (kind, flags) = match (statfs(&at), statvfs(&at)) {
        (Ok(of), Ok(flags)) => (u64::try_from(of.f_type).unwrap_or(0), flags.f_flag),
        (Err(errno), _) | (_, Err(errno)) => {
            return Finding::missing(
                SUBJECT,
                format!("statfs({}): {}", at.display(), hull_sys::name_of(errno)),
                hint,
            );
        }
    };
    if let Some((_, name)) = NO_UPPER.iter().find(|(magic, _)| *magic == kind) {
        return Finding::missing(
            SUBJECT,
            format!("{shown} is on {name}, which cannot hold the upper layer of an overlay"),
            hint,
        );
    }
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Finding::missing(SUBJECT, format!("{shown} is on a read-only filesystem"), hint);
    }
    Finding::good(SUBJECT, format!("{shown} can hold writable layers"))
}

/// Whether writable layers can have a limit. Without one in the configuration it is nothing that is missing: only pods
/// that ask for it are refused.
fn quotas(data_dir: &Path, wanted: Option<Size>) -> Finding {
    const SUBJECT: &str = "project quotas";
    let hint = "mount xfs with `prjquota`; give ext4 the features `project` and `quota` (`tune2fs -O project,quota -Q prjquota`), and mount it with `prjquota`";
    match (hull_image::check_quotas(&existing(data_dir)), wanted) {
        (Ok(()), _) => Finding::good(SUBJECT, "writable layers can have a limit"),
        (Err(why), None) => {
            Finding::good(SUBJECT, format!("writable layers cannot have a limit: {why}"))
        }
        (Err(why), Some(size)) => {
            let found =
                format!("`runtime.writable_layer_size` is {size}, and has no effect: {why}");
            Finding::warning(SUBJECT, found, hint)
        }
    }
}

fn disk_space(data_dir: &Path) -> Finding {
    const SUBJECT: &str = "disk space";
    let at = existing(data_dir);
    let Ok(of) = statvfs(&at) else {
        return Finding::warning(
            SUBJECT,
            format!("cannot read the disk usage of {}", at.display()),
            "see the output of `df`",
        );
    };
    let free = of.f_bavail.saturating_mul(of.f_frsize);
    let found = format!("{} MiB free for {}", free >> 20, data_dir.display());
    // Filesystems without a table of inodes, such as btrfs, report 0 of 0.
    if of.f_files > 0 && of.f_favail < 10_000 {
        return Finding::warning(
            SUBJECT,
            format!("{found}, but only {} inodes", of.f_favail),
            "free some inodes: images consist of many small files",
        );
    }
    if free < FREE_BYTES {
        return Finding::warning(
            SUBJECT,
            found,
            "free disk space, or move data_dir: images need several GiB",
        );
    }
    Finding::good(SUBJECT, found)
}

fn socket(path: &Path) -> Finding {
    const SUBJECT: &str = "socket";
    match UnixStream::connect(path) {
        Ok(_) => Finding::good(SUBJECT, format!("a daemon serves {}", path.display())),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            Finding::good(SUBJECT, format!("{} is free", path.display()))
        }
        Err(err) if err.kind() == std::io::ErrorKind::ConnectionRefused => Finding::good(
            SUBJECT,
            format!(
                "{} was left by a daemon that has ended; the next daemon replaces it",
                path.display()
            ),
        ),
        Err(err) if err.kind() == std::io::ErrorKind::PermissionDenied => Finding::warning(
            SUBJECT,
            format!("only root may use {}", path.display()),
            "run it as root: sudo hull check",
        ),
        Err(err) => Finding::missing(
            SUBJECT,
            format!("connect({}): {err}", path.display()),
            "choose another path with `socket` in the configuration",
        ),
    }
}

fn driver(config: &Config) -> Finding {
    const SUBJECT: &str = "cgroup driver";
    let chosen = hull_cgroup::CgroupFs::detect().map(|host| Driver::choose(&config.cgroup, &host));
    match chosen {
        Ok(Ok(driver)) if driver.is_systemd() => {
            Finding::good(SUBJECT, "systemd: one scope per pod")
        }
        Ok(Ok(_)) => Finding::good(SUBJECT, "cgroupfs: Hull creates the cgroups itself"),
        Ok(Err(err)) => Finding::missing(SUBJECT, err.to_string(), err.hint().unwrap_or_default()),
        Err(err) => Finding::missing(SUBJECT, err.to_string(), err.hint().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_classes_that_refuses_containers_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blockio.yaml");
        assert_eq!(block_io(&path).parts().1, "warning", "it is not there");
        fs::write(&path, "Classes: {slow: [{Weight: 20}], fast: []}").unwrap();
        assert_eq!(block_io(&path).parts().2, "2, all valid");
        fs::write(&path, "Classes: {slow: [{Weight: 2000}]}").unwrap();
        let finding = block_io(&path);
        let (_, verdict, found, hint) = finding.parts();
        assert_eq!(verdict, "warning");
        assert!(found.contains("Weight 2000") && hint.contains("hull check"), "{found} {hint}");
    }

    #[test]
    fn servers_that_no_pod_reaches_are_a_warning() {
        let warns =
            |of_pods| matches!(dns(&of_pods).verdict, super::super::finding::Verdict::Warning(_));
        assert!(warns(PodDns::Unreachable("nameserver 127.0.0.53\n".into())));
        assert!(warns(PodDns::Own(String::new())));
        assert!(!warns(PodDns::Upstream("nameserver 192.0.2.1\n".into())));
        assert!(!warns(PodDns::Own("nameserver 192.0.2.1\n".into())));
    }

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(held("Name:\tx\nCapInh:\t0\nCapEff:\t00000000000000c1\n"), Some(0xc1));
        assert_eq!(held("Name:\tx\n"), None);
    }

    #[test]
    fn a_missing_directory_is_represented_by_its_nearest_ancestor() {
        assert_eq!(existing(Path::new("/proc/self/no/such/thing")), Path::new("/proc/self"));
    }

    #[test]
    fn a_socket_is_free_served_or_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let socket_path = dir.path().join("s");
        assert!(socket(&socket_path).found.contains("is free"));
        let listener = std::os::unix::net::UnixListener::bind(&socket_path).unwrap();
        assert!(socket(&socket_path).found.contains("serves"));
        drop(listener);
        assert!(socket(&socket_path).found.contains("has ended"));
    }
}
