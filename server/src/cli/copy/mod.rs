// SPDX-License-Identifier: Apache-2.0
//! `hull cp`: files between a container and the host, as a tar stream through a pipe.
//!
//! ```text
//! root of the first process ─ open_in_root ─▶ pack ─ tar ─▶ unpack ─ openat, no links ─▶ directory
//! ```
//!
//! The rule: a container may change its files meanwhile, so nothing is done twice on one of its paths. The source and
//! the target are resolved in its root once; beneath these descriptors no link is followed, only what is seen to be a
//! regular file is opened, and files are written under a new name and then renamed.

mod owners;
mod pack;
mod root;
mod skipped;
mod stopped;
mod unpack;

use super::args::containers::Copy;
use super::client::Client;
use super::error::{Error, Result};
use super::names::Objects;
use super::{output, process};
use hull_proto::cri as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use owners::Owners;
use root::{Hold, Root};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use skipped::Skipped;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::thread;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    /// A tar archive on stdin or stdout.
    Archive,
    Host(PathBuf),
    Container(String, PathBuf),
}

impl Side {
    fn parse(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Archive);
        }
        // As docker has it: what begins with a dot or a slash is a path of the host.
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !text.starts_with(['.', '/']) => {
                if path.is_empty() {
                    return Err(Error::Copy {
                        what: text.to_owned(),
                        why: "the path is empty".into(),
                    });
                }
                Ok(Self::Container(name.to_owned(), PathBuf::from(path)))
            }
            _ => Ok(Self::Host(PathBuf::from(text))),
        }
    }
}

/// A directory, and the name in it that the copy gets.
#[derive(Debug)]
struct Target {
    directory: OwnedFd,
    /// `None` if the names of the archive are kept.
    name: Option<OsString>,
}

/// Copies the files of SRC to DST.
pub(crate) async fn copy(mut client: Client, args: &Copy) -> Result<()> {
    let (src, dst) = (Side::parse(&args.src)?, Side::parse(&args.dst)?);
    if !matches!((&src, &dst), (Side::Container(..), _) | (_, Side::Container(..))) {
        let (what, why) = (args.src.clone(), "neither side is CONTAINER:PATH".into());
        return Err(Error::Copy { what, why });
    }
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let named = |err| objects.named(err);
    let (from, from_hold) = root(&mut client, &objects, &src, false).await.map_err(named)?;
    let (to, to_hold) = root(&mut client, &objects, &dst, true).await.map_err(named)?;
    let words = (args.src.clone(), args.dst.clone(), args.archive, args.follow_link);
    let done = tokio::task::spawn_blocking(move || run((from, src), (to, dst), &words));
    let done = done.await.map_err(|join| Error::io("copy the files")(io::Error::other(join)))?;
    for (what, hold) in [(&args.src, from_hold), (&args.dst, to_hold)] {
        let Some(hold) = hold else { continue };
        if let Err(ended) = was_held(&mut client, what, hold).await {
            // A failure of the copy may come from that.
            if let Err(err) = done {
                output::to_stderr(&err.lines());
            }
            return Err(ended);
        }
    }
    done
}

/// Fails if the container of `what` was not held until now: what was read may be of two moments, and what was written
/// may be in a layer that was mounted twice.
async fn was_held(client: &mut Client, what: &str, mut hold: Hold) -> Result<()> {
    // The end of a daemon is seen at the next use of its connection at the latest.
    let answers = client.runtime.version(api::VersionRequest::default()).await.is_ok();
    if answers && !hold.has_ended().await {
        return Ok(());
    }
    Err(Error::Copy {
        what: shown(what, MESSAGE_BYTES_MAX),
        why: "the daemon ended meanwhile, and the container may have been started: copy again"
            .into(),
    })
}

/// The root of a side, and what keeps its container from being started.
async fn root(
    client: &mut Client,
    objects: &Objects,
    side: &Side,
    writes: bool,
) -> Result<(Root, Option<Hold>)> {
    let Side::Container(name, path) = side else {
        return Ok((Root { container: None, owners: Owners::host() }, None));
    };
    let container = objects.find_container(name)?;
    match container.state() {
        api::ContainerState::ContainerCreated | api::ContainerState::ContainerExited => {
            let (root, hold) = stopped::root(client, container, path, writes).await?;
            return Ok((root, Some(hold)));
        }
        api::ContainerState::ContainerRunning | api::ContainerState::ContainerUnknown => {}
    }
    let process = process::running(client, container, "copy files of").await?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(process.dir.as_fd(), "root", flags, Mode::empty());
    let root = opened
        .map_err(|source| Error::Kernel { operation: "open the root of the container", source })?;
    let owners = Owners::of_process(process.dir.as_fd())
        .map_err(Error::io("read the id maps of the container"))?;
    Ok((Root { container: Some(root), owners }, None))
}

/// The words of the command line: SRC, DST, whether owners are kept, whether SRC is followed.
type Words = (String, String, bool, bool);

fn run(from: (Root, Side), to: (Root, Side), words: &Words) -> Result<()> {
    let (from_root, from) = from;
    let (to_root, to) = to;
    let (src, dst, keep, follow) = words;
    let failed = |what: &str, err: &io::Error| Error::Copy {
        what: shown(what, MESSAGE_BYTES_MAX),
        why: err.to_string(),
    };
    // The target first: without one there is nothing to read.
    let path = match &from {
        Side::Archive => None,
        Side::Host(path) | Side::Container(_, path) => Some(path.clone()),
    };
    let target = match &to {
        Side::Archive => None,
        Side::Host(to) | Side::Container(_, to) => Some(
            target(&to_root, to, path.as_deref(), &from_root).map_err(|err| failed(dst, &err))?,
        ),
    };
    let keeps = *keep;
    let name = path.as_deref().map(|path| match target.as_ref().and_then(|of| of.name.clone()) {
        Some(name) => name,
        None => base_name(path),
    });
    let Some(path) = path else {
        let read = unpacked(io::stdin().lock(), target, &to_root, keeps);
        return read.map(|skipped| skipped.report()).map_err(|err| failed(dst, &err));
    };
    let name = name.unwrap_or_default();
    let Some(target) = target else {
        let packed = pack::pack(&from_root, &path, &name, *follow, None, io::stdout().lock());
        return packed.map(|skipped| skipped.report()).map_err(|err| failed(src, &err));
    };
    let into = fstat(&target.directory).map_err(|err| failed(dst, &err.into()))?;
    let into = Some(pack::id(&into));
    let (reader, writer) = io::pipe().map_err(Error::io("create a pipe"))?;
    let follow = *follow;
    let packer = thread::Builder::new().name("pack".into());
    let packing = packer.spawn(move || {
        pack::pack(&from_root, &path, &name, follow, into, BufferedPipe::new(writer))
    });
    let packing = packing.map_err(Error::io("start a thread"))?;
    let written = unpacked(reader, Some(target), &to_root, keeps);
    // Why reading failed says more than that the archive ended.
    match packing.join() {
        Ok(Ok(skipped)) => skipped.report(),
        Ok(Err(err)) if written.is_err() && err.kind() == io::ErrorKind::BrokenPipe => {}
        Ok(Err(err)) => return Err(failed(src, &err)),
        Err(_) => return Err(Error::io("read the files")(io::Error::other("the thread panicked"))),
    }
    // Devices are not in an archive of ours.
    written.map(drop).map_err(|err| failed(dst, &err))
}

/// A buffer before the pipe: tar writes headers alone.
type BufferedPipe = io::BufWriter<io::PipeWriter>;

fn unpacked(from: impl Read, target: Option<Target>, to: &Root, keep: bool) -> io::Result<Skipped> {
    let Some(target) = target else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "stdin cannot be copied to stdout",
        ));
    };
    unpack::unpack(from, target.directory, to, keep)
}

/// Where the copy of `from` goes: into the directory `path`, or under the name `path`.
fn target(to: &Root, path: &Path, from: Option<&Path>, source: &Root) -> io::Result<Target> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    // A link on the host may come out of a container, by a copy before this one.
    let follow = to.container.is_some() || ends_with_slash(path);
    match to.open(path, directory, follow) {
        Ok(directory) => Ok(Target { directory, name: None }),
        Err(err) => {
            let Some(from) = from else { return Err(err) };
            let is_directory = source.open(from, OFlags::PATH | OFlags::DIRECTORY, true).is_ok();
            if ends_with_slash(path) && !is_directory {
                return Err(err);
            }
            let flags = OFlags::PATH;
            if let Ok(there) = to.open(path, flags, false) {
                let kind = FileType::from_raw_mode(fstat(&there)?.st_mode);
                if kind == FileType::Symlink && to.open(path, directory, true).is_ok() {
                    let why = "it is a link to a directory: end it with `/` to copy into that directory, or remove it";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
                }
                if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
                    let why = "it is neither a file nor a directory, and would be replaced";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
                }
            }
            let parent = match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                Some(parent) => parent,
                None => return Err(err),
            };
            // In a container, `.` is its root.
            let directory = to.open(parent, directory, true)?;
            Ok(Target { directory, name: Some(base_name(path)) })
        }
    }
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/")
}

/// The name that a copy of `path` gets; `.` for the content of a directory.
fn base_name(path: &Path) -> OsString {
    if path.as_os_str().as_bytes().ends_with(b"/.") {
        return ".".into();
    }
    match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_owned(),
        _ => OsStr::new(".").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn sides_are_told_apart() {
        let container = |name: &str, path: &str| Side::Container(name.into(), path.into());
        for (text, side) in [
            ("web:/etc", container("web", "/etc")),
            ("ns/pod/web:etc", container("ns/pod/web", "etc")),
            ("-", Side::Archive),
            ("./a:b", Side::Host("./a:b".into())),
            ("/a:b", Side::Host("/a:b".into())),
            ("file", Side::Host("file".into())),
        ] {
            assert_eq!(Side::parse(text).unwrap(), side, "{text}");
        }
        assert!(Side::parse("web:").is_err());
    }

    fn root(path: &Path) -> Root {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).unwrap();
        Root { container: Some(fd), owners: Owners::host() }
    }

    fn copied(from: (Root, Side), to: (Root, Side)) -> Result<()> {
        run(from, to, &("src".into(), "dst".into(), false, false))
    }

    #[test]
    fn no_link_of_a_container_leads_to_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, secret) = (dir.path().join("root"), dir.path().join("secret"));
        fs::create_dir_all(inside.join("data")).unwrap();
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, inside.join("data/link")).unwrap();
        symlink("../../secret", inside.join("up")).unwrap();
        symlink(dir.path(), inside.join("way")).unwrap();
        let out = dir.path().join("out");
        let side = |path: &str| Side::Container("c".into(), path.into());
        // Out: the link is copied as a link, and not what it names.
        copied((root(&inside), side("/data")), (host(), Side::Host(out.clone()))).unwrap();
        assert_eq!(fs::read_link(out.join("link")).unwrap(), secret);
        for path in ["/up/x", "/way/secret", "/../secret"] {
            let copy =
                copied((root(&inside), side(path)), (host(), Side::Host(dir.path().join("got"))));
            assert!(copy.is_err(), "{path}");
        }
        // In: a link in the place of a directory or of a file is not followed.
        fs::write(dir.path().join("new"), "new").unwrap();
        let new = || (host(), Side::Host(dir.path().join("new")));
        assert!(copied(new(), (root(&inside), side("/way/secret"))).is_err());
        copied(new(), (root(&inside), side("/up"))).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(fs::read_to_string(inside.join("up")).unwrap(), "new");
    }

    fn host() -> Root {
        Root { container: None, owners: Owners::host() }
    }

    #[test]
    fn names_of_copies_are_those_of_docker() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("src/sub")).unwrap();
        fs::write(at("src/sub/file"), "x".repeat(100_000)).unwrap();
        fs::create_dir(at("there")).unwrap();
        let run = |from: &str, to: &str| {
            copied((host(), Side::Host(at(from))), (host(), Side::Host(at(to))))
        };
        run("src", "new").unwrap();
        assert_eq!(fs::metadata(at("new/sub/file")).unwrap().size(), 100_000);
        run("src", "there").unwrap();
        assert!(at("there/src/sub/file").is_file());
        run("src/sub/file", "there").unwrap();
        assert!(at("there/file").is_file());
        run("src/sub/file", "renamed").unwrap();
        assert!(at("renamed").is_file());
        run("src/sub/file", "no/such").unwrap_err();
        run("src/.", "there").unwrap();
        assert!(at("there/sub/file").is_file(), "the content of src");
    }

    #[test]
    fn a_copy_has_no_rights_of_another_owner_and_replaces_no_device() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::write(at("shell"), "x").unwrap();
        fs::set_permissions(at("shell"), fs::Permissions::from_mode(0o6755)).unwrap();
        let from = || (host(), Side::Host(at("shell")));
        copied(from(), (host(), Side::Host(at("copy")))).unwrap();
        assert_eq!(fs::metadata(at("copy")).unwrap().mode() & 0o7777, 0o755);
        rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let refused = copied(from(), (host(), Side::Host(at("pipe")))).unwrap_err();
        assert!(refused.to_string().contains("neither a file nor a directory"), "{refused}");
        assert!(!fs::metadata(at("pipe")).unwrap().is_file());
    }

    #[test]
    fn a_link_that_was_copied_out_does_not_choose_where_the_next_copy_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["inside/log", "host"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("inside/log/x"), "new").unwrap();
        symlink(at("host"), at("out")).unwrap();
        let copy = |from: &str, to: &str| {
            let inside = root(&at("inside"));
            let from = Side::Container("c".into(), from.into());
            // A path keeps its last slash only as text.
            let to = PathBuf::from(format!("{}/{to}", dir.path().display()));
            copied((inside, from), (host(), Side::Host(to)))
        };
        for from in ["/log", "/log/x", "/log/."] {
            let refused = copy(from, "out").unwrap_err().to_string();
            assert!(refused.contains("end it with `/`"), "{from}: {refused}");
        }
        assert_eq!(fs::read_dir(at("host")).unwrap().count(), 0);
        copy("/log", "out/").unwrap();
        assert_eq!(fs::read_to_string(at("host/log/x")).unwrap(), "new");
        // A link to a file, or to nothing, is replaced.
        symlink(at("host/log/x"), at("file")).unwrap();
        fs::write(at("inside/log/x"), "newer").unwrap();
        copy("/log/x", "file").unwrap();
        assert_eq!(fs::read_to_string(at("host/log/x")).unwrap(), "new");
        assert!(fs::symlink_metadata(at("file")).unwrap().is_file());
    }

    #[test]
    fn special_files_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        let fifo = dir.path().join("src/fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let mut archive = Vec::new();
        let skipped = pack::pack(
            &host(),
            &dir.path().join("src"),
            OsStr::new("src"),
            false,
            None,
            &mut archive,
        );
        assert_eq!(skipped.unwrap().names(), ["src/fifo"]);
        // In an archive of others.
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind) in [
            ("null", tar::EntryType::Char),
            ("disk", tar::EntryType::Block),
            ("a", tar::EntryType::Regular),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(0);
            archive.append_data(&mut header, name, io::empty()).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let into = openat(CWD, dir.path(), flags, Mode::empty()).unwrap();
        let skipped = unpack::unpack(archive.as_slice(), into, &host(), false).unwrap();
        assert_eq!(skipped.names(), ["null", "disk"]);
        assert!(fs::metadata(dir.path().join("a")).unwrap().is_file());
        assert!(fs::symlink_metadata(dir.path().join("null")).is_err());
    }

    #[test]
    fn hard_links_stay_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("src/sub")).unwrap();
        fs::write(at("src/a"), "x".repeat(5000)).unwrap();
        fs::hard_link(at("src/a"), at("src/sub/b")).unwrap();
        // A third name is not part of the copy.
        fs::hard_link(at("src/a"), at("c")).unwrap();
        let side = |path: &str| Side::Host(at(path));
        copied((host(), side("src")), (host(), side("new"))).unwrap();
        let (a, b) = (fs::metadata(at("new/a")).unwrap(), fs::metadata(at("new/sub/b")).unwrap());
        assert_eq!((a.ino(), a.size(), a.nlink()), (b.ino(), 5000, 2));
        // An archive does not link to what is outside of the target.
        symlink(at("src"), at("new/way")).unwrap();
        for target in ["../c", "/etc/passwd", "way/a", "none"] {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            archive.append_link(&mut header, "link", target).unwrap();
            let archive = archive.into_inner().unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let into = openat(CWD, at("new"), flags, Mode::empty()).unwrap();
            unpack::unpack(archive.as_slice(), into, &host(), false).unwrap_err();
        }
        assert!(fs::symlink_metadata(at("new/link")).is_err());
    }

    #[test]
    fn a_directory_is_not_copied_into_itself() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("src/sub")).unwrap();
        let copy = copied((host(), Side::Host(at("src"))), (host(), Side::Host(at("src/sub"))));
        let said = copy.unwrap_err().to_string();
        assert!(said.contains("the copy goes into"), "{said}");
    }
}
