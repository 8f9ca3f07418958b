// SPDX-License-Identifier: Apache-2.0
//! `hull import` and `hull export`: stream archives to and from the daemon.

use super::args::{Export, Import};
use super::client::Client;
use super::error::{Error, Result};
use super::names::Objects;
use super::{format, images, output, stored};
use hull_proto::admin;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::thread;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// Size of one message with a piece of an archive, in bytes.
const CHUNK: usize = 1 << 20;
/// Number of pieces that are read ahead.
const AHEAD: usize = 4;

/// Imports an archive, and prints its images; on stderr, what else is in it.
pub(crate) async fn import(mut client: Client, args: &Import) -> Result<()> {
    let file = args.file.as_deref().or(args.input.as_deref());
    if file.is_none() && io::stdin().is_terminal() {
        let text =
            "no archive is named, and stdin is a terminal; name a file, or use `hull load < FILE`";
        return Err(Error::Usage { text: text.into() });
    }
    let file = file.unwrap_or(Path::new("-"));
    let imported = taken_in(&mut client, file, args.name.as_deref()).await?;
    for left in imported.left {
        output::to_stderr(&not_imported(&left.name, &left.why));
    }
    if stored::is_selected(&args.output) {
        let mut rows = Vec::new();
        for image in imported.images {
            // An image that got no name has one row of its own.
            let none = [String::new()];
            let names = if image.names.is_empty() { &none[..] } else { &image.names };
            for name in names {
                rows.push(stored::of(&mut client, &image.id, name).await?);
            }
        }
        return format::print(&stored::IMPORTED, &rows, &args.output);
    }
    for image in imported.images {
        let names = if image.names.is_empty() { "-".into() } else { image.names.join(" ") };
        output::line(&format!("{} {names}", image.id))?;
    }
    Ok(())
}

/// The line about an image of an archive that was not imported. Its name is the archive's own text.
fn not_imported(name: &str, why: &str) -> String {
    let [name, why] = [name, why].map(|text| shown(text, MESSAGE_BYTES_MAX));
    format!("not imported: {name}: {why}\n")
}

/// Streams an archive to the daemon, which may be unable to open the file itself, and returns what was imported.
pub(crate) async fn taken_in(
    client: &mut Client,
    file: &Path,
    name: Option<&str>,
) -> Result<admin::ImportResponse> {
    let name = name.unwrap_or_default().to_owned();
    sent(client, open(file)?, file.display().to_string(), name).await
}

/// Streams an archive to the daemon, and returns what was imported. `shown` names it in errors; `name` is for an image
/// without one.
pub(super) async fn sent(
    client: &mut Client,
    archive: Box<dyn Read + Send>,
    shown: String,
    name: String,
) -> Result<admin::ImportResponse> {
    let (sender, chunks) = mpsc::channel(AHEAD);
    let (done, mut read) = oneshot::channel();
    // A plain thread, which ends with this program: stdin may block when the daemon has refused the archive already.
    let reader = move || {
        let sent = send(archive, &shown, name, &sender);
        // Before the end of the stream, which is the sender's.
        let _answered = done.send(sent);
    };
    thread::Builder::new()
        .name("archive".into())
        .spawn(reader)
        .map_err(Error::io("start a thread"))?;
    let answer = client.admin.import(ReceiverStream::new(chunks)).await;
    // Why reading failed says more than the daemon's error about a truncated archive.
    if let Ok(Err(failed)) = read.try_recv() {
        return Err(failed);
    }
    Ok(answer?.into_inner())
}

/// Exports images as an archive. A file that cannot be completed is removed.
pub(crate) async fn export(mut client: Client, args: &Export) -> Result<()> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Error::Usage { text: "stdout is a terminal; name a file with -o".into() });
    }
    match export_to(&mut client, args).await {
        Err(failed @ Error::Daemon { .. }) => {
            Err(not_an_image(&mut client, args).await.unwrap_or(failed))
        }
        other => other,
    }
}

async fn export_to(client: &mut Client, args: &Export) -> Result<()> {
    let request = admin::ExportRequest { images: args.images.clone() };
    let mut pieces = client.admin.export(request).await?.into_inner();
    let Some(path) = &args.output else {
        let mut stdout = io::stdout().lock();
        while let Some(piece) = pieces.message().await? {
            stdout.write_all(&piece.data).map_err(Error::io("write to stdout"))?;
        }
        return stdout.flush().map_err(Error::io("write to stdout"));
    };
    let mut archive = PartialArchive::create(path)?;
    while let Some(piece) = pieces.message().await? {
        archive.write(&piece.data)?;
    }
    archive.complete()
}

/// The error for the name of a container, whose files docker's command of this name exports.
async fn not_an_image(client: &mut Client, args: &Export) -> Option<Error> {
    let objects = Objects::fetch(client).await.ok()?;
    let name = args.images.iter().find(|name| objects.find_container(name).is_ok())?;
    if images::find(client, name).await.ok().flatten().is_some() {
        return None;
    }
    let message = format!("cannot export `{name}`: it is a container, and hull exports images");
    let hint = Some(format!("`hull cp {name}:/ - > FILE` makes an archive of its files"));
    Some(Error::Daemon { message, hint })
}

/// An archive that is being written. Dropped before it is complete, its file is removed, also by a time limit that ends
/// the export: half an archive could pass for a whole one.
pub(super) struct PartialArchive<'p> {
    file: File,
    path: &'p Path,
    is_complete: bool,
}

impl<'p> PartialArchive<'p> {
    /// Creates the file.
    ///
    /// # Errors
    /// It cannot be created, or exists.
    pub(super) fn create(path: &'p Path) -> Result<Self> {
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.map_err(|err| {
            if err.kind() == io::ErrorKind::AlreadyExists {
                return Error::FileTaken { path: path.to_owned() };
            }
            Error::io(format!("write {}", path.display()))(err)
        })?;
        Ok(Self { file, path, is_complete: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(format!("write {}", self.path.display())))
    }

    /// Writes all to the disk; then the file stays.
    fn complete(mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(format!("write {}", self.path.display())))?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for PartialArchive<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            let _left = std::fs::remove_file(self.path);
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        refuse_directory("stdin", io::stdin().as_fd())?;
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
    refuse_directory(&path.display().to_string(), file.as_fd())?;
    Ok(Box::new(file))
}

/// Refuses a directory, such as an image layout that is not packed.
fn refuse_directory(what: &str, file: BorrowedFd<'_>) -> Result<()> {
    // A file that says nothing of itself is left to the read.
    let is_directory = rustix::fs::fstat(file)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
    if is_directory {
        return Err(Error::ArchiveDirectory { what: what.to_owned() });
    }
    Ok(())
}

/// Reads the archive in pieces. Ends early if the daemon has closed the stream.
fn send(
    mut archive: Box<dyn Read + Send>,
    shown: &str,
    mut name: String,
    to: &mpsc::Sender<admin::ImportChunk>,
) -> Result<()> {
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        let most = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        let read = archive.by_ref().take(most).read_to_end(&mut data);
        let read = read.map_err(Error::io(format!("read {shown}")))?;
        let chunk = admin::ImportChunk { data, name: std::mem::take(&mut name) };
        if read == 0 || to.blocking_send(chunk).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_that_is_left_is_one_line() {
        let line = not_imported("x\nerror: forged\u{1b}[2J", "its\nreason");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.ends_with('\n') && line.starts_with("not imported: x\\nerror"), "{line}");
    }

    #[test]
    fn a_directory_is_not_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path()).err().unwrap();
        assert!(error.lines().contains("it is a directory\nhint: an image layout"), "{error}");
        let file = dir.path().join("a.tar");
        std::fs::write(&file, "x").unwrap();
        open(&file).unwrap();
    }

    #[test]
    fn only_a_complete_archive_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut archive = PartialArchive::create(&path).unwrap();
        archive.write(b"half").unwrap();
        drop(archive);
        assert!(!path.try_exists().unwrap());
        let mut archive = PartialArchive::create(&path).unwrap();
        archive.write(b"whole").unwrap();
        let taken = PartialArchive::create(&path).err().unwrap().lines();
        assert!(taken.contains("a file is there already") && taken.contains("rm "), "{taken}");
        archive.complete().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn an_archive_is_sent_whole_and_named_once() {
        let (sender, mut chunks) = mpsc::channel(8);
        let text: Vec<u8> = (0..=255).cycle().take(CHUNK + 7).collect();
        send(Box::new(io::Cursor::new(text.clone())), "x", "n".into(), &sender).unwrap();
        drop(sender);
        let (mut all, mut names) = (Vec::new(), Vec::new());
        while let Some(chunk) = chunks.blocking_recv() {
            all.extend(chunk.data);
            names.push(chunk.name);
        }
        assert!(all == text);
        assert_eq!(names, ["n", ""]);
    }
}
