// SPDX-License-Identifier: Apache-2.0
//! The connection to the daemon.

use super::error::{Error, Result};
use crate::config::Config;
use hull_proto::admin;
use hull_proto::admin::hull_client::HullClient;
use hull_proto::cri::image_service_client::ImageServiceClient;
use hull_proto::cri::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use std::path::Path;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Longest response, in bytes: two streams of 16 MiB from one exec, and their framing.
const MESSAGE_BYTES_MAX: usize = 40 << 20;

/// The daemon's three services over one connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
    pub(crate) admin: HullClient<Channel>,
}

impl Client {
    /// Connects to the daemon at `socket`.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        // A first connection of our own: the channel would hide the reason of a failure.
        let first = UnixStream::connect(socket)
            .await
            .map_err(|source| Error::Connect { socket: socket.to_owned(), source })?;
        drop(first);
        let path = socket.to_owned();
        let dial = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is not used: the connector has the path.
        let channel = Endpoint::from_static("http://hull")
            .connect_with_connector(dial)
            .await
            .map_err(|source| Error::Channel { socket: socket.to_owned(), source })?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            admin: HullClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        })
    }

    /// The configuration of the running daemon, which may differ from the files.
    pub(crate) async fn config(&mut self) -> Result<Config> {
        let answer = self.admin.config(admin::ConfigRequest {}).await?.into_inner();
        toml::from_str(&answer.toml).map_err(|_| Error::Response {
            operation: "read the configuration of the daemon",
            missing: "configuration of this version",
        })
    }
}
