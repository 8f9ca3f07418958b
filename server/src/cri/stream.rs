// SPDX-License-Identifier: Apache-2.0
//! The verbs that answer with a URL: what can be refused at once is, the rest is said in the session.

use super::service::Cri;
use super::status;
use crate::container::exec;
use crate::streaming::StreamRequest;
use hull_proto::cri as api;
use hull_streaming::remotecommand::RequestedStreams;
use tonic::Status;

impl Cri {
    pub(super) fn exec_url(&self, request: api::ExecRequest) -> Result<String, Status> {
        let api::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        let requested = RequestedStreams { stdin, stdout, stderr, tty };
        check(requested)?;
        if cmd.is_empty() {
            return Err(status::invalid("cmd", "it is empty"));
        }
        let (container, pod) = self.container(&container_id)?;
        let view = pod.view();
        exec::running_thawed(&self.node, &view, &container, "run a command in")
            .map_err(status::of)?;
        self.streaming.url(StreamRequest::Exec { container, cmd, requested }).map_err(status::of)
    }

    pub(super) fn attach_url(&self, request: &api::AttachRequest) -> Result<String, Status> {
        let api::AttachRequest { stdin, stdout, stderr, tty, .. } = *request;
        let requested = RequestedStreams { stdin, stdout, stderr, tty };
        check(requested)?;
        let (container, pod) = self.container(&request.container_id)?;
        let view = pod.view();
        exec::running_thawed(&self.node, &view, &container, "attach to").map_err(status::of)?;
        self.streaming.url(StreamRequest::Attach { container, requested }).map_err(status::of)
    }

    pub(super) fn port_forward_url(
        &self,
        request: &api::PortForwardRequest,
    ) -> Result<String, Status> {
        let pod = self.pod(&request.pod_sandbox_id)?.id;
        self.streaming.url(StreamRequest::PortForward { pod }).map_err(status::of)
    }
}

fn check(requested: RequestedStreams) -> Result<(), Status> {
    if requested.tty && requested.stderr {
        return Err(status::invalid("stderr", "a terminal has one output, which is stdout"));
    }
    if !(requested.stdin || requested.stdout || requested.stderr) {
        return Err(status::invalid("stdin, stdout, stderr", "none of them is requested"));
    }
    Ok(())
}
