// SPDX-License-Identifier: Apache-2.0
//! A plugin of the node resource interface, made with the library that users' plugins are made with
//! (tests/tools/nriplugin): it does what a test orders and records the calls that it receives.

use crate::eventually::eventually;
use crate::expect::ExpectExt;
use crate::node::Node;
use crate::paths;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A plugin that runs, or ran.
#[derive(Debug)]
pub struct Plugin {
    child: Child,
    files: Files,
}

/// Where a plugin's orders are and the calls that it received.
#[derive(Debug, Clone)]
pub struct Files {
    log: PathBuf,
    orders: PathBuf,
}

/// The program, when it is there.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = paths::root().join(".cache/bin/nriplugin");
    path.is_file().then_some(path)
}

impl Files {
    /// In `dir`, for the plugin `title`.
    #[must_use]
    pub fn of(dir: &Path, title: &str) -> Self {
        Self { log: dir.join(format!("{title}.log")), orders: dir.join(format!("{title}.orders")) }
    }

    /// The configuration of a pre-installed plugin with these files.
    #[must_use]
    pub fn config(&self) -> String {
        serde_json::json!({"log": self.log, "do": self.orders}).to_string()
    }

    /// Orders what the plugin does from now on.
    pub fn order(&self, orders: &Value) {
        let new = self.orders.with_extension("new");
        fs::write(&new, orders.to_string()).or_fail("write a plugin's orders");
        fs::rename(&new, &self.orders).or_fail("put a plugin's orders in place");
    }

    /// All calls that it received, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Names of the calls, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let name = |of: &Value| of["call"].as_str().unwrap_or_default().to_owned();
        self.received().iter().map(name).collect()
    }

    /// Waits until it has received `call`, and gives the latest.
    pub async fn wait_for_call(&self, call: &str) -> Value {
        eventually(format!("the plugin receives {call}"), || async {
            let received = self.received();
            let last = received.iter().rev().find(|of| of["call"] == call).cloned();
            last.ok_or_else(|| format!("it received {:?}", self.calls()))
        })
        .await
    }
}

impl Plugin {
    /// Starts one that connects to `node`, and waits until it is synchronised.
    pub async fn start(node: &Node, title: &str, orders: &Value) -> Self {
        let plugin = Self::spawn(node, title, orders, &[]);
        let _state = plugin.files.wait_for_call("Synchronize").await;
        plugin
    }

    /// Starts one and does not wait.
    #[must_use]
    pub fn spawn(node: &Node, title: &str, orders: &Value, more: &[&str]) -> Self {
        let (index, name) = title.split_once('-').or_fail("split a plugin's index from its name");
        let files = Files::of(&node.host_dir(), title);
        drop(fs::remove_file(&files.log));
        files.order(orders);
        let child = Command::new(program().or_fail("find the plugin"))
            .arg("-socket")
            .arg(node.nri_socket())
            .args(["-index", index, "-name", name])
            .arg("-log")
            .arg(&files.log)
            .arg("-do")
            .arg(&files.orders)
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .or_fail("start a plugin");
        Self { child, files }
    }

    /// Where its orders are and the calls that it received.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Has it ask for the updates in its orders; what came of it.
    pub async fn ask(&self) -> Value {
        let pid = i32::try_from(self.child.id()).or_fail("name the plugin's process");
        kill(Pid::from_raw(pid), Signal::SIGUSR1).or_fail("wake the plugin");
        self.files.wait_for_call("asked").await
    }

    /// Waits until its process has ended.
    pub async fn ended(&mut self) {
        let child = &mut self.child;
        eventually("the plugin's process ends", || {
            let ended = matches!(child.try_wait(), Ok(Some(_)));
            async move { if ended { Ok(()) } else { Err("it runs".to_owned()) } }
        })
        .await;
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
