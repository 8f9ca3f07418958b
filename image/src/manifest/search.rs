// SPDX-License-Identifier: Apache-2.0
//! Searches a manifest or an index, and the indexes in it, for the image of this machine.
//!
//! Pure: a pull reads the documents from a registry, an import from an archive. The rule: an index's word about
//! a platform is believed; an entry without a word is tried, and its config decides.

use super::config::{ImageConfig, parse_config};
use super::platform::{Machine, Platform as Stated};
use super::{Candidate, Descriptor, Document, INDEX_DEPTH_MAX, Manifest, parse};
use crate::digest::Digest;
use crate::error::Cause;
use crate::types::Platform;

/// The largest number of entries without a platform that are tried.
const TRIES_MAX: usize = 32;

/// An image for this machine.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    /// The config, byte for byte.
    pub(crate) text: String,
    pub(crate) config: ImageConfig,
    /// The digests on the way to the manifest: the first is that of the name.
    pub(crate) digests: Vec<Digest>,
    pub(crate) platform: Platform,
}

/// The document that the search needs next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The document with this digest: give it to [`Search::document`].
    Document(Descriptor, Way),
    /// The config of this manifest: give it to [`Search::config`].
    Config(Manifest, Way),
}

/// How a document was reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    digests: Vec<Digest>,
    /// The last index that stated the platform, and why the entry was chosen.
    stated: Option<(Stated, String)>,
    /// Why the entry was tried, if no index stated its platform.
    unsaid: Option<String>,
    /// Whether an index gave it a media type that is not one of images.
    is_odd: bool,
}

/// A search in progress.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    machine: &'a Machine,
    /// The entries that are still to be tried, the next one last.
    open: Vec<(Candidate, Way)>,
    manifest: Option<(Manifest, Way)>,
    tries: usize,
    /// Why the last entry that was tried is not the image.
    refused: Option<Cause>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(machine: &'a Machine) -> Self {
        Self { machine, open: Vec::new(), manifest: None, tries: 0, refused: None }
    }

    /// Continues with a document that was read.
    pub(crate) fn document(
        &mut self,
        bytes: &[u8],
        digest: Digest,
        mut way: Way,
    ) -> Result<(), Cause> {
        let what = if way.digests.is_empty() {
            "the manifest".to_owned()
        } else {
            format!("manifest {digest}")
        };
        way.digests.push(digest);
        match parse(bytes, &what, self.machine) {
            Ok(Document::Manifest(manifest)) => self.manifest = Some((manifest, way)),
            Ok(Document::Index(_)) if way.digests.len() > INDEX_DEPTH_MAX => {
                let why = "too many indexes in indexes".into();
                return Err(Cause::Document { what: "the index".into(), why });
            }
            Ok(Document::Index(candidates)) => {
                // The first one is tried first.
                self.open.extend(candidates.into_iter().rev().map(|of| (of, way.clone())));
            }
            Err(cause) => self.refuse(cause, &way)?,
        }
        Ok(())
    }

    /// Takes the config of a manifest. None if it is for another machine: the search goes on.
    pub(crate) fn config(
        &mut self,
        bytes: &[u8],
        manifest: Manifest,
        way: Way,
    ) -> Result<Option<Found>, Cause> {
        let config = match parse_config(bytes, self.machine, way.stated.is_some()) {
            Ok(config) => config,
            Err(cause) => return self.refuse(cause, &way).map(|()| None),
        };
        let text = std::str::from_utf8(bytes).map_err(|err| Cause::Document {
            what: "the image's config".into(),
            why: err.to_string(),
        })?;
        let platform = match (way.stated, &config.platform) {
            (Some((stated, why)), Some(other)) if !stated.is_like(other) => {
                let why =
                    format!("{why}; its config says {}, but the index decides", other.shown());
                Platform { name: stated.shown(), why }
            }
            (Some((stated, why)), _) => Platform { name: stated.shown(), why },
            (None, Some(said)) => {
                let why =
                    way.unsaid.unwrap_or_else(|| "it is the only image under that name".into());
                Platform { name: said.shown(), why }
            }
            (None, None) => Platform {
                name: self.machine.shown(),
                why: "it does not say its platform, and was taken for this machine's".into(),
            },
        };
        let digests = way.digests;
        Ok(Some(Found { manifest, text: text.to_owned(), config, digests, platform }))
    }

    /// Returns the document to read next; an error if there is no image for this machine.
    pub(crate) fn next(&mut self) -> Result<Step, Cause> {
        if let Some((manifest, way)) = self.manifest.take() {
            return Ok(Step::Config(manifest, way));
        }
        let Some((candidate, mut way)) = self.open.pop() else {
            let none = || Cause::Platform { want: self.machine.shown(), there: String::new() };
            return Err(self.refused.take().unwrap_or_else(none));
        };
        self.tries += 1;
        if self.tries > TRIES_MAX + INDEX_DEPTH_MAX {
            let why = format!("none of {TRIES_MAX} images without a platform is for this machine");
            return Err(Cause::Document { what: "the index".into(), why });
        }
        way.is_odd |= candidate.is_odd;
        match candidate.platform {
            Some(platform) => way.stated = Some((platform, candidate.why)),
            None => way.unsaid = Some(candidate.why),
        }
        Ok(Step::Document(candidate.descriptor, way))
    }

    /// Goes on after an entry that was only tried, and is something else than an image for this machine.
    fn refuse(&mut self, cause: Cause, way: &Way) -> Result<(), Cause> {
        let is_artifact = matches!(cause, Cause::NotAnImage { .. });
        let is_other = is_artifact || matches!(cause, Cause::Platform { .. });
        let is_refused = way.is_odd || (is_other && (is_artifact || way.stated.is_none()));
        if !is_refused || way.digests.len() < 2 {
            return Err(cause);
        }
        // That there are images for others says more than that there is something else.
        if self.refused.is_none() || (matches!(cause, Cause::Platform { .. }) && !way.is_odd) {
            self.refused = Some(cause);
        }
        Ok(())
    }
}
