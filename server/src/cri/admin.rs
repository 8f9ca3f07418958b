// SPDX-License-Identifier: Apache-2.0
//! Hull's own service, for its command line: pulls with progress, imports, the merged config.

use super::{Cri, status};
use crate::node::blocking;
use hull_image::{Auth, Progress, ProgressState, Reference};
use hull_proto::admin as api;
use hull_proto::admin::hull_server::Hull;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// Progress messages that may wait for a slow reader; older ones are worth nothing to it.
const PROGRESS_QUEUE: usize = 64;

#[tonic::async_trait]
impl Hull for Cri {
    async fn pull(
        &self,
        request: Request<api::PullRequest>,
    ) -> Result<Response<BoxStream<api::PullProgress>>, Status> {
        let request = request.into_inner();
        let reference = Reference::parse(&request.image).map_err(|err| status::of_image(&err))?;
        let auth = if request.username.is_empty() {
            None
        } else {
            let auth = Auth::from_parts(&request.username, &request.password, "", "", "");
            Some(auth.map_err(|err| status::of_image(&err))?)
        };
        let (progress_in, mut progress) = mpsc::channel::<Progress>(PROGRESS_QUEUE);
        let (out, stream) = mpsc::channel(PROGRESS_QUEUE);
        let images = Arc::clone(&self.node.images);
        tokio::spawn(async move {
            let pull = images.pull(&reference, auth.as_ref(), Some(progress_in));
            tokio::pin!(pull);
            let done = loop {
                tokio::select! {
                    done = &mut pull => break done,
                    Some(step) = progress.recv() => {
                        // A reader that left does not stop the pull.
                        let _left = out.send(Ok(layer(step))).await;
                    }
                }
            };
            while let Ok(step) = progress.try_recv() {
                let _left = out.send(Ok(layer(step))).await;
            }
            let last = match done {
                Ok(image) => Ok(api::PullProgress { layer: None, done: image.id.clone() }),
                Err(err) => Err(status::of_image(&err)),
            };
            let _left = out.send(last).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn import(
        &self,
        request: Request<Streaming<api::ImportChunk>>,
    ) -> Result<Response<api::ImportResponse>, Status> {
        let mut chunks = request.into_inner();
        // Spooled beside the layers: an archive may be larger than memory.
        let mut spool = self.node.images.spool().map_err(|err| status::of_image(&err))?;
        let mut name = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if name.is_none() {
                name = Some(chunk.name);
            }
            spool = blocking(move || spool.write_all(&chunk.data).map(|()| spool)).await.map_err(
                |err| Status::unknown(format!("cannot keep the archive while it arrives: {err}")),
            )?;
        }
        spool
            .rewind()
            .map_err(|err| Status::unknown(format!("cannot read the archive again: {err}")))?;
        let name = name.filter(|name| !name.is_empty());
        let imported = self.node.images.import(spool, name.as_deref()).await;
        let images = imported
            .map_err(|err| status::of_image(&err))?
            .into_iter()
            .map(|of| api::ImportedImage { id: of.image.id.clone(), names: of.names });
        Ok(Response::new(api::ImportResponse { images: images.collect() }))
    }

    async fn config(
        &self,
        _: Request<api::ConfigRequest>,
    ) -> Result<Response<api::ConfigResponse>, Status> {
        let toml = toml::to_string(&self.node.config)
            .map_err(|err| Status::internal(format!("cannot show the config: {err}")))?;
        Ok(Response::new(api::ConfigResponse { toml }))
    }
}

fn layer(step: Progress) -> api::PullProgress {
    use api::layer_progress::State;
    let state = match step.state {
        ProgressState::Waiting => State::Waiting,
        ProgressState::Receiving => State::Receiving,
        ProgressState::Unpacked => State::Unpacked,
        ProgressState::Present => State::Present,
    };
    api::PullProgress {
        layer: Some(api::LayerProgress {
            digest: step.digest,
            received: step.received,
            total: step.total,
            state: state as i32,
        }),
        done: String::new(),
    }
}
