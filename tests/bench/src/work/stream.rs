// SPDX-License-Identifier: Apache-2.0
//! An exec session that streams zeros to the client over WebSocket.

use crate::error::verb;
use crate::samples::{Sink, Unit};
use crate::size::Size;
use crate::target::{Network, Target};
use crate::{Error, Result};
use hull_proto::cri as api;
use hull_tests::session::{self, STDOUT};
use std::time::Instant;

/// Bytes that the process writes at a time.
const BLOCK_BYTES: u64 = 64 << 10;

pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let up = target.up(Network::Pod).await?;
    let blocks = size.stream_bytes.div_ceil(BLOCK_BYTES);
    let script = format!("dd if=/dev/zero bs={BLOCK_BYTES} count={blocks} 2> /dev/null");
    let request = api::ExecRequest {
        container_id: up.container.clone(),
        cmd: ["sh", "-c", &script].map(String::from).into(),
        stdout: true,
        ..Default::default()
    };
    let before = target.cpu()?;
    let began = Instant::now();
    let url =
        target.cri.runtime.clone().exec(request).await.map_err(verb("Exec"))?.into_inner().url;
    let failed = |said| Error::Stream { said };
    let (_input, mut output) = session::open_fast(&url).await.map_err(failed)?;
    let mut bytes = 0;
    while let Some((channel, chunk)) = output.next().await {
        if channel == STDOUT {
            bytes += chunk.len() as u64;
        }
    }
    let took = began.elapsed();
    if bytes != blocks * BLOCK_BYTES {
        return Err(failed(format!("{bytes} bytes came of {}", blocks * BLOCK_BYTES)));
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let mb = bytes as f64 / 1e6;
    sink.add("exec stream", Unit::MbPerSecond, mb / took.as_secs_f64());
    if let (Some(before), Some(after)) = (before, target.cpu()?) {
        sink.cpu("CPU per streamed GB", Some(after.saturating_sub(before)), mb / 1e3);
    }
    Ok(())
}
