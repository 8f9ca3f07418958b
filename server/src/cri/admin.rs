// SPDX-License-Identifier: Apache-2.0
//! Hull's own service, for its command line: pulls with progress, archives in and out, names, comparing
//! what is stored, the merged config.

use super::diagnose;
use super::events;
use super::image::Names;
use super::pulls;
use super::service::Cri;
use super::settings;
use super::status;
use crate::container::{State, control};
use crate::error::Error;
use crate::limits::call_memory::Received;
use crate::metrics::Exemplars;
use crate::observe::scrape;
use crate::pod::Command;
use crate::storage::blocking;
use hull_image::{Auth, Imported, Left, Progress, ProgressState, Reference, Verified};
use hull_proto::admin as api;
use hull_proto::admin::hull_server::Hull;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// Size of the pieces of an archive that is exported, and how many are made ahead.
const PIECE_BYTES: usize = 512 << 10;
const PIECES_AHEAD: usize = 4;
/// Progress messages that may wait for a slow reader; older ones are worth nothing to it.
const PROGRESS_QUEUE: usize = 64;
/// The highest number of a signal, `signal(7)`.
const SIGNAL_MAX: i32 = 64;

#[tonic::async_trait]
impl Hull for Cri {
    async fn pull(
        &self,
        request: Request<api::PullRequest>,
    ) -> Result<Response<BoxStream<api::PullProgress>>, Status> {
        let request = request.into_inner();
        let reference = Reference::parse(&request.image).map_err(|err| status::of_image(&err))?;
        let auth = account(&request.username, &request.password)?;
        let (progress_in, mut progress) = mpsc::channel::<Progress>(PROGRESS_QUEUE);
        let (out, stream) = mpsc::channel(PROGRESS_QUEUE);
        let (images, node) = (Arc::clone(&self.node.images), Arc::clone(&self.node));
        tokio::spawn(async move {
            let pull = images.pull(&reference, auth.as_ref(), Some(progress_in));
            let pull = pulls::recorded(&node, &request.image, ("", ""), pull);
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
        let received = request.extensions().get::<Received>().cloned();
        let mut chunks = request.into_inner();
        // Spooled beside the layers: an archive may be larger than memory.
        let mut spool = self.node.images.spool().map_err(|err| status::of_image(&err))?;
        let mut name = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if name.is_none() {
                name = Some(chunk.name);
            }
            let bytes = chunk.data.len();
            let written = blocking(move || spool.write_all(&chunk.data).map(|()| spool)).await;
            spool = written.map_err(|err| status::of_image(&self.node.images.spool_failed(err)))?;
            if let Some(received) = &received {
                received.release(bytes);
            }
        }
        let name = name.filter(|name| !name.is_empty());
        let imported = self.node.images.import(spool, name.as_deref()).await;
        let imported = imported.map_err(|err| status::of_image(&err))?;
        let image = |of: Imported| api::ImportedImage { id: of.image.id.clone(), names: of.names };
        let left = |of: Left| api::LeftEntry { name: of.name, why: of.why };
        Ok(Response::new(api::ImportResponse {
            images: imported.images.into_iter().map(image).collect(),
            left: imported.left.into_iter().map(left).collect(),
        }))
    }

    async fn tag(
        &self,
        request: Request<api::TagRequest>,
    ) -> Result<Response<api::TagResponse>, Status> {
        let api::TagRequest { image, name, force } = request.into_inner();
        let full = Reference::parse(&name).map_err(|err| status::of_image(&err))?.to_string();
        let images = Arc::clone(&self.node.images);
        let tagged = blocking(move || images.tag(&image, &name, force)).await;
        tagged.map_err(|err| status::of_image(&err))?;
        Ok(Response::new(api::TagResponse { name: full }))
    }

    async fn untag(
        &self,
        request: Request<api::UntagRequest>,
    ) -> Result<Response<api::UntagResponse>, Status> {
        self.remove_named(request.into_inner().image, Names::This).await?;
        Ok(Response::new(api::UntagResponse {}))
    }

    async fn export(
        &self,
        request: Request<api::ExportRequest>,
    ) -> Result<Response<BoxStream<api::ExportChunk>>, Status> {
        let names = request.into_inner().images;
        let images = Arc::clone(&self.node.images);
        let stream = produced(move |out| {
            let pieces = Pieces { out: out.clone(), piece: Vec::with_capacity(PIECE_BYTES) };
            images.export(&names, pieces).map_err(|err| status::of_image(&err))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn verify(
        &self,
        request: Request<api::VerifyRequest>,
    ) -> Result<Response<api::VerifyResponse>, Status> {
        let request = request.into_inner();
        let images = &self.node.images;
        let auth = account(&request.username, &request.password)?;
        let name = Some(request.image.as_str()).filter(|name| !name.is_empty());
        let mut found = images.verify(name).await.map_err(|err| status::of_image(&err))?;
        let (mut repaired, mut failed) = (Vec::new(), Vec::new());
        if request.repair {
            let broken: BTreeSet<String> = found
                .iter()
                .filter(|of| !of.is_whole())
                .flat_map(|of| of.images.iter().cloned())
                .collect();
            for id in broken {
                match images.repair(&id, auth.as_ref()).await {
                    Ok(()) => repaired.push(id),
                    Err(err) => failed.push(format!("{id}: {}", status::of_image(&err).message())),
                }
            }
            found = images.verify(name).await.map_err(|err| status::of_image(&err))?;
        }
        let layers = found.into_iter().map(verified).collect();
        Ok(Response::new(api::VerifyResponse { layers, repaired, failed }))
    }

    async fn config(
        &self,
        _: Request<api::ConfigRequest>,
    ) -> Result<Response<api::ConfigResponse>, Status> {
        let toml = self.node.config.current().shown_toml().map_err(|err| {
            status::plain(Code::Internal, &format!("cannot show the config: {err}"))
        })?;
        Ok(Response::new(api::ConfigResponse { toml }))
    }

    async fn kill(
        &self,
        request: Request<api::KillRequest>,
    ) -> Result<Response<api::KillResponse>, Status> {
        let api::KillRequest { container_id, signal } = request.into_inner();
        if !(1..=SIGNAL_MAX).contains(&signal) {
            return Err(status::invalid(
                "signal",
                format!("{signal} is not from 1 to {SIGNAL_MAX}"),
            ));
        }
        let (id, pod) = self.container(&container_id)?;
        let sent = pod.request(|reply| Command::Signal { id, signal, reply });
        sent.await.map_err(status::of)?;
        Ok(Response::new(api::KillResponse {}))
    }

    async fn pause(
        &self,
        request: Request<api::PauseRequest>,
    ) -> Result<Response<api::PauseResponse>, Status> {
        let api::PauseRequest { container_id, paused } = request.into_inner();
        let (id, pod) = self.container(&container_id)?;
        control::freeze(&self.node, &pod, &id, paused).await.map_err(status::of)?;
        Ok(Response::new(api::PauseResponse {}))
    }

    async fn start_again(
        &self,
        request: Request<api::StartAgainRequest>,
    ) -> Result<Response<api::StartAgainResponse>, Status> {
        self.start_again_of(&request.into_inner().container_id).await?;
        Ok(Response::new(api::StartAgainResponse {}))
    }

    async fn hold(
        &self,
        request: Request<api::HoldRequest>,
    ) -> Result<Response<BoxStream<api::HoldResponse>>, Status> {
        let (id, pod) = self.container(&request.into_inner().container_id)?;
        let held = pod.request(|reply| Command::Hold { id, reply }).await.map_err(status::of)?;
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            // The caller may have disconnected.
            let _left = out.send(Ok(api::HoldResponse {})).await;
            out.closed().await;
            drop(held);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn paused(
        &self,
        _: Request<api::PausedRequest>,
    ) -> Result<Response<api::PausedResponse>, Status> {
        let node = Arc::clone(&self.node);
        let views = self.node.registry.views();
        let restarting = views.iter().flat_map(|view| view.containers.values());
        let restarting_ids =
            restarting.filter(|of| of.restarting).map(|of| of.record.id.clone()).collect();
        let container_ids = blocking(move || {
            let all = views.iter().flat_map(|view| view.containers.values());
            all.map(|view| &view.record)
                .filter(|of| matches!(of.state, State::Running { .. }))
                .filter(|of| control::is_frozen(&node, &of.cgroup))
                .map(|of| of.id.clone())
                .collect()
        });
        Ok(Response::new(api::PausedResponse {
            container_ids: container_ids.await,
            restarting_ids,
        }))
    }

    async fn events(
        &self,
        request: Request<api::EventsRequest>,
    ) -> Result<Response<BoxStream<api::EventsResponse>>, Status> {
        Ok(Response::new(events::from_log(Arc::clone(&self.node), request.into_inner())))
    }

    async fn explain(
        &self,
        request: Request<api::ExplainRequest>,
    ) -> Result<Response<api::ExplainResponse>, Status> {
        let account = diagnose::account(&self.node, request.into_inner().name).await?;
        Ok(Response::new(api::ExplainResponse { account }))
    }

    async fn load(
        &self,
        _: Request<api::LoadRequest>,
    ) -> Result<Response<api::LoadResponse>, Status> {
        let load = diagnose::load(&self.node).await?;
        Ok(Response::new(api::LoadResponse { load }))
    }

    async fn reload(
        &self,
        request: Request<api::ReloadRequest>,
    ) -> Result<Response<api::ReloadResponse>, Status> {
        Ok(Response::new(settings::reload(&self.node, request.into_inner()).await?))
    }

    async fn log_level(
        &self,
        request: Request<api::LogLevelRequest>,
    ) -> Result<Response<api::LogLevelResponse>, Status> {
        Ok(Response::new(settings::log_level(&self.node, request.into_inner())?))
    }

    async fn metrics(
        &self,
        _request: Request<api::MetricsRequest>,
    ) -> Result<Response<api::MetricsResponse>, Status> {
        let node = Arc::clone(&self.node);
        let text = blocking(move || scrape::text(&node, "command", Exemplars::LeftOut)).await;
        let text = text.map_err(|err| status::of(Error::Internal { what: err.to_string() }))?;
        Ok(Response::new(api::MetricsResponse { text }))
    }

    async fn doctor(
        &self,
        request: Request<api::DoctorRequest>,
    ) -> Result<Response<api::DoctorResponse>, Status> {
        let findings = diagnose::findings(&self.node, request.into_inner().fix).await?;
        Ok(Response::new(api::DoctorResponse { findings }))
    }
}

fn account(username: &str, password: &str) -> Result<Option<Auth>, Status> {
    if username.is_empty() {
        return Ok(None);
    }
    let auth = Auth::from_parts(username, password, "", "", "");
    auth.map(Some).map_err(|err| status::of_image(&err))
}

fn verified(of: Verified) -> api::VerifiedLayer {
    let finding =
        |(path, why): (String, String)| api::Finding { path, why: shown(why, MESSAGE_BYTES_MAX) };
    api::VerifiedLayer {
        diff_id: of.layer,
        images: of.images,
        bytes: of.bytes,
        findings: of.findings.into_iter().map(finding).collect(),
        unknown: of.unknown.unwrap_or_default(),
    }
}

/// A stream that `make` fills, on a thread that may block. It ends with the error of `make`, also if that panics: a
/// part never passes for the whole.
fn produced<T: Send + 'static>(
    make: impl FnOnce(&mpsc::Sender<Result<T, Status>>) -> Result<(), Status> + Send + 'static,
) -> ReceiverStream<Result<T, Status>> {
    let (out, stream) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        let pieces = out.clone();
        let failed = match tokio::task::spawn_blocking(move || make(&pieces)).await {
            Ok(Ok(())) => return,
            Ok(Err(failed)) => failed,
            Err(_) => {
                let text = "cannot make the rest of the answer: its thread ended without a result";
                status::plain(Code::Internal, text)
            }
        };
        // The caller may have disconnected.
        let _left = out.send(Err(failed)).await;
    });
    ReceiverStream::new(stream)
}

/// Sends what is written piece by piece; waits when the reader is slower.
struct Pieces {
    out: mpsc::Sender<Result<api::ExportChunk, Status>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let sent = self.out.blocking_send(Ok(api::ExportChunk { data }));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
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
            waits_for: step
                .wait
                .map(|wait| shown(wait.to_string(), MESSAGE_BYTES_MAX))
                .unwrap_or_default(),
        }),
        done: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_whose_thread_panics_ends_with_an_error() {
        let mut pieces = produced(|out| {
            out.blocking_send(Ok(1)).unwrap();
            panic!("a bug")
        });
        assert_eq!(pieces.next().await.unwrap().unwrap(), 1);
        let last = pieces.next().await.unwrap().unwrap_err();
        assert_eq!(last.code(), Code::Internal);
        assert!(pieces.next().await.is_none());
        let mut whole = produced(|out| {
            out.blocking_send(Ok(2)).unwrap();
            Ok(())
        });
        assert_eq!(whole.next().await.unwrap().unwrap(), 2);
        assert!(whole.next().await.is_none());
    }
}
