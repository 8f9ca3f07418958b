// SPDX-License-Identifier: Apache-2.0
//! The API server through `kubectl proxy`, and the times at which a watch delivers the states of pods.

use super::layout::{self, Layout};
use super::machine::Machine;
use crate::eventually::{blocking, with_long_timeout};
use crate::expect::ExpectExt;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for all pods of a step.
pub const PODS_MAX: Duration = Duration::from_secs(300);

/// When a pod reached a state, by the pod's name.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its condition Ready is true.
    pub ready: HashMap<String, Instant>,
    /// Its object is deleted.
    pub gone: HashMap<String, Instant>,
}

/// The API server, through a proxy.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
    proxy: Child,
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.proxy.kill());
        drop(self.proxy.wait());
    }
}

impl Api {
    /// Starts the proxy, which ends when this is dropped.
    #[must_use]
    pub fn start(hub: &Machine, layout: &Layout) -> Self {
        let socket = layout::root().join("proxy.sock");
        drop(fs::remove_file(&socket));
        let mut command = layout::kubectl_command(hub, layout);
        command.arg("proxy").arg(format!("--unix-socket={}", socket.display()));
        command.stdout(std::process::Stdio::null());
        let proxy = command.spawn().or_fail("start kubectl proxy");
        let up = blocking(with_long_timeout(Duration::from_secs(30)), || {
            UnixStream::connect(&socket).map(drop).map_err(|err| err.to_string())
        });
        up.map_err(std::io::Error::other).or_fail("connect to kubectl proxy");
        Self { socket, proxy }
    }

    /// One request; HTTP/1.0, so that the response ends where the connection does.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut stream = send(&self.socket, method, path, body);
        let mut text = String::new();
        stream.read_to_string(&mut text).or_fail(format!("read the response to {method} {path}"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        assert!(good, "{method} {path}: {text}");
        serde_json::from_str(body).or_fail(format!("understand the response to {method} {path}"))
    }
}

fn send(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> UnixStream {
    let mut stream = UnixStream::connect(socket).or_fail("connect to kubectl proxy");
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).or_fail("send a request");
    stream.write_all(body.as_bytes()).or_fail("send a request");
    stream
}

/// The states of pods as a watch shows them.
#[derive(Debug, Clone)]
pub struct Watch(Arc<(Mutex<Seen>, Condvar)>);

impl Watch {
    /// Watches the pods at `path`, such as `/api/v1/namespaces/default/pods`.
    #[must_use]
    pub fn start(api: &Api, path: &str) -> Self {
        let list = api.call("GET", path, None);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let path = format!("{path}?watch=1&resourceVersion={version}");
        let stream = send(&api.socket, "GET", &path, None);
        let watch = Self(Arc::default());
        let into = watch.clone();
        std::thread::spawn(move || into.follow(stream));
        watch
    }

    /// Reads events until the connection ends.
    fn follow(&self, stream: UnixStream) {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let at = Instant::now();
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let pod = &event["object"];
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let is_ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
            let (seen, changed) = &*self.0;
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if event["type"] == "DELETED" {
                seen.gone.entry(name).or_insert(at);
            } else if is_ready {
                seen.ready.entry(name).or_insert(at);
            }
            changed.notify_all();
        }
    }

    /// Waits until `state` has a time for each of `names`, and returns those times in their order.
    #[must_use]
    pub fn times(
        &self,
        names: &[String],
        state: fn(&Seen) -> &HashMap<String, Instant>,
    ) -> Vec<Instant> {
        let (seen, changed) = &*self.0;
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = |seen: &mut Seen| !names.iter().all(|name| state(seen).contains_key(name));
        let waited = changed.wait_timeout_while(seen, PODS_MAX, all);
        let (seen, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let time =
            |name: &String| state(&seen).get(name).copied().or_fail(format!("see {name} in time"));
        names.iter().map(time).collect()
    }
}
