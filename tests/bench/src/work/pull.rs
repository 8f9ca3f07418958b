// SPDX-License-Identifier: Apache-2.0
//! Cold pulls: images that are not there yet. Each round takes the next ones of those given, because a
//! runtime may keep layers of an image that was removed.

use super::Context;
use crate::error::verb;
use crate::samples::Sink;
use crate::{Error, Result};
use hull_proto::cri as api;
use hull_tests::cri::image;
use std::time::Instant;

pub(super) async fn run(context: &Context<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let Context { target, size, round, pull_images } = context;
    if pull_images.is_empty() {
        return Err(Error::Option { option: "--pull-image" });
    }
    let kinds = pull_images.len().div_ceil(size.rounds);
    for (kind, name) in pull_images.iter().enumerate().skip(round * kinds).take(kinds) {
        let cri = &target.cri;
        remove(target, name).await?;
        let before = target.cpu()?;
        let began = Instant::now();
        let _id = cri.pull(name).await.map_err(verb("PullImage"))?;
        let took = began.elapsed();
        let after = target.cpu()?;
        let told = cri.image_status(name).await.map_err(verb("ImageStatus"))?;
        let missing = Error::Answer { verb: "ImageStatus", what: "the image that was pulled" };
        let _there = told.ok_or(missing)?;
        // The part of the reference that says what kind of image it is, without round and registry.
        let short = name.rsplit('/').next().and_then(|last| last.split(':').next());
        let short = short.map_or_else(|| kind.to_string(), str::to_owned);
        sink.ms(&format!("cold pull of {short}"), took);
        if let (Some(before), Some(after)) = (before, after) {
            let spent = Some(after.saturating_sub(before));
            sink.cpu(&format!("CPU per cold pull of {short}"), spent, 1.0);
        }
        remove(target, name).await?;
    }
    Ok(())
}

async fn remove(target: &crate::target::Target, name: &str) -> Result<()> {
    let request = api::RemoveImageRequest { image: Some(image(name)) };
    target.cri.image.clone().remove_image(request).await.map_err(verb("RemoveImage")).map(drop)
}
