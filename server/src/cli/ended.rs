// SPDX-License-Identifier: Apache-2.0
//! The error of a command that needs a running container and is given one that has exited.

use super::client::Client;
use super::error::{Error, Result};
use super::names::container_name;
use super::wait;
use hull_proto::cri as api;
use hull_sys::time::rfc3339;

/// Fails if the container has exited, with its exit code and the time.
///
/// # Errors
/// [`Error::Ended`]; or the daemon does not answer.
pub(crate) async fn refuse(
    client: &mut Client,
    container: &api::Container,
    operation: &'static str,
) -> Result<()> {
    if container.state() != api::ContainerState::ContainerExited {
        return Ok(());
    }
    let status = wait::status_of(client, &container.id).await?;
    if status.state() != api::ContainerState::ContainerExited {
        // It was started again meanwhile.
        return Ok(());
    }
    Err(Error::Ended {
        operation,
        name: container_name(container).to_owned(),
        code: status.exit_code,
        at: String::from_utf8_lossy(&rfc3339(status.finished_at)).into_owned(),
    })
}
