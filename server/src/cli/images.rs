// SPDX-License-Identifier: Apache-2.0
//! `hull images`, `rmi`, `import`.

use super::args::{Images, Import, Rmi};
use super::client::Client;
use super::error::{Error, Result};
use super::out::{self, Table};
use hull_proto::{admin, cri as api};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How much of an archive goes into one message, in bytes.
const CHUNK: usize = 1 << 20;
/// Pieces of an archive that are read ahead.
const AHEAD: usize = 4;

fn named(image: &str) -> api::ImageSpec {
    api::ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// The image of this name, and verbose information.
pub(crate) async fn find(
    client: &mut Client,
    name: &str,
) -> Result<Option<api::ImageStatusResponse>> {
    let request = api::ImageStatusRequest { image: Some(named(name)), verbose: true };
    let answer = client.images.image_status(request).await?.into_inner();
    Ok(answer.image.is_some().then_some(answer))
}

/// Prints the images.
pub(crate) async fn list(mut client: Client, args: &Images) -> Result<()> {
    let filter = args.image.as_deref().map(|image| api::ImageFilter { image: Some(named(image)) });
    let request = api::ListImagesRequest { filter };
    let mut images = client.images.list_images(request).await?.into_inner().images;
    if let (Some(name), true) = (&args.image, images.is_empty()) {
        return Err(Error::NotFound { kind: "image", name: name.clone() });
    }
    if args.quiet {
        return out::print(
            &images.iter().map(|image| format!("{}\n", image.id)).collect::<String>(),
        );
    }
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    let mut table = Table::new(&["IMAGE", "ID", "SIZE", "PINNED"]);
    for image in &images {
        for name in names(image) {
            let pinned = if image.pinned { "yes" } else { "" };
            table.row([name, out::short(&image.id), out::bytes(image.size), pinned.into()]);
        }
    }
    out::print(&table.shown())
}

/// What an image is called: its tags, else its digests.
fn names(image: &api::Image) -> Vec<String> {
    match (image.repo_tags.as_slice(), image.repo_digests.as_slice()) {
        ([], []) => vec!["-".into()],
        ([], digests) => digests.to_vec(),
        (tags, _) => tags.to_vec(),
    }
}

/// Removes images. One that is not here is an error: it was likely misspelt.
pub(crate) async fn remove(mut client: Client, args: &Rmi) -> Result<()> {
    for name in &args.images {
        if find(&mut client, name).await?.is_none() {
            return Err(Error::NotFound { kind: "image", name: name.clone() });
        }
        let request = api::RemoveImageRequest { image: Some(named(name)) };
        client.images.remove_image(request).await?;
        out::print(&format!("{name}\n"))?;
    }
    Ok(())
}

/// Sends an archive to the daemon, which need not be able to open the file itself.
pub(crate) async fn import(mut client: Client, args: &Import) -> Result<()> {
    let archive = open(&args.file)?;
    let (sender, chunks) = mpsc::channel(AHEAD);
    let name = args.name.clone().unwrap_or_default();
    let shown = args.file.display().to_string();
    let reader = tokio::task::spawn_blocking(move || send(archive, &shown, name, &sender));
    let answer = client.admin.import(ReceiverStream::new(chunks)).await;
    // What the daemon says of a cut archive is worth less than why it was cut.
    match reader.await {
        Ok(read) => read?,
        Err(join) => return Err(Error::io("read the archive")(io::Error::other(join))),
    }
    for image in answer?.into_inner().images {
        let names = if image.names.is_empty() { "-".into() } else { image.names.join(" ") };
        out::print(&format!("{} {names}\n", image.id))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
    Ok(Box::new(file))
}

/// Reads the archive piece by piece. Ends early when the daemon wants no more.
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
