// SPDX-License-Identifier: Apache-2.0
//! Records pulls of images in the node's history.

use crate::diagnostics::ending;
use crate::error::Chain;
use crate::history::End;
use crate::node::{Node, now_ns};
use hull_image::{Error, ErrorKind, Image};
use std::sync::Arc;
use std::time::Instant;
use tracing::{info, warn};

/// The one stage of a pull.
const STAGE: &str = "pull";

/// Does `pull` of the image `name`, and records it. `namespace` and `pod` are those of the pod that the caller pulls it
/// for, empty if it does not say.
pub(super) async fn recorded(
    node: &Node,
    name: &str,
    (namespace, pod): (&str, &str),
    pull: impl Future<Output = Result<Arc<Image>, Error>>,
) -> Result<Arc<Image>, Error> {
    let began = Instant::now();
    let id = node.history.begin_pull(name, namespace, pod);
    let caller = Caller { node, id: &id, waits: true };
    let pulled = pull.await;
    caller.answered();
    log(name, (namespace, pod), &pulled, began);
    node.metrics.pulls.count(&[result(&pulled)]);
    let error = pulled.as_ref().err().map(|err| Chain(err).to_string()).unwrap_or_default();
    node.history.end_stage(&id, STAGE, error);
    if let Err(err) = &pulled {
        node.history.end(&id, ending::of_pull(err, now_ns()));
    }
    node.history.gone(&id);
    pulled
}

/// A line for the pull, also for one that other callers share.
fn log(
    image: &str,
    (namespace, pod): (&str, &str),
    pulled: &Result<Arc<Image>, Error>,
    began: Instant,
) {
    // A person's pull is for no pod.
    let pod = (!pod.is_empty()).then(|| format!("{namespace}/{pod}"));
    let took_ms = began.elapsed().as_millis();
    match pulled {
        Ok(of) => info!(image, pod, id = of.id, size = of.size, took_ms, "image pulled"),
        Err(err) => {
            warn!(image, pod, took_ms, error = %Chain(err), hint = err.hint(), "image not pulled");
        }
    }
}

/// The result of a pull, as metrics count it.
fn result(pulled: &Result<Arc<Image>, Error>) -> &'static str {
    let Err(error) = pulled else { return "success" };
    match error.kind() {
        ErrorKind::BadReference => "bad_reference",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Denied => "denied",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::InUse | ErrorKind::Taken | ErrorKind::Other => "error",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Policy => "policy",
    }
}

/// The caller of a pull. If it disconnects, the record must not go on for ever.
struct Caller<'a> {
    node: &'a Node,
    id: &'a str,
    waits: bool,
}

impl Caller<'_> {
    fn answered(mut self) {
        self.waits = false;
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.waits {
            let why = "its caller did not wait for it";
            let Node { history, metrics, .. } = self.node;
            metrics.pulls.count(&["interrupted"]);
            history.end_stage(self.id, STAGE, why.into());
            history.end(self.id, End::interrupted(now_ns(), why));
            history.gone(self.id);
        }
    }
}
