// SPDX-License-Identifier: Apache-2.0
//! Explains failed mounts: which side is the file, in which earlier mount the target lies, which of them is read-only.

use crate::defaults;
use crate::failure::{
    EACCES, EINVAL, ELOOP, ENODEV, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS, EXDEV, Failure, Layer,
    failure, reason,
};
use hull_init::StepError;
use hull_init::plan::{Op, Source};
use hull_sys::Attr;

/// A mount of the same container that contains a path.
struct Enclosing<'a> {
    op: &'a Op,
    /// Where it is mounted.
    at: &'a str,
}

impl<'a> Enclosing<'a> {
    /// The innermost of the `earlier` mounts that contains `path`; of several at one path the last, which is on top.
    fn of(earlier: &'a [Op], path: &str) -> Option<Self> {
        let mounts = earlier.iter().filter_map(|op| target(op).map(|at| Self { op, at }));
        mounts.filter(|of| is_below(path, of.at)).max_by_key(|of| of.at.len())
    }

    fn is_read_only(&self) -> bool {
        if let Op::Bind { source: Source::Image { .. }, .. }
        | Op::BindWith { source: Source::Image { .. }, .. } = self.op
        {
            return true;
        }
        if let Op::BindWith { attributes, .. } = self.op {
            return (attributes.set | attributes.set_all) & Attr::RDONLY != 0;
        }
        if let Op::Bind { attrs, recursive_attrs, .. } = self.op {
            return attrs.rdonly || recursive_attrs.rdonly;
        }
        if let Op::Mount { attrs, .. } | Op::MountWith { attrs, .. } | Op::Cgroups { attrs, .. } =
            self.op
        {
            return attrs.rdonly;
        }
        false
    }

    /// As in "the read-only volume `/srv/a` at `/data`".
    fn name(&self) -> String {
        let access = if self.is_read_only() { "read-only " } else { "" };
        let at = self.at;
        if let Op::Bind { source, .. } | Op::BindWith { source, .. } = self.op {
            return match source {
                Source::Host(path) => format!("the {access}volume `{path}` at `{at}`"),
                Source::Image { .. } => format!("the read-only image volume at `{at}`"),
                Source::Slot(_) | Source::Root | Source::Inside(_) => {
                    format!("{} at `{at}`", source_name(source))
                }
            };
        }
        if let Op::Mount { fstype, .. } | Op::MountWith { fstype, .. } = self.op {
            return format!("the {access}{fstype} at `{at}`");
        }
        format!("the mount at `{at}`")
    }
}

/// Where an operation mounts something, if it does.
fn target(op: &Op) -> Option<&str> {
    if let Op::Bind { target, .. }
    | Op::BindWith { target, .. }
    | Op::Mount { target, .. }
    | Op::MountWith { target, .. }
    | Op::Cgroups { target, .. } = op
    {
        Some(target)
    } else {
        None
    }
}

/// Whether `path` is `top`, or lies below it.
fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn source_name(source: &Source) -> String {
    match source {
        Source::Host(path) => format!("`{path}`"),
        Source::Slot(_) => "the pod's /dev/shm".into(),
        Source::Image { .. } => "an image volume".into(),
        Source::Root => "a `VOLUME` of the image".into(),
        Source::Inside(path) => format!("`{path}` of the container"),
    }
}

/// The ends of calls that failed because of where a symbolic link leads: the reason that the errno does not say, and the
/// hint.
const ASTRAY: [(&str, &str, &str); 3] = [
    (
        ": a symbolic link leads to what a process has",
        "a symbolic link on that path leads to what a process has, such as its root (`/proc/self/root`), and is not followed",
        "the image, or a volume, has that link: mount the volume elsewhere, or correct the link",
    ),
    (
        ": a symbolic link leads into a procfs",
        "a symbolic link on that path leads into /proc",
        "the image, or a volume, has a symbolic link on that path to /proc, where no mount may hide or replace a part: mount \
         the volume elsewhere, or correct the image",
    ),
    (
        ": a symbolic link leads into a sysfs",
        "a symbolic link on that path leads to what /sys does not have, and nothing can be made there",
        "the image, or a volume, has that link: mount the volume elsewhere, or correct the link",
    ),
];

/// Where the call itself says that a link is in the way; see `hull_init`'s places.
const BEHIND_LINK: &str = " is, or lies behind, a symbolic link";

/// Why a place could not be mounted on: what the call says of links, else the errno in words. The kernel's word for a
/// link that is not followed is "too many levels of symbolic links", which would be wrong.
fn why(error: &StepError) -> String {
    let led = ASTRAY.iter().find(|(end, ..)| error.call.ends_with(end));
    match led {
        Some((_, why, _)) => format!("{why} [{}]", error.call),
        None if error.errno == ELOOP && error.call.ends_with(BEHIND_LINK) => {
            format!("it is, or lies behind, a symbolic link [{}]", error.call)
        }
        None => reason(error),
    }
}

/// The hint for a mount point below /dev, /proc or /sys that is, or lies behind, a symbolic link.
fn strict_hint(target: &str) -> &'static str {
    if defaults::LINKS.iter().any(|(path, _)| is_below(target, path)) {
        "every container has links at /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr, /dev/core and /dev/ptmx: mount it \
         elsewhere"
    } else if target != "/sys" && is_below(target, "/sys") {
        "/sys has links to its own directories, and a volume at /sys may have others: mount it at the path that the link leads \
         to, or elsewhere"
    } else {
        "the image, or a volume, has a symbolic link on that path: make it a directory in the image"
    }
}

/// The hint for a mount point that was refused where a link leads, or below /dev, /proc or /sys; see `hull_init`'s places.
pub(super) fn place_hint(target: &str, error: &StepError) -> Option<&'static str> {
    let strict = ["/dev", "/proc", "/sys"].iter().any(|top| is_below(target, top));
    if let Some((.., hint)) = ASTRAY.iter().find(|(end, ..)| error.call.ends_with(end)) {
        return Some(hint);
    }
    match error.errno {
        ELOOP if strict => Some(strict_hint(target)),
        EXDEV if error.call.ends_with(": another mount is seen there") => Some(
            "something else is mounted over it: remove the volume that covers this path, or report it as a fault of Hull",
        ),
        EXDEV => Some(
            "a volume is mounted there, and nothing is made in it: mount the volume elsewhere, or make what is missing in it",
        ),
        _ => None,
    }
}

/// A file system that could not be mounted at `target`.
pub(super) fn new_mount(
    earlier: &[Op],
    (fstype, target): (&str, &str),
    options: &[(String, Option<String>)],
    error: &StepError,
) -> Failure {
    let options: Vec<_> = options.iter().map(|(key, _)| key.as_str()).collect();
    let hint = match error.errno {
        ENODEV => "the node's kernel has no such file system: load its module".to_owned(),
        EINVAL => "one of the options is not known to this kernel".to_owned(),
        _ => match place_hint(target, error) {
            Some(hint) => hint.to_owned(),
            None => target_hint(earlier, target, error),
        },
    };
    let (options, why) = (options.join(","), why(error));
    let what = format!("{fstype} ({options}) cannot be mounted at `{target}`: {why}");
    failure(Layer::Filesystem, "mount", what, Some(&hint))
}

/// A working directory that could not be made.
pub(super) fn mkdir(earlier: &[Op], path: &str, error: &StepError) -> Failure {
    let volume = Enclosing::of(earlier, path);
    let hint = match (error.errno, &volume) {
        (ENOTDIR, _) => "a part of that path is a file: choose another `workingDir`".to_owned(),
        (EROFS, Some(volume)) => format!(
            "it lies in {}: choose another `workingDir`, or make the directory in that volume",
            volume.name()
        ),
        (EROFS, None) => {
            "the root is read-only: choose another `workingDir`, or make the directory in the image"
                .to_owned()
        }
        _ => "choose a `workingDir` that the image has".to_owned(),
    };
    let why = reason(error);
    let what = format!("working directory `{path}` is not there and cannot be made: {why}");
    failure(Layer::Filesystem, "workdir", what, Some(&hint))
}

/// A volume, or a file of the pod, that could not be mounted at `target`.
pub(super) fn bind(
    earlier: &[Op],
    (source, target): (&Source, &str),
    error: &StepError,
) -> Failure {
    let named = source_name(source);
    // The call shows which side failed. Its beginning alone is Hull's own: a path of the user may follow.
    let begins = |with: &str| error.call.starts_with(with);
    let is_of_source = begins("open_tree(") || begins("statx(source)");
    let (what, hint) = if is_of_source {
        of_source(&named, target, error)
    } else if begins("move_mount(a directory, the file ") {
        (
            format!(
                "{named} cannot be mounted at `{target}`: it is a directory, and `{target}` is a file (not a directory)"
            ),
            directory_over_file(earlier, target),
        )
    } else if begins("move_mount(a file, the directory ") {
        (
            format!(
                "{named} cannot be mounted at `{target}`: it is a file, and `{target}` is a directory"
            ),
            file_over_directory(earlier, target),
        )
    } else if begins("move_mount(/proc): ") {
        (
            format!("{named} cannot be mounted at `{target}`: {}", reason(error)),
            "programs expect the kernel's procfs there: mount the volume elsewhere".to_owned(),
        )
    } else if begins("mount_setattr(")
        && error.call.contains("set 0x100000")
        && error.errno == EINVAL
    {
        (
            format!("{named} cannot be mounted at `{target}`: {}", reason(error)),
            format!(
                "the file system of {named} takes no mapped ids: use another one (ext4, xfs, btrfs, tmpfs since Linux 6.3), or no user namespace (`hostUsers`)"
            ),
        )
    } else {
        let hint = place_hint(target, error).map(str::to_owned);
        (
            format!("{named} cannot be mounted at `{target}`: {}", why(error)),
            hint.unwrap_or_else(|| target_hint(earlier, target, error)),
        )
    };
    failure(Layer::Filesystem, "mount", what, Some(&hint))
}

fn of_source(named: &str, target: &str, error: &StepError) -> (String, String) {
    let what = if error.errno == ENOENT {
        format!("mount source {named} (for `{target}`) does not exist")
    } else {
        format!("{named} cannot be mounted at `{target}`: {}", reason(error))
    };
    let hint = match error.errno {
        ENOENT => format!("create {named} on the node, or correct the volume"),
        ENOTDIR => format!("a part of the path {named} is a file on the node: correct the volume"),
        EACCES | EPERM => format!(
            "let root on this node open {named}: FUSE needs the option allow_root or allow_other, NFS no_root_squash"
        ),
        ELOOP => format!("{named} leads through too many symbolic links on the node: correct them"),
        EINVAL => format!(
            "the mount at {named} on the node is unbindable or of another mount namespace: mount --make-private it, or use another path"
        ),
        _ => format!("see what is wrong with {named} on the node"),
    };
    (what, hint)
}

fn directory_over_file(earlier: &[Op], target: &str) -> String {
    let whose = holder(earlier, target);
    format!(
        "mount one file of the volume there, with its name as `subPath`, or the directory at another `mountPath`: `{target}` in {whose} is a file. If the volume is a hostPath that should be a file: a missing one is made as a directory, so create the file and remove that directory"
    )
}

fn file_over_directory(earlier: &[Op], target: &str) -> String {
    let whose = holder(earlier, target);
    format!(
        "a file is mounted at the path of a file: add the file's name to the `mountPath`; `{target}` in {whose} is a directory"
    )
}

/// The holder of a path: the mount that contains it, else the image. A mount at the very path counts as well.
fn holder(earlier: &[Op], target: &str) -> String {
    Enclosing::of(earlier, target).map_or_else(|| "the image".to_owned(), |of| of.name())
}

/// The hint where a mount point could not be found or made.
fn target_hint(earlier: &[Op], target: &str, error: &StepError) -> String {
    let volume = Enclosing::of(earlier, target);
    let whose = holder(earlier, target);
    match (error.errno, volume) {
        (EROFS, Some(volume)) => format!(
            "`{target}` is missing in {whose}: create the mount point in that volume, let it be writable (`readOnly`), or choose a `mountPath` outside of `{}`",
            volume.at
        ),
        (EROFS, None) => format!(
            "the image has no `{target}`, and its root is read-only here: create the mount point in the image"
        ),
        (ENOTDIR, _) => format!(
            "a part of the path `{target}` is a file in {whose}: choose another `mountPath`"
        ),
        (ENOSPC, _) => {
            format!("free space or inodes on the file system of {whose} (df -h, df -i)")
        }
        (ELOOP, _) => format!(
            "`{target}` in {whose} leads through symbolic links that do not end: choose another `mountPath`"
        ),
        (EACCES | EPERM, Some(_)) => format!(
            "let root on this node create `{target}` in {whose}, or create it there; FUSE needs allow_root or allow_other, NFS no_root_squash"
        ),
        (_, Some(_)) => format!("check `{target}` in {whose}"),
        (_, None) => format!("check `{target}` in the image"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_init::Step;
    use hull_init::plan::Attrs;

    fn volume(source: Source, target: &str, rdonly: bool) -> Op {
        Op::Bind {
            source,
            target: target.into(),
            recursive: true,
            attrs: Attrs { rdonly, ..Attrs::default() },
            recursive_attrs: Attrs::default(),
            clear: Attrs::default(),
            propagation: None,
            id_maps: None,
        }
    }

    fn host(path: &str) -> Source {
        Source::Host(path.into())
    }

    fn text(earlier: &[Op], target: &str, errno: i32, call: &str) -> String {
        let error = StepError { step: Step::Op(0), errno, call: call.into() };
        let failure = bind(earlier, (&host("/srv/x"), target), &error);
        format!("{failure} (hint: {})", failure.hint.as_deref().unwrap())
    }

    #[test]
    fn the_mount_in_which_a_target_lies_is_named_with_what_forbids_it() {
        let image = Source::Image { lower: Vec::new(), path: String::new(), at: String::new() };
        let earlier = [
            volume(host("/srv/a"), "/data", true),
            volume(host("/srv/b"), "/data/rw", false),
            volume(image, "/models", true),
        ];
        for (target, wanted) in [
            ("/data/inner", "the read-only volume `/srv/a` at `/data`"),
            ("/data/rw/x", "the volume `/srv/b` at `/data/rw`"),
            ("/models/x", "the read-only image volume at `/models`"),
            ("/database", "create the mount point in the image"),
        ] {
            let text = text(&earlier, target, EROFS, "make(x)");
            assert!(text.contains(wanted), "{text}");
            assert_eq!(text.contains("in the image"), target == "/database", "{text}");
        }
        let below = text(&earlier, "/data/rw/f/x", ENOTDIR, "make(/data/rw/f/x)");
        assert!(below.contains("a part of the path `/data/rw/f/x` is a file"), "{below}");
    }

    #[test]
    fn the_side_that_is_a_file_is_named() {
        let directory =
            text(&[], "/etc/passwd", ENOTDIR, "move_mount(a directory, the file /etc/passwd)");
        assert!(
            directory.contains("it is a directory, and `/etc/passwd` is a file"),
            "{directory}"
        );
        assert!(
            directory.contains("`subPath`") && directory.contains("in the image"),
            "{directory}"
        );
        let file = text(&[], "/var", 21, "move_mount(a file, the directory /var)");
        assert!(file.contains("it is a file, and `/var` is a directory"), "{file}");
        assert!(file.contains("`mountPath`"), "{file}");
    }

    #[test]
    fn a_path_of_the_user_is_not_taken_for_a_cause() {
        for target in
            ["/open_tree(x", "/a directory, the file", "/statx(source)", "/is not a procfs"]
        {
            let text = text(&[], target, EROFS, &format!("mkdirat({target})"));
            assert!(text.contains("create the mount point in the image"), "{text}");
        }
        let error = |call: &str, errno| StepError { step: Step::Op(0), errno, call: call.into() };
        assert_eq!(place_hint("/developer", &error("openat2(/developer)", ELOOP)), None);
        assert!(place_hint("/dev/x", &error("openat2(/dev/x)", ELOOP)).is_some());
        let led = place_hint(
            "/data/x",
            &error("move_mount(/data/x): a symbolic link leads into a procfs", ELOOP),
        );
        assert!(led.is_some_and(|hint| hint.contains("mount the volume elsewhere")));
        let seen = place_hint("/a", &error("statx(/a): another mount is seen there", EXDEV));
        assert!(seen.is_some_and(|hint| hint.contains("covers this path")));
        let own = place_hint("/a", &error("statx(/: another mount is seen there)", EXDEV));
        assert!(own.is_some_and(|hint| !hint.contains("covers this path")));
    }

    #[test]
    fn a_link_that_is_not_followed_is_not_called_endless() {
        for (target, call, wanted, fix) in [
            (
                "/data/x",
                "make(/data/x): a symbolic link leads to what a process has",
                "`/proc/self/root`",
                "that link",
            ),
            (
                "/data",
                "make(/data): a symbolic link leads into a sysfs",
                "what /sys does not have",
                "elsewhere",
            ),
            (
                "/data",
                "make(/data): a symbolic link leads into a procfs",
                "leads into /proc",
                "elsewhere",
            ),
            (
                "/dev/fd/7",
                "open(/dev/fd/7) is, or lies behind, a symbolic link",
                "lies behind",
                "every container",
            ),
            (
                "/sys/class/net/lo",
                "open(/sys/class/net/lo) is, or lies behind, a symbolic link",
                "lies behind",
                "its own",
            ),
            (
                "/dev",
                "open(/dev) is, or lies behind, a symbolic link",
                "lies behind",
                "in the image",
            ),
        ] {
            let text = text(&[], target, ELOOP, call);
            assert!(text.contains(wanted) && text.contains(fix), "{text}");
            assert!(!text.contains("too many") && !text.contains("do not end"), "{text}");
        }
        let endless = text(&[], "/a/x", ELOOP, "make(/a/x)");
        assert!(endless.contains("do not end"), "{endless}");
    }

    #[test]
    fn a_source_that_fails_is_not_blamed_on_the_image() {
        for errno in [ENOENT, ENOTDIR, EACCES, EPERM, ELOOP, EINVAL, 5, 116] {
            let text = text(&[], "/data", errno, "open_tree(/srv/x, CLONE)");
            assert!(text.contains("on the node") || text.contains("this node"), "{text}");
            assert!(!text.contains("image"), "{text}");
        }
        let mapped = text(
            &[],
            "/data",
            EINVAL,
            "mount_setattr(7, set 0x100000, clear 0x0, propagation 0x0)",
        );
        assert!(mapped.contains("mapped ids"), "{mapped}");
        let proc =
            text(&[], "/proc", EINVAL, "move_mount(/proc): the volume there is not a procfs");
        assert!(proc.contains("mount the volume elsewhere"), "{proc}");
    }
}
