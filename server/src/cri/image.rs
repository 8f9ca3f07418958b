// SPDX-License-Identifier: Apache-2.0
//! The verbs of ImageService.

use super::pagination::batched;
use super::pulls;
use super::service::Cri;
use super::status;
use crate::node::now_ns;
use crate::observe::stats;
use crate::oci_spec;
use crate::storage::blocking;
use hull_image::{Auth, Image, Reference};
use hull_plan::accounts::{Account, UserSpec};
use hull_proto::cri as api;
use hull_proto::cri::image_service_server::ImageService;
use hull_sys::text::shown_json;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for Cri {
    async fn list_images(
        &self,
        request: Request<api::ListImagesRequest>,
    ) -> Answer<api::ListImagesResponse> {
        let images = self.images_by(request.into_inner().filter);
        Ok(Response::new(api::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<api::ImageStatusRequest>,
    ) -> Answer<api::ImageStatusResponse> {
        let request = request.into_inner();
        let name = required(name_of(request.image))?;
        // A missing image is not an error: the kubelet then pulls it.
        let found = self.node.images.find(&name);
        // Nor is one that is broken: pulled again, it is repaired.
        let found = found.filter(|image| self.node.images.is_whole(image));
        let mut info = HashMap::new();
        if let (true, Some(image)) = (request.verbose, &found) {
            let text = serde_json::json!({
                "imageSpec": image.config,
                "layers": image.layers,
                "platform": image.platform,
            });
            info.insert("info".to_owned(), shown_json(&text.to_string()).into_owned());
        }
        Ok(Response::new(api::ImageStatusResponse {
            image: found.map(|image| shown(&image)),
            info,
        }))
    }

    async fn pull_image(
        &self,
        request: Request<api::PullImageRequest>,
    ) -> Answer<api::PullImageResponse> {
        let request = request.into_inner();
        let name = required(name_of(request.image))?;
        let reference = Reference::parse(&name).map_err(|err| status::of_image(&err))?;
        let auth = request.auth.filter(|auth| is_for(auth, &reference)).map(auth).transpose()?;
        let metadata = request.sandbox_config.and_then(|of| of.metadata).unwrap_or_default();
        let (node, of_pod) = (&self.node, (metadata.namespace.as_str(), metadata.name.as_str()));
        let pulled =
            pulls::recorded(node, &name, of_pod, node.images.pull(&reference, auth.as_ref(), None));
        let pulled = pulled.await;
        let image = pulled.map_err(|err| status::of_pull(&err))?;
        Ok(Response::new(api::PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<api::RemoveImageRequest>,
    ) -> Answer<api::RemoveImageResponse> {
        let name = required(name_of(request.into_inner().image))?;
        // As CRI 1.36 says: by any one of its names the image goes with all of them.
        self.remove_named(name, Names::All).await?;
        Ok(Response::new(api::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<api::ImageFsInfoRequest>,
    ) -> Answer<api::ImageFsInfoResponse> {
        let usage = self.node.images.usage().map_err(|err| status::of_image(&err))?;
        let written = self.node.images.rootfs_usage_known();
        let node = Arc::clone(&self.node);
        drop(tokio::task::spawn_blocking(move || node.layers.refresh(&node.images)));
        let now = now_ns();
        Ok(Response::new(api::ImageFsInfoResponse {
            image_filesystems: vec![stats::filesystem(&usage, now)],
            container_filesystems: vec![stats::filesystem(&written, now)],
        }))
    }

    async fn stream_images(
        &self,
        request: Request<api::StreamImagesRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::StreamImagesResponse>> {
        let images = self.images_by(request.into_inner().filter);
        Ok(batched(images, |images| api::StreamImagesResponse { images }))
    }
}

/// Which names of an image are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// All of them, and the image.
    All,
    /// The given one; the image goes with its last tag.
    This,
}

impl Cri {
    /// Removes an image, or one of its names.
    pub(super) async fn remove_named(&self, name: String, names: Names) -> Result<(), Status> {
        let (node, named) = (Arc::clone(&self.node), name.clone());
        // Without it nothing is removed, and that is a success.
        let known = node.images.find(&name);
        let removed = blocking(move || {
            // Checked while the store holds its index: a user of an image publishes that first,
            // and then checks that the image is still there.
            let used = |id: &str| node.registry.views().iter().any(|view| view.images.contains(id));
            match names {
                Names::All => node.images.remove(&name, &used),
                Names::This => node.images.untag(&name, &used),
            }
        });
        let removed = removed.await.inspect(|_| {
            if let Some(image) = known {
                tracing::info!(image = named, id = image.id, "image or name of an image removed");
            }
        });
        removed.map_err(|err| {
            if matches!(err, hull_image::Error::InUse { .. }) {
                return status::of_image_in_use(&err, &self.users(&named));
            }
            status::of_image(&err)
        })
    }

    /// The pods whose containers use an image.
    fn users(&self, image: &str) -> Vec<String> {
        let Some(image) = self.node.images.find(image) else { return Vec::new() };
        let views = self.node.registry.views();
        let users = views.iter().filter(|view| view.images.contains(&image.id));
        users.map(|view| view.record.full_name()).collect()
    }

    fn images_by(&self, filter: Option<api::ImageFilter>) -> Vec<api::Image> {
        let wanted = name_of(filter.and_then(|filter| filter.image));
        let images = if wanted.is_empty() {
            self.node.images.list()
        } else {
            self.node.images.find(&wanted).into_iter().collect()
        };
        images.iter().map(|image| shown(image)).collect()
    }
}

fn name_of(spec: Option<api::ImageSpec>) -> String {
    spec.map(|spec| spec.image).unwrap_or_default()
}

fn required(name: String) -> Result<String, Status> {
    if name.is_empty() {
        return Err(status::invalid("image.image", "it is empty"));
    }
    Ok(name)
}

pub(super) fn auth(auth: api::AuthConfig) -> Result<Auth, Status> {
    Auth::from_parts(
        &auth.username,
        &auth.password,
        &auth.auth,
        &auth.identity_token,
        &auth.registry_token,
    )
    .map_err(|err| status::of_image(&err))
}

/// Credentials that say which registry they are for are not for others.
fn is_for(auth: &api::AuthConfig, reference: &Reference) -> bool {
    auth.server_address.is_empty() || reference.is_on(&auth.server_address)
}

fn shown(image: &Image) -> api::Image {
    // `USER:GROUP`, a name or a number: CRI wants the number or the name, never both. With a text that is neither
    // the kubelet says that it cannot verify the user, and so does the start of a container.
    let (uid, username) = match oci_spec::user::of_image(&image.config) {
        Ok(None) => (None, String::new()),
        Ok(Some(UserSpec { user: Account::Id(uid), .. })) => (Some(i64::from(uid)), String::new()),
        Ok(Some(UserSpec { user: Account::Name(name), .. })) => (None, name),
        Err(_) => {
            let text = image.config.config().as_ref().and_then(|of| of.user().clone());
            (None, text.unwrap_or_default())
        }
    };
    api::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        username,
        uid: uid.map(|value| api::Int64Value { value }),
        spec: Some(api::ImageSpec { image: image.id.clone(), ..Default::default() }),
        pinned: image.pinned,
    }
}
