// SPDX-License-Identifier: Apache-2.0
//! `hull ctr`, or hull called by a link named `ctr`: the part of containerd's tool that programs use to
//! load images into a node.
//!
//! ```text
//! ctr [flags] images|image|i import [flags] FILE|-     list|ls [-q] [name==NAME…]
//!                            tag [--force] NAME NAME…  rm|remove|delete|del NAME…
//!                            export FILE|- NAME…
//! ```
//!
//! The rule: a flag that changes the result is either implemented or refused; flags that choose a
//! namespace, a snapshotter or a platform are ignored, because Hull has only one of each.

use super::args::Export;
use super::client::Client;
use super::error::{Error, Result, but_not};
use super::{archives, images, output};
use hull_proto::{admin, cri as api};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Flags with a value as the next argument; all others have none, or carry it after `=`.
const WITH_VALUE: [&str; 14] = [
    "-n",
    "--namespace",
    "-a",
    "--address",
    "--timeout",
    "--connect-timeout",
    "--snapshotter",
    "--platform",
    "--base-name",
    "--index-name",
    "--digests-prefix",
    "--sync-fs-timeout",
    "-l",
    "--label",
];
/// Flags that request something that Hull does not implement.
const REFUSED: [&str; 4] =
    ["--no-unpack", "--base-name", "--index-name", "--discard-unpacked-layers"];

/// Programs that a link to hull can stand for.
const EMULATED: [&str; 2] = ["ctr", "containerd"];

/// The requested operation.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Import(String),
    /// Without names, all images.
    List {
        quiet: bool,
        names: Vec<String>,
    },
    Export {
        file: Option<PathBuf>,
        images: Vec<String>,
    },
    Remove(Vec<String>),
    Tag {
        image: String,
        names: Vec<String>,
        force: bool,
    },
}

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

/// Performs the operation.
pub(crate) async fn run(mut client: Client, words: &[String]) -> Result<()> {
    match parse(words).map_err(|text| Error::Usage { text })? {
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

fn parse(words: &[String]) -> Result<Request, String> {
    let (mut plain, mut flags) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "-" || !word.starts_with('-') {
            plain.push(word.as_str());
            continue;
        }
        let name = word.split('=').next().unwrap_or(word);
        if REFUSED.contains(&name) {
            return Err(format!("hull does not implement {name} of ctr"));
        }
        flags.push(name);
        // After `list`, `-q` has no value.
        if WITH_VALUE.contains(&name) && !word.contains('=') && words.next().is_none() {
            return Err(format!("{name} has no value"));
        }
    }
    let has = |flag: &str| flags.contains(&flag);
    match plain.as_slice() {
        ["images" | "image" | "i", "import", file] => Ok(Request::Import((*file).to_owned())),
        ["images" | "image" | "i", "list" | "ls", filters @ ..] => {
            let named = |filter: &&str| filter.strip_prefix("name==").map(str::to_owned);
            let names = filters.iter().map(|filter| {
                named(filter)
                    .ok_or_else(|| format!("of filters, hull knows name==NAME, not `{filter}`"))
            });
            let names = names.collect::<Result<_, String>>()?;
            Ok(Request::List { quiet: has("-q") || has("--quiet"), names })
        }
        ["images" | "image" | "i", "export", file, images @ ..] if !images.is_empty() => {
            let file = (*file != "-").then(|| PathBuf::from(file));
            Ok(Request::Export { file, images: owned(images) })
        }
        ["images" | "image" | "i", "rm" | "remove" | "delete" | "del", names @ ..]
            if !names.is_empty() =>
        {
            Ok(Request::Remove(owned(names)))
        }
        ["images" | "image" | "i", "tag", image, names @ ..] if !names.is_empty() => {
            let (image, names) = ((*image).to_owned(), owned(names));
            Ok(Request::Tag { image, names, force: has("--force") })
        }
        _ => Err(format!(
            "of ctr, hull knows `images import FILE`, `images export FILE NAME`, `images list`, \
             `images tag NAME NAME` and `images rm NAME`{}",
            but_not(&plain)
        )),
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn what_tools_that_load_images_call_is_understood() {
        for line in [
            "--namespace=k8s.io images import --all-platforms --digests --snapshotter=overlayfs -",
            "-n k8s.io images import -",
            "-n=k8s.io i import --platform linux/amd64 -",
            "-a /run/x.sock --namespace k8s.io image import --local -",
        ] {
            assert_eq!(parsed(line), Ok(Request::Import("-".into())), "{line}");
        }
        let list = |quiet, names| Ok(Request::List { quiet, names });
        assert_eq!(parsed("-n k8s.io images ls -q"), list(true, Vec::new()));
        assert_eq!(parsed("-n=k8s.io images ls name==a:1"), list(false, vec!["a:1".into()]));
        assert_eq!(
            parsed("-n=k8s.io images export /x a b"),
            Ok(Request::Export { file: Some("/x".into()), images: vec!["a".into(), "b".into()] })
        );
        assert_eq!(parsed("images rm a b"), Ok(Request::Remove(vec!["a".into(), "b".into()])));
        let tag =
            |force| Request::Tag { image: "sha256:1".into(), names: vec!["a:1".into()], force };
        assert_eq!(parsed("-n k8s.io images tag sha256:1 a:1"), Ok(tag(false)));
        assert_eq!(parsed("images tag --local --force sha256:1 a:1"), Ok(tag(true)));
    }

    #[test]
    fn what_would_come_out_differently_is_refused() {
        for line in [
            "run x y",
            "images import",
            "images import --no-unpack -",
            "images import --base-name x -",
            "images rm",
            "images ls labels.x",
            "images export /x",
            "images tag a",
            "images import - -n",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_error_quotes_the_words_that_there_are() {
        assert!(parsed("-n k8s.io").unwrap_err().ends_with("`images rm NAME`"));
        assert!(parsed("run x").unwrap_err().ends_with(", not `run x`"));
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
