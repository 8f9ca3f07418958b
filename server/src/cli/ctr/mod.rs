// SPDX-License-Identifier: Apache-2.0
//! `hull ctr`, or hull called by a link named `ctr`: the part of containerd's tool that programs use to
//! load images into a node.
//!
//! ```text
//! ctr [flags] images|image|i import [flags] FILE|-     list|ls [-q] [name==NAME…]
//!                            tag [--force] NAME NAME…  rm|remove|delete|del NAME…
//!                            export FILE|- NAME…
//! ctr --version
//! ```
//!
//! [`parse`] says which flags have an effect.

mod parse;

use super::args::Export;
use super::client::Client;
use super::error::{Error, Result};
use super::{archives, images, output, run_flags};
use hull_proto::{admin, cri as api};
use parse::{Options, Request};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variable with ctr's default for `--address`.
pub(crate) const ADDRESS: &str = "CONTAINERD_ADDRESS";

/// Programs that a link to hull can stand for.
const EMULATED: [&str; 2] = ["ctr", "containerd"];

/// Inserts the command into the arguments if the program was called by the name of an emulated one.
pub(crate) fn called_as(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let name = args.first().and_then(|name| Path::new(name).file_name());
    if let Some(program) =
        EMULATED.into_iter().find(|program| name.is_some_and(|is| is == *program))
    {
        args.insert(1, program.into());
    }
    args
}

/// Whether the arguments request help, or nothing at all.
pub(crate) fn wants_help(words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| matches!(word.as_str(), "--help" | "-h" | "help"))
}

/// Performs the operation; `connect` gets the socket that the words name.
pub(crate) async fn run(
    connect: impl AsyncFnOnce(Option<PathBuf>) -> Result<Client>,
    words: &[String],
) -> Result<()> {
    let (options, request) = parse::parse(words).map_err(|text| Error::Usage { text })?;
    let Options { address, connect_timeout, timeout, platforms } = options;
    for platform in &platforms {
        run_flags::platform(platform)?;
    }
    if request == Request::Version {
        return output::line(&format!("ctr hull v{}", env!("CARGO_PKG_VERSION")));
    }
    within("--timeout", timeout, async {
        let client = within("--connect-timeout", connect_timeout, connect(address)).await?;
        perform(client, request).await
    })
    .await
}

/// Waits for `work`, at most for the time that `flag` gives.
async fn within<T>(
    flag: &'static str,
    limit: Option<Duration>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(limit) = limit else { return work.await };
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(Error::TimedOut { flag, limit }))
}

async fn perform(mut client: Client, request: Request) -> Result<()> {
    match request {
        Request::Import(file) => {
            for image in archives::taken_in(&mut client, Path::new(&file), None).await?.images {
                for name in &image.names {
                    output::line(&format!("{name:<60}saved"))?;
                }
            }
            Ok(())
        }
        Request::List { quiet, names } => list(&mut client, quiet, &names).await,
        Request::Export { file, images } => {
            archives::export(client, &Export { output: file, images }).await
        }
        Request::Tag { image, names, force } => {
            for name in names {
                let request = admin::TagRequest { image: image.clone(), name, force };
                let tagged = client.admin.tag(request).await?.into_inner();
                output::line(&tagged.name)?;
            }
            Ok(())
        }
        Request::Remove(names) => {
            for name in &names {
                if images::find(&mut client, name).await?.is_none() {
                    return Err(Error::NotFound { kind: "image", name: name.clone() });
                }
                client.admin.untag(admin::UntagRequest { image: name.clone() }).await?;
                output::line(name)?;
            }
            Ok(())
        }
        Request::Version => Ok(()),
    }
}

async fn list(client: &mut Client, quiet: bool, names: &[String]) -> Result<()> {
    let images = client.images.list_images(api::ListImagesRequest::default()).await?.into_inner();
    if !quiet {
        output::print("REF TYPE DIGEST SIZE PLATFORMS LABELS\n")?;
    }
    for image in images.images {
        for name in image.repo_tags.iter().chain(&image.repo_digests) {
            if !names.is_empty() && !names.contains(name) {
                continue;
            }
            let line = if quiet {
                name.clone()
            } else {
                format!("{name} - {} {} - -", image.id, output::bytes(image.size))
            };
            output::line(&line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_time_limit_ends_leaves_no_half_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let endless = async {
            let _archive = archives::PartialArchive::create(&path)?;
            assert!(path.try_exists().unwrap());
            std::future::pending::<Result<()>>().await
        };
        let limit = Duration::from_millis(10);
        let err = within("--timeout", Some(limit), endless).await.unwrap_err();
        assert!(matches!(err, Error::TimedOut { flag: "--timeout", .. }), "{err}");
        assert!(!path.try_exists().unwrap());
        within("--timeout", Some(Duration::from_secs(60)), async { Ok(()) }).await.unwrap();
        within("--timeout", None, async { Ok(()) }).await.unwrap();
    }

    #[test]
    fn a_link_of_that_name_is_the_same() {
        let args = |first: &str| {
            called_as([first, "images"].into_iter().map(OsString::from))
                .iter()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(args("/usr/local/bin/ctr"), ["/usr/local/bin/ctr", "ctr", "images"]);
        let daemon = ["/usr/local/bin/containerd", "containerd", "images"];
        assert_eq!(args("/usr/local/bin/containerd"), daemon);
        assert_eq!(args("/usr/local/bin/hull"), ["/usr/local/bin/hull", "images"]);
    }
}
